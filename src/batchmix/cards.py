"""The card of a method, read from the docstring of its file: use, suggested values, details, paper."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterable
from typing import NamedTuple

from batchmix.errors import MixError
from batchmix.methods import discover

PARTS = ("How to use", "Suggested values", "Technical details", "Paper")
"""The paragraphs of a card, in this order."""


BESIDE = {"manifold": "any samples", "regmixup": "any samples", "snapmix": "images"}
"""Files beside the methods, which mix by other means than a plan for each batch, and what they take."""


class Card(NamedTuple):
    """What to know about a method."""

    name: str  # of the file: "cutmix"
    title: str  # "CutMix"
    summary: str  # what it does, in one sentence
    takes: str  # the kind of samples it is for: "images"
    parts: dict[str, str]  # by the names in PARTS


def names_of_all() -> list[str]:
    """The names of all cards, in order."""
    return sorted([*discover(), *BESIDE])


def card(name: str) -> Card:
    """The card of a method.

    Args:
        name: Name of its file, such as ``"mixup"``.

    Raises:
        MixError: If there is no such method, or the docstring of its file is not a card.

    Example:
        >>> card("mixup").title
        'mixup'
    """
    if name not in names_of_all():
        raise MixError(f"method takes one of {', '.join(names_of_all())}, got {name!r}")
    methods = discover()
    module = f"batchmix.{name}" if name in BESIDE else methods[name].__module__
    takes = BESIDE[name] if name in BESIDE else methods[name].takes
    doc = inspect.getdoc(importlib.import_module(module)) or ""
    head, _, body = doc.partition("\n\n")
    title, _, summary = " ".join(head.split()).partition(": ")
    _, *pieces = re.split(rf"^({'|'.join(PARTS)}): ", body, flags=re.MULTILINE)
    parts = {label: " ".join(text.split()) for label, text in zip(pieces[::2], pieces[1::2], strict=True)}
    if not summary or tuple(parts) != PARTS:
        wanted = f"a first line 'Name: what it does.' and paragraphs {', '.join(PARTS)}"
        raise MixError(f"the docstring of {name} takes {wanted}, got {title!r} and {', '.join(parts)}")
    return Card(name, title, summary, takes, parts)


def as_text(card: Card) -> str:
    """The card for a terminal."""
    lines = [f"{card.title}: {card.summary}", *(f"{label}: {text}" for label, text in card.parts.items())]
    return "\n\n".join(lines).replace("``", "`")


def as_page(cards: Iterable[Card]) -> str:
    """All cards as a Markdown page."""
    cards = list(cards)
    lines = ["# The methods", "", "| method | for | what it does |", "|---|---|---|"]
    lines += [f"| [{c.title}](#{_anchor(c.title)}) | {c.takes} | {_markdown(c.summary)} |" for c in cards]
    for found in cards:
        lines += ["", f"## {found.title}", "", _markdown(found.summary[0].upper() + found.summary[1:])]
        for label, text in found.parts.items():
            lines += ["", f"**{label}.** {_markdown(text[0].upper() + text[1:])}"]
    return "\n".join(lines) + "\n"


def _markdown(text: str) -> str:
    return text.replace("``", "`")


def _anchor(title: str) -> str:
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
