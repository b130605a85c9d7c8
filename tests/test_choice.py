from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable

import pytest
import torch
from scipy import stats
from torch import Tensor

import reference
from batchmix import Choice, CutMix, KMixup, MixError, MixPlan, Mixup
from batchmix.methods.resizemix import ResizeMix
from batchmix.methods.saliencymix import SaliencyMix
from batchmix.methods.smoothmix import SmoothMix
from refusals import assert_named

X = torch.rand(8, 3, 6, 8, generator=torch.Generator().manual_seed(0))
Y = torch.arange(8)

pytestmark = pytest.mark.usefixtures("unmoved_global_rng")


def all_kinds(**options: object) -> Choice:
    """A fifth of every kind of plan, and a fifth of nothing."""
    methods = {Mixup(0.4): 0.2, CutMix(1.0): 0.2, ResizeMix(): 0.2, SmoothMix(): 0.2}
    return Choice(methods, **{"seed": 3, **options})


def assert_same_plan(one: MixPlan, two: MixPlan) -> None:
    for name in ("partner", "lam", "mask", "window"):
        first, second = getattr(one, name), getattr(two, name)
        assert (first is None) == (second is None)
        assert first is None or torch.equal(first, second)


def kind_of(plan: MixPlan) -> str:
    if plan.mask is None:
        return "mixup" if (plan.lam < 1).any() else "nothing"
    if plan.window is not None:
        return "resizemix"
    return "cutmix" if plan.mask.dtype == torch.bool else "smoothmix"


# What it shares with a method


@pytest.mark.parametrize("per", ["batch", "sample"])
@pytest.mark.parametrize("batch_size", [1, 2, 5, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_a_batch_is_mixed_as_its_plan_says(per: str, batch_size: int, dtype: torch.dtype) -> None:
    x, y = X[:batch_size].to(dtype), Y[:batch_size]
    before = x.clone()
    for seed in range(6):
        plan = all_kinds(per=per, seed=seed).plan(x)
        mixed, target = all_kinds(per=per, seed=seed)(x, y)
        expected = reference.blend(x, plan.partner, plan.lam, plan.mask, window=plan.window)
        eps = torch.finfo(dtype).eps
        torch.testing.assert_close(mixed.double(), expected, rtol=eps, atol=4 * max(eps, 1e-7))
        assert (mixed.shape, mixed.dtype) == (x.shape, dtype)
        assert torch.equal(target.b, y[plan.partner])
        assert torch.equal(target.lam, plan.lam)
        assert ((plan.lam >= 0) & (plan.lam <= 1)).all()
    assert torch.equal(x, before)


@pytest.mark.parametrize("per", ["batch", "sample"])
def test_labels_have_the_weight_of_their_pixels(per: str) -> None:
    x = Y.double().view(8, 1, 1, 1).expand(8, 1, 6, 8).contiguous()
    for seed in range(20):
        mixed, (a, b, lam) = all_kinds(per=per, seed=seed)(x, Y)
        torch.testing.assert_close(mixed.mean((1, 2, 3)), lam * a + (1 - lam.double()) * b, rtol=0, atol=1e-6)


@pytest.mark.parametrize("per", ["batch", "sample"])
def test_same_seed_same_draws_and_a_resumed_run_goes_on(per: str) -> None:
    one, two, resumed = all_kinds(per=per), all_kinds(per=per), all_kinds(per=per, seed=99)
    for _ in range(3):
        assert_same_plan(one.plan(X), two.plan(X))
    assert one.state_dict() == {"seed": 3, "step": 3}
    resumed.load_state_dict(json.loads(json.dumps(one.state_dict())))
    for _ in range(6):
        assert_same_plan(one.plan(X), resumed.plan(X))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda mixer: pickle.loads(pickle.dumps(mixer))])
def test_a_copy_draws_on_from_where_it_was_made(copied: object) -> None:
    mixer = all_kinds(per="sample")
    mixer.plan(X)
    twin = copied(mixer)
    for _ in range(3):
        assert_same_plan(mixer.plan(X), twin.plan(X))


def test_the_default_dtype_changes_no_draw() -> None:
    plan = all_kinds(per="sample").plan(X)
    torch.set_default_dtype(torch.float64)
    try:
        assert_same_plan(all_kinds(per="sample").plan(X), plan)
    finally:
        torch.set_default_dtype(torch.float32)


def test_the_methods_own_seeds_and_steps_play_no_part() -> None:
    methods = Mixup(0.4, seed=1), CutMix(1.0, seed=2)
    one = Choice(dict.fromkeys(methods, 0.5), seed=3)
    two = Choice(dict.fromkeys((Mixup(0.4, seed=7), CutMix(1.0, seed=8)), 0.5), seed=3)
    for _ in range(4):
        assert_same_plan(one.plan(X), two.plan(X))
    assert [method.step for method in methods] == [0, 0]


def test_a_plan_replays() -> None:
    mixer = all_kinds(per="sample")
    plan = mixer.plan(X)
    mixed, target = mixer(X, Y, plan=plan)
    again, _ = mixer(X, Y, plan=plan)
    assert torch.equal(mixed, again)
    assert torch.equal(target.lam, plan.lam)
    assert mixer.step == 1


def test_two_batches_are_mixed_sample_by_sample() -> None:
    two = 2 + X
    for per in ("batch", "sample"):
        mixed, (_, b, lam) = Choice({CutMix(1.0): 1.0}, per=per, seed=0).between((X, Y), (two, Y + 10))
        assert torch.equal(b, Y + 10)
        seen = (mixed > 1).flatten(1).double().mean(1)
        torch.testing.assert_close(seen, 1 - lam.double(), rtol=0, atol=1e-6)


# Which method


def test_each_batch_follows_one_method_with_its_probability() -> None:
    mixer = Choice({Mixup(1e3, partner="roll"): 0.5, CutMix(1.0, partner="roll"): 0.2}, seed=0)
    drawn = [kind_of(mixer.plan(X)) for _ in range(600)]
    for kind, probability in (("mixup", 0.5), ("cutmix", 0.2), ("nothing", 0.3)):
        assert stats.binomtest(drawn.count(kind), 600, probability).pvalue > 1e-3


def test_each_sample_follows_one_method_with_its_probability() -> None:
    x = torch.zeros(4000, 1, 8, 8)
    methods = {
        Mixup(1e6, partner="roll"): 0.5,
        CutMix(minmax=(0.5, 0.5), partner="derangement"): 0.2,
    }
    plan = Choice(methods, per="sample", seed=0).plan(x)
    blended, pasted = (plan.lam - 0.5).abs() < 0.01, plan.lam == 0.75
    for found, probability in ((blended, 0.5), (pasted, 0.2), (plan.lam == 1, 0.3)):
        assert stats.binomtest(int(found.sum()), 4000, probability).pvalue > 1e-3
    assert torch.equal(plan.partner[blended], torch.arange(4000).roll(1)[blended])
    assert (plan.mask[blended].amin((1, 2, 3)) == plan.lam[blended]).all()
    assert set(plan.mask[pasted].unique().tolist()) == {0.0, 1.0}
    assert (blended | pasted | (plan.lam == 1)).all()
    left = plan.lam == 1
    assert torch.equal(plan.partner[left], torch.arange(4000)[left])


def test_each_sample_has_the_part_of_the_plan_that_its_method_has() -> None:
    plan = all_kinds(per="sample", seed=1).plan(torch.zeros(64, 1, 6, 8))
    assert plan.mask.dtype == torch.float32
    assert plan.window.shape == (64, 4)
    whole = (plan.window == torch.tensor([0, 6, 0, 8])).all(1)
    assert 20 < int(whole.sum()) < 62
    small = plan.window[~whole]
    inside = box_share(small)
    torch.testing.assert_close(plan.lam[~whole], 1 - inside)


def box_share(window: Tensor) -> Tensor:
    return ((window[:, 1] - window[:, 0]) * (window[:, 3] - window[:, 2])).float() / 48


def test_where_all_methods_paste_class_ids_of_positions_are_pasted() -> None:
    mixer = Choice({CutMix(1.0): 0.4, ResizeMix(): 0.4}, per="sample", seed=0)
    y = torch.randint(5, (8, 6, 8), generator=torch.Generator().manual_seed(1))
    plan = mixer.plan(X)
    assert plan.mask.dtype == torch.bool
    x = X.clone()
    x[:, :, 0, 0] = float("nan")
    cut = Choice({CutMix(1.0): 0.5}, per="sample", seed=0)
    cut_plan = cut.plan(x)
    mixed, ids = cut(x, y, plan=cut_plan)
    assert torch.equal(mixed.isnan().sum(), x.isnan().sum())  # a paste does no arithmetic
    assert torch.equal(ids, torch.where(cut_plan.mask[:, 0], y, y[cut_plan.partner]))
    _, both = mixer(X, y, plan=plan)
    assert both.dtype == torch.int64


@pytest.mark.parametrize("of_positions", ["ids", "boxes"])
def test_of_blends_and_pastes_positions_take_a_choice_for_the_batch(of_positions: str) -> None:
    boxes = [{"boxes": torch.tensor([[0.0, 0.0, 4.0, 4.0]])} for _ in X]
    y = boxes if of_positions == "boxes" else torch.zeros(8, 6, 8, dtype=torch.int64)
    both = {CutMix(1.0): 0.5, Mixup(0.4): 0.5}
    with pytest.raises(MixError, match=r"\(a Choice of both takes per='batch'\), got "):
        Choice(both, per="sample", seed=0)(X, y)
    mixer = Choice(both, seed=0)
    for _ in range(4):
        mixer(X, y)


def test_methods_that_blend_whole_samples_need_no_mask() -> None:
    plan = Choice({Mixup(0.4): 0.5, Mixup(4.0): 0.5}, per="sample", seed=0).plan(torch.zeros(8, 3))
    assert plan.mask is None


def test_videos_are_chosen_for_by_sample() -> None:
    x = Y.double().view(8, 1, 1, 1, 1).expand(8, 1, 3, 6, 8).contiguous()
    mixed, (a, b, lam) = all_kinds(per="sample")(x, Y)
    torch.testing.assert_close(mixed.flatten(1).mean(1), lam * a + (1 - lam.double()) * b, rtol=0, atol=1e-6)


# Probabilities, schedules


@pytest.mark.parametrize("per", ["batch", "sample"])
def test_of_no_probability_nothing_is_mixed(per: str) -> None:
    mixed, target = Choice({Mixup(0.4): 0.0, CutMix(1.0): 0}, per=per, seed=0)(X, Y)
    assert mixed is X
    assert torch.equal(target.lam, torch.ones(8))
    mixed, _ = Choice({CutMix(1.0): 1}, p=0, per=per, seed=0)(X, Y)
    assert mixed is X


def test_p_and_p_sample_hold_for_what_was_chosen() -> None:
    mixer = Choice({Mixup(1e3, partner="roll"): 1.0}, p=0.5, p_sample=0.5, seed=0)
    lam = torch.stack([mixer.plan(X).lam for _ in range(400)])
    batches = int((lam < 1).any(1).sum())
    assert stats.binomtest(batches, 400, 0.5 * (1 - 0.5**8)).pvalue > 1e-3
    assert stats.binomtest(int((lam < 1).sum()), 3200, 0.25).pvalue > 1e-6


def test_the_p_of_a_method_is_its_own() -> None:
    mixer = Choice({Mixup(1e3, partner="roll", p=0.5): 0.6}, seed=0)
    mixed = sum(kind_of(mixer.plan(X)) == "mixup" for _ in range(600))
    assert stats.binomtest(mixed, 600, 0.3).pvalue > 1e-3


@pytest.mark.parametrize("per", ["batch", "sample"])
def test_a_schedule_moves_the_probability_of_a_method_by_its_class(per: str) -> None:
    schedule = {"CutMix": lambda step: float(step >= 5), "Mixup": lambda step: float(step < 5)}
    mixer = Choice(
        {Mixup(1e3, partner="roll"): 1.0, CutMix(1.0, partner="roll"): 1e-9},
        seed=0,
        per=per,
        schedule=schedule,
    )
    assert mixer.settings(0) == {"p": 1.0, "p_sample": 1.0, "Mixup": 1.0, "CutMix": 0.0}
    assert mixer.settings(5)["Mixup"] == 0.0
    assert [kind_of(mixer.plan(X)) for _ in range(5)] == ["mixup"] * 5
    assert (mixer.plan(X).lam == 1).all()


def test_a_methods_own_schedule_follows_the_step_of_the_choice() -> None:
    mixer = Choice({Mixup(1e3, partner="roll", schedule=lambda step: float(step < 3)): 1.0}, seed=0)
    assert [kind_of(mixer.plan(X)) for _ in range(5)] == ["mixup"] * 3 + ["nothing"] * 2


def test_two_methods_of_one_class_have_names_of_their_own() -> None:
    mixer = Choice({Mixup(0.1): 0.3, CutMix(1.0): 0.1, Mixup(4.0): 0.3, Mixup(9.0): 0.3}, seed=0)
    assert list(mixer.methods) == ["Mixup", "CutMix", "Mixup_2", "Mixup_3"]
    assert set(mixer.settings()) == {"p", "p_sample", *mixer.methods}


def test_a_choice_can_be_of_choices() -> None:
    inner = Choice({Mixup(1e3, partner="roll"): 0.5}, seed=9)
    mixer = Choice({inner: 0.5, CutMix(1.0, partner="roll"): 0.5}, seed=0)
    drawn = [kind_of(mixer.plan(X)) for _ in range(400)]
    for kind, probability in (("mixup", 0.25), ("cutmix", 0.5), ("nothing", 0.25)):
        assert stats.binomtest(drawn.count(kind), 400, probability).pvalue > 1e-3
    again = Choice({inner: 0.5, CutMix(1.0, partner="roll"): 0.5}, seed=0)
    assert [kind_of(again.plan(X)) for _ in range(20)] == drawn[:20]


# What it does not take


def test_two_batches_are_not_matched_in_silence_by_no_one() -> None:
    x, y = X[:4].flatten(1), torch.arange(4)
    with pytest.raises(MixError, match=r"^between takes methods that .*, got a Choice with KMixup$"):
        Choice({KMixup(1.0, k=4): 1.0}, seed=0).between((x, y), (x, y))
    with pytest.raises(MixError, match=r"^between takes methods that .*, got a Choice with KMixup$"):
        Choice({Choice({KMixup(1.0, k=4): 1.0}): 1.0}, seed=0).between((x, y), (x, y))
    inner = Choice({Mixup(0.4): 1.0})
    assert torch.equal(Choice({inner: 1.0}, seed=0).between((x, y), (x, y.flip(0)))[1].b, y.flip(0))


@pytest.mark.parametrize(
    ("argument", "make"),
    [
        ("methods", lambda: Choice([Mixup(0.4)])),
        ("methods", lambda: Choice({})),
        ("methods", lambda: Choice({"mixup": 0.5})),
        ("methods", lambda: Choice({Mixup: 0.5})),
        ("methods[Mixup]", lambda: Choice({Mixup(0.4): -0.5})),
        ("methods[Mixup]", lambda: Choice({Mixup(0.4): "half"})),
        ("methods[Mixup_2]", lambda: Choice({Mixup(0.4): 0.5, Mixup(0.4): 2})),
        ("methods", lambda: Choice({Mixup(0.4): 0.7, CutMix(1.0): 0.7})),
        ("per", lambda: Choice({Mixup(0.4): 0.5}, per="pair")),
        ("p", lambda: Choice({Mixup(0.4): 0.5}, p=1.5)),
        ("seed", lambda: Choice({Mixup(0.4): 0.5}, seed=-1)),
        ("schedule", lambda: Choice({Mixup(0.4): 0.5}, schedule={"CutMix": float})),
        (
            "schedule",
            lambda: Choice({Mixup(0.4): 0.5, CutMix(1.0): 0.5}, schedule={"CutMix": lambda step: 1.5}).plan(
                X
            ),
        ),
    ],
)
def test_a_wrong_argument_is_named_in_one_line(argument: str, make: Callable[[], object]) -> None:
    assert_named(argument, make)


def test_a_method_that_looks_at_partners_is_refused_before_it_is_drawn() -> None:
    method = SaliencyMix(p=0.0)
    for mixer in (method, Choice({Mixup(0.4): 1.0, method: 0.0}), Choice({Choice({method: 0.0}): 0.0})):
        with pytest.raises(MixError, match=r"^between takes [^\n]*got SaliencyMix$"):
            mixer.between((X, Y), (X, Y))
