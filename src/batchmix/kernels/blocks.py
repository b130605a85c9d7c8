"""Mixing on the CPU with torch's own operations, a part that fits into the cache at a time.

One ``lerp`` on all gathered partners reads and writes the batch several times, and finds memory for all of
it. Large rows are mixed one by one, in the order of the permutation's cycles: the partner of a row is the
next, and still in the cache when that is mixed itself; in place the first of a cycle alone is kept. Small
rows are gathered some at a time. The operations and their bits are those on the whole batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from batchmix.kernels.layout import fresh_like, is_plain, is_watched, layout_of, may_write

SMALLEST = 1 << 21  # bytes of a batch; below, all of it is in the cache
ROW = 1 << 17  # bytes from which on a row is worth calls of its own
GROUP = 1 << 20  # bytes of rows gathered at a time
COLUMNS = 1 << 22  # bytes of a block of all rows, where small ones are mixed in place


def can_mix(
    x: Tensor,
    partner: Tensor,
    lam: Tensor,
    mask: Tensor | None = None,
    *,
    other: Tensor | None = None,
    out: Tensor | None = None,
) -> bool:
    """Whether ``mix`` takes these, and gains: large batches in the CPU's memory that nothing watches."""
    used = [part for part in (x, other, out, partner, lam, mask) if part is not None]
    if x.nbytes < SMALLEST or x.device.type != "cpu" or not x.is_floating_point():
        return False
    if any(type(part) is not Tensor for part in used) or is_watched(used) or not all(map(is_plain, used)):
        return False
    if out is None:
        return True
    if not may_write(out, x, other):
        return False
    in_place = out.data_ptr() == x.data_ptr()
    return not in_place or _row_bytes(x) >= ROW or (mask is None and layout_of([x], None) is not None)


def mix(
    x: Tensor,
    partner: Tensor,
    lam: Tensor,
    mask: Tensor | None = None,
    *,
    other: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """``cpu.mix`` with torch's operations, for what ``can_mix`` takes, of any strides."""
    own_partners = other is None or other is x
    other = x if other is None else other
    result = fresh_like(x) if out is None else out
    in_place = own_partners and result.data_ptr() == x.data_ptr()
    weight = weights_of(x, lam, mask)
    if _row_bytes(x) >= ROW:
        # Numbers, not tensors of one: lerp is faster with them, to the same bits.
        of_rows = lam.tolist() if mask is None else weight.expand(len(x), *weight.shape[1:]).unbind()
        _mix_rows(x, other, partner, of_rows, result, in_place)
    elif in_place:
        _mix_columns(x, partner, weight)
    else:
        _mix_groups(x, other, partner, weight, result)
    return result


def weights_of(x: Tensor, lam: Tensor, mask: Tensor | None) -> Tensor:
    """``lam``, or the mask of the last dimensions, in a shape that broadcasts over ``x``."""
    if mask is None:
        return lam.view(-1, *[1] * (x.dim() - 1))
    return mask.view(*mask.shape[:2], *[1] * (x.dim() - mask.dim()), *mask.shape[2:])


def combine(x: Tensor, partners: Tensor, weight: Tensor | float, out: Tensor | None = None) -> Tensor:
    """``weight*x + (1-weight)*partners``; half precision in float32, rounded once.

    Args:
        x: (B, ...), floating point.
        partners: Like ``x``, or float32 where ``x`` is of half precision, and then overwritten.
        weight: A number, or what broadcasts over ``x``; boolean for a paste.
        out: Like ``x``, maybe ``x`` itself; new memory if left out.
    """
    if isinstance(weight, Tensor) and weight.dtype == torch.bool:  # every value is one of the two as it is
        return torch.where(weight, x, partners.to(x.dtype), out=out)
    start, end = at_least_float32(partners), at_least_float32(x)
    weight = weight.to(end.dtype) if isinstance(weight, Tensor) else weight
    if end.dtype == x.dtype:
        return torch.lerp(start, end, weight, out=out)
    mixed = start.lerp_(end, weight)
    return mixed.to(x.dtype) if out is None else out.copy_(mixed)


def at_least_float32(x: Tensor) -> Tensor:
    """``x`` itself if it is float32 or float64, else as float32."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def _mix_rows(
    x: Tensor,
    other: Tensor,
    partner: Tensor,
    weights: Sequence[Tensor | float],
    out: Tensor,
    in_place: bool,
) -> None:
    """One row after another; in place the partner of a cycle's last row is a copy of its first."""
    mates: list[int] = partner.tolist()
    last: dict[int, Tensor] = {}
    cycles = _cycles(mates) if x is other else None
    if cycles is None:
        other = x.clone() if in_place else other  # a row that several need cannot be overwritten
        cycles, in_place = [list(range(len(x)))], False
    for cycle in cycles:
        if in_place and len(cycle) > 1:
            last = {cycle[-1]: x[cycle[0]].clone()}
        for i in cycle:
            mate = last[i] if i in last else other[mates[i]]
            combine(x[i], mate, weights[i], out[i])


def _mix_groups(x: Tensor, other: Tensor, partner: Tensor, weight: Tensor, out: Tensor) -> None:
    """Some rows at a time, their partners gathered."""
    size = max(1, GROUP // max(1, _row_bytes(x)))
    for first in range(0, len(x), size):
        rows = slice(first, first + size)
        own = weight[rows] if len(weight) > 1 else weight
        combine(x[rows], other.index_select(0, partner[rows]), own, out[rows])


def _mix_columns(x: Tensor, partner: Tensor, weight: Tensor) -> None:
    """Some columns of all rows at a time, where they lie: their partners are gathered before they change."""
    rows = x.as_strided((len(x), math.prod(x.shape[1:])), (x.stride(0), 1))
    weight = weight.view(-1, 1)
    size = max(1, COLUMNS // max(1, len(x) * x.element_size()))
    for first in range(0, rows.shape[1], size):
        block = rows[:, first : first + size]
        combine(block, block.index_select(0, partner), weight, block)


def _cycles(mates: list[int]) -> list[list[int]] | None:
    """The rows cycle by cycle, each followed by its partner; None if the partners are no permutation."""
    cycles, taken = [], [False] * len(mates)
    for head in range(len(mates)):
        cycle, row = [], head
        while not taken[row]:
            taken[row] = True
            cycle.append(row)
            row = mates[row]
        if row != head:
            return None
        if cycle:
            cycles.append(cycle)
    return cycles


def _row_bytes(x: Tensor) -> int:
    return math.prod(x.shape[1:]) * x.element_size()
