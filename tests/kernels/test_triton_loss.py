"""The fused loss in Triton gives what the definition gives: on a GPU, or interpreted on the CPU."""

from __future__ import annotations

import importlib.util
import os

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import reference
from batchmix.kernels import gpu_loss
from waiting import nothing_waits

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
HAS_TRITON = importlib.util.find_spec("triton") is not None
pytestmark = [
    pytest.mark.skipif(not HAS_TRITON, reason="needs triton"),
    # The interpreter's NumPy says what a GPU computes without a word: log(0), inf - inf.
    pytest.mark.filterwarnings("ignore:(invalid value|divide by zero) encountered:RuntimeWarning"),
]
if not INTERPRETED:
    pytestmark.append(pytest.mark.gpu)
DEVICE = "cpu" if INTERPRETED else "cuda"


def make(
    rows: int, classes: int, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits of standard deviation 3, labels, partners' labels, weights with 0, 1 and a half among them."""
    generator = torch.Generator().manual_seed(rows * classes)
    logits = (torch.randn(rows, classes, generator=generator) * 3).to(DEVICE, dtype)
    a, b = torch.randint(classes, (2, rows), generator=generator).to(DEVICE)
    lam = torch.rand(rows, generator=generator)
    lam[: min(rows, 3)] = torch.tensor([1.0, 0.0, 0.5])[:rows]
    return logits, a, b, lam.to(DEVICE)


def oracle(logits: Tensor, a: Tensor, b: Tensor, lam: Tensor, **options: object) -> tuple[Tensor, Tensor]:
    """The loss as plain Python loops have it in float64, and the gradient of the logits."""
    exact = logits.detach().cpu().double().requires_grad_()
    loss = reference.cross_entropy(exact, a.cpu(), b.cpu(), lam.cpu(), **options)
    weights = torch.linspace(-1, 2, loss.numel(), dtype=torch.float64).view(loss.shape)
    (gradient,) = torch.autograd.grad((loss * weights).sum(), exact)
    return loss.detach(), gradient


def fused(logits: Tensor, a: Tensor, b: Tensor, lam: Tensor, **options: object) -> tuple[Tensor, Tensor]:
    logits = logits.detach().requires_grad_()
    assert gpu_loss.can_fuse(logits, a, b, lam, **options)
    loss = gpu_loss.cross_entropy(logits, a, b, lam, **options)
    weights = torch.linspace(-1, 2, loss.numel(), dtype=loss.dtype, device=DEVICE).view(loss.shape)
    (gradient,) = torch.autograd.grad((loss * weights).sum(), logits)
    assert gradient.dtype == logits.dtype
    return loss.detach(), gradient


def check(parts: tuple[Tensor, ...], room: float = 2e-6, **options: object) -> None:
    (loss, gradient), (loss_before, gradient_before) = fused(*parts, **options), oracle(*parts, **options)
    torch.testing.assert_close(loss.cpu().double(), loss_before, rtol=room, atol=room)
    torch.testing.assert_close(gradient.cpu().double(), gradient_before, rtol=room, atol=room)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(("rows", "classes"), [(1, 1), (1, 10), (7, 2), (70, 10), (3, 130)])
def test_loss_and_gradient_are_those_of_the_oracle(
    rows: int, classes: int, reduction: str, label_smoothing: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_loss, "VALUES", 64)  # 130 classes are read in three parts
    check(make(rows, classes), reduction=reduction, label_smoothing=label_smoothing)


@pytest.mark.parametrize("classes", [1000, 50_000])
def test_many_classes_are_those_of_torch_in_float64(classes: int) -> None:
    logits, a, b, lam = make(2, classes)
    loss, gradient = fused(logits, a, b, lam, label_smoothing=0.1, reduction="none")
    exact = logits.double().requires_grad_()
    both = [F.cross_entropy(exact, labels, label_smoothing=0.1, reduction="none") for labels in (a, b)]
    expected = lam * both[0] + (1 - lam) * both[1]
    weights = torch.linspace(-1, 2, 2, dtype=torch.float64, device=DEVICE)
    (expected_gradient,) = torch.autograd.grad((expected * weights).sum(), exact)
    torch.testing.assert_close(loss.double(), expected.detach(), rtol=2e-6, atol=2e-6)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=2e-6, atol=1e-9)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype, reduction: str) -> None:
    parts = make(7, 33, dtype)
    loss, gradient = fused(*parts, reduction=reduction)
    assert loss.dtype == dtype
    exact, exact_gradient = oracle(*parts, reduction=reduction)
    room = 2 * torch.finfo(dtype).eps
    torch.testing.assert_close(loss.cpu().double(), exact, rtol=room, atol=1e-6)
    torch.testing.assert_close(gradient.cpu().double(), exact_gradient, rtol=2 * room, atol=room)
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        loss, gradient = fused(*parts, reduction=reduction)
    assert (loss.dtype, gradient.dtype) == (torch.float32, dtype)
    torch.testing.assert_close(loss.cpu().double(), exact, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("ignored", [-100, 0])
def test_ignored_labels_count_nothing(ignored: int, reduction: str, label_smoothing: float) -> None:
    logits, a, b, lam = make(9, 4)
    a[1], a[2], b[2], b[3] = ignored, ignored, ignored, ignored
    check((logits, a, b, lam), ignore_index=ignored, reduction=reduction, label_smoothing=label_smoothing)
    loss, gradient = fused(logits, a, b, lam, ignore_index=ignored, reduction="none")
    assert loss[2] == 0
    assert not gradient[2].any()


def test_rows_of_ignored_labels_alone_have_no_gradient() -> None:
    logits, a, _, lam = make(3, 4)
    loss, gradient = fused(logits, torch.full_like(a, -100), torch.full_like(a, -100), lam)
    assert loss.isnan()
    assert not gradient.any()


def test_extreme_logits_are_as_in_the_oracle() -> None:
    logits, a, b, lam = make(6, 5)
    a[:], b[:] = 0, 1
    logits[0] *= 1e4
    logits[1] = torch.tensor([-float("inf"), 1, 2, 3, 4])  # a label of share 0, impossible
    logits[2] = torch.tensor([1, 2, -float("inf"), -float("inf"), 4])
    logits[3] = 1e7
    logits[4, 1:] = -float("inf")
    lam[4] = 1
    check((logits, a, b, lam), reduction="none")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_has_no_loss_is_nan_as_in_torch(value: float) -> None:
    logits, a, b, lam = make(3, 5)
    logits[1] = value
    loss, gradient = fused(logits, a, b, lam, reduction="none")
    assert loss.isnan().tolist() == [False, True, False]
    assert gradient.isnan().any(1).tolist() == [False, True, False]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_row_that_does_not_count_and_has_no_softmax_is_as_in_torch(value: float) -> None:
    logits, a, b, lam = make(3, 5)
    logits[1], a[1], b[1] = value, -100, -100
    logits.requires_grad_()
    (by_torch,) = torch.autograd.grad(F.cross_entropy(logits, a), logits)
    for create_graph in (False, True):
        loss = gpu_loss.cross_entropy(logits, a, b, lam)
        (gradient,) = torch.autograd.grad(loss, logits, create_graph=create_graph)
        assert loss.isfinite()
        assert gradient.isnan().tolist() == by_torch.isnan().tolist()


def test_memory_may_lie_in_any_order() -> None:
    logits, a, b, lam = make(6, 5)
    windows = logits.flatten().unfold(0, 5, 1)[:6]
    turned, apart = logits.t().contiguous().t(), logits.repeat(1, 2)[:, ::2]
    for other in (turned, apart, windows, logits[:1].expand(6, 5)):
        check((other, a, b, lam[:1].expand(6)))
    check((logits, a[:1].expand(6), b.int().long(), lam))
    narrow, mates = a.to(torch.uint8), b.to(torch.uint8)
    assert torch.equal(fused(logits, narrow, mates, lam)[1], fused(logits, a, b, lam)[1])


def test_gradients_have_gradients() -> None:
    logits, a, b, lam = make(3, 4)
    logits.requires_grad_()
    for reduction in ("mean", "sum", "none"):
        loss = gpu_loss.cross_entropy(logits, a, b, lam, label_smoothing=0.1, reduction=reduction).sum()
        (once,) = torch.autograd.grad(loss, logits, create_graph=True)
        (plain,) = torch.autograd.grad(
            gpu_loss.cross_entropy(logits, a, b, lam, label_smoothing=0.1, reduction=reduction).sum(), logits
        )
        torch.testing.assert_close(once, plain)
        (twice,) = torch.autograd.grad(once.square().sum(), logits)
        exact = logits.detach().cpu().double().requires_grad_()
        loss = reference.cross_entropy(
            exact, a.cpu(), b.cpu(), lam.cpu(), label_smoothing=0.1, reduction=reduction
        )
        (once,) = torch.autograd.grad(loss.sum(), exact, create_graph=True)
        (expected,) = torch.autograd.grad(once.square().sum(), exact)
        torch.testing.assert_close(twice.cpu().double(), expected, rtol=1e-5, atol=1e-6)


def test_logits_overwritten_before_the_gradient_are_noticed() -> None:
    logits, a, b, lam = make(3, 4)
    hidden = logits.requires_grad_() * 1
    loss = gpu_loss.cross_entropy(hidden, a, b, lam)
    hidden.detach().zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_losses_of_samples_may_be_written_to() -> None:
    logits, a, b, lam = make(3, 4)
    weights = torch.tensor([0.5, 2.0, 0.0], device=DEVICE)
    gradients = []
    for in_place in (True, False):
        given = logits.detach().requires_grad_()
        loss = gpu_loss.cross_entropy(given, a, b, lam, reduction="none")
        loss = loss.mul_(weights) if in_place else loss * weights
        gradients.append(torch.autograd.grad(loss.sum(), given)[0])
    assert torch.equal(*gradients)


def test_what_torch_has_to_see_is_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.autograd import forward_ad

    logits, a, b, lam = make(3, 4)
    assert gpu_loss.can_fuse(logits, a, b, lam)
    assert gpu_loss.can_fuse(torch.nn.Parameter(logits), a, b, lam)
    refused = [
        (logits.double(), a, b, lam),
        (logits.view(3, 2, 2), a, b, lam),
        (logits[:0], a[:0], b[:0], lam[:0]),
        (logits, a[:2], b[:2], lam),
        (logits, a.float(), b.float(), lam),
        (logits, a, b, lam.clone().requires_grad_()),
        (logits.to("meta"), a, b, lam),
        (logits, a, b, lam, torch.ones(4, device=DEVICE)),
        (logits, a, b, lam, None, -100, "batchmean"),
        (logits, a, b, lam, None, -100, "mean", 1.5),
    ]
    assert not any(gpu_loss.can_fuse(*call) for call in refused)
    with FakeTensorMode():
        assert not gpu_loss.can_fuse(logits, a, b, lam)
    with forward_ad.dual_level():
        assert not gpu_loss.can_fuse(logits, a, b, lam)
    answers = []
    torch.func.vmap(lambda row: (answers.append(gpu_loss.can_fuse(row, a, b, lam)), row)[1])(logits[None])
    assert answers == [False]
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not gpu_loss.can_fuse(logits, a, b, lam)


@pytest.mark.gpu
@pytest.mark.skipif(INTERPRETED, reason="needs a GPU")
def test_a_graph_replays_with_new_values_and_nothing_waits() -> None:
    logits, a, b, lam = make(8, 100)
    logits.requires_grad_()

    def step() -> tuple[Tensor, Tensor]:
        loss = gpu_loss.cross_entropy(logits, a, b, lam)
        return loss, *torch.autograd.grad(loss, logits)

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        step()
    with nothing_waits():
        step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss, gradient = step()
    with torch.no_grad():
        logits.copy_(torch.randn(8, 100))
    graph.replay()
    expected, expected_gradient = oracle(logits, a, b, lam)
    torch.testing.assert_close(loss.cpu().double(), expected, rtol=2e-6, atol=2e-6)
    torch.testing.assert_close(gradient.cpu().double(), -expected_gradient, rtol=2e-6, atol=2e-6)
