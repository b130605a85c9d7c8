"""``batchmix compare``: words become a plan, and what can't be carried out is one line."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_main import call, refused

from batchmix.cli import build_parser, compare
from batchmix.data import ImageSet
from batchmix.errors import MixError
from batchmix.study import engine
from batchmix.study.plan import SHARED, StudyPlan
from batchmix.study.records import Study, read_study


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def images(monkeypatch):
    """Noise in the place of every image set; what was asked for."""
    asked = []

    def load_images(name, **options):
        asked.append((name, options))
        x = np.zeros((1000, 32, 32, 3), np.uint8)
        return ImageSet(name, x, np.arange(1000) % 10, x[:100], np.arange(100) % 10, tuple("abcdefghij"))

    monkeypatch.setattr("batchmix.data.load_images", load_images)
    return asked


def plan(*words):
    return compare.plan_from(build_parser().parse_args(["compare", *words]))


@pytest.mark.usefixtures("images")
def test_words_are_a_plan():
    made = plan(
        "none", "mixup:per=batch", "--seeds=2", "--epochs=5,2.5", "--subset=30%", "--batch-size=100",
        "--widths=8,16,16", "--data=fashion-mnist", "--size=24",
    )  # fmt: skip
    config = {"batch_size": 100, "widths": (8, 16, 16)}
    expected = StudyPlan(
        ("none", "mixup:per=batch"), (0, 1), (5, 2.5), 300, "fashion-mnist", 24, config=config
    )
    assert made == expected
    assert made.config["sizes"] == [24]


def test_left_out_it_is_mixup_against_none_on_all_of_cifar_10(images):
    made = plan()
    assert made == StudyPlan(("none", "mixup"), (0, 1, 2), (4.0,), 1000)
    assert images == [("cifar10", {"size": None, "root": None})]


@pytest.mark.usefixtures("images")
@pytest.mark.parametrize("name", SHARED)
def test_every_setting_of_the_recipe_that_runs_share_has_its_flag(name):
    flag, value = {
        "widths": ("8,8,8", [8, 8, 8]),
        "sizes": ("16,24", [16, 24]),
        "crops": ("24,0", [24, 0]),
        "batch_size": ("64", 64),
        "shift": ("1", 1),
        "net": ("residual", "residual"),
        "activation": ("silu", "silu"),
        "optimizer": ("sgd", "sgd"),
        "schedule": ("triangle", "triangle"),
        "precision": ("float32", "float32"),
        "compile": ("auto", "auto"),
    }.get(name, ("0.25", 0.25))
    assert plan(f"--{name.replace('_', '-')}={flag}").config == {**plan().config, name: value}


def test_what_changes_nothing_in_a_study_has_no_flag(capsys):
    assert "unrecognized arguments: --tta=0.25" in refused(capsys, "compare", "--tta=0.25")


@pytest.mark.parametrize(
    ("text", "seeds"), [("3", (0, 1, 2)), ("5-7", (5, 6, 7)), ("4,9", (4, 9)), ("4,", (4,)), ("2-2", (2,))]
)
def test_seeds_are_a_number_a_range_or_a_list(text, seeds):
    assert compare.seeds_of(text) == seeds


@pytest.mark.parametrize("text", ["0", "-3", "x", "5-3", "1.5", "", ",", "1,x", "1,,2", "9" * 30, "5-99999"])
def test_what_is_no_seed_is_refused(text):
    with pytest.raises(MixError, match=r"^--seeds takes"):
        compare.seeds_of(text)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["mixpu"], "ARM takes one of none, mixup"),
        (["mixup:alhpa=1"], "'alhpa'"),
        (["mixup", "mixup:alpha=0.4"], "the same"),
        (["--epochs", "x"], "--epochs"),
        (["--epochs", "0"], "epochs"),
        (["--epochs", "1e308"], "epochs takes numbers in (0, 1000000], got 1e+308"),
        (["--seeds", "none"], "--seeds"),
        (["--seeds", ""], "--seeds"),
        (["--size", "8"], "size takes a number of pixels in [16, 1024], got 8"),
        (["--widths", "8,8"], "widths"),
        (["--batch-size", "1"], "batch_size"),
        (["--jobs", "0"], "--jobs"),
        (["--threads", "-1"], "--threads"),
        (["--scale", "cpu"], "--scale"),
        (["--page", "x.md"], "--page"),
        (["--preset", "book"], "--preset takes one of article, got 'book'"),
        (["--preset", "article", "--scale", "huge"], "--scale takes one of small, cpu, gpu, got 'huge'"),
        (["--preset", "article", "none", "--epochs=3"], "ARM, --epochs"),
        (["a:b", "c:d"], "one task at most, got a:b, c:d"),
        (["a:b", "--widths=8,8,8", "--subset=5"], "--subset, --widths"),
        (["none", "--report", "x"], "--report takes a study as it is, got ARM too"),
        (
            ["--report", "x", "--out", "y", "--seeds=3"],
            "--report takes a study as it is, got --seeds, --out too",
        ),
        (["--preset", "article", "--report", "x", "--data", "cifar100"], "--report takes a study as it is"),
        (["--report", "x", "--device", "cuda"], "--report takes a study as it is, got --device too"),
        (
            ["--preset", "article", "--report", "x", "--scale", "small"],
            "--report takes a study as it is, got --scale too",
        ),
        (["--report", "nowhere"], "found no study in nowhere"),
        (["--mix", "none"], "--mix"),
    ],
)
def test_a_wrong_argument_is_one_line_before_anything_is_loaded(capsys, tmp_path, monkeypatch, words, named):
    monkeypatch.setattr("batchmix.data.load_images", lambda *_, **__: pytest.fail("it begins to load data"))
    assert named in refused(capsys, "compare", *words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("images")
@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["tokencutmix"], "does not mix images"),
        (["--subset", "1001"], "--subset"),
        (
            ["--subset", "100"],
            "--batch-size takes at most the 100 images that there are, got 500, its default",
        ),
        (["--subset", "100", "--batch-size", "101"], "the 100 images that there are, got 101"),
        (["--device", "abacus"], "--device"),
    ],
)
def test_what_the_images_do_not_allow_is_one_line(capsys, words, named):
    assert named in refused(capsys, "compare", *words)


@pytest.mark.usefixtures("images")
def test_a_method_may_be_written_as_its_class():
    assert plan("None", "CutMix:per=pair").arms == ("none", "cutmix:per=pair")


def test_the_help_says_which_methods_are_no_arms():
    from batchmix.cards import names_of_all
    from batchmix.study.arms import arm_names

    said = compare.DESCRIPTION.partition("(but ")[2].partition(")")[0]
    assert set(said.split(", ")) == set(names_of_all()) - set(arm_names())


@pytest.mark.parametrize("name", ["cifar11", ""])
def test_images_that_there_are_not_name_the_flag(capsys, name):
    assert f"in --data {name}: name takes cifar10, " in refused(capsys, "compare", "--data", name)


def test_a_task_that_cannot_be_made_is_one_line(capsys, tmp_path):
    assert "found no module 'no_module_here'" in refused(capsys, "compare", "no_module_here:make_task")
    assert list(tmp_path.iterdir()) == []


def test_a_task_says_how_long_it_trains_unless_the_words_do(monkeypatch):
    monkeypatch.setattr(engine, "ask_task", lambda name: {"epochs": 7, "images": 60, "source": "abc"})
    assert plan("mine:make", "--seeds=1") == StudyPlan(
        ("none", "mixup"), (0,), (7,), 60, None, task="mine:make", source="abc"
    )
    assert plan("cutmix", "mine:make", "--epochs=2,3").epochs == (2.0, 3.0)


# What comes of a study


@pytest.fixture
def ended(monkeypatch, tmp_path):
    """A study that ends as told, without training."""
    told = {"stopped": False, "failed": 0}

    def pretend(made, options, progress):
        progress.stopped = told["stopped"]
        return Study({"arms": ["none"]}, [{"status": "failed"}] * told["failed"])

    def write_report(study, folder):
        return [folder / "report.html"]

    monkeypatch.setattr(engine, "compare", pretend)
    monkeypatch.setattr("batchmix.study.report.write_report", write_report)
    return told


@pytest.mark.usefixtures("images")
def test_a_study_that_is_done_prints_its_report_and_nothing_else(capsys, ended):
    assert call(capsys, "compare", "--out=here") == (0, "here/report.html\n", "")


@pytest.mark.usefixtures("images")
def test_failed_runs_are_counted_and_make_the_status(capsys, ended):
    ended["failed"] = 2
    status, out, err = call(capsys, "compare", "--out=here")
    assert (status, out) == (1, "here/report.html\n")
    assert "2 of the runs failed" in err


@pytest.mark.usefixtures("images")
def test_a_stop_prints_the_command_to_go_on_with(capsys, ended, monkeypatch):
    ended["stopped"] = True
    monkeypatch.setattr(sys, "argv", ["batchmix", "compare", "mixup:per=batch", "--out=a folder"])
    status, out, err = call(capsys, "compare", "--out=a folder")
    assert (status, out) == (130, "")
    assert "  batchmix compare mixup:per=batch '--out=a folder'\n" in err


@pytest.fixture
def article(monkeypatch):
    """The article's studies without training, of which so many runs fail."""
    told = {"failed": 0}

    def run_article(*_, **__):
        return [Study({}, []), Study({}, [{"status": "failed"}] * told["failed"])]

    monkeypatch.setattr("batchmix.study.article.run_article", run_article)
    monkeypatch.setattr("batchmix.study.article.report_article", lambda folder, page: [page])
    return told


@pytest.mark.usefixtures("article")
@pytest.mark.parametrize(
    ("words", "page"),
    [
        (["--scale=small"], "study/article.md"),
        (["--out=mine"], "mine/article.md"),
        (["--out=results/article"], "docs/article.md"),
        (["--report=./results/article/"], "docs/article.md"),
        (["--report=mine"], "mine/article.md"),
        (["--out=results/article", "--page=x.md"], "x.md"),
    ],
)
def test_the_published_page_is_that_of_the_published_records_alone(capsys, words, page):
    assert call(capsys, "compare", "--preset=article", *words) == (0, f"{Path(page)}\n", "")


def test_failed_runs_of_a_preset_make_the_status_too(capsys, article):
    article["failed"] = 3
    status, out, err = call(capsys, "compare", "--preset=article")
    assert (status, out) == (1, f"{Path('study/article.md')}\n")
    assert "3 of the runs failed" in err


@pytest.fixture
def folder_of_images(tmp_path, monkeypatch):
    """Real files: 40 small images of two colours to train on and 20 to test on."""
    monkeypatch.setenv("BATCHMIX_DATA", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for part, count in (("train", 20), ("test", 10)):
        for name, colour in (("dark", 40), ("light", 180)):
            (tmp_path / "mine" / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = (rng.integers(60, size=(16, 16, 3)) + colour).astype(np.uint8)
                Image.fromarray(pixels).save(tmp_path / "mine" / part / name / f"{number}.png")
    return tmp_path / "mine"


def test_a_study_does_not_go_on_with_other_images(capsys, folder_of_images, tmp_path, monkeypatch):
    monkeypatch.setattr(engine._Runs, "carry_out", lambda *_: True)
    words = ["compare", "--size=16", "--batch-size=10", "--seeds=1", "--out=study"]
    words.append(f"--data=folder:{folder_of_images}")
    assert [call(capsys, *words)[0] for _ in range(2)] == [0, 0]
    (folder_of_images / "train" / "dark" / "0.png").write_bytes(
        (folder_of_images / "train" / "light" / "0.png").read_bytes() + b" "
    )
    line = refused(capsys, *words)
    assert f"--out holds a study of folder:{folder_of_images} before its images changed: take another" in line
    # What an earlier version wrote says nothing of its images.
    asked = json.loads((tmp_path / "study" / "study.json").read_text())
    (tmp_path / "study" / "study.json").write_text(json.dumps({**asked, "source": None}))
    assert call(capsys, *words)[0] == 0
    assert read_study(tmp_path / "study").asked["source"]


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent as on Unix")
@pytest.mark.timeout(250)
def test_ctrl_c_and_the_same_command_again_on_real_files(folder_of_images, tmp_path):
    words = [
        sys.executable, "-m", "batchmix", "compare", "none", "mixup", f"--data=folder:{folder_of_images}",
        "--size=16", "--widths=8,8,8", "--batch-size=10", "--epochs=2", "--seeds=1", "--out=study",
    ]  # fmt: skip
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 200
        while not list(tmp_path.glob("study/runs/*none*.json")) and process.poll() is None:
            assert time.monotonic() < deadline, "the study did not begin"
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        shown, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert shown == ""
    assert "Traceback" not in said
    assert "batchmix compare none mixup" in said.splitlines()[-1]
    assert [record["arm"] for record in read_study(tmp_path / "study").records] == ["none"]

    done = subprocess.run(words, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "2 runs, 1 of them done before" in done.stderr
    assert done.stdout.splitlines()[0] == "study/report.html"
    study = read_study(tmp_path / "study")
    assert [record["arm"] for record in study.records] == ["none", "mixup"]
    assert all(record["data"] == f"folder:{folder_of_images}" for record in study.records)
    assert all(record["config"]["batch_size"] == 10 for record in study.records)
    assert study.records[1]["config"]["arm"]["alpha"] == 0.4
    assert json.loads((tmp_path / "study" / "study.json").read_text())["size"] == 16
