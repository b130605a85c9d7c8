"""Muon, the optimizer of the fast records, for convolution filters.

Torch's own ``torch.optim.Muon`` (2.9 and later) takes matrices only; this one takes filters, and keeps their
length fixed, which the net's batch norm makes free to choose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

# Coefficients of the quintic that pushes all singular values towards 1 in a few steps.
QUINTIC = (3.4445, -4.7750, 2.0315)

Orthogonalize = Callable[[Tensor, int], Tensor]
Update = Callable[[list[Tensor], list[Tensor], list[Tensor], "Tensor | float", float, int], None]


class Muon(torch.optim.Optimizer):
    """Momentum whose direction is replaced by the nearest orthogonal matrix.

    Args:
        params: Filters (out, in, h, w), read as matrices (out, in*h*w).
        lr: Length of a step; a filter's own length is kept at 1 on average.
        momentum: Of the gradient, Nesterov form.
        iterations: Newton-Schulz steps; 3 are enough here.
        orthogonalize: What does these steps for one matrix; the function below if left out.
        update: What updates all filters at once, ``update_together`` or the same compiled; one after the
            other if left out.

    Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; coefficients ibid.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 0.24,
        momentum: float = 0.6,
        iterations: int = 3,
        *,
        orthogonalize: Orthogonalize | None = None,
        update: Update | None = None,
    ) -> None:
        self._orthogonalize = orthogonalize
        self._update = update or self._one_by_one
        super().__init__(params, {"lr": lr, "momentum": momentum, "iterations": iterations})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One update of every filter that has a gradient; what ``closure``, called first, returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            learned = [filters for filters in group["params"] if filters.grad is not None]
            for filters in learned:
                if not self.state[filters]:
                    self.state[filters]["momentum"] = torch.zeros_like(filters)
            gradients = [filters.grad for filters in learned]
            averages = [self.state[filters]["momentum"] for filters in learned]
            if learned:
                how = group["lr"], group["momentum"], group["iterations"]
                self._update(learned, gradients, averages, *how)
        return loss

    def _one_by_one(
        self,
        weights: list[Tensor],
        gradients: list[Tensor],
        averages: list[Tensor],
        lr: Tensor | float,
        momentum: float,
        iterations: int,
    ) -> None:
        nearest = self._orthogonalize or orthogonalize
        for filters, gradient, average in zip(weights, gradients, averages, strict=True):
            average.mul_(momentum).add_(gradient)
            direction = gradient + momentum * average
            filters.mul_(len(filters) ** 0.5 / filters.norm())
            update = nearest(direction.reshape(len(filters), -1), iterations)
            filters.sub_(lr * update.reshape(filters.shape))


def update_together(
    weights: list[Tensor],
    gradients: list[Tensor],
    averages: list[Tensor],
    lr: Tensor | float,
    momentum: float,
    iterations: int,
) -> None:
    """One step of all filters, in place: few large operations for a GPU, whose time many small ones waste."""
    torch._foreach_mul_(averages, momentum)
    torch._foreach_add_(averages, gradients)
    directions = torch._foreach_add(gradients, averages, alpha=momentum)
    updates = orthogonalize_together([d.reshape(len(d), -1) for d in directions], iterations)
    for filters, update in zip(weights, updates, strict=True):
        filters.mul_(len(filters) ** 0.5 / filters.norm()).sub_(lr * update.reshape(filters.shape))


def orthogonalize_together(matrices: Sequence[Tensor], iterations: int = 3) -> list[Tensor]:
    """``orthogonalize`` of each matrix, as one batch: filled up with zeros, which stay zeros."""
    wide = [matrix.mT if len(matrix) > matrix.shape[1] else matrix for matrix in matrices]
    rows, columns = (max(matrix.shape[dim] for matrix in wide) for dim in (0, 1))
    batch = [F.pad(matrix, (0, columns - matrix.shape[1], 0, rows - len(matrix))) for matrix in wide]
    made = orthogonalize(torch.stack(batch), iterations)
    parts = [part[: len(matrix), : matrix.shape[1]] for part, matrix in zip(made, wide, strict=True)]
    return [
        part if part.shape == matrix.shape else part.mT for part, matrix in zip(parts, matrices, strict=True)
    ]


def orthogonalize(matrix: Tensor, iterations: int = 3, *, dtype: torch.dtype | None = None) -> Tensor:
    """The matrix with (roughly) all singular values 1, by Newton-Schulz; (..., rows, columns), its dtype.

    Computed in ``dtype``; if left out in bfloat16 on a GPU, which is precise enough, else as it is.
    """
    tall = matrix.shape[-2] > matrix.shape[-1]
    x = matrix.mT if tall else matrix
    x = x.to(dtype or (torch.bfloat16 if x.device.type == "cuda" else x.dtype))
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    a, b, c = QUINTIC
    for _ in range(iterations):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    result: Tensor = x.mT if tall else x
    return result.to(matrix.dtype)
