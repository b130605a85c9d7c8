"""The exported names are a promise, so they are a test."""

from __future__ import annotations

import inspect
import re
import typing

import pytest

import batchmix
import batchmix.typing

PUBLIC = (
    "AttentiveCutMix",
    "CMixup",
    "Choice",
    "CutMix",
    "EnergyMixup",
    "FMix",
    "GridMix",
    "KMixup",
    "ManifoldMixup",
    "MixCollate",
    "MixError",
    "MixPlan",
    "MixUpLoss",
    "MixedTarget",
    "Mixer",
    "Mixup",
    "Normalize",
    "RegMixup",
    "ResizeMix",
    "SaliencyMix",
    "SmoothMix",
    "SnapMix",
    "SpecMix",
    "TabularCutMix",
    "TokenCutMix",
    "TransMix",
    "__version__",
    "blend",
    "calibration_error",
    "expected_accuracy",
    "from_next_rank",
    "kernel",
    "mix_objects",
    "mixed_loss",
    "off_after",
    "ramp",
    "reweigh",
    "sample_lam",
    "sample_partner",
)


@pytest.mark.parametrize("name", PUBLIC)
def test_annotations_can_be_resolved_by_who_reads_them(name: str) -> None:
    thing = getattr(batchmix, name)
    if callable(thing):
        typing.get_type_hints(thing.__init__ if isinstance(thing, type) else thing)


def aliases(thing: object) -> set[str]:
    """The names of types that are no classes, in the signatures of a public function or class."""
    members = dict(inspect.getmembers(thing, callable))
    functions = [thing, *(members[name] for name in members if not re.match("_[^_]", name))]
    found = set()
    for function in map(inspect.unwrap, functions):
        if inspect.isfunction(function) and function.__module__.startswith("batchmix."):
            words = re.findall(r"\w+", " ".join(map(str, function.__annotations__.values())))
            found |= {word for word in words if typing.get_origin(function.__globals__.get(word))}
    return found


def test_the_types_of_signatures_can_be_imported() -> None:
    used = set().union(*(aliases(getattr(batchmix, name)) for name in PUBLIC))
    assert {"Cam", "Kernel", "Kinds", "Objects", "PerChoice"} <= used
    assert used <= set(batchmix.typing.__all__)


def undocumented(thing: object) -> str | None:
    """What the docstring of a public callable lacks; None where it lacks nothing."""
    doc = inspect.getdoc(thing) if thing.__doc__ else None
    if not doc:
        return "no docstring"
    if isinstance(thing, type) and issubclass(thing, Exception):
        return None  # raised by batchmix, not built by users
    if isinstance(thing, type) and "__init__" in vars(thing):
        doc += thing.__init__.__doc__ or ""
    if inspect.signature(thing).parameters and "Args:" not in doc:
        return "parameters, and no Args"
    return None


def test_all_is_the_public_list() -> None:
    assert tuple(batchmix.__all__) == PUBLIC
    assert list(PUBLIC) == sorted(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name_is_there_and_documented(name: str) -> None:
    thing = getattr(batchmix, name)
    if callable(thing):
        assert undocumented(thing) is None


def test_a_missing_docstring_is_caught() -> None:
    def bare(x: int) -> int:
        return x

    def half(x: int) -> int:
        """Return x."""
        return x

    def simple() -> int:
        """Return 1."""
        return 1

    class BareError(ValueError):
        pass

    assert undocumented(bare) == "no docstring"
    assert undocumented(half) == "parameters, and no Args"
    assert undocumented(simple) is None
    assert undocumented(BareError) == "no docstring"
