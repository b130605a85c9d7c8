"""The page and the Markdown of a report: the same parts in the same order, through two templates."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchmix.errors import MixError
from batchmix.study import charts, series, tables, words
from batchmix.study.comparisons import SHOWN_AT, Comparison, of, scores_of
from batchmix.study.plan import RECIPE
from batchmix.study.records import Budget, Study
from batchmix.study.sentences import POWER, Sentence

TEMPLATES = Path(__file__).parent / "templates"
FOREST = ("accuracy", "loss", "confidence", "ece")  # differences that get a chart
MOST_NAMED = 3  # arms in the title

WORDS = (
    ("arm", "a way of training; the first one is the baseline, which the others are compared with"),
    ("accuracy", "share of the test images whose most probable class is the right one; higher is better"),
    (
        "loss",
        "cross entropy of the test images in nats: minus the logarithm of the probability given to the right "
        "class; lower is better",
    ),
    ("confidence", "mean probability given to the predicted class; good where it equals the accuracy"),
    (
        "ECE",
        "expected calibration error: how far confidence is from accuracy, in 15 bins by confidence, averaged "
        "over images; 0 is best",
    ),
    (
        "after scaling",
        "after dividing the logits by one temperature, fitted on one half of the test images and applied to "
        "the other, both ways round; a temperature above 1 says that the net was too sure",
    ),
    (
        "Brier score",
        "squared distance of the probabilities from the right answer, summed over classes; lower is better",
    ),
    (
        "± and interval",
        "95% interval of the mean over seeds, by Student's t; not corrected for the number of comparisons",
    ),
    (
        "paired",
        "runs of one seed have the same initial weights, data order and augmentation in every arm; their "
        "difference is what the mixing made",
    ),
    ("p", "chance of a difference at least as large if there were none, by the paired t test, two-sided"),
    (
        "corrected p",
        "p after Holm's correction for all comparisons of the same score in this report; "
        f"a difference counts as shown at {SHOWN_AT:g} or below",
    ),
    (
        "seeds needed",
        f"pairs of runs, those of this report included, with which a difference of that size is shown with a "
        f"chance of {POWER:.0%}, if the spread is the one seen here; a rough figure where seeds are few",
    ),
    (
        "more seeds",
        "seeds that are added after a look at a report make its p too small, as the look decides when to "
        "stop; new seeds in a folder of their own (--seeds 10-32 --out other) give a p that can be believed",
    ),
)


@dataclass(frozen=True)
class Chart:
    """A chart with its caption.

    Attributes:
        svg: The picture.
        caption: What it shows, in a line.
    """

    svg: str
    caption: str


@dataclass(frozen=True)
class BudgetPart:
    """All that the report says of one budget.

    Attributes:
        name: In words.
        scores: Every arm.
        differences: Every arm minus the baseline.
        charts: Learning curves, then reliability.
    """

    name: str
    scores: tables.Table
    differences: tables.Table
    charts: list[Chart]


def as_html(study: Study, comparisons: Sequence[Comparison], sentences: Sequence[Sentence]) -> str:
    """The page, with style and charts inside; everything that comes from records is escaped.

    Args:
        study: The study.
        comparisons: All of it, from `compare_all`.
        sentences: All of it, from `write_sentences`.

    Raises:
        MixError: If jinja2 is not installed.
    """
    style = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    parts = _parts(study, comparisons, sentences)
    return _render("report.html.j2", parts | {"style": style}, escape=True)


def as_markdown(study: Study, comparisons: Sequence[Comparison], sentences: Sequence[Sentence]) -> str:
    """The same in Markdown as GitHub shows it; the charts are those of ``report.png``.

    Args:
        study: The study.
        comparisons: All of it, from `compare_all`.
        sentences: All of it, from `write_sentences`.

    Raises:
        MixError: If jinja2 is not installed.
    """
    return _render("report.md.j2", _parts(study, comparisons, sentences), escape=False)


def _render(template: str, parts: dict[str, Any], *, escape: bool) -> str:
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError:
        raise MixError("a report takes jinja2, which is not installed: pip install 'batchmix[cli]'") from None
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"md": markdown_text, "unbroken": unbroken}
    return environment.get_template(template).render(parts)


def unbroken(text: str) -> str:
    """A sentence whose intervals and p-values stay on one line each, by spaces that do not break."""
    return (
        text.replace(" ± ", "\u00a0±\u00a0")
        .replace("p = ", "p\u00a0=\u00a0")
        .replace("p < ", "p\u00a0<\u00a0")
    )


def markdown_text(text: str) -> str:
    r"""A text that Markdown shows as it stands, on one line.

    Example:
        >>> markdown_text("a|b <i> *c*")
        'a\\|b &lt;i> \\*c\\*'
    """
    plain = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\|*_`\[\]~#])", r"\\\1", plain)


def _parts(study: Study, comparisons: Sequence[Comparison], sentences: Sequence[Sentence]) -> dict[str, Any]:
    """Everything the templates name."""
    return {
        "title": _title(study),
        "state": _state(study),
        "command": " ".join(str(study.asked["command"]).split()),
        "asked": tables.asked_rows(study),
        "sentences": {
            arm: [one for one in sentences if one.arm == arm]
            for arm in dict.fromkeys(one.arm for one in sentences)
        },
        "family": max((one.family for one in comparisons), default=0),
        "arms": {arm: charts.arm_class(study, arm) for arm in study.arms},
        "forests": _forests(study, comparisons),
        "frontiers": _frontiers(study),
        "budgets": [_budget_part(study, budget, comparisons) for budget in study.budgets],
        "runs": tables.runs_table(study),
        "failed": tables.failed_table(study),
        "words": WORDS,
        "fewest": series.FEWEST,
    }


def _title(study: Study) -> str:
    asked = study.asked
    what = asked["data"] if asked["task"] == RECIPE else asked["task"]
    others = study.arms[1:]
    if not others:
        return f"{study.baseline} on {what}"
    named = words.listed(others) if len(others) <= MOST_NAMED else words.count(len(others), "arm")
    return f"{named} against {study.baseline} on {what}"


def _state(study: Study) -> str:
    """How far the study is, in a sentence."""
    asked = len(study.arms) * len(study.asked["seeds"]) * len(study.budgets)
    failed = len(study.failed)
    ended = len(study.records) - failed
    missing = max(0, asked - ended - failed)
    parts = [f"{ended} of {words.count(asked, 'run')} ended"]
    parts += [f"{failed} failed"] if failed else []
    parts += [f"{missing} not run yet"] if missing else []
    return ", ".join(parts) + "."


def _forests(study: Study, comparisons: Sequence[Comparison]) -> list[Chart]:
    found = [
        Chart(
            charts.draw_differences(study, of(comparisons, key=score.key)),
            words.capital(score.name)
            + (f": {score.better} is better" if score.better else ": neither is better by itself"),
        )
        for score in scores_of(study)
        if score.key in FOREST
    ]
    return [chart for chart in found if chart.svg]


def _frontiers(study: Study) -> list[Chart]:
    found = [
        Chart(
            charts.draw_frontier(study, images, score),
            f"{words.capital(score.name)}, {images:,} training images",
        )
        for images in series.frontiers(study)
        for score in scores_of(study)
        if score.key in FOREST
    ]
    return [chart for chart in found if chart.svg]


def _budget_part(study: Study, budget: Budget, comparisons: Sequence[Comparison]) -> BudgetPart:
    drawn = [
        Chart(charts.draw_curves(study, budget, "accuracy", "accuracy (%)", 100), "Accuracy over the epochs"),
        Chart(charts.draw_curves(study, budget, "loss", "loss (nats)"), "Loss over the epochs"),
    ]
    for arm in study.arms:
        found = series.reliability(study, arm, budget)
        if found is not None:
            caption = f"{arm}: pooled over seeds, ECE {found.gap:.3f}"
            drawn.append(Chart(charts.draw_reliability(study, arm, budget), caption))
    return BudgetPart(
        words.budget(budget, study.budgets),
        tables.scores_table(study, budget),
        tables.differences_table(study, budget, comparisons),
        [chart for chart in drawn if chart.svg],
    )
