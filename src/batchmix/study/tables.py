"""The tables of a report, as texts in rows: the page and the Markdown show the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from batchmix.study import words
from batchmix.study.comparisons import TIME, Comparison, cells, of, scores_of
from batchmix.study.records import Budget, Study

ASIDE = ("loss_scaled", "temperature")  # left to report.json, so that the table fits a page


@dataclass(frozen=True)
class Table:
    """Texts in rows; the first column is the arm where the head says so.

    Attributes:
        head: The columns' names.
        rows: The texts.
    """

    head: list[str]
    rows: list[list[str]]


def scores_table(study: Study, budget: Budget) -> Table:
    """Every arm at one budget: mean and 95% interval of each score, and of the time of training."""
    scores = [*(score for score in scores_of(study) if score.key not in ASIDE), TIME]
    head = ["arm", "runs", *(score.name for score in scores)]
    rows = [
        [
            cell.arm,
            f"{len(cell.seeds)}" + (f" (+ {cell.failed} failed)" if cell.failed else ""),
            *(words.value(score, cell.scores[score.key]) for score in scores),
        ]
        for cell in cells(study, budget)
    ]
    return Table(head, rows)


def differences_table(study: Study, budget: Budget, comparisons: Sequence[Comparison]) -> Table:
    """Every arm minus the baseline at one budget, in each score."""
    rows = [
        [
            one.arm,
            one.score.name,
            f"{one.paired.n}",
            words.gap(one.score, one.paired),
            _bare(one.paired.p),
            _bare(one.p),
            one.verdict,
        ]
        for arm in study.arms
        for one in of(comparisons, arm=arm, budget=budget)
        if one.score.key != "temperature"  # a part of the scaling, and worth no test of its own
    ]
    return Table(["arm", "score", "pairs", f"minus {study.baseline}", "p", "corrected p", "verdict"], rows)


def runs_table(study: Study) -> Table:
    """What each run cost."""
    head = ["arm", "seed", "images", "epochs", "training (s)", "images/s", "peak memory (MB)", "date"]
    rows = [
        [
            record["arm"],
            f"{record['seed']}",
            f"{record['images']:,}",
            f"{record['epochs']:g}",
            *(
                _plain(record.get(name), digits)
                for name, digits in (("train_seconds", 1), ("images_per_second", 0), ("peak_memory_mb", 0))
            ),
            str(record["date"]),
        ]
        for record in study.records
        if record["status"] == "done"
    ]
    return Table(head, rows)


def failed_table(study: Study) -> Table:
    """Runs that did not end, with their error."""
    rows = [
        [
            record["arm"],
            f"{record['seed']}",
            f"{record['images']:,}",
            f"{record['epochs']:g}",
            " ".join(str(record.get("error") or "no error was written").split()),
        ]
        for record in study.failed
    ]
    return Table(["arm", "seed", "images", "epochs", "error"], rows)


def asked_rows(study: Study) -> list[tuple[str, str]]:
    """What was asked, and what it was run on; the command is shown apart."""
    asked = study.asked
    versions = dict.fromkeys(str(r["batchmix"]) for r in study.records if r.get("batchmix"))
    dates = sorted({str(record["date"])[:10] for record in study.records})
    rows = [
        ("data", str(asked["data"] or words.NOTHING)),  # a task brings its own
        ("task", str(asked["task"])),
        ("images", words.listed(dict.fromkeys(f"{images:,}" for images, _ in study.budgets) or ["none"])),
        ("epochs", words.listed(dict.fromkeys(f"{epochs:g}" for _, epochs in study.budgets) or ["none"])),
        ("arms", ", ".join(study.arms)),
        ("baseline", study.baseline),
        ("seeds", _seeds(asked["seeds"])),
        ("settings", _settings(asked["config"])),
        ("machine", "; ".join(words.machines(study)) or words.NOTHING),
        ("batchmix", ", ".join(versions) or words.NOTHING),
        ("date", " to ".join(dict.fromkeys((dates[0], dates[-1]))) if dates else words.NOTHING),
    ]
    return [(name, text) for name, text in rows if text != words.NOTHING]


def _seeds(seeds: Sequence[int]) -> str:
    if len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"{seeds[0]} to {seeds[-1]} ({len(seeds)} of them)"
    return words.listed(seeds) if seeds else words.NOTHING


def _settings(config: dict[str, Any]) -> str:
    return ", ".join(f"{name} {_setting(value)}" for name, value in config.items()) or words.NOTHING


def _setting(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(_setting, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _plain(value: Any, digits: int) -> str:
    return words.NOTHING if value is None else f"{value:,.{digits}f}"


def _bare(p: float) -> str:
    return words.p_value(p).removeprefix("= ")
