"""RegMixup: the clean and the mixed half, and the published loss of both."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import reference
from batchmix import CutMix, MixedTarget, MixError, Mixup
from batchmix.regmixup import RegMixup

GENERATOR = torch.Generator().manual_seed(0)
X = torch.rand(6, 3, 4, 4, generator=GENERATOR)
Y = torch.tensor([0, 1, 2, 0, 1, 2])
LOGITS = torch.randn(12, 3, generator=GENERATOR)

TWICE = MixedTarget(torch.cat([Y, Y]), torch.cat([Y, Y]), 1.0)

pytestmark = pytest.mark.usefixtures("unmoved_global_rng")


def test_the_first_half_is_clean_and_the_second_is_what_the_mixer_makes() -> None:
    x, target = RegMixup(Mixup(10.0, seed=1))(X, Y)
    mixed, wanted = Mixup(10.0, seed=1)(X, Y)
    assert torch.equal(x[:6], X)
    assert torch.equal(x[6:], mixed)
    assert torch.equal(target.lam[:6], torch.ones(6))
    assert torch.equal(target.a, torch.cat([Y, Y]))
    for one, two in zip(target[6:], wanted, strict=True):
        assert torch.equal(one, two)


def test_a_plan_is_replayed_without_a_new_draw() -> None:
    regmixup = RegMixup(Mixup(10.0, seed=1))
    plan = regmixup.mixer.plan(X)
    x, target = regmixup(X, Y, plan=plan)
    assert torch.equal(x[6:], Mixup(seed=0)(X, Y, plan=plan)[0])
    assert torch.equal(target.lam[6:], plan.lam)
    assert regmixup.mixer.step == 1


@pytest.mark.parametrize("eta", [0, 0.5, 1, 2.0])
@pytest.mark.parametrize("mixer", [Mixup(10.0, fold=False, per="batch", seed=1), CutMix(1.0, seed=1)])
def test_the_loss_is_the_clean_one_plus_eta_times_the_mixed_one(mixer: object, eta: float) -> None:
    regmixup = RegMixup(mixer, eta=eta)
    _, target = regmixup(X, Y)
    a, b, lam = target[6:]
    ones = torch.ones(6)
    clean = reference.cross_entropy(LOGITS[:6], Y, Y, ones)
    mixed = reference.cross_entropy(LOGITS[6:], a, b, lam)
    for loss_fn in (F.cross_entropy, nn.CrossEntropyLoss(), lambda out, y: F.cross_entropy(out, y)):
        if isinstance(mixer, CutMix) and not isinstance(loss_fn, nn.Module) and loss_fn != F.cross_entropy:
            continue  # one number a batch cannot be mixed where lam differs
        loss = regmixup.loss(loss_fn, LOGITS, target)
        torch.testing.assert_close(loss.double(), clean + eta * mixed, rtol=1e-5, atol=1e-6)


def test_without_the_helper_the_loss_is_half_of_that_at_eta_1() -> None:
    regmixup = RegMixup(Mixup(10.0, seed=1))
    _, target = regmixup(X, Y)
    torch.testing.assert_close(
        2 * F.cross_entropy(LOGITS, target), regmixup.loss(F.cross_entropy, LOGITS, target)
    )


@pytest.mark.parametrize(
    ("options", "share"),
    [({"reduction": "sum"}, 1), ({"weight": torch.arange(1.0, 4)}, None)],
    ids=["sum", "weight"],
)
def test_without_the_helper_the_loss_is_half_for_a_plain_mean_alone(
    options: dict, share: float | None
) -> None:
    regmixup = RegMixup(Mixup(10.0, seed=1))
    _, target = regmixup(X, Y)
    one = F.cross_entropy(LOGITS, target, **options)
    both = regmixup.loss(partial(F.cross_entropy, **options), LOGITS, target)
    assert not torch.allclose(2 * one, both, rtol=1e-4)
    if share is not None:
        torch.testing.assert_close(one, share * both)


def test_a_loss_of_one_value_a_sample_stays_one() -> None:
    def hinge(output: Tensor, y: Tensor) -> Tensor:
        return (1 - output.gather(1, y[:, None]).squeeze(1)).clamp(min=0)

    regmixup = RegMixup(Mixup(10.0, seed=1), eta=0.5)
    _, target = regmixup(X, Y)
    a, b, lam = target[6:]
    wanted = hinge(LOGITS[:6], Y) + 0.5 * (lam * hinge(LOGITS[6:], a) + (1 - lam) * hinge(LOGITS[6:], b))
    torch.testing.assert_close(regmixup.loss(hinge, LOGITS, target), wanted)


def test_a_plain_target_has_the_plain_loss() -> None:
    loss = RegMixup(Mixup(seed=1), eta=3.0).loss(F.cross_entropy, LOGITS[:6], Y)
    assert torch.equal(loss, F.cross_entropy(LOGITS[:6], Y))


def test_a_batch_that_the_mixer_leaves_alone_is_doubled_all_the_same() -> None:
    x, target = RegMixup(Mixup(p=0.0, seed=1))(X, Y)
    assert torch.equal(x, torch.cat([X, X]))
    assert torch.equal(target.lam, torch.ones(12))


def test_draws_are_the_mixers() -> None:
    one, two = RegMixup(Mixup(10.0, seed=1)), RegMixup(Mixup(10.0, seed=1))
    first, _ = one(X, Y), one(X, Y)
    again = one(X, Y, step=0)
    assert torch.equal(first[0], two(X, Y)[0])
    assert torch.equal(first[0], again[0])
    assert one.mixer.state_dict() == {"seed": 1, "step": 2}


def test_half_precision_stays() -> None:
    x, target = RegMixup(Mixup(10.0, seed=1))(X.half(), Y)
    assert x.dtype == torch.float16
    assert target.lam.dtype == torch.float32


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_class_ids_of_positions_are_pasted_in_the_second_half(p: float) -> None:
    ids = torch.randint(3, (6, 4, 4), generator=torch.Generator().manual_seed(0))
    regmixup = RegMixup(CutMix(1.0, p=p, seed=1), eta=0.5)
    _, target = regmixup(X, ids)
    _, pasted = CutMix(1.0, p=p, seed=1)(X, ids)
    assert torch.equal(target.a, torch.cat([ids, pasted]))
    logits = torch.randn(12, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    expected = F.cross_entropy(logits[:6], ids) + 0.5 * F.cross_entropy(logits[6:], pasted)
    torch.testing.assert_close(regmixup.loss(F.cross_entropy, logits, target), expected)


def test_a_run_goes_on_where_its_state_was_taken() -> None:
    one, two = RegMixup(Mixup(10.0, seed=1)), RegMixup(Mixup(10.0, seed=9))
    one(X, Y)
    two.load_state_dict(one.state_dict())
    assert torch.equal(one(X, Y)[0], two(X, Y)[0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: RegMixup(10.0), "mixer takes a method"),
        (lambda: RegMixup(Mixup(), eta=-1), "eta takes "),
        (lambda: RegMixup(Mixup())({"x": X}, Y), "x takes a tensor"),
        (lambda: RegMixup(Mixup())(X, (Y, Y)), "y takes a tensor"),
        (
            lambda: RegMixup(Mixup()).loss(F.cross_entropy, LOGITS[:6], TWICE),
            "output takes a tensor of 12 samples",
        ),
        (
            lambda: RegMixup(Mixup()).loss(F.cross_entropy, LOGITS[:5], MixedTarget(Y[:5], Y[:5], 1.0)),
            "target takes a clean and a mixed half",
        ),
    ],
)  # fmt: skip
def test_a_wrong_call_is_named_in_one_line(call: object, message: str) -> None:
    with pytest.raises(MixError, match=rf"^{message}[^\n]*, got [^\n]*$"):
        call()


def test_a_part_of_what_a_call_returned_is_refused() -> None:
    """Its mixed half would count as clean."""
    regmixup = RegMixup(Mixup(1.0, fold=False, seed=0))
    generator = torch.Generator().manual_seed(0)
    _, target = regmixup(torch.rand(8, 3, generator=generator), torch.arange(8) % 5)
    logits = torch.randn(16, 5, generator=generator)
    regmixup.loss(F.cross_entropy, logits, target)
    with pytest.raises(
        MixError, match=r"^target takes all that one call returned, .*, got mixed samples there"
    ):
        regmixup.loss(F.cross_entropy, logits[8:], target[8:])
