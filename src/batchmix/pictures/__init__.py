"""Pictures of what mixing does: one pair, the density the weights come from, any batch with its labels.

Every drawing is a ``matplotlib.figure.Figure`` made without pyplot: no display is needed, nothing global is
touched, and ``figure.savefig("pair.png")`` writes it. matplotlib comes with ``pip install 'batchmix[cli]'``.

Source: the pair and the density are the two pictures of Gugger 2018, "Mixup data augmentation", fast.ai.
"""

from __future__ import annotations

from batchmix.pictures.batch import draw_batch
from batchmix.pictures.beta import beta_density, draw_beta
from batchmix.pictures.canvas import write_figure
from batchmix.pictures.labels import label_texts
from batchmix.pictures.methods import draw_methods
from batchmix.pictures.pair import draw_pair

__all__ = [
    "beta_density",
    "draw_batch",
    "draw_beta",
    "draw_methods",
    "draw_pair",
    "label_texts",
    "write_figure",
]
