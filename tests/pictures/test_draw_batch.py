"""The grid of a batch: its pixels, its captions, its places and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from looking import assert_texts_inside, lines_below, png, shown

from batchmix.core.plan import MixPlan
from batchmix.core.targets import MixedTarget
from batchmix.errors import MixError
from batchmix.pictures import draw_batch

NAMES = ("cat", "dog", "frog")


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
