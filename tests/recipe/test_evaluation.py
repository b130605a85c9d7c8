"""The scores of a net whose logits are known, counted by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import nn

from batchmix import calibration_error
from batchmix.recipe.evaluation import (
    best_temperature,
    evaluate,
    predict,
    reliability,
    scaled_scores,
    score,
)


class FirstPixel(nn.Module):
    """The logits are the channels of the middle pixel, so that images can be made for any logits."""

    def forward(self, x):
        assert not self.training
        return x[:, :, 1, 1]


class Linear(nn.Module):
    """Logits that depend on every pixel."""

    def __init__(self):
        super().__init__()
        weight = torch.randn(192, 10, generator=torch.Generator().manual_seed(1))
        self.register_buffer("weight", weight)

    def forward(self, x):
        return x.flatten(1) @ self.weight


class OnePlace(Linear):
    """The same logits, always in the same memory, as those of a compiled net may be."""

    def __init__(self):
        super().__init__()
        self.place = torch.empty(0)

    def forward(self, x):
        return torch.mm(x.flatten(1), self.weight, out=self.place.resize_(len(x), 10))


def images_with(probs):
    return torch.tensor(probs).log()[:, :, None, None].expand(-1, -1, 3, 3).contiguous()


def test_a_net_may_overwrite_its_last_logits():
    images = torch.randn(30, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(30) % 10
    assert torch.equal(predict(OnePlace(), images, batch_size=10), predict(Linear(), images, batch_size=10))
    ours, plain = (evaluate(net, images, labels, batch_size=10) for net in (OnePlace(), Linear()))
    assert ours == plain


def test_a_net_is_compiled_once_for_all_views():
    compiled = []
    net = torch.compile(
        Linear(), backend=lambda graph, inputs: compiled.append(graph) or graph.forward, dynamic=False
    )
    images = torch.randn(30, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    images, labels = images.contiguous(memory_format=torch.channels_last), torch.arange(30) % 10
    scores = evaluate(net, images, labels, batch_size=10)
    predict(net, images, batch_size=10)
    assert len(compiled) == 1
    assert scores == evaluate(Linear(), images, labels, batch_size=10)


def test_scores_are_those_counted_by_hand():
    probs = [[0.7, 0.2, 0.1], [0.1, 0.72, 0.18], [0.05, 0.9, 0.05], [0.3, 0.3, 0.4]]
    labels = [0, 2, 1, 2]
    scores = evaluate(FirstPixel(), images_with(probs), torch.tensor(labels))
    assert scores.accuracy == 0.75
    assert scores.loss == pytest.approx(-(math.log(0.7) + math.log(0.18) + math.log(0.9) + math.log(0.4)) / 4)
    assert scores.confidence == pytest.approx((0.7 + 0.72 + 0.9 + 0.4) / 4)
    # 15 bins: 0.70 and 0.72 share one, with one of two right; 0.90 and 0.40 are alone, and right.
    assert scores.ece == pytest.approx((abs(1 - 0.7 - 0.72) + 0.1 + 0.6) / 4, abs=1e-6)
    hot = np.eye(3)[labels]
    assert scores.brier == pytest.approx(((np.array(probs) - hot) ** 2).sum() / 4, rel=1e-5)
    assert list(scores.as_dict()) == ["accuracy", "accuracy_tta", "loss", "confidence", "ece", "brier"]


def test_an_accuracy_is_the_share_itself_without_the_rounding_of_float32():
    images = images_with([[0.2, 0.5, 0.3]] * 10)
    scores = evaluate(FirstPixel(), images, torch.tensor([1] * 7 + [0] * 3))
    assert (scores.accuracy, scores.accuracy_tta) == (0.7, 0.7)


def views(image):
    """Weight and image of the six views of an image (3, H, W), by NumPy."""
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)), mode="reflect")
    shifted = padded[:, :-2, :-2], padded[:, 2:, 2:]
    both = [(1 / 4, image), *((1 / 8, view) for view in shifted)]
    return [(weight, way) for weight, view in both for way in (view, view[:, :, ::-1])]


def test_augmented_accuracy_averages_six_views_with_their_weights():
    images = torch.randn(300, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    weight = Linear().weight.numpy()

    def guesses(weigh):
        sums = [
            sum(weigh(share) * (view.reshape(-1) @ weight) for share, view in views(i))
            for i in images.numpy()
        ]
        return torch.tensor(np.array(sums).argmax(1))

    expected = guesses(lambda share: share)
    assert evaluate(Linear(), images, expected).accuracy_tta == 1
    assert evaluate(Linear(), images, expected).accuracy < 1
    assert evaluate(Linear(), images, guesses(lambda share: 1)).accuracy_tta < 1


def test_the_size_of_the_batches_does_not_matter():
    images = torch.randn(10, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(10)
    whole, parts = (evaluate(Linear(), images, labels, batch_size=size).as_dict() for size in (10, 3))
    assert whole == pytest.approx(parts, rel=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_the_net_is_left_in_its_mode(training):
    net = FirstPixel().train(training)
    evaluate(net, images_with([[0.5, 0.3, 0.2]]), torch.tensor([0]))
    assert net.training is training


def test_running_statistics_are_used_and_not_moved():
    net = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(192, 10)).train()
    evaluate(net, torch.randn(4, 3, 8, 8), torch.arange(4))
    assert net[0].num_batches_tracked == 0


# Calibration


def made_up_logits(count=600, seed=0, sharpness=3.0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, 5, generator=generator)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)
    return sharpness * logits, labels  # calibrated at a temperature of ``sharpness``


def test_the_best_temperature_is_where_the_loss_is_smallest():
    logits, labels = made_up_logits()

    def loss(log_temperature):
        scaled = logits.double().numpy() / np.exp(log_temperature)
        own = scaled[np.arange(len(labels)), labels.numpy()]
        return float((np.log(np.exp(scaled).sum(1)) - own).mean())

    found = minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-9})
    assert best_temperature(logits, labels) == pytest.approx(np.exp(found.x), rel=1e-4)
    assert best_temperature(logits, labels) == pytest.approx(3, rel=0.15)


def test_temperatures_stay_finite_where_every_guess_is_right_or_wrong():
    logits = 4 * torch.eye(3)
    assert best_temperature(logits, torch.arange(3)) == pytest.approx(0.01)
    assert best_temperature(logits, torch.tensor([1, 2, 0])) == pytest.approx(100)


def test_each_half_is_scaled_by_the_temperature_of_the_other():
    logits, labels = made_up_logits()
    logits[1::2] *= 2
    even, odd = (best_temperature(logits[half::2], labels[half::2]) for half in (0, 1))
    assert odd == pytest.approx(2 * even, rel=0.3)
    scaled = logits.clone()
    scaled[0::2] /= odd
    scaled[1::2] /= even
    before = logits.clone()
    scores = scaled_scores(logits, labels)
    assert torch.equal(logits, before)
    assert scores["temperature"] == pytest.approx(math.sqrt(even * odd))
    assert scores["loss_scaled"] == pytest.approx(torch.nn.functional.cross_entropy(scaled, labels).item())
    assert scores["ece_scaled"] == pytest.approx(calibration_error(scaled.softmax(1), labels).item())


def test_scaling_mends_a_net_that_is_too_sure():
    logits, labels = made_up_logits(4000)
    scores, scaled = score(logits, labels), scaled_scores(logits, labels)
    assert scaled["ece_scaled"] < 0.3 * scores["ece"]
    assert scaled["loss_scaled"] < scores["loss"]


def test_the_bins_of_the_diagram_are_counted_by_hand():
    probs = [[0.7, 0.2, 0.1], [0.1, 0.72, 0.18], [0.05, 0.9, 0.05], [0.3, 0.3, 0.4]]
    bins = reliability(torch.tensor(probs).log(), torch.tensor([0, 2, 1, 2]))
    assert [len(values) for values in bins.values()] == [15] * 3
    filled = {i: (n, c, a) for i, (n, c, a) in enumerate(zip(*bins.values(), strict=True)) if n}
    assert {i: n for i, (n, *_) in filled.items()} == {6: 1, 10: 2, 13: 1}
    assert filled[10] == (2, pytest.approx(0.71), 0.5)
    assert all(bins["confidence"][i] is None and bins["accuracy"][i] is None for i in (0, 5, 14))


def test_the_diagram_has_the_calibration_error():
    logits, labels = made_up_logits()
    count, confidence, accuracy = (
        reliability(logits, labels)[k] for k in ("count", "confidence", "accuracy")
    )
    gaps = [n * abs(c - a) for n, c, a in zip(count, confidence, accuracy, strict=True) if n]
    assert sum(gaps) / sum(count) == pytest.approx(score(logits, labels)["ece"], abs=1e-6)


def test_predictions_are_those_of_the_plain_images():
    images, net = torch.randn(10, 3, 8, 8, generator=torch.Generator().manual_seed(0)), Linear().train()
    logits = predict(net, images, batch_size=3)
    torch.testing.assert_close(logits, net(images))
    assert net.training
    labels = torch.arange(10)
    assert evaluate(net, images, labels).loss == pytest.approx(score(logits, labels)["loss"])


def test_only_the_images_it_is_least_sure_of_are_seen_in_six_views():
    generator = torch.Generator().manual_seed(0)
    images, labels = (
        torch.randn(40, 3, 8, 8, generator=generator),
        torch.randint(10, (40,), generator=generator),
    )
    net, seen = Linear(), []
    net.register_forward_pre_hook(lambda net, x: seen.append(len(x[0])))
    every, none, some = (evaluate(net, images, labels, unsure=share) for share in (1, 0, 0.25))
    assert sum(seen[-6:]) == 40 + 5 * 10
    assert none.accuracy_tta == none.accuracy == every.accuracy == some.accuracy
    logits = predict(net, images)
    least = logits.softmax(1).amax(1).argsort()[:10]
    assert {some.accuracy_tta, every.accuracy_tta} != {every.accuracy}
    hits = (logits.argmax(1) == labels).double()
    hits[least] = evaluate(net, images[least], labels[least]).accuracy_tta  # their mean, in each place
    assert some.accuracy_tta == pytest.approx(hits.mean().item())
