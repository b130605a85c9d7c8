"""Names for annotations of one's own: what the public functions take.

>>> from batchmix.typing import Kinds
>>> kinds: Kinds = {"mask": "segmentation"}
"""

from batchmix.choice import PerChoice
from batchmix.core.batches import Kind, Kinds
from batchmix.core.box_forms import BoxForm
from batchmix.core.losses import LossFn
from batchmix.core.objects import Objects
from batchmix.core.saliency import Look
from batchmix.core.sampling import Per, PerSample, Policy
from batchmix.core.schedules import Schedule
from batchmix.kernels.selected import Kernel
from batchmix.manifold import Layer
from batchmix.methods.kmixup import PerGroup
from batchmix.mixer import MixerOptions
from batchmix.snapmix import Cam

__all__ = [
    "BoxForm",
    "Cam",
    "Kernel",
    "Kind",
    "Kinds",
    "Layer",
    "Look",
    "LossFn",
    "MixerOptions",
    "Objects",
    "Per",
    "PerChoice",
    "PerGroup",
    "PerSample",
    "Policy",
    "Schedule",
]
