"""The one picture of a study, for a README: differences, learning or frontier, and reliability."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchmix.pictures.canvas import INK, new_figure, write_figure
from batchmix.study import series, words
from batchmix.study.comparisons import SCORES, Comparison, Score, of, scores_of
from batchmix.study.records import Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# As in templates/report.css: grey for the baseline, then Okabe and Ito's, two of them darker on white.
COLOURS = ("#59636e", "#0072b2", "#d55e00", "#009e73", "#b0578d", "#9a6f00", "#2f8fc9", "#7a4b2a")
FAINT = "#9aa1a9"
LONGEST = 36  # characters of a label
LEGEND_WIDTH = 120  # characters, keys included


def write_picture(path: Path, study: Study, comparisons: Sequence[Comparison]) -> None:
    """Draw what a study found in three panels, and write it as PNG.

    Args:
        path: The file.
        study: The study.
        comparisons: All of it, from `compare_all`.

    Raises:
        DataError: If the file cannot be written.
    """
    main = next(iter(scores_of(study)), SCORES[0])
    rows = [one for one in of(comparisons, key=main.key) if one.paired.n]
    figure = new_figure(11, max(3.4, 1.5 + 0.3 * len(rows)))
    figure.set_layout_engine("constrained", w_pad=0.1)
    *first, middle, right = figure.subplots(1, 3 if rows else 2)
    for axes in first:
        _draw_differences(axes, study, rows, main)
    if series.frontiers(study):
        _draw_frontier(middle, study, main)
    else:
        _draw_curves(middle, study, main)
    if not any(len(line.get_xdata()) for line in middle.get_lines()):
        middle.set(xticks=[], yticks=[])
        _say(middle, "no run has such a score")
    _draw_reliability(right, study)
    for axes in (*first, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8, colors=INK)
    _name_arms(figure, middle)
    write_figure(path, figure)


def _name_arms(figure: Figure, axes: Axes) -> None:
    """Which colour is which arm, below all panels."""
    handles, names = axes.get_legend_handles_labels()
    names = [words.short(name, LEGEND_WIDTH) for name in names]
    columns = max(1, min(len(names), LEGEND_WIDTH // (6 + max(map(len, names), default=0))))
    figure.legend(handles, names, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)


def _draw_differences(axes: Axes, study: Study, rows: Sequence[Comparison], score: Score) -> None:
    unit = f" ({score.gap_unit.strip()})" if score.gap_unit else ""
    axes.set_title(f"Paired differences in {score.name}", fontsize=10, loc="left")
    axes.axvline(0, color=INK, linewidth=1)
    for place, one in enumerate(rows):
        colour = _colour(study, one.arm)
        seeds = [score.scale * difference for difference in one.differences.values()]
        axes.plot(seeds, [place] * len(seeds), "o", color=colour, markersize=3.5, alpha=0.45)
        low, mean, high = (score.scale * x for x in (one.paired.low, one.paired.mean, one.paired.high))
        if not math.isnan(low):
            axes.plot([low, high], [place, place], color=colour, linewidth=2)
        face = colour if one.shown else "white"
        axes.plot(mean, place, "o", color=colour, markersize=7.5, markerfacecolor=face, markeredgewidth=1.6)
    labels = [
        words.short(one.arm, LONGEST)
        + ("" if len(study.budgets) == 1 else f", {words.budget(one.budget, study.budgets)}")
        for one in rows
    ]
    axes.set_yticks(range(len(rows)), labels)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel(f"minus {study.baseline}{unit}; line: 95% interval", fontsize=9)


def _draw_curves(axes: Axes, study: Study, score: Score) -> None:
    """The main score of the test images over the epochs; the last budget."""
    budget = study.budgets[-1]
    axes.set_title(f"Test {score.name} over the epochs", fontsize=10, loc="left")
    for arm in study.arms:
        found = series.curves(study, arm, budget, score.key)
        for run in found.runs:
            axes.plot(*_columns(run, score.scale), color=_colour(study, arm), linewidth=0.6, alpha=0.35)
        axes.plot(*_columns(found.mean, score.scale), linewidth=1.8, label=arm, **_style(study, arm))
    axes.set_xlabel("epochs of training", fontsize=9)
    axes.set_ylabel(score.label, fontsize=9)


def _draw_frontier(axes: Axes, study: Study, score: Score) -> None:
    """The main score against the length of training, for the largest number of images."""
    images = max(series.frontiers(study))
    axes.set_title(f"{words.capital(score.name)} against budget", fontsize=10, loc="left")
    lengths = sorted(epochs for count, epochs in study.budgets if count == images)
    for arm in study.arms:
        found = series.frontier(study, arm, images, score.key)
        places = [epochs * series.aside(study, arm) for epochs, _ in found]
        means = [score.drawn(interval.mean) for _, interval in found]
        ends = [
            [mean - score.drawn(interval.low) for mean, (_, interval) in zip(means, found, strict=True)],
            [score.drawn(interval.high) - mean for mean, (_, interval) in zip(means, found, strict=True)],
        ]
        axes.plot(places, means, "o", markersize=4, label=arm, **_style(study, arm))
        axes.errorbar(places, means, ends, fmt="none", ecolor=_colour(study, arm))
    axes.set_xscale("log")
    axes.set_xticks(lengths, [f"{length:g}" for length in lengths])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("epochs of training", fontsize=9)
    axes.set_ylabel(score.label, fontsize=9)


def _draw_reliability(axes: Axes, study: Study) -> None:
    """All arms at the last budget against the diagonal."""
    axes.set_title("Reliability", fontsize=10, loc="left")
    axes.plot([0, 100], [0, 100], color=FAINT, linewidth=1, linestyle=(0, (3, 3)))
    drawn = False
    for arm in study.arms:
        found = series.reliability(study, arm, study.budgets[-1])
        if found is not None:
            drawn = True
            axes.plot(*_columns(found.points), marker="o", markersize=3, linewidth=1.4, **_style(study, arm))
    axes.set_xlabel("confidence (%)", fontsize=9)
    axes.set_ylabel("right (%)", fontsize=9)
    if not drawn:
        _say(axes, "no run has its bins")


def _style(study: Study, arm: str) -> dict[str, Any]:
    """Colour and dashes as on the page."""
    index, dashed = series.colour(study, arm)
    return {"color": COLOURS[index], "linestyle": "--" if dashed else "-"}


def _colour(study: Study, arm: str) -> str:
    return COLOURS[series.colour(study, arm)[0]]


def _columns(points: Sequence[tuple[float, float]], scale: float = 1.0) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [scale * y for _, y in points]


def _say(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=INK, fontsize=9)
