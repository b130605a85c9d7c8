"""C-Mixup: regression targets are mixed with those near them.

How to use: ``x, y = CMixup(2.0, sigma=0.5)(x, y)`` with values ``y`` (B,) or (B, D), then a squared error,
``F.mse_loss(model(x), y)``. For any other loss see the departures.

Suggested values: ``alpha`` 0.5 to 2. ``sigma`` is in the units of the labels: start at a tenth to one
standard deviation of them; a very large one is plain mixup, a very small one mixes with the nearest alone.

Technical details: sample j is the partner of sample i with a probability proportional to
``exp(-|y[i] - y[j]|**2 / (2*sigma**2))``. Departures from the paper: partners are drawn from the batch and
not from the whole training set; a sample is not drawn as its own partner, which would leave it unmixed (what
the others' probabilities are to each other stays the same); each sample has a ``lam`` of its own; and the
loss is that of both labels, by their weights, where the paper's is that of one label between them. A squared
error has the same gradient in both forms. Others have not: an absolute error is least at the label of the
larger weight, and a Gaussian likelihood takes ``lam*(1-lam)*(a-b)**2`` for variance. The published form, for
any loss: ``plan = mixer.plan(x, y)``, then ``x, y = bm.blend(x, plan), bm.blend(y, plan)``. Partners are not
a permutation: one sample can be the partner of several. The draw takes B*B numbers.

Paper: Yao et al. 2022, C-Mixup: Improving Generalization in Regression, arXiv:2210.05775.
"""

from __future__ import annotations

import math
from typing import ClassVar, get_args

import torch
from torch import Tensor
from typing_extensions import Unpack

from batchmix.core.masks import plan_of_weights
from batchmix.core.plan import MixPlan
from batchmix.core.sampling import (
    PerSample,
    check_alpha,
    check_choice,
    check_flag,
    check_positive,
    describe_target,
    sample_lam,
)
from batchmix.errors import MixError
from batchmix.mixer import Mixer, MixerOptions


class CMixup(Mixer):
    """mixup for regression, with partners of a similar label.

    Row i becomes ``lam[i]*x[i] + (1-lam[i])*x[partner[i]]``; the nearer the label of a sample, the likelier
    it is the partner. Between two batches the partner of sample i is sample i, whatever the labels.

    Args:
        alpha: Shape of the Beta density, >= 0; 0 mixes nothing.
        sigma: Bandwidth of the Gaussian kernel, > 0, in the units of the labels.
        per: A ``lam`` for each ``"sample"``, or for the ``"batch"``.
        fold: ``lam = max(lam, 1-lam)``.
        options: ``p``, ``p_sample``, ``schedule``, ``seed``, ``rank`` and ``normalize``, as for ``Mixer``.

    Raises:
        MixError: If an argument is not of the form above, or there are no values ``y`` to choose partners by.

    Example:
        >>> cmixup = CMixup(alpha=2.0, sigma=0.5, seed=0)
        >>> x, y = cmixup(torch.rand(4, 5), torch.tensor([0.0, 0.1, 9.0, 9.1]))
        >>> y.b
        tensor([0.1000, 0.0000, 9.1000, 9.0000])

    Source: Yao et al. 2022, arXiv:2210.05775, eq. 6 and algorithm 1.
    """

    takes: ClassVar[str] = "samples with values as targets"

    reads_pixels: ClassVar[bool] = False

    hyperparameters: ClassVar[tuple[str, ...]] = ("alpha",)

    def __init__(
        self,
        alpha: float = 2.0,
        *,
        sigma: float = 1.0,
        per: PerSample = "sample",
        fold: bool = False,
        **options: Unpack[MixerOptions],
    ) -> None:
        self.alpha = check_alpha(alpha)
        check_choice("per", per, get_args(PerSample))
        self.sigma = check_positive(sigma, "sigma", "a finite number > 0, in the units of the labels")
        self.per = per
        self.fold = check_flag("fold", fold)
        super().__init__(**options)

    def sample(
        self,
        x: Tensor,
        y: Tensor | None = None,
        *,
        between: bool = False,
        generator: torch.Generator,
        **settings: float,
    ) -> MixPlan:
        """Draw partners by their labels, then weights. See ``Mixer.sample``."""
        count = len(x)
        own = torch.arange(count, device=generator.device)
        partner = own if between else sample_near(y, self.sigma, generator=generator)
        lam = sample_lam(settings["alpha"], count, per=self.per, fold=self.fold, generator=generator)
        return plan_of_weights(partner, lam, per=self.per, between=between)


def sample_near(y: Tensor | None, sigma: float, *, generator: torch.Generator) -> Tensor:
    """Another sample for each, the likelier the nearer its label.

    The largest of ``log(weight) + Gumbel noise`` is a draw in proportion to the weights, and stays one where
    every weight is too small for a float.

    Args:
        y: (B,) or (B, D), floating point.
        sigma: Bandwidth of the Gaussian kernel.
        generator: Source of randomness.

    Returns:
        (B,) int64; the sample itself where there is no other. A sample whose label is NaN is nobody's
        partner, as long as there are others.
    """
    if not isinstance(y, Tensor) or y.dim() not in (1, 2) or not y.is_floating_point():
        raise MixError(
            "y takes values (B,) or (B, D), floating point, by whose distance partners are chosen, "
            f"got {describe_target(y)}"
        )
    values = y.to(generator.device).double().reshape(len(y), -1)  # in this order: y's device may lack float64
    # Not by a matrix product: it would lose small distances between large values.
    distance = torch.cdist(values, values, compute_mode="donot_use_mm_for_euclid_dist")
    uniform = torch.rand(distance.shape, generator=generator, dtype=torch.float64, device=generator.device)
    gumbel = -torch.log(-torch.log1p(-uniform).clamp(max=-1e-300))
    score = gumbel - distance.square() / (2 * sigma**2)
    score = score.masked_fill(score.isnan(), -math.inf)  # argmax would take NaN for the largest
    return score.fill_diagonal_(-math.inf).argmax(1)
