"""Each part measures what it says, at shapes small enough for a test: who has a row, and what is computed."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import batchmix as bm
from batchmix.bench import losses, mixing, price, records, run, sampling
from batchmix.bench.cases import BenchOptions, Case, random_batch
from batchmix.bench.peers import Composer, Images, Mix
from batchmix.bench.records import find
from batchmix.errors import MixError

CPU = torch.device("cpu")
QUICK = BenchOptions(shapes="quick", repeats=3)
SMALL = (6, 3, 16, 16)


@pytest.fixture(autouse=True)
def one_second_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchmix.bench.timing.MOST_ROUNDS", 3)
    monkeypatch.setattr(price, "QUICK_SECONDS", 0.0)
    for module in (price, records):
        monkeypatch.setattr(module, "TURN", 2)
    monkeypatch.setattr(price, "LEAST_TURNS", 2)


def labels(rows: list[dict[str, Any]]) -> set[tuple[str, str, str | None]]:
    return {(row["who"], row["form"], row["kernel"]) for row in rows}


@pytest.mark.parametrize("method", ["mixup", "cutmix"])
def test_blend_times_ours_in_every_form_and_by_every_kernel_beside_the_peers(method: str) -> None:
    case = Case("blend", method, SMALL, "float32", 1)
    rows = mixing.measure_blend(case, QUICK, [Composer(CPU)])
    forms = {
        ("batchmix", form, kernel)
        for form in ("fresh", "into a buffer", "in place", "blend alone")
        for kernel in (None, "numba", "torch")
    }
    torchs = {("torch", "copy", None), ("torch", "clone", None)}
    assert labels(rows) == forms | torchs | {("batchmix", "draw alone", None), ("Composer", "formula", None)}
    for row in rows:
        assert (row["part"], row["what"], row["shape"]) == ("blend", method, list(SMALL))
        assert row["kernel"] == "numba" or len(row["seconds"]) == 3, row


def test_a_kernel_that_is_missing_is_a_row_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BenchOptions, "kernels", property(lambda self: ("triton",)))
    rows = mixing.measure_blend(Case("blend", "mixup", SMALL, "float32", 1), QUICK, [])
    failed = [row for row in rows if row["kernel"] == "triton"]
    assert len(failed) == 4
    refused = "kernel takes 'auto' or 'torch' for tensors elsewhere than on a GPU, got 'triton'"
    assert {row["failed"] for row in failed} == {refused}


@pytest.mark.parametrize(
    ("dtype", "forms"),
    [("float32", {"formula"}), ("bfloat16", {"formula", "formula in bfloat16"})],
)
def test_images_go_from_bytes_to_the_dtype_in_every_chain(dtype: str, forms: set[str]) -> None:
    rows = mixing.measure_images(Case("images", "mixup", SMALL, dtype, 1), QUICK, [Composer(CPU)])
    assert {("batchmix", "fresh", None), ("torch", "chain", None)} <= labels(rows)
    assert {row["form"] for row in rows if row["who"] == "Composer"} == forms
    assert find(rows, "batchmix", "fresh") is not None
    assert all(find(rows, "Composer", form) is not None for form in forms)


class Stubborn(Composer):
    """A peer whose arguments are not what they were."""

    name = "stubborn"

    def mixes(self, method: str, classes: int) -> list[Mix]:
        raise TypeError("no such argument")


class Careful(Composer):
    """A peer that says what it was asked for, and normalises to float32 alone."""

    name = "careful"
    asked: ClassVar[list[int]] = []

    def mixes(self, method: str, classes: int) -> list[Mix]:
        self.asked.append(classes)
        return super().mixes(method, classes)

    def normaliser(self, dtype: torch.dtype) -> Images:
        if dtype != torch.float32:
            raise ValueError("not in bfloat16")
        return super().normaliser(dtype)


@pytest.mark.parametrize(
    ("part", "measure"), [("blend", mixing.measure_blend), ("images", mixing.measure_images)]
)
def test_a_peer_that_refuses_to_be_set_up_has_a_row_with_the_reason(part: str, measure: run.Measure) -> None:
    rows = measure(Case(part, "mixup", SMALL, "bfloat16", 1), QUICK, [Stubborn(CPU), Composer(CPU)])
    assert {row["failed"] for row in rows if row["who"] == "stubborn"} == {"TypeError: no such argument"}
    assert find(rows, "Composer", "formula") is not None


def test_a_chain_that_cannot_be_in_the_dtype_leaves_the_one_in_float32() -> None:
    rows = mixing.measure_images(Case("images", "mixup", SMALL, "bfloat16", 1), QUICK, [Careful(CPU)])
    assert find(rows, "careful", "formula") is not None
    failed = [row["failed"] for row in rows if row["who"] == "careful" and "failed" in row]
    assert failed == ["ValueError: not in bfloat16"]


@pytest.mark.parametrize(("side", "classes"), [(32, 10), (64, 200), (65, 1000)])
def test_labels_have_as_many_classes_as_images_of_that_size_usually_have(side: int, classes: int) -> None:
    Careful.asked.clear()
    for part, measure in (("blend", mixing.measure_blend), ("images", mixing.measure_images)):
        measure(Case(part, "mixup", (2, 3, side, side), "float32", 1), QUICK, [Careful(CPU)])
    assert Careful.asked == [classes, classes]
    y = random_batch(Case("blend", "mixup", (2000, 1, 1, side), "float32", 1), CPU)[1]
    assert classes / 2 < int(y.max()) < classes


def large_operations(call: Callable[[], object]) -> Counter[str]:
    """How often each operation runs that makes or changes a matrix of all classes."""
    found: Counter[str] = Counter()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            made = func(*args, **(kwargs or {}))
            if isinstance(made, torch.Tensor) and made.ndim == 2 and made.shape[1] > 1:
                found[func.overloadpacket.__name__] += 1
            return made

    with Watch():
        call()
    return found


def test_all_forms_of_the_loss_have_the_value_and_gradient_of_that_of_the_same_mix() -> None:
    logits = torch.randn(8, 5, dtype=torch.float64, requires_grad=True)
    y = torch.tensor([0, 1, 2, 3, 4, 0, 2, 1])
    lam = torch.full((8,), losses.LAM)
    per_sample = bm.MixedTarget.from_plan(y, bm.Mixup(0.4, seed=0).plan(logits))
    forms: list[tuple[Callable[[], torch.Tensor], Any]] = [
        (lambda: losses.two_calls(logits, per_sample), per_sample),
        (lambda: losses.torchvisions(logits, y), bm.MixedTarget(y, y.roll(1), lam)),
        (lambda: losses.timms(logits, y), bm.MixedTarget(y, y.flip(0), lam)),
    ]
    for form, target in forms:
        expected, made = F.cross_entropy(logits, target), form()
        torch.testing.assert_close(made, expected, rtol=1e-6, atol=1e-7)
        gradients = [torch.autograd.grad(loss, logits)[0] for loss in (made, expected)]
        torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-7)


def test_dense_labels_take_the_operations_that_the_libraries_take() -> None:
    """What torch runs for them up to the loss, by name and size: a form that did more would be unfair."""
    timm, v2 = pytest.importorskip("timm.data.mixup"), pytest.importorskip("torchvision.transforms.v2")
    loss = pytest.importorskip("timm.loss").SoftTargetCrossEntropy()
    logits, y = torch.randn(6, 50), torch.arange(6)
    mixup = v2.MixUp(alpha=1.0, num_classes=50)
    pairs: list[tuple[Callable[[], object], Callable[[], object]]] = [
        (
            lambda: losses.torchvisions(logits, y),
            lambda: F.cross_entropy(logits, mixup._mixup_label(y, lam=losses.LAM)),
        ),
        (
            lambda: losses.timms(logits, y),
            lambda: loss(logits, timm.mixup_target(y, 50, losses.LAM)),
        ),
    ]
    for ours, theirs in pairs:
        assert large_operations(ours) == large_operations(theirs)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_loss_is_timed_in_every_form(dtype: str) -> None:
    rows = losses.measure_loss(Case("loss", "cross entropy", (8, 10), dtype, 1), QUICK, [])
    ours = ["batchmix"] * 3
    assert [row["who"] for row in rows] == ["torch", *ours, "two calls", "dense", "dense"]
    assert [row["kernel"] for row in rows if row["who"] == "batchmix"] == [None, "numba", "torch"]
    assert all(len(row["seconds"]) == 3 for row in rows)


def test_draws_are_timed_beside_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchvision")
    monkeypatch.setattr(sampling, "SHAPE", (4, 3, 32, 32))
    rows = sampling.measure_sampling(Case("sampling", "draw", (4, 3, 32, 32), "float32", 1), QUICK, [])
    assert {row["form"] for row in rows if row["who"] == "batchmix"} == {
        f"{method}, per {per}" for method in ("mixup", "cutmix") for per in ("sample", "batch")
    }
    step, draw = find(rows, "torch", "training step"), find(rows, "batchmix", "mixup, per batch")
    assert step is not None
    assert draw is not None
    assert min(step["seconds"]) > min(draw["seconds"])


@pytest.mark.parametrize(
    ("loop", "needed"), [("plain loop", ()), ("fastai", ("fastai",)), ("Lightning", ("lightning",))]
)
def test_both_arms_take_as_many_steps_of_their_own_loop(loop: str, needed: tuple[str, ...]) -> None:
    for name in ("torchvision", *needed):
        pytest.importorskip(name)
    rows = price.measure_price(Case("price", loop, (4, 3, 32, 32), "float32", 1), QUICK, [])
    assert [(row["who"], row["form"]) for row in rows] == [("none", loop), ("mixup", loop)]
    assert [len(row.get("seconds", row.get("failed"))) for row in rows] == [4, 4]


@pytest.mark.parametrize("loop", list(price.LOOPS))
def test_the_arm_with_mixup_mixes_and_the_other_does_not(loop: str) -> None:
    if loop != "plain loop":
        pytest.importorskip(loop.lower())
    seen: list[torch.Tensor] = []

    class Net(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x.detach().clone())
            return super().forward(x.flatten(1))

    batch = (torch.randn(4, 3, 2, 2), torch.arange(4))
    for mixing_ in (False, True):
        seen.clear()
        spell = price.LOOPS[loop](Net(12, 4), price.Batches([batch], CPU), mixing_)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the frameworks', as in measure_price
            times = spell(3)
        assert len(times) == 3
        assert len(seen) == 4
        assert all(torch.equal(x, batch[0]) != mixing_ for x in seen)


def test_a_step_lasts_until_the_next_batch_is_asked_for() -> None:
    batches = price.Batches([(torch.zeros(1), torch.zeros(1))], CPU)
    assert len(batches.spell(lambda: [None for _ in batches], 5)) == 5
    assert len(batches) == 6  # one more shows when the last was done


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), ValueError("out of range")])
def test_a_case_that_cannot_be_measured_is_named_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def no_room(*_: Any) -> list[dict[str, Any]]:
        raise error

    small = Case("loss", "cross entropy", (4, 3), "float32", 1)
    parts = {
        "blend": run.Part(lambda options: [Case("blend", "mixup", SMALL, "float32", 1)], no_room),
        "loss": run.Part(lambda options: [small], losses.measure_loss),
    }
    monkeypatch.setattr(run, "PARTS", parts)
    monkeypatch.setattr(run, "load_peers", lambda device: ([], {"timm": "ModuleNotFoundError: gone"}))
    started: list[Case] = []
    threads = torch.get_num_threads()
    made = run.measure_all(QUICK, command="batchmix bench", started=started.append)
    assert made["failed"] == [
        {"case": "blend: mixup, 6x3x16x16 float32, 1 thread", "reason": f"{type(error).__name__}: {error}"}
    ]
    assert {row["part"] for row in made["rows"]} == {"loss"}
    assert [case.part for case in started] == ["blend", "loss"]
    assert made["missing"] == {"timm": "ModuleNotFoundError: gone"}
    assert torch.get_num_threads() == threads
    assert made["options"]["classes"] == {"32": 10, "224": 1000}


@pytest.mark.parametrize(("name", "told"), [("cpu", []), ("cuda", []), ("cuda:1", ["cuda:1"])])
def test_a_gpu_is_chosen_where_it_has_a_number(
    monkeypatch: pytest.MonkeyPatch, name: str, told: list[str]
) -> None:
    chosen: list[str] = []
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: chosen.append(str(device)))
    monkeypatch.setattr(run, "load_peers", lambda device: ([], {}))
    monkeypatch.setattr(run, "describe_machine", lambda device: {})
    monkeypatch.setattr(run, "all_cases", lambda options: [])
    run.measure_all(replace(QUICK, device=torch.device(name)), command="batchmix bench")
    assert chosen == told


def test_quick_asks_for_less_than_all() -> None:
    quick, whole = run.all_cases(QUICK), run.all_cases(BenchOptions(shapes="all", threads=(1, 2)))
    assert {case.part for case in quick} == set(run.PARTS)
    assert {(case.part, case.shape) for case in quick} < {(case.part, case.shape) for case in whole}
    assert {case.threads for case in whole if case.part == "blend"} == {1, 2}
    assert {case.threads for case in whole if case.part == "price"} == {2}


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"only": ("blend", "flight")}, "--only"),
        ({"only": ()}, "--only"),
        ({"shapes": "huge"}, "--shapes"),
        ({"repeats": 2}, "--repeats"),
        ({"threads": (0,)}, "--threads"),
    ],
)
def test_options_out_of_range_are_named(values: dict[str, Any], named: str) -> None:
    with pytest.raises(MixError, match=named):
        BenchOptions(**values)
