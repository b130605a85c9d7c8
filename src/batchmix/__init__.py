"""mixup for every PyTorch training loop: one line to add, any loss unchanged.

>>> import batchmix as bm
>>> mixup = bm.Mixup(alpha=0.4)
"""

from batchmix._version import __version__
from batchmix.choice import Choice
from batchmix.core.blending import blend
from batchmix.core.losses import MixUpLoss, mixed_loss
from batchmix.core.metrics import calibration_error, expected_accuracy
from batchmix.core.plan import MixPlan
from batchmix.core.sampling import sample_lam, sample_partner
from batchmix.core.schedules import off_after, ramp
from batchmix.core.targets import MixedTarget
from batchmix.errors import MixError
from batchmix.methods.cutmix import CutMix
from batchmix.methods.mixup import Mixup
from batchmix.mixer import Mixer

__all__ = [
    "Choice",
    "CutMix",
    "MixError",
    "MixPlan",
    "MixUpLoss",
    "MixedTarget",
    "Mixer",
    "Mixup",
    "__version__",
    "blend",
    "calibration_error",
    "expected_accuracy",
    "mixed_loss",
    "off_after",
    "ramp",
    "sample_lam",
    "sample_partner",
]
