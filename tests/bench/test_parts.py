"""Each part measures what it says, at shapes small enough for a test: who has a row, and what is computed."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import batchmix as bm
from batchmix.bench import losses, mixing, price, records, run, sampling
from batchmix.bench.cases import BenchOptions, Case
from batchmix.bench.peers import Composer
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
        ("batchmix", f, k) for f in ("fresh", "into a buffer", "in place") for k in (None, "numba", "torch")
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
    assert len(failed) == 3
    refused = "kernel takes 'auto' or 'torch' for tensors elsewhere than on a GPU, got 'triton'"
    assert {row["failed"] for row in failed} == {refused}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_images_go_from_bytes_to_the_dtype_in_every_chain(dtype: str) -> None:
    rows = mixing.measure_images(Case("images", "mixup", SMALL, dtype, 1), QUICK, [Composer(CPU)])
    assert {("batchmix", "fresh", None), ("torch", "chain", None), ("Composer", "formula", None)} <= labels(
        rows
    )
    assert find(rows, "batchmix", "fresh") is not None
    assert find(rows, "Composer", "formula") is not None


def test_all_forms_of_the_loss_have_the_same_value_and_gradient() -> None:
    logits = torch.randn(8, 5, dtype=torch.float64, requires_grad=True)
    y = torch.arange(8) % 5
    target = bm.MixedTarget.from_plan(y, bm.Mixup(0.4, seed=0).plan(logits))
    expected: Any = F.cross_entropy(logits, target)  # type: ignore[arg-type]
    (gradient,) = torch.autograd.grad(expected, logits)
    for form in (losses.two_calls, losses.dense, losses.soft):
        made = form(logits, target)
        torch.testing.assert_close(made, expected, rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(torch.autograd.grad(made, logits)[0], gradient, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_loss_is_timed_in_every_form(dtype: str) -> None:
    rows = losses.measure_loss(Case("loss", "cross entropy", (8, 10), dtype, 1), QUICK, [])
    assert [row["who"] for row in rows] == ["torch", "batchmix", "two calls", "dense", "dense"]
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


def test_a_case_that_cannot_be_measured_is_named_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_room(*_: Any) -> list[dict[str, Any]]:
        raise RuntimeError("out of memory")

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
        {"case": "blend: mixup, 6x3x16x16 float32, 1 thread", "reason": "RuntimeError: out of memory"}
    ]
    assert {row["part"] for row in made["rows"]} == {"loss"}
    assert [case.part for case in started] == ["blend", "loss"]
    assert made["missing"] == {"timm": "ModuleNotFoundError: gone"}
    assert torch.get_num_threads() == threads


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
