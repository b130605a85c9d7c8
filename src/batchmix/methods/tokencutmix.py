"""Token CutMix: a span of a sequence's tokens is replaced by the partner's tokens at the same places.

How to use: ``x, y = TokenCutMix(1.0)(x, y)``, where ``x`` is token ids (B, T), embeddings (B, T, E), or a
dict such as ``{"input_ids": ..., "attention_mask": ...}``; or ``special=[0, 101, 102]`` for the ids of
padding, start and end, which are neither cut nor counted. ``TokenCutMix(1.0).mix(batch)`` takes all that a
tokenizer gives, with its labels. Of lengths (B,) the attention mask is
``torch.arange(T) < lengths[:, None]``. ``between`` takes embeddings alone.

Suggested values: ``alpha`` 1, on part of the batches (``p=0.5``).

Technical details: the span covers a share ``1 - lam``, ``lam ~ Beta(alpha, alpha)``, of the sample's valid
tokens, and only places where the partner has a valid token too, so that lengths and attention masks stay what
they are. The label's weight is the exact share of the sample's valid tokens that stay: the mean of the mask
over valid positions, not over all. Ids are pasted and never blended. What else has a value for each token
(labels of tokens, as kind "segmentation") is pasted with them. Departures from the papers: the span is drawn
at random and not by saliency, and stands at the same place in both; its length is drawn too, and may be 0,
where SSMix replaces a fixed share of the tokens, a tenth in the authors' code, and one at least.

Paper: Yoon et al. 2021, SSMix: Saliency-Based Span Mixup for Text Classification, arXiv:2106.08062; Yun et
al. 2019, CutMix, arXiv:1905.04899.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, get_args

import torch
from torch import Tensor
from typing_extensions import Unpack

from batchmix.core.applying import apply_plan
from batchmix.core.batches import Kinds, Leaf, lead_of, target_of
from batchmix.core.masks import draw_partners, who_stays
from batchmix.core.plan import MixPlan, describe
from batchmix.core.sampling import Policy, check_alpha, check_choice, check_flag, sample_lam
from batchmix.core.whole import paste
from batchmix.errors import MixError
from batchmix.mixer import Mixer, MixerOptions

OF_TOKENS: tuple[str, ...] = ("input_ids", "token_type_ids")
"""What tokenizers call their ids, each of a token."""


class TokenCutMix(Mixer):
    """CutMix of sequences of different lengths.

    The plan's mask is (B, T), true where a position is the sample's own; its ``lam`` is the mask's mean over
    the sample's valid positions.

    Args:
        alpha: Shape of the Beta density, >= 0; 0 mixes nothing.
        fold: ``lam = max(lam, 1-lam)``: no span covers more than half of the tokens.
        special: Token ids that are never cut and do not count, such as padding, start and end. They are
            looked for in ``input_ids`` where an input has that name, else in the first of most dimensions.
        partner: ``"shuffle"``, ``"derangement"``, ``"roll"``, ``"other-class"`` or ``"same-class"``.
        options: ``p``, ``p_sample``, ``schedule`` and ``seed``, as for ``Mixer``.

    Raises:
        MixError: If an argument is not of the form above, or an input is not a sequence.

    Example:
        >>> cutmix = TokenCutMix(alpha=1.0, special=[0], seed=0)
        >>> ids = torch.tensor([[5, 6, 7, 8], [1, 2, 0, 0], [3, 4, 9, 0]])
        >>> mixed, y = cutmix(ids, torch.tensor([0, 1, 2]))
        >>> bool(((mixed == 0) == (ids == 0)).all())  # lengths stay
        True

    Source: Yoon et al. 2021, arXiv:2106.08062, section 2, with spans at random.
    """

    takes: ClassVar[str] = "token sequences"

    pastes: ClassVar[bool] = True

    whole_plan: ClassVar[bool] = False  # attention masks take part

    hyperparameters: ClassVar[tuple[str, ...]] = ("alpha",)

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        fold: bool = False,
        special: Sequence[int] = (),
        partner: Policy = "shuffle",
        **options: Unpack[MixerOptions],
    ) -> None:
        self.alpha = check_alpha(alpha)
        whole = isinstance(special, (list, tuple)) and all(type(token) is int for token in special)
        if not whole:
            raise MixError.of("special", special, "a list of token ids")
        check_choice("partner", partner, get_args(Policy))
        self.fold = check_flag("fold", fold)
        self.special = tuple(special)
        self.partner = partner
        super().__init__(**options)

    def _kinds_of(self, x: Any, kinds: Kinds | None) -> Kinds:
        """All of ``x`` but an attention mask has a value for each token, but for what the user names."""
        return {"x": "input", **(kinds or {})}

    def _kinds_in(self, batch: Any, kinds: Kinds | None) -> Kinds:
        """Ids of tokens are known by the names that tokenizers give them."""
        named = [name for name in OF_TOKENS if isinstance(batch, Mapping) and name in batch]
        return {**dict.fromkeys(named, "input"), **(kinds or {})}

    def plan(
        self,
        x: Tensor,
        y: Tensor | None = None,
        *,
        attention_mask: Tensor | None = None,
        step: int | None = None,
    ) -> MixPlan:
        """Draw the next plan for sequences ``x``; ``attention_mask`` (B, T) is 0 where they have no token.

        See ``Mixer.plan``.
        """
        if isinstance(x, Tensor) and x.dim():
            x = self._valid(x)
            if attention_mask is not None:
                x = x & _in_use("attention_mask", attention_mask, x)
        return super().plan(x, y, step=step)

    def sample(
        self,
        x: Tensor,
        y: Tensor | None = None,
        *,
        between: bool = False,
        generator: torch.Generator,
        **settings: float,
    ) -> MixPlan:
        """Draw partners, then lengths of spans, then their places. See ``Mixer.sample``.

        A boolean ``x`` (B, T) says where the valid tokens are.
        """
        valid = self._valid(x).to(generator.device)
        count = len(valid)
        partner = draw_partners(valid, y, self.partner, per="sample", between=between, generator=generator)
        lam = sample_lam(settings["alpha"], count, fold=self.fold, generator=generator)
        common, tokens = valid & valid[partner], valid.sum(1)
        cut = ((1 - lam) * tokens).floor().long().minimum(common.sum(1))
        own = who_stays(partner, per="sample", between=between)
        if own is not None:
            cut = cut.masked_fill(own, 0)
        room = common.sum(1) - cut + 1
        drawn = torch.rand(count, generator=generator, dtype=torch.float64, device=generator.device)
        start = (drawn * room).floor().long().minimum(room - 1).unsqueeze(1)
        place = common.cumsum(1) - 1  # among the positions that are valid in both
        inside = common & (place >= start) & (place < start + cut.unsqueeze(1))
        kept = 1 - cut.double() / tokens.clamp(min=1)
        return MixPlan(partner, kept.float(), ~inside)

    def _valid(self, x: Tensor) -> Tensor:
        """(B, T) bool, true where there is a token that may be cut."""
        if x.dim() not in (2, 3) or (x.dim() == 3 and not x.is_floating_point()):
            raise MixError(f"x takes token ids (B, T) or embeddings (B, T, E), got {describe(x)}")
        if x.dtype == torch.bool:
            return x
        valid = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        if not x.is_floating_point():
            for token in self.special:
                valid = valid & (x != token)
        return valid

    def _draw_for(self, leaves: list[Leaf], step: int | None) -> MixPlan | None:
        """A plan for the tokens that are in use in every attention mask."""
        valid = self._valid(_ids_of(leaves))
        for leaf in leaves:
            if leaf.kind == "attention_mask":
                valid = valid & _in_use(leaf.path, leaf.value, valid)
        return self._draw(valid, target_of(leaves), step=step)

    def _apply(self, leaves: list[Leaf], plan: MixPlan) -> dict[str, Any]:
        """One plan for all that has a value for each token; attention masks hold for the mix as they are."""
        if plan.mask is None or plan.mask.dim() != 2 or plan.mask.dtype != torch.bool:
            raise MixError(f"plan takes one with a boolean mask (B, T), got {describe(plan.mask)}")
        return {leaf.path: _apply_to(leaf, plan, plan.mask) for leaf in leaves}


def _ids_of(leaves: list[Leaf]) -> Tensor:
    """The input in which special tokens are looked for: the one named ``input_ids``, else the leading one."""
    named = [leaf for leaf in leaves if leaf.kind == "input" and leaf.path.rpartition(".")[2] == "input_ids"]
    return lead_of(named or leaves)


def _in_use(name: str, attention_mask: Any, valid: Tensor) -> Tensor:
    if not isinstance(attention_mask, Tensor) or attention_mask.shape != valid.shape:
        raise MixError(
            f"{name} takes a tensor of x's size, {tuple(valid.shape)}, got {describe(attention_mask)}"
        )
    return attention_mask != 0


def _apply_to(leaf: Leaf, plan: MixPlan, mask: Tensor) -> Any:
    if leaf.kind == "attention_mask":
        return leaf.value
    if leaf.kind in ("input", "segmentation"):
        if leaf.value.shape[:2] != mask.shape:
            raise MixError(
                f"{leaf.path} takes a value for each token, {tuple(mask.shape)}, or "
                f"kinds={{'{leaf.path}': 'pass'}}, got {describe(leaf.value)}"
            )
        return paste(leaf.value, mask, plan.partner)
    labels = {"class": 2, "soft": 3}.get(leaf.kind)  # dimensions from which on they can be the tokens' own
    if labels is not None and leaf.value.dim() >= labels and leaf.value.shape[1] == mask.shape[1]:
        raise MixError(
            f"{leaf.path} takes a kind, 'segmentation' for labels of tokens or 'multilabel' for those of the "
            f"whole, got {describe(leaf.value)}"
        )
    return apply_plan(leaf, plan)
