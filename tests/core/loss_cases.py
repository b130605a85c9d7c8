"""Torch's losses with the options and shapes that the tests go through."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

IGNORED = -7


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=generator(seed), dtype=torch.float64)


def class_weights(classes: int) -> Tensor:
    return random(classes, seed=99) + 0.25


@dataclass(frozen=True)
class Case:
    """One loss: its function, its module, what the two are given, and what output and targets look like."""

    name: str
    function: Callable[..., Tensor]
    module: Callable[..., nn.Module]
    options: dict[str, Any] = field(default_factory=dict)
    shape: tuple[int, ...] = (6, 5)
    form: str = "classes"
    functional_only: bool = False

    def given(self, dtype: torch.dtype) -> dict[str, Any]:
        """The options, tensors in ``dtype``."""
        return {k: v.to(dtype) if isinstance(v, Tensor) else v for k, v in self.options.items()}

    def output(self, dtype: torch.dtype, seed: int = 0) -> Tensor:
        raw = 4 * random(*self.shape, seed=seed) - 2
        if self.form == "probs":
            return raw.sigmoid().to(dtype)
        if self.form in ("log_probs", "log_dist") or self.function is F.nll_loss:
            return raw.log_softmax(1).to(dtype)
        return raw.to(dtype)

    def target(self, dtype: torch.dtype, seed: int) -> Tensor:
        if self.form == "classes":
            size = (self.shape[0], *self.shape[2:])
            labels = torch.randint(self.shape[1], size, generator=generator(seed))
            ignored = random(*size, seed=seed + 7) < 0.25
            return labels.masked_fill(ignored, IGNORED) if "ignore_index" in self.options else labels
        raw = random(*self.shape, seed=seed)
        if self.form == "values":
            return (3 * raw - 1).to(dtype)
        if self.form in ("dist", "log_dist"):
            dist = (2 * raw).log_softmax(1)
            return (dist if self.form == "log_dist" else dist.exp()).to(dtype)
        return raw.to(dtype)

    def calls(self, reduction: str, dtype: torch.dtype) -> dict[str, Callable[[Any, Any], Tensor]]:
        """The loss in functional and in module form."""
        options = {**self.given(dtype), "reduction": reduction}
        forms = {"functional": quiet(lambda output, target: self.function(output, target, **options))}
        if not self.functional_only:
            forms["module"] = quiet(self.module(**options))
        return forms


def quiet(loss_fn: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Without torch's advice about ``kl_div``'s mean."""

    def call(output: Any, target: Any) -> Tensor:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="reduction: 'mean' divides")
            return loss_fn(output, target)

    return call


def class_cases() -> list[Case]:
    cases = []
    for shape in ((6, 5), (1, 5), (3, 4, 5), (2, 5, 3, 4)):
        weight = class_weights(shape[1])
        for options in ({}, {"weight": weight}, {"ignore_index": IGNORED}):
            cases.append(Case("nll", F.nll_loss, nn.NLLLoss, options, shape))
        for options in (
            {},
            {"weight": weight},
            {"ignore_index": IGNORED},
            {"label_smoothing": 0.1},
            {"weight": weight, "ignore_index": IGNORED, "label_smoothing": 0.2},
        ):
            cases.append(Case("cross_entropy", F.cross_entropy, nn.CrossEntropyLoss, options, shape))
    return cases


def pointwise_cases() -> list[Case]:
    logits = F.binary_cross_entropy_with_logits
    cases = [
        Case("bce", F.binary_cross_entropy, nn.BCELoss, {}, form="probs"),
        Case("bce", F.binary_cross_entropy, nn.BCELoss, {"weight": class_weights(5)}, form="probs"),
        Case("bce_logits", logits, nn.BCEWithLogitsLoss, {}, form="multi_label"),
        Case("bce_logits", logits, nn.BCEWithLogitsLoss, {"weight": class_weights(5)}, form="multi_label"),
        Case(
            "bce_logits", logits, nn.BCEWithLogitsLoss, {"pos_weight": class_weights(5)}, form="multi_label"
        ),
        Case("mse", F.mse_loss, nn.MSELoss, {}, form="values"),
        Case("mse", F.mse_loss, nn.MSELoss, {}, (4, 3, 5, 2), "values"),
        Case("mse", F.mse_loss, nn.MSELoss, {}, (6,), "values"),
        Case("l1", F.l1_loss, nn.L1Loss, {}, form="values"),
        Case("smooth_l1", F.smooth_l1_loss, nn.SmoothL1Loss, {"beta": 0.3}, form="values"),
        Case("huber", F.huber_loss, nn.HuberLoss, {"delta": 0.6}, form="values"),
        Case("kl_div", F.kl_div, nn.KLDivLoss, {}, form="dist"),
        Case("kl_div", F.kl_div, nn.KLDivLoss, {"log_target": True}, form="log_dist"),
    ]
    several = F.multilabel_soft_margin_loss
    weight = {"weight": class_weights(5)}
    cases += [
        Case("poisson", F.poisson_nll_loss, nn.PoissonNLLLoss, {"full": True}, form="values"),
        Case("poisson", F.poisson_nll_loss, nn.PoissonNLLLoss, {"log_input": False}, form="probs"),
        Case("soft_margin", F.soft_margin_loss, nn.SoftMarginLoss, {}, form="values"),
        Case("soft_margin", F.soft_margin_loss, nn.SoftMarginLoss, {}, (6,), "values"),
        Case("several", several, nn.MultiLabelSoftMarginLoss, {}, form="multi_label"),
        Case("several", several, nn.MultiLabelSoftMarginLoss, weight, form="multi_label"),
        *gaussian_cases(),
    ]
    for name, function in (("mse", F.mse_loss), ("huber", F.huber_loss)):
        if "weight" in inspect.signature(function).parameters:  # newer torch only, and not in the modules
            weight = random(6, 5, seed=98) + 0.25
            cases.append(
                Case(name, function, nn.Identity, {"weight": weight}, form="values", functional_only=True)
            )
    return cases


def gaussian_cases() -> list[Case]:
    """With one variance for all places: those of places have a test of their own."""

    def function(output: Any, target: Any, **options: Any) -> Tensor:
        return F.gaussian_nll_loss(output, target, var=0.7, **options)

    class Module(nn.GaussianNLLLoss):
        def forward(self, output: Any, target: Any) -> Tensor:  # type: ignore[override]
            return super().forward(output, target, 0.7)

    return [Case("gaussian", function, Module, {"full": full}, form="values") for full in (False, True)]


def case_id(case: Case) -> str:
    shown = [case.name, "x".join(map(str, case.shape)), *case.options]
    return "-".join(shown)
