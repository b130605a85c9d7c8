from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from batchmix import CutMix, MixedTarget, MixError, MixPlan, Mixup
from batchmix.core.attention import reweigh
from batchmix.methods.smoothmix import SmoothMix
from batchmix.methods.transmix import TransMix

X = torch.rand(8, 3, 32, 48, generator=torch.Generator().manual_seed(0))
Y = torch.arange(8)


def attention(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)).softmax(-1)


def expected_lam(plan: MixPlan, attention: Tensor, rows: int, columns: int) -> list[float]:
    """Sample by sample and patch by patch, from maps (B, patches)."""
    height, width = plan.mask.shape[2:]
    tall, wide = height // rows, width // columns
    weights = []
    for i in range(len(plan)):
        mine = total = 0.0
        for r in range(rows):
            for c in range(columns):
                patch = plan.mask[i, 0, r * tall : (r + 1) * tall, c * wide : (c + 1) * wide]
                value = float(attention[i, r * columns + c])
                mine += value * float(patch.double().mean())
                total += value
        weights.append(mine / total)
    return weights


@pytest.mark.parametrize("make", [TransMix, CutMix])
@pytest.mark.parametrize(("prefix", "heads"), [(0, 0), (1, 3), (5, 2)])
def test_the_weight_is_the_share_of_attention_on_own_pixels(make: type, prefix: int, heads: int) -> None:
    mixer = make(seed=1)
    plan = mixer.plan(X)
    tokens = attention(*([8, heads] if heads else [8]), prefix + 24)
    target = reweigh(MixedTarget.from_plan(Y, plan), plan, tokens, prefix=prefix)
    maps = tokens.mean(1) if heads else tokens
    wanted = torch.tensor(expected_lam(plan, maps[:, prefix:], 4, 6))
    torch.testing.assert_close(target.lam, wanted)
    assert torch.equal(target.a, Y)
    assert torch.equal(target.b, Y[plan.partner])


def test_attention_that_is_the_same_everywhere_gives_the_share_of_pixels() -> None:
    for seed in range(20):
        plan = TransMix(seed=seed).plan(X)
        target = reweigh(MixedTarget.from_plan(Y, plan), plan, torch.full((8, 6), 0.1))
        torch.testing.assert_close(target.lam, plan.lam)


def test_attention_on_one_of_the_two_alone_gives_its_label_alone() -> None:
    mask = torch.ones(2, 1, 8, 8, dtype=torch.bool)
    mask[..., :4] = False
    plan = MixPlan(torch.tensor([1, 0]), torch.full((2,), 0.5), mask)
    left = torch.tensor([[1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 1.0]])
    target = reweigh(MixedTarget.from_plan(torch.tensor([3, 5]), plan), plan, left)
    assert target.lam.tolist() == [0.0, 1.0]


def test_who_is_alone_keeps_all_the_weight() -> None:
    plan = TransMix(seed=0).plan(X[:1])
    target = reweigh(MixedTarget.from_plan(Y[:1], plan), plan, attention(1, 24))
    assert target.lam.tolist() == [1.0]


def test_half_of_attention_and_half_of_pixels_is_the_authors_code() -> None:
    """Its formula, for a box of whole patches: the mean of the box's share of pixels and of attention."""
    mask = torch.ones(1, 1, 32, 32, dtype=torch.bool)
    mask[..., 8:24, 16:32] = False
    plan = MixPlan(torch.tensor([0, 1]), torch.full((2,), 0.75), mask)
    tokens = attention(2, 16)
    target = TransMix(share=0.5).reweigh(MixedTarget.from_plan(Y[:2], plan), plan, tokens)
    in_box = tokens.view(2, 4, 4)[:, 1:3, 2:4].sum((1, 2)) / tokens.sum(1)
    torch.testing.assert_close(target.lam, 1 - (0.25 + in_box) / 2)


def test_a_plan_without_positions_keeps_its_target() -> None:
    plan = Mixup(1.0, seed=0).plan(X)
    target = MixedTarget.from_plan(Y, plan)
    assert reweigh(target, plan, attention(8, 24)) is target


def test_a_plan_with_a_soft_mask_is_weighed_too_as_the_card_says() -> None:
    plan = SmoothMix(partner="roll", seed=0).plan(X)
    target = MixedTarget.from_plan(Y, plan)
    seen = torch.zeros(8, 24)
    seen[:, 0] = 1
    corner = plan.mask[:, 0, : X.shape[2] // 4, : X.shape[3] // 6].mean((1, 2))
    torch.testing.assert_close(reweigh(target, plan, seen).lam, corner)


def test_no_gradient_goes_through_the_weights_and_no_attention_keeps_them() -> None:
    plan = TransMix(seed=1).plan(X)
    before = MixedTarget.from_plan(Y, plan)
    target = reweigh(before, plan, attention(8, 24).requires_grad_())
    assert not target.lam.requires_grad
    assert torch.equal(reweigh(before, plan, torch.zeros(8, 24)).lam, plan.lam)


def test_a_prefix_of_numpy_is_a_number() -> None:
    plan = TransMix(seed=1).plan(X)
    before, tokens = MixedTarget.from_plan(Y, plan), attention(8, 25)
    lam = reweigh(before, plan, tokens, prefix=np.int64(1)).lam
    assert torch.equal(lam, reweigh(before, plan, tokens, prefix=1).lam)


def test_half_precision_attention_is_summed_in_float32() -> None:
    plan = TransMix(seed=1).plan(X)
    before, tokens = MixedTarget.from_plan(Y, plan), attention(8, 3, 24)
    lam = reweigh(before, plan, tokens).lam
    torch.testing.assert_close(reweigh(before, plan, tokens.bfloat16()).lam, lam, rtol=0, atol=0.01)
    assert lam.dtype == torch.float32


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"attention": torch.rand(8, 25)}, "attention takes one value a square patch of the 32 x 48 images"),
        ({"attention": torch.rand(7, 24)}, r"attention takes \(B, tokens\) or \(B, heads, tokens\)"),
        ({"attention": torch.rand(8, 3, 24, 24)}, r"attention takes \(B, tokens\)"),
        ({"attention": None}, r"attention takes \(B, tokens\)"),
        ({"prefix": 24}, "prefix takes a whole number from 0 to 23"),
        ({"prefix": -1}, "prefix takes"),
        ({"prefix": True}, "prefix takes"),
        ({"grid": (5, 5)}, "grid takes rows and columns of 24 patches"),
        ({"grid": (3, 8)}, "grid takes rows and columns that divide images of 32 x 48"),
        *(
            ({"grid": grid}, "grid takes rows and columns of 24 patches")
            for grid in (24, (4.0, 6.0), (-4, -6))
        ),
        ({"plan": None}, "plan takes a MixPlan"),
        ({"share": 2}, "share takes a probability"),
        ({"target": Y}, "target takes a MixedTarget of 8 samples"),
    ],
)
def test_a_wrong_argument_is_named_in_one_line(changed: dict[str, object], message: str) -> None:
    plan = TransMix(seed=1).plan(X)
    usual = {"plan": plan, "target": MixedTarget.from_plan(Y, plan), "attention": torch.rand(8, 24)}
    with pytest.raises(MixError, match=rf"^{message}[^\n]*, got [^\n]*$"):
        reweigh(**{**usual, **changed})


def test_patches_that_are_not_square_take_their_grid() -> None:
    plan = TransMix(seed=1).plan(X)
    tokens = attention(8, 4 * 4)
    target = TransMix().reweigh(MixedTarget.from_plan(Y, plan), plan, tokens, grid=(4, 4))
    torch.testing.assert_close(target.lam, torch.tensor(expected_lam(plan, tokens, 4, 4)))


def test_between_two_batches_every_sample_has_a_box_and_series_are_named() -> None:
    _, target = TransMix(seed=0).between((X, Y), (X.flip(0), Y.flip(0)))
    assert (target.lam < 1).sum() > 4
    with pytest.raises(MixError, match=r"^x takes .*images \(B, C, H, W\)"):
        TransMix(seed=0)(X[:, :, 0], Y)


@pytest.fixture
def seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.mark.usefixtures("seeded")
def test_the_attention_of_timms_vision_transformer_as_the_card_says() -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("vit_tiny_patch16_224", img_size=(32, 48), patch_size=8, depth=2, num_classes=8)
    block, seen = model.blocks[-1].attn, []
    block.fused_attn = False
    block.attn_drop.register_forward_hook(lambda module, args, out: seen.append(args[0][:, :, 0]))

    transmix = TransMix(seed=1)
    plan = transmix.plan(X)
    x, y = transmix(X, Y, plan=plan)
    logits = model(x)
    assert seen[-1].shape == (8, 3, 1 + 24)
    torch.testing.assert_close(seen[-1].sum(-1), torch.ones(8, 3))
    y = transmix.reweigh(y, plan, seen.pop(), prefix=1)
    torch.nn.functional.cross_entropy(logits, y).backward()
    assert ((y.lam - plan.lam).abs() > 1e-4).any()
    torch.testing.assert_close(
        y.lam, plan.lam, rtol=0, atol=0.2
    )  # a net that has learnt nothing looks anywhere


@pytest.mark.usefixtures("seeded")
def test_the_attention_of_transformers_vision_transformer_as_the_card_says() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        image_size=(32, 48), patch_size=8, hidden_size=12, num_hidden_layers=1, num_attention_heads=3,
        intermediate_size=8, num_labels=8, attn_implementation="eager",
    )  # fmt: skip
    model = transformers.ViTForImageClassification(config)
    transmix = TransMix(seed=1)
    plan = transmix.plan(X)
    x, y = transmix(X, Y, plan=plan)
    output = model(x, output_attentions=True)
    tokens = output.attentions[-1][:, :, 0]
    assert tokens.shape == (8, 3, 1 + 24)
    y = transmix.reweigh(y, plan, tokens, prefix=1)
    wanted = expected_lam(plan, tokens.detach().mean(1)[:, 1:], 4, 6)
    torch.testing.assert_close(y.lam, torch.tensor(wanted))
