"""Every method's file is its card, and the page of all cards is made from them."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from batchmix import MixError
from batchmix.cards import BESIDE, PARTS, Card, as_page, as_text, card, names_of_all
from batchmix.cli.gallery import cards_of
from batchmix.methods import discover

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("name", names_of_all())
def test_a_method_says_how_to_use_it_what_to_set_how_it_works_and_where_it_is_from(name: str) -> None:
    found = card(name)
    assert tuple(found.parts) == PARTS
    assert found.summary.endswith(".")
    assert all(text.endswith(".") for text in found.parts.values())
    assert re.search(r"\b(19|20)\d\d\b", found.parts["Paper"])
    if name not in BESIDE:
        assert "Source:" in (discover()[name].__doc__ or "")


def test_the_page_in_docs_is_made_from_the_cards() -> None:
    page = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    assert page == as_page(cards_of("all")), "make it anew with: make pictures"


def test_a_link_of_the_page_leads_to_its_heading() -> None:
    page = as_page([Card("a", "Attentive CutMix", "does it.", "images", dict.fromkeys(PARTS, "``x`` is."))])
    assert "[Attentive CutMix](#attentive-cutmix)" in page
    assert "## Attentive CutMix" in page
    assert "**Paper.** `x` is." in page


def test_a_terminal_gets_the_same_words() -> None:
    text = as_text(card("mixup"))
    assert text.startswith("mixup: every sample becomes")
    assert "``" not in text


def test_an_unknown_method_is_named_with_those_there_are() -> None:
    with pytest.raises(MixError, match=r"^method takes one of .*cutmix.*, got 'nope'$"):
        card("nope")


def test_a_docstring_that_is_no_card_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    module: ModuleType = sys.modules[discover()["mixup"].__module__]
    for doc in ("mixup: does it.\n\nHow to use: so.\n", "No title\n", None):
        monkeypatch.setattr(module, "__doc__", doc)
        with pytest.raises(MixError, match=r"^the docstring of mixup takes "):
            card("mixup")
