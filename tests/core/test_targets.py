from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

import reference
from batchmix import MixedTarget, MixError, MixPlan, expected_accuracy, mixed_loss
from refusals import assert_named

A, B = torch.tensor([3, 1, 0, 2]), torch.tensor([1, 3, 2, 2])
LAM = torch.tensor([0.75, 0.25, 0.5, 1.0])


def ids() -> MixedTarget:
    return MixedTarget(A, B, LAM)


def tokens() -> MixedTarget:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randint(5, (2, 4, 3), generator=generator)
    return MixedTarget(a, b, LAM)


def soft() -> MixedTarget:
    generator = torch.Generator().manual_seed(1)
    a, b = torch.rand(2, 4, 5, generator=generator).softmax(-1)
    return MixedTarget(a, b, LAM)


def assert_same(target: MixedTarget, a: Tensor, b: Tensor, lam: Tensor) -> None:
    assert isinstance(target, MixedTarget)
    for part, expected in zip(target, (a, b, lam), strict=True):
        assert part.dtype == expected.dtype
        assert torch.equal(part, expected)


def test_a_target_unpacks_and_has_the_shape_of_a_batch() -> None:
    a, b, lam = target = tokens()
    assert_same(target, a, b, lam)
    assert (len(target), target.shape, target.dtype, target.device.type) == (4, (4, 3), torch.int64, "cpu")


def test_one_number_is_the_weight_of_every_target() -> None:
    for one in (0.25, torch.tensor(0.25), torch.tensor(0.25, dtype=torch.float64)):
        assert_same(MixedTarget(A, B, one), A, B, torch.full((4,), 0.25))


def test_lam_stays_float32_whatever_the_targets_are() -> None:
    for dtype in (torch.uint8, torch.float16, torch.bfloat16, torch.float64):
        assert MixedTarget(A.to(dtype), B.to(dtype), LAM.double()).lam.dtype == torch.float32


@pytest.mark.parametrize("whole", [1.0, 1])
def test_a_number_goes_where_the_targets_are(whole: float) -> None:
    assert MixedTarget(A.to("meta"), B.to("meta"), whole).lam.device.type == "meta"


class NoCopies(TorchDispatchMode):
    """Fails on a copy to another device, for which a GPU makes the host wait."""

    def __torch_dispatch__(
        self, func: object, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default:
            assert result.device == args[0].device
        return result


def test_a_number_is_not_copied_to_a_gpu() -> None:
    with FakeTensorMode(), NoCopies():
        labels, logits = torch.empty(4, dtype=torch.int64, device="cuda"), torch.empty(4, 5, device="cuda")
        target = MixedTarget(labels, labels, 0.75)
        assert torch.cat([target, labels]).lam.device.type == "cuda"
        assert expected_accuracy(logits, labels).device.type == "cuda"


def test_from_plan_pairs_targets_as_blend_pairs_samples() -> None:
    plan = MixPlan(torch.tensor([1, 2, 3, 0]), LAM)
    assert_same(MixedTarget.from_plan(A, plan), A, A[[1, 2, 3, 0]], LAM)


@pytest.mark.parametrize("target", [ids(), tokens()], ids=["B", "BxT"])
def test_dense_is_the_oracles(target: MixedTarget) -> None:
    dense = target.dense(5)
    assert dense.dtype == torch.float32
    assert dense.shape == (*target.shape, 5)
    torch.testing.assert_close(dense.double(), reference.dense(*target, 5), rtol=0, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_dense_takes_small_integers(dtype: torch.dtype) -> None:
    assert torch.equal(ids().to(dtype).dense(4), ids().dense(4))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_dense_of_soft_labels_is_their_mix(dtype: torch.dtype) -> None:
    a, b, lam = target = soft().to(dtype)
    rows = lam.double().unsqueeze(1)
    dense = target.dense(5)
    assert (dense.shape, dense.dtype) == ((4, 5), dtype)
    expected = (rows * a.double() + (1 - rows) * b.double()).to(dtype)
    torch.testing.assert_close(dense, expected, rtol=2e-7 if dtype != torch.float16 else 1e-3, atol=0)


@pytest.mark.parametrize(
    ("target", "classes"),
    [(ids(), 3), (MixedTarget(A - 1, B, LAM), 9), (soft(), 4), (ids().map(Tensor.float), 4)],
)
def test_dense_names_the_number_of_classes_that_does_not_fit(target: MixedTarget, classes: int) -> None:
    with pytest.raises(MixError, match=f"^num_classes takes .*, got {classes}$"):
        target.dense(classes)


def test_dominant_has_the_larger_weight() -> None:
    assert ids().dominant.tolist() == [3, 3, 0, 2]
    assert torch.equal(soft().dominant, torch.stack([soft().a[0], soft().b[1], soft().a[2], soft().a[3]]))


@pytest.mark.parametrize("target", [ids(), tokens()], ids=["B", "BxT"])
def test_expected_accuracy_is_the_oracles(target: MixedTarget) -> None:
    logits = torch.randn(4, 5, *target.shape[1:], generator=torch.Generator().manual_seed(2))
    earned = reference.expected_accuracy(logits, *target)
    assert 0 < earned < 1
    assert float(target.expected_accuracy(logits)) == pytest.approx(earned, abs=1e-6)
    assert float(expected_accuracy(logits, target)) == pytest.approx(earned, abs=1e-6)


@pytest.mark.parametrize(("dtype", "ignored"), [(torch.int64, -100), (torch.uint8, 255)], ids=str)
def test_ignored_labels_count_nothing_as_in_the_loss(dtype: torch.dtype, ignored: int) -> None:
    """The own label of one place, the partner's of the next, both of the last."""
    a, b, lam = tokens()
    a[0, 0] = b[0, 1] = a[1, 2] = b[1, 2] = ignored
    target = MixedTarget(a, b, lam).to(dtype)
    logits = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(2))
    guess, rows = logits.argmax(1), lam.unsqueeze(1).expand(4, 3)
    earned = (rows * (guess == a) + (1 - rows) * (guess == b)).sum()
    counted = (rows * (a != ignored) + (1 - rows) * (b != ignored)).sum()
    for got in (
        target.expected_accuracy(logits, ignore_index=ignored),
        expected_accuracy(logits, target, ignore_index=ignored),
    ):
        torch.testing.assert_close(got, earned / counted)
    dense = target.dense(5, ignore_index=ignored)
    torch.testing.assert_close(dense.sum(-1).sum(), counted)
    torch.testing.assert_close(
        F.cross_entropy(logits, dense.movedim(-1, 1), reduction="none"),
        F.cross_entropy(logits, target, reduction="none", ignore_index=ignored),
    )


def test_dense_does_not_wait_for_a_gpu() -> None:
    with FakeTensorMode():  # has no values to give, and needs no GPU
        labels = torch.empty(4, dtype=torch.int64, device="cuda")
        dense = MixedTarget(labels, labels, torch.empty(4, device="cuda")).dense(5)
        assert (dense.device.type, dense.shape) == ("cuda", (4, 5))


def test_what_is_ignored_by_default_is_what_torch_ignores() -> None:
    logits = F.one_hot(torch.tensor([3, 1, 2, 2]), 5).float()
    labels = torch.tensor([3, -100, -100, 1])
    assert float(expected_accuracy(logits, labels)) == 0.5
    assert MixedTarget(labels, labels, 1.0).dense(5).sum(1).tolist() == [1, 0, 0, 1]


def test_one_logit_has_no_largest_one() -> None:
    logit, labels = torch.tensor([[3.0], [3.0], [-3.0], [3.0]]), torch.tensor([1, 1, 0, 1])
    for call in (
        lambda: expected_accuracy(logit, labels),
        lambda: MixedTarget(labels, labels, 1.0).expected_accuracy(logit),
    ):
        with pytest.raises(MixError, match=r"^logits takes two classes or more for an accuracy, .*, got f"):
            call()
    assert float(expected_accuracy(torch.cat([-logit, logit], 1), labels)) == 1


def test_expected_accuracy_of_plain_labels_is_the_accuracy() -> None:
    logits = F.one_hot(torch.tensor([3, 1, 2, 2]), 5).float()
    assert float(expected_accuracy(logits, A)) == 0.75
    assert float(MixedTarget(A, B, 1.0).expected_accuracy(logits)) == 0.75


@pytest.mark.parametrize(
    "index", [slice(1, 3), slice(None, None, 2), [2, 0], torch.tensor([3, 3, 1]), LAM > 0.4]
)
@pytest.mark.parametrize("make", [ids, tokens, soft])
def test_indexing_takes_samples_with_their_weights(make: object, index: object) -> None:
    a, b, lam = make()
    assert_same(make()[index], a[index], b[index], lam[index])


def test_one_sample_and_places_of_samples_can_be_taken() -> None:
    a, b, lam = tokens()
    assert_same(tokens()[2], a[2], b[2], lam[2].expand(3))
    assert_same(tokens()[:, 1], a[:, 1], b[:, 1], lam)
    assert_same(tokens()[1:, :2], a[1:, :2], b[1:, :2], lam[1:])
    assert_same(ids()[3], A[3], B[3], LAM[3])


@pytest.mark.parametrize("index", [None, ..., torch.ones(4, 3, dtype=torch.bool), (..., 0)], ids=repr)
def test_an_index_that_loses_the_samples_is_refused(index: object) -> None:
    with pytest.raises(MixError, match=r"^index takes "):
        tokens()[index]


@pytest.mark.parametrize("make", [ids, tokens, soft])
@pytest.mark.parametrize(
    "cut",
    [
        lambda batch: batch.split(3),
        lambda batch: batch.split([1, 3]),
        lambda batch: batch.chunk(2),
        lambda batch: batch.chunk(9),
        lambda batch: torch.split(batch, 3),
        lambda batch: torch.chunk(batch, 2, dim=0),
    ],
    ids=range(6),
)
def test_micro_batches_are_cut_as_of_a_tensor(
    make: Callable[[], MixedTarget], cut: Callable[[object], tuple[MixedTarget, ...]]
) -> None:
    parts = cut(make())
    assert isinstance(parts, tuple)
    for part, a, b, lam in zip(parts, *map(cut, make()), strict=True):
        assert_same(part, a, b, lam)


def test_micro_batches_lose_together_what_the_batch_loses() -> None:
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(3))
    parts = zip(logits.split(3), ids().split(3), strict=True)
    summed = sum(F.cross_entropy(output, target, reduction="sum") for output, target in parts)
    torch.testing.assert_close(summed, F.cross_entropy(logits, ids(), reduction="sum"))


@pytest.mark.parametrize("cut", [lambda y: y.split(2, 1), lambda y: torch.chunk(y, 2, -1)], ids=range(2))
def test_samples_are_not_cut_in_parts(cut: Callable[[MixedTarget], object]) -> None:
    with pytest.raises(MixError, match=r"^dim takes 0, that of the samples, got -?1$"):
        cut(tokens())


def test_view_flattens_with_the_weight_of_the_sample() -> None:
    a, b, lam = tokens()
    assert_same(tokens().view(-1), a.view(-1), b.view(-1), lam.repeat_interleave(3))
    assert_same(tokens().view(4, 3, 1), a.view(4, 3, 1), b.view(4, 3, 1), lam)


def test_the_reshape_of_a_top_k_accuracy_is_told_what_to_take() -> None:
    for reshape in (lambda y: y.view(1, -1), lambda y: y[None]):
        with pytest.raises(MixError, match=r" samples .*, got .*: for a metric take expected_accuracy"):
            reshape(ids())


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_flattened_tokens_lose_as_much_as_tokens_in_place(reduction: str) -> None:
    logits = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(3))
    flat = F.cross_entropy(logits.view(-1, 5), tokens().view(-1), reduction=reduction)
    torch.testing.assert_close(flat, F.cross_entropy(logits.movedim(-1, 1), tokens(), reduction=reduction))
    exact = reference.cross_entropy(logits.movedim(-1, 1), *tokens(), reduction=reduction)
    torch.testing.assert_close(flat.double(), exact, rtol=1e-6, atol=1e-6)


def test_to_moves_all_and_casts_the_targets_alone() -> None:
    cast = soft().to(torch.float16)
    assert (cast.a.dtype, cast.b.dtype, cast.lam.dtype) == (torch.float16, torch.float16, torch.float32)
    moved = soft().to("meta", dtype=torch.float64, non_blocking=True)
    assert {part.device.type for part in moved} == {"meta"}
    assert [part.dtype for part in moved] == [torch.float64, torch.float64, torch.float32]


@pytest.mark.parametrize(
    "move", [lambda target: target.cpu(), lambda target: target.cuda("meta", non_blocking=True)]
)
def test_a_target_moves_by_the_names_of_a_tensor(move: Callable[[MixedTarget], MixedTarget]) -> None:
    """A loop that calls ``y.cuda(non_blocking=True)``; any device will do to test it."""
    moved = move(soft())
    assert len({part.device for part in moved}) == 1
    assert moved.shape == soft().shape


@pytest.mark.gpu
def test_a_target_moves_to_the_current_gpu() -> None:
    assert {part.device for part in ids().cuda(non_blocking=True)} == {torch.zeros(1).cuda().device}
    assert_same(ids().cuda(0).cpu(), *ids())


def test_batches_are_put_together_with_plain_ones_too() -> None:
    one, plain = (
        MixedTarget(torch.tensor([0, 1]), torch.tensor([2, 0]), torch.tensor([0.7, 0.6])),
        torch.tensor([4]),
    )
    a, b, lam = torch.cat([one, plain, one[:1]])
    assert a.tolist() == [0, 1, 4, 0]
    assert b.tolist() == [2, 0, 4, 2]
    torch.testing.assert_close(lam, torch.tensor([0.7, 0.6, 1.0, 0.7]))
    parts = torch.concat(one.split(1), dim=-1)
    assert all(map(torch.equal, parts, one))
    with pytest.raises(MixError, match=r"^dim takes 0, that of the samples, got 1$"):
        torch.cat([one, one], dim=1)


def test_a_target_answers_what_is_asked_of_a_tensor() -> None:
    y = MixedTarget(torch.rand(3, 5), torch.rand(3, 5), torch.rand(3).requires_grad_())
    assert (y.ndim, y.numel(), y.is_floating_point()) == (2, 15, True)
    assert not MixedTarget(torch.tensor([0]), torch.tensor([1]), 0.5).is_floating_point()
    assert not y.detach().lam.requires_grad
    copied = y.clone()
    assert all(map(torch.equal, copied, y))
    assert {part.data_ptr() for part in copied}.isdisjoint(part.data_ptr() for part in y)
    across = MixedTarget(y.a.t().contiguous().t(), y.b, y.lam)
    assert across.contiguous().a.is_contiguous()
    assert torch.equal(across.contiguous().a, y.a)


def test_map_changes_both_targets_and_keeps_lam() -> None:
    assert_same(tokens().map(lambda y: y[:, 0] + 1), tokens().a[:, 0] + 1, tokens().b[:, 0] + 1, LAM)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))])
def test_a_target_can_be_copied_and_pickled(copied: object) -> None:
    assert_same(copied(tokens()), *tokens())


@pytest.mark.parametrize("other", [np.array([0, 1]), np.int64(255), [0, 1], (0, 1), 3, torch.tensor(1)])
def test_labels_are_not_compared_with_two_labels_in_silence(other: object) -> None:
    for compare in (lambda: ids() == other, lambda: ids() != other):
        with pytest.raises(MixError, match=r"^== takes tensors, got a MixedTarget"):
            compare()
    assert ids() != "another thing"


def test_repr_reads_as_a_mix() -> None:
    assert repr(ids()[:2]) == "MixedTarget([0.75 of 3 + 0.25 of 1, 0.25 of 1 + 0.75 of 3])"
    assert repr(tokens()) == "MixedTarget(int64 tensor (4, 3), lam from 0.25 to 1.00)"
    assert "\n" not in repr(MixedTarget(torch.arange(100), torch.arange(100), 0.5))
    assert repr(ids().to("meta")) == "MixedTarget(int64 tensor (4,) on meta)"


class Rows(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> int:
        return index


def collate_pairs(indices: list[int]) -> tuple[Tensor, MixedTarget]:
    y = torch.tensor(indices)
    return y.float(), MixedTarget(y, y.flip(0), torch.linspace(0.5, 1, len(y)))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine of one core
def test_a_worker_hands_a_target_over_whole() -> None:
    loader = DataLoader(Rows(), 4, num_workers=2, collate_fn=collate_pairs)
    for start, (_, target) in zip((0, 4), loader, strict=True):
        y = torch.arange(start, start + 4)
        assert_same(target, y, y.flip(0), torch.linspace(0.5, 1, 4))


@pytest.mark.gpu
def test_a_target_is_pinned_by_the_loader() -> None:
    loader = DataLoader(Rows(), 4, collate_fn=collate_pairs, pin_memory=True)
    for _, target in loader:
        assert isinstance(target, MixedTarget)
        assert all(part.is_pinned() for part in target)
        assert target.to("cuda", non_blocking=True).lam.is_cuda


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("a", lambda: MixedTarget([1, 2], B, 0.5)),
        ("b", lambda: MixedTarget(A, None, 0.5)),
        ("b", lambda: MixedTarget(A, B[:3], 0.5)),
        ("b", lambda: MixedTarget(A, B.float(), 0.5)),
        ("b", lambda: MixedTarget(A, B.to("meta"), 0.5)),
        ("lam", lambda: MixedTarget(A, B, LAM[:3])),
        ("lam", lambda: MixedTarget(A, B, np.float32(1.5))),
        ("lam", lambda: MixedTarget(A, B, LAM.view(4, 1))),
        ("lam", lambda: MixedTarget(A.to("meta"), B.to("meta"), LAM)),
        *(
            ("lam", lambda lam=lam: MixedTarget(A, B, lam))
            for lam in ("a", None, 2.0, -0.1, float("nan"), {})
        ),
        ("plan", lambda: MixedTarget.from_plan(A, None)),
        *(("num_classes", lambda given=given: ids().dense(given)) for given in ("10", 10.0, None)),
        ("num_classes", lambda: soft().dense("5")),
        ("y", lambda: MixedTarget.from_plan(A[:3], MixPlan.identity(4))),
        ("y", lambda: MixedTarget.from_plan(A[0], MixPlan.identity(4))),
        ("y", lambda: MixedTarget.from_plan([0, 1, 2, 3], MixPlan.identity(4))),
        ("y", lambda: MixedTarget.from_plan(A.to("meta"), MixPlan.identity(4))),
        ("target", lambda: soft().expected_accuracy(torch.zeros(4, 5))),
        ("logits", lambda: ids().expected_accuracy(torch.zeros(3, 5))),
        ("logits", lambda: tokens().expected_accuracy(torch.zeros(4, 5))),
    ],
)
def test_a_wrong_argument_is_named_in_one_line(argument: str, call: Callable[[], object]) -> None:
    assert_named(argument, call)


def test_what_models_call_on_labels_before_a_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, 4, 3, generator=generator)
    target = MixedTarget(a, b, torch.tensor([0.5, 0.6, 0.7, 1.0]))
    for changed, expected in (
        (target.unsqueeze(1), a.unsqueeze(1)),
        (target.unsqueeze(1).squeeze(1), a),
        (target.unsqueeze(-1).squeeze(), a),
        (target.reshape(4, 3, 1), a.reshape(4, 3, 1)),
        (target.long(), a.long()),
        (target.long().float(), a.long().float()),
    ):
        assert torch.equal(changed.a, expected)
        assert torch.equal(changed.lam, target.lam)
    flat = target.flatten()
    assert torch.equal(flat.a, a.flatten())
    assert torch.equal(flat.lam, target.lam.repeat_interleave(3))
    assert (target.size(), target.size(0), target.size(-1), target.dim()) == (a.size(), 4, 3, 2)
    with pytest.raises(MixError, match=r"^dim takes "):
        target.unsqueeze(0)


def test_the_places_of_a_lone_sample_have_its_weight() -> None:
    a, b, _ = tokens()
    for squeezed in (tokens()[:1].squeeze(), tokens()[:1].squeeze(0)):
        assert_same(squeezed, a[0], b[0], torch.full((3,), 0.75))


@pytest.mark.parametrize("size", [1, 4])
def test_a_regression_head_squeezes_output_and_target_to_any_size(size: int) -> None:
    """What Hugging Face's heads do; of a batch of one, a lone number is left."""
    a, b = torch.rand(2, size, 1, generator=torch.Generator().manual_seed(0))
    target, output = MixedTarget(a, b, torch.linspace(0.5, 1, size)), torch.zeros(size, 1)
    expected = F.mse_loss(output, target)
    torch.testing.assert_close(F.mse_loss(output.squeeze(), target.squeeze()), expected)
    torch.testing.assert_close(
        mixed_loss(torch.nn.L1Loss(), output.squeeze(), target.squeeze()), F.l1_loss(output, target)
    )
    squared = mixed_loss(lambda output, y: (output - y) ** 2, output.squeeze(), target.squeeze())
    torch.testing.assert_close(squared.mean(), expected)


@pytest.mark.parametrize(
    "compare", [lambda y: y == 3, lambda y: y != 255, lambda y: y == A, lambda y: A.eq(y)], ids=range(4)
)
def test_labels_of_two_are_not_compared_in_silence(compare: Callable[[MixedTarget], object]) -> None:
    with pytest.raises(MixError, match=r"^(==|eq) takes tensors, got a MixedTarget: .*mixed_loss\(loss_fn"):
        compare(ids())
    assert ids() not in (None, ids(), "y")


@pytest.mark.parametrize(
    ("loss", "sign"),
    [
        (lambda y: -y * A, "-"),
        (lambda y: 1 - y, "-"),
        (lambda y: y - 1, "-"),
        (lambda y: 0.9 * y + 0.1, r"\*"),
        (lambda y: A * y, "mul"),
        (lambda y: y / 2, "/"),
        (lambda y: (y**2).sum(), r"\*\*"),
        (lambda y: y > 0, ">"),
        (lambda y: y >= 0, ">="),
        (lambda y: y + 1, r"\+"),
        (lambda y: 1 + y, r"\+"),
        (lambda y: y * 2, r"\*"),
        (lambda y: 1 / y, "/"),
        (lambda y: 2**y, r"\*\*"),
        (lambda y: y < 1, "<"),
        (lambda y: y <= 1, "<="),
    ],
    ids=range(16),
)
def test_a_loss_that_is_written_out_says_what_to_use(
    loss: Callable[[MixedTarget], object], sign: str
) -> None:
    with pytest.raises(MixError, match=rf"^{sign} takes tensors, got a MixedTarget: .*dense\(num_classes\)"):
        loss(ids())


@pytest.mark.parametrize("name", ["clamp", "sum", "unbind"])
def test_what_only_a_tensor_has_says_what_to_use(name: str) -> None:
    assert not hasattr(ids(), name)
    with pytest.raises(AttributeError, match=rf"^{name} takes tensors, got a MixedTarget: .*mixed_loss\("):
        getattr(ids(), name)
    with pytest.raises(AttributeError, match=r"^'MixedTarget' object has no attribute 'clamps'$"):
        ids().clamps  # noqa: B018


def test_a_pipeline_cuts_targets_as_it_cuts_tensors() -> None:
    """``torch.distributed.pipelining`` calls ``torch.tensor_split``."""
    target = MixedTarget(torch.arange(5), torch.arange(5).flip(0), torch.linspace(0.5, 1, 5))
    for cut in (3, [1, 4]):
        parts = torch.tensor_split(target, cut)
        for part, *tensors in zip(parts, *(torch.tensor_split(held, cut) for held in target), strict=True):
            assert all(torch.equal(held, tensor) for held, tensor in zip(part, tensors, strict=True))


def test_a_union_has_both_labels_where_both_have_a_weight() -> None:
    a = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.5]])
    b = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
    target = MixedTarget(a, b, torch.tensor([0.75, 1.0, 0.0]))
    assert target.union().tolist() == [[1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 1.0, 1.0]]
    with pytest.raises(MixError, match=r"^a takes floats for a union, .*, got "):
        MixedTarget(torch.tensor([1]), torch.tensor([2]), 0.5).union()
