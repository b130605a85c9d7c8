"""The Triton blend gives what torch's operations give: on a GPU, or interpreted on the CPU.

Without a GPU these run in the process that test_triton_interpreted.py starts. The interpreter computes with
NumPy: it cuts bfloat16 off instead of rounding it, rounds a fused multiplication and addition twice before
Triton 3.9, and does not check what a kernel asserts.
"""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

import reference
from batchmix import MixError
from batchmix.kernels import gpu, launching, pixels
from waiting import nothing_waits

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
HAS_TRITON = importlib.util.find_spec("triton") is not None
pytestmark = [pytest.mark.skipif(not HAS_TRITON, reason="needs triton")]
if not INTERPRETED:
    pytestmark.append(pytest.mark.gpu)

DEVICE = "cpu" if INTERPRETED else "cuda"
FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
MASKS = ["none", "paste", "one paste", "soft", "one soft"]
# A call takes the interpreter milliseconds: soft masks change the weight alone.
KINDS = [(dtype, kind) for dtype in FLOATS for kind in MASKS if dtype == FLOATS[0] or "one" not in kind]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(autouse=True)
def any_size(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Small batches are cut into many blocks."""
    monkeypatch.setattr(gpu, "CONFIGS", (launching.Config(128, 4), launching.Config(256, 4)))
    monkeypatch.setattr(gpu, "CONFIGS_IN_PLACE", (launching.Config(128, 4),))
    return


def noise(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


def some_images(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, shape, generator=generator, dtype=torch.uint8).to(DEVICE)


def draw(rows: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows)
    partner, lam = torch.randperm(rows, generator=generator), torch.rand(rows, generator=generator)
    return partner.to(DEVICE), lam.to(DEVICE)


def takes(*args: Tensor | None, **kwargs: Tensor) -> bool:
    return gpu.why_not(*args, **kwargs) is None


def some_mask(kind: str, rows: int, height: int = 9, width: int = 7) -> Tensor | None:
    if kind == "none":
        return None
    count = 1 if kind.startswith("one") else rows
    if "soft" in kind:
        return noise(count, 1, height, width, seed=3).sigmoid()
    boxes = [[i % 3, height - i % 2, i % 4, width - i % 3] for i in range(count)]
    return reference.box_masks(boxes, (height, width)).to(DEVICE)


def eager(
    x: Tensor, partner: Tensor, lam: Tensor, mask: Tensor | None = None, other: Tensor | None = None
) -> Tensor:
    """The definition in torch operations, in float32 or better and not rounded yet."""
    mates = (x if other is None else other)[partner]
    if mask is not None and mask.dtype == torch.bool:
        return torch.where(mask, x, mates)
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    weight = lam.view(-1, *[1] * (x.dim() - 1)) if mask is None else mask
    return torch.lerp(mates.to(wide), x.to(wide), weight.to(wide))


def rounded(wide: Tensor, dtype: torch.dtype) -> Tensor:
    if INTERPRETED and dtype == torch.bfloat16 and wide.dtype == torch.float32:
        wide = (wide.view(torch.int32) & -(1 << 16)).view(torch.float32)
    return wide.to(dtype)


def multiplies_and_adds_at_once() -> bool:
    if not INTERPRETED:
        return True
    from triton._C.libtriton import interpreter

    return hasattr(interpreter, "fma_fp32")


def assert_mixed(
    got: Tensor,
    x: Tensor,
    partner: Tensor,
    lam: Tensor,
    mask: Tensor | None = None,
    other: Tensor | None = None,
) -> None:
    """The bits of torch's operations; or one unit in the last place of the largest of what is added."""
    assert (got.dtype, got.shape) == (x.dtype, x.shape)
    expected = rounded(eager(x, partner, lam, mask, other), x.dtype)
    if multiplies_and_adds_at_once() or (mask is not None and mask.dtype == torch.bool):
        torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True)
        return
    terms = torch.stack([x.double().abs(), (x if other is None else other)[partner].double().abs()]).amax(0)
    ulp = terms.clamp(min=torch.finfo(x.dtype).tiny).log2().floor().exp2() * torch.finfo(x.dtype).eps
    assert ((got.double() - expected.double()).abs() <= ulp).all()


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("dtype", "kind"), KINDS)
def test_results_are_those_of_torch(dtype: torch.dtype, kind: str, channels_last: bool) -> None:
    for rows in (1, 5):
        x, other = noise(rows, 3, 9, 7, dtype=dtype), noise(rows, 3, 9, 7, dtype=dtype, seed=1)
        if channels_last:
            x, other = (image.contiguous(memory_format=torch.channels_last) for image in (x, other))
        (partner, lam), mask, before = draw(rows), some_mask(kind, rows), x.clone()
        assert takes(x, partner, lam, mask)
        mixed = gpu.mix(x, partner, lam, mask)
        assert_mixed(mixed, x, partner, lam, mask)
        assert mixed.stride() == x.stride()
        assert torch.equal(x, before)
        exact = reference.blend(x.cpu(), partner.cpu(), lam.cpu(), None if mask is None else mask.cpu())
        room = 4 * torch.finfo(dtype).eps if dtype != torch.float64 else 1e-7  # lam is float32
        torch.testing.assert_close(mixed.cpu().double(), exact, rtol=room, atol=room)

        buffer = torch.full_like(x, 7)
        assert takes(x, partner, lam, mask, other=other, out=buffer)
        assert gpu.mix(x, partner, lam, mask, other=other, out=buffer) is buffer
        assert_mixed(buffer, x, partner, lam, mask, other)
        place = x.clone(memory_format=torch.preserve_format)
        assert gpu.mix(place, partner, lam, mask, other=other, out=place) is place
        assert torch.equal(place, buffer)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("dtype", "kind"), KINDS)
def test_in_place_nothing_is_read_after_it_was_written(
    dtype: torch.dtype, kind: str, channels_last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for rows in (2, 7):
        x = noise(rows, 3, 9, 7, dtype=dtype)
        x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
        (partner, lam), mask = draw(rows), some_mask(kind, rows)
        for limit in (1024, 1):  # in registers; with a copy of the batch
            monkeypatch.setattr(gpu, "ROWS_IN_PLACE", limit)
            for mates in (partner, torch.zeros_like(partner)):  # a permutation; and one partner for all
                place = x.clone(memory_format=torch.preserve_format)
                assert takes(place, mates, lam, mask, out=place)
                assert gpu.mix(place, mates, lam, mask, out=place) is place
                assert_mixed(place, x, mates, lam, mask)


SHAPES = [(5,), (1,), (2, 0), (0, 3), (3, 1), (4, 1025), (7, 3, 2, 5, 3), (130, 5)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_shape_is_mixed(shape: tuple[int, ...]) -> None:
    x, (partner, lam) = noise(*shape), draw(shape[0])
    assert takes(x, partner, lam)
    assert_mixed(gpu.mix(x, partner, lam), x, partner, lam)
    place = x.clone()
    assert_mixed(gpu.mix(place, partner, lam, out=place), x, partner, lam)


def test_a_mask_of_the_last_dimensions_serves_all_before_them() -> None:
    x, (partner, lam) = noise(3, 2, 4, 5, 6), draw(3)
    mask = some_mask("paste", 3, 5, 6)
    assert mask is not None
    mixed = gpu.mix(x, partner, lam, mask)
    assert_mixed(mixed, x, partner, lam, mask.unsqueeze(1))


def test_rows_may_lie_apart_share_memory_or_start_anywhere() -> None:
    partner, lam = draw(5)
    wide = noise(10, 3, 9, 7)
    shifted = noise(5 * 189 + 3)[3:].view(5, 3, 9, 7)
    transposed = noise(5, 7, 9, 3).transpose(1, 3)
    for x in (wide[::2], wide[3:8], noise(1, 3, 9, 7).expand(5, 3, 9, 7), shifted, transposed):
        assert takes(x, partner, lam)
        assert_mixed(gpu.mix(x, partner, lam), x, partner, lam)
    one_lam = lam[:1].expand(5)
    assert_mixed(gpu.mix(wide[::2], partner, one_lam), wide[::2], partner, one_lam)
    place, untouched, mask = wide.clone(), wide[1::2].clone(), some_mask("paste", 5)
    gpu.mix(place[::2], partner, lam, mask, out=place[::2])
    assert_mixed(place[::2], wide[::2], partner, lam, mask)
    assert torch.equal(place[1::2], untouched)


def test_windows_that_overlap_are_mixed_each_for_itself() -> None:
    memory, (partner, lam), bytes_ = noise(400), draw(5), some_images(400)
    for shape, strides in [((5, 30), (1, 1)), ((5, 3, 20), (4, 20, 1)), ((5, 3, 4, 5), (7, 1, 15, 3))]:
        x, images = memory.as_strided(shape, strides), bytes_.as_strided(shape, strides)
        assert takes(x, partner, lam)
        assert_mixed(gpu.mix(x, partner, lam), x, partner, lam)
        if len(shape) > 2:
            mixed = gpu.mix_images(images, partner, lam, mean=MEAN, std=STD)
            apart = images.clone(memory_format=torch.contiguous_format)
            torch.testing.assert_close(mixed, gpu.mix_images(apart, partner, lam, mean=MEAN, std=STD))


def test_rows_are_reached_beyond_32_bits() -> None:
    step, (partner, lam) = (1 << 31) + 16, draw(2)
    x = torch.empty(step + 16, dtype=torch.uint8, device=DEVICE).as_strided((2, 1, 4, 4), (step, 16, 4, 1))
    x.copy_(some_images(2, 1, 4, 4))
    mixed = gpu.mix_images(x, partner, lam, mean=(0.5,), std=(0.2,))
    near = gpu.mix_images(x.contiguous(), partner, lam, mean=(0.5,), std=(0.2,))
    assert torch.equal(mixed, near)
    far = torch.empty(step + 16, dtype=torch.float16, device=DEVICE).as_strided((2, 16), (step, 1))
    far.copy_(noise(2, 16))
    expected = gpu.mix(far.contiguous(), partner, lam)
    assert torch.equal(gpu.mix(far, partner, lam, out=far), expected)


@pytest.mark.parametrize("span", [1, 4096, 4097, 2**31 - 4096, 2**31 - 1])
def test_blocks_are_counted_in_32_bits(span: int) -> None:
    from batchmix.kernels.triton_blend import _blocks_of

    assert _blocks_of(torch.tensor(span, dtype=torch.int32), 4096) == math.ceil(span / 4096)


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # NumPy, of inf - inf
@pytest.mark.parametrize("dtype", FLOATS)
def test_what_is_not_finite_goes_the_way_it_goes_in_torch(dtype: torch.dtype) -> None:
    special = [0.0, -0.0, 1e-30, 3e-5, 6e4, float("inf"), -float("inf"), float("nan")]
    x = torch.tensor([[a, b] for a in special for b in special]).to(DEVICE, dtype).T.contiguous()
    partner = torch.tensor([1, 0], device=DEVICE)
    for lam in (0.0, 1.0):
        weight = torch.full((2,), lam, device=DEVICE)
        mixed, expected = gpu.mix(x, partner, weight), eager(x, partner, weight).to(dtype)
        if INTERPRETED and dtype == torch.bfloat16:  # whose nan its NumPy cuts off too
            mixed, expected = mixed[:, x.isfinite().all(0)], expected[:, x.isfinite().all(0)]
        torch.testing.assert_close(mixed, expected, rtol=0, atol=0, equal_nan=True)
    mask = torch.tensor([[[True, False] * 32]], device=DEVICE).expand(2, 1, 64)
    pasted = gpu.mix(x[:, None], partner, weight, mask)
    torch.testing.assert_close(pasted, torch.where(mask, x[:, None], x[partner][:, None]), equal_nan=True)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("kind", ["none", "paste", "one soft"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_images_are_normalised_and_mixed_at_once(dtype: torch.dtype, kind: str, channels_last: bool) -> None:
    x = some_images(5, 3, 9, 7)
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    (partner, lam), mask = draw(5), some_mask(kind, 5)
    assert gpu.why_not_images(x, mask) is None
    mixed = gpu.mix_images(x, partner, lam, mask, mean=MEAN, std=STD, dtype=dtype)
    assert (mixed.dtype, mixed.stride()) == (dtype, x.stride())
    expected = pixels.mix_images(x, partner, lam, mask, mean=MEAN, std=STD, dtype=dtype)
    exact = dtype == torch.float32 or (multiplies_and_adds_at_once() and not INTERPRETED)
    room = 0.0 if exact else 2 * torch.finfo(dtype).eps
    torch.testing.assert_close(mixed, expected, rtol=room, atol=0 if exact else 1e-6)
    buffer = torch.zeros_like(mixed)
    assert gpu.why_not_images(x, mask, out=buffer) is None
    again = gpu.mix_images(x, partner, lam, mask, mean=MEAN, std=STD, dtype=dtype, out=buffer)
    assert again is buffer
    assert torch.equal(again, mixed)


def test_wrong_images_are_refused() -> None:
    images, (partner, lam) = some_images(3, 3, 4, 4), draw(3)
    with pytest.raises(MixError, match=r"^std takes one number a channel: 3, got 1$"):
        gpu.mix_images(images, partner, lam, mean=MEAN, std=(1.0,))
    with pytest.raises(MixError, match=r"^dtype takes torch.float32, torch.bfloat16 or torch.float16"):
        gpu.mix_images(images, partner, lam, mean=MEAN, std=STD, dtype=torch.int64)
    with pytest.raises(MixError, match=r"^out takes memory of the shape"):
        gpu.mix_images(images, partner, lam, mean=MEAN, std=STD, out=torch.zeros(3, 4, 4, 3, device=DEVICE))


class Labelled(torch.Tensor):
    pass


def test_what_torch_has_to_see_is_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.autograd import forward_ad

    x, (partner, lam), mask = noise(4, 3, 9, 7), draw(4), some_mask("paste", 4)
    assert mask is not None
    assert gpu.why_not(x, partner, lam, mask) is None
    learned = x.clone().requires_grad_()
    assert gpu.why_not(learned, partner, lam) == "gradients"
    with torch.no_grad():
        assert takes(learned, partner, lam)
        assert_mixed(gpu.mix(learned, partner, lam), x, partner, lam)
    assert not takes(x, partner, lam.clone().requires_grad_())
    assert gpu.why_not(x.as_subclass(Labelled), partner, lam) == "a subclass of Tensor"
    assert not takes(x.to("meta"), partner, lam)
    assert gpu.why_not(x.int(), partner, lam) == "samples of torch.int32"
    assert not takes(x, partner, lam, other=x.double())
    assert not takes(x, partner, lam, out=x.contiguous(memory_format=torch.channels_last))
    assert not takes(x[:, :, ::2], partner, lam)
    assert not takes(x, partner, lam, mask.expand(4, 3, 9, 7))
    assert gpu.why_not(x, partner, lam, mask.int()) == "a mask of torch.int32"
    assert not takes(torch.complex(x, x).conj().imag, partner, lam)
    with FakeTensorMode():
        assert not takes(x, partner, lam)
    with forward_ad.dual_level():
        assert not takes(x, partner, lam)
    answers = []
    torch.func.vmap(lambda row: (answers.append(takes(row, partner, lam)), row)[1])(x[None])
    assert answers == [False]
    memory = noise(5, 6)
    assert not takes(memory[:4], partner, lam, out=memory[1:])
    assert gpu.why_not_images(some_images(4, 3, 9, 7), mask) is None
    assert gpu.why_not_images(x, mask) == "samples of torch.float32"
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not takes(x, partner, lam)


def test_autograd_notices_what_is_written() -> None:
    x, (partner, lam) = noise(4, 6), draw(4)
    weight = noise(6, seed=1).requires_grad_()
    loss = (x * weight).sum()
    gpu.mix(x, partner, lam, out=x)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.gpu
@pytest.mark.skipif(INTERPRETED, reason="needs a GPU")
@pytest.mark.parametrize("in_place", [False, True])
def test_a_graph_replays_with_new_values_and_nothing_waits(in_place: bool) -> None:
    source, (partner, lam) = noise(8, 3, 32, 32), draw(8)
    x, out = source.clone(), torch.empty_like(source)
    out = x if in_place else out
    gpu.mix(x, partner, lam, out=out)  # compiles and measures
    x.copy_(source)
    with nothing_waits():
        gpu.mix(x, partner, lam, out=out)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        assert takes(x, partner, lam, out=out)
        gpu.mix(x, partner, lam, out=out)
    for seed in (1, 2):
        fresh = noise(8, 3, 32, 32, seed=seed)
        x.copy_(fresh)
        partner.copy_(torch.randperm(8))
        lam.copy_(torch.rand(8, generator=torch.Generator().manual_seed(seed)))
        graph.replay()
        assert_mixed(out, fresh, partner, lam)
