"""Steps captured as CUDA graphs learn what plain steps learn, and a run depends on nothing before it."""

from __future__ import annotations

import pytest
import torch
from tiny_runs import finish, made_up, tiny, weights

from batchmix.recipe.training import Training, load_checkpoint, save_checkpoint

pytestmark = pytest.mark.gpu

# Small steps: a net that learns fast takes roundings apart, of which a compiled one has others.
SLOW = {"filter_lr": 0.01, "head_lr": 0.01, "bias_lr": 0.002}
KINDS = {
    "none": {"mix": "none", "label_smoothing": 0.2},
    "mixup": {"mix": "mixup"},
    "sgd": {"mix": "cutmix", "optimizer": "sgd", "filter_lr": 1e-4, "schedule": "triangle"},
    "residual": {"net": "residual", "mix": "none"},
}
CLOSE = 0.005


def config_of(**changes):
    return tiny(**{"sizes": (32,), "precision": "float32", "compile": "graph", **SLOW, **changes})


def start(learner=None, **changes):
    config = config_of(**changes)
    return Training(config, *made_up(config.images), torch.device("cuda"), learner=learner)


@pytest.mark.parametrize("kind", KINDS)
def test_a_captured_run_has_the_losses_of_a_plain_one(kind):
    plain, captured = start(compile="off", **KINDS[kind]), start(**KINDS[kind])
    losses = [report.loss for report in finish(plain)]
    assert [report.loss for report in finish(captured)] == pytest.approx(losses, abs=CLOSE)
    assert captured.learner.graphs is not None
    assert plain.learner.graphs is None


def test_a_learner_made_anew_trains_as_a_fresh_one():
    settings, losses = {"mix": "none", "epochs": 4}, []
    learner = start(**settings).learner
    for seed in (1, 2, 1):
        learner.renew(config_of(**settings, seed=seed))
        losses.append([report.loss for report in finish(start(learner, **settings, seed=seed))])
    fresh = [report.loss for report in finish(start(**settings, seed=1))]
    assert losses[0] == pytest.approx(fresh, abs=CLOSE)
    assert losses[2] == pytest.approx(fresh, abs=CLOSE)
    assert losses[1] != pytest.approx(fresh, abs=CLOSE)


@pytest.mark.parametrize("net", ["airbench", "residual"])
def test_a_captured_run_learns_in_bfloat16(net):
    rates = {"filter_lr": 0.24, "head_lr": 0.67, "bias_lr": 0.053}
    options = {"precision": "bfloat16", "mix": "none", "epochs": 10, "widths": (16, 16, 16), **rates}
    reports = finish(start(net=net, **options))
    assert max(report.loss for report in reports[-4:]) < 0.9 * reports[0].loss
    assert min(report.accuracy for report in reports[-4:]) > 0.7


def test_a_captured_run_goes_on_where_it_was_stopped(tmp_path):
    unbroken, first, second = (start(mix="none", epochs=4) for _ in range(3))
    losses = [report.loss for report in finish(unbroken)]
    list(first.run(stop=lambda: first.step == 9))
    save_checkpoint(first, tmp_path / "checkpoint.pt")
    list(second.run(stop=lambda: second.step == 5))  # of which nothing stays
    second.load_state_dict(load_checkpoint(tmp_path / "checkpoint.pt"))
    assert [report.loss for report in finish(second)] == pytest.approx(losses[9:], abs=CLOSE)
    for name, weight in weights(second).items():
        torch.testing.assert_close(weight, weights(unbroken)[name], atol=0.02, rtol=0.02)
