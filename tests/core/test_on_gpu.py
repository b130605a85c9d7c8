"""On a GPU: the same values as on the CPU, and no step that waits for the device."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import batchmix as bm

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_plan_gives_what_it_gives_on_the_cpu(dtype: torch.dtype) -> None:
    x, y = torch.randn(33, 3, 6, 8).to(dtype), torch.randint(10, (33,))
    plan = bm.Mixup(seed=0).plan(x)
    mixed = bm.blend(x.cuda(), plan.to("cuda"))
    target = bm.MixedTarget.from_plan(y.cuda(), plan.to("cuda"))
    torch.testing.assert_close(mixed.cpu(), bm.blend(x, plan), rtol=0, atol=torch.finfo(dtype).eps)
    logits = torch.randn(33, 10)
    plain = F.cross_entropy(logits, bm.MixedTarget.from_plan(y, plan))
    torch.testing.assert_close(F.cross_entropy(logits.cuda(), target).cpu(), plain)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_loss_has_the_gradient_that_it_has_on_the_cpu(dtype: torch.dtype, reduction: str) -> None:
    logits, (a, b) = torch.randn(33, 10).to(dtype), torch.randint(10, (2, 33))
    target = bm.MixedTarget(a, b, torch.rand(33))
    results = []
    for device in ("cpu", "cuda"):
        given = logits.to(device, copy=True).requires_grad_()
        loss = F.cross_entropy(given, target.to(device), reduction=reduction, label_smoothing=0.1)
        results.append((loss.detach().cpu(), torch.autograd.grad(loss.sum(), given)[0].cpu()))
    for on_gpu, on_cpu in zip(*reversed(results), strict=True):
        close = 4 * torch.finfo(dtype).eps
        torch.testing.assert_close(on_gpu, on_cpu, rtol=close, atol=close)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("size", [1001, 20000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_at_lam_one_a_loss_is_the_plain_loss(dtype: torch.dtype, size: int, reduction: str) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = (8 * torch.randn(size, 10, generator=generator)).to("cuda", dtype)
    labels = torch.randint(10, (size,), generator=generator).cuda()
    loss = F.cross_entropy(logits, bm.MixedTarget(labels, labels.flip(0), 1.0), reduction=reduction)
    assert torch.equal(loss, F.cross_entropy(logits, labels, reduction=reduction))


@pytest.mark.parametrize("per", ["sample", "pair", "batch"])
@pytest.mark.usefixtures("no_sync")
def test_a_training_step_does_not_wait_for_the_device(per: str) -> None:
    mixup = bm.Mixup(per=per, seed=0)
    x, y = torch.empty(32, 3, 8, 8, device="cuda"), torch.zeros(32, dtype=torch.int64, device="cuda")
    weight = torch.ones(192, 10, device="cuda", requires_grad=True)
    for _ in range(3):
        mixed, target = mixup(x, y)
        F.cross_entropy(mixed.flatten(1) @ weight, target, label_smoothing=0.1).backward()
        F.cross_entropy(mixed.flatten(1) @ weight, target.dense(10)).backward()


@pytest.mark.usefixtures("no_sync")
def test_plain_labels_and_one_number_for_all_are_not_waited_for() -> None:
    logits, y = torch.zeros(32, 10, device="cuda"), torch.zeros(32, dtype=torch.int64, device="cuda")
    for lam in (1, 0.7):
        target = torch.cat([bm.MixedTarget(y, y.flip(0), lam), y])
        assert target.lam.is_cuda
    bm.expected_accuracy(logits, y)


def test_draws_come_from_a_generator_of_the_device() -> None:
    x = torch.zeros(64, 3, device="cuda")
    before = torch.cuda.get_rng_state()
    first, second = (bm.Mixup(seed=3).plan(x) for _ in range(2))
    assert first.lam.is_cuda
    assert torch.equal(first.lam, second.lam)
    assert torch.equal(first.partner, second.partner)
    assert torch.equal(torch.cuda.get_rng_state(), before)


@pytest.mark.parametrize("fn", [bm.sample_lam, bm.sample_partner])
def test_a_generator_of_another_device_is_named(fn: object) -> None:
    arguments = (0.4, 8) if fn is bm.sample_lam else (8,)
    with pytest.raises(bm.MixError, match=r"^generator takes one on cuda, got one on cpu$"):
        fn(*arguments, generator=torch.Generator(), device="cuda")  # type: ignore[operator]


def test_objects_that_stayed_on_the_cpu_are_cut_by_a_plan_of_the_gpu() -> None:
    objects = [{"boxes": torch.tensor([[0.0, 0.0, 16.0, 16.0]])} for _ in range(4)]
    plan = bm.CutMix(1.0, seed=0).plan(torch.rand(4, 3, 16, 16))
    pairs = zip(bm.mix_objects(objects, plan.to("cuda")), bm.mix_objects(objects, plan), strict=True)
    assert all(torch.equal(got["boxes"], wanted["boxes"]) for got, wanted in pairs)
