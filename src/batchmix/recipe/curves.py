"""The picture of a run: loss and accuracy over the epochs, and where it ended on the test images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from batchmix.recipe.results import mixing_in_words

BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#666666"
WINDOW = 7  # points of the running mean


def draw_curves(log: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> Figure:
    """Loss and accuracy of the training batches over epochs, with the test results as lines.

    Args:
        log: Lines of the run's log, each with ``epoch``, ``loss``, ``accuracy``, ``p``.
        summary: The run's summary.
    """
    figure = Figure(figsize=(7, 5.2), dpi=110, layout="constrained")
    above, below = figure.subplots(2, sharex=True)
    epochs = [line["epoch"] for line in log]
    _draw(above, epochs, [line["loss"] for line in log], summary["loss"], "loss")
    accuracy = [100 * line["accuracy"] for line in log]
    _draw(below, epochs, accuracy, 100 * summary["accuracy"], "accuracy (%)")
    for axes in (above, below):
        _shade_mixed(axes, log)
    below.set_xlabel("epochs")
    below.set_ylim(top=100)
    above.set_ylim(bottom=0)
    figure.legend(*above.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    title = "no mixing" if summary["mix"] == "none" else mixing_in_words(summary, ", ")
    above.set_title(
        f"{title}, seed {summary['seed']}: {summary['accuracy']:.2%} of the test images, "
        f"{summary['accuracy_tta']:.2%} augmented",
        fontsize=10,
        loc="left",
    )
    return figure


def _draw(axes: Axes, epochs: list[float], values: list[float], test: float, name: str) -> None:
    axes.plot(epochs, values, color=BLUE, alpha=0.25, linewidth=0.8)
    axes.plot(epochs, _smooth(values), color=BLUE, linewidth=1.6, label="training batches, as mixed")
    axes.axhline(test, color=ORANGE, linestyle="--", linewidth=1.2, label="test images, at the end")
    axes.set_ylabel(name)
    axes.spines[["top", "right"]].set_visible(False)


def _shade_mixed(axes: Axes, log: Sequence[Mapping[str, Any]]) -> None:
    """Grey where batches were mixed, if that is part of the run alone."""
    mixed = [line["epoch"] for line in log if line["p"] > 0]
    if mixed and len(mixed) < len(log):
        axes.axvspan(0, mixed[-1], color=GREY, alpha=0.08, linewidth=0, label="mixing")


def _smooth(values: list[float]) -> list[float]:
    """Running mean over ``WINDOW`` points, fewer at the ends."""
    half = WINDOW // 2
    parts = [values[max(0, i - half) : i + half + 1] for i in range(len(values))]
    return [sum(part) / len(part) for part in parts]
