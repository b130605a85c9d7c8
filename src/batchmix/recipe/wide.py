"""The net of the article: WRN-22-6, a wide residual net of 22 layers, six times as wide as the first of them.

Source: Zagoruyko & Komodakis 2016, arXiv:1605.07146; what fastai 1 does otherwise is named where it does so.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

STEM = 16  # channels of the first convolution
BLOCKS = 3  # a group: 18 convolutions in 3 groups, the first one and three shortcuts are the 22 layers
BRANCH = 0.2  # what fastai multiplies the convolved branch by, before the shortcut is added


class WideNet(nn.Module):
    """The net.

    Args:
        widths: Channels of the three groups; WRN-22-6 has 96, 192, 384.
        num_classes: K.

    Shapes: images (B, 3, H, W), normalised; logits (B, K).
    """

    whitening: None = None  # all of its layers learn
    bias_learns = True

    def __init__(self, widths: tuple[int, ...] = (96, 192, 384), num_classes: int = 10) -> None:
        super().__init__()
        self.stem = _conv(3, STEM, 3)
        inputs = (STEM, *widths[:-1])
        self.blocks = nn.Sequential(
            *(
                WideBlock(width if place else before, width, stride=2 if group and not place else 1)
                for group, (before, width) in enumerate(zip(inputs, widths, strict=True))
                for place in range(BLOCKS)
            )
        )
        self.norm = nn.BatchNorm2d(widths[-1])
        self.head = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K) of images (B, 3, H, W)."""
        x = F.relu(self.norm(self.blocks(self.stem(x))))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


class WideBlock(nn.Module):
    """Norm, ReLU, convolution, twice, beside a shortcut; the height and width divided by ``stride``.

    Where channels or size change the shortcut is a convolution of 1x1 behind the first norm.
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = _conv(inputs, outputs, 3, stride)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.conv2 = _conv(outputs, outputs, 3)
        same = inputs == outputs and stride == 1
        self.shortcut = None if same else _conv(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, ceil(H / stride), ceil(W / stride))."""
        active = F.relu(self.norm1(x))
        short: Tensor = x if self.shortcut is None else self.shortcut(active)
        branch: Tensor = self.conv2(F.relu(self.norm2(self.conv1(active))))
        return short + BRANCH * branch


def _conv(inputs: int, outputs: int, side: int, stride: int = 1) -> nn.Conv2d:
    conv = nn.Conv2d(inputs, outputs, side, stride, padding=side // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight)
    return conv
