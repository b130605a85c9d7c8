"""Each goal is met or missed by the numbers of the record, and by nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from made_up_bench import blend_rows, other_rows, record, row

from batchmix.bench.goals import GOALS, Goal, goals_of


def goal(values: dict[str, Any], start: str) -> Goal:
    (found,) = [goal for goal in goals_of(values) if goal.text.startswith(start)]
    return found


@pytest.mark.parametrize(
    ("start", "rows", "met", "shown"),
    [
        ("mixup into a buffer", blend_rows(into=11.9), True, "1.19"),
        ("mixup into a buffer", blend_rows(into=12.1), False, "1.21"),
        ("mixup into a buffer", blend_rows(place=12.1), False, "1.21"),
        ("mixup into new memory", blend_rows(fresh=32.9), True, "1.10"),
        ("mixup into new memory", blend_rows(fresh=33.3), False, "1.11"),
        ("CutMix in place", blend_rows(place=9.9, what="cutmix"), True, "0.99"),
        ("CutMix in place", blend_rows(place=10.0, what="cutmix"), False, "1.00"),
        ("uint8 to mixed", other_rows(), True, "6.0 times"),  # against the fastest peer, timm
        ("the loss", other_rows(), False, "1.10"),
        ("a draw", other_rows(), True, "0.50%"),
        ("mixup adds", other_rows(), True, "+0.5% (+0.5% to +0.5%)"),
    ],
)
def test_a_goal_is_met_or_missed_by_its_number(
    start: str, rows: list[dict[str, Any]], met: bool, shown: str
) -> None:
    found = goal(record(rows), start)
    assert (found.met, found.worst.shown) == (met, shown)


def test_the_worst_case_is_named_and_the_good_ones_are_counted() -> None:
    small = {"shape": [512, 3, 32, 32], "threads": 1}
    found = goal(record([*blend_rows(), *blend_rows(into=99, **small)]), "mixup into a buffer")
    assert found.verdict == "missed (3 of 4 cases within it)"
    assert found.worst.where == "into a buffer, 512x3x32x32 float32, 1 thread"


def test_a_slow_chain_is_the_worst_and_a_faster_peer_decides() -> None:
    rows = [*other_rows(), row("images", "fastai", "callback", 49, dtype="bfloat16", fresh=True)]
    found = goal(record(rows), "uint8")
    assert (found.met, found.worst.shown) == (False, "4.9 times")
    assert found.worst.where.endswith("against fastai, callback")


@pytest.mark.parametrize(
    ("blends", "where", "met", "shown"),
    [  # three batches in that time beside two in 10 ms
        (((30.0, None), (16.0, "triton"), (25.0, "torch")), "triton", True, "94%"),
        (((17.0, None), (18.0, "triton")), "automatic", False, "88%"),
    ],
)
def test_bandwidth_is_a_goal_on_a_gpu_alone_for_the_fastest_kernel(
    blends: tuple[tuple[float, str | None], ...], where: str, met: bool, shown: str
) -> None:
    rows = [*blend_rows(), *(row("blend", "batchmix", "blend alone", t, kernel=k) for t, k in blends)]
    assert not [goal for goal in goals_of(record(rows)) if goal.text.startswith("on a GPU")]
    on_gpu = record(rows, options=record()["options"] | {"device": "cuda"})
    found = goal(on_gpu, "on a GPU")
    assert (found.met, found.worst.shown) == (met, shown)
    assert found.worst.where.startswith(f"{where}, 128x3x224x224")


def test_what_was_not_measured_is_no_goal() -> None:
    assert goals_of(record([])) == []
    assert len(goals_of(record())) == len(GOALS) - 2  # neither CutMix nor a GPU
    only_failed = [row("blend", "torch", "copy", 10), row("blend", "batchmix", "in place", None)]
    assert goals_of(record(only_failed)) == []
