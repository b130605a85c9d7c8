"""The net for 96%: three convolutions a block, the last two beside a shortcut.

Source: the layout of airbench96, in Jordan 2024, arXiv:2404.00498, section 4.
"""

from __future__ import annotations

from torch import Tensor, nn

from batchmix.recipe.network import Block, Net, conv3x3, norm
from batchmix.recipe.pooling import max_pool


class ResidualBlock(Block):
    """Convolution, pooling, norm, activation; two more convolutions, to whose result their input is added."""

    def __init__(self, inputs: int, outputs: int, activation: str = "gelu") -> None:
        super().__init__(inputs, outputs, activation)
        self.conv3 = conv3x3(outputs, outputs)
        self.norm3 = norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, outputs, H // 2, W // 2)."""
        x = self.activation(self.norm1(max_pool(self.conv1(x))))
        inner = self.activation(self.norm2(self.conv2(x)))
        activated: Tensor = self.activation(self.norm3(self.conv3(inner)) + x)
        return activated


class ResidualNet(Net):
    """``Net`` with blocks of three convolutions; its arguments and shapes."""

    def block(self, inputs: int, outputs: int, activation: str) -> nn.Module:
        """A block of the net, with fresh weights."""
        return ResidualBlock(inputs, outputs, activation)
