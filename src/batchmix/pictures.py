"""Pictures of what mixing does: one pair, the density the weights come from, any batch with its labels.

Every drawing is a ``matplotlib.figure.Figure`` made without pyplot: no display is needed, nothing global is
touched, and ``figure.savefig("pair.png")`` writes it. matplotlib comes with ``pip install 'batchmix[cli]'``.

Source: the pair and the density are the two pictures of Gugger 2018, "Mixup data augmentation", fast.ai.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from batchmix.core.blending import blend
from batchmix.core.plan import MixPlan, describe
from batchmix.core.targets import MixedTarget
from batchmix.errors import MixError
from batchmix.files import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["beta_density", "draw_batch", "draw_beta", "draw_pair", "label_texts", "write_figure"]

DPI = 160
INK = "#222222"
FAINT = "#666666"
# Okabe and Ito's palette, which stays distinct under the common colour blindnesses, and a dark grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#444444")
DASHES = (0, (4, 2))
# Curves in one row of the key.
KEY_COLUMNS = 3
# Above this a Beta density is a spike at a half, and there is nothing left to see.
LARGEST_ALPHA = 10_000.0

# One image's share of a weight, as (label, weight).
_Shares = list[tuple[int, float]]


def draw_pair(image_a: Any, image_b: Any, lam: float = 0.7, names: Sequence[str] = ("dog", "cat")) -> Figure:
    """Draw two images and their mix as one equation: ``lam x a + (1-lam) x b``.

    Args:
        image_a: Image, (C, H, W) float in [0, 1], or uint8 (H, W, C) or (C, H, W); C is 1 or 3.
        image_b: The image to mix in, of the same shape.
        lam: Weight of ``image_a``, in [0, 1]; shown to two decimals.
        names: What the two images show.

    Returns:
        A figure with three axes: a, b and their mix; the label of each axes is its caption.

    Raises:
        MixError: If an argument is not of the form above.

    Example:
        >>> figure = draw_pair(torch.zeros(3, 32, 32), torch.ones(3, 32, 32))
        >>> figure.axes[2].get_label()
        '70% dog, 30% cat'

    Source: Gugger 2018, "Mixup data augmentation", fast.ai, first picture.
    """
    lam = _number("lam", lam, 0.0, 1.0, "a number in [0, 1]")
    if isinstance(names, str) or len(names) != 2:
        raise MixError.of("names", names, "two names")
    pair = _pair_images(image_a, image_b)
    mixed = blend(pair, MixPlan(torch.tensor([1, 0]), torch.tensor([lam, lam])))[:1]
    percents = _percents([lam, 1 - lam])
    weights = [f"{percent / 100:.2g} ×" for percent in percents]
    captions = [*names, _join(percents, list(names))]
    return _equation(_displayable(torch.cat([pair, mixed])), [weights[0], f"+ {weights[1]}", "="], captions)


def draw_beta(alpha: float | Sequence[float] = 0.4, fold: bool = False) -> Figure:
    """Draw the density that the mixing weights come from.

    For ``alpha`` below 1 the density is infinite at 0 and at 1: the y axis is cut there, and a line under the
    title says so.

    Args:
        alpha: Shape of Beta(alpha, alpha), > 0, or up to seven of them to compare. At 0 there is no density:
            every weight is 1.
        fold: Draw also, dashed, the density of ``max(lam, 1-lam)``, which is what a folded mixup draws from.

    Returns:
        A figure with one axes: lam from 0 to 1, and the density.

    Raises:
        MixError: If an ``alpha`` is not a number in (0, 10000].

    Example:
        >>> draw_beta(0.4).axes[0].get_xlabel()
        'lam, the weight of the sample itself'

    Source: Gugger 2018, "Mixup data augmentation", fast.ai, second picture; paper: arXiv:1710.09412.
    """
    alphas = _alphas(alpha)
    entries = len(alphas) + fold
    key_rows = math.ceil(entries / KEY_COLUMNS) if entries > 1 else 0
    figure = _new_figure(6.4, 3.5 + 0.25 * key_rows)
    axes = _axes_at(figure, 0.8, 0.6, 5.4, 2.5)
    for number, colour in zip(alphas, COLOURS, strict=False):
        _draw_density(axes, number, fold, colour, shade=len(alphas) == 1)
    if fold:
        # An empty line, for the key alone: dashes mean the same in every colour.
        colour, name = (COLOURS[0], "folded: max(lam, 1 − lam)") if len(alphas) == 1 else (FAINT, "folded")
        axes.plot([], [], color=colour, linewidth=2, linestyle=DASHES, label=name)
    _dress_density(axes, alphas, key_rows, _top(alphas, fold))
    return figure


def beta_density(lam: Tensor, alpha: float) -> Tensor:
    """Compute the density of Beta(alpha, alpha).

    Args:
        lam: Where, any shape, in [0, 1].
        alpha: Shape of the density, > 0.

    Returns:
        The shape of ``lam``, float64; infinite at 0 and 1 where ``alpha`` is below 1.

    Raises:
        MixError: If ``alpha`` is not a number in (0, 10000].

    Example:
        >>> beta_density(torch.tensor([0.0, 0.5, 1.0]), 2.0)
        tensor([0.0000, 1.5000, 0.0000], dtype=torch.float64)
    """
    (alpha,) = _alphas((alpha,))
    lam = lam.double()
    power = torch.full_like(lam, alpha - 1)
    # xlogy, because at alpha 1 the ends are 0 * log(0), which has to be 0.
    logs = torch.xlogy(power, lam) + torch.xlogy(power, 1 - lam)
    return (logs + math.lgamma(2 * alpha) - 2 * math.lgamma(alpha)).exp()


def draw_batch(
    x: Any,
    y: Any,
    class_names: Sequence[str] | None = None,
    *,
    columns: int = 8,
    limit: int = 32,
    mean: Sequence[float] | float | None = None,
    std: Sequence[float] | float | None = None,
) -> Figure:
    """Draw a batch as a grid, each image with its label or the weights of its labels.

    Values outside [0, 1] are clipped, and NaN is drawn as 0; nothing is rescaled.

    Args:
        x: Images, (B, C, H, W) float in [0, 1], or uint8 (B, H, W, C) or (B, C, H, W); C is 1 or 3.
        y: Their targets: a MixedTarget, labels (B,), or weights of the classes (B, K).
        class_names: The name of each class; the labels' numbers if left out.
        columns: Images in a row, at least 1; 4 stays readable on a phone.
        limit: The first so many images are drawn.
        mean: What was subtracted from each channel to normalise ``x``: C numbers or one, in ``x``'s unit.
        std: What each channel was divided by after that: C numbers or one.

    Returns:
        A figure with one axes for each image drawn; the label of the axes is the text below it.

    Raises:
        MixError: If an argument is not of the form above, the lengths differ, or a label has no name.

    Example:
        >>> y = MixedTarget(torch.tensor([0, 1]), torch.tensor([1, 0]), 0.7)
        >>> draw_batch(torch.rand(2, 3, 8, 8), y, ["cat", "dog"]).axes[0].get_label()
        '70% cat, 30% dog'
    """
    columns, limit = _whole("columns", columns), _whole("limit", limit)
    size = _length("x", x)
    if _length("y", y) != size:
        raise MixError(f"y takes as many targets as there are images: {size}, got {len(y)}")
    images = _displayable(_images("x", _head("x", x, limit)), mean, std)
    labels = label_texts(y[:limit], class_names)
    return _grid(images, [text.replace(", ", "\n") for text in labels], min(columns, len(images)))


def label_texts(y: Any, class_names: Sequence[str] | None = None) -> list[str]:
    """Say what each target is: "dog", or "70% dog, 30% cat".

    Weights are rounded to whole percents, two that make up everything so that they still do; a class that
    rounds to 0% is left out. Of the weights of many classes the two largest are named.

    Args:
        y: A MixedTarget of labels (B,) or of class weights (B, K), or such labels or weights themselves.
        class_names: The name of each class; the labels' numbers if left out.

    Returns:
        B texts.

    Raises:
        MixError: If ``y`` is none of these, a weight is outside [0, 1], or a label has no name.

    Example:
        >>> label_texts(torch.tensor([1, 0]), ["cat", "dog"])
        ['dog', 'cat']
        >>> label_texts(torch.tensor([[0.25, 0.75]]), ["cat", "dog"])
        ['75% dog, 25% cat']
    """
    if isinstance(y, MixedTarget):
        return [_weighted_text(row, class_names) for row in _mixed_shares(y)]
    y = _head("y", y)
    if y.dim() == 2:
        return [_weighted_text(row, class_names) for row in _largest_shares(y)]
    _check_labels(y)
    return [_name(label, class_names) for label in y.tolist()]


# What a target says


def write_figure(path: Path, figure: Figure) -> None:
    """Write a figure as PNG, whole or not at all.

    Raises:
        DataError: If the disk is full or refuses the file.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor="white")
    write_whole(path, [buffer.getbuffer()])


def _mixed_shares(y: MixedTarget) -> list[_Shares]:
    """Labels and weights of each sample; one entry where both labels are the same."""
    y = y.to("cpu")
    _check_weights(y.lam)
    if y.a.dim() == 2 and y.a.is_floating_point():
        return _largest_shares(y.dense(y.a.shape[1]))
    _check_labels(y.a)
    rows = zip(y.a.tolist(), y.b.tolist(), y.lam.tolist(), strict=True)
    return [[(a, 1.0)] if a == b else [(a, lam), (b, 1 - lam)] for a, b, lam in rows]


def _largest_shares(weights: Tensor) -> list[_Shares]:
    """The two largest of (B, K) weights in each row."""
    _check_weights(weights)
    # A stable sort: of equal weights the smaller label comes first on every machine.
    largest = weights.double().sort(dim=1, descending=True, stable=True)
    tops = zip(largest.indices[:, :2].tolist(), largest.values[:, :2].tolist(), strict=True)
    return [list(zip(labels, shares, strict=True)) for labels, shares in tops]


def _weighted_text(shares: _Shares, class_names: Sequence[str] | None) -> str:
    names = [_name(label, class_names) for label, _ in shares]
    return _join(_percents([weight for _, weight in shares]), names)


def _percents(weights: list[float]) -> list[int]:
    """Whole percents; two weights that make up 1 still do so, where each rounded alone could give 101."""
    percents = [round(100 * weight) for weight in weights]
    if len(weights) == 2 and abs(sum(weights) - 1) < 1e-3:
        percents[1] = 100 - percents[0]
    return percents


def _join(percents: list[int], names: list[str]) -> str:
    texts = [f"{percent}% {name}" for percent, name in zip(percents, names, strict=True)]
    return ", ".join(text for text, percent in zip(texts, percents, strict=True) if percent) or texts[0]


def _name(label: int, class_names: Sequence[str] | None) -> str:
    if class_names is None:
        return str(label)
    if not 0 <= label < len(class_names):
        raise MixError(f"class_names takes a name for every label: label {label}, {len(class_names)} names")
    return str(class_names[label])


# The grid and the equation


def _new_figure(width: float, height: float) -> Figure:
    """A white figure of so many inches, outside pyplot."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MixError(
            "pictures take matplotlib, which is not installed: pip install 'batchmix[cli]'"
        ) from None
    return Figure(figsize=(width, height), dpi=DPI, facecolor="white")


def _grid(images: Tensor, labels: list[str], columns: int) -> Figure:
    """Draw (n, H, W, C) images in rows of ``columns``, the labels below; lengths are in inches."""
    side, gap, margin = 1.2, 0.15, 0.15
    rows = math.ceil(len(images) / columns)
    tall = _height(images, side)
    size = _fitting_size(labels, side + gap)
    step = tall + _caption_height(labels, size) + gap
    height = 2 * margin + rows * step - gap
    figure = _new_figure(2 * margin + columns * (side + gap) - gap, height)
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        row, column = divmod(index, columns)
        left, bottom = margin + column * (side + gap), height - margin - row * step - tall
        _draw_image(_axes_at(figure, left, bottom, side, tall), image, label, size)
    return figure


def _equation(images: Tensor, signs: list[str], captions: list[str]) -> Figure:
    """Draw three (H, W, C) images in a row, a sign before each and a caption below; lengths are in inches."""
    side, margin, spill = 1.4, 0.1, 0.2
    tall = _height(images, side)
    # The result has room to the right: up to so many letters its caption stays on one line.
    if _text_width(captions[2], 13) > side + 2 * spill:
        captions = [*captions[:2], captions[2].replace(", ", "\n")]
    size = _fitting_size(captions, side + 2 * spill, 13)
    gaps = [_text_width(sign, 15) + space for sign, space in zip(signs, (0.1, 0.25, 0.4), strict=True)]
    height = 2 * margin + tall + _caption_height(captions, size)
    width = 2 * margin + sum(gaps) + 3 * side + spill
    figure = _new_figure(width, height)
    left, bottom = margin, height - margin - tall
    for image, sign, gap, caption in zip(images, signs, gaps, captions, strict=True):
        middle = ((left + gap / 2) / width, (bottom + tall / 2) / height)
        figure.text(*middle, sign, size=15, color=INK, ha="center", va="center")
        _draw_image(_axes_at(figure, left + gap, bottom, side, tall), image, caption, size)
        left += gap + side
    return figure


def _axes_at(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes at a place in inches, so that every image has a whole number of pixels to each of its own."""
    full_width, full_height = figure.get_size_inches()
    place = (left / full_width, bottom / full_height, width / full_width, height / full_height)
    return figure.add_axes(place)


def _draw_image(axes: Axes, image: Tensor, label: str, size: float) -> None:
    # A grey image has one channel, which imshow takes without its dimension.
    shown = image.squeeze(-1) if image.shape[-1] == 1 else image
    axes.imshow(shown.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.set_label(label.replace("\n", ", "))
    for number, line in enumerate(label.split("\n")):
        # Line by line and by the baseline: aligned by their tops, "cat" would hang lower than "ship".
        # A class may be named "$5 note": no line is read as a formula.
        below = (0, -_baseline(number, size))
        axes.annotate(
            line,
            xy=(0.5, 0),
            xycoords="axes fraction",
            xytext=below,
            textcoords="offset points",
            size=size,
            color=INK,
            ha="center",
            va="baseline",
            parse_math=False,
        )


def _baseline(line: int, size: float) -> float:
    """How far below its image a line of a caption stands, in points."""
    return 5 + size * (0.8 + 1.3 * line)


def _caption_height(captions: list[str], size: float) -> float:
    """How many inches the longest caption takes, with the tails of its last letters."""
    last = max(caption.count("\n") for caption in captions)
    return (_baseline(last, size) + 0.3 * size) / 72


def _height(images: Tensor, width: float) -> float:
    """Height in inches of (n, H, W, C) images drawn ``width`` wide; beyond 3 to 1 they get narrower."""
    return width * min(images.shape[1] / images.shape[2], 3.0)


def _text_width(text: str, size: float) -> float:
    """About how many inches the longest line takes: a letter of the usual font is 0.58 of its size wide."""
    return max(map(len, text.split("\n"))) * 0.58 * size / 72


def _fitting_size(texts: list[str], width: float, largest: float = 10.5) -> float:
    """The one font size at which all texts are at most so many inches wide, but not below 5 points."""
    longest = max(_text_width(text, largest) for text in texts)
    return max(5.0, min(largest, largest * width / max(longest, 1e-9)))


# The density


def _draw_density(axes: Axes, alpha: float, fold: bool, colour: str, *, shade: bool) -> None:
    # The cosine puts points close together at the ends, where the curve is steep; the ends stay out.
    lam = (1 - torch.linspace(0, math.pi, 2003, dtype=torch.float64).cos()[1:-1]) / 2
    density = beta_density(lam, alpha)
    axes.plot(lam.numpy(), density.numpy(), color=colour, linewidth=2, label=f"alpha = {alpha:g}")
    if not fold:
        return
    # The middle one of an odd number of points is a half, by the symmetry that rounding may miss.
    middle = len(lam) // 2
    right, folded = lam[middle:].numpy(), 2 * density[middle:].numpy()
    axes.plot(right, folded, color=colour, linewidth=2, linestyle=DASHES)
    if shade:
        axes.fill_between(right, folded, color=colour, alpha=0.12, linewidth=0)


def _dress_density(axes: Axes, alphas: list[float], key_rows: int, top: float) -> None:
    """Axes, title and key; the y axis ends where the curves that go to infinity have left the picture."""
    pad = 8 + 18 * key_rows
    title = f"Beta({alphas[0]:g}, {alphas[0]:g})" if len(alphas) == 1 else "Beta(alpha, alpha)"
    axes.set_title(title, size=14, color=INK, loc="left", pad=pad)
    if min(alphas) < 1:
        which = "" if max(alphas) < 1 else "alpha < 1: "
        axes.set_title(f"{which}infinite at 0 and 1, cut here", size=11, color=FAINT, loc="right", pad=pad)
    if key_rows:
        axes.legend(
            ncols=KEY_COLUMNS,
            loc="lower left",
            bbox_to_anchor=(-0.02, 0.98),
            frameon=False,
            fontsize=11,
            labelcolor=INK,
            handlelength=2.2,
        )
    axes.set(xlim=(0, 1), ylim=(0, top), xticks=[0, 0.25, 0.5, 0.75, 1])
    axes.locator_params(axis="y", nbins=5)
    axes.set_xlabel("lam, the weight of the sample itself", size=12, color=INK)
    axes.set_ylabel("density", size=12, color=INK)
    axes.tick_params(labelsize=11, colors=INK)
    axes.spines[["top", "right"]].set_visible(False)


def _top(alphas: list[float], fold: bool) -> float:
    """Where the y axis ends: above the finite peaks, and above the infinite ones but for the last 3%."""
    peaks = [beta_density(torch.tensor(0.5 if alpha >= 1 else 0.03), alpha) for alpha in alphas]
    return 1.1 * max(1.0, float(max(peaks))) * (2 if fold else 1)


# What the arguments may be


def _alphas(alpha: Any) -> list[float]:
    takes = "a number > 0 and at most 10000, or up to seven of them"
    several = isinstance(alpha, Sequence) and not isinstance(alpha, str)
    alphas = list(alpha) if several else [alpha]
    if not 1 <= len(alphas) <= len(COLOURS):
        raise MixError.of("alpha", alpha, takes)
    numbers = [_number("alpha", one, 0.0, LARGEST_ALPHA, takes) for one in alphas]
    if min(numbers) == 0:
        raise MixError.of("alpha", alpha, f"{takes} (at 0 every weight is 1 and there is no density)")
    return numbers


def _number(name: str, got: Any, low: float, high: float, takes: str) -> float:
    if isinstance(got, bool) or not isinstance(got, Real) or not low <= float(got) <= high:
        raise MixError.of(name, got, takes)
    return float(got)


def _whole(name: str, got: Any) -> int:
    if isinstance(got, bool) or not isinstance(got, int) or got < 1:
        raise MixError.of(name, got, "a whole number >= 1")
    return got


def _length(name: str, values: Any) -> int:
    try:
        return len(values)
    except TypeError:
        raise MixError(f"{name} takes a batch, got {describe(values)}") from None


def _head(name: str, values: Any, limit: int | None = None) -> Tensor:
    """The first ``limit`` rows of a tensor or of anything NumPy takes, as a tensor on the CPU."""
    if isinstance(values, Tensor):
        return values.detach()[:limit].cpu() if values.dim() else values
    import numpy as np

    try:
        # A copy in order: torch takes neither reversed strides nor, without a warning, read-only arrays.
        return torch.from_numpy(np.array(np.asarray(values)[:limit], order="C"))
    except (TypeError, ValueError, IndexError):
        raise MixError(f"{name} takes a tensor or an array, got a {type(values).__name__}") from None


def _pair_images(image_a: Any, image_b: Any) -> Tensor:
    """Two images as one batch, (2, C, H, W) float32."""
    images = []
    for name, image in (("image_a", image_a), ("image_b", image_b)):
        tensor = _head(name, image)
        if tensor.dim() != 3:
            raise MixError(f"{name} takes one image (C, H, W), or uint8 (H, W, C), got {describe(tensor)}")
        images.append(_images(name, tensor[None])[0])
    if images[0].shape != images[1].shape:
        shapes = [tuple(image.shape) for image in images]
        raise MixError(f"image_b takes the shape of image_a, {shapes[0]} as (C, H, W), got {shapes[1]}")
    return torch.stack(images)


def _images(name: str, x: Tensor) -> Tensor:
    """Images as (B, C, H, W) float32, uint8 brought to [0, 1]."""
    if x.dim() != 4 or not (x.is_floating_point() or x.dtype == torch.uint8) or not x.numel():
        raise MixError(f"{name} takes (B, C, H, W) float or uint8 images, at least one, got {describe(x)}")
    whole = x.dtype == torch.uint8
    # Whole numbers come from files and arrays, channels last; float batches from loaders, channels first.
    planes = x.permute(0, 3, 1, 2) if whole and x.shape[3] in (1, 3) else x
    if planes.shape[1] not in (1, 3):
        raise MixError(f"{name} takes images of 1 or 3 channels, (B, C, H, W), got {describe(x)}")
    return planes.float() / 255 if whole else planes.float()


def _displayable(images: Tensor, mean: Any = None, std: Any = None) -> Tensor:
    """Undo a normalisation and clip, (n, H, W, C)."""
    channels = images.shape[1]
    scale = 1.0 if std is None else _by_channel("std", std, channels)
    shift = 0.0 if mean is None else _by_channel("mean", mean, channels)
    return (images * scale + shift).nan_to_num(nan=0.0).clamp(0, 1).permute(0, 2, 3, 1)


def _by_channel(name: str, values: Any, channels: int) -> Tensor:
    """One number or one a channel, as a tensor that broadcasts over (B, C, H, W)."""
    numbers = _head(name, [values] if isinstance(values, Real) else values).flatten()
    fits = len(numbers) in (1, channels) and not numbers.is_complex() and bool(numbers.isfinite().all())
    if not fits:
        raise MixError(
            f"{name} takes one finite number, or {channels}, one a channel, got {numbers.tolist()}"
        )
    return numbers.float().view(1, -1, 1, 1)


def _check_labels(y: Tensor) -> None:
    if y.dim() != 1 or y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise MixError(f"y takes labels (B,), or weights of the classes (B, K), got {describe(y)}")


def _check_weights(weights: Tensor) -> None:
    """Refuse logits and the like, up to the rounding of half precision."""
    outside = not bool(((weights >= -1e-3) & (weights <= 1 + 1e-3)).all())
    if outside or not weights.numel():
        raise MixError(f"y takes weights in [0, 1], got others in a {describe(weights)}")
