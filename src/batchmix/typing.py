"""Names for annotations of one's own: what the public functions take.

>>> from batchmix.typing import Kinds
>>> kinds: Kinds = {"mask": "segmentation"}
"""

from batchmix.core.batches import Kind, Kinds
from batchmix.core.losses import LossFn
from batchmix.core.objects import BoxForm
from batchmix.core.sampling import Per, Policy
from batchmix.core.schedules import Schedule
from batchmix.mixer import MixerOptions

__all__ = ["BoxForm", "Kind", "Kinds", "LossFn", "MixerOptions", "Per", "Policy", "Schedule"]
