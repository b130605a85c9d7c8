from __future__ import annotations

import pytest
import torch

import reference
from batchmix import MixError, calibration_error


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
