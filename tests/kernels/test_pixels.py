"""uint8 images come out normalised and mixed within a unit in the last place, whatever their memory."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

import reference
from batchmix import MixError
from batchmix.kernels import cpu, fused, pixels, threads

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
KERNELS = [
    pytest.param(cpu, marks=pytest.mark.skipif(cpu.loops() is None, reason="needs numba"), id="numba"),
    pytest.param(pixels, id="torch"),
]


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def draw(rows: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows)
    return torch.randperm(rows, generator=generator), torch.rand(rows, generator=generator)


def exact(
    x: Tensor,
    partner: Tensor,
    lam: Tensor,
    mask: Tensor | None = None,
    other: Tensor | None = None,
    mean: tuple[float, ...] = MEAN,
    std: tuple[float, ...] = STD,
) -> Tensor:
    """Normalised in float64, then mixed."""
    shape = (len(mean), *[1] * (x.dim() - 2))
    middle, width = (torch.tensor(part, dtype=torch.float64).view(shape) for part in (mean, std))
    x, other = ((part.double() / 255 - middle) / width for part in (x, x if other is None else other))
    return reference.blend(x, partner, lam, mask, other)


def assert_within_one_ulp(got: Tensor, wanted: Tensor) -> None:
    """One unit in the last place of the result itself; of subnormal numbers, of the smallest normal one."""
    limits = torch.finfo(got.dtype)
    ulp = wanted.abs().clamp(min=limits.tiny).log2().floor().exp2() * limits.eps
    # 1e-14 is what the oracle itself may be off by, and 2**-33 what float32 is for a value next to 0.
    room = 1e-14 if got.dtype == torch.float32 else 2.0**-33
    assert ((got.double() - wanted).abs() <= ulp + room).all()


MASKS = {
    "none": None,
    "paste": torch.rand(6, 1, 9, 7, generator=torch.Generator().manual_seed(1)) < 0.5,
    "one paste": torch.rand(1, 1, 9, 7, generator=torch.Generator().manual_seed(2)) < 0.5,
    "soft": torch.rand(6, 1, 9, 7, generator=torch.Generator().manual_seed(3)),
    "one soft": torch.rand(1, 1, 9, 7, generator=torch.Generator().manual_seed(4)),
}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", MASKS)
def test_the_result_is_that_of_normalising_then_mixing(
    kind: str, dtype: torch.dtype, channels_last: bool, kernel: object
) -> None:
    if kernel is cpu and kind.endswith(("soft", "paste")) and dtype == torch.float16:
        pytest.skip("each dtype of each kind is compiled, which takes seconds")
    x, other, (partner, lam) = images(6, 3, 9, 7), images(6, 3, 9, 7, seed=1), draw(6)
    if channels_last:
        x, other = (part.contiguous(memory_format=torch.channels_last) for part in (x, other))
    options = {"mean": MEAN, "std": STD, "dtype": dtype}
    mixed = kernel.mix_images(x, partner, lam, MASKS[kind], **options)
    assert (mixed.dtype, mixed.stride()) == (dtype, x.stride())
    assert_within_one_ulp(mixed, exact(x, partner, lam, MASKS[kind]))
    between = kernel.mix_images(x, partner, lam, MASKS[kind], other=other, **options)
    assert_within_one_ulp(between, exact(x, partner, lam, MASKS[kind], other))
    buffer = torch.full_like(mixed, 7)
    assert kernel.mix_images(x, partner, lam, MASKS[kind], out=buffer, **options) is buffer
    assert torch.equal(buffer, mixed)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_pair_of_grey_levels_is_exact_to_the_last_place(dtype: torch.dtype, kernel: object) -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    x = (
        torch.stack([levels.repeat_interleave(256), levels.repeat(256)])
        .view(2, 1, 256, 256)
        .expand(2, 3, -1, -1)
    )
    partner = torch.tensor([1, 0])
    for lam in (0.0, 1.0, 0.5, 0.7, 1e-9, 0.3333333, 0.9999999):
        weight = torch.full((2,), lam)
        mixed = kernel.mix_images(x.contiguous(), partner, weight, mean=MEAN, std=STD, dtype=dtype)
        assert_within_one_ulp(mixed, exact(x, partner, weight))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("mean", [(0.0,), (1.0,), (0.5,), (127 / 255,)])
def test_means_at_the_ends_and_on_a_level(mean: tuple[float, ...], kernel: object) -> None:
    x = torch.arange(256, dtype=torch.uint8).view(2, 1, 16, 8)
    partner, lam = torch.tensor([1, 0]), torch.tensor([0.25, 0.75])
    for std in ((1 / 255,), (0.25,), (1.0,)):
        mixed = kernel.mix_images(x, partner, lam, mean=mean, std=std)
        assert_within_one_ulp(mixed, exact(x, partner, lam, mean=mean, std=std))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    "shape", [(1, 3, 5, 5), (5, 3, 7), (4, 3, 2, 3, 5), (3, 3, 1, 1), (2, 3, 0, 4)], ids=str
)
def test_odd_shapes_and_storages(shape: tuple[int, ...], kernel: object) -> None:
    (partner, lam), size = draw(shape[0]), torch.Size(shape).numel()
    offset = images(size + 5)[5:].view(shape)
    every_second = images(2 * shape[0], *shape[1:])[::2]
    same = images(1, *shape[1:]).expand(shape)
    for x in (offset, every_second, same):
        mixed = kernel.mix_images(x, partner, lam, mean=MEAN, std=STD)
        assert mixed.shape == x.shape
        assert_within_one_ulp(mixed, exact(x, partner, lam))


def test_torch_takes_what_the_loops_do_not() -> None:
    (partner, lam), mask = draw(6), MASKS["soft"].expand(6, 3, 9, 7)
    gaps, turned = images(6, 3, 9, 14)[..., ::2], images(3, 6, 9, 7).transpose(0, 1)
    for x in (gaps, turned):
        assert cpu.why_not_images(x) is not None
        mixed = pixels.mix_images(x, partner, lam, mask, mean=MEAN, std=STD)
        assert_within_one_ulp(mixed, exact(x, partner, lam, mask))


@pytest.mark.parametrize("kernel", KERNELS)
def test_no_bit_depends_on_threads_or_on_how_much_is_done_at_a_time(
    kernel: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, (partner, lam) = images(6, 3, 9, 7), draw(6)
    arguments = {"mean": MEAN, "std": STD}
    expected = {kind: kernel.mix_images(x, partner, lam, mask, **arguments) for kind, mask in MASKS.items()}
    monkeypatch.setattr(threads, "WORTH_A_THREAD", 1)
    monkeypatch.setattr(fused, "BLOCK", 16)
    monkeypatch.setattr(pixels, "GROUP", 400)
    before = torch.get_num_threads()
    try:
        for count in range(1, 9):
            torch.set_num_threads(count)
            for kind, mask in MASKS.items():
                assert torch.equal(kernel.mix_images(x, partner, lam, mask, **arguments), expected[kind])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("mixed", [True, False])
def test_on_other_devices_too_the_wide_values_are_those_of_some_rows(
    mixed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the meta device, which goes the way of a GPU."""
    rows: list[int] = []
    whole = pixels._normalised
    monkeypatch.setattr(pixels, "_normalised", lambda x, *rest: rows.append(len(x)) or whole(x, *rest))
    monkeypatch.setattr(pixels, "GROUP_ELSEWHERE", 400)
    x, drawn = images(6, 3, 9, 7).to("meta"), [part.to("meta") for part in draw(6)] if mixed else [None, None]
    got = pixels.mix_images(x, *drawn, mean=MEAN, std=STD)
    assert (got.shape, got.dtype, got.device.type) == (x.shape, torch.float32, "meta")
    assert rows == [2, 2, 2]


def test_constants_that_every_stream_reads_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[bool] = []
    monkeypatch.setattr(Tensor, "to", lambda x, _, non_blocking=False: waits.append(not non_blocking) or x)
    pixels._make_constants(MEAN, STD, torch.device("cuda"), torch.float32)
    assert waits
    assert all(waits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_compiler_sees_constants_that_are_not_copied_and_have_the_same_bits(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = pixels._make_constants
    copied = make(MEAN, STD, torch.device("cpu"), dtype)
    compiler = SimpleNamespace(is_compiling=lambda: True)
    monkeypatch.setattr(pixels, "torch", SimpleNamespace(**{**vars(torch), "compiler": compiler}))
    assert all(map(torch.equal, make(MEAN, STD, torch.device("cpu"), dtype), copied))
    monkeypatch.setattr(Tensor, "to", lambda *_, **__: pytest.fail("copies"))
    assert {part.device.type for part in make(MEAN, STD, torch.device("meta"), dtype)} == {"meta"}


@pytest.mark.gpu
def test_on_a_gpu_a_large_batch_takes_little_more_than_its_result(monkeypatch: pytest.MonkeyPatch) -> None:
    x, drawn = images(64, 3, 512, 512).cuda(), [part.cuda() for part in draw(64)]
    pixels.mix_images(x[:2], None, None, mean=MEAN, std=STD)  # the constants
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    mixed = pixels.mix_images(x, *drawn, mean=MEAN, std=STD)
    assert torch.cuda.max_memory_allocated() - before < mixed.nbytes + 32 * pixels.GROUP_ELSEWHERE
    monkeypatch.setattr(pixels, "GROUP_ELSEWHERE", x.numel())
    assert torch.equal(mixed, pixels.mix_images(x, *drawn, mean=MEAN, std=STD))


@pytest.mark.parametrize("kernel", KERNELS)
def test_at_weight_one_the_images_are_normalised_alone(kernel: object) -> None:
    x, (partner, _) = images(6, 3, 9, 7), draw(6)
    alone = pixels.mix_images(x, None, None, mean=MEAN, std=STD)
    assert torch.equal(kernel.mix_images(x, partner, torch.ones(6), mean=MEAN, std=STD), alone)
    kept = torch.ones(1, 1, 9, 7, dtype=torch.bool)
    assert torch.equal(kernel.mix_images(x, partner, torch.ones(6), kept, mean=MEAN, std=STD), alone)
    assert_within_one_ulp(alone, exact(x, partner, torch.ones(6)))


@pytest.mark.parametrize("kernel", KERNELS)
def test_wrong_constants_are_named(kernel: object) -> None:
    x, (partner, lam) = images(3, 3, 4, 4), draw(3)
    with pytest.raises(MixError, match=r"^std takes one number a channel: 3, got 1$"):
        kernel.mix_images(x, partner, lam, mean=MEAN, std=(1.0,))
    with pytest.raises(MixError, match=r"^dtype takes torch.float32, torch.bfloat16 or torch.float16, got"):
        kernel.mix_images(x, partner, lam, mean=MEAN, std=STD, dtype=torch.float64)


def test_the_operations_compile_whole() -> None:
    torch._dynamo.reset()
    x, (partner, lam) = images(6, 3, 9, 7), draw(6)

    def mix(x: Tensor, partner: Tensor, lam: Tensor) -> Tensor:
        return pixels.mix_images(x, partner, lam, mean=MEAN, std=STD, dtype=torch.bfloat16)

    compiled = torch.compile(mix, fullgraph=True, backend="aot_eager")(x, partner, lam)
    assert torch.equal(compiled, mix(x, partner, lam))
