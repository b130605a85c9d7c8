"""The three forms of the mixed cross entropy: the same value, and memory that is counted right."""

from __future__ import annotations

import os

import pytest
import torch
from torch.nn import functional as F

from batchmix.study.article import onehot
from batchmix.study.article.onehot import FORMS, make_batch, measure_one_hot, peak_bytes, value


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("classes", [2, 10, 3000])
def test_every_form_is_the_loss_of_the_paper(form, classes):
    logits, target = make_batch(classes, 16, seed=1)
    dense = torch.zeros(16, classes, dtype=torch.float64)
    for row, (a, b, lam) in enumerate(zip(*(part.tolist() for part in target), strict=True)):
        dense[row, a] += lam
        dense[row, b] += 1 - lam
    expected = -(dense * torch.log_softmax(logits.double(), 1)).sum() / 16
    gradient = (torch.softmax(logits.double(), 1) - dense) / 16
    loss, found = value(form, logits.requires_grad_(), target)
    assert loss == pytest.approx(expected.item(), rel=1e-6)
    assert torch.allclose(found.double(), gradient, atol=1e-8)


def test_a_batch_is_its_seeds(unmoved_global_rng):
    first, again, other = (make_batch(10, 8, seed) for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1].lam, again[1].lam)
    assert not torch.equal(first[0], other[0])


def test_memory_is_the_most_held_at_once():
    """Against forms whose allocations are known: each takes (B, K) float32 more than the last."""
    batch, classes = 32, 1000
    logits, target = make_batch(classes, batch, seed=0)
    unit = 4 * batch * classes

    def in_turn(logits, target):  # two, one after the other
        one = torch.empty(batch, classes)
        del one
        two = torch.empty(batch, classes)
        del two
        return logits.sum()

    def at_once(logits, target):
        both = torch.empty(batch, classes), torch.empty(batch, classes)
        assert both
        return logits.sum()

    plain = peak_bytes(lambda logits, target: logits.sum(), logits.requires_grad_(), target)
    assert peak_bytes(in_turn, logits, target) == pytest.approx(max(plain, unit), abs=100)
    assert peak_bytes(at_once, logits, target) == pytest.approx(2 * unit, abs=100)


def test_memory_grows_with_the_classes():
    for name, form in FORMS.items():
        small, large = (
            peak_bytes(form, logits.requires_grad_(), target)
            for logits, target in (make_batch(count, 32, seed=0) for count in (1000, 4000))
        )
        assert large == pytest.approx(4 * small, rel=0.05)
        assert small >= (2 if name == "one_hot" else 1) * 4 * 32 * 1000  # the gradient; the probabilities


def test_the_profiler_leaves_the_environment_alone(monkeypatch, capfd):
    logits, target = make_batch(5, 4, seed=0)
    monkeypatch.delenv("KINETO_LOG_LEVEL", raising=False)
    peak_bytes(FORMS["one_hot"], logits.requires_grad_(), target)
    assert "KINETO_LOG_LEVEL" not in os.environ
    monkeypatch.setenv("KINETO_LOG_LEVEL", "3")
    peak_bytes(FORMS["one_hot"], logits, target)
    assert os.environ["KINETO_LOG_LEVEL"] == "3"


def test_a_measurement_says_what_was_done(monkeypatch, unmoved_global_rng):
    monkeypatch.setattr(onehot, "SECONDS", 1e-4)
    said = []
    found = measure_one_hot(classes=(3, 40), batch_size=6, repeats=4, say=said.append)
    assert [row["classes"] for row in found["rows"]] == [3, 40]
    assert said == ["one-hot, 3 classes", "one-hot, 40 classes"]
    for row in found["rows"]:
        assert set(row["forms"]) == set(FORMS)
        assert row["logit_bytes"] == 4 * 6 * row["classes"]
        for form in row["forms"].values():
            assert len(form["seconds"]) == 4
            assert min(form["seconds"]) > 0
            assert form["bytes"] > row["logit_bytes"]
            assert max(form["loss_difference"], form["gradient_difference"]) < 1e-6


def test_a_wrong_form_would_be_seen(monkeypatch):
    def first_label_alone(logits, target):
        return F.cross_entropy(logits, target.a)

    monkeypatch.setattr(onehot, "SECONDS", 1e-4)
    monkeypatch.setitem(onehot.FORMS, "mixed_target", first_label_alone)
    (row,) = measure_one_hot(classes=(10,), batch_size=8, repeats=1)["rows"]
    assert row["forms"]["mixed_target"]["gradient_difference"] > 0.01


@pytest.mark.gpu
def test_memory_on_a_gpu_is_that_of_the_allocator():
    logits, target = make_batch(1000, 32, seed=0)
    logits, target = logits.cuda().requires_grad_(), target.to("cuda")
    assert peak_bytes(FORMS["one_hot"], logits, target) >= 2 * 4 * 32 * 1000
