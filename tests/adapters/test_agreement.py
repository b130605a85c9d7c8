"""The key test: in every framework the losses of each step are those of the plain loop.

A framework is one line in ADAPTERS and one file ``run_with_NAME.py`` with ``run(mixer, *, lr)``, which trains
``plain_loop``'s model on ``plain_loop``'s batches by that framework's own means.
"""

from __future__ import annotations

import importlib

import plain_loop
import pytest
import torch
from plain_loop import Run

import batchmix as bm

ADAPTERS = (
    "accelerate",
    "collate",
    "fastai",
    "ignite",
    "keras",
    "lightning",
    "pytorch_lightning",
    "skorch",
    "timm",
    "torchvision",
    "transformers",
)


@pytest.fixture(params=ADAPTERS)
def framework(request: pytest.FixtureRequest):
    return importlib.import_module(f"run_with_{request.param}")


def mixer() -> bm.Mixer:
    return bm.Mixup(0.4, seed=5)


def assert_close(got: list[float], wanted: list[float]) -> None:
    assert got == pytest.approx(wanted, rel=1e-6, abs=1e-6)


def test_every_step_is_the_plain_loops(framework) -> None:
    ours, plain = framework.run(mixer()), plain_loop.run(mixer())
    assert_close(ours.train, plain.train)
    assert_close(ours.evaluation, plain.evaluation)
    assert ours.weights.keys() == plain.weights.keys()
    for name, value in plain.weights.items():
        torch.testing.assert_close(ours.weights[name].cpu(), value, rtol=1e-5, atol=1e-6)


def test_evaluation_is_that_of_a_run_without_mixing(framework) -> None:
    """At a learning rate of 0 the weights stay, so that evaluation can differ by the mixing alone."""
    ours, unmixed = framework.run(mixer(), lr=0.0), plain_loop.run(None, lr=0.0)
    assert_close(ours.evaluation, unmixed.evaluation)
    assert ours.train != pytest.approx(unmixed.train, rel=1e-3)


def test_without_a_mixer_it_is_the_plain_loop_without_one(framework) -> None:
    ours, plain = framework.run(None), plain_loop.run(None)
    assert_close(ours.train, plain.train)
    assert_close(ours.evaluation, plain.evaluation)


def test_the_comparison_can_fail() -> None:
    plain = plain_loop.run(mixer())
    for other in (plain_loop.run(bm.Mixup(0.4, seed=6)), plain_loop.run(None), Run()):
        with pytest.raises(AssertionError):
            assert_close(other.train, plain.train)
