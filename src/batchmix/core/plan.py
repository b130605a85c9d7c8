"""One draw of a mix, as a value: who is mixed with whom, and by how much."""

from __future__ import annotations

from dataclasses import dataclass, replace
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
        partner: (B,) int64; the row that sample ``i`` is mixed with.
        lam: (B,) float32 in [0, 1]; the weight of sample ``i`` itself.
        mask: (B or 1, 1, H, W) float weights of the sample itself at each position, or None where
            ``lam`` holds for the whole sample. Where there is a mask, ``lam`` is its mean.

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

    def _check_mask(self, mask: object) -> None:
        rows = (1, len(self.lam))
        if not isinstance(mask, Tensor) or mask.dim() < 2 or mask.shape[0] not in rows:
            raise MixError(f"mask takes a tensor (B or 1, 1, ...) with B = {rows[1]}, got {describe(mask)}")
        if mask.device != self.lam.device:
            raise MixError(f"mask takes partner's device {self.lam.device}, got {mask.device}")

    @classmethod
    def identity(cls, batch_size: int, device: torch.device | str | None = None) -> MixPlan:
        """The plan that leaves a batch of ``batch_size`` samples as it is: own partner, ``lam`` 1."""
        return cls(torch.arange(batch_size, device=device), torch.ones(batch_size, device=device))

    def __len__(self) -> int:
        """Number of samples, B."""
        return self.partner.shape[0]

    @property
    def device(self) -> torch.device:
        """Where the plan lies."""
        return self.partner.device

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> MixPlan:
        """The same plan on another device."""

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=non_blocking)

        mask = None if self.mask is None else move(self.mask)
        return replace(self, partner=move(self.partner), lam=move(self.lam), mask=mask)


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


def as_rows(lam: Tensor, ndim: int) -> Tensor:
    """View (B,) weights as (B, 1, ..., 1), so that they broadcast over samples of ``ndim`` dimensions."""
    return lam.view(-1, *([1] * (ndim - 1)))
