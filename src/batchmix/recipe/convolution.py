"""A 3x3 convolution whose weights learn at the rate of the matrix units on small images too."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn import functional as F

from batchmix.kernels import selected

ROW = 32  # pixels of a row that AMX multiplies at once, in bfloat16


class Conv3x3(nn.Conv2d):
    """A convolution of 3x3 filters with a border of zeros and no bias.

    Args:
        inputs: Channels of what comes in.
        outputs: Channels of the result.

    Shapes: (B, inputs, H, W) to (B, outputs, H, W).
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1, bias=False)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (torch's name)
        """The convolved images."""
        beside = beside_one_another(input)
        if beside == 1 or not self.weight.requires_grad:
            return super().forward(input)
        # The weight is cast where autograd sees it: its gradient arrives in the weight's own dtype.
        result: Tensor = _Convolution.apply(  # type: ignore[no-untyped-call]
            input.to(torch.bfloat16), self.weight.to(torch.bfloat16), beside
        )
        return result


def beside_one_another(x: Tensor) -> int:
    """How many images of a batch are laid side by side for the gradient of the weights; 1 for as they are.

    oneDNN sums that gradient row by row, ``ROW`` pixels at a time, be they there or not: images of 7 pixels
    use a quarter of it, those of 3 a tenth. Laid side by side, with a column of zeros between them, which
    adds nothing, they fill it. From half a row on it gains nothing (measured at 15 pixels).
    """
    batch, width = len(x), x.shape[-1]
    takes_part = x.device.type == "cpu" and torch.is_autocast_enabled("cpu") and torch.is_grad_enabled()
    if not takes_part or 2 * (width + 1) >= ROW or torch.get_autocast_dtype("cpu") != torch.bfloat16:
        return 1
    if torch.compiler.is_compiling() or selected.current() == "torch":
        return 1
    return max(n for n in range(1, ROW // (width + 1) + 1) if batch % n == 0)


class _Convolution(torch.autograd.Function):
    """The convolution; its gradient of the weights is that of images side by side."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, beside: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.beside = beside  # type: ignore[attr-defined]
        return F.conv2d(x, weight, padding=1)

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors  # type: ignore[attr-defined]
        above, beside = gradients[0], ctx.beside  # type: ignore[attr-defined]
        wanted = ctx.needs_input_grad  # type: ignore[attr-defined]
        of_x = _gradients(above, x, weight, (True, False))[0] if wanted[0] else None
        if wanted[1]:
            x, above = side_by_side(x, beside), side_by_side(above, beside)
        return of_x, _gradients(above, x, weight, (False, True))[1] if wanted[1] else None, None


def _gradients(above: Tensor, x: Tensor, weight: Tensor, wanted: tuple[bool, bool]) -> tuple[Tensor, Tensor]:
    """Those of the images and of the weights, where they are wanted."""
    of_x, of_weight, _ = torch.ops.aten.convolution_backward(
        above, x, weight, None, (1, 1), (1, 1), (1, 1), False, (0, 0), 1, (*wanted, False)
    )
    return of_x, of_weight


def side_by_side(x: Tensor, count: int) -> Tensor:
    """(B, C, H, W) as (B / count, C, H, count * (W + 1)): a column of zeros after every image."""
    batch, channels, height, width = x.shape
    out = x.new_empty(batch // count, height, count, width + 1, channels)
    out[:, :, :, width] = 0
    out[:, :, :, :width] = x.permute(0, 2, 3, 1).view(-1, count, height, width, channels).transpose(1, 2)
    return out.view(batch // count, height, count * (width + 1), channels).permute(0, 3, 1, 2)
