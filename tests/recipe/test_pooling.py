"""Pooling with loops of our own: torch's values and torch's gradients, bit for bit."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import batchmix as bm
from batchmix.recipe import pooling
from batchmix.recipe.pooling import max_pool

pytest.importorskip("numba")


def batch(*shape, seed=0):
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).bfloat16()
    return x.to(memory_format=torch.channels_last)


def pooled(pool, x, above):
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    out = pool(x)
    out.backward(above)
    return out, x.grad


def bits(x):
    return x.detach().contiguous().view(torch.int16)


def assert_as_torch(x):
    above = batch(*F.max_pool2d(x, 2).shape, seed=1)
    ours, theirs = pooled(max_pool, x, above), pooled(lambda x: F.max_pool2d(x, 2), x, above)
    assert type(ours[0].grad_fn).__name__ == "_MaxPoolBackward"
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.equal(bits(mine), bits(other))


@pytest.mark.parametrize("size", [(4, 4), (5, 5), (2, 3), (7, 6), (31, 15)])
@pytest.mark.parametrize("channels", [2, 3, 64])
def test_values_and_gradients_are_those_of_torch(size, channels):
    assert_as_torch(batch(3, channels, *size))


def test_the_first_of_equal_values_gets_the_gradient():
    x = batch(2, 8, 6, 6)
    assert_as_torch(torch.zeros_like(x))
    assert_as_torch(x.sign())


def test_infinities_and_numbers_that_are_none():
    x = batch(2, 8, 6, 6)
    x[0, :, 0, 0], x[0, :, 1, 3], x[1, :, 2:4, 2:4] = torch.inf, torch.nan, -torch.inf
    assert_as_torch(x)


def test_no_result_depends_on_the_number_of_threads():
    x, above = batch(5, 8, 9, 9), batch(5, 8, 4, 4, seed=1)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(pooled(max_pool, x, above))
    finally:
        torch.set_num_threads(before)
    for out, gradient in results[1:]:
        assert torch.equal(out, results[0][0])
        assert torch.equal(gradient, results[0][1])


def test_all_else_is_left_to_torch(monkeypatch):
    x = batch(2, 8, 6, 6)
    monkeypatch.setattr(pooling._MaxPool, "apply", lambda x: pytest.fail("not for this one"))
    for other in (x, x.float().requires_grad_(), x.contiguous().requires_grad_()):
        assert torch.equal(max_pool(other), F.max_pool2d(other, 2))
    with bm.kernel("torch"):
        assert torch.equal(max_pool(x.clone().requires_grad_()), F.max_pool2d(x, 2))
    monkeypatch.setattr(pooling, "_loops", lambda: None)
    assert torch.equal(max_pool(x.requires_grad_()), F.max_pool2d(x, 2))
