"""The loops that numba compiles. Nothing here is called as Python; ``cpu`` prepares every argument.

All arrays are flat: row i of a batch begins at ``i * stride``. A row is ``planes`` of ``span`` values, and a
plane is cut into blocks, so that a row's block is still in the cache when it is needed again as a partner.
Threads share the blocks; every value is computed alone, so that no result depends on how they are shared.

bfloat16 comes as uint16, float16 as int16: numba has neither type, and the two have to be told apart.
Other files compile loops of what stands here; numba's cache watches the file of a loop alone, so that the
names of compiled loops end in a digest of this file.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import platform
import sys
from collections.abc import Callable
from typing import Any, cast

import numba
import numpy as np
from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import types
from numba.extending import intrinsic, overload

from batchmix.kernels import team_code
from batchmix.kernels.team_code import in_team

OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
# Half precision is converted by the processor; x86 without F16C would call functions that are not there.
HAS_FLOAT16 = platform.machine().lower() in ("aarch64", "arm64") or bool(get_host_cpu_features().get("f16c"))
# A multiplication and an addition in one rounding, as in torch.lerp: so the bits are the same.
FUSED = ("contract",)


def compiled(loop: Callable[..., Any]) -> Any:
    """The loop, compiled at first use; kept on disk where there is a place to keep it."""
    loop.__qualname__ += _digest()  # a part of the name of the file that it is kept in
    try:
        return numba.njit(cache=True, **OPTIONS)(loop)
    except RuntimeError:  # "no locator available": neither this folder nor the user's cache can be written
        return numba.njit(**OPTIONS)(loop)


@functools.cache
def _digest() -> str:
    """Of this file and of ``team_code``, whose functions are compiled into the loops of other files too.

    numba compiles a loop anew where the file that has the loop changed, and looks at no other.
    """
    try:
        sources = inspect.getsource(sys.modules[__name__]) + inspect.getsource(team_code)
    except OSError:  # a frozen program, which numba watches as a whole, or one without sources: not kept
        return ""
    return "_" + hashlib.sha256(sources.encode()).hexdigest()[:8]


# One value


def _widen(context: Any, value: Any) -> Any:
    """A stored value as the number to compute with: float64 as it is, all others as float32."""
    result = types.float64 if value == types.float64 else types.float32

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (stored,) = arguments
        single, word = ir.FloatType(), ir.IntType(32)
        if value in (types.float32, types.float64):
            return stored
        if value == types.uint16:
            return builder.bitcast(builder.shl(builder.zext(stored, word), word(16)), single)
        if value == types.int16:
            return builder.fpext(builder.bitcast(stored, ir.HalfType()), single)
        return builder.uitofp(stored, single)

    return result(value), build


def _narrow(context: Any, value: Any, like: Any) -> Any:
    """The number as ``like`` is stored, rounded to the nearest, ties to even."""
    return like(value, like), _narrowing(value, like, finite=False)


def _narrow_finite(context: Any, value: Any, like: Any) -> Any:
    """The same of a number that is finite, which bfloat16 is sooner made of."""
    return like(value, like), _narrowing(value, like, finite=True)


def _narrowing(value: Any, like: Any, *, finite: bool) -> Callable[..., Any]:
    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        number, _ = arguments
        half, word = ir.IntType(16), ir.IntType(32)
        if like in (types.float32, types.float64):
            return context.cast(builder, number, value, like)
        number = context.cast(builder, number, value, types.float32)
        if like == types.int16:
            return builder.bitcast(builder.fptrunc(number, ir.HalfType()), half)
        bits = builder.bitcast(number, word)
        odd = builder.and_(builder.lshr(bits, word(16)), word(1))
        rounded = builder.lshr(builder.add(bits, builder.add(odd, word(0x7FFF))), word(16))
        if not finite:
            nan = builder.fcmp_unordered("uno", number, number)
            rounded = builder.select(nan, word(0x7FC0), rounded)
        return builder.trunc(rounded, half)

    return build


def _combine(context: Any, own: Any, mate: Any, weight: Any) -> Any:
    """``weight*own + (1-weight)*mate`` the way torch.lerp computes it: from the nearer end."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, partner, w = arguments
        low = builder.fcmp_ordered("<", w, w.type(0.5))
        near_partner = builder.and_(low, builder.fcmp_ordered(">", w, w.type(-0.5)))
        share = builder.select(near_partner, w, builder.fsub(w, w.type(1.0)))
        nearer = builder.select(near_partner, partner, x)
        return builder.fadd(builder.fmul(share, builder.fsub(x, partner), flags=FUSED), nearer, flags=FUSED)

    return own(own, mate, weight), build


def _pixel(context: Any, value: Any, like: Any) -> Any:
    """A uint8 as a number of the type of ``like``."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        # By way of a signed number: processors convert those, and unsigned ones in several steps.
        whole = builder.zext(arguments[0], ir.IntType(32))
        return builder.sitofp(whole, context.get_value_type(like))

    return like(value, like), build


def _multiply_add(context: Any, number: Any, times: Any, plus: Any) -> Any:
    """``number*times + plus`` in one rounding."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, factor, summand = arguments
        return builder.fadd(builder.fmul(value, factor, flags=FUSED), summand, flags=FUSED)

    return number(number, times, plus), build


def at(weight: Any, place: int) -> Any:
    """The weight at a place, be there one for each or one for all."""


@overload(at, inline="always")
def _at(weight: Any, place: int) -> Any:
    if isinstance(weight, types.Array):

        def of_each(weight: Any, place: int) -> Any:
            return weight[place]

        return of_each

    def of_all(weight: Any, place: int) -> Any:
        return weight

    return of_all


def _equal_among_64(context: Any, mask: Any, place: Any, value: Any) -> Any:
    """How many bytes from ``place`` on equal ``value`` before one differs, of the next 64, all at a time."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(mask)(context, builder, arguments[0])
        _, at_place, wanted = arguments
        bytes_64 = ir.VectorType(ir.IntType(8), 64)
        address = builder.bitcast(builder.gep(array.data, [at_place]), bytes_64.as_pointer())
        several = builder.load(address, align=1)
        first_only = builder.insert_element(ir.Constant(bytes_64, ir.Undefined), wanted, ir.IntType(32)(0))
        no_shuffle = ir.Constant(ir.VectorType(ir.IntType(32), 64), [0] * 64)
        each = builder.shuffle_vector(first_only, ir.Constant(bytes_64, ir.Undefined), no_shuffle)
        differs = builder.bitcast(builder.icmp_unsigned("!=", several, each), ir.IntType(64))
        return builder.cttz(differs, ir.IntType(1)(0))

    return types.intp(mask, types.intp, types.uint8), build


widen, narrow, narrow_finite, combine, pixel, multiply_add, equal_among_64 = (
    cast("Any", intrinsic(build))
    for build in (_widen, _narrow, _narrow_finite, _combine, _pixel, _multiply_add, _equal_among_64)
)


# One block of one row


def _lerp(out: Any, x: Any, partner: Any, weight: Any) -> None:
    """``weight*x + (1-weight)*partner``, as torch.lerp has it."""
    for f in range(out.size):
        out[f] = narrow(combine(widen(x[f]), widen(partner[f]), at(weight, f)), out[f])


def _lerp_onto(x: Any, partner: Any, weight: Any) -> None:
    """The same where x lies; a loop of its own, for in ``_lerp`` two names of one place forbid vectors."""
    for f in range(x.size):
        mixed = combine(widen(x[f]), widen(partner[f]), at(weight, f))
        x[f] = narrow(mixed, x[f])


def _lerp_images(out: Any, x: Any, partner: Any, weight: Any, high: Any, low: Any, scale: Any) -> None:
    """``(weight*x + (1-weight)*partner - high - low) * scale``, of uint8 values; ``pixels`` says why so."""
    for f in range(out.size):
        of_scale, mean = at(scale, f), at(high, f)
        own, mate = pixel(x[f], of_scale), pixel(partner[f], of_scale)
        mixed = multiply_add(at(weight, f), own - mate, mate - mean)
        out[f] = narrow_finite((mixed - at(low, f)) * of_scale, out[f])


def _lay_images(target: Any, own: Any, high: Any, low: Any, scale: Any) -> None:
    """``(own - high - low) * scale``: the bits of ``_lerp_images`` at weight 1."""
    for f in range(target.size):
        value = pixel(own[f], at(scale, f)) - at(high, f)
        target[f] = narrow_finite((value - at(low, f)) * at(scale, f), target[f])


def _lay(out: Any, to: int, x: Any, source: int, size: int, normal: Any, plane: int) -> None:
    """A copy of ``size`` values, byte for byte; or normalised, as those of ``plane`` are."""
    target, own = out[to : to + size], x[source : source + size]
    if normal is None:
        for f in range(size):
            target[f] = own[f]
    else:
        high, low, scale = normal
        lay_images(target, own, high[plane], low[plane], scale[plane])


def _weights_of(mask: Any, begin: int, end: int, inner: int, room: Any) -> Any:
    """Weights of places ``begin`` to ``end``, each ``inner`` times: channels last share a place."""
    if inner == 1:
        return mask[begin:end]
    for place in range(begin, end):
        for channel in range(inner):
            room[(place - begin) * inner + channel] = mask[place]
    return room[: (end - begin) * inner]


def _find_runs(mask: Any, begin: int, end: int, runs: Any) -> int:
    """Write where each run of equal values ends, from ``begin``, to ``runs``; return how many there are."""
    count, place = 0, begin
    while place < end:
        first = mask[place]
        place += 1
        same = 64
        while same == 64 and place + 64 <= end:
            same = equal_among_64(mask, place, first)
            place += same
        while place < end and mask[place] == first:
            place += 1
        runs[count] = place - begin
        count += 1
    return count


def _paste(
    out: Any, out_at: int, out_step: int, x: Any, x_at: int, x_step: int, planes: int, inner: int,
    runs: Any, first: int, normal: Any,
) -> None:  # fmt: skip
    """Lay every second run, from the one numbered ``first``, of each plane of ``x`` onto ``out``."""
    for plane in range(planes):
        to, source = out_at + plane * out_step, x_at + plane * x_step
        for k in range(first, runs.size, 2):
            begin, end = (runs[k - 1] * inner if k > 0 else 0), runs[k] * inner
            lay(out, to + begin, x, source + begin, end - begin, normal, plane)


lerp, lerp_onto = compiled(_lerp), compiled(_lerp_onto)
lerp_images, lay_images, lay = compiled(_lerp_images), compiled(_lay_images), compiled(_lay)
weights_of, find_runs, paste = compiled(_weights_of), compiled(_find_runs), compiled(_paste)


# All rows, one block after another


def _mix_rows(
    x: Any, other: Any, out: Any, strides: Any, partner: Any, order: Any, lam: Any, mask: Any,
    mask_stride: int, span: int, inner: int, block: int, first: int, last: int,
) -> None:  # fmt: skip
    """``out[i]`` from ``x[i]`` and ``other[partner[i]]``, for the blocks from ``first`` to ``last``."""
    xs, ps, os = strides
    blocks = (span + block - 1) // block
    room = np.empty(block if inner > 1 else 0, lam.dtype)
    for unit in range(first, last):
        plane, begin = unit // blocks, unit % blocks * block
        size = min(block, span - begin)
        start = plane * span + begin
        for i in order:
            own, mate, to = i * xs + start, partner[i] * ps + start, i * os + start
            result, mine, theirs = out[to : to + size], x[own : own + size], other[mate : mate + size]
            if mask is None:
                lerp(result, mine, theirs, lam[i])
            else:
                place = i * mask_stride + begin // inner
                weights = weights_of(mask, place, place + size // inner, inner, room)
                lerp(result, mine, theirs, weights)


def _mix_images(
    x: Any, other: Any, out: Any, strides: Any, partner: Any, order: Any, lam: Any, mask: Any,
    mask_stride: int, span: int, inner: int, block: int, normal: Any, first: int, last: int,
) -> None:  # fmt: skip
    """The same of uint8 images, normalised: by one number a plane, or by a pattern of the channels."""
    xs, ps, os = strides
    high, low, scale = normal
    blocks = (span + block - 1) // block
    room = np.empty(block if inner > 1 else 0, lam.dtype)
    for unit in range(first, last):
        plane, begin = unit // blocks, unit % blocks * block
        size = min(block, span - begin)
        start = plane * span + begin
        for i in order:
            own, mate, to = i * xs + start, partner[i] * ps + start, i * os + start
            result, mine, theirs = out[to : to + size], x[own : own + size], other[mate : mate + size]
            if mask is None:
                lerp_images(result, mine, theirs, lam[i], high[plane], low[plane], scale[plane])
            else:
                place = i * mask_stride + begin // inner
                weights = weights_of(mask, place, place + size // inner, inner, room)
                lerp_images(result, mine, theirs, weights, high[plane], low[plane], scale[plane])


def _mix_cycles(
    x: Any, stride: int, order: Any, ends: Any, lam: Any, mask: Any,
    mask_stride: int, span: int, inner: int, block: int, first: int, last: int,
) -> None:  # fmt: skip
    """Each row of ``x`` from itself and the next of its cycle, in place; the first is kept for the last."""
    blocks = (span + block - 1) // block
    room = np.empty(block if inner > 1 else 0, lam.dtype)
    kept = np.empty(block, x.dtype)
    for unit in range(first, last):
        plane, begin = unit // blocks, unit % blocks * block
        size = min(block, span - begin)
        start = plane * span + begin
        head = 0
        for end in ends:
            at_head = order[head] * stride + start
            kept[:size] = x[at_head : at_head + size]
            for k in range(head, end):
                i = order[k]
                own = i * stride + start
                if k + 1 < end:
                    next_row = order[k + 1] * stride + start
                    mate = x[next_row : next_row + size]
                else:
                    mate = kept[:size]
                if mask is None:
                    lerp_onto(x[own : own + size], mate, lam[i])
                else:
                    place = i * mask_stride + begin // inner
                    weights = weights_of(mask, place, place + size // inner, inner, room)
                    lerp_onto(x[own : own + size], mate, weights)
            head = end


def _paste_rows(
    x: Any, other: Any, out: Any, strides: Any, partner: Any, order: Any, mask: Any, mask_stride: int,
    planes: int, span: int, inner: int, block: int, normal: Any, first: int, last: int,
) -> None:  # fmt: skip
    """``out[i]`` is ``x[i]`` where the mask is 1 and ``other[partner[i]]`` where it is 0."""
    xs, ps, os = strides
    ends = np.empty(block // inner, np.int64)
    for unit in range(first, last):
        begin = unit * block
        size = min(block, span - begin)
        for i in order:
            place = i * mask_stride + begin // inner
            runs = ends[: find_runs(mask, place, place + size // inner, ends)]
            to, mine, theirs = i * os + begin, i * xs + begin, partner[i] * ps + begin
            # The whole row first: to write the pasted part twice, in the cache, costs less than more runs.
            for plane in range(planes):
                step = plane * span
                lay(out, to + step, x, mine + step, size, normal, plane)
            mate = 1 if mask[place] else 0
            paste(out, to, span, other, theirs, span, planes, inner, runs, mate, normal)


def _paste_cycles(
    x: Any, stride: int, order: Any, ends: Any, mask: Any, mask_stride: int,
    planes: int, span: int, inner: int, block: int, first: int, last: int,
) -> None:  # fmt: skip
    """The same where ``x`` lies: only what is pasted is touched; what the first row loses to it is kept."""
    kept = np.empty(planes * block, x.dtype)
    ends_of_runs = np.empty(block // inner, np.int64)
    for unit in range(first, last):
        begin = unit * block
        size = min(block, span - begin)
        head = 0
        for end in ends:
            if end - head == 1:  # a row that is its own partner stays as it is
                head = end
                continue
            # Before anything is written, what the last row of the cycle wants of the first goes to `kept`.
            at_head, place = order[head] * stride + begin, order[end - 1] * mask_stride + begin // inner
            runs = ends_of_runs[: find_runs(mask, place, place + size // inner, ends_of_runs)]
            mate = 1 if mask[place] else 0
            paste(kept, 0, block, x, at_head, span, planes, inner, runs, mate, None)
            for k in range(head, end):
                place = order[k] * mask_stride + begin // inner
                runs = ends_of_runs[: find_runs(mask, place, place + size // inner, ends_of_runs)]
                mate = 1 if mask[place] else 0
                to = order[k] * stride + begin
                if k + 1 < end:
                    source = order[k + 1] * stride + begin
                    paste(x, to, span, x, source, span, planes, inner, runs, mate, None)
                else:
                    paste(x, to, span, kept, 0, block, planes, inner, runs, mate, None)
            head = end


def _cut_out(boxes: Any, mask: Any, lam: Any, height: int, width: int) -> None:
    """Each mask 1 but for its box: top, bottom, left, right; and its mean."""
    size = height * width
    for i in range(lam.size):
        top, bottom, left, right = boxes[4 * i], boxes[4 * i + 1], boxes[4 * i + 2], boxes[4 * i + 3]
        mask[i * size : (i + 1) * size] = 1
        for row in range(max(top, 0), min(bottom, height)):
            begin = i * size + row * width
            mask[begin + max(left, 0) : begin + max(left, min(right, width), 0)] = 0
        lam[i] = 1 - (bottom - top) * (right - left) / size


def _find_cycles(partner: Any, rows: int, order: Any, ends: Any) -> int:
    """Write the rows cycle by cycle to ``order`` and where each cycle ends to ``ends``.

    Returns:
        How many cycles there are; -1 if ``partner`` is no permutation, -2 if it leads outside of ``rows``.
    """
    taken = np.zeros(rows, np.bool_)
    permutes = partner.size == rows
    for row in partner:
        if row < 0 or row >= rows:
            return -2
        permutes = permutes and not taken[row]
        taken[row] = True
    if not permutes:
        return -1
    count, cycles = 0, 0
    for head in range(rows):
        if not taken[head]:
            continue
        row = head
        while taken[row]:
            taken[row] = False
            order[count] = row
            count += 1
            row = partner[row]
        ends[cycles] = count
        cycles += 1
    return cycles


mix_rows, mix_cycles, mix_images = compiled(_mix_rows), compiled(_mix_cycles), compiled(_mix_images)
paste_rows, paste_cycles = compiled(_paste_rows), compiled(_paste_cycles)
find_cycles, cut_out = compiled(_find_cycles), compiled(_cut_out)


# The same by torch's threads: `in_team` of a loop, which is compiled as a part of it


def _mix_rows_by_team(arguments: Any, units: int, threads: int) -> Any:
    return in_team(mix_rows, arguments, units, threads)


def _mix_cycles_by_team(arguments: Any, units: int, threads: int) -> Any:
    return in_team(mix_cycles, arguments, units, threads)


def _mix_images_by_team(arguments: Any, units: int, threads: int) -> Any:
    return in_team(mix_images, arguments, units, threads)


def _paste_rows_by_team(arguments: Any, units: int, threads: int) -> Any:
    return in_team(paste_rows, arguments, units, threads)


def _paste_cycles_by_team(arguments: Any, units: int, threads: int) -> Any:
    return in_team(paste_cycles, arguments, units, threads)


BY_TEAM = {
    mix_rows: compiled(_mix_rows_by_team),
    mix_cycles: compiled(_mix_cycles_by_team),
    mix_images: compiled(_mix_images_by_team),
    paste_rows: compiled(_paste_rows_by_team),
    paste_cycles: compiled(_paste_cycles_by_team),
}
