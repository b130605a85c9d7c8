"""The pictures: their pixels, their texts, their curves and what they refuse."""

from __future__ import annotations

import io
import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from batchmix.core.plan import MixPlan
from batchmix.core.targets import MixedTarget
from batchmix.errors import MixError
from batchmix.pictures import beta_density, draw_batch, draw_beta, draw_pair, label_texts

stats = pytest.importorskip("scipy.stats")
NAMES = ("cat", "dog", "frog")


def shown(axes):
    """The pixels an axes shows, as (H, W) or (H, W, C)."""
    (image,) = axes.images
    return np.asarray(image.get_array())


def lines_below(axes):
    """The texts drawn under an image, top to bottom."""
    return [text.get_text() for text in axes.texts]


def png(figure):
    """The picture as written and read again, (H, W, 3) uint8."""
    from PIL import Image

    file = io.BytesIO()
    figure.savefig(file, format="png")
    assert len(file.getvalue()) < 300_000
    return np.asarray(Image.open(file).convert("RGB"))


@pytest.fixture
def images():
    return torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("lam", [0.0, 0.3, 0.5, 0.7, 1.0])
def test_pair_shows_both_images_and_their_weighted_sum(images, lam):
    figure = draw_pair(images[0], images[1], lam)
    first, second, mixed = (shown(axes) for axes in figure.axes)
    np.testing.assert_array_equal(first, images[0].permute(1, 2, 0))
    np.testing.assert_array_equal(second, images[1].permute(1, 2, 0))
    np.testing.assert_allclose(mixed, lam * first + (1 - lam) * second, atol=1e-6)


def test_pair_mixes_bytes_to_within_rounding():
    a, b = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    mixed = shown(draw_pair(a, b, 0.7).axes[2]) * 255
    np.testing.assert_allclose(mixed, 0.7 * a + 0.3 * b, atol=0.01)


def test_pair_reads_as_an_equation(images):
    figure = draw_pair(images[0], images[1])
    assert [text.get_text() for text in figure.texts] == ["0.7 ×", "+ 0.3 ×", "="]
    assert [lines_below(axes) for axes in figure.axes] == [["dog"], ["cat"], ["70% dog, 30% cat"]]


@pytest.mark.parametrize("lam", [0.0, 0.004, 0.125, 1 / 3, 0.5, 0.555, 0.996, 1.0])
def test_pair_weights_and_percents_agree_and_sum_to_all(images, lam):
    figure = draw_pair(images[0], images[1], lam)
    signs = [float(number) for text in figure.texts for number in re.findall(r"[\d.]+", text.get_text())]
    percents = [int(number) for number in re.findall(r"(\d+)%", figure.axes[2].get_label())]
    assert sum(signs) == pytest.approx(1)
    assert sum(percents) == 100
    assert percents == [round(100 * sign) for sign in signs if sign]


def test_pair_breaks_a_long_caption_and_keeps_it_in_the_picture(images):
    figure = draw_pair(images[0], images[1], 0.7, ("pickup truck", "sweet pepper"))
    assert lines_below(figure.axes[2]) == ["70% pickup truck", "30% sweet pepper"]
    assert_texts_inside(figure)


def test_pair_takes_one_layout_or_the_other(images):
    last = (images[:2] * 255).to(torch.uint8).permute(0, 2, 3, 1)
    first = last.permute(0, 3, 1, 2)
    for one, other in zip(draw_pair(*last).axes, draw_pair(*first.numpy()).axes, strict=True):
        np.testing.assert_array_equal(shown(one), shown(other))


def test_pair_leaves_its_images_alone(images):
    before = images.clone()
    draw_pair(images[0], images[1])
    assert torch.equal(images, before)


@pytest.mark.parametrize("lam", [-0.1, 1.1, float("nan"), "0.7", None, True])
def test_pair_refuses_lam_in_one_line(images, lam):
    with pytest.raises(MixError, match=r"^lam takes a number in \[0, 1\], got .*$"):
        draw_pair(images[0], images[1], lam)


def test_pair_refuses_what_does_not_fit(images):
    with pytest.raises(MixError, match="image_b takes the shape of image_a"):
        draw_pair(images[0], images[1][:, :16])
    with pytest.raises(MixError, match="image_a takes one image"):
        draw_pair(images, images)
    with pytest.raises(MixError, match="names takes two names"):
        draw_pair(images[0], images[1], 0.7, "ab")


@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.4, 1, 2, 8.0, 500, 10_000])
def test_density_is_scipys(alpha):
    lam = np.linspace(0.001, 0.999, 999)
    ours = beta_density(torch.from_numpy(lam), alpha).numpy()
    np.testing.assert_allclose(ours, stats.beta.pdf(lam, alpha, alpha), rtol=1e-7, atol=1e-12)


def test_density_at_the_ends():
    ends = torch.tensor([0.0, 1.0])
    assert beta_density(ends, 0.4).tolist() == [float("inf")] * 2
    assert beta_density(ends, 1).tolist() == [1.0, 1.0]
    assert beta_density(ends, 2).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("alpha", [1, 2, 100])
def test_drawn_curves_hold_all_the_probability(alpha):
    whole, folded = draw_beta(alpha, fold=True).axes[0].lines[:2]
    for line in (whole, folded):
        assert float(
            torch.trapezoid(*map(torch.as_tensor, (line.get_ydata(), line.get_xdata())))
        ) == pytest.approx(1, abs=0.01)
    assert whole.get_xdata().min() < 0.001
    assert folded.get_xdata().min() == pytest.approx(0.5)
    lam = folded.get_xdata()
    np.testing.assert_allclose(folded.get_ydata(), 2 * stats.beta.pdf(lam, alpha, alpha), rtol=1e-6)


def test_beta_is_cut_where_it_is_infinite_and_says_so():
    (axes,) = draw_beta(0.4).axes
    low, high = axes.get_ylim()
    (line,) = axes.lines
    assert low == 0
    assert np.isfinite(line.get_ydata()).all()
    assert line.get_ydata().max() > high
    assert axes.get_title("left") == "Beta(0.4, 0.4)"
    assert axes.get_title("right") == "infinite at 0 and 1, cut here"
    assert axes.get_xlabel().startswith("lam")
    assert axes.get_ylabel() == "density"


def test_beta_is_whole_where_it_is_finite():
    (axes,) = draw_beta(3).axes
    assert axes.get_ylim()[1] > axes.lines[0].get_ydata().max()
    assert axes.get_title("right") == ""


def test_beta_compares_several():
    figure = draw_beta((0.2, 0.4, 1.0))
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "alpha = 0.2",
        "alpha = 0.4",
        "alpha = 1",
    ]
    assert len({line.get_color() for line in axes.lines}) == 3
    assert axes.get_title("right").startswith("alpha < 1")


@pytest.mark.parametrize("alphas", [0.4, (0.25, 0.5), (0.111, 0.222, 0.333, 0.444, 0.555, 0.666, 0.777)])
@pytest.mark.parametrize("fold", [False, True])
def test_beta_keeps_its_texts_in_the_picture(alphas, fold):
    assert_texts_inside(draw_beta(alphas, fold))


@pytest.mark.parametrize(
    "alpha",
    [0, 0.0, -1, float("nan"), float("inf"), "0.4", None, True, (), (0.4, 0), (0.4, "1"), [1] * 8, 1e9],
)
def test_alpha_is_refused_in_one_line(alpha):
    with pytest.raises(MixError, match=r"^alpha takes a number > 0[^\n]*$"):
        draw_beta(alpha)


def test_batch_shows_the_images_with_their_labels(images):
    y = torch.tensor([0, 1, 2, 0, 1, 2])
    figure = draw_batch(images, y, NAMES, columns=4)
    for axes, image, label in zip(figure.axes, images, y.tolist(), strict=True):
        np.testing.assert_array_equal(shown(axes), image.permute(1, 2, 0))
        assert lines_below(axes) == [NAMES[label]]
        assert axes.images[0].get_interpolation() == "nearest"


def test_batch_says_the_weights_of_a_mixed_target(images):
    lam = torch.tensor([0.7, 0.9, 1.0, 0.5, 0.555, 0.999])
    y = MixedTarget.from_plan(
        torch.tensor([0, 1, 2, 0, 1, 2]), MixPlan(torch.tensor([1, 2, 0, 3, 5, 4]), lam)
    )
    figure = draw_batch(images, y, NAMES)
    assert [axes.get_label() for axes in figure.axes] == [
        "70% cat, 30% dog",
        "90% dog, 10% frog",
        "100% frog",
        "100% cat",  # its own partner
        "56% dog, 44% frog",
        "100% frog",
    ]
    assert lines_below(figure.axes[0]) == ["70% cat", "30% dog"]


def test_percents_of_a_mix_always_sum_to_100():
    lam = torch.linspace(0, 1, 401)
    y = MixedTarget(torch.zeros(401, dtype=torch.long), torch.ones(401, dtype=torch.long), lam)
    for text, weight in zip(label_texts(y), lam.tolist(), strict=True):
        found = {int(label): int(percent) for percent, label in re.findall(r"(\d+)% (\d)", text)}
        assert sum(found.values()) == 100
        assert abs(found.get(0, 0) - 100 * weight) <= 0.5 + 1e-4


def test_dense_targets_name_their_two_largest():
    weights = torch.tensor([[0.25, 0.05, 0.7], [0.0, 1.0, 0.0], [0.4, 0.4, 0.2]])
    expected = ["70% frog, 25% cat", "100% dog", "40% cat, 40% dog"]
    assert label_texts(weights, NAMES) == expected
    assert label_texts(weights.double().numpy(), NAMES) == expected
    assert label_texts(weights.half(), NAMES) == expected


def test_mixed_soft_targets_are_mixed_before_they_are_named():
    a, b = torch.eye(3)[:1], torch.eye(3)[2:]
    assert label_texts(MixedTarget(a, b, 0.75), NAMES) == ["75% cat, 25% frog"]


@pytest.mark.parametrize("labels", [[1, 0], np.array([1, 0], dtype=np.uint8), torch.tensor([1, 0]).int()])
def test_labels_of_any_whole_type(labels):
    assert label_texts(labels, NAMES) == ["dog", "cat"]
    assert label_texts(labels) == ["1", "0"]


def test_batch_undoes_a_normalisation(images):
    mean, std = (0.49, 0.48, 0.45), np.array([0.25, 0.24, 0.26])
    shift, scale = torch.tensor(mean).view(3, 1, 1), torch.tensor(std).float().view(3, 1, 1)
    figure = draw_batch((images - shift) / scale, range(3, 9), mean=mean, std=std)
    np.testing.assert_allclose(shown(figure.axes[5]), images[5].permute(1, 2, 0), atol=1e-6)
    half = draw_batch(images - 0.5, range(6), mean=0.5)
    np.testing.assert_allclose(shown(half.axes[0]), images[0].permute(1, 2, 0), atol=1e-6)


def test_batch_clips_and_survives_nan():
    x = torch.tensor([-1.0, 0.25, 2.0, float("nan")]).view(1, 1, 2, 2)
    assert shown(draw_batch(x, [0]).axes[0]).tolist() == [[0.0, 0.25], [1.0, 0.0]]


def test_batch_takes_arrays_as_they_come():
    x = np.random.default_rng(0).integers(0, 256, (3, 5, 9, 3), dtype=np.uint8)
    x.setflags(write=False)
    np.testing.assert_allclose(shown(draw_batch(x, [0, 1, 2]).axes[1]) * 255, x[1], atol=1e-3)
    reversed_channels = x[..., ::-1]
    np.testing.assert_allclose(shown(draw_batch(reversed_channels, [0, 1, 2]).axes[1]) * 255, x[1, ..., ::-1])


@pytest.mark.parametrize("shape", [(2, 3, 20, 30), (2, 1, 60, 20), (1, 3, 4, 64), (1, 1, 64, 4)])
def test_batch_keeps_the_shape_of_images(shape):
    figure = draw_batch(torch.rand(shape), torch.zeros(shape[0], dtype=torch.long))
    figure.draw_without_rendering()
    box = figure.axes[0].get_window_extent()
    assert box.height / box.width == pytest.approx(shape[2] / shape[3], rel=0.01)
    assert_texts_inside(figure)


def test_batch_stops_at_the_limit(images):
    assert len(draw_batch(images, range(6), limit=4).axes) == 4
    assert len(draw_batch(images, range(6), limit=100).axes) == 6
    # Labels past the limit are not looked at.
    assert len(draw_batch(images, [0, 0, 0, 0, 0, 99], NAMES, limit=5).axes) == 5


def test_batch_is_narrow_where_columns_are_few(images):
    places = [axes.get_position() for axes in draw_batch(images, range(6), columns=2).axes]
    assert len({round(place.x0, 6) for place in places}) == 2
    assert len({round(place.y0, 6) for place in places}) == 3


def test_captions_of_one_row_stand_on_one_line(images):
    y = MixedTarget(torch.tensor([0, 2]), torch.tensor([2, 1]), 0.7)
    figure = draw_batch(images[:2], y, ("aaa", "lll", "ggg"))
    figure.draw_without_rendering()
    heights = [[text.xyann[1] for text in axes.texts] for axes in figure.axes]
    assert heights[0] == heights[1]
    assert heights[0][0] > heights[0][1]


def test_long_and_strange_names_are_shown_as_written(images):
    names = ["$5 note", "a_very_long_class_name_indeed", "50% $x^2$"]
    figure = draw_batch(images[:3], [0, 1, 2], names)
    assert [lines_below(axes) for axes in figure.axes] == [[name] for name in names]
    png(figure)
    assert_texts_inside(figure)


@pytest.mark.parametrize(
    ("x", "y", "options", "line"),
    [
        (torch.rand(3, 8, 8), [0, 0, 0], {}, "x takes (B, C, H, W) float or uint8 images"),
        (torch.rand(0, 3, 8, 8), [], {}, "x takes (B, C, H, W) float or uint8 images"),
        (torch.rand(2, 5, 8, 8), [0, 0], {}, "x takes images of 1 or 3 channels"),
        (torch.ones(2, 3, 8, 8).long(), [0, 0], {}, "x takes (B, C, H, W) float or uint8 images"),
        (torch.tensor(1.0), [0], {}, "x takes a batch"),
        (["cat", "dog"], [0, 1], {}, "x takes a tensor or an array"),
        (torch.rand(2, 3, 8, 8), [0], {}, "y takes as many targets as there are images: 2, got 1"),
        (torch.rand(2, 3, 8, 8), None, {}, "y takes a batch"),
        (torch.rand(2, 3, 8, 8), torch.rand(2), {}, "y takes labels (B,)"),
        (torch.rand(2, 3, 8, 8), torch.zeros(2, 8, 8).long(), {}, "y takes labels (B,)"),
        (torch.rand(2, 3, 8, 8), torch.full((2, 4), 3.0), {}, "y takes weights in [0, 1]"),
        (torch.rand(2, 3, 8, 8), torch.full((2, 4), torch.nan), {}, "y takes weights in [0, 1]"),
        (torch.rand(1, 3, 8, 8), [3], {"class_names": NAMES}, "class_names takes a name for every label"),
        (torch.rand(1, 3, 8, 8), [-1], {"class_names": NAMES}, "class_names takes a name for every label"),
        (torch.rand(1, 3, 8, 8), [0], {"columns": 0}, "columns takes a whole number >= 1"),
        (torch.rand(1, 3, 8, 8), [0], {"limit": 2.0}, "limit takes a whole number >= 1"),
        (torch.rand(1, 3, 8, 8), [0], {"mean": (0.5, 0.5)}, "mean takes one finite number, or 3"),
        (torch.rand(1, 3, 8, 8), [0], {"std": float("nan")}, "std takes one finite number, or 3"),
        (torch.rand(1, 3, 8, 8), [0], {"std": "x"}, "std takes"),
    ],
)
def test_batch_refuses_in_one_line(x, y, options, line):
    with pytest.raises(MixError) as caught:
        draw_batch(x, y, **options)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_pictures_are_white_outside_and_not_empty(images):
    for figure in (draw_pair(images[0], images[1]), draw_beta(0.4, True), draw_batch(images, range(6))):
        pixels = png(figure)
        assert (pixels[0] == 255).all()
        assert (pixels[-1] == 255).all()
        assert (pixels < 250).any(axis=2).mean() > 0.01


def test_drawing_needs_no_pyplot():
    code = (
        "import sys, torch; from batchmix import pictures as p; assert 'matplotlib' not in sys.modules;"
        "p.draw_pair(torch.rand(3, 8, 8), torch.rand(3, 8, 8)); p.draw_beta();"
        "p.draw_batch(torch.rand(2, 3, 8, 8), [0, 1]); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_without_matplotlib_the_way_to_get_it_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MixError, match=r"pip install 'batchmix\[cli\]'"):
        draw_beta()


def assert_texts_inside(figure):
    """Everything that is drawn, texts included, lies within the picture; in inches."""
    figure.draw_without_rendering()
    drawn = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    assert min(drawn.x0, drawn.y0) >= -0.01
    assert drawn.x1 <= width + 0.01
    assert drawn.y1 <= height + 0.01
