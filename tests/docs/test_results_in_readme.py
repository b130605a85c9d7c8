"""The table in the README is the one its command makes from the committed records."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchmix.recipe.results import BEGIN, END, insert_table, read_records, table

ROOT = Path(__file__).parents[2]


def in_readme(text: str) -> str:
    return text.split(BEGIN)[1].split(END)[0].strip()


def test_the_table_is_made_from_the_records() -> None:
    made = table(read_records(sorted((ROOT / "results").glob("*.jsonl"))), presets_only=True)
    assert in_readme((ROOT / "README.md").read_text()) == made.strip()


def test_a_figure_typed_by_hand_would_show() -> None:
    text = (ROOT / "README.md").read_text()
    made = in_readme(text)
    digit = next(character for character in made if character.isdigit())
    forged = insert_table(text, made.replace(digit, "0" if digit != "0" else "1", 1))
    with pytest.raises(AssertionError):
        assert in_readme(forged) == made


def test_every_record_names_what_made_it() -> None:
    for record in read_records(sorted((ROOT / "results").glob("*.jsonl"))):
        assert record["command"].startswith("batchmix train ")
        assert {"cpu", "cores", "torch", "batchmix", "seed", "date"} <= set(record)
