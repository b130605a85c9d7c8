"""What the files of a study hold, value by value: what was changed by hand is named."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from batchmix.errors import DataError, shorten
from batchmix.files import is_number
from batchmix.recipe.evaluation import BINS

Kind: TypeAlias = tuple[str, Callable[[Any], bool]]
"""What a value is, in words, and whether it is that."""


def check_values(
    path: Path, found: Mapping[str, Any], kinds: Mapping[str, Kind], what: str, advice: str
) -> None:
    """Refuse a file of which a value is of another kind; names that it lacks are passed over.

    Args:
        path: The file.
        found: What it holds.
        kinds: By name.
        what: What the file is, for the message.
        advice: What can be done, for its end.

    Raises:
        DataError: If a value is of another kind; the message names the file and the value.
    """
    for name, (takes, holds) in kinds.items():
        if name in found and not holds(found[name]):
            raise DataError(f"{path} is not {what}: {name} takes {takes}, got {shorten(found[name])}{advice}")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_score(value: Any) -> bool:
    """None where a task has no such score; what has diverged is no finite number."""
    return value is None or _is_whole(value) or isinstance(value, float)


def _are(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and bool(value) and all(map(holds, value))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_point(value: Any) -> bool:
    """A point of a learning curve."""
    return isinstance(value, dict) and is_number(value.get("epoch")) and all(map(_is_score, value.values()))


def _is_curve(value: Any) -> bool:
    return not value or _are(_is_point)(value)


def _is_reliability(value: Any) -> bool:
    """As ``batchmix.recipe.evaluation.reliability`` gives it, or nothing."""
    if not value:
        return True
    if not isinstance(value, dict):
        return False
    kinds = {"count": _is_whole, "confidence": _is_score, "accuracy": _is_score}
    return all(_are(holds)(value.get(name)) and len(value[name]) == BINS for name, holds in kinds.items())


WHOLE: Kind = "a whole number", _is_whole
NUMBER: Kind = "a number", is_number
TEXT: Kind = "a text", _is_text
OBJECT: Kind = "an object", lambda value: isinstance(value, dict)
SCORE: Kind = "a number or null", _is_score

OF_ASKED: dict[str, Kind] = {
    "arms": ("a list of texts", _are(_is_text)),
    "seeds": ("a list of whole numbers", _are(_is_whole)),
    "epochs": ("a list of numbers", _are(is_number)),
    "images": WHOLE,
    "task": TEXT,
    "config": OBJECT,
}
OF_RECORD: dict[str, Kind] = {
    "arm": TEXT,
    "seed": WHOLE,
    "images": WHOLE,
    "epochs": NUMBER,
    "machine": ("an object or null", lambda value: value is None or isinstance(value, dict)),
    "curve": ("a list of points", _is_curve),
    "reliability": (f"{BINS} bins, or null", _is_reliability),
    **dict.fromkeys(
        (
            *("accuracy", "loss", "confidence", "ece", "brier", "temperature", "ece_scaled", "loss_scaled"),
            *("train_seconds", "images_per_second", "peak_memory_mb"),
        ),
        SCORE,
    ),
}
