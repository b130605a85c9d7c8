"""Real data sets: where they come from, how they are checked, how they reach NumPy.

A leaf of the library: NumPy, Pillow, rich and the standard library, never torch.
"""

from __future__ import annotations

from batchmix.errors import needs

with needs("cli"):
    from batchmix.data.cifar10 import CIFAR10_CLASSES, Cifar10, load_cifar10
    from batchmix.data.image_sets import ImageSet, load_images

__all__ = ["CIFAR10_CLASSES", "Cifar10", "ImageSet", "load_cifar10", "load_images"]
