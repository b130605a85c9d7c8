"""Any loss, for mixed and plain targets."""

from __future__ import annotations

import copy
import dataclasses
import functools
import pickle
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import reference
from batchmix import MixedTarget, MixError, MixUpLoss, mixed_loss

LAM = torch.tensor([0.75, 1.0, 0.0, 0.375])


def logits(*shape: int) -> Tensor:
    return torch.randn(*(shape or (4, 5)), generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def target(lam: Tensor | float = LAM) -> MixedTarget:
    return MixedTarget(torch.tensor([0, 1, 2, 3]), torch.tensor([3, 2, 1, 1]), lam)


def focal(output: Tensor, y: Tensor) -> Tensor:
    """One loss a sample, not linear in the probabilities."""
    log_p = output.log_softmax(1).gather(1, y.unsqueeze(1)).squeeze(1)
    return -((1 - log_p.exp()) ** 2) * log_p


def reduced_focal(output: Tensor, y: Tensor, gamma: float = 2.0, reduction: str = "mean") -> Tensor:
    log_p = output.log_softmax(1).gather(1, y.unsqueeze(1)).squeeze(1)
    losses = -((1 - log_p.exp()) ** gamma) * log_p
    return {"none": losses, "mean": losses.mean(), "sum": losses.sum()}[reduction]


class Focal(nn.Module):
    """A user's own loss, with torch's usual attribute."""

    def __init__(self, reduction: str = "mean", fails: type[BaseException] | None = None) -> None:
        super().__init__()
        self.reduction, self.fails = reduction, fails

    def forward(self, output: Tensor, y: Tensor) -> Tensor:
        if self.fails is not None:
            raise self.fails("in the middle")
        return reduced_focal(output, y, reduction=self.reduction)


@dataclasses.dataclass
class FocalValue:
    """A callable that cannot be hashed."""

    gamma: float = 2.0

    def __call__(self, output: Tensor, y: Tensor) -> Tensor:
        return reduced_focal(output, y, self.gamma, "none")


def oracle(reduction: str = "none", lam: Tensor | float = LAM) -> Tensor:
    rows = reference.pair_loss(lambda i, y: focal(logits()[i : i + 1], y.unsqueeze(0))[0], *target(lam))
    return {"none": rows, "mean": rows.mean(), "sum": rows.sum()}[reduction]


@pytest.mark.parametrize("loss_fn", [focal, FocalValue()])
def test_a_loss_per_sample_stays_one(loss_fn: Callable[..., Tensor]) -> None:
    torch.testing.assert_close(mixed_loss(loss_fn, logits(), target()), oracle())


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize(
    "make",
    [
        lambda reduction: Focal(reduction),
        lambda reduction: functools.partial(reduced_focal, reduction=reduction),
        lambda reduction: functools.partial(functools.partial(reduced_focal, gamma=2.0), reduction=reduction),
    ],
    ids=["module", "partial", "partial of partial"],
)
def test_a_loss_is_weighed_before_it_is_reduced(make: Callable[[str], object], reduction: str) -> None:
    for loss_fn in (functools.partial(mixed_loss, make(reduction)), MixUpLoss(make(reduction))):
        torch.testing.assert_close(loss_fn(logits(), target()), oracle(reduction))


def test_the_default_of_the_reduction_argument_is_kept() -> None:
    torch.testing.assert_close(mixed_loss(reduced_focal, logits(), target()), oracle("mean"))


@pytest.mark.parametrize(
    "options",
    [
        {"label_smoothing": 0.1},
        {"reduction": "sum"},
        {"weight": torch.tensor([0.5, 1, 2, 4, 8]).double()},
        {"ignore_index": 1},
    ],
    ids=list,
)
def test_a_partial_of_torchs_loss_is_torchs_loss(options: dict[str, object]) -> None:
    loss = mixed_loss(functools.partial(F.cross_entropy, **options), logits(), target())
    torch.testing.assert_close(loss, F.cross_entropy(logits(), target(), **options))


class Unhashable:
    """As a dataclass with a loss in it is."""

    __hash__ = None

    def __call__(self, output: Tensor, y: Tensor, scale: float = 1.0) -> Tensor:
        return scale * F.cross_entropy(output, y, reduction="none")


def test_a_partial_of_what_has_no_hash_is_called_as_any_other() -> None:
    loss = mixed_loss(functools.partial(Unhashable(), scale=2.0), logits(), target())
    torch.testing.assert_close(loss, 2 * F.cross_entropy(logits(), target(), reduction="none"))


def mean_of_margins(output: Tensor, y: Tensor) -> Tensor:
    """One number, whatever is asked for."""
    return F.multi_margin_loss(output, y)


def test_one_number_is_mixed_where_one_lam_holds() -> None:
    loss = mixed_loss(mean_of_margins, logits(), target(0.75))
    expected = 0.75 * mean_of_margins(logits(), target().a) + 0.25 * mean_of_margins(logits(), target().b)
    torch.testing.assert_close(loss, expected)


def test_gradients_sample_by_sample_take_one_number() -> None:
    """``vmap`` hands each sample over by itself, and no value may be asked for."""

    def loss(output: Tensor, *parts: Tensor) -> Tensor:
        return mixed_loss(mean_of_margins, output[None], MixedTarget(*(part[None] for part in parts)))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that torch computes this loss row by row
        rows = torch.func.vmap(torch.func.grad(loss))(logits(), *target())
    output = logits().requires_grad_()
    sum(loss(row, *parts) for row, *parts in zip(output, *target(), strict=True)).backward()
    torch.testing.assert_close(rows, output.grad)


def test_one_number_is_mixed_sample_by_sample() -> None:
    def by_sample(output: Tensor, y: Tensor) -> Tensor:
        return torch.stack([*map(mean_of_margins, output.split(1), y.split(1))])

    rows = reference.pair_loss(lambda i, y: mean_of_margins(logits()[i : i + 1], y.unsqueeze(0)), *target())
    torch.testing.assert_close(mixed_loss(by_sample, logits(), target()), rows)


def test_one_number_for_many_weights_is_refused_with_ways_out() -> None:
    with pytest.raises(MixError) as caught:
        mixed_loss(mean_of_margins, logits(), target())
    message = str(caught.value)
    assert message.startswith("loss_fn takes ")
    assert "reduction='none'" in message
    assert "sample by sample" in message
    assert "per='batch'" in message
    assert "\n" not in message


class Dice(nn.modules.loss._Loss):
    """Has the ``reduction`` of its base class, and does not read it."""

    def forward(self, output: Tensor, y: Tensor) -> Tensor:
        return 1 - output.softmax(1).gather(1, y.unsqueeze(1)).mean()


def test_a_reduction_that_is_not_read_has_ways_out_of_its_own() -> None:
    with pytest.raises(MixError) as caught:
        mixed_loss(Dice(), logits(), target())
    message = str(caught.value)
    assert message.startswith("loss_fn takes ")
    assert "whatever its reduction" in message
    assert "reduction='none'" not in message  # which its class would refuse
    assert "per='batch'" in message
    assert "CutMix" in message
    assert "\n" not in message
    one = target(0.75)
    expected = 0.75 * Dice()(logits(), one.a) + 0.25 * Dice()(logits(), one.b)
    torch.testing.assert_close(mixed_loss(Dice(), logits(), one), expected)


def test_losses_of_another_number_of_rows_are_refused() -> None:
    with pytest.raises(MixError, match=r"^loss_fn takes .* got 8"):
        mixed_loss(lambda output, y: focal(output, y).repeat(2), logits(), target())


@pytest.mark.parametrize("loss_fn", [nn.CrossEntropyLoss(), focal, Focal()])
def test_a_loss_that_is_wrapped_may_be_wrapped_again(loss_fn: Callable[..., Tensor]) -> None:
    once = MixUpLoss(loss_fn)
    expected = mixed_loss(loss_fn, logits(), target())
    assert torch.equal(mixed_loss(once, logits(), target()), expected)
    assert torch.equal(MixUpLoss(once)(logits(), target()), expected)


class Cooled(nn.CrossEntropyLoss):
    """Torch's loss of other logits."""

    def forward(self, output: Tensor, y: Tensor) -> Tensor:
        return super().forward(output / 2, y)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weight": torch.tensor([0.5, 1, 2, 4, 8]).double()},
        {"ignore_index": 1},
        {"ignore_index": 1, "weight": torch.tensor([0.5, 1, 2, 4, 8]).double(), "reduction": "sum"},
    ],
    ids=list,
)
def test_what_derives_from_torchs_loss_takes_its_mean(options: dict[str, object]) -> None:
    loss = mixed_loss(Cooled(**options), logits(), target())
    torch.testing.assert_close(loss, F.cross_entropy(logits() / 2, target(), **options))


@pytest.mark.parametrize(
    ("loss_fn", "plain"),
    [
        (nn.CrossEntropyLoss(ignore_index=1), nn.CrossEntropyLoss(ignore_index=1)),
        (nn.NLLLoss(torch.arange(1.0, 6).double()), nn.NLLLoss(torch.arange(1.0, 6).double())),
        (MixUpLoss(nn.CrossEntropyLoss(ignore_index=1)), nn.CrossEntropyLoss(ignore_index=1)),
        (Cooled(ignore_index=1), Cooled(ignore_index=1)),
    ],
    ids=["cross entropy", "likelihood", "wrapped", "derived"],
)
def test_a_compiled_loss_keeps_its_mean(loss_fn: Callable[..., Tensor], plain: Callable[..., Tensor]) -> None:
    torch.compiler.reset()
    y = torch.tensor([0, 1, 2, 1])
    compiled = torch.compile(loss_fn, backend="eager")
    for loss in (functools.partial(mixed_loss, compiled), MixUpLoss(compiled)):
        torch.testing.assert_close(loss(logits(), MixedTarget(y, y.flip(0), 1.0)), plain(logits(), y))
    torch.compiler.reset()


def test_what_is_not_a_loss_is_refused() -> None:
    with pytest.raises(MixError, match=r"^loss_fn takes a callable"):
        MixUpLoss("cross_entropy")
    with pytest.raises(MixError, match=r"^loss_fn takes a callable"):
        mixed_loss(None, logits(), target())


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_the_reduction_comes_back_after_an_exception(error: type[BaseException]) -> None:
    loss_fn = Focal("sum", fails=error)
    with pytest.raises(error):
        mixed_loss(loss_fn, logits(), target())
    assert loss_fn.reduction == "sum"
    loss_fn.fails = None
    torch.testing.assert_close(mixed_loss(loss_fn, logits(), target()), oracle("sum"))
    assert loss_fn.reduction == "sum"


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("loss_fn", [nn.CrossEntropyLoss(), F.cross_entropy, focal, Focal()])
def test_a_plain_target_meets_the_loss_itself(loss_fn: Callable[..., Tensor], size: int) -> None:
    output, y = logits(size, 5), torch.arange(size)
    assert torch.equal(mixed_loss(loss_fn, output, y), loss_fn(output, y))
    assert torch.equal(MixUpLoss(loss_fn)(output, y), loss_fn(output, y))


@pytest.mark.parametrize(
    "structure",
    [(torch.ones(2), torch.zeros(2), torch.ones(2)), {"boxes": torch.ones(2)}, [1, 2, 3], None, "y"],
)
def test_any_other_target_goes_through_untouched(structure: object) -> None:
    seen = []
    result = MixUpLoss(lambda output, y: seen.append((output, y)) or torch.zeros(()))("output", structure)
    assert seen[0][0] == "output"
    assert seen[0][1] is structure
    assert result == 0


def test_a_wrapped_loss_keeps_its_buffers_and_can_be_copied() -> None:
    loss_fn = MixUpLoss(nn.CrossEntropyLoss(weight=torch.rand(5).double()))
    assert loss_fn.to(torch.float32).loss_fn.weight.dtype == torch.float32
    loss_fn.double()
    for twin in (copy.deepcopy(loss_fn), pickle.loads(pickle.dumps(loss_fn))):
        assert torch.equal(twin(logits(), target()), loss_fn(logits(), target()))


def test_squared_error_differs_from_the_soft_targets_by_a_constant() -> None:
    output, (y1, y2) = logits(4, 3), logits(2, 4, 3)
    pair = F.mse_loss(output, MixedTarget(y1, y2, LAM), reduction="none")
    rows = LAM.double().unsqueeze(1)
    soft = (output - (rows * y1 + (1 - rows) * y2)) ** 2
    torch.testing.assert_close(pair, soft + rows * (1 - rows) * (y1 - y2) ** 2)


def test_a_loss_that_is_not_linear_is_averaged_over_the_labels() -> None:
    output, one = logits(), torch.ones(4, dtype=torch.float64)
    hot = [F.one_hot(part, 5).double() for part in (target().a, target().b)]

    def focal_of_probs(output: Tensor, probs: Tensor) -> Tensor:
        p = (output.softmax(1) * probs).sum(1)
        return -((1 - p) ** 2) * p.log()

    pair = mixed_loss(focal_of_probs, output, MixedTarget(*hot, LAM))
    torch.testing.assert_close(pair, oracle())
    rows = LAM.double().unsqueeze(1)
    soft = focal_of_probs(output, rows * hot[0] + (1 - rows) * hot[1])
    assert (pair - soft).abs().max() > 0.01 * one[0]


def test_a_loss_of_more_arguments_finds_them_in_the_output() -> None:
    def likelihood(output: tuple[Tensor, Tensor], y: Tensor) -> Tensor:
        return F.gaussian_nll_loss(output[0], y, output[1], reduction="none")

    mean, variance = logits(4), logits(4).exp()
    y = MixedTarget(torch.arange(4.0).double(), torch.arange(4.0).double().flip(0), LAM)
    wanted = LAM * likelihood((mean, variance), y.a) + (1 - LAM) * likelihood((mean, variance), y.b)
    torch.testing.assert_close(mixed_loss(likelihood, (mean, variance), y), wanted)


@pytest.mark.skipif(not hasattr(nn, "LinearCrossEntropyLoss"), reason="needs torch 2.13")
@pytest.mark.parametrize("options", [{"weight": torch.arange(1.0, 11)}, {}, {"ignore_index": 2}], ids=list)
def test_a_loss_that_holds_the_last_layer_keeps_its_mean(options: dict) -> None:
    loss_fn = nn.LinearCrossEntropyLoss(5, 10, **options).double()
    y = torch.tensor([0, 2, 3, 1]) if "ignore_index" in options else torch.tensor([0, -100, 3, -100])
    y = torch.tensor([0, 1, 2, 3]) if "weight" in options else y
    plain, mixed = loss_fn(logits(), y), mixed_loss(loss_fn, logits(), MixedTarget(y, y.flip(0), 1.0))
    torch.testing.assert_close(mixed, plain)


def test_a_loss_that_returns_no_tensor_is_named() -> None:
    with pytest.raises(MixError, match=r"^loss_fn takes output and target to a tensor, got tuple"):
        mixed_loss(lambda output, y: (output, y), logits(), target())
