"""Pooling by Triton: torch's values and torch's gradients, bit for bit; on a GPU or interpreted."""

from __future__ import annotations

import functools
import importlib.util
import os

import pools
import pytest
import torch
from pools import by_torch, pooled, same

import batchmix as bm
from batchmix.recipe import gpu_pool
from batchmix.recipe.pooling import max_pool

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton"),
    *([] if INTERPRETED else [pytest.mark.gpu]),
]
needs_gpu = pytest.mark.skipif(INTERPRETED, reason="needs a GPU")


batch = functools.partial(pools.batch, device=DEVICE)


def assert_as_torch(x):
    above = batch(*by_torch(x).shape, seed=1, dtype=x.dtype)
    out, place = gpu_pool.pooled_and_place(x)
    gradient = gpu_pool.spread(above, place, *x.shape[2:])
    for mine, other in zip((out, gradient), pooled(by_torch, x, above), strict=True):
        assert mine.is_contiguous(memory_format=torch.channels_last)
        assert same(mine, other)


@pytest.mark.parametrize("size", [(4, 4), (5, 5), (2, 3), (7, 6), (31, 15)])
@pytest.mark.parametrize("channels", [2, 3, 64])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_values_and_gradients_are_those_of_torch(size, channels, dtype):
    assert_as_torch(batch(3, channels, *size, dtype=dtype))


def test_the_first_of_equal_values_gets_the_gradient():
    for x in pools.with_equal_values(DEVICE):
        assert_as_torch(x)


def test_infinities_and_numbers_that_are_none():
    x, above = pools.with_no_numbers(DEVICE), batch(2, 8, 3, 3, seed=1)
    out, place = gpu_pool.pooled_and_place(x)
    gradient, (values, theirs) = gpu_pool.spread(above, place, 6, 6), pooled(by_torch, x.cpu(), above.cpu())
    torch.testing.assert_close(out.cpu(), values, rtol=0, atol=0, equal_nan=True)
    assert same(gradient.cpu(), theirs)  # as on the CPU: torch's own kernel for GPUs may have it elsewhere


def test_a_gradient_may_lie_in_any_order():
    x, above = batch(2, 4, 5, 5), batch(2, 4, 2, 2, seed=1)
    _, place = gpu_pool.pooled_and_place(x)
    assert same(gpu_pool.spread(above.contiguous(), place, 5, 5), gpu_pool.spread(above, place, 5, 5))


@needs_gpu
def test_it_is_what_pools_on_a_gpu_unless_torch_is_named():
    x = batch(2, 8, 6, 6).requires_grad_()
    assert "max_pool" in type(max_pool(x).grad_fn).__name__
    assert "MaxPool2D" not in type(max_pool(x).grad_fn).__name__
    with bm.kernel("torch"):
        assert "MaxPool2D" in type(max_pool(x).grad_fn).__name__
    with torch.no_grad():
        assert torch.equal(max_pool(x), by_torch(x))


@needs_gpu
def test_a_compiled_net_takes_it_as_it_is():
    x, above = batch(4, 64, 31, 31), batch(4, 64, 15, 15, seed=1)
    own = x.clone(memory_format=torch.preserve_format).requires_grad_()
    out = torch.compile(lambda x: max_pool(x * 1), fullgraph=True, dynamic=False)(own)
    out.backward(above)
    for mine, other in zip((out, own.grad), pooled(by_torch, x, above), strict=True):
        assert same(mine, other)
