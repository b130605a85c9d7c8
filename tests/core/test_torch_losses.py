"""Torch's losses take a MixedTarget as it stands, and give what the oracle gives."""

from __future__ import annotations

import functools

import numpy
import pytest
import torch
from loss_cases import IGNORED, Case, case_id, class_cases, class_weights, pointwise_cases, quiet, random
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import batchmix as bm
import reference
from batchmix import MixedTarget, MixError, MixUpLoss, mixed_loss
from batchmix.core import torch_losses

TOLERANCE = {torch.float64: {"rtol": 1e-12, "atol": 1e-12}, torch.float32: {"rtol": 1e-5, "atol": 1e-6}}
INF = float("inf")


def weights_of(batch_size: int) -> Tensor:
    lam = (random(batch_size, seed=5) * 256).round().float() / 256  # 1-lam is exact
    if batch_size > 3:
        lam[1], lam[2] = 1.0, 0.0
    return lam


def mixed(case: Case, dtype: torch.dtype) -> tuple[Tensor, MixedTarget]:
    target = MixedTarget(case.target(dtype, 1), case.target(dtype, 2), weights_of(case.shape[0]))
    return case.output(dtype), target


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("case", class_cases(), ids=case_id)
def test_class_losses_and_their_gradients_are_the_oracles(
    case: Case, reduction: str, dtype: torch.dtype
) -> None:
    output, target = mixed(case, dtype)
    exact = output.double().requires_grad_()
    expected = reference.cross_entropy(
        exact, *target, reduction=reduction, is_log_probs=case.function is F.nll_loss, **case.options
    )
    (expected_grad,) = torch.autograd.grad(expected.sum(), exact)
    for loss_fn in case.calls(reduction, dtype).values():
        given = output.clone().requires_grad_()
        loss = loss_fn(given, target)
        assert loss.dtype == dtype
        (grad,) = torch.autograd.grad(loss.sum(), given)
        torch.testing.assert_close(loss.double(), expected, **TOLERANCE[dtype])
        torch.testing.assert_close(grad.double(), expected_grad, **TOLERANCE[dtype])


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize(
    "case",
    [case for case in class_cases() if case.name == "cross_entropy" and len(case.shape) == 2],
    ids=case_id,
)
def test_the_plain_operations_are_right_where_nothing_is_fused(
    case: Case, reduction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_losses.fused_on_cpu, "can_fuse", lambda *parts: False)
    for dtype in (torch.float64, torch.float32):
        test_class_losses_and_their_gradients_are_the_oracles(case, reduction, dtype)


def one_by_one(case: Case, output: Tensor, target: MixedTarget) -> tuple[Tensor, float]:
    """The unreduced mixed loss, a sample at a time, and what its mean divides by."""
    options = case.given(torch.float64)
    per_place = options.pop("weight") if case.functional_only else None

    def loss_of(i: int, y: Tensor) -> Tensor:
        rows = {} if per_place is None else {"weight": per_place[i : i + 1]}
        return case.function(output[i : i + 1], y.unsqueeze(0).double(), reduction="none", **options, **rows)[
            0
        ]

    losses = reference.pair_loss(loss_of, target.a, target.b, target.lam)
    weighted_mean = per_place is not None and case.name == "mse"
    return losses, float(per_place.sum()) if weighted_mean else losses.numel()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(
    ("case", "reduction"),
    [
        pytest.param(case, reduction, id=f"{case_id(case)}-{reduction}")
        for case in pointwise_cases()
        for reduction in ("none", "mean", "sum", "batchmean")
        if reduction != "batchmean" or case.name == "kl_div"
    ],
)
def test_pointwise_losses_and_their_gradients_are_the_oracles(
    case: Case, reduction: str, dtype: torch.dtype
) -> None:
    output, target = mixed(case, dtype)
    exact = output.double().requires_grad_()
    losses, count = one_by_one(case, exact, target)
    total = losses.sum()
    expected = {
        "none": losses,
        "sum": total,
        "mean": total / count,
        "batchmean": total / case.shape[0],
    }[reduction]
    (expected_grad,) = torch.autograd.grad(expected.sum(), exact)
    for loss_fn in case.calls(reduction, dtype).values():
        given = output.clone().requires_grad_()
        loss = loss_fn(given, target)
        assert loss.dtype == dtype
        (grad,) = torch.autograd.grad(loss.sum(), given)
        torch.testing.assert_close(loss.double(), expected, **TOLERANCE[dtype])
        torch.testing.assert_close(grad.double(), expected_grad, **TOLERANCE[dtype])


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_a_gaussian_likelihood_takes_a_variance_for_each_place(reduction: str) -> None:
    output, (a, b), lam = random(6, 5), (random(6, 5, seed=seed) for seed in (1, 2)), weights_of(6)
    var = (random(6, 5, seed=3) + 0.1).requires_grad_()
    rows = lam.double().unsqueeze(1)
    expected = sum(
        weight * (var.log() + (output - part) ** 2 / var) / 2 for weight, part in ((rows, a), (1 - rows, b))
    )
    expected = {"none": expected, "mean": expected.mean(), "sum": expected.sum()}[reduction]
    target = MixedTarget(a, b, lam)
    for loss_fn in (nn.GaussianNLLLoss(reduction=reduction), F.gaussian_nll_loss):
        options = {} if isinstance(loss_fn, nn.Module) else {"reduction": reduction}
        loss = loss_fn(output, target, var, **options)
        torch.testing.assert_close(loss, expected)
        grads = [torch.autograd.grad(of.sum(), var, retain_graph=True)[0] for of in (loss, expected)]
        torch.testing.assert_close(*grads)


WITH_MODULE = [case for case in pointwise_cases() if not case.functional_only]


@pytest.mark.parametrize("case", [*class_cases()[:8], *WITH_MODULE], ids=case_id)
def test_the_wrapped_module_gives_what_the_function_gives(case: Case) -> None:
    output, target = mixed(case, torch.float32)
    forms = case.calls("mean", torch.float32)
    wrapped = quiet(MixUpLoss(case.module(**case.given(torch.float32))))
    assert torch.equal(wrapped(output, target), forms["functional"](output, target))
    assert torch.equal(wrapped(output, target), forms["module"](output, target))


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"weight": class_weights(5)}], ids=list)
def test_soft_labels_are_blended(options: dict[str, object], reduction: str) -> None:
    logits, soft = 4 * random(6, 5), [random(6, 5, seed=seed).softmax(1) for seed in (1, 2)]
    target = MixedTarget(*soft, weights_of(6))
    rows = target.lam.double().unsqueeze(1)
    blended = rows * soft[0] + (1 - rows) * soft[1]
    expected = reference.soft_cross_entropy(logits, blended, reduction=reduction, **options)
    loss = F.cross_entropy(logits, target, reduction=reduction, **options)
    torch.testing.assert_close(loss, expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_pair_loss_is_the_loss_against_the_dense_target(label_smoothing: float) -> None:
    logits = 4 * random(6, 5)
    target = MixedTarget(torch.arange(6) % 5, torch.arange(6).flip(0) % 5, weights_of(6))
    pair = F.cross_entropy(logits, target, label_smoothing=label_smoothing)
    soft = F.cross_entropy(logits, target.dense(5).double(), label_smoothing=label_smoothing)
    torch.testing.assert_close(pair, soft, rtol=1e-6, atol=1e-7)


class Ops(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("options", [{}, {"weight": class_weights(5), "ignore_index": 2}], ids=list)
def test_cross_entropy_takes_one_log_softmax_and_two_gathers(options: dict[str, object]) -> None:
    target = MixedTarget(torch.arange(6) % 5, torch.arange(6).flip(0) % 5, weights_of(6))
    with Ops() as ops:
        F.cross_entropy(random(6, 5), target, **options)
    assert ops.names.count("_log_softmax") == 1
    assert ops.names.count("gather") == 2
    assert not {"one_hot", "scatter", "scatter_", "scatter_add_"} & set(ops.names)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("own", [1.0, 0.0])
def test_a_label_of_no_weight_may_be_impossible(own: float, reduction: str) -> None:
    logits = torch.tensor([[0.0, -INF, 1.0], [2.0, 0.0, -INF]]).requires_grad_()
    possible, impossible = torch.tensor([2, 0]), torch.tensor([1, 2])
    labels = (possible, impossible) if own else (impossible, possible)
    loss = F.cross_entropy(logits, MixedTarget(*labels, own), reduction=reduction)
    torch.testing.assert_close(loss, F.cross_entropy(logits, possible, reduction=reduction))
    loss.sum().backward()
    assert logits.grad.isfinite().all()


def test_a_value_of_no_weight_may_be_infinite() -> None:
    output = torch.tensor([[1.0], [2.0]])
    target = MixedTarget(torch.tensor([[0.0], [0.0]]), torch.tensor([[INF], [INF]]), 1.0)
    for loss_fn in (F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss):
        assert torch.equal(loss_fn(output, target), loss_fn(output, target.a))


@pytest.mark.parametrize("own", [1.0, 0.6])
@pytest.mark.parametrize(
    "options", [{}, {"weight": class_weights(5).float()}, {"label_smoothing": 0.1}], ids=list
)
def test_a_batch_of_ignored_labels_gives_what_torch_gives(options: dict[str, object], own: float) -> None:
    ignored = torch.full((4,), IGNORED)
    for reduction in ("none", "mean", "sum"):
        given = {**options, "ignore_index": IGNORED, "reduction": reduction}
        loss = F.cross_entropy(random(4, 5).float(), MixedTarget(ignored, ignored, own), **given)
        plain = F.cross_entropy(random(4, 5).float(), ignored, **given)
        torch.testing.assert_close(loss, plain, equal_nan=True)
        assert loss.isnan().any() == (reduction == "mean")


def test_an_ignored_label_leaves_the_other_its_weight() -> None:
    logits = random(2, 5)
    target = MixedTarget(torch.tensor([IGNORED, 1]), torch.tensor([3, 1]), torch.tensor([0.75, 0.75]))
    loss = F.cross_entropy(logits, target, ignore_index=IGNORED)
    each = -logits.log_softmax(1)
    torch.testing.assert_close(loss, (0.25 * each[0, 3] + each[1, 1]) / 1.25)


@pytest.mark.parametrize("options", [{}, {"ignore_index": 3}], ids=list)
def test_bytes_ignore_the_label_that_is_named_and_no_other(options: dict[str, int]) -> None:
    """-100, read as a byte, is 156."""
    output, labels = random(4, 200), torch.tensor([156, 3, 4, 156])
    of_bytes, of_longs = MixedTarget(labels.byte(), labels.byte(), 0.75), MixedTarget(labels, labels, 0.75)
    for loss_fn in (F.cross_entropy, F.nll_loss):
        expected = loss_fn(output, of_longs, **options)
        torch.testing.assert_close(loss_fn(output, of_bytes, **options), expected)


@pytest.mark.parametrize("loss_fn", [F.cross_entropy, F.mse_loss, F.multi_margin_loss])
def test_a_weight_that_is_learned_has_its_gradient_at_nothing_and_at_one_too(loss_fn: object) -> None:
    """For a loss a sample, that is what the two targets differ by."""
    output = random(3, 5)
    a, b = (
        (torch.tensor([0, 1, 2]), torch.tensor([3, 4, 0])) if loss_fn is not F.mse_loss else random(2, 3, 5)
    )
    lam = torch.tensor([0.0, 1.0, 0.5], requires_grad=True)
    mixed_loss(functools.partial(loss_fn, reduction="none"), output, MixedTarget(a, b, lam)).sum().backward()
    own, partners = (loss_fn(output, part, reduction="none") for part in (a, b))
    torch.testing.assert_close(lam.grad, (own - partners).view(3, -1).sum(1).float())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_half_mean_is_of_sums_that_are_not_half(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As CUDA's kernel divides: the sum may be beyond float16, and the count between two bfloat16."""
    monkeypatch.setattr(torch_losses, "_is_divided_in_float32", lambda picked: True)
    log_probs, labels = torch.full((10001, 5), -9.0, dtype=dtype), torch.arange(10001) % 5
    log_probs.requires_grad_()
    loss = F.nll_loss(log_probs, MixedTarget(labels, labels.flip(0), 0.75))
    assert (loss.dtype, loss.item()) == (dtype, 9)
    (grad,) = torch.autograd.grad(loss, log_probs)
    assert (grad.dtype, round(-grad.float().sum().item(), 2)) == (dtype, 1)


TARGET = MixedTarget(torch.tensor([0, 1]), torch.tensor([1, 0]), torch.tensor([0.7, 0.9]))
VALUES = TARGET.map(lambda part: F.one_hot(part, 3).float())


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("triplet_margin_loss", lambda: F.triplet_margin_loss(torch.ones(2, 3), torch.ones(2, 3), VALUES)),
        ("multi_margin_loss", lambda: nn.MultiMarginLoss()(torch.zeros(2, 3), TARGET)),
        ("softmax", lambda: F.softmax(VALUES, 1)),
        ("stack", lambda: torch.stack([VALUES, VALUES])),
        ("eq", lambda: torch.zeros(2) == TARGET),
        ("add", lambda: torch.zeros(2) + TARGET),
        ("numpy.asarray", lambda: numpy.array(TARGET)),
    ],
)
def test_what_has_no_meaning_for_two_targets_says_so(name: str, call: object) -> None:
    with pytest.raises(MixError) as caught:
        call()
    message = str(caught.value)
    assert name in message.split(" takes ")[0]
    assert "MixedTarget" in message
    assert "mixed_loss" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("input", lambda: F.cross_entropy(TARGET, torch.zeros(2, 3))),
        ("input", lambda: nn.MSELoss()(VALUES, torch.zeros(2, 3))),
        ("reduction", lambda: F.cross_entropy(torch.zeros(2, 3), TARGET, reduction="median")),
        ("reduction", lambda: F.mse_loss(torch.zeros(2, 3), VALUES, reduction="median")),
        ("reduction", lambda: F.cross_entropy(torch.zeros(2, 3), TARGET, size_average=False)),
        ("reduction", lambda: F.mse_loss(torch.zeros(2, 3), VALUES, reduce=False)),
        ("reduction", lambda: F.mse_loss(torch.zeros(2, 3), VALUES, reduction="batchmean")),
        ("reduction", lambda: F.nll_loss(torch.zeros(2, 3), TARGET, reduction="batchmean")),
        ("weight", lambda: F.cross_entropy(torch.zeros(2, 3), TARGET, weight=torch.ones(9))),
        ("weight", lambda: F.nll_loss(torch.zeros(2, 3), TARGET, weight=torch.ones(3, 1))),
        ("weight", lambda: F.cross_entropy(torch.zeros(2, 3), TARGET, weight=torch.ones(3).double())),
        ("label_smoothing", lambda: F.cross_entropy(torch.zeros(2, 3), TARGET, label_smoothing=2.0)),
        ("label_smoothing", lambda: F.cross_entropy(torch.zeros(2, 3), TARGET, label_smoothing=-0.1)),
        ("target", lambda: F.cross_entropy(torch.zeros(3, 3), TARGET)),
        ("target", lambda: F.mse_loss(torch.zeros(5, 3), VALUES)),
        ("target", lambda: F.mse_loss(torch.zeros(2, 1), VALUES[:, 0])),
        ("target", lambda: F.kl_div(torch.zeros(2, 3), VALUES[:, :1])),
    ],
)
def test_a_wrong_argument_is_named_in_one_line(argument: str, call: object) -> None:
    with pytest.raises(MixError) as caught:
        call()
    message = str(caught.value)
    assert message.startswith(f"{argument} takes ")
    assert "\n" not in message


@pytest.mark.parametrize("kernel", ["auto", "torch"])
@pytest.mark.parametrize("loss_fn", [F.cross_entropy, F.nll_loss])
@pytest.mark.parametrize(
    ("output", "labels"), [((2, 5, 4, 4), (2, 2, 2)), ((2, 5, 7), (2, 1)), ((4, 5), (4, 1)), ((2, 5), (2, 4))]
)
def test_fewer_or_more_labels_than_places_are_refused(output, labels, loss_fn, kernel) -> None:
    """A gather takes fewer, and the other places would learn nothing; torch refuses both."""
    ids = torch.zeros(labels, dtype=torch.int64)
    with (
        bm.kernel(kernel),
        pytest.raises(MixError, match=r"^target takes a class id for each place .* of the"),
    ):
        loss_fn(random(*output), MixedTarget(ids, ids, 0.5))
    with pytest.raises((RuntimeError, ValueError)):
        loss_fn(random(*output), ids)


def test_ignored_probabilities_are_refused_as_torch_refuses_them() -> None:
    soft = random(4, 5).softmax(1)
    for target in (soft, MixedTarget(soft, soft.flip(0), 0.5)):
        with pytest.raises(RuntimeError, match="ignore_index is not supported for floating point target"):
            F.cross_entropy(random(4, 5), target, ignore_index=3)


@pytest.mark.xfail(reason="torch 2.13 drops weight when it hands l1_loss to __torch_function__")
def test_weighted_l1_loss_keeps_its_weights() -> None:
    output, weight = random(2, 3), random(2, 3, seed=1)
    own = random(2, 3, seed=2)
    loss = F.l1_loss(output, MixedTarget(own, own, 1.0), weight=weight)
    assert torch.equal(loss, F.l1_loss(output, own, weight=weight))


@pytest.mark.parametrize("loss_fn", [F.nll_loss, nn.NLLLoss(), MixUpLoss(nn.NLLLoss())])
@pytest.mark.parametrize("shape", [(4,), (4, 5)])
def test_values_are_no_class_ids_for_a_likelihood_as_for_torchs(loss_fn: object, shape: tuple) -> None:
    values = 2 * torch.ones(shape)
    with pytest.raises(RuntimeError):
        F.nll_loss(torch.zeros(4, 5), values)
    with pytest.raises(MixError, match=r"^target takes class ids, whole numbers, for nll_loss, got float32"):
        loss_fn(torch.zeros(4, 5), MixedTarget(values, values.flip(0), 0.5))


@pytest.mark.parametrize("loss_fn", [F.cross_entropy, F.nll_loss])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_shapes_alone_have_a_loss(loss_fn: object, dtype: torch.dtype) -> None:
    with torch.device("meta"):
        output, y, lam = torch.zeros(4, 5, dtype=dtype), torch.arange(4), torch.full((4,), 0.5)
    loss = loss_fn(output, MixedTarget(y, y, lam))
    assert (loss.device.type, loss.dtype, loss.shape) == ("meta", dtype, ())


@pytest.mark.parametrize("loss_fn", [F.cross_entropy, F.nll_loss])
def test_a_device_without_autocast_has_a_loss(loss_fn: object, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*device: object) -> bool:
        raise RuntimeError("unknown device type for autocast in get_autocast_dispatch_key_from_device_type")

    output, y = random(4, 5).bfloat16(), MixedTarget(torch.arange(4), torch.arange(4).flip(0), 0.5)
    with bm.kernel("torch"):
        expected = loss_fn(output, y)
        monkeypatch.setattr(torch, "is_autocast_enabled", unknown)
        monkeypatch.setattr(torch.amp, "is_autocast_available", lambda device: False)
        assert torch.equal(loss_fn(output, y), expected)
