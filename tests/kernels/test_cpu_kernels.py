"""The fused loops give what the plain operations give, bit for bit, wherever values lie, whoever calls."""

from __future__ import annotations

import builtins
import importlib
import math
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import reference
from batchmix import CutMix, MixError, MixPlan, Mixup, Normalize, blend, kernel
from batchmix.kernels import blocks, cpu, fused, layout, pixels, team, threads
from batchmix.kernels.selected import Kernel

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(autouse=True)
def any_size(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Small batches count as large, and are cut into many blocks for up to 8 threads."""
    monkeypatch.setattr(cpu, "SMALLEST", 0)
    monkeypatch.setattr(cpu, "SHORTEST", 0)
    monkeypatch.setattr(fused, "BLOCK", 256)
    monkeypatch.setattr(fused, "BLOCK_IN_PLACE", 128)
    monkeypatch.setattr(fused, "BLOCK_NORMALISED", 16)
    monkeypatch.setattr(threads, "WORTH_A_THREAD", 1)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


needs_numba = pytest.mark.skipif(cpu.loops() is None, reason="needs numba")


def noise(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def draw(rows: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows)
    return torch.randperm(rows, generator=generator), torch.rand(rows, generator=generator)


def box_mask(rows: int, height: int = 9, width: int = 7) -> Tensor:
    boxes = [[i % 3, height - i % 2, i % 4, width - i % 3] for i in range(rows)]
    return reference.box_masks(boxes, (height, width))


def eager(
    x: Tensor, partner: Tensor, lam: Tensor, mask: Tensor | None = None, other: Tensor | None = None
) -> Tensor:
    """The definition in plain torch operations: half precision is combined in float32 and rounded once."""
    mates = (x if other is None else other)[partner]
    if mask is not None and mask.dtype == torch.bool:
        return torch.where(mask, x, mates)
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    weight = lam.view(-1, *[1] * (x.dim() - 1)) if mask is None else mask
    return torch.lerp(mates.to(wide), x.to(wide), weight.to(wide)).to(x.dtype)


def assert_bits(got: Tensor, expected: Tensor) -> None:
    assert got.dtype == expected.dtype
    torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True)


def assert_within_one_ulp(got: Tensor, exact: Tensor, *sources: Tensor) -> None:
    """One unit in the last place of the larger of the result and what it was made from."""
    scale = torch.stack(
        [source.double().abs().broadcast_to(exact.shape) for source in (exact, *sources)]
    ).amax(0)
    ulp = scale.clamp(min=torch.finfo(got.dtype).tiny).log2().floor().exp2() * torch.finfo(got.dtype).eps
    assert ((got.double() - exact).abs() <= ulp).all()


MASKS = ["none", "paste", "one paste", "soft", "one soft"]
# Each dtype of each kind is compiled, in a second or more; soft masks change the weight alone.
KINDS = [(dtype, kind) for dtype in FLOATS for kind in MASKS if dtype in FLOATS[:1] or "soft" not in kind]


def some_mask(kind: str, rows: int) -> Tensor | None:
    if kind == "none":
        return None
    count = 1 if kind.startswith("one") else rows
    return box_mask(count) if "paste" in kind else noise(count, 1, 9, 7, seed=3).sigmoid()


@needs_numba
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("dtype", "kind"), KINDS)
def test_bits_are_those_of_the_plain_operations(dtype: torch.dtype, kind: str, channels_last: bool) -> None:
    for rows in (1, 2, 5):
        x, other = noise(rows, 3, 9, 7, dtype=dtype), noise(rows, 3, 9, 7, dtype=dtype, seed=1)
        if channels_last:
            x, other = (image.contiguous(memory_format=torch.channels_last) for image in (x, other))
        (partner, lam), mask, before = draw(rows), some_mask(kind, rows), x.clone()
        expected = eager(x, partner, lam, mask)
        assert cpu.can_mix(x, partner, lam, mask)
        mixed = cpu.mix(x, partner, lam, mask)
        assert_bits(mixed, expected)
        assert mixed.stride() == x.stride()
        assert torch.equal(x, before)
        assert_within_one_ulp(mixed, reference.blend(x, partner, lam, mask), x, x[partner])

        buffer = torch.full_like(x, 7)
        assert cpu.mix(x, partner, lam, mask, out=buffer) is buffer
        assert_bits(buffer, expected)
        assert_bits(cpu.mix(x, partner, lam, mask, other=other), eager(x, partner, lam, mask, other))
        for mates in (partner, torch.zeros(rows, dtype=torch.int64)):  # along cycles; and no permutation
            place = x.clone(memory_format=torch.preserve_format)
            assert cpu.can_mix(place, mates, lam, mask, out=place)
            assert cpu.mix(place, mates, lam, mask, out=place) is place
            assert_bits(place, eager(x, mates, lam, mask))
        place = x.clone(memory_format=torch.preserve_format)
        assert_bits(
            cpu.mix(place, partner, lam, mask, other=other, out=place), eager(x, partner, lam, mask, other)
        )


@needs_numba
@pytest.mark.parametrize("shape", [(5,), (1,), (2, 0), (0, 3), (3, 1), (4, 1025), (7, 3, 2, 5, 3)], ids=str)
def test_every_shape_is_mixed(shape: tuple[int, ...]) -> None:
    x, (partner, lam) = noise(*shape), draw(shape[0])
    assert_bits(cpu.mix(x, partner, lam), eager(x, partner, lam))
    place = x.clone()
    assert_bits(cpu.mix(place, partner, lam, out=place), eager(x, partner, lam))


@needs_numba
@pytest.mark.parametrize("lam", [0.0, 1.0])
@pytest.mark.parametrize("dtype", FLOATS)
def test_whole_weights_copy_and_what_is_not_finite_goes_the_plain_way(dtype: torch.dtype, lam: float) -> None:
    special = [0.0, -0.0, 1e-30, 3e-5, 6e4, float("inf"), -float("inf"), float("nan")]
    x = torch.tensor([[a, b] for a in special for b in special]).to(dtype).T.contiguous()
    partner, weight = torch.tensor([1, 0]), torch.full((2,), lam)
    mixed = cpu.mix(x, partner, weight)
    assert_bits(mixed, eager(x, partner, weight))
    finite = x.isfinite().all(0)
    assert torch.equal(mixed[:, finite], (x if lam else x[partner])[:, finite])


@needs_numba
def test_half_precision_is_rounded_to_the_nearest_even() -> None:
    generator = torch.Generator().manual_seed(0)
    bits = torch.randint(-(2**15), 2**15, (2, 4096), generator=generator, dtype=torch.int16)
    for dtype in (torch.bfloat16, torch.float16):
        x = bits.view(dtype)
        for lam in (0.5, 0.25, 0.7):  # halves fall between two numbers
            weight = torch.full((2,), lam)
            assert_bits(cpu.mix(x, torch.tensor([1, 0]), weight), eager(x, torch.tensor([1, 0]), weight))


@needs_numba
def test_rows_may_lie_apart_share_memory_or_start_anywhere() -> None:
    partner, lam = draw(5)
    wide = noise(10, 3, 9, 7)
    shifted = noise(5 * 189 + 3)[3:].view(5, 3, 9, 7)
    transposed = noise(5, 7, 9, 3).transpose(1, 3)
    for x in (wide[::2], wide[3:8], noise(1, 3, 9, 7).expand(5, 3, 9, 7), shifted, transposed):
        assert cpu.can_mix(x, partner, lam)
        assert_bits(cpu.mix(x, partner, lam), eager(x, partner, lam))
    place, untouched = wide.clone(), wide[1::2].clone()
    cpu.mix(place[::2], partner, lam, box_mask(5), out=place[::2])
    assert_bits(place[::2], eager(wide[::2], partner, lam, box_mask(5)))
    assert torch.equal(place[1::2], untouched)


@needs_numba
@pytest.mark.parametrize("kind", MASKS)
def test_no_bit_depends_on_the_number_of_threads(kind: str) -> None:
    x, (partner, lam), mask = noise(6, 3, 9, 7), draw(6), some_mask(kind, 6)
    images = (x * 50 + 128).clamp(0, 255).to(torch.uint8)
    expected = eager(x, partner, lam, mask)
    normalised = cpu.mix_images(images, partner, lam, mask, mean=MEAN, std=STD, dtype=torch.bfloat16)
    for count in range(1, 9):
        torch.set_num_threads(count)
        assert_bits(cpu.mix(x, partner, lam, mask), expected)
        place = x.clone()
        assert_bits(cpu.mix(place, partner, lam, mask, out=place), expected)
        again = cpu.mix_images(images, partner, lam, mask, mean=MEAN, std=STD, dtype=torch.bfloat16)
        assert_bits(again, normalised)


@needs_numba
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(
    ("dtype", "kind"),
    [(torch.float32, "none"), (torch.float16, "none"), *((torch.bfloat16, kind) for kind in MASKS)],
)
def test_images_are_normalised_and_mixed_at_once(dtype: torch.dtype, kind: str, channels_last: bool) -> None:
    x = torch.randint(256, (5, 3, 9, 7), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    (partner, lam), mask = draw(5), some_mask(kind, 5)
    assert cpu.why_not_images(x, mask) is None
    mixed = cpu.mix_images(x, partner, lam, mask, mean=MEAN, std=STD, dtype=dtype)
    assert (mixed.dtype, mixed.stride()) == (dtype, x.stride())
    assert_bits(mixed, pixels.mix_images(x, partner, lam, mask, mean=MEAN, std=STD, dtype=dtype))
    buffer = torch.zeros_like(mixed)
    assert_bits(cpu.mix_images(x, partner, lam, mask, mean=MEAN, std=STD, dtype=dtype, out=buffer), mixed)


@needs_numba
def test_wrong_images_and_partners_are_refused() -> None:
    images, (partner, lam) = torch.zeros(3, 3, 4, 4, dtype=torch.uint8), draw(3)
    with pytest.raises(MixError, match=r"^std takes one number a channel: 3, got 1$"):
        cpu.mix_images(images, partner, lam, mean=MEAN, std=(1.0,))
    with pytest.raises(MixError, match=r"^dtype takes torch.float32, torch.bfloat16 or torch.float16"):
        cpu.mix_images(images, partner, lam, mean=MEAN, std=STD, dtype=torch.int64)
    with pytest.raises(MixError, match=r"^out takes memory of the shape"):
        cpu.mix_images(images, partner, lam, mean=MEAN, std=STD, out=torch.zeros(3, 4, 4, 3))
    for outside in (-1, 3):
        wrong, x = torch.tensor([0, outside, 1]), noise(3, 4)
        before = x.clone()
        with pytest.raises(MixError, match=r"^partner takes rows of the other batch, 0 to 2, got"):
            cpu.mix(x, wrong, lam, out=x)
        assert torch.equal(x, before)


class Labelled(torch.Tensor):
    pass


@needs_numba
def test_what_torch_has_to_see_is_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.autograd import forward_ad

    x, (partner, lam), mask = noise(4, 3, 9, 7), draw(4), box_mask(4)
    assert cpu.can_mix(x, partner, lam, mask)
    learned = x.clone().requires_grad_()
    assert not cpu.can_mix(learned, partner, lam)
    with torch.no_grad():
        assert cpu.can_mix(learned, partner, lam)
        assert_bits(cpu.mix(learned, partner, lam), eager(x, partner, lam))
    assert not cpu.can_mix(x, partner, lam.clone().requires_grad_())
    assert not cpu.can_mix(x.as_subclass(Labelled), partner, lam)
    assert not cpu.can_mix(x.to("meta"), partner, lam)
    assert not cpu.can_mix(x.int(), partner, lam)
    assert not cpu.can_mix(x, partner, lam, other=x.double())
    assert not cpu.can_mix(x.transpose(0, 1), partner[:3], lam[:3])
    assert not cpu.can_mix(x, partner, lam, out=x.contiguous(memory_format=torch.channels_last))
    assert not cpu.can_mix(x[:, :, ::2], partner, lam)
    assert not cpu.can_mix(x, partner, lam, mask.expand(4, 3, 9, 7))
    assert not cpu.can_mix(torch.complex(x, x).conj().imag, partner, lam)
    with FakeTensorMode():
        assert not cpu.can_mix(x, partner, lam)
    with forward_ad.dual_level():
        assert not cpu.can_mix(x, partner, lam)
    answers = []
    torch.func.vmap(lambda row: (answers.append(cpu.can_mix(row, partner, lam)), row)[1])(x[None])
    assert answers == [False]
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not cpu.can_mix(x, partner, lam)
    monkeypatch.undo()
    assert not cpu.can_mix(x, partner, lam)  # 3 KB are not worth a call


@needs_numba
@pytest.mark.parametrize("shape", [(64, 3, 16, 16), (64, 3, 256)], ids=["images", "series"])
def test_the_default_device_is_not_asked_about_a_batch_on_the_cpu(shape: tuple[int, ...]) -> None:
    floats, labels = noise(*shape), torch.arange(64)
    images = noise(*shape).mul(40).to(torch.uint8)
    results = []
    for device in ("cpu", "meta"):
        fused.loops.cache_clear()
        pixels._constants.cache_clear()
        torch.set_default_device(device)
        try:
            mixed = [CutMix(seed=0)(floats, labels)[0], Mixup(seed=0).between(*[(floats, labels)] * 2)[0]]
            mixed.append(Mixup(seed=0, normalize=(MEAN, STD))(images, labels)[0])
        finally:
            torch.set_default_device(None)
        results.append(mixed)
    for got, expected in zip(*results, strict=True):
        assert_bits(got, expected)


WINDOWS = {
    "signals": ((4, 30), (1, 1)),
    "series": ((4, 3, 20), (4, 20, 1)),
    "images": ((4, 3, 9, 7), (21, 63, 7, 1)),
    "channels last": ((4, 3, 9, 7), (21, 1, 21, 3)),
    "all the same": ((4, 3, 9, 7), (0, 1, 21, 3)),
}


@needs_numba
@pytest.mark.parametrize("name", ["numba", "torch", "auto"])
@pytest.mark.parametrize("windows", WINDOWS)
def test_windows_that_overlap_are_mixed_each_for_itself(
    windows: str, name: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "SMALLEST", 0)
    shape, strides = WINDOWS[windows]
    x, other = (noise(400, seed=seed).as_strided(shape, strides) for seed in (0, 1))
    parts = (*draw(4), box_mask(4) if len(shape) == 4 else None)
    plan, before = MixPlan(*parts), x.clone()
    with kernel(name):
        assert_bits(blend(x, plan), eager(x, *parts))
        assert_bits(blend(x, plan, other=other), eager(x, *parts, other))
        apart = torch.empty_strided(shape, (math.prod(shape[1:]), *strides[1:]))
        assert_bits(blend(x, plan, out=apart), eager(x, *parts))
        assert torch.equal(x, before)
        if len(shape) > 2:
            images = torch.arange(400).mul(7).to(torch.uint8).as_strided(shape, strides)
            mixed = blend(images, plan, normalize=Normalize(MEAN, STD))
            separate = images.clone(memory_format=torch.contiguous_format)
            assert_bits(mixed, blend(separate, plan, normalize=Normalize(MEAN, STD)))


@needs_numba
def test_memory_that_is_read_is_not_written_out_of_turn() -> None:
    memory, (partner, lam) = noise(5, 6), draw(4)
    x, other = memory[:4], noise(4, 6, seed=1)
    assert not cpu.can_mix(x, partner, lam, out=memory[1:])
    assert not cpu.can_mix(x, partner, lam, other=other, out=other)
    assert not cpu.can_mix(x, partner, lam, out=noise(1, 6).expand(4, 6))
    assert cpu.can_mix(x, partner, lam, other=other, out=x)


@needs_numba
def test_autograd_notices_what_is_written() -> None:
    x, (partner, lam) = noise(4, 6), draw(4)
    weight = noise(6, seed=1).requires_grad_()
    loss = (x * weight).sum()
    cpu.mix(x, partner, lam, out=x)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@needs_numba
def test_many_callers_at_once_get_their_own_results() -> None:
    torch.set_num_threads(4)
    batches = [noise(6, 3, 9, 7, seed=seed) for seed in range(8)]
    (partner, lam), wrong = draw(6), []

    def call(x: Tensor) -> None:
        expected = torch.lerp(x[partner], x, lam.view(-1, 1, 1, 1))
        for _ in range(20):
            if not torch.equal(cpu.mix(x, partner, lam), expected):
                wrong.append(x)

    callers = [threading.Thread(target=call, args=(x,)) for x in batches]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert wrong == []


class Batches(Dataset):
    """Batches mixed in the worker, beside their seeds."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[int, Tensor]:
        cpu.SMALLEST, threads.WORTH_A_THREAD = 0, 1
        torch.set_num_threads(4)
        x, (partner, lam) = noise(6, 3, 9, 7, seed=index), draw(6)
        assert cpu.can_mix(x, partner, lam)
        assert threads.threads_for(x.nbytes) == 1
        return index, cpu.mix(x, partner, lam)


@needs_numba
@pytest.mark.filterwarnings(
    "ignore:This process:DeprecationWarning"
)  # Python 3.12 on forks beside torch's threads
@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_of_a_loader_mix(context: str) -> None:
    if context not in multiprocessing.get_all_start_methods():
        pytest.skip(f"needs {context}")
    torch.set_num_threads(4)
    partner, lam = draw(6)
    cpu.mix(noise(6, 3, 9, 7), partner, lam)  # so that there are threads which a fork leaves behind
    for index, mixed in DataLoader(
        Batches(), batch_size=None, num_workers=1, multiprocessing_context=context
    ):
        x = noise(6, 3, 9, 7, seed=index)
        assert_bits(mixed, eager(x, partner, lam))


@needs_numba
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_a_forked_process_makes_threads_of_its_own() -> None:
    torch.set_num_threads(4)
    x, (partner, lam) = noise(6, 3, 9, 7), draw(6)
    expected = cpu.mix(x, partner, lam)

    def child() -> None:
        assert not team.is_there()
        assert threads.threads_for(x.nbytes) == 4
        sys.exit(0 if torch.equal(cpu.mix(x, partner, lam), expected) else 3)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(60)
    assert process.exitcode == 0


def test_without_numba_the_plain_operations_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def no_numba(name: str, *rest: object) -> object:
        if name.partition(".")[0] == "numba":
            raise ImportError(name)
        return real(name, *rest)

    for name in [
        name for name in sys.modules if name.partition(".")[0] == "numba" or name.endswith("kernels.loops")
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", no_numba)
    monkeypatch.setattr("importlib.import_module", no_numba)
    cpu.loops.cache_clear()
    try:
        x, (partner, lam) = noise(5, 3, 9, 7), draw(5)
        assert not cpu.can_mix(x, partner, lam)
        assert cpu.why_not_images(torch.zeros(2, 3, 4, 4, dtype=torch.uint8)) is not None
        assert_bits(blend(x, MixPlan(partner, lam)), eager(x, partner, lam))
    finally:
        cpu.loops.cache_clear()


@needs_numba
def test_an_error_of_numbas_own_is_told_once_and_torch_mixes(monkeypatch: pytest.MonkeyPatch) -> None:
    from numba.core.errors import TypingError

    real = importlib.import_module

    def broken(name: str, *rest: str) -> object:
        if name == "batchmix.kernels.loops":
            raise TypingError("Failed in nopython mode\nat line 1")
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", broken)
    cpu.loops.cache_clear()
    try:
        x, (partner, lam) = noise(5, 3, 9, 7), draw(5)
        with pytest.warns(RuntimeWarning, match=r"^numba does not .*: TypingError: Failed in .*mode") as told:
            mixed = [blend(x, MixPlan(partner, lam)) for _ in range(2)]
        assert len(told) == 1
        assert_bits(mixed[1], eager(x, partner, lam))
        with pytest.raises(MixError, match=r"^kernel takes .*numba"):
            kernel("numba")
    finally:
        cpu.loops.cache_clear()


def test_large_new_memory_is_like_any_other() -> None:
    for x in (
        torch.empty(3, 1 << 20),
        torch.empty(2, 3, 999, 1001).contiguous(memory_format=torch.channels_last),
    ):
        new = layout.fresh_like(x, torch.bfloat16)
        assert (new.shape, new.stride(), new.dtype) == (x.shape, x.stride(), torch.bfloat16)
        assert torch.equal(new.fill_(1), torch.ones_like(new))


@needs_numba
def test_a_folder_that_cannot_be_written_is_no_hindrance(tmp_path: object) -> None:
    code = """
import numba.core.caching, torch
numba.core.caching.CacheImpl._locator_classes = []
from batchmix.kernels import cpu
torch.set_num_threads(1)
x = torch.rand(2, 100000)
partner, lam = torch.tensor([1, 0]), torch.tensor([0.25, 0.5])
assert cpu.can_mix(x, partner, lam)
assert torch.equal(cpu.mix(x, partner, lam), torch.lerp(x[partner], x, lam[:, None]))
"""
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0, ran.stderr


@needs_numba
def test_a_loop_that_was_kept_is_not_used_once_another_file_that_it_is_made_of_has_changed(
    tmp_path: Path,
) -> None:
    package = Path(cpu.__file__).parents[1]
    shutil.copytree(package, tmp_path / "batchmix", ignore=shutil.ignore_patterns("__pycache__"))
    code = (
        "import numpy as np; from batchmix.kernels.loss_loops import largest_of;"
        "print(largest_of(np.array([1, 5, 3], np.uint16), 0, 3), sum(largest_of.stats.cache_hits.values()))"
    )
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "kept")}

    def largest() -> tuple[float, int]:
        ran = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120
        )
        value, hits = ran.stdout.split() or pytest.fail(ran.stderr)
        return float(value), int(hits)

    value, hits = largest()
    assert hits == 0
    assert largest() == (value, 1)
    source = tmp_path / "batchmix" / "kernels" / "loops.py"
    before = source.read_text()
    source.write_text(before.replace("word(16)), single)", "word(17)), single)"))
    assert source.read_text() != before
    assert largest()[0] != value
