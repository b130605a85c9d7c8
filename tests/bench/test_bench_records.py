"""What a record says follows from its rounds; what is no record is refused in one line."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_up_bench import record, row

from batchmix.bench.records import (
    TURN,
    cases,
    change_of,
    find,
    read_record,
    spread_of,
    times_of,
    write_record,
)
from batchmix.errors import DataError


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    made = record()
    write_record(tmp_path / "a.json", made)
    assert read_record(tmp_path / "a.json") == made
    assert len((tmp_path / "a.json").read_text().splitlines()) > len(made["rows"])  # a row to a line


def test_what_is_no_record_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(DataError, match="cannot read"):
        read_record(path)
    incomplete = record([row("blend", "torch", "copy", 1)])
    del incomplete["machine"]
    cut = record([row("blend", "torch", "copy", 1)])
    del cut["rows"][0]["who"]
    wrong: list[tuple[Any, str]] = [
        ("{", "is not JSON"),
        ("[]", "not a record of batchmix bench: format, "),
        (json.dumps(record() | {"format": 99}), "not a record of batchmix bench, format"),
        (json.dumps(incomplete), "machine missing"),
        (json.dumps(cut), "who missing"),
    ]
    for text, said in wrong:
        path.write_text(text)
        with pytest.raises(DataError, match=said) as caught:
            read_record(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda made: made["machine"].pop("isa"), "isa missing"),
        (lambda made: made.update(machine=[]), "machine takes an object, got []"),
        (lambda made: made["machine"].update(cores="two"), "cores takes a whole number, got 'two'"),
        (lambda made: made.update(rows=3), "rows takes a list, got 3"),
        (lambda made: made.update(rows=[3]), "part, what, shape"),
        (lambda made: made.update(busy_before=None), "busy_before takes a number, got None"),
        (lambda made: made.update(peers={"timm": 1.0}), "peers takes an object of texts"),
        (lambda made: made.update(failed=[{}]), "failed takes a list of cases and reasons"),
        (lambda made: made["options"].pop("device"), "device missing"),
        (
            lambda made: made["options"].update(classes={"32": "ten"}),
            "classes takes an object of whole numbers",
        ),
        (
            lambda made: made["rows"][1].update(shape=[128]),
            "shape takes two whole numbers or more, got [128], in row 2",
        ),
        (
            lambda made: made["rows"][1].update(dtype="int8"),
            "dtype takes one of bfloat16, float32, got 'int8'",
        ),
        (lambda made: made["rows"][1].update(part=["blend"]), "part takes one of blend, "),
        (lambda made: made["rows"][1].update(kernel=1), "kernel takes a text or null"),
        (lambda made: made["rows"][1].update(fresh=0), "fresh takes true or false"),
        (lambda made: made["rows"][1].update(seconds=[0.1, 0.0]), "seconds takes a list of numbers > 0"),
        (
            lambda made: made["rows"][1].update(seconds=[0.1]),
            "seconds takes as many for all of a case, got 1 and 5",
        ),
    ],
)
def test_a_value_of_another_kind_is_refused_in_one_line(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], said: str
) -> None:
    made = json.loads(json.dumps(record()))
    change(made)
    (tmp_path / "a.json").write_text(json.dumps(made))
    with pytest.raises(DataError) as caught:
        read_record(tmp_path / "a.json")
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path / 'a.json'} is not a record of batchmix bench: ")
    assert "\n" not in str(caught.value)


def test_ratios_are_taken_round_by_round() -> None:
    base = {"seconds": [1.0, 10.0, 100.0]}  # a machine that gets slower, for everybody
    mine = {"seconds": [2.0, 20.0, 300.0]}
    spread = times_of(mine, base)
    assert (spread.low, spread.middle, spread.high) == (2.0, 2.0, 2.5)


def test_spread_is_median_and_quartiles() -> None:
    spread = spread_of([5.0, 1.0, 2.0, 4.0, 3.0])
    assert (spread.low, spread.middle, spread.high) == (2.0, 3.0, 4.0)
    assert spread_of([7.0]).high == 7.0


def test_the_interval_of_a_change_covers_it_and_narrows_with_more_turns() -> None:
    draw = random.Random(0)
    arms = [[factor * draw.gauss(1, 0.02) for _ in range(800)] for factor in (1.1, 1.0)]
    few, many = (change_of(*({"seconds": arm[:steps]} for arm in arms)) for steps in (40, 800))
    for change in (few, many):
        assert change.middle == pytest.approx(0.1, abs=0.02)
        assert change.low < 0.1 < change.high or change.low == pytest.approx(0.1)
    assert many.high - many.low < few.high - few.low
    same = change_of({"seconds": [2.0] * 5}, {"seconds": [2.0] * 5})
    assert (same.low, same.middle, same.high) == (0, 0, 0)


def test_steps_of_one_turn_are_not_taken_for_independent() -> None:
    """The same times, once as a machine makes them that is slow for a turn, once in another order."""
    draw = random.Random(0)
    turns = [[draw.gauss(1, 0.02) for _ in range(20)] for _ in range(2)]
    arms = [[time for time in arm for _ in range(TURN)] for arm in turns]
    in_turns = change_of(*({"seconds": arm} for arm in arms))
    shuffled = change_of(*({"seconds": draw.sample(arm, len(arm))} for arm in arms))
    assert in_turns.middle == shuffled.middle
    assert in_turns.high - in_turns.low > 1.4 * (shuffled.high - shuffled.low)


def test_turns_that_are_slow_for_both_arms_say_nothing_of_the_change() -> None:
    slow = [1 + turn for turn in range(20) for _ in range(TURN)]
    change = change_of({"seconds": [1.1 * time for time in slow]}, {"seconds": slow})
    assert (change.low, change.high) == (pytest.approx(0.1), pytest.approx(0.1))


def test_rows_are_found_by_who_and_form_unless_a_kernel_was_named_or_they_failed() -> None:
    rows = record()["rows"]
    (blend,) = [group for group in cases(rows) if group[0]["part"] == "blend"]
    assert find(blend, "batchmix", "in place")["seconds"][0] == 0.010  # type: ignore[index]
    named = [row for row in blend if row["kernel"] is not None]
    assert find(named, "batchmix", "in place") is None
    assert find(blend, "kornia", "V2") is None
    assert len(cases(rows)) == 5
