"""The article's claims: what each says, what was done, and what came out."""

from __future__ import annotations

from batchmix.study.article.claim import Claim
from batchmix.study.article.evidence import Evidence
from batchmix.study.article.measured_claims import folding, no_one_hot, one_loader
from batchmix.study.article.trained_claims import better_accuracy, budget_from_which, weight_per_image


def all_claims(evidence: Evidence) -> list[Claim]:
    """Every claim of the article, in the page's order."""
    return [
        better_accuracy(evidence),
        one_loader(evidence),
        no_one_hot(evidence),
        weight_per_image(evidence),
        folding(evidence),
        budget_from_which(evidence),
    ]
