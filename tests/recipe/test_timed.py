"""Runs against the clock, and the arithmetic in them."""

from __future__ import annotations

import pytest
import torch
from tiny_runs import made_up, tiny

from batchmix.data import Cifar10
from batchmix.recipe.config import preset
from batchmix.recipe.flop import flop_of_run, matmul_rate, step_flop
from batchmix.recipe.network import Net
from batchmix.recipe.timed import TimedRuns

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def runs():
    (train_x, train_y), (test_x, test_y) = made_up(200), made_up(60, seed=1)
    data = Cifar10(train_x.numpy(), train_y.numpy(), test_x.numpy(), test_y.numpy())
    made = TimedRuns(tiny(mix="none"), data, CPU)
    assert made.warm_up() > 0
    return made


def test_a_run_depends_on_its_seed_and_on_nothing_before_it(runs):
    first, other, again = runs.run(1), runs.run(2), runs.run(1)
    assert first.scores == again.scores != other.scores
    assert (first.seed, other.seed) == (1, 2)
    assert min(first.seconds, other.seconds) > 0


def test_the_net_is_the_same_object_all_along(runs):
    net = runs.learner.net
    runs.run(3)
    assert runs.learner.net is net
    assert isinstance(net, Net)


def test_arithmetic_by_hand():
    config = tiny(widths=(4, 6, 8), sizes=(32,), epochs=3)
    layers = (  # inputs, outputs, side of the result, of each 3x3 convolution
        (24, 4, 31), (4, 4, 15), (4, 6, 15), (6, 6, 7), (6, 8, 7), (8, 8, 3),
    )  # fmt: skip
    convolutions = [2 * 9 * i * o * side**2 for i, o, side in layers]
    whitening, head = 2 * 3 * 4 * 24 * 31**2, 2 * 8 * 10
    forward = sum(convolutions) + whitening + head
    backward = 2 * sum(convolutions) + 2 * head
    first = convolutions[0]  # once the whitening bias is fixed nothing needs the gradient of its input
    plain = [step_flop(config, 32, bias_learns=learns) for learns in (True, False)]
    muon = plain[0] - 50 * (forward + backward)
    assert plain[0] - plain[1] == 50 * first
    assert muon > 0
    steps = 4 * plain[0] + 8 * plain[1]  # the bias learns in the first epoch
    assert flop_of_run(config, test_images=10) == steps + 60 * forward


def test_the_preset_for_94_is_of_the_size_of_the_record():
    assert flop_of_run(preset("gpu94")) == pytest.approx(0.29e15, rel=0.1)  # airbench94_muon, as published


def test_a_device_multiplies():
    assert matmul_rate(CPU, 64) > 0
