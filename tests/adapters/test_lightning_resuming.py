"""What Lightning's callback leaves behind, and what a checkpoint keeps of it."""

from __future__ import annotations

import pickle
import signal
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning_loop import (
    LIGHTNINGS_OWN_WARNINGS,
    PACKAGES,
    callback,
    framework,
    loader,
    make_module,
    make_trainer,
)
from lightning_watcher import Watcher, assert_mixed, expected, fit, mixer
from plain_loop import train_batches
from torch import Tensor
from torch.utils.data import DataLoader

from batchmix.adapters.lightning import MixUpCallback
from batchmix.adapters.pytorch_lightning import MixUpCallback as OtherMixUpCallback

pytestmark = [
    *(pytest.mark.filterwarnings(f"ignore:{message}") for message in LIGHTNINGS_OWN_WARNINGS),
    # A loader of equal batches need not be resumable, and a resumed run here needs no further checkpoints.
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks used to create"),
]


# What is left behind


class Tripping(Watcher):
    """Fails in the second step of training; ``error`` says how."""

    error: BaseException | None = None

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        if batch_idx == 1 and self.error is not None:
            raise self.error
        return super().training_step(batch, batch_idx)


def assert_as_found(trainer: Any, module: Any) -> None:
    """The module has what training without the callback leaves in one, and the trainer nothing of ours."""
    bare = type(module)()
    fit(bare, train_batches())
    assert set(vars(module)) - {"error"} == set(vars(bare))
    assert "batch_to_device" not in vars(trainer.strategy)


def test_the_module_is_as_found_and_pickles_at_any_time() -> None:
    module, copies = Watcher(), []

    class Pickles(pl.Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, *args: Any) -> None:
            pl_module.seen["train"].clear()
            copies.append(pickle.loads(pickle.dumps(pl_module)))

    made = MixUpCallback(mixer())
    trainer = fit(module, train_batches(), made, Pickles())
    assert len(copies) == 3
    assert_as_found(trainer, module)
    fit(copies[-1], train_batches())
    assert isinstance(copies[-1].seen["train"][0][1], Tensor)
    assert pickle.loads(pickle.dumps(made)).mixer.state_dict() == {"seed": 5, "step": 3}


@pytest.mark.parametrize(
    "error", [RuntimeError("the module's own"), KeyboardInterrupt()], ids=["error", "Ctrl-C"]
)
def test_a_run_that_breaks_leaves_all_as_found(error: BaseException) -> None:
    module, made = Tripping(), MixUpCallback(mixer())
    handler = signal.getsignal(signal.SIGINT)
    trainer = make_trainer("lightning", made, max_epochs=1)
    module.error = error
    try:
        with pytest.raises(SystemExit if isinstance(error, KeyboardInterrupt) else RuntimeError):
            trainer.fit(module, loader(train_batches()))
    finally:
        signal.signal(signal.SIGINT, handler)  # after Ctrl-C Lightning ignores further ones
    assert_as_found(trainer, module)
    module.error = None
    fit(module, train_batches())
    assert isinstance(module.seen["train"][-1][1], Tensor)


def test_a_hook_that_somebody_else_had_put_there_is_put_back() -> None:
    module, calls = Watcher(), []
    trainer = make_trainer("lightning", MixUpCallback(mixer()), max_epochs=1)
    batch_to_device = trainer.strategy.batch_to_device

    def theirs(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return batch_to_device(*args, **kwargs)

    trainer.strategy.batch_to_device = theirs
    trainer.fit(module, loader(train_batches()))
    assert trainer.strategy.batch_to_device is theirs
    assert len(calls) == 3
    assert_mixed(module.seen["train"], expected(train_batches()))


# Resuming


class Resumable(DataLoader):
    """A loader that goes on in the middle of an epoch, as torchdata's StatefulDataLoader does."""

    def __init__(self, batches: list[Any]) -> None:
        super().__init__(batches, batch_size=None)
        self.given = self.start = 0

    def __iter__(self) -> Any:
        first, self.start = self.start, 0
        for place in range(first, len(self.dataset)):
            self.given = place + 1
            yield self.dataset[place]

    def state_dict(self) -> dict[str, int]:
        return {"given": self.given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.start = state["given"] % len(self.dataset)


def every_step(name: str, folder: Path) -> Any:
    """A checkpoint after each step."""
    model_checkpoint = framework(name).callbacks.ModelCheckpoint
    return model_checkpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1)


@pytest.mark.parametrize("name", PACKAGES)
def test_a_resumed_run_goes_on_with_the_very_same_draws(name: str, tmp_path: Path) -> None:
    """From checkpoints in the middle of an epoch, between two epochs, and in the middle of the second."""
    whole = make_module(name)
    trainer = make_trainer(
        name, every_step(name, tmp_path), callback(name)(mixer()), enable_checkpointing=True
    )
    trainer.fit(whole, Resumable(train_batches()))
    assert len(whole.losses.train) == 6
    for step in (1, 2, 3, 4, 5):
        path = tmp_path / f"step={step}.ckpt"
        kept = torch.load(path, weights_only=False)["callbacks"]["MixUpCallback"]
        assert kept == {"seed": 5, "step": step}
        resumed, made = make_module(name), callback(name)(alpha=0.4, seed=99)  # the checkpoint knows better
        make_trainer(name, made).fit(resumed, Resumable(train_batches()), ckpt_path=path, weights_only=False)
        assert resumed.losses.train == pytest.approx(whole.losses.train[step:], rel=1e-6, abs=1e-6)
        assert made.mixer.state_dict() == {"seed": 5, "step": 6}


def test_the_two_packages_resume_one_anothers_draws(tmp_path: Path) -> None:
    trainer = make_trainer(
        "lightning", every_step("lightning", tmp_path), MixUpCallback(mixer()), enable_checkpointing=True
    )
    whole, resumed = make_module("lightning"), make_module("pytorch_lightning")
    trainer.fit(whole, Resumable(train_batches()))
    trainer = make_trainer("pytorch_lightning", OtherMixUpCallback(alpha=0.4))
    checkpoint = tmp_path / "step=2.ckpt"
    trainer.fit(resumed, Resumable(train_batches()), ckpt_path=checkpoint, weights_only=False)
    assert resumed.losses.train == pytest.approx(whole.losses.train[2:], rel=1e-6, abs=1e-6)


class SavesWhenBroken(pl.Callback):
    """What Lightning's OnExceptionCheckpoint does, at any place among the callbacks."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_exception(self, trainer: Any, *args: Any) -> None:
        trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("first", [True, False], ids=["mixing first", "saving first"])
def test_a_step_that_was_interrupted_is_drawn_again(first: bool, tmp_path: Path) -> None:
    """Lightning makes an interrupted step anew. All batches are the same here, since a loader moves on."""
    batches, path = train_batches()[:1] * 4, tmp_path / "broken.ckpt"
    whole, broken, resumed = Watcher(), Tripping(), Watcher()
    fit(whole, batches, MixUpCallback(mixer()))
    broken.error = RuntimeError("the module's own")
    made = MixUpCallback(mixer())
    both = [made, SavesWhenBroken(path)]
    with pytest.raises(RuntimeError, match="the module's own"):
        fit(broken, batches, *(both if first else reversed(both)))
    assert made.mixer.step == 2
    trainer = make_trainer("lightning", MixUpCallback(alpha=0.4), max_epochs=1)
    trainer.fit(resumed, loader(batches), ckpt_path=path, weights_only=False)
    assert broken.losses + resumed.losses == pytest.approx(whole.losses, rel=1e-6)


def test_a_callback_that_saves_at_the_end_of_a_batch_finds_it_done(tmp_path: Path) -> None:
    states = []

    class Saves(pl.Callback):
        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            states.append(
                next(made for made in trainer.callbacks if isinstance(made, MixUpCallback)).state_dict()
            )

    fit(Watcher(), train_batches(), Saves(), MixUpCallback(mixer()))
    assert [state["step"] for state in states] == [1, 2, 3]
