"""The engine: order, resume, failures, stops. The processes of runs are stand-ins, except at the end."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import psutil
import pytest
import torch

from batchmix.errors import DataError, MixError
from batchmix.study import children, engine
from batchmix.study.engine import EngineOptions, ask_task, compare, environments
from batchmix.study.execute import execute
from batchmix.study.plan import Run, StudyPlan
from batchmix.study.progress import StudyProgress
from batchmix.study.records import OF_A_DONE_RUN, read_study, write_record

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are sent as on Unix")

STAND_IN = """
import json, os, pathlib, signal, sys, time
orders = json.loads(sys.stdin.read())
run, folder = orders["run"], pathlib.Path(orders["folder"])
key = f"{run['images']}x{run['epochs']:g}-{run['arm']}-seed{run['seed']}"
with open(folder.parent / "started.txt", "a") as file:
    file.write(f"{key} {os.getpid()} {os.environ['OMP_NUM_THREADS']}\\n")
ways = json.loads((folder.parent / "ways.json").read_text())
way = ways.get(f"{run['arm']} {run['seed']}", ways.get(run["arm"], "done"))
if way == "pair":  # done once another one runs too
    (folder.parent / f"{key}.here").touch()
    while len(list(folder.parent.glob("*.here"))) < 2:
        time.sleep(0.01)
if way == "stoppable":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
if way == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if way == "testing":  # what it does then is not broken off
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(0.5)
if way in ("stoppable", "stubborn"):
    print(json.dumps({"step": 1, "steps": 100}), flush=True)
    time.sleep(60)
if way == "raises":
    print(json.dumps({"error": "ValueError: no"}), flush=True)
    sys.exit(1)
if way == "crashes":
    sys.stderr.write("first\\nSegmentation of the fault\\n\\n")
    sys.exit(3)
if way == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if way == "stops":
    sys.exit(75)
print(json.dumps({"step": 5, "steps": 10}), flush=True)
plan = orders["plan"]
record = {"status": "done", "error": None, **run, "task": plan["task"], "data": plan["data"], "machine": {},
          "command": orders["command"], "date": "2020-01-01", **{name: None for name in KEYS},
          "loss": 1.0, "train_seconds": 1.0, "source": plan["source"],
          "config": {**plan["config"], "size": plan["size"], "arm": {}}}
(folder / "runs" / f"{key}.json").write_text(json.dumps(record))
"""


class Stage:
    """A folder, what the stand-ins do by arm, and which of them were started."""

    def __init__(self, folder):
        self.out, self.folder = folder / "study", folder
        self.ways()

    def ways(self, **ways):
        (self.folder / "ways.json").write_text(json.dumps(ways))

    def compare(self, plan=None, progress=None, **options):
        given = EngineOptions(self.out, **{"command": "batchmix compare", "jobs": 1, **options})
        return compare(plan or made_plan(), given, progress)

    def started(self):
        """What was started since the last time it was asked."""
        path = self.folder / "started.txt"
        lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        path.unlink(missing_ok=True)
        self.pids = [int(pid) for _, pid, _ in lines]
        return [key for key, *_ in lines]


@pytest.fixture
def stage(tmp_path, monkeypatch):
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN.replace("KEYS", repr(OF_A_DONE_RUN)))
    monkeypatch.setattr(children, "COMMAND", (sys.executable, "-I", str(script)))
    return Stage(tmp_path)


def made_plan(arms=("none", "mixup"), seeds=(0, 1), epochs=(2.0,), **changes):
    return StudyPlan(**{"arms": arms, "seeds": seeds, "epochs": epochs, "images": 500, **changes})


class Watched(StudyProgress):
    """Keeps what ended."""

    def __init__(self):
        super().__init__(shown=False)
        self.seen = []

    def ended(self, run, record):
        self.seen.append((run.key, record["status"]))
        super().ended(run, record)


def test_runs_come_seed_by_seed_with_all_arms_and_budgets_of_a_seed_together(stage):
    study = stage.compare(made_plan(epochs=(4.0, 2.0)))
    expected = [f"500x{e}-{a}-seed{s}" for s in (0, 1) for e in (2, 4) for a in ("none", "mixup")]
    assert stage.started() == expected
    assert [f"{r['images']}x{r['epochs']:g}-{r['arm']}-seed{r['seed']}" for r in study.records] == expected
    assert study.baseline == "none"
    assert study.asked["command"] == "batchmix compare"
    assert not list((stage.out / "logs").iterdir())


def test_what_is_done_is_not_done_again(stage):
    first = stage.compare()
    stage.started()
    assert stage.compare(command="another") == first
    assert stage.started() == []


def test_more_arms_seeds_and_epochs_extend_a_study(stage):
    stage.compare()
    stage.started()
    study = stage.compare(made_plan(arms=("none", "cutmix"), seeds=(1, 2)))
    assert study.arms == ["none", "mixup", "cutmix"]
    assert stage.started() == [
        "500x2-cutmix-seed0", "500x2-cutmix-seed1",
        *(f"500x2-{arm}-seed2" for arm in ("none", "mixup", "cutmix")),
    ]  # fmt: skip
    stage.compare(made_plan(arms=("none",), seeds=(0,), epochs=(3,)))
    assert len(stage.started()) == 9
    assert len(read_study(stage.out).records) == 18


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"images": 501}, "images 500, got 501"),
        ({"data": "cifar100"}, "data cifar10, got cifar100"),
        ({"size": 16}, "size None, got 16"),
        ({"config": {"batch_size": 100}}, "batch-size 500, got 100"),
        ({"config": {"widths": (8, 8, 8)}}, r"widths \[32, 64, 128\], got \[8, 8, 8\]"),
        ({"task": "a:b", "config": {}}, "task recipe, got a:b"),
    ],
)
def test_other_settings_do_not_go_into_the_same_folder(stage, changes, named):
    stage.compare()
    before = (stage.out / "study.json").read_text()
    with pytest.raises(MixError, match=f"^--out holds a study with {named}: take another folder$"):
        stage.compare(made_plan(**changes))
    assert (stage.out / "study.json").read_text() == before


def test_the_arm_that_the_others_are_compared_with_stays_the_first(stage):
    stage.compare()
    before = (stage.out / "study.json").read_text()
    says = (
        "^--out holds a study whose first arm is none, .* got mixup first: name none first, or take another"
    )
    with pytest.raises(MixError, match=says):
        stage.compare(made_plan(arms=("mixup", "none")))
    assert (stage.out / "study.json").read_text() == before


def test_a_task_whose_file_changed_does_not_go_into_the_same_folder(stage):
    def mine(source):
        return made_plan(task="mine:make", data=None, source=source)

    stage.compare(mine(None))  # of an earlier version
    stage.compare(mine("a"))
    with pytest.raises(MixError, match=r"^--out holds a study of mine:make before its file changed: take"):
        stage.compare(mine("b"))


def test_a_task_that_never_ran_may_be_mended(stage):
    def mine(source):
        return made_plan(task="mine:make", data=None, source=source)

    stage.ways(none="raises", mixup="raises")
    stage.compare(mine("a"))
    stage.ways()
    assert stage.compare(mine("b")).failed == []
    assert json.loads((stage.out / "study.json").read_text())["source"] == "b"


def test_a_study_of_an_earlier_version_goes_on(stage):
    first = stage.compare()
    asked = json.loads((stage.out / "study.json").read_text())
    del asked["source"]
    (stage.out / "study.json").write_text(json.dumps(asked))
    assert stage.compare().records == first.records


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"data": "cifar100"}, "with data cifar10, got cifar100"),
        ({"size": 16}, "with size None, got 16"),
        ({"config": {"filter_lr": 0.1}}, "with filter-lr 0.24, got 0.1"),
        ({"task": "a:b", "data": None, "config": {}}, "with task recipe, got a:b"),
    ],
)
def test_a_record_of_another_study_is_not_taken_for_one_of_this(stage, changes, named):
    """As is left where study.json was broken, and removed as the message says."""
    stage.compare()
    stage.started()
    (stage.out / "study.json").unlink()
    says = f"500x2-none-seed0.json is the record of a run {named}; remove it to make it anew, or take another"
    with pytest.raises(MixError, match=re.escape(says)):
        stage.compare(made_plan(**changes))
    assert not (stage.out / "study.json").exists()
    assert len(stage.compare().records) == 4  # of the same study they are taken
    assert stage.started() == []


def test_a_record_of_other_images_or_another_file_is_refused(stage):
    def mine(source):
        return made_plan(task="mine:make", data=None, source=source)

    stage.compare(mine("a"))
    (stage.out / "study.json").unlink()
    with pytest.raises(MixError, match=r"seed0\.json is the record of a run before its file changed; remove"):
        stage.compare(mine("b"))
    assert len(stage.compare(mine(None)).records) == 4  # which is not known of an earlier version


def test_a_record_of_an_earlier_version_lacks_what_is_newer(stage):
    first = stage.compare()
    for path in (stage.out / "runs").iterdir():
        record = json.loads(path.read_text())
        del record["source"], record["config"]["compile"]
        path.write_text(json.dumps(record))
    stage.started()
    assert len(stage.compare().records) == len(first.records)
    assert stage.started() == []


# Failures


@pytest.mark.parametrize(
    ("way", "said"),
    [
        ("raises", "ValueError: no"),
        ("crashes", "ended with status 3: Segmentation of the fault"),
        ("killed", "killed by SIGKILL"),
        ("stops", "told to stop"),
    ],
)
def test_a_run_that_fails_is_a_record_and_the_others_go_on_and_it_is_tried_again(stage, way, said):
    stage.ways(**{"none 0": way})
    progress = Watched()
    study = stage.compare(progress=progress)
    assert progress.seen == [
        ("500x2-none-seed0", "failed"), ("500x2-mixup-seed0", "done"), ("500x2-none-seed1", "done"),
        ("500x2-mixup-seed1", "done"),
    ]  # fmt: skip
    (failed,) = study.failed
    assert said in failed["error"]
    assert "\n" not in failed["error"]
    assert (failed["arm"], failed["seed"], failed["epochs"]) == ("none", 0, 2.0)
    assert failed["machine"]["torch"] == torch.__version__
    assert not progress.stopped
    stage.started()
    stage.ways()
    assert stage.compare().failed == []
    assert stage.started() == ["500x2-none-seed0"]


def test_what_a_failed_run_printed_is_kept(stage):
    stage.ways(mixup="crashes")
    stage.compare()
    logs = sorted((stage.out / "logs").iterdir())
    assert [path.name for path in logs] == ["500x2-mixup-seed0.txt", "500x2-mixup-seed1.txt"]
    assert "Segmentation" in logs[0].read_text()


# Stops


@pytest.fixture
def stop_at_the_second_run(stage, monkeypatch):
    """As if Ctrl-C came while the second run is under way."""

    def asked():
        path = stage.folder / "started.txt"
        return path.exists() and len(path.read_text().splitlines()) == 2

    monkeypatch.setattr(engine, "stop_on_signal", lambda _: contextlib.nullcontext(asked))


def gone(pids):
    deadline = time.monotonic() + 20
    while any(psutil.pid_exists(pid) for pid in pids):
        assert time.monotonic() < deadline, "a child outlived the study"
        time.sleep(0.02)
    return True


@pytest.mark.usefixtures("stop_at_the_second_run")
@pytest.mark.parametrize("way", ["stoppable", "stubborn"])
def test_a_stop_keeps_what_is_done_and_the_same_call_goes_on(stage, monkeypatch, way):
    monkeypatch.setattr(engine, "GRACE", 20 if way == "stoppable" else 0.3)
    stage.ways(mixup=way)
    progress = Watched()
    study = stage.compare(progress=progress)
    assert progress.stopped
    assert [(r["arm"], r["status"]) for r in study.records] == [("none", "done")]
    assert len(stage.started()) == 2
    assert gone(stage.pids)
    monkeypatch.setattr(engine, "stop_on_signal", lambda _: contextlib.nullcontext(lambda: False))
    stage.ways()
    progress = Watched()
    assert len(stage.compare(progress=progress).records) == 4
    assert not progress.stopped
    assert not progress.interrupted
    assert len(stage.started()) == 3


@pytest.mark.usefixtures("stop_at_the_second_run")
def test_a_stop_that_comes_in_the_last_test_is_told_though_all_is_done(stage):
    stage.ways(mixup="testing")
    progress = Watched()
    study = stage.compare(made_plan(seeds=(0,)), progress=progress)
    assert [r["status"] for r in study.records] == ["done", "done"]
    assert (progress.stopped, progress.interrupted) == (False, True)


def test_on_windows_a_run_hears_the_ctrl_c_itself_and_has_time_to_save(monkeypatch):
    sent = []
    child = children.Child.__new__(children.Child)
    child.process = SimpleNamespace(poll=lambda: None, send_signal=sent.append)
    for platform, expected in (("win32", []), ("linux", [signal.SIGTERM])):
        with monkeypatch.context() as patched:
            patched.setattr(sys, "platform", platform)
            child.stop()
        assert sent == expected


def test_no_child_outlives_an_engine_that_fails(stage, monkeypatch):
    class Broken(StudyProgress):
        def step(self, run, share):
            raise RuntimeError("no screen")

    stage.ways(none="stubborn")
    with pytest.raises(RuntimeError, match="no screen"):
        stage.compare(progress=Broken(shown=False))
    stage.started()
    assert gone(stage.pids)
    assert not (stage.out / ".lock").exists()


# Side by side


def test_jobs_are_side_by_side(stage):
    stage.ways(none="pair", mixup="pair")  # alone, each would wait for ever
    study = stage.compare(made_plan(seeds=(0,)), jobs=2)
    assert len(study.records) == 2


@pytest.mark.parametrize(
    ("jobs", "threads", "expected"),
    [(None, None, ["6"]), (1, None, ["6"]), (2, None, ["3", "3"]), (4, None, ["1"] * 4), (8, None, ["1"] * 8),
     (2, 5, ["5", "5"])],
)  # fmt: skip
def test_threads_are_shared_out(monkeypatch, jobs, threads, expected):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    made = environments(jobs, threads, torch.device("cpu"))
    assert [own["OMP_NUM_THREADS"] for own in made] == expected
    assert not any("CUDA_VISIBLE_DEVICES" in own for own in made)


@pytest.mark.parametrize(
    ("jobs", "device", "shown", "expected"),
    [
        (None, "cuda", None, ["0", "1", "2"]),
        (2, "cuda", None, ["0", "1"]),
        (5, "cuda", None, ["0", "1", "2", "0", "1"]),
        (None, "cuda:1", None, ["1"]),
        (2, "cuda:2", None, ["2", "2"]),
        (None, "cuda", "4,7", ["4", "7"]),
        (None, "cuda:1", "4,7", ["7"]),
    ],
)
def test_each_child_sees_one_gpu(monkeypatch, jobs, device, shown, expected):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if shown:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
    made = environments(jobs, None, torch.device(device))
    assert [own["CUDA_VISIBLE_DEVICES"] for own in made] == expected


# The folder


def test_two_studies_do_not_share_a_folder(stage, hold):
    stage.out.mkdir()
    holder = hold(stage.out)
    with pytest.raises(DataError, match=f"{stage.out.name} is in use by process {holder.pid} on"):
        stage.compare()
    assert stage.started() == []
    holder.kill()
    holder.wait()
    assert len(stage.compare().records) == 4


@pytest.mark.parametrize(
    ("name", "text"),
    [("runs/500x2-none-seed0.json", "{"), ("study.json", "{}"), ("study.json", "{")],
)
def test_a_broken_file_is_named_and_not_trained_over(stage, name, text):
    stage.compare()
    (stage.out / name).write_text(text)
    with pytest.raises(DataError, match=name):
        stage.compare()


def test_a_plan_that_is_broken_by_hand_is_named(stage):
    stage.compare()
    asked = json.loads((stage.out / "study.json").read_text())
    (stage.out / "study.json").write_text(json.dumps({**asked, "arms": ["none", "mixpu"]}))
    with pytest.raises(DataError, match=r"study.json is not the plan of a study: ARM takes one of"):
        stage.compare()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"arms": ()}, "arms"), ({"arms": ("none", "mixup", "mixup:alpha=0.4")}, "the same"),
        ({"seeds": ()}, "seeds"), ({"seeds": (0, 0)}, "seeds"), ({"seeds": (-1,)}, "seeds"),
        ({"epochs": (1e308,)}, "epochs"),
        ({"epochs": (0,)}, "epochs"), ({"epochs": (float("nan"),)}, "epochs"), ({"epochs": (1, 1)}, "epochs"),
        ({"images": 100}, "images"), ({"size": 8}, "^size takes"), ({"config": {"widths": (1, 2)}}, "widths"),
        ({"config": {"batchsize": 3}}, "'batchsize'"),
    ],
)  # fmt: skip
def test_a_plan_that_makes_no_sense_is_one_line(changes, named):
    with pytest.raises(MixError, match=named) as raised:
        made_plan(**changes)
    assert "\n" not in str(raised.value)


def test_plans_and_keys_are_the_same_after_json():
    plan = made_plan(arms=("none", "cutmix:minmax=0.1,0.5"), epochs=(2, 0.5), config={"sizes": (16, 32)})
    assert StudyPlan.from_dict(json.loads(json.dumps(plan.as_dict()))) == plan
    keys = [run.key for run in plan.runs()]
    assert keys[1] == "500x0.5-cutmix+minmax=0.1,0.5-seed0"
    assert len(set(keys)) == 8
    assert {plan.recipe_config(run).sizes for run in plan.runs()} == {(16, 32)}


def test_budgets_that_agree_to_six_digits_have_records_of_their_own():
    keys = [Run("none", 0, 500, epochs).key for epochs in (4.0, 4.0000001, 1234567.0, 0.1)]
    assert keys == [f"500x{epochs}-none-seed0" for epochs in ("4", "4.0000001", "1234567.0", "0.1")]


def test_the_key_of_an_arm_with_many_options_is_a_file_name(tmp_path):
    shares = ",".join(f"{name}=0.0{'1' * 30}" for name in ("cutmix", "fmix", "mixup", "resizemix", "gridmix"))
    keys = {Run(f"choice:{shares},until={until}", seed, 500, 4.0).key for until in "01" for seed in (0, 1)}
    assert len(keys) == 4
    (tmp_path / "runs").mkdir()
    for key in keys:
        assert key.startswith("500x4-choice+cutmix=0.0111")
        write_record(tmp_path, key, {})
    short = Run("mixup:" + "a" * 215, 0, 500, 4.0).key  # a name that was none too long is as it was
    assert short == f"500x4-mixup+{'a' * 215}-seed0"


def test_a_study_of_other_pixels_trains_at_that_size():
    plan = made_plan(size=64)
    assert plan.recipe_config(plan.runs()[0]).sizes == (64,)


# The real processes

TASK = """
import torch
from torch.utils.data import DataLoader, TensorDataset
from batchmix.study import Task

def make_task(seed):
    print("a line of the user's own on standard output")
    x = torch.rand(60, 4, generator=torch.Generator().manual_seed(0))
    data = TensorDataset(x, (x[:, 0] > x[:, 1]).long())
    train = DataLoader(data, batch_size=10, shuffle=True)
    return Task(torch.nn.Linear(4, 2), train, DataLoader(data, 30), torch.nn.CrossEntropyLoss(), epochs=3)

def diverging(seed):
    task = make_task(seed)
    if seed == 1:
        torch.nn.init.constant_(task.model.weight, float("inf"))
    return task

def broken(seed):
    raise RuntimeError("this task\\nis broken")
"""


@pytest.fixture
def users_module(tmp_path, monkeypatch):
    (tmp_path / "users_own_task.py").write_text(TASK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return "users_own_task"


def scores_of(study):
    measured = ("train_seconds", "images_per_second", "peak_memory_mb", "machine", "date", "command")
    return [{name: v for name, v in record.items() if name not in measured} for record in study.records]


@pytest.mark.timeout(200)
def test_a_study_that_was_killed_goes_on_to_the_same_records(users_module, tmp_path):
    words = ["compare", f"{users_module}:make_task", "none", "mixup", "--seeds=1", "--out=killed"]
    with subprocess.Popen([sys.executable, "-m", "batchmix", *words], stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 150
        while not list(tmp_path.glob("killed/runs/*.json")):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.02)
        offspring = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
        process.send_signal(signal.SIGKILL)
    task, source = f"{users_module}:make_task", hashlib.sha256(TASK.encode()).hexdigest()
    plan = StudyPlan(("none", "mixup"), (0,), (3,), 60, None, None, task, source=source)
    resumed = compare(plan, EngineOptions(tmp_path / "killed", "batchmix compare"))
    assert len(resumed.records) == 2
    assert resumed.failed == []
    for run in plan.runs():  # unbroken, in this process
        orders = {"plan": plan.as_dict(), "run": vars(run), "device": "cpu", "root": None, "command": ""}
        (tmp_path / "unbroken" / "runs").mkdir(parents=True, exist_ok=True)
        assert execute(orders, tmp_path / "unbroken", lambda step, steps: None)
    (tmp_path / "unbroken" / "study.json").write_text((tmp_path / "killed" / "study.json").read_text())
    assert scores_of(read_study(tmp_path / "unbroken")) == scores_of(resumed)
    assert gone(offspring)


@pytest.mark.timeout(200)
def test_a_run_that_diverged_has_failed(users_module, tmp_path):
    plan = StudyPlan(("none",), (0, 1), (1,), 60, None, None, f"{users_module}:diverging")
    study = compare(plan, EngineOptions(tmp_path / "study"))
    assert [(record["seed"], record["status"]) for record in study.records] == [(0, "done"), (1, "failed")]
    assert study.failed[0]["error"] == "diverged: the loss on the test samples is nan"


def test_a_task_is_asked_in_a_process_of_its_own(users_module):
    source = hashlib.sha256(TASK.encode()).hexdigest()
    assert ask_task(f"{users_module}:make_task") == {"epochs": 3, "images": 60, "source": source}
    with pytest.raises(MixError, match=r"broken cannot be made: RuntimeError: this task is broken$"):
        ask_task(f"{users_module}:broken")


def test_a_task_that_is_asked_is_ended_with_who_asks(users_module, tmp_path, monkeypatch):
    """Ctrl-C does not reach it: it stands in a group of its own."""
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(60)")
    asked = []

    def interrupt(child):
        asked.append(child.process.pid)
        raise KeyboardInterrupt

    monkeypatch.setattr(children.Child, "wait", interrupt)
    with pytest.raises(KeyboardInterrupt):
        ask_task("slow:make_task")
    assert gone(asked)


def test_the_time_that_is_left_counts_what_was_done_in_this_session(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    progress = StudyProgress(shown=False)
    runs = [Run("none", seed, 100, 1.0) for seed in range(4)]
    progress.start(runs, runs[1:])
    assert progress.left() == ""
    progress.step(runs[1], 0.5)  # it goes on at the middle
    now[0] = 10.0
    progress.step(runs[1], 1.0)
    assert progress.left() == "about 40 s left"  # half a run in 10 s, two to go
    progress.step(runs[2], 0.0)
    now[0] = 30.0
    progress.step(runs[2], 1.0)
    assert progress.left() == "about 20 s left"
