"""The page of the article's claims: what it says, and that it is made of the records alone."""

from __future__ import annotations

import re
import warnings

import pytest
from article_records import MADE, edit

from batchmix.errors import DataError
from batchmix.study.article import report_article
from batchmix.study.article.claims import all_claims
from batchmix.study.article.evidence import read_evidence
from batchmix.study.article.page import as_markdown
from batchmix.study.article.pictures import draw_all
from batchmix.study.article.presets import ARMS, MIXUP
from batchmix.study.article.verdicts import OPEN


def test_the_page_is_made_of_the_records_alone(folder, tmp_path):
    page, *pictures = report_article(folder, tmp_path / "article.md")
    text = page.read_text()
    for said in (
        "A CPU of 2 GHz",
        "1 of torch's threads",
        "2026-01-31",
        f"`{MADE['command']}`",
        "0, 1, 2, 3, 4, 5",
    ):
        assert said in text
    for arm in ARMS:
        assert f"`{arm}`" in text
    linked = re.findall(r"\]\((pictures/article-[\w-]+\.png)\)", text)
    assert [tmp_path / name for name in linked] == [
        tmp_path / "pictures" / path.name
        for path in sorted(pictures, key=lambda p: linked.index(f"pictures/{p.name}"))
    ]
    before = [path.read_bytes() for path in (page, *pictures)]
    assert all(content.startswith(b"\x89PNG") for content in before[1:])
    assert [path.read_bytes() for path in report_article(folder, tmp_path / "article.md")] == before


def test_the_page_shows_every_verdict_with_n_and_p(evidence):
    text = as_markdown(evidence)
    for claim in all_claims(evidence):
        assert f"{claim.title}: {claim.verdict}\n" in text
        for one in claim.judged:
            assert f"| {one.says} | {one.found} |" in text
    rows = [line for line in text.splitlines() if line.startswith("| mixup is more accurate")]
    assert re.fullmatch(r"\| [^|]+ \| \S+ points \[.*\] \| 6 \| (< )?\.\d+ \| \*\*held\*\* \|", rows[0])


def test_what_the_folder_says_of_its_records_is_on_the_page(folder):
    assert read_evidence(folder).notes == ""
    (folder / "README.md").write_text("# Records\n\nFive of them\nwere slow.\n")
    assert as_markdown(read_evidence(folder)).endswith("\n\nFive of them\nwere slow.\n")


def test_a_command_of_any_bytes_is_on_the_page(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("batchmix.study.article.page.draw_all", lambda _: {})
    edit(folder / "measured" / "loading.json", command="batchmix compare --out caf\udce9")
    (page,) = report_article(folder, tmp_path / "article.md")
    assert "`batchmix compare --out caf\\udce9`" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["loading", "one-hot"])
def test_the_page_says_how_busy_the_machine_was_where_the_record_does(folder, name):
    said = "Just before, 3% of the machine's cores were busy."
    assert said not in as_markdown(read_evidence(folder))
    edit(folder / "measured" / f"{name}.json", busy_before=0.03)
    assert as_markdown(read_evidence(folder)).count(said) == 1


def test_every_table_has_as_many_cells_in_each_row(evidence):
    blocks = as_markdown(evidence).split("\n\n")
    tables = [block.splitlines() for block in blocks if block.startswith("|")]
    assert len(tables) > 12
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1


def test_what_is_drawn_is_inside_the_picture(evidence):
    for name, figure in draw_all(evidence).items():
        figure.draw_without_rendering()
        box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
        assert min(box.x0, box.y0) >= -0.01, name
        assert box.x1 <= width + 0.01, name
        assert box.y1 <= height + 0.01, name


@pytest.mark.parametrize("part", ["measured/loading.json", "few-images/study.json"])
def test_a_part_that_is_missing_is_named(folder, tmp_path, part):
    (folder / part).unlink()
    with pytest.raises(DataError, match=re.escape(part.split("/")[0])):
        report_article(folder, tmp_path / "article.md")
    assert not (tmp_path / "article.md").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "is not JSON"), ("[]", "settings, .* missing"), ("{}", "settings, .* missing")],
)
def test_a_broken_record_is_named(folder, text, message):
    path = folder / "measured" / "one-hot.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_evidence(folder)


@pytest.mark.parametrize("lost", ["none", MIXUP, "*"])
def test_a_page_is_made_whatever_is_lost(folder, lost):
    for path in folder.glob(f"*/runs/*-{lost}-*.json"):
        path.unlink()
    assert all_claims(read_evidence(folder))[0].verdict == OPEN
    assert "nothing measured" in as_markdown(read_evidence(folder))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for figure in draw_all(read_evidence(folder)).values():
            figure.draw_without_rendering()
