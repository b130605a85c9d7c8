"""Muon, the optimizer of the fast records, for convolution filters.

Torch's own ``torch.optim.Muon`` (2.9 and later) takes matrices only; this one takes filters, and keeps their
length fixed, which the net's batch norm makes free to choose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

# Coefficients of the quintic that pushes all singular values towards 1 in a few steps.
QUINTIC = (3.4445, -4.7750, 2.0315)

Orthogonalize = Callable[[Tensor, int], Tensor]


class Muon(torch.optim.Optimizer):
    """Momentum whose direction is replaced by the nearest orthogonal matrix.

    Args:
        params: Filters (out, in, h, w), read as matrices (out, in*h*w).
        lr: Length of a step; a filter's own length is kept at 1 on average.
        momentum: Of the gradient, Nesterov form.
        iterations: Newton-Schulz steps; 3 are enough here.
        orthogonalize: What does these steps; the function below, or the same compiled.

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
    ) -> None:
        self._orthogonalize = orthogonalize
        super().__init__(params, {"lr": lr, "momentum": momentum, "iterations": iterations})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update of every filter that has a gradient."""
        nearest = self._orthogonalize or orthogonalize
        for group in self.param_groups:
            for filters in group["params"]:
                if filters.grad is None:
                    continue
                state = self.state[filters]
                if not state:
                    state["momentum"] = torch.zeros_like(filters)
                average = state["momentum"].mul_(group["momentum"]).add_(filters.grad)
                direction = filters.grad + group["momentum"] * average
                filters.mul_(len(filters) ** 0.5 / filters.norm())
                update = nearest(direction.reshape(len(filters), -1), group["iterations"])
                filters.sub_(group["lr"] * update.reshape(filters.shape))


def orthogonalize(matrix: Tensor, iterations: int = 3, *, dtype: torch.dtype | None = None) -> Tensor:
    """The matrix with (roughly) all singular values 1, by Newton-Schulz; (rows, columns), its dtype.

    Computed in ``dtype``; if left out in bfloat16 on a GPU, which is precise enough, else as it is.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x.to(dtype or (torch.bfloat16 if x.device.type == "cuda" else x.dtype))
    x = x / (torch.linalg.matrix_norm(x) + 1e-7)
    a, b, c = QUINTIC
    for _ in range(iterations):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    result: Tensor = x.T if tall else x
    return result.to(matrix.dtype)
