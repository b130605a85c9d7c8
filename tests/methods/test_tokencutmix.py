from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import reference
from batchmix import MixError, Mixup
from batchmix.methods.tokencutmix import TokenCutMix
from refusals import assert_named

LENGTHS = [9, 4, 1, 0, 7, 9]
T = 10


def batch(lengths: list[int] = LENGTHS, left: bool = False) -> tuple[Tensor, Tensor]:
    """Ids from 1 and a mask; padding is 0."""
    place = torch.arange(T).flip(0) if left else torch.arange(T)
    mask = place < torch.tensor(lengths).unsqueeze(1)
    ids = torch.randint(1, 1000, mask.shape, generator=torch.Generator().manual_seed(0)) * mask
    return ids, mask.long()


@pytest.mark.parametrize("left", [False, True])
def test_a_span_of_tokens_that_both_have_is_the_partners(left: bool) -> None:
    ids, mask = batch(left=left)
    y = torch.arange(6)
    cut_somewhere = False
    for seed in range(60):
        plan = TokenCutMix(seed=seed).plan(ids, attention_mask=mask)
        x, (_, b, lam) = TokenCutMix(seed=seed)({"input_ids": ids, "attention_mask": mask}, y)
        assert torch.equal(x["input_ids"], reference.paste(ids, plan.partner, plan.mask))
        assert torch.equal(x["attention_mask"], mask)
        assert torch.equal((x["input_ids"] == 0), (mask == 0))  # lengths stay
        assert torch.equal(b, y[plan.partner])
        for i, j in enumerate(plan.partner.tolist()):
            cut = (~plan.mask[i]).nonzero().flatten().tolist()
            assert cut == list(range(cut[0], cut[-1] + 1)) if cut else True
            assert all(mask[i, place] and mask[j, place] for place in cut)
            assert float(lam[i]) == pytest.approx(1 - len(cut) / max(1, LENGTHS[i]), abs=1e-6)
            assert i != j or not cut
            cut_somewhere |= len(cut) > 1
    assert cut_somewhere


def test_without_a_mask_special_tokens_say_what_is_valid() -> None:
    ids, mask = batch()
    for seed in range(10):
        one, _ = TokenCutMix(special=[0], seed=seed)(ids, torch.arange(6))
        two, _ = TokenCutMix(seed=seed)({"ids": ids, "attention_mask": mask}, torch.arange(6))
        assert torch.equal(one, two["ids"])
    start = torch.cat([torch.full((6, 1), 5), ids + (ids > 0) * 5], 1)  # every sequence starts with 5
    for seed in range(20):
        mixed, (_, _, lam) = TokenCutMix(special=[0, 5], partner="roll", seed=seed)(start, torch.arange(6))
        assert (mixed[:, 0] == 5).all()
        assert (lam[2:4] == 1).sum() >= 1  # no token of its own that could be cut


def test_places_and_lengths_are_spread_over_the_sequence() -> None:
    ids = torch.arange(1, 41).view(4, 10)
    cut = torch.zeros(10)
    lams = set()
    for seed in range(200):
        plan = TokenCutMix(partner="roll", seed=seed).plan(ids)
        cut += (~plan.mask).float().sum(0)
        lams |= set(plan.lam.tolist())
    assert cut.min() > 0.3 * cut.max()
    assert len(lams) == 10  # 0.1 to 1; a whole sequence is cut by lam 0 alone
    assert (TokenCutMix(fold=True, seed=0).plan(ids).lam >= 0.5).all()


def test_embeddings_are_pasted_with_their_mask() -> None:
    ids, mask = batch()
    table = torch.rand(1000, 3, generator=torch.Generator().manual_seed(1))
    for seed in range(5):
        plan = TokenCutMix(seed=seed).plan(ids, attention_mask=mask)
        x = {"inputs_embeds": table[ids], "attention_mask": mask}
        mixed, _ = TokenCutMix(seed=seed)(x, torch.arange(6))
        pasted, _ = TokenCutMix(seed=seed)({"ids": ids, "attention_mask": mask}, torch.arange(6))
        assert torch.equal(mixed["inputs_embeds"], table[pasted["ids"]])
        assert torch.equal(mixed["inputs_embeds"], reference.paste(table[ids], plan.partner, plan.mask))


@pytest.mark.parametrize("beside", [torch.zeros(6, T, dtype=torch.long), torch.zeros(6, T, 3)])
def test_special_tokens_are_looked_for_in_input_ids_wherever_these_stand(beside: Tensor) -> None:
    ids, _ = batch()
    x, y = TokenCutMix(special=[0], seed=1)({"first": beside, "input_ids": ids}, torch.arange(6))
    alone, wanted = TokenCutMix(special=[0], seed=1)(ids, torch.arange(6))
    assert torch.equal(x["input_ids"], alone)
    assert torch.equal(y.lam, wanted.lam)


def test_labels_of_tokens_are_pasted_with_them() -> None:
    ids, mask = batch()
    x, y = TokenCutMix(seed=1)(
        {"input_ids": ids, "token_type_ids": ids % 2, "attention_mask": mask},
        ids * 7,
        kinds={"y": "segmentation"},
    )
    assert torch.equal(y, x["input_ids"] * 7)
    assert torch.equal(x["token_type_ids"], x["input_ids"] % 2)
    assert not torch.equal(x["input_ids"], ids)


def test_labels_of_tokens_stay_ids_where_nothing_is_mixed() -> None:
    ids, _ = batch()
    labels = ids * 7
    assert TokenCutMix(p=0.0)(ids, labels, kinds={"y": "segmentation"})[1] is labels


@pytest.mark.parametrize("labels", [torch.zeros(6, T, dtype=torch.long), torch.rand(6, T, 3)])
def test_labels_of_tokens_are_not_paired_in_silence(labels: torch.Tensor) -> None:
    ids, _ = batch()
    with pytest.raises(MixError, match=r"^y takes a kind, 'segmentation' for labels of tokens or "):
        TokenCutMix(seed=1)(ids, labels)
    _, target = TokenCutMix(seed=1)(ids, labels, kinds={"y": "multilabel"})
    assert torch.equal(target.a, labels)


def test_a_batch_in_one_dict_is_mixed() -> None:
    ids, mask = batch()
    x = {"input_ids": ids, "token_type_ids": ids % 2, "attention_mask": mask}
    mixed = TokenCutMix(seed=1).mix({**x, "labels": torch.arange(6)})
    x, target = TokenCutMix(seed=1)(x, torch.arange(6))
    assert all(torch.equal(mixed[name], x[name]) for name in x)
    assert torch.equal(mixed["labels"].lam, target.lam)


@given(
    lengths=st.lists(st.integers(0, T), min_size=1, max_size=6),
    alpha=st.floats(0.05, 8),
    seed=st.integers(0, 2**32),
    fold=st.booleans(),
)
@settings(deadline=None)
def test_the_labels_weight_is_the_share_of_valid_tokens(
    lengths: list[int], alpha: float, seed: int, fold: bool
) -> None:
    _, mask = batch(lengths)
    y = torch.arange(1, len(lengths) + 1)
    x = {"ids": y.unsqueeze(1) * mask, "attention_mask": mask}  # every token says whose it is
    mixed, (a, b, lam) = TokenCutMix(alpha, fold=fold, seed=seed)(x, y)
    counts = mask.sum(1)
    mean = torch.where(counts > 0, mixed["ids"].sum(1) / counts.clamp(min=1), y)
    torch.testing.assert_close(mean.double(), lam.double() * a + (1 - lam.double()) * b, rtol=0, atol=1e-5)


def test_an_attention_mask_deeper_in_the_batch_says_where_tokens_are_too() -> None:
    ids, y = torch.randint(5, 100, (4, 10), generator=torch.Generator().manual_seed(0)), torch.arange(4)
    used = torch.zeros(4, 10, dtype=torch.int64)
    used[:, :4] = 1
    flat = {"input_ids": ids, "attention_mask": used}
    for seed in range(20):
        wanted = TokenCutMix(1.0, partner="roll", seed=seed)(flat, y)
        deep = TokenCutMix(1.0, partner="roll", seed=seed)({"text": flat}, y)
        assert torch.equal(deep[1].lam, wanted[1].lam)
        assert torch.equal(deep[0]["text"]["input_ids"], wanted[0]["input_ids"])
        assert torch.equal(deep[0]["text"]["attention_mask"], used)


def test_mixtext_3_mixed_embeddings_keep_the_longer_attention_mask() -> None:
    # MixText#3: which attention mask holds for two mixed sequences of different lengths.
    _, mask = batch()
    embeds = torch.rand(6, T, 4, generator=torch.Generator().manual_seed(2)) * mask.unsqueeze(2)
    x, target = Mixup(1.0, partner="roll", seed=0)(
        {"inputs_embeds": embeds, "attention_mask": mask}, torch.arange(6)
    )
    assert torch.equal(x["attention_mask"], mask | mask.roll(1, 0))
    rows = target.lam.view(6, 1, 1)
    torch.testing.assert_close(x["inputs_embeds"], rows * embeds + (1 - rows) * embeds.roll(1, 0))
    hidden = x["inputs_embeds"].abs().sum(2) > 0
    assert not (hidden & (x["attention_mask"] == 0)).any()  # no mixed token is masked out


def test_what_has_no_value_for_each_token_is_named_and_can_be_passed() -> None:
    ids, mask = batch()
    x = {"input_ids": ids, "attention_mask": mask, "length": mask.sum(1)}
    with pytest.raises(
        MixError, match=r"^x\.length takes .*, or kinds={'x\.length': 'pass'}, got int64 tens"
    ):
        TokenCutMix(seed=1)(x, torch.arange(6))
    mixed, _ = TokenCutMix(seed=1)(x, torch.arange(6), kinds={"x.length": "pass"})
    assert mixed["length"] is x["length"]


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("x", lambda: TokenCutMix(seed=0)(torch.rand(4, 3, 5, 5), torch.arange(4))),
        ("x", lambda: TokenCutMix(seed=0).plan(torch.zeros(4, 3, 5, dtype=torch.int64))),
        ("x", lambda: TokenCutMix(seed=0).plan(torch.zeros(4))),
        ("x", lambda: TokenCutMix(seed=0).plan([1, 2])),
        (
            "attention_mask",
            lambda: TokenCutMix(seed=0).plan(torch.zeros(4, 3), attention_mask=torch.ones(4, 2)),
        ),
        (
            "plan",
            lambda: TokenCutMix(seed=0)(torch.ones(4, 3), torch.arange(4), plan=Mixup().plan(torch.ones(4))),
        ),
        ("special", lambda: TokenCutMix(special=0)),
        ("special", lambda: TokenCutMix(special=["[PAD]"])),
        ("fold", lambda: TokenCutMix(fold=1)),
        ("partner", lambda: TokenCutMix(partner="next")),
        ("alpha", lambda: TokenCutMix(-1)),
    ],
)
def test_a_wrong_argument_is_named_in_one_line(argument: str, call: Callable[[], object]) -> None:
    assert_named(argument, call)
