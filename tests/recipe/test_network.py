"""The net: a whitening first layer, filters that start by passing their input on, a shape for every size."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from batchmix.recipe.network import Block, Net, whiten


@pytest.fixture
def images():
    """Images whose neighbouring pixels and channels go together, as in photographs."""
    noise = torch.randn(200, 3, 18, 18, generator=torch.Generator().manual_seed(0))
    return F.avg_pool2d(noise, 3, stride=1) * 2 + noise.mean(1, keepdim=True)[:, :, 1:-1, 1:-1]


def test_patches_come_out_white_and_again_with_the_other_sign(images):
    net = Net((8, 8, 8))
    whiten(net, images)
    assert net.whitening.weight.shape == (24, 3, 2, 2)
    assert torch.equal(net.whitening.weight[12:], -net.whitening.weight[:12])
    out = F.conv2d(images, net.whitening.weight[:12]).movedim(1, -1).reshape(-1, 12)
    moments = out.T @ out / len(out)
    torch.testing.assert_close(moments, torch.eye(12), atol=0.02, rtol=0)
    before = images[:, :, :-1, :-1].movedim(1, -1).reshape(-1, 3)
    assert (before.T @ before / len(before))[0, 1].abs() > 0.05  # they were not white before


def test_constant_images_whiten_to_finite_filters():
    net = Net((8, 8, 8))
    whiten(net, torch.ones(4, 3, 16, 16))
    assert net.whitening.weight.isfinite().all()


@pytest.mark.parametrize("size", range(16, 33))
def test_logits_for_every_size_the_config_takes(size):
    with torch.random.fork_rng():
        assert Net((8, 16, 4), num_classes=7)(torch.randn(2, 3, size, size)).shape == (2, 7)


def test_norms_and_whitening_are_frozen_and_all_else_is_not():
    net = Net((8, 8, 8))
    fixed = {name for name, parameter in net.named_parameters() if not parameter.requires_grad}
    norms = {f"blocks.{block}.norm{i}.weight" for block in range(3) for i in (1, 2)}
    assert fixed == norms | {"whitening.weight"}
    assert all((net.get_parameter(name) == 1).all() for name in norms)
    assert (net.whitening.bias == 0).all()


@pytest.mark.parametrize(("inputs", "outputs"), [(4, 8), (8, 8), (24, 8)])
def test_filters_start_by_passing_their_inputs_on(inputs, outputs):
    block = Block(inputs, outputs)
    x = torch.randn(2, inputs, 6, 6, generator=torch.Generator().manual_seed(0))
    both = min(inputs, outputs)
    torch.testing.assert_close(block.conv1(x)[:, :both], x[:, :both])
    y = torch.randn(2, outputs, 6, 6, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(block.conv2(y), y)


def test_a_compiled_net_does_not_ask_which_values_equal_the_largest():
    """Their gradient would: they are computed anew in higher precision there, and none is equal: 0 / 0."""
    traced = []
    net, x = Net((8, 8, 8)), torch.rand(2, 3, 32, 32)
    compiled = torch.compile(net, backend=lambda program, inputs: traced.append(program.code) or program)
    torch.testing.assert_close(compiled(x), net(x))
    assert len(traced) == 1
    assert traced[0].count("max_pool2d(") == 4
    assert "amax" not in traced[0]


def test_the_gradient_stops_at_the_blocks_once_the_bias_of_the_whitening_does_not_learn():
    net, x = Net((8, 8, 8)), torch.rand(2, 3, 32, 32)
    for learns in (True, False):
        net.zero_grad()
        net.bias_learns = learns
        net(x).sum().backward()
        assert (net.whitening.bias.grad is not None) == learns
        assert net.blocks[0].conv1.weight.grad is not None
