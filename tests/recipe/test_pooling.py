"""Pooling with loops of our own: torch's values and torch's gradients, bit for bit."""

from __future__ import annotations

import pytest
import torch
from pools import batch, by_torch, pooled, same, with_equal_values, with_no_numbers
from torch.nn import functional as F

import batchmix as bm
from batchmix.recipe import pooling
from batchmix.recipe.pooling import max_pool

pytest.importorskip("numba")


def assert_as_torch(x):
    above = batch(*F.max_pool2d(x, 2).shape, seed=1)
    ours, theirs = pooled(max_pool, x, above), pooled(by_torch, x, above)
    assert type(ours[0].grad_fn).__name__ == "_MaxPoolBackward"
    for mine, other in zip(ours, theirs, strict=True):
        assert same(mine, other)


@pytest.mark.parametrize("size", [(4, 4), (5, 5), (2, 3), (7, 6), (31, 15)])
@pytest.mark.parametrize("channels", [2, 3, 64])
def test_values_and_gradients_are_those_of_torch(size, channels):
    assert_as_torch(batch(3, channels, *size))


def test_the_first_of_equal_values_gets_the_gradient():
    for x in with_equal_values():
        assert_as_torch(x)


def test_infinities_and_numbers_that_are_none():
    assert_as_torch(with_no_numbers())


def test_a_second_derivative_is_refused_and_not_left_out():
    x = batch(2, 8, 6, 6).requires_grad_()
    (gradient,) = torch.autograd.grad(max_pool(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


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
