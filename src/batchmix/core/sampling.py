"""Random draws, each from a generator the caller owns: how much to mix, and with whom."""

from __future__ import annotations

import math
import operator
from numbers import Real
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from batchmix.core.plan import describe
from batchmix.errors import MixError

Per = Literal["batch", "pair", "sample"]
PerSample = Literal["batch", "sample"]
Policy = Literal["shuffle", "derangement", "roll", "other-class", "same-class"]


def sample_lam(
    alpha: float,
    batch_size: int,
    *,
    per: Per = "sample",
    fold: bool = True,
    partner: Tensor | None = None,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Draw mixing weights from Beta(alpha, alpha).

    The larger ``alpha``, the closer to half and half; at 0 nothing is mixed and every weight is 1.
    The draw is made in log space, so that it is finite for any ``alpha`` that is.

    Args:
        alpha: Shape of the Beta density, >= 0.
        batch_size: B, at least 1.
        per: One draw for the ``"batch"``, for each ``"pair"`` of mutual partners or for each ``"sample"``.
        fold: Replace each draw by ``max(lam, 1-lam)``: the larger weight stays with the sample itself, and
            the mixes (i, j) and (j, i) of one batch are never the same image.
        partner: (B,) int64 with ``partner[partner[i]] == i``; needed, and used, where ``per="pair"``.
        generator: Source of randomness, on ``device``; the global one if left out.
        device: Where to draw; the generator's device if left out, else the CPU.

    Returns:
        (B,) float32 in [0, 1], in [0.5, 1] where folded.

    Raises:
        MixError: If an argument is not of the form above.

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> lam = sample_lam(0.4, 4, generator=g)
        >>> lam.shape, bool((lam >= 0.5).all())
        (torch.Size([4]), True)

    Source: Zhang et al. 2018, arXiv:1710.09412, section 2; per sample and folded: Gugger 2018, fast.ai.
    """
    alpha = check_alpha(alpha)
    batch_size = check_count("batch_size", batch_size)
    check_choice("per", per, get_args(Per))
    device = _device_of(generator, device)
    if per == "pair" and (not isinstance(partner, Tensor) or partner.shape != (batch_size,)):
        raise MixError(
            f"partner takes the ({batch_size},) mutual partners where per='pair', got {describe(partner)}"
        )
    if alpha == 0:
        return torch.ones(batch_size, dtype=torch.float32, device=device)
    lam = _sample_beta(alpha, 1 if per == "batch" else batch_size, generator, device)
    if fold:
        lam = torch.maximum(lam, 1 - lam)
    if per == "pair" and partner is not None:
        # Both members of a pair read the draw at the smaller of their two places.
        return lam[torch.minimum(partner, torch.arange(batch_size, device=device))]
    return lam.expand(batch_size).contiguous() if per == "batch" else lam


def sample_partner(
    batch_size: int,
    policy: Policy = "shuffle",
    *,
    mutual: bool = False,
    labels: Tensor | None = None,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Draw who is mixed with whom; but for the policies by class, every sample is the partner of exactly one.

    Args:
        batch_size: B, at least 1.
        policy: ``"shuffle"``, a uniform permutation, in which a sample can be its own partner;
            ``"derangement"``, one in which it can't (a uniform draw among the cyclic ones);
            ``"roll"``, the previous sample, without randomness;
            ``"other-class"`` and ``"same-class"``, any of the samples of another label, or of the same one;
            where there is none, the sample itself. (It takes B*B numbers.)
        mutual: Partners in couples, ``partner[partner[i]] == i``; of an odd batch one sample stays alone.
            Only with ``"shuffle"``.
        labels: (B,) class ids, for the policies by class.
        generator: Source of randomness, on ``device``; the global one if left out.
        device: Where to draw; the generator's device if left out, else the CPU.

    Returns:
        (B,) int64, a permutation unless by class.

    Raises:
        MixError: If an argument is not of the form above.

    Example:
        >>> sample_partner(4, "roll")
        tensor([3, 0, 1, 2])
    """
    batch_size = check_count("batch_size", batch_size)
    check_choice("policy", policy, get_args(Policy))
    device = _device_of(generator, device)
    if mutual and policy != "shuffle":
        raise MixError(f"policy takes 'shuffle' where partners are mutual (per='pair'), got {policy!r}")
    if policy in ("other-class", "same-class"):
        return _sample_by_class(batch_size, policy, labels, generator, device)
    if policy == "roll":
        return torch.arange(batch_size, device=device).roll(1)
    order = torch.randperm(batch_size, generator=generator, device=device)
    if policy == "shuffle" and not mutual:
        return order
    # A random order of the batch, read as one ring (each takes the next) or as couples.
    place = torch.arange(batch_size, device=device)
    neighbour = (place ^ 1).clamp(max=batch_size - 1) if mutual else place.roll(-1)
    return torch.empty_like(order).scatter_(0, order, order[neighbour])


def _sample_by_class(
    batch_size: int,
    policy: str,
    labels: Tensor | None,
    generator: torch.Generator | None,
    device: torch.device,
) -> Tensor:
    """The place of the largest of B random numbers, of which only those of allowed partners are above 0."""
    if not isinstance(labels, Tensor) or labels.dim() != 1 or labels.is_floating_point():
        raise MixError(f"y takes class ids (B,) where partner={policy!r}, got {describe_target(labels)}")
    if len(labels) != batch_size:
        raise MixError(
            f"y takes one class id a sample where partner={policy!r}, {batch_size}, got {len(labels)}"
        )
    labels = labels.to(device)
    same = labels.unsqueeze(1) == labels.unsqueeze(0)
    own = torch.eye(len(labels), dtype=torch.bool, device=device)
    allowed = same & ~own if policy == "same-class" else ~same
    drawn = torch.rand(allowed.shape, generator=generator, dtype=torch.float32, device=device)
    score = (1 - drawn) * allowed
    return torch.where(allowed.any(1), score.argmax(1), torch.arange(len(labels), device=device))


def describe_target(y: object) -> str:
    """Say what the targets are that partners are chosen by; of several nobody has said which."""
    if y is None:
        return "none or several: mixer(x, y, plan=mixer.plan(x, labels)) says which"
    return describe(y)


def check_alpha(alpha: object, name: str = "alpha") -> float:
    """Return ``alpha`` as a float, or raise a MixError that names it."""
    if isinstance(alpha, bool) or not isinstance(alpha, Real):
        raise MixError(f"{name} takes a number >= 0, got {describe(alpha)}")
    if not math.isfinite(alpha) or alpha < 0:
        raise MixError(f"{name} takes a finite number >= 0, got {alpha}")
    return float(alpha)


def check_positive(value: object, name: str, takes: str) -> float:
    """Return a finite number above 0 as a float, or raise a MixError that says what ``name`` takes."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) < math.inf:
        raise MixError.of(name, value, takes)
    return float(value)


def check_probability(p: object, name: str = "p") -> float:
    """Return ``p`` as a float, or raise a MixError that names it."""
    if isinstance(p, bool) or not isinstance(p, Real):
        raise MixError(f"{name} takes a probability in [0, 1], got {describe(p)}")
    if not 0 <= float(p) <= 1:
        raise MixError(f"{name} takes a probability in [0, 1], got {p}")
    return float(p)


def check_choice(name: str, got: object, choices: tuple[str, ...]) -> None:
    """Raise a MixError unless ``got`` is one of ``choices``."""
    if got not in choices:
        raise MixError(f"{name} takes one of {', '.join(map(repr, choices))}, got {got!r}")


def check_flag(name: str, got: object) -> bool:
    """Return ``got``, or raise a MixError unless it is a boolean."""
    if not isinstance(got, bool):
        raise MixError.of(name, got, "True or False")
    return got


def check_count(name: str, got: Any, least: int = 1, most: int | None = None) -> int:
    """Return ``got``, also one of numpy's, as an int, or raise a MixError unless it lies between the two."""
    try:
        count = operator.index(got)
    except TypeError:
        count = least - 1
    if count < least or (most is not None and count > most) or isinstance(got, bool):
        within = f">= {least}" if most is None else f"from {least} to {most}"
        raise MixError.of(name, got, f"a whole number {within}")
    return count


def _device_of(generator: torch.Generator | None, device: torch.device | str | None) -> torch.device:
    """Where to draw; the two must agree, since torch can't draw on one device from another's generator."""
    if generator is None:
        return torch.device("cpu" if device is None else device)
    if device is None:
        return generator.device
    wanted = torch.device(device)
    same_index = None in (wanted.index, generator.device.index) or wanted.index == generator.device.index
    if wanted.type != generator.device.type or not same_index:
        raise MixError(f"generator takes one on {wanted}, got one on {generator.device}")
    return wanted


def _sample_beta(alpha: float, count: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """Draw from Beta(alpha, alpha), (count,) float32.

    ``torch.distributions.Beta`` takes no generator, and a ratio of Gamma(alpha) draws is 0/0 for a small
    alpha. Gamma(alpha) is Gamma(alpha+1) times U**(1/alpha) in distribution; the ratio is taken in logs.
    """
    alpha = min(max(alpha, 1e-30), 1e30)  # beyond, float32 ends; the density is at its limit long before
    shape = torch.full((2, count), alpha + 1, dtype=torch.float32, device=device)
    uniform = 1 - torch.rand(  # in (0, 1]: the log is finite
        2, count, generator=generator, dtype=torch.float32, device=device
    )
    # For a batch the work is less than the calls, each of which finds its code outside of the cache.
    gamma, other_gamma = torch._standard_gamma(shape, generator=generator).log().unbind()
    one, other = uniform.log().unbind()
    return torch.sigmoid((gamma - other_gamma) + (one - other) / alpha)
