"""No method asks the device anything during a step: a GPU that has to answer waits for all work before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from test_contract import METHODS, make, samples, targets
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from batchmix import Choice, CutMix, ManifoldMixup, Mixup, RegMixup, SnapMix
from batchmix.mixer import Mixer

ASKING = {
    torch.ops.aten._local_scalar_dense.default: "a value (item, tolist, bool, int, float)",
    torch.ops.aten.is_nonzero.default: "a truth value",
    torch.ops.aten.nonzero.default: "the size of nonzero",
    torch.ops.aten.masked_select.default: "the size of masked_select",
    torch.ops.aten.equal.default: "whether two tensors are equal",
    torch.ops.aten._unique2.default: "the size of unique",
}

# The papers of these need an answer on the host; the cards of the methods say so.
HAVE_TO_ASK = {"kmixup"}

images = samples(METHODS["cutmix"], 8, torch.float32), torch.arange(8)
CASES: dict[str, tuple[Callable[[], Mixer], tuple[Tensor, Tensor]]] = {
    **{
        name: (
            lambda method=method: make(method, seed=0),
            (samples(method, 8, torch.float32), targets(method, 8)),
        )
        for name, method in METHODS.items()
        if name not in HAVE_TO_ASK
    },
    "choice per batch": (lambda: Choice({Mixup(0.4): 0.5, CutMix(1.0): 0.5}, seed=0), images),
    "choice per sample": (lambda: Choice({Mixup(0.4): 0.5, CutMix(1.0): 0.4}, per="sample", seed=0), images),
    "some samples": (lambda: CutMix(1.0, p_sample=0.5, seed=0), images),
    "one box": (lambda: CutMix(1.0, per="batch", seed=0), images),
    "pairs": (lambda: CutMix(1.0, per="pair", seed=0), images),
    "between limits": (lambda: CutMix(minmax=(0.2, 0.8), seed=0), images),
}


class Operators(TorchDispatchMode):
    """Fails on an operator whose result, or the size of whose result, the host has to wait for."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in ASKING:
            raise AssertionError(f"{func} asks the device for {ASKING[func]}")
        if func is torch.ops.aten.index.Tensor and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        ):
            raise AssertionError(f"{func} asks the device for the size of a boolean index")
        return func(*args, **(kwargs or {}))


class Calls(TorchFunctionMode):
    """Fails on what reads a tensor's memory without an operator."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in (Tensor.tolist, Tensor.numpy, Tensor.__array__):
            raise AssertionError(f"{func} asks the device for all values")
        return func(*args, **(kwargs or {}))


@contextmanager
def no_questions() -> Iterator[None]:
    with Calls(), Operators():
        yield


@pytest.mark.parametrize(
    "question",
    [
        lambda x: x[0].item(),
        lambda x: x.tolist(),
        lambda x: x.numpy(),
        lambda x: bool(x[0]),
        lambda x: int(x.sum()),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x.masked_select(x > 0),
        lambda x: torch.equal(x, x.clone()),
        lambda x: x.unique(),
    ],
)
def test_the_watch_hears_every_kind_of_question(question: Callable[[Tensor], object]) -> None:
    x = torch.ones(3)
    with pytest.raises(AssertionError, match="asks the device for"), no_questions():
        question(x)


def test_the_watch_lets_work_pass() -> None:
    with no_questions():
        assert (torch.ones(3) + 1).shape == (3,)


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request: pytest.FixtureRequest) -> tuple[Callable[[], Mixer], tuple[Tensor, Tensor]]:
    return request.param


def test_a_step_asks_the_device_nothing(case: tuple[Callable[[], Mixer], tuple[Tensor, Tensor]]) -> None:
    make_mixer, (x, y) = case
    mixer = make_mixer()
    with no_questions():
        for _ in range(2):
            mixer(x, y)
    assert mixer.step == 2


def manifold_step(x: Tensor, y: Tensor) -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()).to(x.device)
    with ManifoldMixup(model, ["0"], mixer=Mixup(2.0, seed=0))(x, y):
        model(x)


BESIDE: dict[str, Callable[[Tensor, Tensor], object]] = {
    "manifold": manifold_step,
    "regmixup": RegMixup(Mixup(10.0, seed=0)),
    "snapmix": SnapMix(lambda x, y: x.mean(1), seed=0),
}


@pytest.mark.parametrize("step", BESIDE.values(), ids=BESIDE.keys())
def test_what_is_no_plan_asks_the_device_nothing_either(step: Callable[[Tensor, Tensor], object]) -> None:
    with no_questions():
        for _ in range(2):
            step(*images)


@pytest.mark.gpu
def test_a_step_on_a_gpu_does_not_wait(
    case: tuple[Callable[[], Mixer], tuple[Tensor, Tensor]], request: pytest.FixtureRequest
) -> None:
    make_mixer, batch = case
    x, y = (part.cuda() for part in batch)
    mixer = make_mixer()
    mixer(x, y)  # what a library sets up at its first call (plans of cuFFT) is not the step's
    request.getfixturevalue("no_sync")
    for _ in range(2):
        mixer(x, y)
