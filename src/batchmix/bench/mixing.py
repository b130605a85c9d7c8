"""The parts ``blend`` and ``images``: a batch mixed by every library, beside a plain copy of it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

import batchmix as bm
from batchmix.bench.cases import (
    BLEND,
    DRAW,
    MEAN,
    SHAPES,
    STD,
    BenchOptions,
    Case,
    classes_beside,
    our_mixer,
    random_batch,
    torch_threads,
    with_kernel,
)
from batchmix.bench.peers import Images, Mix, Peer, mean_and_std
from batchmix.bench.timing import Contender, device_clock, in_turn
from batchmix.kernels.selected import Kernel

METHODS = ("mixup", "cutmix")


def blend_cases(options: BenchOptions) -> list[Case]:
    """Both methods, in float32, and in bfloat16 too where all is measured."""
    dtypes = ("float32",) if options.shapes == "quick" else ("float32", "bfloat16")
    return _cases("blend", METHODS, dtypes, options)


def image_cases(options: BenchOptions) -> list[Case]:
    """uint8 images to normalised mixed ones."""
    dtypes = ("bfloat16",) if options.shapes == "quick" else ("float32", "bfloat16")
    return _cases("images", ("mixup",), dtypes, options)


def measure_blend(case: Case, options: BenchOptions, peers: Sequence[Peer]) -> list[dict[str, Any]]:
    """Time one mixing of a batch by every contender, the batch being put back before each call."""
    source, y = random_batch(case, options.device)
    x, buffer = source.clone(), torch.zeros_like(source)
    contenders = [
        Contender("torch", "copy", lambda: buffer.copy_(x)),
        Contender("torch", "clone", x.clone, fresh=True),
    ]
    drawing = our_mixer(case.what)
    contenders.append(Contender("batchmix", DRAW, lambda: drawing.plan(x, y)))
    for kernel in (None, *options.kernels):
        contenders += _ours(case.what, x, y, buffer, kernel)
    for peer in peers:
        contenders += _that_can_be_made(peer, _mixes(peer, case, x, y))
    return _timed(case, options, contenders, lambda: x.copy_(source))


def measure_images(case: Case, options: BenchOptions, peers: Sequence[Peer]) -> list[dict[str, Any]]:
    """Time uint8 images to normalised, mixed ones of the case's dtype: our one pass and the peers' chains.

    A chain computes in float32 and converts at the end, or in the dtype from the start: both are measured.
    """
    raw, y = random_batch(case, options.device)
    dtype = case.torch_dtype
    plain = _plain_chain(options.device, dtype)
    buffer = torch.zeros_like(raw, dtype=dtype)
    contenders = [
        Contender("torch", "copy", lambda: buffer.copy_(raw)),
        Contender("torch", "convert", lambda: raw.to(dtype), fresh=True),
        Contender("torch", "chain", lambda: plain(raw), fresh=True),
    ]
    for kernel in (None, *options.kernels):
        mixer = our_mixer(case.what, normalize=bm.Normalize(MEAN, STD, dtype=dtype))
        call = with_kernel(kernel, functools.partial(mixer, raw, y))
        contenders.append(Contender("batchmix", "fresh", call, fresh=True, kernel=kernel))
    for peer in peers:
        for computed in dict.fromkeys((torch.float32, dtype)):
            contenders += _that_can_be_made(peer, _chains(peer, case, raw, y, computed))
    return _timed(case, options, contenders, lambda: None)


def _cases(part: str, methods: Sequence[str], dtypes: Sequence[str], options: BenchOptions) -> list[Case]:
    return [
        Case(part, method, shape, dtype, threads)
        for shape in SHAPES[options.shapes]
        for method in methods
        for dtype in dtypes
        for threads in options.threads
    ]


def _timed(
    case: Case, options: BenchOptions, contenders: list[Contender], before: Callable[[], object]
) -> list[dict[str, Any]]:
    clock = device_clock(options.device)
    with torch_threads(case.threads):
        return case.rows(in_turn(contenders, repeats=options.repeats, clock=clock, before=before))


def _ours(method: str, x: Tensor, y: Tensor, buffer: Tensor, kernel: Kernel | None) -> list[Contender]:
    """A draw, the mixing and the target: into new memory as users call it, into a buffer, and in place.

    Beside them the mixing alone, of what was drawn before, into a buffer.
    """
    mixer = our_mixer(method)
    drawn = mixer.plan(x, y)

    def into(out: Tensor) -> tuple[Tensor, bm.MixedTarget]:
        plan = mixer.plan(x, y)
        return bm.blend(x, plan, out=out), bm.MixedTarget.from_plan(y, plan)

    calls: dict[str, Callable[[], object]] = {
        "fresh": lambda: mixer(x, y),
        "into a buffer": lambda: into(buffer),
        "in place": lambda: into(x),
        BLEND: lambda: bm.blend(x, drawn, out=buffer),
    }
    return [
        Contender("batchmix", form, with_kernel(kernel, call), fresh=form == "fresh", kernel=kernel)
        for form, call in calls.items()
    ]


def _that_can_be_made(peer: Peer, ways: Iterator[Contender]) -> Iterator[Contender]:
    """What there is to time of a peer; where that raises, a contender that does, so that its row says why."""
    try:
        yield from ways
    except Exception as error:  # another library's: the others are measured all the same
        reason = error

        def refuse() -> object:
            raise reason

        yield Contender(peer.name, "set-up", refuse)


def _mixes(peer: Peer, case: Case, x: Tensor, y: Tensor) -> Iterator[Contender]:
    """Every way of a peer to mix the batch."""
    for mix in peer.mixes(case.what, classes_beside(case.shape[-1])):
        yield Contender(peer.name, mix.form, functools.partial(mix.call, x, y), mix.fresh)


def _chains(peer: Peer, case: Case, raw: Tensor, y: Tensor, computed: torch.dtype) -> Iterator[Contender]:
    """The same from uint8 images on: normalised and mixed in one dtype, converted to that of the case."""
    normalise = peer.normaliser(computed)
    told = "" if computed == torch.float32 else f" in {case.dtype}"
    for mix in peer.mixes(case.what, classes_beside(case.shape[-1])):
        call = _chain(normalise, mix, raw, y, case.torch_dtype)
        yield Contender(peer.name, mix.form + told, call, fresh=True)


def _chain(normalise: Images, mix: Mix, raw: Tensor, y: Tensor, dtype: torch.dtype) -> Callable[[], object]:
    """What users of a peer write one after the other."""

    def call() -> object:
        mixed, target = mix.call(normalise(raw), y)
        return mixed.to(dtype), target

    return call


def _plain_chain(device: torch.device, dtype: torch.dtype) -> Images:
    """The same in plain torch: convert, scale, normalise, gather and lerp, convert."""
    mean, std = mean_and_std(device)

    def call(raw: Tensor) -> Tensor:
        x = (raw.float() / 255 - mean) / std
        lam = torch.rand(len(x), 1, 1, 1, device=device)
        return torch.lerp(x[torch.randperm(len(x), device=device)], x, lam).to(dtype)

    return call
