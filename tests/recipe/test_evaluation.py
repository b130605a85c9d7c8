"""The scores of a net whose logits are known, counted by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from batchmix.recipe.evaluation import evaluate


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


def images_with(probs):
    return torch.tensor(probs).log()[:, :, None, None].expand(-1, -1, 3, 3).contiguous()


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
