"""The weight of a label is the share that its image has of the pixels, for every method that has a mask."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_contract import METHODS, OWN_WEIGHTS, SHAPES, make, name_of, samples, targets

from batchmix import Mixer


def has_mask(method: type[Mixer]) -> bool:
    """Found out by asking it, on images."""
    if name_of(method) in {*OWN_WEIGHTS, *SHAPES}:
        return False
    batch = samples(method, 4, torch.float32), targets(method, 4)
    return make(method, seed=0).plan(*batch).mask is not None


MASKED = {name: method for name, method in METHODS.items() if has_mask(method)}


def test_the_methods_with_masks_are_found() -> None:
    assert set(MASKED) >= {"cutmix", "resizemix", "fmix", "gridmix", "smoothmix"}
    assert "mixup" not in MASKED


@pytest.mark.parametrize("method", MASKED.values(), ids=MASKED.keys())
@settings(max_examples=25, deadline=None)
@given(
    size=st.tuples(st.integers(1, 14), st.integers(1, 14)),
    batch_size=st.integers(1, 7),
    seed=st.integers(0, 2**31),
    data=st.data(),
)
def test_labels_have_the_weight_of_their_pixels(
    method: type[Mixer], size: tuple[int, int], batch_size: int, seed: int, data: st.DataObject
) -> None:
    options: dict[str, float] = {}
    if "alpha" in method.hyperparameters:
        options["alpha"] = data.draw(st.sampled_from([1e-6, 0.2, 1.0, 5.0, 1e4]))
    y = targets(method, batch_size)
    # The image of label i is all i: what is seen of it can be read off the mean.
    x = y.double().view(-1, 1, 1, 1).expand(batch_size, 2, *size).contiguous()
    mixed, (a, b, lam) = make(method, seed=seed, **options)(x, y)
    torch.testing.assert_close(
        mixed.mean((1, 2, 3)), lam * a + (1 - lam.double()) * b, rtol=0, atol=2e-7 * batch_size
    )
    assert torch.equal(lam[b == a], torch.ones(int((b == a).sum())))  # who has itself stays as it is
    assert ((lam >= 0) & (lam <= 1)).all()
