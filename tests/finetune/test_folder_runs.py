"""Runs on a folder: what they leave, and what a stopped one goes on with."""

from __future__ import annotations

import contextlib
import multiprocessing
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from made_up_folder import make_folder
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel
from torch.overrides import TorchFunctionMode

from batchmix.data.listing import list_images
from batchmix.errors import DataError, MixError
from batchmix.finetune import run as folder_run
from batchmix.finetune import training as folder_training
from batchmix.finetune.board import Board
from batchmix.finetune.config import FolderConfig
from batchmix.finetune.files import ImageFiles
from batchmix.finetune.run import FolderOptions
from batchmix.finetune.training import FolderTraining
from batchmix.finetune.views import Views
from batchmix.recipe import run as recipe_run
from batchmix.recipe.config import TrainConfig
from batchmix.recipe.progress import Progress
from batchmix.recipe.restart import AUTO
from batchmix.scale.world import World
from waiting import nothing_waits

pytest.importorskip("timm")

Train = Callable[..., "dict[str, Any] | None"]


def tiny(**changes: Any) -> FolderConfig:
    return FolderConfig(**{"model": "test_resnet", "size": 32, "batch_size": 4, "epochs": 1, **changes})


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight images to train on, two steps of four."""
    return make_folder(tmp_path_factory.mktemp("images"), {"train": 8, "val": 2}, side=32)


@pytest.fixture(scope="module")
def train(images: Path) -> Train:
    """The run of ``batchmix train --data folder:PATH``."""

    def train(config: FolderConfig | None = None, **options: Any) -> dict[str, Any] | None:
        told = {"preset": "folder", "command": "made up", "device": "cpu", "data": images, **options}
        return folder_run.train_folder(config or tiny(), FolderOptions(**told), Progress(shown=False))

    return train


def stop(train: Train, out: Path) -> Path:
    """The folder of a run that was stopped after its first step."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folder_run, "stop_on_signal", lambda _: contextlib.nullcontext(lambda: True))
        assert train(out=out) is None
    (checkpoint,) = out.glob("*/checkpoint.pt")
    return checkpoint.parent


@pytest.fixture(scope="module")
def stopped_once(train: Train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stop(train, tmp_path_factory.mktemp("runs"))


@pytest.fixture
def stopped(stopped_once: Path, tmp_path: Path) -> Path:
    """A copy of a stopped run."""
    return shutil.copytree(stopped_once, tmp_path / "stopped")


def test_a_stopped_run_says_how_to_go_on_and_does(
    train: Train, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = stop(train, tmp_path)
    assert capsys.readouterr().err.splitlines() == [
        "stopped at step 1 of 2; to go on:",
        f"  batchmix train --data=folder:{images} --workers 0 --device cpu --resume {folder}",
    ]
    summary = train(resume=folder)
    assert summary is not None
    assert summary["folder"] == str(folder)
    assert (summary["classes"], summary["images"]) == (["blue", "red"], 8)
    assert not (folder / "checkpoint.pt").exists()


def test_a_run_stops_after_the_step_in_which_it_is_asked_to(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not at the next report; and the log is that of a run that nobody stopped."""
    asked = iter(range(1, 10))
    monkeypatch.setattr(folder_run, "REPORTS", 2)
    with monkeypatch.context() as patch:
        patch.setattr(
            folder_run, "stop_on_signal", lambda _: contextlib.nullcontext(lambda: next(asked) == 5)
        )
        assert train(tiny(epochs=4), out=tmp_path / "stopped") is None
    assert "stopped at step 5 of 8; to go on:" in capsys.readouterr().err
    (folder,) = (tmp_path / "stopped").iterdir()
    assert train(resume=folder) is not None
    unbroken = train(tiny(epochs=4), out=tmp_path / "unbroken")
    assert unbroken is not None
    assert (folder / "log.jsonl").read_text() == (Path(unbroken["folder"]) / "log.jsonl").read_text()


def test_dropout_follows_the_seed_and_a_resumed_run(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[float] = []

    class Dropout(torch.nn.Module):
        def __init__(self, net: torch.nn.Module) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.training:
                drawn.append(torch.rand(()).item())
            return self.net(x)

    def with_dropout(*words: Any) -> Any:
        net, mean, std = make_model(*words)
        return Dropout(net), mean, std

    def draws(run: Callable[[], Any]) -> list[float]:
        drawn.clear()
        run()
        return [*drawn]

    make_model = folder_training.make_model
    monkeypatch.setattr(folder_training, "make_model", with_dropout)
    first, second = (draws(lambda seed=seed: train(tiny(seed=seed), out=tmp_path / "a")) for seed in (0, 1))
    assert len({*first, *second}) == 4
    halves = draws(lambda: train(resume=stop(train, tmp_path / "stopped")))
    assert halves == first


@pytest.fixture
def training(images: Path) -> FolderTraining:
    """One that has not taken a step, of 16."""
    listing = list_images(images)
    files = ImageFiles(listing.folder, listing.train)
    return FolderTraining(
        tiny(epochs=8), files, listing.classes, torch.device("cpu", 0), world=World(), exact=True
    )


def test_a_shared_mix_is_drawn_where_the_training_is(training: FolderTraining) -> None:
    assert training.order.device == torch.device("cpu", 0)


def test_weights_that_have_several_names_are_written(tmp_path: Path) -> None:
    """As those of timm's CoaT."""
    net = nn.ModuleDict({"one": nn.Linear(2, 2)})
    net["other"] = net["one"]
    training: Any = SimpleNamespace(net=net, ema=SimpleNamespace(module=net))
    folder_run._finish(training, tmp_path, {"accuracy": 1.0})
    for name in ("weights", "weights_ema"):
        written = load_file(tmp_path / f"{name}.safetensors")
        assert written.keys() == net.state_dict().keys()
        assert all(torch.equal(written[key], value) for key, value in net.state_dict().items())


def test_memory_that_ends_is_not_blamed_on_the_size() -> None:
    class Large(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.cuda.OutOfMemoryError):
        folder_training._check_size(Large(), tiny(), torch.device("cpu"))


class StayThere(TorchFunctionMode):
    """Fails where a tensor is sent to a device, if it is there or not."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        assert func not in (torch.Tensor.to, torch.Tensor.cpu)
        return func(*args, **(kwargs or {}))


def test_the_mean_of_the_weights_is_that_of_torch_and_nothing_is_sent(
    training: FolderTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    def average(means: list[torch.Tensor], weights: list[torch.Tensor], _: object) -> None:
        decay = min(training.config.ema, (1 + training.step) / (10 + training.step))
        if means[0].is_floating_point():
            torch._foreach_lerp_(means, weights, 1 - decay)
        else:
            torch._foreach_copy_(means, weights)

    def both() -> None:
        with StayThere():
            ours()
        torchs.update_parameters(training.net)

    torchs = AveragedModel(training.net, multi_avg_fn=average, use_buffers=True)
    ours = training._average
    monkeypatch.setattr(training, "_average", both)
    assert len(list(training.run())) == 16
    kept, expected = training.ema.state_dict(), torchs.state_dict()
    assert kept.keys() == expected.keys()
    assert all(torch.equal(kept[name], expected[name]) for name in kept)
    assert any(not torch.equal(kept[f"module.{name}"], w) for name, w in training.net.named_parameters())


def test_a_test_adds_up_where_the_model_is(
    training: FolderTraining, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = list_images(images)
    files = ImageFiles(listing.folder, listing.test)
    x, labels = Views(files, 32).__getitems__([(index, 0) for index in range(len(files))])
    with torch.no_grad(), training.autocast():
        logits = training.net.eval()(training.normalize(x)).float()
    monkeypatch.setattr(torch.Tensor, "cpu", lambda _: pytest.fail("is read back"))
    scores = folder_run.evaluate(training, files)
    assert scores["loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert scores["accuracy"] == (logits.argmax(1) == labels).double().mean().item()


@pytest.mark.gpu
def test_a_step_on_a_gpu_does_not_wait(images: Path) -> None:
    listing = list_images(images)
    files = ImageFiles(listing.folder, listing.train)
    training = FolderTraining(
        tiny(epochs=8, mix="mixup"), files, listing.classes, torch.device("cuda"), world=World()
    )
    x, labels = (part.pin_memory() for part in Views(files, 32).__getitems__([(i, 0) for i in range(4)]))
    for _ in range(3):  # what libraries set up at their first calls is not the step's
        training._one_step(x, labels)
    with nothing_waits():
        training._one_step(x, labels)


def test_ranks_are_asked_between_reports_whether_to_stop(
    training: FolderTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        folder_training.Stopping, "asked", lambda self, *, due: training.step == 3 and not due
    )
    assert [report.step for report in training.run(every=(100,))] == [0, 1, 2]  # an epoch has two
    assert training.step == 3


@pytest.mark.parametrize("steps", [2, 4])
def test_a_test_that_fails_leaves_a_checkpoint_from_which_it_is_made_again(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    def broken(training: Any, *_: Any, **__: Any) -> dict[str, float]:
        if training.step == steps:
            raise DataError("an image is broken")
        return evaluate(training, *_, **__)

    evaluate = folder_run.evaluate
    with monkeypatch.context() as patch:
        patch.setattr(folder_run, "evaluate", broken)
        with pytest.raises(DataError, match="an image is broken"):
            train(tiny(epochs=2), out=tmp_path / "broken")
    (folder,) = (tmp_path / "broken").iterdir()
    assert torch.load(folder / "checkpoint.pt", weights_only=True)["step"] == steps
    resumed, unbroken = train(resume=folder), train(tiny(epochs=2), out=tmp_path / "unbroken")
    assert resumed is not None
    assert unbroken is not None
    assert resumed["accuracy"] == unbroken["accuracy"]
    assert (folder / "log.jsonl").read_text() == (Path(unbroken["folder"]) / "log.jsonl").read_text()


def test_a_run_of_a_newer_version_is_one_line(train: Train, stopped: Path) -> None:
    state = torch.load(stopped / "checkpoint.pt", weights_only=True)
    state["config"] |= {"wings": 2}
    torch.save(state, stopped / "checkpoint.pt")
    with pytest.raises(DataError, match=r"^--resume takes a run of this version[^\n]*: wings$"):
        train(resume=stopped)


def test_a_folder_that_tensorboard_does_not_take_has_no_curves_and_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def writer(path: str, **_: Any) -> None:
        path.encode()

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=writer))
    said: list[str] = []
    with Board(tmp_path / "\udcff", 0, kept=True, say=said.append) as board:
        board.add(0, "train", {"loss": 1.0})
        board.flush()
    (line,) = said
    assert line.startswith("there will be no curves for TensorBoard: 'utf-8' codec can't encode")


def test_a_worker_that_the_system_kills_is_one_line_that_says_what_helps(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*_: object) -> None:
        (worker,) = multiprocessing.active_children()
        worker.kill()
        time.sleep(10)  # in the middle of which torch raises

    monkeypatch.setattr(Progress, "step", kill)
    line = r"^a process that decodes has ended \(DataLoader worker .*\): .* --workers .* --batch-size .*$"
    with pytest.raises(DataError, match=line):
        train(tiny(epochs=8), workers=1, out=tmp_path)


@pytest.fixture
def other_classes(tmp_path: Path) -> Path:
    folder = make_folder(tmp_path / "fruit", {"train": 8, "val": 2}, side=32)
    for part in ("train", "val"):
        (folder / part / "blue").rename(folder / part / "apple")
    return folder


@pytest.fixture
def more_images(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "more", {"train": 12, "val": 2}, side=32)


@pytest.mark.parametrize(
    ("data", "named"),
    [("other_classes", "classes are ['blue', 'red']"), ("more_images", "images are 8, got 12")],
)
@pytest.mark.parametrize("auto", [False, True])
def test_a_run_goes_on_with_its_own_images_alone(
    train: Train, stopped: Path, request: pytest.FixtureRequest, data: str, named: str, auto: bool
) -> None:
    where = {"resume": AUTO, "out": stopped} if auto else {"resume": stopped}
    with pytest.raises(MixError, match=r"^--data takes the images of the run in [^\n]*$") as caught:
        train(data=request.getfixturevalue(data), **where)
    assert named in str(caught.value)
    assert (stopped / "checkpoint.pt").exists()


def test_a_checkpoint_that_says_nothing_of_its_images_is_taken(train: Train, stopped: Path) -> None:
    state = torch.load(stopped / "checkpoint.pt", weights_only=True)
    torch.save({k: v for k, v in state.items() if k not in ("classes", "images")}, stopped / "checkpoint.pt")
    assert train(resume=stopped) is not None


@pytest.mark.parametrize("auto", [False, True])
def test_a_run_on_a_folder_does_not_go_on_on_cifar10_nor_one_on_cifar10_on_a_folder(
    train: Train, stopped: Path, auto: bool
) -> None:
    where = {"resume": AUTO, "out": stopped} if auto else {"resume": stopped}
    options = recipe_run.RunOptions("smoke", "made up", device="cpu", **where)
    with pytest.raises(MixError, match=r"^--data takes folder:PATH to go on [^\n]*, which is on a folder$"):
        recipe_run.train(TrainConfig(), options, Progress(shown=False))
    state = torch.load(stopped / "checkpoint.pt", weights_only=True)
    torch.save({**state, "config": TrainConfig().as_dict()}, stopped / "checkpoint.pt")
    with pytest.raises(MixError, match=r"^--data takes nothing to go on [^\n]*, which is on CIFAR-10$"):
        train(**where)


def test_a_record_is_checked_before_the_training_and_written_once(train: Train, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"^cannot write {tmp_path}: [^\n]*$"):
        train(out=tmp_path / "runs", record=tmp_path)
    assert not (tmp_path / "runs").exists()
    for _ in range(2):
        train(out=tmp_path / "run", resume=AUTO, record=tmp_path / "records.jsonl")
    assert (tmp_path / "records.jsonl").read_text().count("\n") == 1


@pytest.mark.parametrize("epochs", [1, 0.5])
def test_a_training_that_diverges_stops_and_is_not_finished(
    train: Train, tmp_path: Path, epochs: float
) -> None:
    with pytest.raises(MixError, match=r"^the loss is nan at step \d of \d: [^\n]*rate[^\n]*$"):
        train(tiny(epochs=epochs, lr=1e30, warmup=0), out=tmp_path)
    (folder,) = tmp_path.iterdir()
    assert not {"summary.json", "weights.safetensors"} & {path.name for path in folder.iterdir()}
    assert "NaN" not in (folder / "log.jsonl").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"model": "test_vit", "size": 33}, "size takes pixels that test_vit takes"),
        ({"model": "test_resnet", "pretrained": True}, "model takes a model that timm can make here"),
        ({"batch_size": 9}, "batch_size takes at most the 8 training images, got 9"),
    ],
)
def test_a_model_that_does_not_do_is_one_line_and_leaves_nothing(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "none"))
    with pytest.raises(MixError, match=rf"^{message}[^\n]*$"):
        train(tiny(**words), out=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_every_process_has_two_images_of_a_batch(train: Train, tmp_path: Path) -> None:
    takes = "^batch_size takes two images or more for each of 3 processes, got 4$"
    with pytest.raises(MixError, match=takes):
        train(world=World(size=3), out=tmp_path)
    with pytest.raises(MixError, match=takes):
        recipe_run.train(
            TrainConfig(batch_size=4),
            recipe_run.RunOptions("smoke", "made up", world=World(size=3), out=tmp_path),
            Progress(shown=False),
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("auto", [False, True])
def test_two_processes_do_not_work_on_one_run(
    train: Train, stopped: Path, hold: Callable[[Path], Any], auto: bool
) -> None:
    where = {"resume": AUTO, "out": stopped} if auto else {"resume": stopped}
    kept = (stopped / "checkpoint.pt").read_bytes()
    hold(stopped)
    with pytest.raises(DataError, match=rf"^{stopped} is in use by process \d+ on [^\n]*$"):
        train(**where)
    assert (stopped / "checkpoint.pt").read_bytes() == kept
    other_rank = World(rank=1)  # the first one holds the folder for it
    with recipe_run.run_folder(FolderOptions("folder", "", world=other_rank, **where), "name") as folder:
        assert folder == stopped


def test_a_run_holds_its_folder_while_it_lasts(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(folder_run, "check_loss", lambda *_: seen.extend(tmp_path.glob("*/.lock")))
    summary = train(out=tmp_path)
    assert summary is not None
    assert {path.parent for path in seen} == {Path(summary["folder"])}
    assert not list(tmp_path.glob("*/.lock"))
