"""The equation of two images: its pixels, its texts and what it refuses."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from looking import assert_texts_inside, lines_below, shown

from batchmix.errors import MixError
from batchmix.pictures import draw_pair


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
