"""The page ``docs/article.md``: every claim, its experiment, its numbers and its verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from batchmix.files import make_folder, write_whole
from batchmix.study.article.claim import Claim, Table, budget_text
from batchmix.study.article.claims import all_claims
from batchmix.study.article.evidence import Evidence
from batchmix.study.article.pictures import draw_all
from batchmix.study.article.verdicts import ACCURACY, HELD, OPEN, REFUTED, RULES, Judged
from batchmix.study.records import Study
from batchmix.study.words import NOTHING, p_value

PICTURES = "pictures"  # the folder beside the page


def write_page(evidence: Evidence, page: Path) -> list[Path]:
    """Write the page and its pictures.

    Returns:
        The files, the page first.

    Raises:
        DataError: If a file cannot be written.
    """
    from batchmix.pictures import write_figure

    folder = page.parent / PICTURES
    make_folder(folder)
    pictures = {folder / f"{page.stem}-{name}.png": figure for name, figure in draw_all(evidence).items()}
    for path, figure in pictures.items():
        write_figure(path, figure)
    text = as_markdown(evidence, page.stem)
    write_whole(page, [text.encode(errors="backslashreplace")])  # paths may have any bytes
    return [page, *pictures]


def as_markdown(evidence: Evidence, stem: str = "article") -> str:
    """The page.

    Args:
        evidence: The records.
        stem: What the names of the pictures begin with.
    """
    claims = all_claims(evidence)
    parts = [
        "# The article, reproduced",
        "The claims of S. Gugger, *Mixup data augmentation* (fast.ai, 2018), each by an experiment that "
        "could have refuted it. This page is written by `batchmix compare --preset article` from the "
        "records of its runs; no number in it was typed.",
        _summary(claims),
        "## How a verdict is made",
        "\n".join(f"- {rule}" for rule in RULES),
        f"The margin of an accuracy is {ACCURACY.scale * ACCURACY.worth:g}{ACCURACY.unit}. Intervals in "
        "brackets are those of differences (or of ratios, where a number of times is given), ± those of "
        "means. ECE is the expected calibration error: how far confidence is from accuracy.",
    ]
    for letter, claim in zip("abcdefgh", claims, strict=False):
        parts += _section(letter, claim, stem)
    parts += ["## How it was made", *_making(evidence)]
    return "\n\n".join(part for part in parts if part) + "\n"


def table_text(table: Table) -> str:
    """A table in Markdown.

    Example:
        >>> print(table_text((("a", "b"), [("1", "2")])))
        | a | b |
        |---|---|
        | 1 | 2 |
    """
    head, rows = table
    lines = [head, ("---",) * len(head), *rows]
    texts = [" | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) for line in lines]
    return "\n".join("|---" * len(head) + "|" if i == 1 else f"| {text} |" for i, text in enumerate(texts))


def _summary(claims: Sequence[Claim]) -> str:
    rows = []
    for letter, claim in zip("abcdefgh", claims, strict=False):
        counted = Counter(one.verdict for one in claim.judged)
        counts = ", ".join(
            f"{counted[verdict]} {verdict}" for verdict in (HELD, REFUTED, OPEN) if counted[verdict]
        )
        rows.append((f"({letter}) {claim.title}", f"**{claim.verdict}**", counts))
    return table_text((("claim", "verdict", "its statements"), rows))


def _section(letter: str, claim: Claim, stem: str) -> list[str]:
    return [
        f"## ({letter}) {claim.title}: {claim.verdict}",
        f"*The article:* {claim.said}",
        f"*The experiment:* {claim.experiment}",
        _statements(claim.judged),
        *(table_text(table) for table in claim.tables),
        *claim.notes,
        *(f"![{claim.title}]({PICTURES}/{stem}-{name}.png)" for name in claim.pictures),
    ]


def _statements(judged: Sequence[Judged]) -> str:
    """The statements of a claim; the last column is there where something was not shown."""
    head = ("statement", "difference", "n", "p", "verdict", "n that would do")
    rows = [
        (
            one.says,
            one.found,
            NOTHING if one.n is None else f"{one.n:,}",
            NOTHING if one.p is None else p_value(one.p).removeprefix("= "),
            f"**{one.verdict}**",
            one.needed or NOTHING,
        )
        for one in judged
    ]
    columns = len(head) if any(one.needed for one in judged) else len(head) - 1
    return table_text((head[:columns], [row[:columns] for row in rows]))


def _making(evidence: Evidence) -> list[str]:
    records = [record for study in evidence.studies.values() for record in study.records]
    made = [*records, *evidence.measurements.values()]
    lines = {
        "machine": _distinct(_machine(record["machine"]) for record in made),
        "date": _span(str(record["date"])[:10] for record in made),
        "command": _distinct(f"`{record['command']}`" for record in made),
        "batchmix": _distinct(str(record["batchmix"]) for record in made if "batchmix" in record),
        "data": _distinct(str(study.asked["data"]) for study in evidence.studies.values()),
    }
    failed = [record for record in records if record["status"] == "failed"]
    return [
        table_text(_studies(evidence)),
        "\n".join(f"- {name}: {text}" for name, text in lines.items()),
        evidence.notes,
        *(["Runs that failed, and count nowhere:", "\n".join(map(_failure, failed))] if failed else []),
    ]


def _studies(evidence: Evidence) -> Table:
    head = ("study", "arms", "seeds", "images", "epochs", "batch", "widths", "runs", "training")
    return head, [_study_row(name, study) for name, study in evidence.studies.items()]


def _study_row(name: str, study: Study) -> tuple[str, ...]:
    asked, config = study.asked, study.asked["config"]
    done = [record for record in study.records if record["status"] == "done"]
    wanted = len(asked["arms"]) * len(asked["seeds"]) * len(asked["epochs"])
    minutes = sum(record["train_seconds"] for record in done) / 60
    return (
        name,
        ", ".join(f"`{arm}`" for arm in asked["arms"]),
        ", ".join(map(str, asked["seeds"])) if len(asked["seeds"]) < 8 else _ends(asked["seeds"]),
        f"{asked['images']:,}",
        ", ".join(f"{epochs:g}" for epochs in sorted(asked["epochs"])),
        str(config.get("batch_size", NOTHING)),
        ", ".join(map(str, config.get("widths", (NOTHING,)))),
        f"{len(done)} of {wanted}",
        f"{minutes:,.0f} min" if minutes >= 1 else f"{60 * minutes:.0f} s",
    )


def _failure(record: Mapping[str, Any]) -> str:
    budget = budget_text((record["images"], record["epochs"]))
    return f"- `{record['arm']}`, {budget}, seed {record['seed']}: {record['error']}"


def _machine(machine: Mapping[str, Any]) -> str:
    device = "" if machine.get("device", "cpu") == "cpu" else f"{machine['device']}, "
    cpu = f"{machine.get('cores', '?')} cores of {machine.get('cpu', 'an unknown CPU')}"
    threads = f"{machine.get('threads', '?')} of torch's threads"
    return f"{device}{cpu}, {threads}, torch {machine.get('torch', '?')}, Python {machine.get('python', '?')}"


def _ends(seeds: Sequence[int]) -> str:
    return f"{min(seeds)} to {max(seeds)} ({len(seeds)})"


def _distinct(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(texts))


def _span(dates: Iterable[str]) -> str:
    known = sorted(set(dates))
    return known[0] if len(known) == 1 else f"{known[0]} to {known[-1]}"
