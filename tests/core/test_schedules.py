from __future__ import annotations

import pickle
from collections.abc import Callable

import numpy as np
import pytest

from batchmix import off_after, ramp
from refusals import assert_named


def test_off_after_counts_batches() -> None:
    assert [off_after(3)(step) for step in range(5)] == [1.0, 1.0, 1.0, 0.0, 0.0]
    assert off_after(0)(0) == 0.0
    assert off_after(float("inf"))(10**9) == 1.0


def test_numbers_of_numpy_are_numbers() -> None:
    assert [off_after(np.int64(2))(step) for step in range(3)] == [1, 1, 0]
    assert ramp(np.float32(0.5), 1, steps=np.int64(2))(1) == 0.75


def test_ramp_is_a_straight_line_and_then_level() -> None:
    assert [ramp(0.5, 2.5, 4)(step) for step in (0, 1, 2, 4, 5, 100)] == [0.5, 1.0, 1.5, 2.5, 2.5, 2.5]


@pytest.mark.parametrize("schedule", [off_after(5), ramp(0, 1, steps=7)])
def test_a_schedule_is_a_value(schedule: object) -> None:
    assert pickle.loads(pickle.dumps(schedule)) == schedule
    assert repr(schedule).startswith(type(schedule).__name__)


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("steps", lambda: off_after(-1)),
        ("steps", lambda: off_after("10")),
        ("steps", lambda: off_after(float("nan"))),
        ("steps", lambda: off_after(True)),
        ("steps", lambda: off_after(0.5)),  # a share of the training, which it cannot know
        ("steps", lambda: ramp(0, 1, steps=0)),
        ("start", lambda: ramp(-1, 1, steps=5)),
        ("end", lambda: ramp(1, float("nan"), steps=5)),
        ("end", lambda: ramp(1, "0", steps=5)),
    ],
)
def test_a_wrong_argument_is_named_in_one_line(argument: str, call: Callable[[], object]) -> None:
    assert_named(argument, call)
