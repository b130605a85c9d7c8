from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import reference
from batchmix import MixError, MixPlan, blend
from refusals import assert_named

SHAPES = [(5,), (1,), (2, 7), (3, 4, 5), (1, 3, 6, 8), (5, 3, 6, 8), (3, 2, 4, 5, 6)]


def noise(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def some_plan(batch_size: int, mask_rows: int = 0, height: int = 6, width: int = 8) -> MixPlan:
    generator = torch.Generator().manual_seed(batch_size)
    partner = torch.randperm(batch_size, generator=generator)
    lam = torch.rand(batch_size, generator=generator)
    if not mask_rows:
        return MixPlan(partner, lam)
    mask = torch.rand(mask_rows, 1, height, width, generator=generator)
    mask[:, :, : height // 2, :3] = 0
    return MixPlan(partner, mask.mean((1, 2, 3)).expand(batch_size).clone(), mask)


def oracle(x: Tensor, plan: MixPlan, other: Tensor | None = None) -> Tensor:
    return reference.blend(x, plan.partner, plan.lam, plan.mask, other)


def assert_rounded_from(mixed: Tensor, exact: Tensor, sources: tuple[Tensor, ...]) -> None:
    """A few rounding errors; in half precision one rounding, to the nearest or its neighbour."""
    if mixed.dtype in (torch.float32, torch.float64):
        largest = max(float(source.abs().max()) for source in sources)
        torch.testing.assert_close(
            mixed.double(), exact, rtol=0, atol=4 * torch.finfo(mixed.dtype).eps * largest
        )
        return
    # One rounding, plus the rare case where the float32 value lies on the other side of a tie.
    scale = torch.finfo(mixed.dtype)
    ulp = torch.maximum(exact.abs(), torch.tensor(scale.tiny)).log2().floor().exp2() * scale.eps
    assert ((mixed.double() - exact).abs() <= ulp * 0.5001 + 1e-6).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_row_is_mixed_with_its_partner(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x, plan = noise(*shape, dtype=dtype), some_plan(shape[0])
    before = x.clone()
    mixed = blend(x, plan)
    assert (mixed.shape, mixed.dtype) == (x.shape, dtype)
    assert_rounded_from(mixed, oracle(x, plan), (x,))
    assert torch.equal(x, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mask_rows", [1, 5])
def test_a_mask_weighs_every_position(mask_rows: int, dtype: torch.dtype) -> None:
    x, plan = noise(5, 3, 6, 8, dtype=dtype), some_plan(5, mask_rows)
    assert_rounded_from(blend(x, plan), oracle(x, plan), (x,))


@pytest.mark.parametrize("mask_rows", [0, 1, 5])
def test_memory_format_is_kept(mask_rows: int) -> None:
    x = noise(5, 3, 6, 8).contiguous(memory_format=torch.channels_last)
    plan = some_plan(5, mask_rows)
    mixed = blend(x, plan)
    assert mixed.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(mixed, blend(x.contiguous(), plan))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("mask_rows", [0, 1, 5])
def test_the_result_goes_where_out_says(mask_rows: int, dtype: torch.dtype) -> None:
    x, plan = noise(5, 3, 6, 8, dtype=dtype), some_plan(5, mask_rows)
    expected = blend(x, plan)
    before, buffer = x.clone(), torch.full_like(x, 7)
    assert blend(x, plan, out=buffer) is buffer
    assert torch.equal(buffer, expected)
    assert torch.equal(x, before)
    assert blend(x, plan, out=x) is x
    assert torch.equal(x, expected)


def test_in_place_reads_every_partner_before_it_is_overwritten() -> None:
    x = noise(5, 3)
    ring = MixPlan(torch.tensor([4, 0, 1, 2, 3]), torch.full((5,), 0.25))
    expected = oracle(x.clone(), ring)
    blend(x, ring, out=x)
    torch.testing.assert_close(x.double(), expected)


@pytest.mark.parametrize("mask_rows", [0, 5])
def test_partners_can_come_from_another_batch(mask_rows: int) -> None:
    x, other, plan = noise(5, 3, 6, 8), noise(5, 3, 6, 8, seed=1), some_plan(5, mask_rows)
    assert_rounded_from(blend(x, plan, other=other), oracle(x, plan, other), (x, other))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("lam", [0.0, 1.0])
@pytest.mark.parametrize("masked", [False, True])
def test_whole_weights_copy_finite_samples_exactly(masked: bool, lam: float, dtype: torch.dtype) -> None:
    x = noise(5, 3, 6, 8, dtype=dtype) * 1e4
    x[0, 0, 0] = torch.tensor([0.0, 1e-30, -1e-7, 3e-5, 6e4, -6e4, 1.0, -1.0]).to(dtype)
    partner = torch.tensor([4, 0, 1, 2, 3])
    mask = torch.full((5, 1, 6, 8), lam) if masked else None
    mixed = blend(x, MixPlan(partner, torch.full((5,), lam), mask))
    assert torch.equal(mixed, x if lam else x[partner])


@pytest.mark.parametrize("mask_rows", [0, 1, 5])
def test_gradients_are_the_oracles(mask_rows: int) -> None:
    plan, upstream = some_plan(5, mask_rows), noise(5, 3, 6, 8, seed=2)
    gradients = []
    for mix in (blend, oracle):
        x, other = noise(5, 3, 6, 8).requires_grad_(), noise(5, 3, 6, 8, seed=1).requires_grad_()
        (mix(x, plan) * upstream).sum().backward()
        if mix is blend:
            (mix(x, plan, other=other) * upstream).sum().backward()
        else:
            (mix(x, plan, other) * upstream).sum().backward()
        gradients.append((x.grad, other.grad))
    torch.testing.assert_close(gradients[0], gradients[1])


def cut_plan(rows: int = 5, height: int = 6, width: int = 8) -> MixPlan:
    mask = torch.ones(rows, 1, height, width, dtype=torch.bool)
    mask[:, :, : height // 2, :3] = False
    lam = mask.double().mean((1, 2, 3)).float().expand(5).contiguous()
    return MixPlan(torch.tensor([4, 0, 1, 2, 3]), lam, mask)


WINDOW = torch.tensor([[0, 6, 0, 8], [0, 3, 0, 3], [2, 5, 1, 8], [0, 1, 7, 8], [5, 6, 0, 8]])
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 5])
def test_a_boolean_mask_copies_every_value_as_it_is(rows: int, dtype: torch.dtype) -> None:
    x = noise(5, 3, 6, 8, dtype=dtype) * 1e4
    x[0, 0, 0] = torch.tensor([float("nan"), float("inf"), -float("inf"), 1e-30, 6e4, -0.0, 1.0, -1.0]).to(
        dtype
    )
    plan = cut_plan(rows)
    before = x.clone()
    mixed = blend(x, plan)
    expected = torch.where(plan.mask, x, x[plan.partner])
    assert torch.equal(mixed.nan_to_num(7), expected.nan_to_num(7))
    assert torch.equal(mixed.isnan(), expected.isnan())
    assert torch.equal(x.nan_to_num(7), before.nan_to_num(7))


@pytest.mark.parametrize("kind", ["pasted", "weighed", "resized"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_out_and_memory_format_hold_for_every_kind_of_plan(kind: str, dtype: torch.dtype) -> None:
    plan = plan_of(kind)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        x = noise(5, 3, 6, 8, dtype=dtype).contiguous(memory_format=memory_format)
        before, buffer = x.clone(), torch.full_like(x, 7)
        mixed = blend(x, plan)
        assert mixed.dtype == dtype
        assert mixed.is_contiguous(memory_format=memory_format)
        assert mixed.data_ptr() != x.data_ptr()
        assert torch.equal(x, before)
        assert blend(x, plan, out=buffer) is buffer
        assert torch.equal(buffer, mixed)
        assert blend(x, plan, out=x) is x
        assert torch.equal(x, mixed)


def plan_of(kind: str) -> MixPlan:
    if kind == "pasted":
        return cut_plan()
    if kind == "weighed":
        return some_plan(5, 5)
    cut = cut_plan()
    return MixPlan(cut.partner, cut.lam, cut.mask, WINDOW)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("soft", [False, True])
def test_a_window_has_the_partners_whole_image(soft: bool, dtype: torch.dtype) -> None:
    x, plan = noise(5, 3, 6, 8, dtype=dtype), some_plan(5, 5) if soft else cut_plan()
    plan = MixPlan(plan.partner, plan.lam, plan.mask, WINDOW)
    exact = reference.blend(x, plan.partner, plan.lam, plan.mask, window=WINDOW)
    assert_rounded_from(blend(x, plan), exact, (x,))
    other = noise(5, 3, 6, 8, dtype=dtype, seed=1)
    exact = reference.blend(x, plan.partner, plan.lam, plan.mask, other, WINDOW)
    assert_rounded_from(blend(x, plan, other=other), exact, (x, other))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_window_of_the_whole_image_changes_no_bit(dtype: torch.dtype) -> None:
    for height, width in ((6, 8), (7, 13), (1, 1), (224, 3)):
        plan = cut_plan(5, height, width)
        whole = torch.tensor([[0, height, 0, width]]).expand(5, 4).contiguous()
        x = noise(5, 2, height, width, dtype=dtype)
        assert torch.equal(blend(x, MixPlan(plan.partner, plan.lam, plan.mask, whole)), blend(x, plan))


@pytest.mark.parametrize("shape", [(5, 2, 3, 6, 8), (5, 2, 4, 3, 6, 8)])
@pytest.mark.parametrize("kind", ["pasted", "weighed", "resized"])
def test_a_mask_of_images_holds_for_every_frame(kind: str, shape: tuple[int, ...]) -> None:
    x, plan = noise(*shape), plan_of(kind)
    mixed = blend(x, plan)
    flat, frames = x.flatten(2, -3).movedim(2, 0), mixed.flatten(2, -3).movedim(2, 0)
    for frame, expected in zip(frames, flat, strict=True):
        torch.testing.assert_close(frame, blend(expected.contiguous(), plan))


def test_a_series_has_a_mask_and_a_window_of_its_own_kind() -> None:
    x = noise(5, 2, 8)
    mask = torch.ones(5, 1, 8, dtype=torch.bool)
    mask[:, :, 2:6] = False
    plan = MixPlan(torch.tensor([4, 0, 1, 2, 3]), torch.full((5,), 0.5), mask)
    assert torch.equal(blend(x, plan), torch.where(mask, x, x[plan.partner]))
    window = torch.tensor([[2, 6]]).expand(5, 2).contiguous()
    resized = MixPlan(plan.partner, plan.lam, mask, window)
    exact = reference.blend(x, plan.partner, plan.lam, mask, window=window)
    assert_rounded_from(blend(x, resized), exact, (x,))


@pytest.mark.parametrize("kind", ["pasted", "weighed", "resized"])
def test_gradients_flow_through_every_kind_of_plan(kind: str) -> None:
    plan, upstream = plan_of(kind), noise(5, 3, 6, 8, seed=2)
    gradients = []
    for mix in (blend, reference_of):
        x = noise(5, 3, 6, 8).requires_grad_()
        (mix(x, plan) * upstream).sum().backward()
        gradients.append(x.grad)
    torch.testing.assert_close(*gradients)
    out = torch.zeros(5, 3, 6, 8)
    blend(noise(5, 3, 6, 8).requires_grad_(), plan, out=out)
    assert out.requires_grad


def reference_of(x: Tensor, plan: MixPlan) -> Tensor:
    return reference.blend(x, plan.partner, plan.lam, plan.mask, window=plan.window)


@pytest.mark.parametrize("shape", [(5, 3, 8, 6), (5, 3, 6), (5, 6, 8), (5, 3, 2, 6, 7)])
def test_a_mask_of_another_size_is_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(MixError, match=r"^x takes the size of the plan's mask, bool tensor"):
        blend(noise(*shape), cut_plan())


def test_a_replay_on_labels_or_logits_says_what_takes_them() -> None:
    with pytest.raises(
        MixError, match=r"^x takes floating .*, or MixedTarget\.from_plan\(y, plan\) for label"
    ):
        blend(torch.arange(5), cut_plan().without_mask())
    with pytest.raises(MixError, match=r"or plan\.without_mask\(\) where .*, got float32 tensor \(5, 10\)$"):
        blend(noise(5, 10), cut_plan())
    blend(noise(5, 10), cut_plan().without_mask())


def test_a_mask_of_several_channels_is_of_as_many() -> None:
    plan = MixPlan(torch.tensor([1, 0]), torch.full((2,), 0.5), torch.tensor([[True, False], [False, True]]))
    assert torch.equal(blend(torch.arange(4.0).view(2, 2), plan), torch.tensor([[0.0, 3.0], [0.0, 3.0]]))
    with pytest.raises(MixError, match=r"^x takes the size of the plan's mask"):
        blend(torch.zeros(2, 3), plan)


def plan_of_two(**changes: Tensor) -> MixPlan:
    return MixPlan(**{"partner": torch.tensor([1, 0]), "lam": torch.tensor([0.25, 1.0]), **changes})


@pytest.mark.parametrize(
    ("argument", "x", "plan", "options"),
    [
        ("x", torch.zeros(2, 3).to_sparse(), plan_of_two(), {}),
        ("x", torch.nested.nested_tensor([[[0.0]], [[0.0], [1.0]]], layout=torch.jagged), plan_of_two(), {}),
        ("x", torch.zeros(2, 3, dtype=torch.uint8), plan_of_two(), {}),
        ("x", torch.zeros(2, 3, dtype=torch.int64), plan_of_two(), {}),
        ("x", torch.zeros(2, 3, dtype=torch.bool), plan_of_two(), {}),
        ("x", torch.tensor(1.0), plan_of_two(), {}),
        ("x", [[1.0], [2.0]], plan_of_two(), {}),
        ("x", np.zeros((3, 3)), plan_of_two(), {}),
        ("plan", torch.zeros(3, 3), plan_of_two(), {}),
        ("plan", torch.zeros(2, 3), (torch.tensor([1, 0]), torch.ones(2)), {}),
        ("plan", torch.zeros(2, 3, device="meta"), plan_of_two(), {}),
        ("out", torch.zeros(2, 3), plan_of_two(), {"out": torch.zeros(2, 4)}),
        ("out", torch.zeros(2, 3), plan_of_two(), {"out": torch.zeros(2, 3, dtype=torch.float64)}),
        ("out", torch.zeros(2, 3), plan_of_two(), {"out": "a"}),
        ("out", torch.zeros(2, 3), plan_of_two(), {"out": torch.zeros(2, 3).to_sparse()}),
        ("other", torch.zeros(2, 3), plan_of_two(), {"other": torch.zeros(2, 3).to_sparse()}),
        ("other", torch.zeros(2, 3), plan_of_two(), {"other": [1]}),
        ("other", torch.zeros(2, 3), plan_of_two(), {"other": torch.zeros(3, 3)}),
        ("other", torch.zeros(2, 3), plan_of_two(), {"other": torch.zeros(2, 3, device="meta")}),
        ("x", torch.zeros(2, 3), plan_of_two(mask=torch.ones(2, 1, 4, 4)), {}),
        ("x", torch.zeros(2, 3, 6, 8), plan_of_two(mask=torch.ones(2, 1, 8, 6)), {}),
        ("x", torch.zeros(2, 3, 1, 1), plan_of_two(mask=torch.ones(2, 1, 4, 4)), {}),
    ],
)
def test_a_wrong_argument_is_named_in_one_line(
    argument: str, x: object, plan: object, options: dict[str, Tensor]
) -> None:
    assert_named(argument, lambda: blend(x, plan, **options))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("masked", [False, True])
def test_weights_that_are_learned_have_gradients(masked: bool, dtype: torch.dtype) -> None:
    x, partner = noise(3, 2, 4, dtype=dtype), torch.tensor([1, 2, 0])
    weight = torch.tensor([0.25, 0.5, 0.75], requires_grad=True)
    mask = weight.view(3, 1, 1).expand(3, 1, 4) if masked else None
    blend(x, MixPlan(partner, weight, mask)).double().sum().backward()
    torch.testing.assert_close(weight.grad.double(), (x - x[partner]).double().sum((1, 2)), atol=0.05, rtol=0)


@pytest.mark.parametrize("given", [False, True])
def test_forward_derivatives_flow(given: bool) -> None:
    x, tangent, plan = noise(3, 4), noise(3, 4, seed=1), some_plan(3)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, tangent)
        mixed = blend(dual, plan, out=torch.empty(3, 4) if given else None)
        value, derivative = torch.autograd.forward_ad.unpack_dual(mixed)
    assert torch.equal(value, blend(x, plan))
    torch.testing.assert_close(derivative, blend(tangent, plan))


def test_one_batch_under_many_weights_by_vmap() -> None:
    x, partner = torch.rand(3, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([1, 2, 0])
    lams = torch.tensor([[0.5, 0.75, 1.0], [0.25, 0.0, 0.5]])
    many = torch.func.vmap(lambda lam: blend(x, MixPlan(partner, lam)))(lams)
    assert torch.equal(many, torch.stack([blend(x, MixPlan(partner, lam)) for lam in lams]))
