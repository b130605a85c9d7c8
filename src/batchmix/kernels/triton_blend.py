"""The blend for Triton to compile. Nothing here is called as Python; ``gpu`` prepares every argument.

A row of a batch is ``planes`` of ``span`` values, and ``inner`` values share a place of the mask (channels
last). A program mixes one block of one row; programs that follow one another have the same block of the next
rows, so that a row is still in the cache when it is read again as a partner. Rows are reached with 64 bits.

Arithmetic is that of ``torch.lerp``: a multiplication and an addition in one rounding, so that the bits are
the same. What there is one of for each row, place or channel is loaded in one dimension and then spread:
loaded in two, its order would be that of the whole block, which the compiler would have to reorder.
"""

from __future__ import annotations

import triton
import triton.language as tl

NONE, WEIGHTS, PASTE = (tl.constexpr(kind) for kind in range(3))  # what a mask is

# Parts


def _combine(x: tl.tensor, partner: tl.tensor, weight: tl.tensor) -> tl.tensor:
    """``weight*x + (1-weight)*partner`` the way torch.lerp computes it: from the nearer end."""
    near_partner = tl.abs(weight) < 0.5
    share = tl.where(near_partner, weight, weight - 1)
    return tl.fma(share, x - partner, tl.where(near_partner, partner, x))


def _below(size: tl.tensor, count: tl.constexpr) -> tl.tensor:
    """Which of ``count`` indices are below ``size``, in 32 bits even where the size takes 64."""
    return tl.arange(0, count) < tl.minimum(size, count).to(tl.int32)


def _blocks_of(span: tl.tensor, block: tl.constexpr) -> tl.tensor:
    """How many blocks a span of 1 or more takes; ``tl.cdiv`` overflows within a block of 2**31."""
    return (span - 1) // block + 1


def _of_channel(constants: tl.tensor, channel: tl.tensor, known: tl.tensor, inner: tl.constexpr) -> tl.tensor:
    """A constant for each channel: of each plane, or of each value where channels are last."""
    constant = tl.load(constants + channel, mask=known, other=0)
    return constant[:, None] if inner == 1 else constant[None, :]


combine, below, blocks_of, of_channel = map(triton.jit, (_combine, _below, _blocks_of, _of_channel))


# Many rows


def _mix_rows(
    out: tl.tensor, x: tl.tensor, other: tl.tensor, partner: tl.tensor, lam: tl.tensor, mask: tl.tensor,
    high: tl.tensor, low: tl.tensor, scale: tl.tensor,
    rows: tl.tensor, mates: tl.tensor, planes: tl.tensor, span: tl.tensor, planes_a_channel: tl.tensor,
    out_step: tl.tensor, x_step: tl.tensor, other_step: tl.tensor, mask_step: tl.tensor,
    kind: tl.constexpr, normal: tl.constexpr, wide: tl.constexpr, inner: tl.constexpr,
    group: tl.constexpr, block: tl.constexpr,
) -> None:  # fmt: skip
    """``out[i]`` from ``x[i]`` and ``other[partner[i]]``, and ``(value - high - low) * scale`` of that."""
    program = tl.program_id(0)
    row, tile = (program % rows).to(tl.int64), (program // rows).to(tl.int64)
    blocks = blocks_of(span, block)
    first, begin = tile // blocks * group, tile % blocks * block
    plane, place = tl.arange(0, group), tl.arange(0, block)
    in_plane, in_row = below(planes - first, group), below(span - begin, block)
    inside = in_plane[:, None] & in_row[None, :]

    mate = tl.load(partner + row)
    tl.device_assert((mate >= 0) & (mate < mates), "partner takes rows of the other batch")
    start, at = first * span + begin, plane[:, None] * span + place[None, :]
    ours = tl.load(x + (row * x_step + start) + at, mask=inside)
    theirs = tl.load(other + (mate * other_step + start) + at, mask=inside)

    rest = (begin % inner).to(tl.int32) + place  # divided apart from `begin`, which may take 64 bits
    channel = (first + plane) // planes_a_channel if inner == 1 else rest % inner
    known = in_plane if inner == 1 else in_row
    if normal:
        middle = of_channel(high, channel, known, inner)
        ours, theirs = ours.to(wide) - middle, theirs.to(wide) - middle
    weight_at = mask + (row * mask_step + begin // inner) + rest // inner
    if kind == PASTE:
        own = tl.load(weight_at, mask=in_row, other=0)
        mixed = tl.where((own != 0)[None, :], ours, theirs)
    else:
        weight = tl.load(weight_at, mask=in_row, other=0)[None, :] if kind == WEIGHTS else tl.load(lam + row)
        mixed = combine(ours.to(wide), theirs.to(wide), weight.to(wide))
    if normal:
        mixed = mixed - of_channel(low, channel, known, inner)
        mixed = mixed * of_channel(scale, channel, known, inner)
    tl.store(out + (row * out_step + start) + at, mixed.to(out.dtype.element_ty), mask=inside)


def _mix_in_place(
    x: tl.tensor, partner: tl.tensor, lam: tl.tensor, mask: tl.tensor,
    rows: tl.tensor, span: tl.tensor, x_step: tl.tensor, mask_step: tl.tensor,
    kind: tl.constexpr, wide: tl.constexpr, inner: tl.constexpr, group: tl.constexpr, block: tl.constexpr,
) -> None:  # fmt: skip
    """The same where ``x`` lies: a program has one block of all rows, and reads it all before it writes."""
    tile = tl.program_id(0).to(tl.int64)
    blocks = blocks_of(span, block)
    plane, begin = tile // blocks, tile % blocks * block
    row, place = tl.arange(0, group), tl.arange(0, block)
    is_row = row < rows
    inside = is_row[:, None] & below(span - begin, block)[None, :]

    mate = tl.load(partner + row, mask=is_row, other=0)
    tl.device_assert((mate >= 0) & (mate < rows), "partner takes rows of the batch")
    start = plane * span + begin
    own_at = x + (row.to(tl.int64) * x_step)[:, None] + (start + place)[None, :]
    mate_at = x + (mate * x_step)[:, None] + (start + place)[None, :]
    rest = (begin % inner).to(tl.int32) + place
    weight_at = mask + (row.to(tl.int64) * mask_step)[:, None] + (begin // inner + rest // inner)[None, :]
    if kind == PASTE:
        inside = inside & (tl.load(weight_at, mask=inside, other=1) == 0)
        mixed = tl.load(mate_at, mask=inside)
    else:
        if kind == WEIGHTS:
            weight = tl.load(weight_at, mask=inside, other=0)
        else:
            weight = tl.load(lam + row, mask=is_row, other=0)[:, None]
            weight = tl.broadcast_to(weight, (group, block))  # narrow ones Triton 3.7 fails to compile
        ours, theirs = tl.load(own_at, mask=inside).to(wide), tl.load(mate_at, mask=inside).to(wide)
        mixed = combine(ours, theirs, weight.to(wide)).to(x.dtype.element_ty)
    tl.debug_barrier()  # all threads of the program have read
    tl.store(own_at, mixed, mask=inside)


mix_rows, mix_in_place = triton.jit(_mix_rows), triton.jit(_mix_in_place)
INTERPRETED = not isinstance(mix_rows, triton.JITFunction)  # TRITON_INTERPRET=1: on the CPU, by NumPy
FLOAT32, FLOAT64 = tl.float32, tl.float64
