"""The target of a mixed batch, as a value that torch's own losses take."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any, SupportsIndex, overload

import torch
from torch import Tensor

from batchmix.core.plan import MixPlan, as_rows, check_is_plan, describe, placed
from batchmix.core.sampling import check_count
from batchmix.core.torch_losses import MIXED_LOSSES, blend_targets, entries_of
from batchmix.errors import MixError


class MixedTarget:
    """Two targets for every sample, and the weight of the first.

    It goes where the plain target went: torch's losses take it as it stands, function and module alike, and
    compute ``lam*loss(output, a) + (1-lam)*loss(output, b)``: cross entropy, NLL, BCE with and without
    logits, MSE, L1, smooth L1, Huber, KL divergence, Poisson and Gaussian NLL, soft margin, of one label or
    several. Any other loss goes through ``mixed_loss``, one that calls torch's inside too: a focal loss made
    of ``F.cross_entropy`` would be focal of the mix of two.

    To a type checker torch's functions take tensors alone; ``mixed_loss(F.cross_entropy, logits, target)`` is
    the same loss, and so is the module.

    Args:
        a: Targets of the samples themselves, (B, ...): class ids, soft labels or values.
        b: Targets of their partners, same shape and dtype as ``a``.
        lam: Weight of ``a``: (B,) in [0, 1], or one number for the whole batch. Kept in float32.

    Raises:
        MixError: If the shapes, dtypes or devices do not fit together, or ``lam`` is a number outside [0, 1].

    Example:
        >>> target = MixedTarget(torch.tensor([3, 5]), torch.tensor([5, 3]), torch.tensor([0.75, 1.0]))
        >>> target
        MixedTarget([0.75 of 3 + 0.25 of 5, 1.00 of 5 + 0.00 of 3])
        >>> a, b, lam = target
        >>> torch.nn.functional.cross_entropy(torch.zeros(2, 10), target)
        tensor(2.3026)

    Source: Zhang et al. 2018, arXiv:1710.09412, eq. 2; without one-hot: Gugger 2018, fast.ai.
    """

    __slots__ = ("a", "b", "lam")

    def __init__(self, a: Tensor, b: Tensor, lam: Tensor | float) -> None:
        for name, part in (("a", a), ("b", b)):
            if not isinstance(part, Tensor):
                raise MixError(f"{name} takes a tensor of targets, got {describe(part)}")
        if (a.shape, a.dtype, a.device) != (b.shape, b.dtype, b.device):
            raise MixError(f"b takes what a is, {placed(a)}, got {placed(b)}")
        lam = lam.to(torch.float32) if isinstance(lam, Tensor) else _as_weights(lam, a.device)
        if lam.dim() == 0 and a.dim() > 0:
            lam = lam.expand(len(a))
        if lam.shape != a.shape[:1]:
            raise MixError(f"lam takes one weight a target, {tuple(a.shape[:1])}, got {describe(lam)}")
        if lam.device != a.device:
            raise MixError(f"lam takes the device of a, {a.device}, got {lam.device}")
        self.a, self.b, self.lam = a, b, lam

    @classmethod
    def from_plan(cls, y: Tensor, plan: MixPlan) -> MixedTarget:
        """Pair the targets ``y`` (B, ...) with their partners', as ``blend`` pairs the samples."""
        if not isinstance(y, Tensor) or y.dim() == 0:
            raise MixError(f"y takes a batch of targets (B, ...), got {describe(y)}")
        check_is_plan(plan)
        if len(y) != len(plan):
            raise MixError(f"y takes as many targets as there are samples: {len(plan)}, got {len(y)}")
        if y.device != plan.device:
            raise MixError(f"y takes the device of the samples, {plan.device}, got {y.device}")
        return cls(y, y[plan.partner], plan.lam)

    # What the losses and metrics see

    @property
    def dominant(self) -> Tensor:
        """The target of larger weight, like ``a``; ``a`` itself at equal weights."""
        return torch.where(as_rows(self.lam, self.a.dim()) >= 0.5, self.a, self.b)

    def dense(self, num_classes: int, *, ignore_index: int = -100) -> Tensor:
        """The same target as probabilities, for what takes nothing else.

        Args:
            num_classes: K; for soft labels it has to be their last dimension.
            ignore_index: A class id that counts nothing, as in ``F.cross_entropy``: its share is left out of
                the probabilities, which then sum to less than 1.

        Returns:
            Class ids (B, ...) give (B, ..., K) float32; soft labels give their mix, in their shape and dtype.

        Raises:
            MixError: If a label is outside ``[0, num_classes)``. A CUDA device is not waited for: its own
                assertion fails there, as in ``F.one_hot``.

        Example:
            >>> MixedTarget(torch.tensor([0]), torch.tensor([2]), 0.75).dense(3)
            tensor([[0.7500, 0.0000, 0.2500]])
        """
        if not isinstance(num_classes, SupportsIndex):  # numpy's whole numbers too
            raise MixError.of("num_classes", num_classes, "a whole number")
        if self.a.is_floating_point():
            if self.a.dim() < 2 or self.a.shape[-1] != num_classes:
                raise MixError(
                    f"num_classes takes the last dimension of {describe(self.a)}, got {num_classes}"
                )
            return blend_targets(self.a, self.b, self.lam)
        entries = entries_of(self.a, self.b, self.lam, None, ignore_index)
        if not self.a.is_cuda:
            _check_ids(torch.stack([entry.labels for entry in entries]), num_classes)
        hot = torch.zeros(*self.a.shape, num_classes, dtype=torch.float32, device=self.a.device)
        for entry in entries:
            hot.scatter_add_(-1, entry.labels.unsqueeze(-1), entry.kept.unsqueeze(-1))
        return hot

    def expected_accuracy(self, logits: Tensor, *, ignore_index: int = -100, top_k: int = 1) -> Tensor:
        """Share of correct predictions, each of the two labels counted with its weight.

        Args:
            logits: (B, K) or (B, K, ...), for class ids (B) or (B, ...).
            ignore_index: A class id that is left out of the mean, as in ``F.cross_entropy``.
            top_k: A label counts where it is among so many of the largest logits, 1 to K.

        Returns:
            0-d float32 in [0, 1], NaN where all is ignored. At ``lam`` 1 it is the accuracy.

        Raises:
            MixError: If the shapes do not fit, or the targets are not class ids.
        """
        correct, count = count_correct(logits, self, ignore_index, top_k)
        return correct / count

    def union(self) -> Tensor:
        """Labels of both samples in full, for multi-hot targets: what can be heard is heard at any volume.

        Returns:
            ``max(a, b)`` where both have a weight, else the target of the one that has; like ``a``.

        Raises:
            MixError: If the targets are whole numbers, which may be class ids.

        Example:
            >>> birds = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
            >>> MixedTarget(birds, birds.flip(0), torch.tensor([0.75, 1.0])).union()
            tensor([[1., 0., 1.],
                    [0., 0., 1.]])
        """
        if not self.a.is_floating_point():
            raise MixError(f"a takes floats for a union, as target.float() has them, got {describe(self.a)}")
        lam = as_rows(self.lam, self.a.dim())
        either = torch.where(lam < 1, torch.maximum(self.a, self.b), self.a)
        return torch.where(lam > 0, either, self.b)

    # What a batch of targets does

    @property
    def shape(self) -> torch.Size:
        """Shape of ``a`` and of ``b``."""
        return self.a.shape

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of ``a`` and of ``b``; ``lam`` is float32."""
        return self.a.dtype

    @property
    def device(self) -> torch.device:
        """Where the target lies."""
        return self.a.device

    def __len__(self) -> int:
        """Number of samples, B."""
        return len(self.a)

    def __iter__(self) -> Iterator[Tensor]:
        """Unpack as ``a, b, lam``."""
        return iter((self.a, self.b, self.lam))

    def __getitem__(self, index: Any) -> MixedTarget:
        """The samples, or places of samples, that ``index`` takes from a (B, ...) tensor."""
        first = index[0] if isinstance(index, tuple) else index
        if first is Ellipsis or first is None or (isinstance(first, Tensor) and first.dim() > 1):
            raise MixError(f"index takes samples in its first place, got {describe(first)}: {_FOR_A_METRIC}")
        return MixedTarget(self.a[index], self.b[index], self.lam[first])

    def split(self, split_size: int | Sequence[int], dim: int = 0) -> tuple[MixedTarget, ...]:
        """Like ``Tensor.split``: some samples at a time, as for gradients that are summed up.

        Args:
            split_size: Samples of each part, or of each in turn.
            dim: 0, that of the samples.

        Raises:
            MixError: If ``dim`` is another.
        """
        return self._cut(torch.split, split_size, dim)

    def chunk(self, chunks: int, dim: int = 0) -> tuple[MixedTarget, ...]:
        """Like ``Tensor.chunk``: at most ``chunks`` parts of the same number of samples; ``dim`` is 0."""
        return self._cut(torch.chunk, chunks, dim)

    def _cut(self, cut: Callable[..., Sequence[Tensor]], size: Any, dim: int) -> tuple[MixedTarget, ...]:
        if dim not in (0, -self.a.dim()):
            raise MixError.of("dim", dim, "0, that of the samples")
        return tuple(MixedTarget(*parts) for parts in zip(*(cut(part, size) for part in self), strict=True))

    def to(self, *args: Any, **kwargs: Any) -> MixedTarget:
        """Like ``Tensor.to``: device for all three, dtype for ``a`` and ``b`` (``lam`` stays float32)."""
        a = self.a.to(*args, **kwargs)
        non_blocking = bool(kwargs.get("non_blocking", False))
        return MixedTarget(a, self.b.to(*args, **kwargs), self.lam.to(a.device, non_blocking=non_blocking))

    def cuda(self, device: torch.device | str | int | None = None, non_blocking: bool = False) -> MixedTarget:
        """Like ``Tensor.cuda``: on ``device``, the current GPU if left out."""
        return self.to("cuda" if device is None else device, non_blocking=non_blocking)

    def cpu(self) -> MixedTarget:
        """Like ``Tensor.cpu``."""
        return self.to("cpu")

    def pin_memory(self, device: torch.device | str | None = None) -> MixedTarget:
        """A copy in pinned memory, as ``DataLoader(pin_memory=True)`` asks for."""
        pinned = (part.pin_memory(*([] if device is None else [device])) for part in self)
        return MixedTarget(*pinned)

    def map(self, function: Callable[[Tensor], Tensor]) -> MixedTarget:
        """Apply the same function to ``a`` and ``b``; it keeps the samples in their places.

        Example:
            >>> MixedTarget(torch.tensor([0, 1]), torch.tensor([1, 0]), 0.75).map(Tensor.float).dtype
            torch.float32
        """
        return MixedTarget(function(self.a), function(self.b), self.lam)

    def view(self, *shape: int) -> MixedTarget:
        """Flatten with ``view(-1)``, each place of a sample with the weight of the sample.

        Any other shape has to keep the first dimension.
        """
        if shape in ((-1,), ((-1,),)):
            lam = as_rows(self.lam, self.a.dim()).expand(self.a.shape).reshape(-1)
            return MixedTarget(self.a.reshape(-1), self.b.reshape(-1), lam)
        a = self.a.reshape(*shape)
        if a.shape[:1] != self.lam.shape:  # as in an accuracy of the first k classes
            kept = f"shape takes the {len(self.lam)} samples first"
            raise MixError(f"{kept}, got {tuple(a.shape)}: {_FOR_A_METRIC}")
        return MixedTarget(a, self.b.reshape(*shape), self.lam)

    # What models call on their labels before they compute a loss

    reshape = view

    def flatten(self) -> MixedTarget:
        """As ``view(-1)``."""
        return self.view(-1)

    def squeeze(self, *dim: int) -> MixedTarget:
        """Like ``Tensor.squeeze``: dimensions of size 1 left out. A lone sample's places take its weight."""
        a = self.a.squeeze(*dim)
        lam = self.lam if a.shape[:1] == self.lam.shape else self.lam.squeeze(0)
        return MixedTarget(a, self.b.squeeze(*dim), lam)

    def unsqueeze(self, dim: int) -> MixedTarget:
        """Like ``Tensor.unsqueeze``, after the first dimension."""
        if dim in (0, -self.a.dim() - 1):
            raise MixError.of("dim", dim, "a place after the first, which is that of the samples")
        return self.map(lambda part: part.unsqueeze(dim))

    def float(self) -> MixedTarget:
        """The same targets as float32."""
        return self.map(Tensor.float)

    def long(self) -> MixedTarget:
        """The same targets as int64."""
        return self.map(Tensor.long)

    def contiguous(self) -> MixedTarget:
        """Like ``Tensor.contiguous``."""
        return self.map(Tensor.contiguous)

    def detach(self) -> MixedTarget:
        """Like ``Tensor.detach``, of all three."""
        return MixedTarget(*(part.detach() for part in self))

    def clone(self) -> MixedTarget:
        """Like ``Tensor.clone``, of all three."""
        return MixedTarget(*(part.clone() for part in self))

    @overload
    def size(self, dim: None = None) -> torch.Size: ...

    @overload
    def size(self, dim: int) -> int: ...

    def size(self, dim: int | None = None) -> torch.Size | int:
        """Like ``Tensor.size``."""
        return self.a.size() if dim is None else self.a.size(dim)

    def dim(self) -> int:
        """Number of dimensions of ``a`` and of ``b``."""
        return self.a.dim()

    @property
    def ndim(self) -> int:
        """Number of dimensions of ``a`` and of ``b``."""
        return self.a.dim()

    def numel(self) -> int:
        """Number of elements of ``a``, and of ``b``."""
        return self.a.numel()

    def is_floating_point(self) -> bool:
        """Whether the targets are soft labels or values, and not class ids."""
        return self.a.is_floating_point()

    def __eq__(self, other: object) -> bool:
        """Comparing labels has no meaning for two of them; without this, ``target != 255`` would be True."""
        labels = isinstance(other, (Tensor, int, float, list, tuple)) or hasattr(other, "__array__")
        if labels and not isinstance(other, MixedTarget):
            raise MixError(_no_meaning("=="))
        return self is other

    __hash__ = object.__hash__

    def __array__(self, *_: Any, **__: Any) -> Any:
        """Of a target that unpacks NumPy would make three rows, which metrics take for labels."""
        raise MixError(_no_meaning("numpy.asarray"))

    if not TYPE_CHECKING:  # or every name would be an attribute

        def __getattr__(self, name):
            """What a tensor has and two targets have not; the error says what to use."""
            message = f"'MixedTarget' object has no attribute {name!r}"
            raise AttributeError(_no_meaning(name) if hasattr(Tensor, name) else message, name=name, obj=self)

    def __reduce__(self) -> tuple[Any, ...]:
        return MixedTarget, (self.a, self.b, self.lam)

    def __repr__(self) -> str:
        if self.a.is_meta:  # there are shapes, and no numbers to show
            return f"MixedTarget({describe(self.a)} on meta)"
        if self.a.dim() != 1 or len(self) > 8:
            return f"MixedTarget({describe(self.a)}, lam from {self._span()})"
        rows = zip(self.a.tolist(), self.b.tolist(), self.lam.tolist(), strict=True)
        return f"MixedTarget([{', '.join(f'{w:.2f} of {a} + {1 - w:.2f} of {b}' for a, b, w in rows)}])"

    def _span(self) -> str:
        if not self.lam.numel():
            return "nothing"
        return f"{float(self.lam.min()):.2f} to {float(self.lam.max()):.2f}"

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Where torch's functions arrive; what has no meaning for two targets says so."""
        mixed = MIXED_LOSSES.get(func) or OF_SAMPLES.get(func)
        if mixed is None:
            raise MixError(_no_meaning(getattr(func, "__name__", repr(func))))
        if func in MIXED_LOSSES and args and isinstance(args[0], MixedTarget):
            raise MixError("input takes the model's output, and the target comes after it, got a MixedTarget")
        return mixed(*args, **(kwargs or {}))


def count_correct(
    logits: Tensor, target: MixedTarget | Tensor, ignore_index: int, top_k: int = 1
) -> tuple[Tensor, Tensor]:
    """Correct predictions by the weights of their labels, and all labels by theirs: 0-d float32, both.

    What an accuracy divides, for metrics that add it up over batches.

    Raises:
        MixError: If the shapes do not fit, or the targets are not class ids.
    """
    if isinstance(target, Tensor):
        target = MixedTarget(target, target, 1.0)
    if target.a.is_floating_point():
        raise MixError(f"target takes class ids for an accuracy, got {describe(target.a)}")
    if logits.dim() < 2 or (logits.shape[0], *logits.shape[2:]) != tuple(target.a.shape):
        raise MixError(
            f"logits takes (B, K, ...) for targets {tuple(target.a.shape)}, got {describe(logits)}"
        )
    if logits.shape[1] < 2:
        raise MixError(
            "logits takes two classes or more for an accuracy, as torch.cat([-z, z], 1) has for one logit z, "
            f"got {describe(logits)}"
        )
    top_k = check_count("top_k", top_k, 1, logits.shape[1])
    guesses = logits.argmax(1, keepdim=True) if top_k == 1 else logits.topk(top_k, 1).indices
    own, partners = entries_of(target.a, target.b, target.lam, None, ignore_index)
    right = [entry.kept * (guesses == entry.labels.unsqueeze(1)).any(1) for entry in (own, partners)]
    return (right[0] + right[1]).sum(), (own.kept + partners.kept).sum()


def _cat(tensors: Sequence[MixedTarget | Tensor], dim: int = 0) -> MixedTarget:
    """Batches of targets as one; plain ones have ``lam`` 1."""
    mixed = [y if isinstance(y, MixedTarget) else MixedTarget(y, y, 1.0) for y in tensors]
    if dim not in (0, -mixed[0].dim()):
        raise MixError.of("dim", dim, "0, that of the samples")
    return MixedTarget(*(torch.cat(parts) for parts in zip(*mixed, strict=True)))


def _tensor_split(target: MixedTarget, indices_or_sections: Any, dim: int = 0) -> tuple[MixedTarget, ...]:
    """As ``torch.distributed.pipelining`` cuts a batch of targets."""
    return target._cut(torch.tensor_split, indices_or_sections, dim)


OF_SAMPLES: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.split: MixedTarget.split,
    torch.chunk: MixedTarget.chunk,
    torch.tensor_split: _tensor_split,
    torch.cat: _cat,
    torch.concat: _cat,
}
"""What torch's functions do with a batch of targets, beside losses."""


_FOR_A_METRIC = "for a metric take expected_accuracy(logits) or the label of larger weight, dominant"


def _no_meaning(name: str) -> str:
    return (
        f"{name} takes tensors, got a MixedTarget: take its a, b and lam, or dense(num_classes); "
        "for a metric dominant, the label of larger weight, or expected_accuracy(logits), for a loss "
        "mixed_loss(loss_fn, output, target)"
    )


def _refused(sign: str) -> Callable[..., Any]:
    def refuse(*_: Any) -> Any:
        raise MixError(_no_meaning(sign))

    return refuse


# Losses that are written out, such as `-target * logits.log_softmax(1)`, would end in an error of Python's.
OPERATORS = {
    "-": ("neg", "sub", "rsub"),
    "+": ("add", "radd"),
    "*": ("mul", "rmul"),
    "/": ("truediv", "rtruediv"),
    "**": ("pow", "rpow"),
    "<": ("lt",),
    "<=": ("le",),
    ">": ("gt",),
    ">=": ("ge",),
}
for _sign, _names in OPERATORS.items():
    for _name in _names:
        setattr(MixedTarget, f"__{_name}__", _refused(_sign))


def _check_ids(labels: Tensor, num_classes: int) -> None:
    low, high = (int(labels.min()), int(labels.max())) if labels.numel() else (0, 0)
    if low < 0 or high >= num_classes:
        raise MixError(
            f"num_classes takes more than every label, labels are {low} to {high}, got {num_classes}"
        )


def _as_weights(lam: Any, device: torch.device) -> Tensor:
    """A number, or several, as a tensor. Of one that is a tensor already, the values would be waited for."""
    takes = "one number in [0, 1], or one for each target"
    if isinstance(lam, Real):
        if not 0 <= float(lam) <= 1:
            raise MixError.of("lam", lam, takes)
        # Made where the targets are: a copy to a GPU would be waited for.
        return torch.full((), float(lam), dtype=torch.float32, device=device)
    try:
        return torch.as_tensor(lam, dtype=torch.float32, device=device)
    except (TypeError, ValueError, RuntimeError):
        raise MixError.of("lam", lam, takes) from None
