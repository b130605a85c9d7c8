"""What a target says, in words."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from batchmix.core.targets import MixedTarget
from batchmix.pictures import label_texts

NAMES = ("cat", "dog", "frog")


def test_percents_of_a_mix_always_sum_to_100():
    lam = torch.linspace(0, 1, 401)
    y = MixedTarget(torch.zeros(401, dtype=torch.long), torch.ones(401, dtype=torch.long), lam)
    for text, weight in zip(label_texts(y), lam.tolist(), strict=True):
        found = {int(label): int(percent) for percent, label in re.findall(r"(\d+)% (\d)", text)}
        assert sum(found.values()) == 100
        assert abs(found.get(0, 0) - 100 * weight) <= 0.5 + 1e-4


def test_dense_targets_name_their_two_largest():
    weights = torch.tensor([[0.25, 0.05, 0.7], [0.0, 1.0, 0.0], [0.4, 0.4, 0.2]])
    expected = ["70% frog, 25% cat", "100% dog", "40% cat, 40% dog"]
    assert label_texts(weights, NAMES) == expected
    assert label_texts(weights.double().numpy(), NAMES) == expected
    assert label_texts(weights.half(), NAMES) == expected


def test_mixed_soft_targets_are_mixed_before_they_are_named():
    a, b = torch.eye(3)[:1], torch.eye(3)[2:]
    assert label_texts(MixedTarget(a, b, 0.75), NAMES) == ["75% cat, 25% frog"]


@pytest.mark.parametrize("labels", [[1, 0], np.array([1, 0], dtype=np.uint8), torch.tensor([1, 0]).int()])
def test_labels_of_any_whole_type(labels):
    assert label_texts(labels, NAMES) == ["dog", "cat"]
    assert label_texts(labels) == ["1", "0"]
