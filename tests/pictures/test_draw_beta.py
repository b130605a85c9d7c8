"""The density: its values, its curves and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from looking import assert_texts_inside

from batchmix.errors import MixError
from batchmix.pictures import beta_density, draw_beta

stats = pytest.importorskip("scipy.stats")


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
