"""One figure of a record: how long every library takes, as multiples of a plain copy, ours in blue."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from batchmix.bench.cases import BLEND, DRAW, size_text, threads_text
from batchmix.bench.records import Record, Row, Spread, cases, find, times_of
from batchmix.bench.table import METHOD, contender
from batchmix.pictures.canvas import INK, axes_at, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OURS, PEER, PLAIN, FAINT = "#0072B2", "#B8B8B8", "#E3E3E3", "#666666"
# The case of each panel: part, what, and shape and dtype where they are measured.
PANELS = (
    ("blend", "mixup", (128, 3, 224, 224), "float32"),
    ("blend", "cutmix", (128, 3, 224, 224), "float32"),
    ("images", "mixup", (128, 3, 224, 224), "bfloat16"),
    ("loss", "cross entropy", (128, 1000), "float32"),
)
BASES = {"blend": "copy", "images": "copy", "loss": "plain"}
WIDTH, LEFT, RIGHT, BAR, TOP, BOTTOM, GAP = 7.6, 2.3, 0.75, 0.27, 0.72, 0.16, 0.35  # inches


@dataclass(frozen=True)
class Bar:
    """A bar: whose it is, how long, and how far the measurements lie around that."""

    name: str
    ratio: Spread
    colour: str


@dataclass(frozen=True)
class Panel:
    """One case as bars, the shortest first."""

    title: str
    base: str
    bars: tuple[Bar, ...]

    @property
    def height(self) -> float:
        """In inches, with title and axis."""
        return TOP + BAR * len(self.bars) + BOTTOM


def draw_record(record: Record) -> Figure | None:
    """Draw a panel of bars for each of the parts that compare libraries.

    Returns:
        A figure with an axes for each panel, one above the other; None where there is nothing to draw.
    """
    panels = [made for panel in PANELS for made in [_panel(record, *panel)] if made is not None]
    if not panels:
        return None
    height = sum(panel.height for panel in panels) + GAP
    figure = new_figure(WIDTH, height)
    top = height
    for panel in panels:
        body = BAR * len(panel.bars)
        axes = axes_at(figure, LEFT, top - TOP - body, WIDTH - LEFT - RIGHT, body)
        _draw_panel(axes, panel)
        top -= panel.height
    figure.text(0.15 / WIDTH, 0.1 / height, _foot(record), size=8.5, color=FAINT, va="bottom")
    return figure


def _panel(record: Record, part: str, what: str, shape: tuple[int, ...], dtype: str) -> Panel | None:
    """The wanted case, or the nearest that was measured: most threads first, then shape, then dtype."""
    found = [rows for rows in cases(record["rows"]) if (rows[0]["part"], rows[0]["what"]) == (part, what)]
    bases = [(find(rows, "torch", BASES[part]), rows) for rows in found]
    measured = [(base, rows) for base, rows in bases if base is not None]
    if not measured:
        return None
    base, rows = max(
        measured,
        key=lambda pair: (pair[0]["threads"], tuple(pair[0]["shape"]) == shape, pair[0]["dtype"] == dtype),
    )
    shown = [row for row in rows if row.get("seconds") and row["kernel"] is None]
    shown = [row for row in shown if row is not base and row["form"] not in (DRAW, BLEND)]
    if not shown:
        return None
    bars = [Bar(contender(row), times_of(row, base), _colour(row)) for row in shown]
    bars.sort(key=lambda bar: bar.ratio.middle)
    return Panel(_title(base), _base_text(base), tuple(bars))


def _foot(record: Record) -> str:
    """Where it was made."""
    machine = record["machine"]
    where = machine["device"] if machine["device"] != "cpu" else f"{machine['cores']} x {machine['cpu']}"
    return f"batchmix {record['batchmix']}, torch {machine['torch']}, {where} ({machine['isa']})"


def _colour(row: Row) -> str:
    return {"batchmix": OURS, "torch": PLAIN}.get(row["who"], PEER)


def _title(row: Row) -> str:
    threads = threads_text(row["threads"])
    if row["part"] == "loss":
        return f"Cross entropy, {row['shape'][1]:,} classes, {row['dtype']}, {threads}"
    size = size_text(row["shape"])
    if row["part"] == "images":
        return f"uint8 to mixed {row['dtype']}, {size}, {threads}"
    method = METHOD[row["what"]]
    return f"{method[0].upper()}{method[1:]}, {size} {row['dtype']}, {threads}"


def _base_text(base: Row) -> str:
    taken = median(base["seconds"]) * 1e3
    what = {"blend": "a plain copy", "images": "a converting copy", "loss": "the loss of plain labels"}
    return f"time as multiples of {what[base['part']]} ({taken:.3g} ms, dashed)"


def _draw_panel(axes: Axes, panel: Panel) -> None:
    """Bars with their numbers, the one against which all are measured as a dashed line at 1."""
    places = range(len(panel.bars))
    middles = [bar.ratio.middle for bar in panel.bars]
    axes.barh(places, middles, height=0.72, color=[bar.colour for bar in panel.bars])
    for place, bar in zip(places, panel.bars, strict=True):
        axes.plot([bar.ratio.low, bar.ratio.high], [place, place], color=INK, linewidth=1)
        weight = "bold" if bar.colour == OURS else "normal"
        end = max(bar.ratio.middle, bar.ratio.high)
        axes.annotate(
            f"{bar.ratio.middle:.2f}" if bar.ratio.middle < 10 else f"{bar.ratio.middle:.0f}",
            (end, place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            size=9,
            color=INK,
            weight=weight,
        )
    axes.axvline(1, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_yticks(places, [bar.name for bar in panel.bars])
    for label, bar in zip(axes.get_yticklabels(), panel.bars, strict=True):
        label.set(color=INK, size=9.5, weight="bold" if bar.colour == OURS else "normal")
    axes.set(xlim=(0, 1.02 * max(bar.ratio.high for bar in panel.bars)), ylim=(len(places) - 0.45, -0.55))
    _dress(axes, panel)


def _dress(axes: Axes, panel: Panel) -> None:
    """Title and what the bars are multiples of, above them, at the left edge of the picture."""
    axes.tick_params(length=0, labelbottom=False)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.spines["left"].set_color(FAINT)
    start, height = (0.15 - LEFT) / (WIDTH - LEFT - RIGHT), BAR * len(panel.bars)
    above: dict[str, Any] = {"transform": axes.transAxes, "va": "bottom"}
    axes.text(start, 1 + 0.36 / height, panel.title, size=12, color=INK, weight="bold", **above)
    axes.text(start, 1 + 0.12 / height, panel.base, size=9.5, color=FAINT, **above)
