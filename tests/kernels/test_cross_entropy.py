"""The fused cross entropy gives what the oracle gives, wherever values lie, and steps aside where it must."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import reference
from batchmix import MixedTarget
from batchmix.kernels import cross_entropy as fused
from batchmix.kernels import threads

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
REDUCTIONS = ("mean", "sum", "none")
IGNORED = -100
INF = float("inf")

pytestmark = pytest.mark.skipif(fused._loops(torch.float32) is None, reason="needs numba")


@pytest.fixture(autouse=True)
def as_many_threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the fused functions that ran, each as it ran."""
    ran: list[str] = []

    def watched(name: str) -> Callable[..., Any]:
        function = getattr(fused, name)

        @functools.wraps(function)
        def call(*args: Any) -> Any:
            ran.append(name)
            return function(*args)

        return call

    for name in ("cross_entropy", "_gradient", "gradient_in_steps"):
        monkeypatch.setattr(fused, name, watched(name))
    return ran


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some_logits(rows: int, classes: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return (3 * torch.randn(rows, classes, generator=generator(seed), dtype=torch.float64)).to(dtype)


def some_target(rows: int, classes: int, *, ignored: bool = True) -> MixedTarget:
    """Labels of which some are equal and some ignored, with weights of all kinds; 1-lam is exact."""
    a, b = torch.randint(classes, (2, rows), generator=generator(rows))
    lam = torch.randint(257, (rows,), generator=generator(classes)) / 256
    lam[0] = 0.625
    for row, weight in ((1, 0.0), (2, 1.0), (3, 0.5)):
        lam[row : row + 1] = weight
    a[4:5] = b[4:5]
    if ignored:
        a[5:7], b[6:8] = IGNORED, IGNORED
    return MixedTarget(a, b, lam)


def loss_and_gradient(logits: Tensor, target: MixedTarget, **options: Any) -> tuple[Tensor, Tensor]:
    """Of the fused kernel; rows of one loss each count differently in the gradient."""
    given = logits.detach().requires_grad_()
    parts = (*target, None, options.get("ignore_index", IGNORED), options.get("reduction", "mean"))
    assert fused.can_fuse(given, *parts, options.get("label_smoothing", 0.0))
    loss = F.cross_entropy(given, target, **options)
    (gradient,) = torch.autograd.grad(loss, given, above_of(loss))
    return loss, gradient


def above_of(loss: Tensor) -> Tensor:
    return torch.linspace(0.5, 2, loss.numel(), dtype=loss.dtype).view(loss.shape)


def expected(logits: Tensor, target: MixedTarget, **options: Any) -> tuple[Tensor, Tensor]:
    exact = logits.detach().double().requires_grad_()
    loss = reference.cross_entropy(exact, *target, **options)
    (gradient,) = torch.autograd.grad(loss, exact, above_of(loss))
    return loss, gradient


def assert_near(got: Tensor, exact: Tensor, *, roundings: float = 16) -> None:
    """As near as some roundings in the dtype, of the largest value."""
    got, exact = got.detach(), exact.detach()
    allowed = roundings * torch.finfo(got.dtype).eps * max(1.0, float(exact.abs().nan_to_num().max()))
    torch.testing.assert_close(got.double(), exact, rtol=0, atol=allowed, equal_nan=True)


# Values


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize(("rows", "classes"), [(9, 3), (33, 10), (8, 100)])
def test_loss_and_gradient_are_the_oracles(rows: int, classes: int, dtype: torch.dtype) -> None:
    logits, target = some_logits(rows, classes, dtype), some_target(rows, classes)
    for reduction in REDUCTIONS:
        for label_smoothing in (0.0, 0.1, 1.0):
            options: dict[str, Any] = {"reduction": reduction, "label_smoothing": label_smoothing}
            loss, gradient = loss_and_gradient(logits, target, **options)
            exact_loss, exact_gradient = expected(logits, target, **options)
            assert loss.dtype == gradient.dtype == dtype
            half = dtype in (torch.bfloat16, torch.float16)  # computed in float32 and rounded once
            assert_near(loss, exact_loss, roundings=0.51 if half else 16)
            assert_near(gradient, exact_gradient, roundings=0.51 if half else 16)


@pytest.mark.parametrize("classes", [1, 2, 7, 8, 31, 32, 33, 1000, 4097])
def test_every_number_of_classes_is_taken(classes: int) -> None:
    logits, target = some_logits(9, classes), some_target(9, classes, ignored=False)
    for got, exact in zip(loss_and_gradient(logits, target), expected(logits, target), strict=True):
        assert_near(got, exact)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_one_row_is_taken_and_none_is_left_to_torch(reduction: str) -> None:
    logits, target = some_logits(1, 5), some_target(1, 5)
    got = loss_and_gradient(logits, target, reduction=reduction)
    for value, exact in zip(got, expected(logits, target, reduction=reduction), strict=True):
        assert_near(value, exact)
    empty = MixedTarget(target.a[:0], target.b[:0], target.lam[:0])
    loss = F.cross_entropy(logits[:0], empty, reduction=reduction)
    torch.testing.assert_close(
        loss, F.cross_entropy(logits[:0], empty.a, reduction=reduction), equal_nan=True
    )


def test_gradients_are_those_of_differences() -> None:
    logits, target = some_logits(9, 4, torch.float64).requires_grad_(), some_target(9, 4)
    for reduction in REDUCTIONS:
        for label_smoothing in (0.0, 0.2):
            loss_of = functools.partial(
                F.cross_entropy, target=target, reduction=reduction, label_smoothing=label_smoothing
            )
            assert torch.autograd.gradcheck(loss_of, logits)
            assert torch.autograd.gradgradcheck(loss_of, logits)


@pytest.mark.parametrize("large", [1e4, 1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_large_logits_lose_no_difference(dtype: torch.dtype, large: float) -> None:
    shifted = torch.tensor([[0.0, 1.0, -2.0], [0.0, 0.0, 0.0], [-large, 0.0, large]]).to(dtype)
    logits = shifted if large > 1e9 else torch.cat([(shifted.double() + large).to(dtype), -shifted])
    target = some_target(len(logits), 3, ignored=False)
    from_top = logits.double() - logits.double().amax(1, keepdim=True)  # or the oracle would lose them
    for got, exact in zip(loss_and_gradient(logits, target), expected(from_top, target), strict=True):
        assert_near(got, exact)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize(
    "row", [[0.0, -INF, 1.0], [-INF, -INF, -INF], [INF, 0.0, 1.0], [INF, -INF, INF], [float("nan"), 0.0, 1.0]]
)
def test_what_is_not_finite_gives_what_torch_gives(row: list[float], label_smoothing: float) -> None:
    logits = torch.tensor([row, [0.5, 1.0, 2.0]])
    for labels in ([0, 1], [1, 1], [2, 0], [IGNORED, 0]):
        target = MixedTarget(torch.tensor(labels), torch.tensor(labels), torch.tensor([0.25, 0.5]))
        got = loss_and_gradient(logits, target, reduction="none", label_smoothing=label_smoothing)
        plain = logits.clone().requires_grad_()
        loss = F.cross_entropy(plain, target.a, reduction="none", label_smoothing=label_smoothing)
        (gradient,) = torch.autograd.grad(loss, plain, above_of(loss))
        torch.testing.assert_close(got[0], loss.detach(), equal_nan=True)
        torch.testing.assert_close(got[1], gradient, equal_nan=True)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_label_of_no_weight_may_be_impossible_beside_a_mixed_row(reduction: str) -> None:
    logits = torch.tensor([[0.0, -INF, 1.0], [2.0, 0.0, -INF], [1.0, 2.0, 3.0]])
    target = MixedTarget(torch.tensor([2, 2, 0]), torch.tensor([1, 0, 1]), torch.tensor([1.0, 0.0, 0.5]))
    for value in loss_and_gradient(logits, target, reduction=reduction):
        assert value.isfinite().all()


def test_the_mean_of_nothing_is_torchs_and_has_no_gradient() -> None:
    ignored = torch.full((3,), 4)
    target = MixedTarget(ignored, ignored, 0.3)
    loss, gradient = loss_and_gradient(some_logits(3, 5), target, ignore_index=4)
    assert loss.isnan()
    assert torch.equal(gradient, torch.zeros(3, 5))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_whole_weights_are_the_plain_loss_to_the_bit(label_smoothing: float, reduction: str) -> None:
    options: dict[str, Any] = {"reduction": reduction, "label_smoothing": label_smoothing}
    own, other = torch.randint(10, (2, 300), generator=generator())
    own[3] = IGNORED
    lam = (torch.rand(300, generator=generator()) > 0.5).float()
    got = loss_and_gradient(some_logits(300, 10), MixedTarget(own, other, lam), **options)
    plain = some_logits(300, 10).requires_grad_()
    loss = F.cross_entropy(plain, torch.where(lam == 1, own, other), **options)
    assert torch.equal(got[0], loss)
    assert torch.equal(got[1], torch.autograd.grad(loss, plain, above_of(loss))[0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_gives_float32_and_a_gradient_in_half(dtype: torch.dtype) -> None:
    logits, target = some_logits(33, 10, dtype), some_target(33, 10)
    with torch.autocast("cpu", torch.bfloat16):
        loss, gradient = loss_and_gradient(logits, target, reduction="none")
    exact_loss, exact_gradient = expected(logits, target, reduction="none")
    assert loss.dtype == torch.float32
    assert_near(loss, exact_loss)
    assert gradient.dtype == dtype
    assert_near(gradient, exact_gradient, roundings=0.51)


def test_small_gradients_of_float16_survive_a_scaled_loss() -> None:
    """Gradients are scaled before they are rounded: what is 0 in half precision is not 65536 times 0."""
    logits, target = some_logits(64, 1000, torch.float16), some_target(64, 1000, ignored=False)
    given = logits.clone().requires_grad_()
    with torch.autocast("cpu", torch.float16):
        (65536 * F.cross_entropy(given, target)).backward()
    exact = expected(logits, target)[1] * 2 * 65536  # the oracle's was halved: above_of a single loss is 0.5
    torch.testing.assert_close(given.grad.double(), exact, rtol=1e-3, atol=1e-7)


# Memory and threads


def places() -> dict[str, Callable[[Tensor], Tensor]]:
    def apart(x: Tensor) -> Tensor:
        return torch.stack([x, x], 1)[:, 0]

    return {
        "columns": lambda x: torch.cat([x, x], 1)[:, : x.shape[1]],
        "offset": lambda x: torch.cat([x[:1], x])[1:],
        "every second": apart,
        "transposed": lambda x: x.T.contiguous().T,
        "backwards": lambda x: x.flip(1).flip(1),
        "parameter": nn.Parameter,
    }


@pytest.mark.parametrize("place", places())
def test_logits_lie_anywhere(place: str) -> None:
    logits, target = some_logits(9, 10), some_target(9, 10)
    given = places()[place](logits).detach().requires_grad_()
    loss = F.cross_entropy(given, target)
    loss.backward()
    exact_loss, exact_gradient = expected(logits, target)
    assert_near(loss, exact_loss)
    assert_near(given.grad, 2 * exact_gradient)


def test_labels_and_weights_lie_anywhere() -> None:
    logits, target = some_logits(9, 10), some_target(9, 10, ignored=False)
    apart = MixedTarget(*(torch.stack([part, part], 1)[:, 1] for part in target))
    for got, exact in zip(loss_and_gradient(logits, apart), expected(logits, target), strict=True):
        assert_near(got, exact)
    same = MixedTarget(torch.tensor(3).expand(9), torch.tensor(4).expand(9), 0.7)
    for got, exact in zip(loss_and_gradient(logits, same), expected(logits, same), strict=True):
        assert_near(got, exact)


def test_one_row_may_be_seen_many_times() -> None:
    row, target = some_logits(1, 10).requires_grad_(), some_target(9, 10)
    F.cross_entropy(row.expand(9, 10), target).backward()
    assert_near(row.grad, 2 * expected(row.expand(9, 10), target)[1].sum(0, keepdim=True))


def test_no_result_depends_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "WORTH_A_THREAD", 1)
    logits, target = some_logits(37, 129), some_target(37, 129)
    for reduction in REDUCTIONS:
        results = []
        for count in (1, 2, 3, 8):
            torch.set_num_threads(count)
            results.append(loss_and_gradient(logits, target, reduction=reduction, label_smoothing=0.1))
        for loss, gradient in results[1:]:
            assert torch.equal(loss, results[0][0])
            assert torch.equal(gradient, results[0][1])


def test_many_threads_leave_whole_weights_to_torch_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "WORTH_A_THREAD", 1)
    torch.set_num_threads(2)
    own, other = torch.randint(10, (2, 30), generator=generator())
    loss, _ = loss_and_gradient(some_logits(30, 10), MixedTarget(own, other, 1.0))
    assert torch.equal(loss, F.cross_entropy(some_logits(30, 10), own))


# Autograd


def test_a_step_is_fused_forward_and_backward(calls: list[str]) -> None:
    logits, target = some_logits(9, 10).requires_grad_(), some_target(9, 10)
    nn.CrossEntropyLoss(label_smoothing=0.1)(logits, target).backward()
    assert calls == ["cross_entropy", "_gradient"]


def test_the_graph_can_be_used_twice_and_gradients_add_up() -> None:
    logits, target = some_logits(9, 10).requires_grad_(), some_target(9, 10)
    loss = F.cross_entropy(logits, target)
    loss.backward(retain_graph=True)
    first = logits.grad.clone()
    loss.backward()
    assert torch.equal(logits.grad, 2 * first)


def test_a_second_derivative_comes_from_plain_operations(calls: list[str]) -> None:
    logits, target = some_logits(9, 10).requires_grad_(), some_target(9, 10)
    (gradient,) = torch.autograd.grad(F.cross_entropy(logits, target), logits, create_graph=True)
    gradient.square().sum().backward()
    exact = some_logits(9, 10).double().requires_grad_()
    (exact_gradient,) = torch.autograd.grad(reference.cross_entropy(exact, *target), exact, create_graph=True)
    exact_gradient.square().sum().backward()
    assert_near(gradient.detach(), exact_gradient.detach())
    assert_near(logits.grad, exact.grad)
    assert calls == ["cross_entropy", "gradient_in_steps"]


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("value", [float("nan"), INF, -INF])
def test_a_row_that_does_not_count_and_has_no_softmax_is_as_in_torch(
    value: float, label_smoothing: float
) -> None:
    labels, other = torch.tensor([1, IGNORED, 2]), torch.tensor([2, IGNORED, 0])
    results = []
    for target in (labels, MixedTarget(labels, other, 0.3)):
        for create_graph in (False, True):
            logits = some_logits(3, 5)
            logits[1] = value
            loss = F.cross_entropy(logits.requires_grad_(), target, label_smoothing=label_smoothing)
            (gradient,) = torch.autograd.grad(loss, logits, create_graph=create_graph)
            results.append((loss.isfinite().item(), gradient.isnan().tolist()))
    assert all(result == results[0] for result in results)


def test_logits_that_overlap_have_the_gradient_of_those_that_do_not(calls: list[str]) -> None:
    memory, target = some_logits(1, 300)[0], some_target(9, 10)
    exact = expected(memory.unfold(0, 10, 1)[:9], target)[1]
    for logits in (memory.unfold(0, 10, 1)[:9], memory.unfold(0, 10, 1)[:9].contiguous()):
        assert_near(loss_and_gradient(logits, target)[1], exact)
    same = memory[:10].expand(9, 10)
    assert_near(loss_and_gradient(same, target)[1], expected(same, target)[1])
    assert calls == ["cross_entropy", "_gradient"] * 3


def test_several_gradients_at_once_come_from_plain_operations(calls: list[str]) -> None:
    logits, target = some_logits(9, 10).requires_grad_(), some_target(9, 10)
    loss = F.cross_entropy(logits, target, reduction="none")
    (batched,) = torch.autograd.grad(loss, logits, torch.eye(9), is_grads_batched=True, retain_graph=True)
    one_by_one = [torch.autograd.grad(loss, logits, row, retain_graph=True)[0] for row in torch.eye(9)]
    torch.testing.assert_close(batched, torch.stack(one_by_one))
    assert calls == ["cross_entropy", "gradient_in_steps", *["_gradient"] * 9]


def test_logits_overwritten_before_the_backward_pass_are_an_error() -> None:
    leaf, target = some_logits(9, 10).requires_grad_(), some_target(9, 10)
    logits = leaf * 1
    loss = F.cross_entropy(logits, target)
    logits.detach().zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_what_is_saved_may_be_moved_by_hooks() -> None:
    target, exact = some_target(9, 10), expected(some_logits(9, 10), some_target(9, 10))[1]
    logits = some_logits(9, 10).requires_grad_()
    with torch.autograd.graph.save_on_cpu():
        loss = F.cross_entropy(logits, target)
    loss.backward()
    assert_near(logits.grad, 2 * exact)
    logits = some_logits(9, 10).requires_grad_()
    turned = lambda x: x.T.contiguous().T if x.dim() == 2 else x.clone()  # noqa: E731
    with torch.autograd.graph.saved_tensors_hooks(turned, lambda x: x):
        loss = F.cross_entropy(logits, target)
    loss.backward()
    assert_near(logits.grad, 2 * exact)


def test_without_a_gradient_the_loss_is_the_same() -> None:
    logits, target = some_logits(9, 10), some_target(9, 10)
    loss, _ = loss_and_gradient(logits, target)
    assert torch.equal(F.cross_entropy(logits, target), loss)
    with torch.inference_mode():
        assert torch.equal(F.cross_entropy(logits.clone(), target), loss)
    with torch.no_grad():
        assert not F.cross_entropy(logits.requires_grad_(), target).requires_grad


# Where torch has to see each operation


class Seen(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


class Kind(Tensor):
    """A subclass, as fastai's."""


LOGITS = some_logits(9, 10)
TARGET = some_target(9, 10, ignored=False)


def forward_mode() -> Tensor:
    tangent = torch.autograd.forward_ad
    with tangent.dual_level():
        loss = F.cross_entropy(tangent.make_dual(LOGITS, torch.ones(9, 10)), TARGET)
        assert tangent.unpack_dual(loss).tangent.abs() < 1e-6  # all logits moved alike change nothing
        return tangent.unpack_dual(loss).primal


def seen_by_a_mode() -> Tensor:
    with Seen():
        return F.cross_entropy(LOGITS, TARGET)


ASIDE: dict[str, Callable[[], Tensor]] = {
    "class weights": lambda: F.cross_entropy(LOGITS, TARGET, weight=torch.ones(10)),
    "subclass": lambda: F.cross_entropy(LOGITS.as_subclass(Kind), TARGET).as_subclass(Tensor),
    "int32 labels": lambda: F.cross_entropy(LOGITS, TARGET.to(torch.int32)),
    "places": lambda: F.cross_entropy(LOGITS.unsqueeze(2), TARGET.view(-1, 1)),
    "soft labels": lambda: F.cross_entropy(LOGITS, TARGET.map(lambda y: F.one_hot(y, 10).float())),
    "transposed": lambda: F.cross_entropy(LOGITS.T.contiguous().T, TARGET),
    "mode": seen_by_a_mode,
    "forward mode": forward_mode,
    "torch.func": lambda: torch.func.grad_and_value(lambda x: F.cross_entropy(x, TARGET))(LOGITS)[1],
    "vmap": lambda: torch.func.vmap(lambda x: F.cross_entropy(x, TARGET))(LOGITS.unsqueeze(0))[0],
    "jacrev": lambda: (
        torch.func.jacrev(lambda x: F.cross_entropy(x, TARGET), has_aux=False)(LOGITS).sum() * 0
        + F.cross_entropy(LOGITS.double(), TARGET.map(torch.Tensor.int)).float()
    ),
}


@pytest.mark.parametrize("case", ASIDE)
def test_it_steps_aside(case: str, calls: list[str]) -> None:
    loss = ASIDE[case]()
    assert calls == []
    assert_near(loss, expected(LOGITS, TARGET)[0])


def test_a_weight_that_learns_gets_its_gradient(calls: list[str]) -> None:
    lam = TARGET.lam.clone().requires_grad_()
    F.cross_entropy(LOGITS, MixedTarget(TARGET.a, TARGET.b, lam), reduction="sum").backward()
    each = -LOGITS.log_softmax(1)
    rows = torch.arange(9)
    inside = (lam > 0) & (lam < 1)  # at the ends a weight of 0 is no operation
    difference = each[rows, TARGET.a] - each[rows, TARGET.b]
    torch.testing.assert_close(lam.grad[inside], difference[inside])
    assert calls == []


def test_tracing_sees_the_plain_operations() -> None:
    plain = torch.fx.experimental.proxy_tensor.make_fx(lambda x: F.cross_entropy(x, TARGET))(LOGITS)
    assert "log_softmax" in plain.code


def test_compiled_code_is_torchs(calls: list[str]) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: F.cross_entropy(x, TARGET), fullgraph=True, backend="aot_eager")
    assert_near(compiled(LOGITS), expected(LOGITS, TARGET)[0])
    assert calls == []


# Errors


@pytest.mark.parametrize("wrong", [10, -1, 1 << 40])
@pytest.mark.parametrize("place", ["a", "b"])
@pytest.mark.parametrize("own", [0.5, 1.0])
def test_a_label_that_is_no_class_is_torchs_error(place: str, wrong: int, own: float) -> None:
    labels = {"a": torch.tensor([1, 2]), "b": torch.tensor([3, 4])}
    labels[place][1] = wrong
    target = MixedTarget(labels["a"], labels["b"], own)
    for count in (1, 2):
        torch.set_num_threads(count)
        with pytest.raises(IndexError, match=f"Target {wrong} is out of bounds"):
            F.cross_entropy(LOGITS[:2].clone().requires_grad_(), target)


def test_labels_overwritten_behind_autograds_back_write_nothing_elsewhere() -> None:
    logits, labels = some_logits(9, 10).requires_grad_(), TARGET.a.clone()
    loss = F.cross_entropy(logits, MixedTarget(labels, TARGET.b, 0.5))
    labels.data.fill_(1 << 40)
    loss.backward()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize(
    "parts",
    [
        (LOGITS, TARGET.a[:8], TARGET.b, TARGET.lam),
        (LOGITS, TARGET.a, TARGET.b[:8], TARGET.lam),
        (LOGITS, TARGET.a, TARGET.b, TARGET.lam[:8]),
        (LOGITS[:8], *TARGET),
        (LOGITS, TARGET.a, TARGET.b, TARGET.lam.double()),
        (LOGITS.long(), *TARGET),
        (LOGITS.to("meta"), *TARGET),
        (LOGITS.to_sparse(), *TARGET),
        (torch._neg_view(LOGITS), *TARGET),
        (LOGITS, TARGET.a, TARGET.b, torch._neg_view(TARGET.lam)),
        (LOGITS[:, :0], *TARGET),
    ],
)
def test_what_cannot_be_read_in_memory_is_not_taken(parts: tuple[Tensor, ...]) -> None:
    assert fused.can_fuse(LOGITS, *TARGET)
    assert not fused.can_fuse(*parts)


@pytest.mark.parametrize(("reduction", "label_smoothing"), [("median", 0.0), ("mean", -0.1), ("mean", 1.5)])
def test_options_of_another_kind_are_left_to_the_plain_path(reduction: str, label_smoothing: float) -> None:
    assert not fused.can_fuse(LOGITS, *TARGET, None, IGNORED, reduction, label_smoothing)


def test_without_numba_the_plain_operations_do_it() -> None:
    code = (
        "import sys; sys.modules['numba'] = None; import torch; import batchmix as bm;"
        "from torch.nn import functional as F; from batchmix.kernels import cross_entropy as fused;"
        "x = torch.zeros(4, 10, requires_grad=True); y = torch.arange(4);"
        "target = bm.MixedTarget(y, y.flip(0), 0.7);"
        "assert not fused.can_fuse(x, *target); loss = F.cross_entropy(x, target); loss.backward();"
        "print(round(float(loss), 4))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert ran.stdout.strip() == "2.3026", ran.stderr
