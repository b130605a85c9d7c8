"""The training loop: the same weights however often it is stopped, and runs in pairs."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_runs import finish, identical, start, tiny, weights
from torch.nn import functional as F

import batchmix as bm
from batchmix.recipe.training import WHITENING_BIAS_EPOCHS, load_checkpoint, save_checkpoint

CROSSING = {"mix_until": 0.5, "sizes": (16, 20)}  # mixing ends and sizes change at step 6 of 12


@pytest.fixture(scope="module")
def unbroken():
    training = start(**CROSSING)
    return finish(training), weights(training)


@pytest.mark.parametrize("stop", [1, 4, 5, 6, 7, 11])
def test_a_resumed_run_ends_with_the_weights_of_an_unbroken_one(unbroken, tmp_path, stop):
    first, second = start(**CROSSING), start(**CROSSING)
    reports = list(first.run(stop=lambda: first.step == stop))
    assert len(reports) == stop
    save_checkpoint(first, tmp_path / "checkpoint.pt")
    second.load_state_dict(load_checkpoint(tmp_path / "checkpoint.pt"))
    assert second.seconds == first.seconds
    assert reports + finish(second) == unbroken[0]
    assert identical(weights(second), unbroken[1])


def test_a_run_goes_on_after_every_single_step(unbroken):
    training = start(**CROSSING)
    while training.step < training.config.steps:
        assert len(list(training.run(stop=lambda: True))) == 1
    assert identical(weights(training), unbroken[1])


def test_steps_between_reports_are_taken_all_the_same(unbroken):
    training = start(**CROSSING)
    reports = list(training.run(every=3))
    assert [report.step for report in reports] == [0, 3, 6, 7, 9, 11]  # each third, and the end of each epoch
    assert reports == [unbroken[0][report.step] for report in reports]
    assert identical(weights(training), unbroken[1])


def test_a_seed_gives_the_same_weights_and_another_gives_others(unbroken):
    again, other = start(**CROSSING), start(**CROSSING, seed=1)
    assert not identical(weights(again), weights(other))
    assert finish(again) == unbroken[0]
    assert identical(weights(again), unbroken[1])
    finish(other)
    assert not identical(weights(other), unbroken[1])


@pytest.mark.usefixtures("unmoved_global_rng")
def test_global_generators_are_not_moved(monkeypatch):
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("seeds the GPUs' generators"))
    training = start(epochs=1)
    finish(training)


def test_a_learnable_set_is_learned():
    reports = finish(start(mix="none", epochs=10, widths=(16, 16, 16)))
    first, last = reports[:4], reports[-4:]
    assert max(report.loss for report in last) < 0.9 * min(report.loss for report in first)
    assert min(report.accuracy for report in last) > 0.7 > 0.5 > first[0].accuracy


def test_without_mixing_it_is_the_plain_loop():
    training, plain = start(mix="none", label_smoothing=0.1, epochs=4), start(mix="none", epochs=4)
    losses = [report.loss for report in finish(training)]
    sgd, muon = plain.optimizers
    bias_lr, head_lr, filter_lr = plain.config.bias_lr, plain.config.head_lr, plain.config.filter_lr
    plain.net.train()
    for step in range(16):
        x, labels = plain.batches.at(step, 16)
        with plain.autocast():  # bfloat16 where the machine has units for it
            loss = F.cross_entropy(plain.net(x), labels, label_smoothing=0.1)
        assert loss.item() == pytest.approx(losses[step], abs=1e-6), f"step {step}"
        plain.net.zero_grad()
        (loss * 50).backward()  # rates are per image
        left, early = 1 - step / 16, max(0, 1 - step / (4 * WHITENING_BIAS_EPOCHS))
        rates = (bias_lr * early, bias_lr * left, head_lr * left, filter_lr * left)
        for group, rate in zip(sgd.param_groups + muon.param_groups, rates, strict=True):
            group["lr"] = rate
        sgd.step()
        muon.step()


def test_whitening_and_norm_weights_stay_and_the_whitening_bias_stops_early():
    training = start(epochs=5)
    before = weights(training)
    list(training.run(stop=lambda: training.step == 4 * WHITENING_BIAS_EPOCHS))
    middle = weights(training)
    finish(training)
    after = weights(training)
    frozen = ["whitening.weight", *(n for n in after if ".norm" in n and n.endswith("weight"))]
    assert len(frozen) == 7
    for name in frozen:
        assert torch.equal(before[name], after[name]), name
    assert not torch.equal(before["whitening.bias"], middle["whitening.bias"])
    assert torch.equal(middle["whitening.bias"], after["whitening.bias"])
    assert not torch.equal(middle["head.weight"], after["head.weight"])


@pytest.fixture
def seen(monkeypatch):
    """What every call of the mixer got and gave: (images, labels, mixed images, target)."""
    calls = []
    plain = bm.Mixup.__call__

    def spy(self, x, y, **options):
        mixed, target = plain(self, x, y, **options)
        calls.append((x, y, mixed, target))
        return mixed, target

    monkeypatch.setattr(bm.Mixup, "__call__", spy)
    return calls


@pytest.mark.parametrize("mix_until", [0, 0.5, 0.6, 1])
def test_mixing_stops_where_it_should(seen, mix_until):
    reports = finish(start(mix_until=mix_until))
    mixed = math.ceil(mix_until * 12)
    assert [not torch.equal(x, out) for x, _, out, _ in seen] == [step < mixed for step in range(12)]
    assert [bool((y.lam < 1).any()) for *_, y in seen] == [step < mixed for step in range(12)]
    assert [report.p for report in reports] == [float(step < mixed) for step in range(12)]


def test_both_arms_start_from_the_same_weights_and_see_the_same_images(seen):
    arms = [start(mix=mix, seed=3) for mix in ("none", "mixup")]
    assert identical(*map(weights, arms))
    for arm in arms:
        finish(arm)
    without, mixed = seen[:12], seen[12:]
    for (x1, y1, out1, _), (x2, y2, *_) in zip(without, mixed, strict=True):
        assert torch.equal(x1, x2)
        assert torch.equal(y1, y2)
        assert torch.equal(out1, x1)
    assert not torch.equal(mixed[0][2], mixed[0][0])
    assert not identical(*map(weights, arms))


def test_the_options_of_the_mixing_reach_the_mixer(seen):
    next(start(alpha=1.0, per="batch", fold=False, seed=2).run())
    expected = bm.Mixup(1.0, per="batch", fold=False, seed=2)
    x, y, out, target = seen[0]
    again, same = expected(x, y)
    assert torch.equal(out, again)
    assert torch.equal(target.lam, same.lam)
    assert len(target.lam[target.lam < 1].unique()) == 1


def test_sizes_reach_the_net(seen):
    reports = finish(start(sizes=(16, 20, 32)))
    assert [x.shape[-1] for x, *_ in seen] == [16] * 4 + [20] * 4 + [32] * 4
    assert [report.size for report in reports] == [x.shape[-1] for x, *_ in seen]
    assert tiny(sizes=(16, 20, 32)).size_at(4) == 20
