"""What every method promises; a new file in ``batchmix.methods`` is tested by being there."""

from __future__ import annotations

import copy
import json
import pickle

import pytest
import torch
from torch import Tensor

import reference
from batchmix import MixedTarget, Mixer
from batchmix.methods import discover

METHODS = discover()
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
BATCHES = [1, 2, 5, 8]

pytestmark = pytest.mark.usefixtures("unmoved_global_rng")


def samples(batch_size: int, dtype: torch.dtype) -> Tensor:
    noise = torch.rand(batch_size, 3, 6, 8, generator=torch.Generator().manual_seed(batch_size))
    return noise.to(dtype)


def assert_same_plan(one: object, two: object) -> None:
    assert torch.equal(one.partner, two.partner)
    assert torch.equal(one.lam, two.lam)
    assert (one.mask is None) == (two.mask is None)
    if one.mask is not None:
        assert torch.equal(one.mask, two.mask)


@pytest.fixture(params=METHODS.values(), ids=METHODS.keys())
def method(request: pytest.FixtureRequest) -> type[Mixer]:
    return request.param


def test_the_methods_are_found_by_their_file() -> None:
    assert METHODS["mixup"].__name__ == "Mixup"
    assert all(issubclass(found, Mixer) for found in METHODS.values())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("batch_size", BATCHES)
def test_a_batch_and_its_target_are_mixed_by_the_same_plan(
    method: type[Mixer], batch_size: int, dtype: torch.dtype
) -> None:
    x, y = samples(batch_size, dtype), torch.arange(batch_size)
    before = x.clone(), y.clone()
    for seed in range(5):
        plan = method(seed=seed).plan(x)
        mixed, target = method(seed=seed)(x, y)
        expected = reference.blend(x, plan.partner, plan.lam, plan.mask)
        assert (mixed.shape, mixed.dtype) == (x.shape, dtype)
        eps = torch.finfo(dtype).eps
        torch.testing.assert_close(mixed.double(), expected, rtol=eps, atol=4 * eps)
        assert isinstance(target, MixedTarget)
        assert torch.equal(target.a, y)
        assert torch.equal(target.b, y[plan.partner])
        assert torch.equal(target.lam, plan.lam)
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])


@pytest.mark.parametrize("batch_size", BATCHES)
def test_a_plan_is_a_permutation_with_weights(method: type[Mixer], batch_size: int) -> None:
    mixer = method(seed=1)
    for _ in range(20):
        plan = mixer.plan(samples(batch_size, torch.float32))
        assert torch.equal(plan.partner.sort().values, torch.arange(batch_size))
        assert plan.lam.dtype == torch.float32
        assert ((plan.lam >= 0) & (plan.lam <= 1)).all()
        if plan.mask is not None:
            torch.testing.assert_close(plan.mask.float().mean((1, 2, 3)).expand(batch_size), plan.lam)


def test_labels_carry_the_weight_that_the_pixels_have(method: type[Mixer]) -> None:
    y = torch.arange(9)
    x = y.double().view(9, 1, 1, 1).expand(9, 1, 6, 8).contiguous()  # a constant image of its own label
    for seed in range(10):
        mixed, (a, b, lam) = method(seed=seed)(x, y)
        torch.testing.assert_close(mixed.mean((1, 2, 3)), lam * a + (1 - lam.double()) * b)
    assert (lam < 1).any()


def test_same_seed_same_draws_and_each_step_its_own(method: type[Mixer]) -> None:
    x = samples(8, torch.float32)
    one, two, other = method(seed=3), method(seed=3), method(seed=4)
    plans = [one.plan(x) for _ in range(4)]
    for plan in plans:
        assert_same_plan(plan, two.plan(x))
    assert len({plan.lam.numpy().tobytes() for plan in plans}) == 4
    assert not torch.equal(plans[0].lam, other.plan(x).lam)


def test_a_resumed_run_draws_what_the_unbroken_one_draws(method: type[Mixer]) -> None:
    x = samples(8, torch.float32)
    unbroken, first = method(seed=3), method(seed=3)
    plans = [unbroken.plan(x) for _ in range(6)]
    for _ in range(3):
        first.plan(x)
    second = method(seed=99)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for plan in plans[3:]:
        assert_same_plan(plan, second.plan(x))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda mixer: pickle.loads(pickle.dumps(mixer))])
def test_a_copy_draws_on_from_where_it_was_made(method: type[Mixer], copied: object) -> None:
    x, mixer = samples(8, torch.float32), method(seed=3)
    mixer.plan(x)
    twin = copied(mixer)
    assert_same_plan(mixer.plan(x), twin.plan(x))
    mixer.plan(x)
    assert (mixer.step, twin.step) == (3, 2)


def test_a_plan_replays_on_whatever_belongs_to_the_batch(method: type[Mixer]) -> None:
    x, mixer = samples(8, torch.float32), method(seed=3)
    plan = mixer.plan(x)
    for y in (torch.arange(8), samples(8, torch.float32)[:, 0, 0]):
        mixed, target = mixer(x, y, plan=plan)
        expected = reference.blend(x, plan.partner, plan.lam, plan.mask)
        torch.testing.assert_close(mixed.double(), expected, rtol=1e-6, atol=1e-6)
        assert torch.equal(target.b, y[plan.partner])
    assert mixer.step == 1  # a replay is not a draw


def test_where_nothing_is_mixed_the_batch_is_handed_back(method: type[Mixer]) -> None:
    x, y = samples(8, torch.float32), torch.arange(8)
    mixed, target = method(p=0.0, seed=0)(x, y)
    assert mixed is x
    assert torch.equal(target.lam, torch.ones(8))
    assert torch.equal(target.a, y)
    plan = method(p=0.0, seed=0).plan(x)
    assert torch.equal(plan.partner, torch.arange(8))
    assert torch.equal(plan.lam, torch.ones(8))
