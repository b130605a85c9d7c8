"""A drop-in for ``timm.data.Mixup`` and ``FastCollateMixup``, with timm's arguments.

Use it::

    from batchmix.adapters.timm import Mixup

    mixup_fn = Mixup(mixup_alpha=0.2, cutmix_alpha=1.0, num_classes=10)
    for x, target in loader:
        x, target = mixup_fn(x, target)
        loss = SoftTargetCrossEntropy()(model(x), target)

Where is the batch intercepted? Where timm's own is: in the training loop before the model, or in the training
loader's ``collate_fn`` (``FastCollateMixup``).

How is the loss reached? Targets become (B, num_classes) probabilities, smoothed as timm smooths them, for
timm's ``SoftTargetCrossEntropy`` or ``BinaryCrossEntropy``.

How is evaluation left untouched? timm's validation loader and loop have no mixup function; it is only called
in the training loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.utils.data import default_collate

from batchmix.choice import Choice
from batchmix.collate import MixCollate
from batchmix.core.plan import MixPlan, describe
from batchmix.core.sampling import Per, check_alpha, check_choice, check_count, check_probability
from batchmix.core.targets import MixedTarget
from batchmix.errors import MixError, needs
from batchmix.methods.cutmix import CutMix
from batchmix.methods.mixup import Mixup as MixupMixer
from batchmix.methods.mixup import check_needs_no_plan
from batchmix.mixer import Mixer, check_mixer

with needs("timm"):
    from timm.data import FastCollateMixup as TimmFastCollateMixup

__all__ = ["FastCollateMixup", "Mixup"]

Mode = Literal["batch", "pair", "elem"]


class Mixup:
    """mixup, CutMix or both, with the arguments and the targets of ``timm.data.Mixup``.

    Unlike there, batches may be odd and of any dimensions, the input is not modified, partners are drawn
    instead of mirrored, draws come from a seed of their own, and a label's weight is always the share of
    pixels. In mode ``"pair"`` both ``switch_prob`` and the method hold for the batch, ``prob`` for a sample.

    Args:
        mixup_alpha: Shape of mixup's Beta density; mixup is active if > 0.
        cutmix_alpha: Shape of CutMix's Beta density; CutMix is active if > 0.
        cutmix_minmax: Least and largest share of a side that a box takes, in the place of ``cutmix_alpha``.
        prob: Probability of mixing, for a batch in mode ``"batch"``, else for a sample.
        switch_prob: Probability of CutMix where both are active.
        mode: One weight for the ``"batch"``, for each ``"pair"`` of samples or for each ``"elem"``.
        correct_lam: True; a weight that is not the share of pixels is not to be had.
        label_smoothing: Share of the target that is spread over all classes.
        num_classes: Number of classes, K.
        multi_label: Targets are (B, K), smoothed towards 0.5.
        mixup_off_epoch: With ``set_epoch``, the first epoch without mixing; 0 for none.
        mixer: Any method or choice, in the place of all arguments from ``mixup_alpha`` to ``mode``.
        seed: Of all draws; ``torch.initial_seed()`` if left out.

    Attributes:
        mixup_enabled: Set to False to end the mixing; targets stay dense and smoothed.

    Raises:
        MixError: If an argument is not of the form above.

    Example:
        >>> mixup_fn = Mixup(mixup_alpha=0.2, cutmix_alpha=1.0, label_smoothing=0.1, num_classes=10, seed=0)
        >>> x, target = mixup_fn(torch.rand(5, 3, 8, 8), torch.tensor([3, 1, 4, 1, 5]))
        >>> target.shape, target.dtype
        (torch.Size([5, 10]), torch.float32)
    """

    def __init__(
        self,
        mixup_alpha: float = 1.0,
        cutmix_alpha: float = 0.0,
        cutmix_minmax: tuple[float, float] | None = None,
        prob: float = 1.0,
        switch_prob: float = 0.5,
        mode: Mode = "batch",
        correct_lam: bool = True,
        label_smoothing: float = 0.1,
        num_classes: int = 1000,
        multi_label: bool = False,
        *,
        mixup_off_epoch: int = 0,
        mixer: Mixer | None = None,
        seed: int | None = None,
    ) -> None:
        given = (mixup_alpha, cutmix_alpha, cutmix_minmax, prob, switch_prob, mode)
        self.mixer = _mixer_of(*given, seed) if mixer is None else _check_mixer(mixer, given, seed)
        self.targets = _Targets(num_classes, label_smoothing, multi_label)
        _check_correct_lam(correct_lam)
        self.mixup_off_epoch = check_count("mixup_off_epoch", mixup_off_epoch, 0)
        self.mixup_enabled = True

    def __call__(self, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Mix a batch.

        Args:
            x: Samples, (B, ...), floating point (uint8 images with ``normalize``); not modified.
            target: Class ids (B,), or (B, K) where ``multi_label``.

        Returns:
            The mixed samples, and (B, K) float32 targets.

        Raises:
            MixError: If ``x`` or ``target`` are not of this form, or a class id is not below ``num_classes``.
                A CUDA device is not waited for: its own assertion fails at such an id.
        """
        target = self.targets.check(target)
        plan = None if self.mixup_enabled else MixPlan.identity(len(target), target.device)
        x, mixed = self.mixer(x, target, plan=plan)
        return x, self.targets.of(mixed)

    def set_epoch(self, epoch: int) -> None:
        """Call at the start of each epoch for ``mixup_off_epoch`` to be kept; epochs count from 0."""
        check_count("epoch", epoch, 0)
        self.mixup_enabled = not self.mixup_off_epoch or epoch < self.mixup_off_epoch

    def state_dict(self) -> dict[str, int]:
        """All that has to be kept to go on with the same draws: ``{"seed": ..., "step": ...}``."""
        return self.mixer.state_dict()

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on where ``state_dict`` was taken."""
        self.mixer.load_state_dict(state)


class FastCollateMixup(MixCollate, TimmFastCollateMixup):
    """The same in the loader's workers, in the place of ``timm.data.FastCollateMixup``.

    It takes what timm's loaders collate: uint8 arrays or tensors (C, H, W) in 0 to 255, and class ids. Unlike
    there they are made float32 first, still in 0 to 255, so that nothing is rounded: ``create_loader`` with
    ``use_prefetcher=True`` scales them as it does timm's (and moves four times the bytes). Float images are
    taken as they are. A mixer with ``normalize`` takes the uint8 images themselves, for a loader without
    prefetcher, which would normalise them once more.

    ``for x, target in collate.epoch(loader)`` keeps the draws, and the epoch that mixing ends at, the same in
    any number of workers, persistent ones too; see ``batchmix.MixCollate``. Mode ``"half"`` is left out.
    It derives from timm's class only for ``mixup_enabled`` of timm's loaders to find it.

    Args:
        options: All arguments of ``Mixup``, by name.

    Raises:
        MixError: If an argument is not of the form above.

    Example:
        >>> collate = FastCollateMixup(mixup_alpha=0.2, num_classes=10, seed=0)
        >>> x, target = collate([(torch.zeros(3, 8, 8, dtype=torch.uint8), 3)] * 4)
        >>> x.dtype, target.shape
        (torch.float32, torch.Size([4, 10]))
    """

    def __init__(self, **options: Any) -> None:
        self.mixup_fn = Mixup(**options)
        normalizes = self.mixup_fn.mixer.normalize is not None
        collate = _collate if normalizes else _collate_as_float
        super().__init__(self.mixup_fn.mixer, partial(_checked, collate, self.mixup_fn.targets))

    def __call__(self, samples: list[Any], _: Any = None) -> tuple[Tensor, Tensor]:
        """Collate and mix; the second argument is one that timm's loaders give, and is not used."""
        x, target = super().__call__(samples)
        return x, self.mixup_fn.targets.of(target)

    @property
    def mixup_enabled(self) -> bool:
        """Another name of ``enabled``."""
        return self.enabled

    @mixup_enabled.setter
    def mixup_enabled(self, enabled: bool) -> None:
        self.enabled = enabled

    def set_epoch(self, epoch: int) -> None:
        """Call before each pass over the loader for ``mixup_off_epoch`` to be kept; epochs count from 0."""
        self.mixup_fn.set_epoch(epoch)
        self.enabled = self.mixup_fn.mixup_enabled


class _Targets:
    """What timm's losses take: probabilities, smoothed."""

    def __init__(self, num_classes: int, smoothing: float, multi_label: bool) -> None:
        self.num_classes = check_count("num_classes", num_classes)
        self.smoothing = check_probability(smoothing, "label_smoothing")
        self.multi_label = multi_label

    def check(self, target: Any) -> Tensor:
        wanted = f"(B, {self.num_classes}) targets" if self.multi_label else "(B,) class ids"
        if not isinstance(target, Tensor) or target.dim() != 1 + self.multi_label:
            raise MixError(
                f"target takes {wanted} where multi_label={self.multi_label}, got {describe(target)}"
            )
        if self.multi_label:
            return target.float()
        if target.is_floating_point():
            raise MixError(f"target takes {wanted}, whole numbers, got {describe(target)}")
        return target

    def of(self, mixed: MixedTarget) -> Tensor:
        dense = mixed.dense(self.num_classes).float()
        even = 0.5 if self.multi_label else 1 / self.num_classes
        return dense.lerp(torch.full_like(dense, even), self.smoothing)


def _mixer_of(
    mixup_alpha: float,
    cutmix_alpha: float,
    cutmix_minmax: tuple[float, float] | None,
    prob: float,
    switch_prob: float,
    mode: Mode,
    seed: int | None,
) -> Mixer:
    """A method, or a choice of two, for the arguments of timm."""
    check_alpha(mixup_alpha, "mixup_alpha")
    check_alpha(cutmix_alpha, "cutmix_alpha")
    check_probability(prob, "prob")
    check_probability(switch_prob, "switch_prob")
    check_choice("mode", mode, get_args(Mode))
    per: Per = "sample" if mode == "elem" else mode
    options: dict[str, Any] = {"p" if mode == "batch" else "p_sample": prob, "seed": seed}
    cuts = cutmix_alpha > 0 or cutmix_minmax is not None
    if not cuts and mixup_alpha == 0:
        raise MixError.of("mixup_alpha", mixup_alpha, "a number > 0 where cutmix_alpha is 0")
    if not cuts:
        return MixupMixer(mixup_alpha, per=per, fold=False, **options)
    alpha = cutmix_alpha if cutmix_minmax is None else 1.0  # not read where minmax draws the box, but > 0
    if mixup_alpha == 0:
        return CutMix(alpha, per=per, minmax=cutmix_minmax, **options)
    blend, cut = MixupMixer(mixup_alpha, per=per, fold=False), CutMix(alpha, per=per, minmax=cutmix_minmax)
    shares: dict[Mixer, float] = {blend: 1 - switch_prob, cut: switch_prob}
    return Choice(shares, per="sample" if mode == "elem" else "batch", **options)


def _check_mixer(mixer: object, given: tuple[Any, ...], seed: int | None) -> Mixer:
    found = check_needs_no_plan(check_mixer(mixer, "bm.Mixup(0.4)"))
    if given != (1.0, 0.0, None, 1.0, 0.5, "batch") or seed is not None:
        raise MixError("mixer takes the place of mixup_alpha, cutmix_alpha, ..., mode and seed: give one")
    return found


def _check_correct_lam(correct_lam: object) -> None:
    if correct_lam is not True:
        raise MixError.of(
            "correct_lam", correct_lam, "True: a label's weight is always the share of its pixels"
        )


def _checked(
    collate: Callable[[list[Any]], tuple[Tensor, Tensor]], targets: _Targets, samples: list[Any]
) -> tuple[Tensor, Tensor]:
    images, labels = collate(samples)
    return images, targets.check(labels)


def _collate(samples: list[Any]) -> tuple[Tensor, Tensor]:
    images = torch.stack([_tensor(sample[0]) for sample in samples])
    return images, default_collate([sample[1] for sample in samples])


def _tensor(image: Any) -> Tensor:
    try:
        return torch.as_tensor(image)
    except (TypeError, RuntimeError):
        kind = f"{type(image).__module__.partition('.')[0]}.{type(image).__name__}"
        arrays = "arrays or tensors, such as numpy.array(image).transpose(2, 0, 1)"
        raise MixError(f"samples takes images as {arrays}, got {kind}") from None


def _collate_as_float(samples: list[Any]) -> tuple[Tensor, Tensor]:
    images, labels = _collate(samples)
    return images if images.is_floating_point() else images.float(), labels
