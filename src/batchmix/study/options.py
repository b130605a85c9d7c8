"""The options of a method as text, typed by its signature."""

from __future__ import annotations

import inspect
import math
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from batchmix.errors import MixError
from batchmix.mixer import Mixer, MixerOptions

LEFT_OUT = {"seed", "rank", "schedule"}  # the study's own
FLAGS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


@dataclass(frozen=True)
class Option:
    """One option: the type of its value, and its default."""

    kind: Any
    default: Any

    def read(self, name: str, text: str) -> Any:
        """The value of the option.

        Raises:
            MixError: If the text is not of the type; the message calls the option ``name``.
        """
        kind = _readable(self.kind)
        if kind is not self.kind and text == "none":
            return None
        try:
            return _read(kind, text)
        except (ValueError, KeyError):
            raise MixError.of(name, text, _takes(kind)) from None


class _Until(Option):
    def read(self, name: str, text: str) -> Any:
        value = super().read(name, text)
        if not 0 <= value <= 1:
            raise MixError.of(name, value, "a share of the training in [0, 1]")
        return value


UNTIL = _Until(float, 1.0)
"""The option of every arm that mixes."""


def options_of(method: type[Mixer]) -> dict[str, Option]:
    """What the constructor of a method takes that can be written as text, in order.

    Example:
        >>> from batchmix import KMixup
        >>> list(options_of(KMixup))
        ['alpha', 'k', 'per', 'fold', 'p', 'p_sample']
    """
    hints = typing.get_type_hints(method.__init__, localns={"Unpack": list})  # imported for checkers alone
    found: dict[str, Option] = {}
    for name, parameter in inspect.signature(method).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            of_all = typing.get_type_hints(MixerOptions)
            defaults = inspect.signature(Mixer).parameters
            found |= {key: Option(of_all[key], defaults[key].default) for key in of_all}
        else:
            found[name] = Option(hints[name], parameter.default)
    return {name: o for name, o in found.items() if name not in LEFT_OUT and _can_be_text(o.kind)}


def as_text(value: Any) -> str:
    """A value as ``Option.read`` takes it."""
    if isinstance(value, tuple):
        return ",".join(map(as_text, value))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _readable(kind: Any) -> Any:
    """The type without ``| None``."""
    if get_origin(kind) not in (Union, types.UnionType):
        return kind
    parts = [part for part in get_args(kind) if part is not type(None)]
    return parts[0] if len(parts) == 1 else kind


def _can_be_text(kind: Any) -> bool:
    kind = _readable(kind)
    return kind in (bool, int, float) or get_origin(kind) is Literal or _parts(kind) is not None


def _parts(kind: Any) -> type | None:
    """The type of the parts of a sequence of numbers."""
    part = get_args(kind)[0] if get_origin(kind) in (tuple, Sequence) else None
    return part if part in (int, float) else None


def _read(kind: Any, text: str) -> Any:
    if kind is bool:
        return FLAGS[text.lower()]
    if kind is int:
        return int(text)
    if kind is float:
        value = float(text)
        if not math.isfinite(value):
            raise ValueError
        return value
    if get_origin(kind) is Literal:
        if text not in get_args(kind):
            raise ValueError
        return text
    read: Callable[[str], Any] = _parts(kind) or str
    return tuple(read(part) for part in text.split(","))


def _takes(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
    words = {bool: "true or false", int: "a whole number", float: "a number"}
    return words.get(kind, "numbers with commas between them")
