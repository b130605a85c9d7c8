"""What every method promises; a new file in ``batchmix.methods`` is tested by being there.

A method that takes other samples than images, or needs arguments, has an entry in the tables below.
"""

from __future__ import annotations

import copy
import json
import pickle
from contextlib import suppress

import pytest
import torch
from torch import Tensor

import reference
from batchmix import Choice, MixedTarget, Mixer, MixError
from batchmix.methods import discover

METHODS = discover()
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
BATCHES = [1, 2, 5, 8]

SHAPES: dict[str, tuple[int, ...]] = {  # of one sample; images where there is none
    "energymixup": (2, 64),
    "tabularcutmix": (6,),
    "tokencutmix": (12, 4),
}
ARGUMENTS: dict[str, dict[str, object]] = {}  # without which a method cannot be made
VALUES = {"cmixup"}  # partners are chosen by targets that are values, not class ids
NO_PERMUTATION = {"cmixup"}  # a sample can be the partner of several
OWN_WEIGHTS = {"energymixup"}  # samples are not weighted as their labels are, and are scaled

pytestmark = pytest.mark.usefixtures("unmoved_global_rng")


def name_of(method: type[Mixer]) -> str:
    return method.__module__.rpartition(".")[2]


def make(method: type[Mixer], **options: object) -> Mixer:
    return method(**ARGUMENTS.get(name_of(method), {}), **options)


def samples(method: type[Mixer], batch_size: int, dtype: torch.dtype) -> Tensor:
    shape = SHAPES.get(name_of(method), (3, 6, 8))
    noise = torch.rand(batch_size, *shape, generator=torch.Generator().manual_seed(batch_size))
    return noise.to(dtype)


def targets(method: type[Mixer], batch_size: int) -> Tensor:
    ids = torch.arange(batch_size)
    return ids.double() if name_of(method) in VALUES else ids


def expected_of(method: type[Mixer], x: Tensor, plan: object) -> Tensor:
    """What the oracle makes of a batch by a plan."""
    mask = plan.mask
    if mask is not None and mask.dim() == 2:  # a weight for each position or column
        mask = mask.view(*mask.shape, *[1] * (x.dim() - 2))
    mixed = reference.blend(x, plan.partner, plan.lam, mask, window=plan.window)
    return reference.keep_energy(mixed, plan.mask) if name_of(method) in OWN_WEIGHTS else mixed


def assert_same_plan(one: object, two: object) -> None:
    assert torch.equal(one.partner, two.partner)
    assert torch.equal(one.lam, two.lam)
    assert (one.mask is None) == (two.mask is None)
    if one.mask is not None:
        assert torch.equal(one.mask, two.mask)
    assert (one.window is None) == (two.window is None)
    if one.window is not None:
        assert torch.equal(one.window, two.window)


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
    x, y = samples(method, batch_size, dtype), targets(method, batch_size)
    before = x.clone(), y.clone()
    for seed in range(5):
        plan = make(method, seed=seed).plan(x, y)
        mixed, target = make(method, seed=seed)(x, y)
        expected = expected_of(method, x, plan)
        assert (mixed.shape, mixed.dtype) == (x.shape, dtype)
        eps = torch.finfo(dtype).eps
        torch.testing.assert_close(mixed.double(), expected, rtol=eps, atol=4 * eps)
        assert isinstance(target, MixedTarget)
        assert torch.equal(target.a, y)
        assert torch.equal(target.b, y[plan.partner])
        assert torch.equal(target.lam, plan.lam)
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])


def test_gradients_reach_the_samples_by_the_plan(method: type[Mixer]) -> None:
    """As those of embeddings do; what a plan is drawn by is not part of the graph."""
    x, y = samples(method, 9, torch.float32).requires_grad_(), targets(method, 9)
    plan = make(method, seed=1).plan(x, y)
    assert not any(part.requires_grad for part in (plan.lam, plan.mask) if part is not None)
    by_hand = torch.autograd.grad(expected_of(method, x, plan).square().sum(), x)
    torch.testing.assert_close(torch.autograd.grad(make(method, seed=1)(x, y)[0].square().sum(), x), by_hand)


@pytest.mark.parametrize("batch_size", BATCHES)
def test_a_plan_is_a_permutation_with_weights(method: type[Mixer], batch_size: int) -> None:
    mixer, y = make(method, seed=1), targets(method, batch_size)
    for _ in range(20):
        plan = mixer.plan(samples(method, batch_size, torch.float32), y)
        if name_of(method) not in NO_PERMUTATION:
            assert torch.equal(plan.partner.sort().values, torch.arange(batch_size))
        assert ((plan.partner >= 0) & (plan.partner < batch_size)).all()
        assert plan.lam.dtype == torch.float32
        assert ((plan.lam >= 0) & (plan.lam <= 1)).all()
        if batch_size == 1:
            assert plan.lam.tolist() == [1.0]
        if plan.mask is not None and name_of(method) not in OWN_WEIGHTS:
            torch.testing.assert_close(plan.mask.float().flatten(1).mean(1).expand(batch_size), plan.lam)


def test_labels_carry_the_weight_that_the_pixels_have(method: type[Mixer]) -> None:
    if name_of(method) in OWN_WEIGHTS:
        pytest.skip("samples are not weighted as their labels are; its own tests say how")
    y = targets(method, 9)
    shape = SHAPES.get(name_of(method), (1, 6, 8))
    x = y.double().view(9, *[1] * len(shape)).expand(9, *shape).contiguous()  # a constant of its own label
    for seed in range(10):
        mixed, (a, b, lam) = make(method, seed=seed)(x, y)
        # lam is float32: labels up to 8 know it to 8 * 2**-24 and its rounding.
        torch.testing.assert_close(
            mixed.flatten(1).mean(1), lam * a + (1 - lam.double()) * b, rtol=0, atol=1e-6
        )
    assert (lam < 1).any()


def test_same_seed_same_draws_and_each_step_its_own(method: type[Mixer]) -> None:
    x, y = samples(method, 8, torch.float32), targets(method, 8)
    one, two, other = (make(method, seed=seed) for seed in (3, 3, 4))
    plans = [one.plan(x, y) for _ in range(4)]
    for plan in plans:
        assert_same_plan(plan, two.plan(x, y))
    drawn = {(plan.partner.numpy().tobytes(), plan.lam.numpy().tobytes()) for plan in plans}
    assert len(drawn) == 4
    assert not torch.equal(plans[0].lam, other.plan(x, y).lam)


def test_a_resumed_run_draws_what_the_unbroken_one_draws(method: type[Mixer]) -> None:
    x, y = samples(method, 8, torch.float32), targets(method, 8)
    unbroken, first = make(method, seed=3), make(method, seed=3)
    plans = [unbroken.plan(x, y) for _ in range(6)]
    for _ in range(3):
        first.plan(x, y)
    second = make(method, seed=99)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for plan in plans[3:]:
        assert_same_plan(plan, second.plan(x, y))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda mixer: pickle.loads(pickle.dumps(mixer))])
def test_a_copy_draws_on_from_where_it_was_made(method: type[Mixer], copied: object) -> None:
    x, y, mixer = samples(method, 8, torch.float32), targets(method, 8), make(method, seed=3)
    mixer.plan(x, y)
    twin = copied(mixer)
    assert_same_plan(mixer.plan(x, y), twin.plan(x, y))
    mixer.plan(x, y)
    assert (mixer.step, twin.step) == (3, 2)


def test_a_plan_replays_on_whatever_belongs_to_the_batch(method: type[Mixer]) -> None:
    x, mixer = samples(method, 8, torch.float32), make(method, seed=3)
    plan = mixer.plan(x, targets(method, 8))
    for y in (torch.arange(8), x.flatten(1)[:, :5]):
        mixed, target = mixer(x, y, plan=plan)
        expected = expected_of(method, x, plan)
        torch.testing.assert_close(mixed.double(), expected, rtol=1e-6, atol=1e-6)
        assert torch.equal(target.b, y[plan.partner])
    assert mixer.step == 1  # a replay is not a draw


@pytest.mark.parametrize("sent", [lambda plan: plan, lambda plan: pickle.loads(pickle.dumps(plan.to("cpu")))])
def test_a_plan_of_a_batch_that_is_not_mixed_replays_too(method: type[Mixer], sent: object) -> None:
    x, y = samples(method, 8, torch.float32), targets(method, 8)
    plan = sent(make(method, p=0.0, seed=3).plan(x, y))
    mixed, target = make(method, seed=3)(x, y, plan=plan)
    assert mixed is x
    assert torch.equal(target.lam, torch.ones(8))


@pytest.mark.parametrize("axis", [1, -2, -1])
def test_samples_without_a_position_are_refused_or_have_weights(method: type[Mixer], axis: int) -> None:
    x = samples(method, 8, torch.float32)
    x = x.narrow(axis, 0, 0) if x.dim() > 2 else x[:, :0]
    with suppress(MixError):
        plan = make(method, seed=3).plan(x, targets(method, 8))
        assert ((plan.lam >= 0) & (plan.lam <= 1)).all()


def test_a_method_that_pastes_says_so(method: type[Mixer]) -> None:
    plan = make(method, seed=3).plan(samples(method, 8, torch.float32), targets(method, 8))
    assert method.pastes == (plan.mask is not None and plan.mask.dtype == torch.bool)


def test_a_method_mixes_in_a_choice_as_it_does_alone_or_is_refused(method: type[Mixer]) -> None:
    x, y, alone = samples(method, 8, torch.float32), targets(method, 8), make(method)
    if not method.whole_plan:
        with pytest.raises(MixError, match=f"^methods takes ones that a plan .* got {method.__name__}"):
            Choice({alone: 1.0})
        return
    choice = Choice({alone: 1.0}, seed=3)
    plan = choice.plan(x, y)
    choice.step = 0
    mixed, target = choice(x, y)
    expected, wanted = alone(x, y, plan=plan)
    assert torch.equal(mixed, expected)
    assert torch.equal(target.lam, wanted.lam)
    assert (plan.lam < 1).any()


def test_where_nothing_is_mixed_the_batch_is_handed_back(method: type[Mixer]) -> None:
    x, y = samples(method, 8, torch.float32), targets(method, 8)
    mixed, target = make(method, p=0.0, seed=0)(x, y)
    assert mixed is x
    assert torch.equal(target.lam, torch.ones(8))
    assert torch.equal(target.a, y)
    plan = make(method, p=0.0, seed=0).plan(x, y)
    assert torch.equal(plan.partner, torch.arange(8))
    assert torch.equal(plan.lam, torch.ones(8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_images_in_channels_last_stay_so_and_have_the_same_values(
    method: type[Mixer], dtype: torch.dtype
) -> None:
    x, y = samples(method, 5, dtype), targets(method, 5)
    if x.dim() != 4:
        pytest.skip("samples are no images: they have no such format")
    mixed, target = make(method, seed=3)(x, y)
    turned, its_target = make(method, seed=3)(x.to(memory_format=torch.channels_last), y)
    assert turned.is_contiguous(memory_format=torch.channels_last)
    assert not turned.is_contiguous()
    assert torch.equal(turned, mixed)
    assert torch.equal(its_target.lam, target.lam)


def test_all_randomness_comes_from_the_generator_that_is_given(method: type[Mixer]) -> None:
    mixer, x, y = make(method), samples(method, 8, torch.float32), targets(method, 8)
    settings = {name: getattr(mixer, name) for name in mixer.hyperparameters}
    one, two, other = (
        mixer.sample(x, y, between=False, generator=torch.Generator().manual_seed(seed), **settings)
        for seed in (1, 1, 2)
    )
    assert_same_plan(one, two)
    assert not torch.equal(one.partner, other.partner)


@pytest.mark.parametrize("default", [torch.float64, torch.bfloat16], ids=str)
def test_the_default_dtype_changes_no_draw(method: type[Mixer], default: torch.dtype) -> None:
    x, y = samples(method, 8, torch.float32), targets(method, 8)
    plans, unmixed = [], []
    for dtype in (torch.float32, default):
        torch.set_default_dtype(dtype)
        try:
            plans.append(make(method, seed=1, p_sample=0.5).plan(x, y))
            unmixed.append(make(method, p=0.0)(x, y)[1])
        finally:
            torch.set_default_dtype(torch.float32)
    assert_same_plan(*plans)
    assert torch.equal(unmixed[0].lam, unmixed[1].lam)


@pytest.mark.gpu
def test_a_generator_of_the_device_draws_there(method: type[Mixer]) -> None:
    x, y = samples(method, 8, torch.float32).cuda(), targets(method, 8).cuda()
    before = torch.cuda.get_rng_state()
    one, two = (make(method, seed=3).plan(x, y) for _ in range(2))
    assert one.device == x.device
    assert_same_plan(one, two)
    mixed, target = make(method, seed=3)(x, y)
    torch.testing.assert_close(mixed.cpu().double(), expected_of(method, x.cpu(), one.to("cpu")))
    assert torch.equal(target.lam, one.lam)
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_the_rank_that_is_given_tells_the_draws(method: type[Mixer], monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = samples(method, 8, torch.float32), targets(method, 8)

    def drawn(told: str, given: int | None) -> Tensor:
        monkeypatch.setenv("RANK", told)
        return make(method, seed=1, rank=given).plan(x, y).lam

    assert torch.equal(drawn("5", given=2), drawn("2", given=None))
    assert any(not torch.equal(drawn("5", given=None), drawn(str(told), given=None)) for told in range(5))
