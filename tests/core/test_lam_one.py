"""At lam 1 a mixed loss is the plain loss, bit for bit, and its gradient the plain gradient."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from loss_cases import Case, case_id, class_cases, class_weights, pointwise_cases, random
from torch.nn import functional as F

from batchmix import MixedTarget
from batchmix.core import torch_losses

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def large(case: Case) -> Case:
    """The same loss on a batch whose sum takes many additions, so that their order shows."""
    if case.form == "classes":
        shapes = {2: (257, 5), 3: (33, 4, 19), 4: (6, 5, 17, 13)}
        return dataclasses.replace(case, shape=shapes[len(case.shape)])
    if case.functional_only:
        return case
    return dataclasses.replace(case, shape=(301, 5) if len(case.shape) == 2 else (33, *case.shape[1:]))


CASES = [*class_cases(), *pointwise_cases()]
CASES += [large(case) for case in CASES if case.shape[0] > 1]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_at_lam_one_a_loss_is_the_plain_loss(case: Case, dtype: torch.dtype) -> None:
    for seed, reduction in enumerate(["none", "mean", "sum", "batchmean"]):
        if reduction == "batchmean" and case.name != "kl_div":
            continue
        output = case.output(dtype, seed)
        own, dropped = case.target(dtype, seed + 10), case.target(dtype, seed + 20)
        target = MixedTarget(own, dropped, torch.ones(len(own)))
        for form, loss_fn in case.calls(reduction, dtype).items():
            given, plain_given = output.clone().requires_grad_(), output.clone().requires_grad_()
            loss, plain = loss_fn(given, target), loss_fn(plain_given, own)
            assert loss.dtype == plain.dtype, (form, reduction)
            assert torch.equal(loss, plain), (form, reduction, loss, plain)
            loss.sum().backward()
            plain.sum().backward()
            # Of a gradient only the rounding may differ: two roundings of a half, some of a float.
            close = 4 * torch.finfo(dtype).eps
            torch.testing.assert_close(given.grad, plain_given.grad, rtol=close, atol=close)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", [case for case in CASES if case.name == "cross_entropy"], ids=case_id)
def test_it_is_where_nothing_is_fused(
    case: Case, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_losses.fused_on_cpu, "can_fuse", lambda *parts: False)
    test_at_lam_one_a_loss_is_the_plain_loss(case, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"weight": class_weights(1000)}], ids=list)
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_at_lam_one_a_thousand_classes_are_plain_too(
    reduction: str, options: dict[str, object], dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = (8 * torch.randn(128, 1000, generator=generator)).to(dtype)
    own, dropped = torch.randint(1000, (2, 128), generator=generator)
    given = {k: v.to(dtype) if isinstance(v, torch.Tensor) else v for k, v in options.items()}
    loss = F.cross_entropy(logits, MixedTarget(own, dropped, 1.0), reduction=reduction, **given)
    assert torch.equal(loss, F.cross_entropy(logits, own, reduction=reduction, **given))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_at_lam_one_autocast_makes_no_difference(case: Case, dtype: torch.dtype) -> None:
    """Autocast takes losses to float32, but leaves a gather as it is, and on a CPU a log-softmax."""
    with torch.autocast("cpu", torch.bfloat16):
        test_at_lam_one_a_loss_is_the_plain_loss(case, dtype)


def test_at_lam_one_a_loss_has_the_dtype_of_the_plain_loss() -> None:
    """Some losses take the dtype of the output, others the wider one of output and target."""
    output, values = random(6, 5, seed=1).bfloat16(), random(6, 5).float()
    for loss_fn in (F.huber_loss, F.mse_loss, F.smooth_l1_loss):
        loss, plain = loss_fn(output, MixedTarget(values, values, 1.0)), loss_fn(output, values)
        assert loss.dtype == plain.dtype
        assert torch.equal(loss, plain)
