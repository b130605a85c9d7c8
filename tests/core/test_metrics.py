from __future__ import annotations

import pytest
import torch

import reference
from batchmix import MixedTarget, MixError, calibration_error, expected_accuracy


@pytest.mark.parametrize("bins", [1, 7, 15])
def test_calibration_error_is_the_oracles(bins: int) -> None:
    generator = torch.Generator().manual_seed(0)
    probs = (3 * torch.randn(200, 4, generator=generator)).softmax(1)
    labels = torch.randint(4, (200,), generator=generator)
    expected = reference.calibration_error(probs, labels, bins)
    assert float(calibration_error(probs, labels, bins=bins)) == pytest.approx(expected, abs=1e-6)


def test_calibration_error_is_nothing_where_confidence_is_accuracy() -> None:
    probs = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert float(calibration_error(probs, torch.tensor([0, 1]))) == 0
    assert float(calibration_error(probs, torch.tensor([1, 0]))) == 1


@pytest.mark.parametrize(
    ("argument", "probs", "labels", "bins"),
    [
        ("labels", torch.ones(3, 2), torch.zeros(2), 15),
        ("labels", torch.ones(3), torch.zeros(3), 15),
        ("labels", torch.ones(0, 2), torch.zeros(0), 15),
        ("bins", torch.ones(3, 2), torch.zeros(3), 0),
        ("bins", torch.ones(3, 2), torch.zeros(3), 7.5),
        ("bins", torch.ones(3, 2), torch.zeros(3), True),
    ],
)
def test_a_wrong_argument_is_named(
    argument: str, probs: torch.Tensor, labels: torch.Tensor, bins: object
) -> None:
    with pytest.raises(MixError, match=f"^{argument} takes "):
        calibration_error(probs, labels.long(), bins=bins)


def test_a_label_counts_where_it_is_among_the_largest_logits() -> None:
    logits = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).expand(4, 4)
    labels = torch.arange(4)
    shares = [float(expected_accuracy(logits, labels, top_k=k)) for k in (1, 2, 3, 4)]
    assert shares == [0.25, 0.5, 0.75, 1.0]
    target = MixedTarget(labels, labels.flip(0), 0.75)  # partners 3 2 1 0
    assert float(target.expected_accuracy(logits, top_k=2)) == pytest.approx((0.75 + 0.75 + 0.25 + 0.25) / 4)


def test_so_it_is_for_each_place_of_an_image_but_those_that_are_ignored() -> None:
    logits = torch.arange(5.0).view(1, 5, 1, 1).expand(2, 5, 2, 2)  # classes 4 and 3 come first
    labels = torch.tensor([[[4, 3], [0, -100]], [[-100, -100], [1, 4]]])
    assert float(expected_accuracy(logits, labels, top_k=2)) == pytest.approx(3 / 5)


@pytest.mark.parametrize("top_k", [0, 5, 1.5, True])
def test_there_are_no_more_places_than_classes(top_k: object) -> None:
    with pytest.raises(MixError, match=r"^top_k takes a whole number from 1 to 4, got "):
        expected_accuracy(torch.zeros(2, 4), torch.zeros(2).long(), top_k=top_k)
