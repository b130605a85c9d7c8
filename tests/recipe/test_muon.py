"""Muon against singular values: the quintic by hand, and whole steps."""

from __future__ import annotations

import pytest
import torch
from tiny_runs import start

from batchmix.recipe.muon import Muon, orthogonalize, orthogonalize_together, update_together


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def by_svd(matrix, iterations):
    """The quintic, applied to the singular values themselves in float64."""
    u, s, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    s = s / s.norm()
    for _ in range(iterations):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return ((u * s) @ v).float()


SHAPES = [(8, 72), (72, 8), (16, 16), (1, 9), (9, 1)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("iterations", [0, 1, 3, 5])
def test_the_quintic_acts_on_the_singular_values(shape, iterations):
    matrix = random(*shape)
    made = orthogonalize(matrix, iterations)
    assert (made.shape, made.dtype) == (matrix.shape, matrix.dtype)
    torch.testing.assert_close(made, by_svd(matrix, iterations), atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_bfloat16_is_precise_enough_and_only_inside(shape):
    matrix = random(*shape)
    made = orthogonalize(matrix, 3, dtype=torch.bfloat16)
    assert made.dtype == torch.float32
    assert 0 < (made - orthogonalize(matrix, 3)).abs().max() < 0.05


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_a_run_multiplies_in_its_own_precision(monkeypatch, precision, dtype):
    training, seen = start(precision=precision), set()
    product = torch.Tensor.__matmul__
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda a, b: (seen.add(a.dtype), product(a, b))[1])
    next(training.run())
    assert seen == {dtype}


@pytest.mark.parametrize("shape", SHAPES)
def test_five_iterations_bring_all_singular_values_close_to_one(shape):
    values = torch.linalg.svdvals(orthogonalize(random(*shape), 5))
    assert 0.6 < values.min() <= values.max() < 1.3


def test_scale_does_not_matter_and_zero_stays_zero():
    torch.testing.assert_close(orthogonalize(random(8, 9)), orthogonalize(1000 * random(8, 9)))
    assert (orthogonalize(torch.zeros(4, 9)) == 0).all()


@pytest.mark.parametrize("shape", [(4, 3, 3, 3), (32, 1, 3, 3)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_steps_are_those_by_hand(shape, memory_format):
    filters = torch.nn.Parameter(random(*shape).to(memory_format=memory_format))
    muon = Muon([filters], lr=0.1, momentum=0.6)
    expected, average = filters.detach().clone(), torch.zeros(shape)
    for step in range(3):
        grad = random(*shape, seed=step + 1)
        filters.grad = grad.clone().to(memory_format=memory_format)
        muon.step()
        average = 0.6 * average + grad
        direction = by_svd((grad + 0.6 * average).reshape(shape[0], -1), 3).reshape(shape)
        expected = expected * shape[0] ** 0.5 / expected.norm() - 0.1 * direction
        torch.testing.assert_close(filters.detach(), expected, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(filters.grad, grad)


def test_the_length_of_the_filters_is_fixed():
    filters = torch.nn.Parameter(5 * random(16, 3, 3, 3))
    filters.grad = random(16, 3, 3, 3, seed=1)
    Muon([filters], lr=0.0).step()
    assert filters.norm().item() == pytest.approx(4, rel=1e-5)


def test_a_closure_is_called_first_with_gradients_and_its_loss_returned():
    filters = random(4, 3, 2, 2).requires_grad_()
    optimizer, before = Muon([filters]), filters.detach().clone()

    def closure():
        loss = filters.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == before.square().sum()
    assert not torch.equal(filters, before)
    assert optimizer.step() is None


def test_filters_without_a_gradient_stay():
    filters = torch.nn.Parameter(random(4, 3, 3, 3))
    Muon([filters], lr=0.1).step()
    assert torch.equal(filters, random(4, 3, 3, 3))


def test_matrices_of_many_shapes_are_one_batch():
    matrices = [random(*shape) for shape in (*SHAPES, (3, 200))]
    for made, matrix in zip(orthogonalize_together(matrices), matrices, strict=True):
        torch.testing.assert_close(made, orthogonalize(matrix), atol=1e-5, rtol=1e-4)


def test_filters_updated_together_are_those_updated_one_by_one():
    shapes = [(4, 3, 3, 3), (32, 1, 3, 3), (8, 8, 3, 3)]
    nets = [[torch.nn.Parameter(random(*shape)) for shape in shapes] for _ in range(2)]
    optimizers = [Muon(nets[0], lr=0.1), Muon(nets[1], lr=torch.tensor(0.1), update=update_together)]
    for step in range(3):
        for filters in zip(*nets, strict=True):
            for copy in filters:
                copy.grad = random(*copy.shape, seed=step + 1) if step or len(copy) > 4 else None
        for optimizer in optimizers:
            optimizer.step()
    for one, other in zip(*nets, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    assert not torch.equal(nets[0][0], random(*shapes[0]))
