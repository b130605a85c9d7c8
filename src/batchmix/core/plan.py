"""One draw of a mix, as a value: who is mixed with whom, and by how much."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from batchmix.errors import MixError, shorten


@dataclass(frozen=True, eq=False)
class MixPlan:
    """Who is mixed with whom, and by how much.

    A plan is a value: the same plan replays on inputs, targets, masks, teacher logits or a second view.
    Row ``i`` of a batch becomes ``lam[i]*x[i] + (1-lam[i])*x[partner[i]]``.

    Args:
        partner: (B,) int64; the row that sample ``i`` is mixed with, from 0 to B-1. That is not checked here,
            since it would ask the device; what a row outside does depends on the kernel.
        lam: (B,) float32 in [0, 1]; the weight of sample ``i`` itself.
        mask: (B or 1, 1, H, W), of series (B or 1, 1, T), of tables and tokens (B or 1, F): the weight of the
            sample itself at each position, or None where ``lam`` holds for the whole sample. Boolean where
            positions are either the sample's or the partner's (a paste). Where there is a mask, ``lam`` is
            its mean, or what the method that made it says.
        window: (B, 4) int64, top, bottom, left and right in pixels, or (B, 2) of a series, start and end, the
            ends exclusive: the partner's whole image is resized into this part of the image before the mask
            says where it is seen. None where the partner stays as it is. Only beside a mask.

    Attributes:
        is_identity: Whether ``identity`` made the plan: so much is known without asking the device.

    Raises:
        MixError: If the shapes, dtypes or devices do not fit together.

    Example:
        >>> plan = MixPlan(torch.tensor([1, 0]), torch.tensor([0.7, 0.9]))
        >>> len(plan)
        2
    """

    partner: Tensor
    lam: Tensor
    mask: Tensor | None = None
    window: Tensor | None = None
    is_identity: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        for name, part, dtype in (("partner", self.partner, torch.int64), ("lam", self.lam, torch.float32)):
            if not isinstance(part, Tensor) or part.dim() != 1 or part.dtype != dtype:
                wanted = str(dtype).removeprefix("torch.")
                raise MixError(f"{name} takes a (B,) {wanted} tensor, got {describe(part)}")
        if self.lam.shape != self.partner.shape:
            raise MixError(f"lam takes one weight a partner: {len(self.partner)}, got {len(self.lam)}")
        if self.lam.device != self.partner.device:
            raise MixError(f"lam takes partner's device {self.partner.device}, got {self.lam.device}")
        if self.mask is not None:
            self._check_mask(self.mask)
        if self.window is not None:
            self._check_window(self.window)

    def _check_mask(self, mask: object) -> None:
        rows = (1, len(self.lam))
        if not isinstance(mask, Tensor) or mask.dim() < 2 or mask.shape[0] not in rows:
            raise MixError(f"mask takes a tensor (B or 1, 1, ...) with B = {rows[1]}, got {describe(mask)}")
        if mask.dtype != torch.bool and not mask.is_floating_point():
            raise MixError(f"mask takes booleans or floating point weights, got {describe(mask)}")
        if mask.device != self.lam.device:
            raise MixError(f"mask takes partner's device {self.lam.device}, got {mask.device}")

    def _check_window(self, window: object) -> None:
        if self.mask is None:
            raise MixError(
                f"window takes a plan with a mask, which says where it is seen, got {describe(window)}"
            )
        ends = [(len(self.lam), 2 * axes) for axes in range(1, self.mask.dim() - 1)]
        if not isinstance(window, Tensor) or window.dtype != torch.int64 or tuple(window.shape) not in ends:
            wanted = " or ".join(map(str, ends))
            raise MixError(f"window takes an int64 tensor {wanted} of pixels, got {describe(window)}")
        if window.device != self.lam.device:
            raise MixError(f"window takes partner's device {self.lam.device}, got {window.device}")

    @classmethod
    def identity(cls, batch_size: int, device: torch.device | str | None = None) -> MixPlan:
        """The plan that leaves a batch of ``batch_size`` samples as it is: own partner, ``lam`` 1."""
        lam = torch.ones(batch_size, dtype=torch.float32, device=device)
        plan = cls(torch.arange(batch_size, device=device), lam)
        # Not an argument: what is made otherwise is not known to be one.
        object.__setattr__(plan, "is_identity", True)
        return plan

    def __len__(self) -> int:
        """Number of samples, B."""
        return self.partner.shape[0]

    def without_mask(self) -> MixPlan:
        """The same partners and weights for what has no positions: ``lam`` for the whole sample."""
        return MixPlan(self.partner, self.lam)

    def only(self, mixed: Tensor) -> MixPlan:
        """The same plan for the samples where ``mixed`` (B,) bool is true; the others stay as they are.

        They keep their partners, with weight 0; 0 times an infinity or NaN is NaN where samples are blended.
        """
        lam = torch.where(mixed, self.lam, 1.0)
        if self.mask is None:
            return replace(self, lam=lam)
        mask = self.mask.expand(len(self), *self.mask.shape[1:])
        keep = as_rows(~mixed, mask.dim())
        mask = mask | keep if mask.dtype == torch.bool else torch.where(keep, 1.0, mask)
        return replace(self, lam=lam, mask=mask)

    @property
    def device(self) -> torch.device:
        """Where the plan lies."""
        return self.partner.device

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> MixPlan:
        """The same plan on another device."""
        if self.is_identity:
            return MixPlan.identity(len(self), device)

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=non_blocking)

        mask = None if self.mask is None else move(self.mask)
        window = None if self.window is None else move(self.window)
        return MixPlan(move(self.partner), move(self.lam), mask, window)


def check_is_plan(plan: object) -> None:
    """Raise a MixError unless ``plan`` is a MixPlan."""
    if not isinstance(plan, MixPlan):
        raise MixError(f"plan takes a MixPlan, got {describe(plan)}")


def check_plan(plan: MixPlan, x: Tensor) -> None:
    """Raise a MixError unless ``plan`` is a MixPlan for as many samples as ``x`` has, on their device."""
    check_is_plan(plan)
    if len(x) != len(plan):
        raise MixError(f"plan takes as many samples as x: {len(x)}, got {len(plan)}")
    if x.device != plan.device:
        raise MixError(f"plan takes the device of x: {x.device}, got {plan.device}")


def describe(value: Any) -> str:
    """Say what a value is, for an error message.

    Example:
        >>> describe(torch.zeros(2, 3))
        'float32 tensor (2, 3)'
        >>> describe("a")
        "str 'a'"
    """
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} tensor {tuple(value.shape)}"
    return f"{type(value).__name__} {shorten(value)}"


def floats_for(name: str, value: Tensor) -> str:
    """What whole and complex numbers have to become to be blended, for an error message.

    Example:
        >>> floats_for("x", torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
        'floating point samples, such as x.float() / 255'
    """
    if value.is_complex():  # a spectrogram
        return f"floating point samples, such as torch.view_as_real({name})"
    if value.dtype == torch.int16 and value.dim() < 4:  # sound
        return f"floating point samples, such as {name}.float() / 32768"
    if value.dtype == torch.int16:  # scans, whose values of interest a window has
        return f"floating point samples, such as ({name}.float() - low) / (high - low)"
    if value.dtype == torch.uint8 or value.dim() >= 4:
        return f"floating point samples, such as {name}.float() / 255"
    return "floating point samples (TokenCutMix and TabularCutMix paste ids)"


def placed(value: Any) -> str:
    """The same, and on which device a tensor lies."""
    return f"{describe(value)} on {value.device}" if isinstance(value, Tensor) else describe(value)


def spread(mask: Tensor, ndim: int) -> Tensor:
    """View a mask of the last dimensions, (B, 1, H, W), for samples of more: (B, 1, 1, H, W) for videos."""
    return mask.reshape(*mask.shape[:2], *[1] * (ndim - mask.dim()), *mask.shape[2:])


def as_rows(lam: Tensor, ndim: int) -> Tensor:
    """View (B,) weights as (B, 1, ..., 1), so that they broadcast over samples of ``ndim`` dimensions."""
    if ndim == 0:
        return lam.view(())  # a lone value
    return lam.view(-1, *([1] * (ndim - 1)))
