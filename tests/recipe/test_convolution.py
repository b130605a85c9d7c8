"""The convolution whose weight gradient is that of images side by side: the same sums, in another order."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import batchmix as bm
from batchmix.recipe.convolution import Conv3x3, beside_one_another, side_by_side


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def bf16():
    return torch.autocast("cpu", torch.bfloat16)


def gradients(convolve, x, above):
    """Result and both gradients of a convolution in bfloat16."""
    x = x.clone().requires_grad_()
    with bf16():
        out = convolve(x)
    out.backward(above)
    return out, x.grad


@pytest.mark.parametrize(
    ("batch", "size", "count"), [(20, 7, 4), (8, 3, 8), (6, 7, 3), (6, 3, 6), (12, 5, 4), (4, 14, 2)]
)
def test_values_and_gradients_are_those_of_torch(batch, size, count):
    conv = Conv3x3(5, 6)
    conv.weight.data = random(6, 5, 3, 3, seed=1)
    plain = torch.nn.Parameter(conv.weight.detach().clone())
    x = random(batch, 5, size, size).bfloat16().to(memory_format=torch.channels_last)
    above = random(batch, 6, size, size, seed=2).bfloat16()
    with bf16():
        assert beside_one_another(x) == count
    out, of_x = gradients(conv, x, above)
    expected, of_x_expected = gradients(lambda x: F.conv2d(x, plain, padding=1), x, above)
    assert torch.equal(out, expected)
    assert torch.equal(of_x, of_x_expected)
    assert conv.weight.grad.dtype == torch.float32
    exact = torch.nn.grad.conv2d_weight(
        x.double(), plain.shape, above.double(), padding=1
    )  # in double, so that both are held to the true sum
    scale = exact.abs().max()
    assert (conv.weight.grad - exact).abs().max() <= 2**-7 * scale
    assert (plain.grad - exact).abs().max() <= 2**-7 * scale


def test_images_that_are_side_by_side_have_a_column_of_zeros_between_them():
    x = random(4, 2, 3, 3)
    wide = side_by_side(x, 2)
    assert wide.shape == (2, 2, 3, 8)
    assert torch.equal(wide[1, :, :, :3], x[2])
    assert torch.equal(wide[1, :, :, 4:7], x[3])
    assert (wide[..., 3] == 0).all()
    assert (wide[..., 7] == 0).all()


def test_images_are_taken_as_they_are_where_nothing_is_gained():
    small, large = random(20, 5, 7, 7), random(20, 5, 15, 15)
    assert beside_one_another(small) == 1  # float32
    with bf16():
        assert beside_one_another(large) == 1
        assert beside_one_another(random(7, 5, 7, 7)) == 1  # a batch that cannot be shared out
        with bm.kernel("torch"):
            assert beside_one_another(small) == 1
        with torch.no_grad():
            assert beside_one_another(small) == 1


def test_float32_has_the_gradients_of_torch_bit_for_bit():
    conv = Conv3x3(3, 4)
    plain = torch.nn.Conv2d(3, 4, 3, padding=1, bias=False)
    plain.load_state_dict(conv.state_dict())
    for layer in (conv, plain):
        layer(random(4, 3, 7, 7)).square().sum().backward()
    assert torch.equal(conv.weight.grad, plain.weight.grad)


def test_images_that_need_no_gradient_get_none():
    conv = Conv3x3(3, 4)
    with bf16():
        conv(random(4, 3, 7, 7)).sum().backward()
    assert conv.weight.grad is not None
