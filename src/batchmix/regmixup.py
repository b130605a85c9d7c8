"""RegMixup: the net sees each batch clean and mixed, and the loss of the mixed half is a regulariser.

How to use: around any mixer, ``regmixup = RegMixup(Mixup(10.0, fold=False))``, then
``x, target = regmixup(x, y)`` and ``loss = regmixup.loss(F.cross_entropy, model(x), target)``, with whatever
loss you have. The batch is twice as long: the clean samples, then the mixed ones.
Suggested values: ``alpha`` 10 to 20, ``eta`` 1.
Technical details: ``loss`` is ``loss_fn(clean) + eta * loss_fn(mixed)``, the paper's equation; with a plain
target it is the plain loss, so that evaluation needs no other code. The target is a MixedTarget of length 2B
whose first half has ``lam`` 1, so that ``F.cross_entropy(model(x), target)`` works too, which is what the
authors' code computes: one mean over all 2B, half of the equation at ``eta`` 1, so that a learning rate of
theirs goes with it. (Half for a plain mean: class weights and ignored labels weigh the halves otherwise, and
``reduction="sum"`` gives the whole.) Both halves go through the net at once and share the statistics of batch
normalisation. A batch that the mixer leaves alone (its ``p``) is doubled all the same, so that steps stay
alike. Departure from the paper: a weight for each sample where the mixer says so; the paper has one for the
batch, ``per="batch"``.
Paper: Pinto, Yang, Lim, Torr and Dokania 2022, RegMixup: Mixup as a Regularizer Can Surprisingly Improve
Accuracy and Out Distribution Robustness, arXiv:2206.14502.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from batchmix.core.losses import LossFn, mixed_loss
from batchmix.core.plan import MixPlan, describe
from batchmix.core.sampling import check_alpha
from batchmix.core.targets import MixedTarget
from batchmix.errors import MixError
from batchmix.mixer import Mixer, check_mixer


class RegMixup:
    """The clean batch and its mixed version, one after the other; and the loss of both.

    Args:
        mixer: Makes the mixed half.
        eta: Weight of the mixed half's loss, >= 0.

    Raises:
        MixError: If an argument is not of the form above.

    Example:
        >>> import batchmix as bm
        >>> regmixup = RegMixup(bm.Mixup(10.0, fold=False, seed=0))
        >>> x, target = regmixup(torch.rand(8, 3, 32, 32), torch.randint(10, (8,)))
        >>> x.shape, len(target)
        (torch.Size([16, 3, 32, 32]), 16)
        >>> loss = regmixup.loss(torch.nn.functional.cross_entropy, torch.zeros(16, 10), target)

    Source: Pinto et al. 2022, arXiv:2206.14502.
    """

    def __init__(self, mixer: Mixer, *, eta: float = 1.0) -> None:
        self.mixer = check_mixer(mixer, "Mixup(10.0)")
        self.eta = check_alpha(eta, "eta")

    def __call__(
        self, x: Tensor, y: Tensor, *, plan: MixPlan | None = None, step: int | None = None
    ) -> tuple[Tensor, MixedTarget]:
        """The batch twice: as it is, then mixed.

        Args:
            x: Samples, (B, ...), floating point; uint8 images where the mixer normalises them.
            y: Targets, (B, ...).
            plan: Replay this draw, of ``regmixup.mixer.plan(x)``, without a new one.
            step: Draw as at this step; the mixer's own stays.

        Returns:
            (2B, ...) samples and their MixedTarget.

        Raises:
            MixError: If ``x`` and ``y`` are not one batch of tensors.
        """
        for name, part in (("x", x), ("y", y)):
            if not isinstance(part, Tensor):
                raise MixError(f"{name} takes a tensor (B, ...), got {describe(part)}")
        mixed, target = self.mixer(x, y, plan=plan, step=step)
        x = x if self.mixer.normalize is None else self.mixer.normalize(x)
        if not isinstance(target, MixedTarget):  # class ids of positions, pasted as the pixels are
            target = MixedTarget(target, target, 1.0)
        lam = torch.cat([torch.ones_like(target.lam), target.lam])
        return torch.cat([x, mixed]), MixedTarget(torch.cat([y, target.a]), torch.cat([y, target.b]), lam)

    def loss(self, loss_fn: LossFn, output: Any, target: Any) -> Tensor:
        """``loss_fn(clean half) + eta * loss_fn(mixed half)``; of a plain target, the plain loss.

        Args:
            loss_fn: Called as ``loss_fn(output, target)``; for the mixed half see ``mixed_loss``.
            output: Of the model for both halves, (2B, ...).
            target: What the call returned, or a plain target, as in evaluation.

        Returns:
            What ``loss_fn`` returns, 0-d, or (B,) where it returns one value a sample.

        Raises:
            MixError: If output and target are not of the same even length, or, asked on a CPU alone, the
                first half is not clean.
        """
        if not isinstance(target, MixedTarget):
            return loss_fn(output, target)
        if not isinstance(output, Tensor) or len(output) != len(target):
            raise MixError(f"output takes a tensor of {len(target)} samples, got {describe(output)}")
        if len(target) % 2:
            raise MixError(f"target takes a clean and a mixed half, got {len(target)} samples")
        half = len(target) // 2
        on_cpu = target.lam.device.type == "cpu" and not torch.compiler.is_compiling()
        if on_cpu and not bool((target.lam[:half] == 1).all()):
            raise MixError(
                "target takes all that one call returned, its clean half first, got mixed samples there: "
                "split the batch before the call, not after it"
            )
        clean = loss_fn(output[:half], target.a[:half])
        return clean + self.eta * mixed_loss(loss_fn, output[half:], target[half:])

    def state_dict(self) -> dict[str, int]:
        """All that has to be kept to go on with the same draws: ``{"seed": ..., "step": ...}``."""
        return self.mixer.state_dict()

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on where ``state_dict`` was taken."""
        self.mixer.load_state_dict(state)

    def __repr__(self) -> str:
        return f"RegMixup({self.mixer!r}, eta={self.eta})"
