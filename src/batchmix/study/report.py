"""The report of a study: one page, the same in Markdown, one picture, and the numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from batchmix.files import make_folder, write_whole
from batchmix.study import page
from batchmix.study.comparisons import TIME, Comparison, cells, compare_all, scores_of
from batchmix.study.picture import write_picture
from batchmix.study.records import Study
from batchmix.study.sentences import Sentence, write_sentences
from batchmix.study.statistics import Interval


def write_report(study: Study, folder: Path) -> list[Path]:
    """Write ``report.html``, ``report.md``, ``report.png`` and ``report.json``.

    They are made from the records alone, so that the same records give the same report.

    Args:
        study: The study, finished or not; runs that are missing or failed are named.
        folder: Where to; made where it is not there.

    Returns:
        The files, in the order above.

    Raises:
        DataError: If a file cannot be written.
    """
    make_folder(folder)
    comparisons = compare_all(study)
    sentences = write_sentences(study, comparisons)
    numbers = json.dumps(as_dict(study, comparisons, sentences), indent=1, allow_nan=False)
    texts = {
        "report.html": page.as_html(study, comparisons, sentences),
        "report.md": page.as_markdown(study, comparisons, sentences),
        "report.json": numbers + "\n",
    }
    for name, text in texts.items():
        write_whole(folder / name, [text.encode(errors="backslashreplace")])  # paths may have any bytes
    write_picture(folder / "report.png", study, comparisons)
    return [folder / f"report.{ending}" for ending in ("html", "md", "png", "json")]


def as_dict(study: Study, comparisons: Sequence[Comparison], sentences: Sequence[Sentence]) -> dict[str, Any]:
    """The numbers of the report, in the units of the records; what is not a number is None."""
    keys = [score.key for score in (*scores_of(study), TIME)]
    return {
        "asked": _finite(study.asked),
        "sentences": [
            {
                "arm": one.arm,
                **_budget(one.budget),
                "verdict": one.verdict,
                "text": str(one),
            }
            for one in sentences
        ],
        "arms": [
            {
                "arm": cell.arm,
                **_budget(budget),
                "seeds": list(cell.seeds),
                "failed": cell.failed,
                "scores": {key: _interval(cell.scores[key]) for key in keys},
            }
            for budget in study.budgets
            for cell in cells(study, budget)
        ],
        "comparisons": [
            {
                "arm": one.arm,
                "baseline": one.baseline,
                **_budget(one.budget),
                "score": one.score.key,
                "differences": {str(seed): gap for seed, gap in one.differences.items()},
                **_interval(one.paired),
                "sd": _number(one.paired.sd),
                "p": _number(one.paired.p),
                "p_corrected": _number(one.p),
                "corrected_for": one.family,
                "verdict": one.verdict,
                "seeds_left_out": list(one.left_out),
            }
            for one in comparisons
        ],
        "failed": [
            {key: _finite(record.get(key)) for key in ("arm", "seed", "images", "epochs", "error")}
            for record in study.failed
        ],
    }


def _budget(budget: tuple[int, float]) -> dict[str, float]:
    return {"images": budget[0], "epochs": budget[1]}


def _interval(found: Interval) -> dict[str, float | None]:
    ends = {name: _number(getattr(found, name)) for name in ("mean", "low", "high")}
    return {"n": found.n, **ends}


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _finite(value: Any) -> Any:
    """Settings as JSON takes them, whatever a user put there."""
    if isinstance(value, dict):
        return {str(name): _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return _number(value) if isinstance(value, float) else value
