"""What a record of the benchmark holds, value by value: what was changed by hand is named."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from batchmix.bench.cases import BYTES, PARTS
from batchmix.files import check_names, is_number
from batchmix.study.checks import NUMBER, OBJECT, TEXT, WHOLE, Kind, check_values

WHAT = "a record of batchmix bench"
NEEDED = (
    *("format", "batchmix", "command", "date", "machine", "busy_before", "options", "peers", "missing"),
    "rows",
)
NEEDED_OF_MACHINE = ("device", "cpu", "cores", "isa", "system", "python", "torch")
NEEDED_OF_OPTIONS = ("device",)
NEEDED_OF_ROW = ("part", "what", "shape", "dtype", "threads", "who", "form", "fresh", "kernel")


def _are_counts(values: Collection[Any]) -> bool:
    return all(isinstance(value, int) and not isinstance(value, bool) and value > 0 for value in values)


def _is_shape(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 1 and _are_counts(value)


def _are_seconds(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(is_number(taken) and taken > 0 for taken in value)


def _are_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def _are_failures(value: Any) -> bool:
    return isinstance(value, list) and all(
        _are_texts(one) and {"case", "reason"} <= set(one) for one in value
    )


OF_RECORD: dict[str, Kind] = {
    **dict.fromkeys(("batchmix", "command", "date"), TEXT),
    **dict.fromkeys(("machine", "options"), OBJECT),
    **dict.fromkeys(("peers", "missing"), ("an object of texts", _are_texts)),
    "busy_before": NUMBER,
    "failed": ("a list of cases and reasons", _are_failures),
    "rows": ("a list", lambda value: isinstance(value, list)),
}
OF_MACHINE: dict[str, Kind] = {**dict.fromkeys(NEEDED_OF_MACHINE, TEXT), "cores": WHOLE}
OF_OPTIONS: dict[str, Kind] = {
    "device": TEXT,
    "classes": (
        "an object of whole numbers",
        lambda value: isinstance(value, dict) and _are_counts([*value.values()]),
    ),
}
OF_ROW: dict[str, Kind] = {
    **dict.fromkeys(("what", "who", "form", "failed"), TEXT),
    "part": (f"one of {', '.join(PARTS)}", lambda value: value in PARTS),
    "shape": ("two whole numbers or more", _is_shape),
    "dtype": (f"one of {', '.join(BYTES)}", lambda value: value in tuple(BYTES)),
    "threads": WHOLE,
    "fresh": ("true or false", lambda value: isinstance(value, bool)),
    "kernel": ("a text or null", lambda value: value is None or isinstance(value, str)),
    "seconds": ("a list of numbers > 0", _are_seconds),
}


def check_record(path: Path, found: Mapping[str, Any]) -> None:
    """Refuse a record that lacks something, or has a value of another kind.

    Raises:
        DataError: If it does; the message names the file and the value.
    """
    _check(path, found, NEEDED, OF_RECORD)
    _check(path, found["machine"], NEEDED_OF_MACHINE, OF_MACHINE)
    _check(path, found["options"], NEEDED_OF_OPTIONS, OF_OPTIONS)
    for number, row in enumerate(found["rows"], start=1):
        _check(path, row, NEEDED_OF_ROW, OF_ROW, f", in row {number}")


def _check(
    path: Path, found: Any, needed: Collection[str], kinds: Mapping[str, Kind], where: str = ""
) -> None:
    check_names(path, found, needed, WHAT, where)
    check_values(path, found, kinds, WHAT, where)
