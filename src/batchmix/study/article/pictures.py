"""The pictures of the page, drawn from the records."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import truediv
from statistics import fmean, geometric_mean, median
from typing import TYPE_CHECKING, Any

from batchmix.pictures.canvas import INK, new_figure
from batchmix.study.article.curves import GOAL_AT, goal_of
from batchmix.study.article.evidence import Evidence
from batchmix.study.article.presets import MIXUP, NONE, PER_BATCH
from batchmix.study.comparisons import values
from batchmix.study.records import Budget, Study
from batchmix.study.statistics import Paired, mean_interval, paired_difference

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Grey for the baseline, then Okabe and Ito's, as in the reports of other studies.
GREY, BLUE, RED = "#59636e", "#0072b2", "#d55e00"
FAINT = "#9aa1a9"


def draw_all(evidence: Evidence) -> dict[str, Figure]:
    """Every picture of the page, by its name."""
    return {
        "arms": draw_arms(evidence.claims),
        "loading": draw_loading(evidence.loading),
        "one-hot": draw_one_hot(evidence.one_hot),
        "curves": draw_curves(evidence.claims),
        "budgets": draw_budgets(evidence),
    }


def draw_arms(study: Study) -> Figure:
    """The accuracy of every run, a line for each seed, so that pairs are seen."""
    budget = study.budgets[0]
    figure, axes = _panel(7.2, 0.9 + 0.42 * len(study.arms))
    found = {arm: values(study, arm, budget, "accuracy") for arm in study.arms}
    place = {arm: at for at, arm in enumerate(study.arms)}
    for seed in sorted({seed for own in found.values() for seed in own}):
        ran = [arm for arm in study.arms if seed in found[arm]]
        line = [100 * found[arm][seed] for arm in ran]
        axes.plot(line, [place[arm] for arm in ran], "o-", color=FAINT, linewidth=0.7, markersize=4)
    for arm, own in found.items():
        interval = mean_interval([100 * one for one in own.values()])
        if interval.n > 1:
            axes.plot([interval.low, interval.high], [place[arm]] * 2, color=BLUE, linewidth=8, alpha=0.25)
        axes.plot(interval.mean, place[arm], "D", color=BLUE, markersize=6)
    axes.set_yticks(range(len(study.arms)), study.arms)
    axes.set_ylim(len(study.arms) - 0.5, -0.5)
    axes.set_xlabel("accuracy (%): mean with 95% interval, each seed in grey")
    return figure


def draw_loading(found: dict[str, Any]) -> Figure:
    """Mixed images a second of each repeat, from one loader and from two."""
    figure, axes = _panel(6.4, 1.7)
    images = found["batches"] * found["batch_size"]
    for place, (name, colour) in enumerate((("one_loader", BLUE), ("two_loaders", RED))):
        rates = [images / seconds for seconds in found["seconds"][name]]
        axes.plot(rates, [place] * len(rates), "o", color=colour, alpha=0.5, markersize=5)
        axes.plot([median(rates)] * 2, [place - 0.28, place + 0.28], color=colour, linewidth=2.4)
    axes.set_yticks([0, 1], ["one loader", "two loaders"])
    axes.set(ylim=(1.6, -0.6), xlabel="mixed images a second; each repeat, and their median")
    axes.set_xlim(left=0)
    return figure


def draw_one_hot(found: dict[str, Any]) -> Figure:
    """Time and memory of the two forms without one-hot, in multiples of the one with."""
    figure = new_figure(8, 3.2)
    figure.set_layout_engine("constrained", w_pad=0.1)
    left, right = figure.subplots(1, 2)
    classes = [row["classes"] for row in found["rows"]]
    for form, name, colour in (("two_calls", "two calls", RED), ("mixed_target", "MixedTarget", BLUE)):
        forms = [(row["forms"][form], row["forms"]["one_hot"]) for row in found["rows"]]
        time = [geometric_mean(map(truediv, own["seconds"], hot["seconds"])) for own, hot in forms]
        memory = [own["bytes"] / hot["bytes"] for own, hot in forms]
        left.plot(classes, time, "o-", color=colour, label=name)
        right.plot(classes, memory, "o-", color=colour)
    for axes, what in ((left, "time of forward and backward"), (right, "most memory held at once")):
        _dress(axes)
        axes.axhline(1, color=INK, linewidth=1)
        axes.set(xscale="log", xlabel="classes")
        axes.set_ylim(0, 1.08 * axes.get_ylim()[1])
        axes.set_title(what, fontsize=10, loc="left", color=INK)
    left.set_ylabel("one-hot = 1")
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure


def draw_curves(study: Study) -> Figure:
    """Test accuracy over the epochs, mean of the seeds, and the goal."""
    budget = study.budgets[0]
    figure, axes = _panel(6.4, 3.4)
    for arm, colour in ((NONE, GREY), (PER_BATCH, RED), (MIXUP, BLUE)):
        curves = [record["curve"] for record in study.done(arm, budget).values()]
        for curve in curves:
            axes.plot(*_points(curve), color=colour, alpha=0.25, linewidth=0.7)
        if curves:
            points = [_points(curve) for curve in curves]
            same = [fmean(column) for column in zip(*(accuracy for _, accuracy in points), strict=False)]
            axes.plot(points[0][0][: len(same)], same, "o-", color=colour, markersize=3.5, label=arm)
    goal = goal_of(study, budget)
    if not math.isnan(goal):
        axes.axhline(100 * goal, color=INK, linestyle="--", linewidth=1)
        axes.plot(
            GOAL_AT * budget[1], 100 * goal, "D", color=INK, markersize=5, label=f"the goal, {goal:.1%}"
        )
    axes.set(xlabel="epochs", ylabel="accuracy on the test images (%)")
    axes.set_xlim(left=0)
    if axes.get_legend_handles_labels()[0]:  # there are none where no run has ended
        axes.legend(frameon=False, fontsize=9)
    return figure


def draw_budgets(evidence: Evidence) -> Figure:
    """What mixup changes in the accuracy, over the epochs, on few images and on many."""
    figure, axes = _panel(6.4, 3.4)
    axes.axhline(0, color=INK, linewidth=1)
    few = evidence.claims.budgets[0][0]
    for studies, colour in (((evidence.few, evidence.claims), BLUE), ((evidence.many,), RED)):
        found = {}
        for study in studies:
            for budget in study.budgets:
                found[budget[1]] = _gain(study, budget)
        epochs = sorted(epochs for epochs, paired in found.items() if paired.n)
        images = few if evidence.few in studies else evidence.many.budgets[0][0]
        axes.plot(epochs, [found[e].mean for e in epochs], "o-", color=colour, label=f"{images:,} images")
        known = [e for e in epochs if not math.isnan(found[e].low)]
        axes.vlines(
            known, [found[e].low for e in known], [found[e].high for e in known], color=colour, linewidth=2
        )
    axes.set_xscale("log", base=2)
    ticks = sorted({budget[1] for study in evidence.studies.values() for budget in study.budgets})
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set(xlabel="epochs", ylabel="mixup minus none,\npoints of accuracy")
    axes.set_title("mean of the pairs with 95% interval", fontsize=10, loc="left", color=INK)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure


def _gain(study: Study, budget: Budget) -> Paired:
    """What mixup changes in the accuracy, in points, by pairs of the same seed."""
    mixed, plain = (values(study, arm, budget, "accuracy") for arm in (MIXUP, NONE))
    both = sorted(mixed.keys() & plain.keys())
    return paired_difference([100 * mixed[seed] for seed in both], [100 * plain[seed] for seed in both])


def _points(curve: Sequence[dict[str, float]]) -> tuple[list[float], list[float]]:
    return [point["epoch"] for point in curve], [100 * point["accuracy"] for point in curve]


def _panel(width: float, height: float) -> tuple[Figure, Axes]:
    figure = new_figure(width, height)
    figure.set_layout_engine("constrained")
    axes = figure.subplots()
    _dress(axes)
    return figure, axes


def _dress(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9, colors=INK)
    axes.xaxis.label.set(color=INK, size=10)
    axes.yaxis.label.set(color=INK, size=10)
