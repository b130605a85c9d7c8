"""The charts of the page, as inline SVG; an arm has the same colour and dashes in all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from batchmix.study import series, words
from batchmix.study.comparisons import Comparison, Score
from batchmix.study.records import Budget, Study
from batchmix.study.statistics import Interval
from batchmix.study.svg import Plot, span

ROW = 44  # pixels of one comparison
LONGEST = 46  # characters of a label that fit on a phone
PERCENT = (0.0, 100.0)


def arm_class(study: Study, arm: str) -> str:
    """The class that colours an arm.

    Every chart and table uses it, so that an arm looks the same everywhere.
    """
    index, dashed = series.colour(study, arm)
    return f"arm{index}" + (" dashed" if dashed else "")


def draw_differences(study: Study, comparisons: Sequence[Comparison]) -> str:
    """Arm minus baseline in one score: each seed a small dot, their mean with its 95% interval.

    The mean is a full dot where the corrected p-value shows a difference, an empty one elsewhere.

    Args:
        study: The study.
        comparisons: Of one score, a row each; empty ones are left out.

    Returns:
        SVG; "" where there is nothing to draw.
    """
    rows = [one for one in comparisons if one.paired.n]
    if not rows:
        return ""
    score = rows[0].score
    ends = [score.scale * end for one in rows for end in (*one.differences.values(), *_interval(one))]
    size = (360, 58 + ROW * len(rows))
    plot = Plot(
        f"Paired differences in {score.name}",
        span([0.0, *ends]),
        (len(rows), 0),
        size=size,
        margin=(12, 6, 20, 44),
    )
    unit = score.gap_unit.strip()
    plot.x_axis(
        f"{score.name}, minus that of {words.short(study.baseline, 20)}" + (f" ({unit})" if unit else "")
    )
    plot.draw("line", "zero", x1=plot.x(0), x2=plot.x(0), y1=plot.top, y2=plot.bottom)
    for place, one in enumerate(rows):
        _row(plot, place, one, arm_class(study, one.arm), _row_label(study, one))
    return str(plot)


def _row(plot: Plot, place: int, one: Comparison, arm: str, label: str) -> None:
    middle, below, scale = place + 0.58, place + 0.8, one.score.scale
    plot.text(plot.left, plot.y(place) + 14, label, f"row {arm}")
    for difference in one.differences.values():
        plot.dot(scale * difference, below, f"seed {arm}", 2.5)
    low, high = (scale * end for end in (one.paired.low, one.paired.high))
    if not math.isnan(low):
        y = plot.y(middle)
        plot.draw("line", f"interval {arm}", x1=plot.x(low), x2=plot.x(high), y1=y, y2=y)
    plot.dot(scale * one.paired.mean, middle, f"{'mean' if one.shown else 'mean empty'} {arm}", 5)


def _row_label(study: Study, one: Comparison) -> str:
    if len(study.budgets) == 1:
        return words.short(one.arm, LONGEST)
    when = words.budget(one.budget, study.budgets)
    return f"{words.short(one.arm, LONGEST - len(when) - 2)}, {when}"


def draw_curves(study: Study, budget: Budget, key: str, label: str, scale: float = 1.0) -> str:
    """A number of the test images over the epochs: each run faint, the mean of an arm's runs strong.

    Args:
        study: The study.
        budget: Training images and epochs.
        key: Of the records' ``curve``.
        label: Of the y axis, with its unit.
        scale: Factor from the record to what is shown.

    Returns:
        SVG; "" where there is nothing to draw.
    """
    found = {arm: series.curves(study, arm, budget, key) for arm in study.arms}
    points = [(x, scale * y) for arm in found.values() for run in arm.runs for x, y in run]
    if not points:
        return ""
    plot = Plot(
        f"{label} over the epochs",
        (0.0, max(x for x, _ in points) * 1.02 or 1.0),  # an earlier version wrote 0 for very short runs
        span([y for _, y in points]),
    )
    plot.x_axis("epochs of training")
    plot.y_axis(label)
    for arm, curves in found.items():
        for run in curves.runs:
            plot.line([(x, scale * y) for x, y in run], f"run {arm_class(study, arm)}")
    for arm, curves in found.items():
        plot.line([(x, scale * y) for x, y in curves.mean], f"average {arm_class(study, arm)}")
    return str(plot)


def draw_reliability(study: Study, arm: str, budget: Budget) -> str:
    """How often the arm's runs were right, by how sure they were; below, how often they were so sure.

    Returns:
        SVG; "" where no run has its bins.
    """
    found = series.reliability(study, arm, budget)
    if found is None:
        return ""
    plot = Plot(f"Reliability of {arm}", PERCENT, PERCENT, size=(360, 300), margin=(50, 10, 12, 42))
    plot.x_axis("confidence (%)")
    plot.y_axis("right (%)")
    colour, width = arm_class(study, arm), 100 / len(found.share)
    for i, share in enumerate(found.share):
        plot.box((i * width, (i + 1) * width), (0.0, 100 * share), f"share {colour}")
    plot.line([(0, 0), (100, 100)], "diagonal")
    plot.line(found.points, f"average {colour}")
    for x, y in found.points:
        plot.dot(x, y, f"mean {colour}", 3)
    return str(plot)


def draw_frontier(study: Study, images: int, score: Score) -> str:
    """A score against the length of training, with 95% intervals, a line for each arm.

    Returns:
        SVG; "" where no run has the score.
    """
    found = {arm: series.frontier(study, arm, images, score.key) for arm in study.arms}
    points = [(epochs, interval) for arm in found.values() for epochs, interval in arm]
    if not points:
        return ""
    ends = [score.drawn(end) for _, i in points for end in (i.mean, i.low, i.high) if not math.isnan(end)]
    lengths = sorted({epochs for epochs, _ in points})
    plot = Plot(
        f"{score.name} against epochs",
        (lengths[0] / 1.15, lengths[-1] * 1.15),
        span(ends),
        log_x=True,
    )
    plot.x_axis("epochs of training", lengths)
    plot.y_axis(score.label)
    for arm, line in found.items():
        aside = series.aside(study, arm)
        _with_intervals(plot, [(x * aside, i) for x, i in line], score, arm_class(study, arm))
    return str(plot)


def _with_intervals(plot: Plot, line: Sequence[tuple[float, Interval]], score: Score, arm: str) -> None:
    plot.line([(x, score.drawn(interval.mean)) for x, interval in line], f"average {arm}")
    for x, interval in line:
        if not math.isnan(interval.low):
            low, high = plot.y(score.drawn(interval.low)), plot.y(score.drawn(interval.high))
            plot.draw("line", f"interval {arm}", x1=plot.x(x), x2=plot.x(x), y1=low, y2=high)
        plot.dot(x, score.drawn(interval.mean), f"mean {arm}", 3.5)


def _interval(one: Comparison) -> list[float]:
    return [end for end in (one.paired.low, one.paired.high) if not math.isnan(end)]
