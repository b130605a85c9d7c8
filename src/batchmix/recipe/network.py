"""A small convolutional net with a whitening first layer.

The layout is that of the fast CIFAR-10 records: a frozen 2x2 whitening convolution, three blocks of two 3x3
convolutions, batch norm without weights, a global maximum and a linear layer.
Source: Jordan 2024, arXiv:2404.00498, sections 3.1 to 3.3; Page 2018, "How to train your ResNet".
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from batchmix.recipe.convolution import Conv3x3
from batchmix.recipe.pooling import max_pool

WHITENING_FILTERS = 24  # the 12 eigenvectors of 3x2x2 patches, and the same with the other sign
WHITENING_EPS = 5e-4  # beside the eigenvalues: directions without variance stay finite
NORM_EPS = 1e-12  # the norm follows filters of fixed length: nothing there is close to 0


class Net(nn.Module):
    """The net.

    Args:
        widths: Channels of the three blocks.
        num_classes: K.
        activation: ``"gelu"``, or ``"silu"``, alike in shape and cheaper on a CPU.

    Attributes:
        bias_learns: Whether the bias of the whitening layer does; else the gradient stops at the blocks.

    Shapes: images (B, 3, H, W), normalised, H and W at least 16; logits (B, K).
    """

    def __init__(
        self, widths: tuple[int, ...] = (32, 128, 128), num_classes: int = 10, activation: str = "gelu"
    ) -> None:
        super().__init__()
        self.whitening = nn.Conv2d(3, WHITENING_FILTERS, 2)
        self.whitening.weight.requires_grad_(False)
        self.bias_learns = True
        inputs = (WHITENING_FILTERS, *widths[:-1])
        self.blocks = nn.Sequential(
            *(self.block(i, o, activation) for i, o in zip(inputs, widths, strict=True))
        )
        self.head = nn.Linear(widths[-1], num_classes, bias=False)
        self.head.weight.data /= self.head.weight.data.std()
        nn.init.zeros_(self.whitening.bias)  # type: ignore[arg-type]

    def block(self, inputs: int, outputs: int, activation: str) -> nn.Module:
        """A block of the net, with fresh weights."""
        return Block(inputs, outputs, activation)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K) of images (B, 3, H, W)."""
        bias = self.whitening.bias
        assert bias is not None
        # Said here, not by ``requires_grad``, which a compiled net may not notice to have changed.
        x = F.conv2d(x, self.whitening.weight, bias if self.bias_learns else bias.detach())
        x = F.relu(x)  # filters come in both signs: it loses nothing, and is cheap here
        x = self.blocks(x)
        logits: Tensor = self.head(_largest(x))
        return logits / self.head.in_features  # weights of unit size, logits that start small


def _largest(x: Tensor) -> Tensor:
    """The largest value of each channel (B, C).

    The gradient of ``amax`` goes to the values that equal it. Compiled code has rounded that one and computes
    them anew without rounding, in bfloat16: none is equal, and 0 / 0 comes out. Pooling remembers its place.
    """
    if torch.compiler.is_compiling():
        return F.max_pool2d(x, x.shape[2:]).flatten(1)
    return x.amax((2, 3))


class Block(nn.Module):
    """Convolution, pooling, norm, activation; convolution, norm, activation: half the height and width."""

    def __init__(self, inputs: int, outputs: int, activation: str = "gelu") -> None:
        super().__init__()
        self.conv1 = conv3x3(inputs, outputs)
        self.norm1 = norm(outputs)
        self.conv2 = conv3x3(outputs, outputs)
        self.norm2 = norm(outputs)
        self.activation = nn.SiLU() if activation == "silu" else nn.GELU(approximate="tanh")

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, outputs, H // 2, W // 2)."""
        x = max_pool(self.conv1(x))
        x = self.activation(self.norm1(x))
        activated: Tensor = self.activation(self.norm2(self.conv2(x)))
        return activated


def whiten(net: Net, images: Tensor) -> None:
    """Set the first layer so that the 2x2 patches of ``images`` (N, 3, H, W), normalised, come out white.

    Source: Page 2018; Jordan 2024, arXiv:2404.00498, section 3.2.
    """
    patches = images.unfold(2, 2, 1).unfold(3, 2, 1)  # (N, 3, H-1, W-1, 2, 2)
    flat = patches.permute(0, 2, 3, 1, 4, 5).reshape(-1, 12).double()
    values, vectors = torch.linalg.eigh(flat.T @ flat / len(flat))
    filters = (vectors / (values + WHITENING_EPS).sqrt()).T.flip(0).reshape(12, 3, 2, 2)
    net.whitening.weight.data.copy_(torch.cat([filters, -filters]))


def conv3x3(inputs: int, outputs: int) -> Conv3x3:
    """A convolution that starts by passing its input on."""
    conv = Conv3x3(inputs, outputs)
    nn.init.dirac_(conv.weight.data[: conv.in_channels])  # as many filters as there are inputs pass them on
    return conv


def norm(channels: int) -> nn.BatchNorm2d:
    """A norm whose weights stay at 1, and whose biases learn."""
    made = nn.BatchNorm2d(channels, eps=NORM_EPS, momentum=0.4)
    made.weight.requires_grad_(False)
    return made
