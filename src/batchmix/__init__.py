"""mixup for every PyTorch training loop: one line to add, any loss unchanged.

>>> import batchmix as bm
>>> mixup = bm.Mixup(alpha=0.4)
"""

from batchmix._version import __version__
from batchmix.choice import Choice
from batchmix.collate import MixCollate
from batchmix.core.attention import reweigh
from batchmix.core.blending import blend
from batchmix.core.losses import MixUpLoss, mixed_loss
from batchmix.core.metrics import calibration_error, expected_accuracy
from batchmix.core.normalizing import Normalize
from batchmix.core.objects import mix_objects
from batchmix.core.plan import MixPlan
from batchmix.core.ranks import from_next_rank
from batchmix.core.sampling import sample_lam, sample_partner
from batchmix.core.schedules import off_after, ramp
from batchmix.core.targets import MixedTarget
from batchmix.errors import MixError
from batchmix.kernels.selected import kernel
from batchmix.manifold import ManifoldMixup
from batchmix.methods.attentivecutmix import AttentiveCutMix
from batchmix.methods.cmixup import CMixup
from batchmix.methods.cutmix import CutMix
from batchmix.methods.energymixup import EnergyMixup
from batchmix.methods.fmix import FMix
from batchmix.methods.gridmix import GridMix
from batchmix.methods.kmixup import KMixup
from batchmix.methods.mixup import Mixup
from batchmix.methods.resizemix import ResizeMix
from batchmix.methods.saliencymix import SaliencyMix
from batchmix.methods.smoothmix import SmoothMix
from batchmix.methods.specmix import SpecMix
from batchmix.methods.tabularcutmix import TabularCutMix
from batchmix.methods.tokencutmix import TokenCutMix
from batchmix.methods.transmix import TransMix
from batchmix.mixer import Mixer
from batchmix.regmixup import RegMixup
from batchmix.snapmix import SnapMix

__all__ = [
    "AttentiveCutMix",
    "CMixup",
    "Choice",
    "CutMix",
    "EnergyMixup",
    "FMix",
    "GridMix",
    "KMixup",
    "ManifoldMixup",
    "MixCollate",
    "MixError",
    "MixPlan",
    "MixUpLoss",
    "MixedTarget",
    "Mixer",
    "Mixup",
    "Normalize",
    "RegMixup",
    "ResizeMix",
    "SaliencyMix",
    "SmoothMix",
    "SnapMix",
    "SpecMix",
    "TabularCutMix",
    "TokenCutMix",
    "TransMix",
    "__version__",
    "blend",
    "calibration_error",
    "expected_accuracy",
    "from_next_rank",
    "kernel",
    "mix_objects",
    "mixed_loss",
    "off_after",
    "ramp",
    "reweigh",
    "sample_lam",
    "sample_partner",
]
