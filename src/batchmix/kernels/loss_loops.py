"""The loops of the mixed cross entropy that numba compiles; ``cross_entropy`` prepares every argument.

Tensors come as addresses: to make an array of one takes a microsecond, as long as ten rows of ten classes.
``like`` is a number of the type that lies there: float32, float64, uint16 for bfloat16, int16 for float16.
``smoothing`` is of the type to compute in. A step is the number of values from one row to the next.

Of each row are kept its largest logit, the sum of the exponentials from there, and its loss, in this order;
after the last row, what a loss of 1 counts in the result: 1, or its part of the mean. (One number for the
softmax, the logarithm of all exponentials, would lose the small differences of large logits.)
"""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from batchmix.kernels.loops import compiled, multiply_add, narrow, widen
from batchmix.kernels.team_code import in_team

# What lies in a tensor of each dtype
LIKE = {
    torch.float32: np.float32(0),
    torch.float64: np.float64(0),
    torch.bfloat16: np.uint16(0),
    torch.float16: np.int16(0),
}

MIXED, PLAIN, WRONG = 0, 1, 2  # what kind of labels a batch has

# One value

LOG2_E = np.float32(math.log2(math.e))
LN2_HIGH = np.float32(
    0.693359375
)  # ln 2 in two parts: so few bits that a multiple of it is exact, and the rest
LN2_LOW = np.float32(math.log(2) - 0.693359375)
ROUNDER = np.float32(1.5 * 2**23)  # what is added to it is rounded to a whole number, in its last bits
SMALLEST = np.float32(-87.3)  # the logarithm of the smallest normal number, nearly
C2, C3, C4, C5, C6, C7 = (np.float32(1 / math.factorial(power)) for power in range(2, 8))
ZERO, ONE = np.float32(0), np.float32(1)
LABEL = np.int64(0)


def _at_address(context: Any, address: Any, like: Any) -> Any:
    """A pointer to numbers of the type of ``like``."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(like)(address, like), build  # type: ignore[no-untyped-call]


def _two_to_the(context: Any, rounded: Any) -> Any:
    """2**n for ``ROUNDER + n``: its last bits become the exponent."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = ir.IntType(32)
        exponent = builder.shl(builder.bitcast(arguments[0], word), word(23))
        return builder.bitcast(builder.add(exponent, word(127 << 23)), ir.FloatType())

    return types.float32(rounded), build


def _ordered(context: Any, number: Any) -> Any:
    """A whole number for each number, in the same order; NaN is beyond the infinities."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = context.get_value_type(signature.return_type)
        bits = builder.bitcast(arguments[0], word)
        negative = builder.ashr(bits, word(word.width - 1))
        return builder.xor(bits, builder.lshr(negative, word(1)))

    return (types.int64 if number == types.float64 else types.int32)(number), build


def _number_of(context: Any, rank: Any) -> Any:
    """The number that has this place in the order."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = context.get_value_type(rank)
        negative = builder.ashr(arguments[0], word(word.width - 1))
        bits = builder.xor(arguments[0], builder.lshr(negative, word(1)))
        return builder.bitcast(bits, context.get_value_type(signature.return_type))

    return (types.float64 if rank == types.int64 else types.float32)(rank), build


def _in_type_of(context: Any, number: Any, like: Any) -> Any:
    """The number in the type of ``like``; of a float32 and a whole number numba would make a float64."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.cast(builder, arguments[0], number, like)

    return like(number, like), build


def _plus(context: Any, total: Any, number: Any) -> Any:
    """A sum that may be added up in any order, as vectors need it."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fadd(*arguments, flags=("reassoc",))

    return total(total, number), build


at_address, two_to_the, ordered, number_of, plus, in_type_of = (
    cast("Any", intrinsic(build))
    for build in (_at_address, _two_to_the, _ordered, _number_of, _plus, _in_type_of)
)


def exp(x: Any) -> Any:
    """e**x for x up to 0; for float32 without a call or a branch, so that a loop of it becomes vectors."""


@overload(exp, inline="always")
def _exp(x: Any) -> Any:
    def of_double(x: Any) -> Any:
        return math.exp(x)

    def of_single(x: Any) -> Any:
        rounded = x * LOG2_E + ROUNDER
        whole = rounded - ROUNDER
        r = (x - whole * LN2_HIGH) - whole * LN2_LOW
        series = multiply_add(multiply_add(multiply_add(C7, r, C6), r, C5), r, C4)
        series = multiply_add(multiply_add(multiply_add(series, r, C3), r, C2), r, ONE)
        series = multiply_add(series, r, ONE)
        return np.float32(0) if x < SMALLEST else series * two_to_the(rounded)

    return of_double if x == types.float64 else of_single


# One row


def _shares(first: int, second: int, weight: Any, ignored: int) -> Any:
    """How much each of the two labels counts: nothing where it is ignored."""
    one = ZERO if first == ignored else weight
    two = ZERO if second == ignored else ONE - weight
    return one, two


def _largest(values: Any, begin: int, size: int) -> Any:
    """The largest of a row; of whole numbers, which need no order to be compared in and so become vectors."""
    rank = ordered(widen(values[begin]))
    for f in range(begin, begin + size):
        rank = max(rank, ordered(widen(values[f])))
    return number_of(rank)


def _sum_exp(values: Any, begin: int, size: int, largest: Any) -> Any:
    total = in_type_of(0, largest)
    for f in range(begin, begin + size):
        total = plus(total, exp(widen(values[f]) - largest))
    return total


def _sum_below(values: Any, begin: int, size: int, largest: Any) -> Any:
    """How far all logits lie below the largest, in all."""
    total = in_type_of(0, largest)
    for f in range(begin, begin + size):
        total = plus(total, largest - widen(values[f]))
    return total


def _scale_row(
    values: Any, row: int, out: Any, to: int, like: Any, size: int, top: Any, scale: Any, level: Any
) -> None:
    """``scale*e**(x - top) - level`` of one row."""
    for f in range(size):
        out[to + f] = narrow(exp(widen(values[row + f]) - top) * scale - level, like)


shares_of, largest_of, scale_row = compiled(_shares), compiled(_largest), compiled(_scale_row)
sum_exp, sum_below = compiled(_sum_exp), compiled(_sum_below)


# All rows; the arguments of each loop begin alike


def _count(
    logits: int, like: Any, row_step: int, rows: int, classes: int, a: int, a_step: int, b: int, b_step: int,
    lam: int, lam_step: int, ignored: int, smoothing: Any, kept: int, is_mean: bool,
) -> int:  # fmt: skip
    """Keep what a loss of 1 counts.

    Returns:
        ``MIXED``, or ``PLAIN`` where each row has one label of weight 1, or ``WRONG`` where one is no class.
    """
    own, mate, weight = at_address(a, LABEL), at_address(b, LABEL), at_address(lam, ONE)
    total, mixed = 0.0, False
    for i in range(rows):
        first, second, w = own[i * a_step], mate[i * b_step], weight[i * lam_step]
        for label in (first, second):
            if label != ignored and not 0 <= label < classes:
                return WRONG
        one, two = shares_of(first, second, w, ignored)
        total += one + two
        mixed = mixed or not (w == 0 or w == 1)
    # Torch's mean of nothing is NaN.
    at_address(kept, smoothing)[3 * rows] = 1 if not is_mean else 1 / total if total > 0 else np.nan
    return MIXED if mixed else PLAIN


def _fill_losses(
    logits: int, like: Any, row_step: int, rows: int, classes: int, a: int, a_step: int, b: int, b_step: int,
    lam: int, lam_step: int, ignored: int, smoothing: Any, kept: int, begin: int, end: int,
) -> None:  # fmt: skip
    """Keep the softmax and the loss of rows ``begin`` to ``end``."""
    values, of_rows = at_address(logits, like), at_address(kept, smoothing)
    own, mate, weight = at_address(a, LABEL), at_address(b, LABEL), at_address(lam, ONE)
    for i in range(begin, end):
        row, first, second = i * row_step, own[i * a_step], mate[i * b_step]
        one, two = shares_of(first, second, weight[i * lam_step], ignored)
        top = largest_of(values, row, classes)
        total = sum_exp(values, row, classes, top)
        above, loss = np.log(total), in_type_of(0, smoothing)
        # A label of no weight may be impossible: 0 times infinity would be NaN.
        if one != 0:
            loss += one * (above + (top - widen(values[row + first])))
        if two != 0:
            loss += two * (above + (top - widen(values[row + second])))
        if smoothing != 0 and one + two != 0:
            of_all = above + sum_below(values, row, classes, top) / in_type_of(classes, smoothing)
            loss = (in_type_of(1, smoothing) - smoothing) * loss + smoothing * (one + two) * of_all
        of_rows[3 * i], of_rows[3 * i + 1], of_rows[3 * i + 2] = top, total, loss


def _write_loss(
    logits: int, like: Any, row_step: int, rows: int, classes: int, a: int, a_step: int, b: int, b_step: int,
    lam: int, lam_step: int, ignored: int, smoothing: Any, kept: int, loss: int, like_loss: Any, by_row: bool,
) -> None:  # fmt: skip
    """Write the losses of the rows, or their sum times what each counts."""
    of_rows, out = at_address(kept, smoothing), at_address(loss, like_loss)
    total = 0.0
    for i in range(rows):
        total += of_rows[3 * i + 2]
        if by_row:
            out[i] = narrow(of_rows[3 * i + 2], like_loss)
    if not by_row:
        out[0] = narrow(in_type_of(total * of_rows[3 * rows], smoothing), like_loss)


count, fill_losses, write_loss = compiled(_count), compiled(_fill_losses), compiled(_write_loss)


def _forward(
    logits: int, like: Any, row_step: int, rows: int, classes: int, a: int, a_step: int, b: int, b_step: int,
    lam: int, lam_step: int, ignored: int, smoothing: Any, kept: int, loss: int, like_loss: Any, by_row: bool,
    is_mean: bool,
) -> int:  # fmt: skip
    """All three in one call, for a batch that is not shared out."""
    labels = (a, a_step, b, b_step, lam, lam_step, ignored, smoothing, kept)
    kind: int = count(logits, like, row_step, rows, classes, *labels, is_mean)
    if kind == MIXED:
        fill_losses(logits, like, row_step, rows, classes, *labels, 0, rows)
        write_loss(logits, like, row_step, rows, classes, *labels, loss, like_loss, by_row)
    return kind


def _fill_gradient(
    logits: int, like: Any, row_step: int, rows: int, classes: int, a: int, a_step: int, b: int, b_step: int,
    lam: int, lam_step: int, ignored: int, smoothing: Any, kept: int, above: int, like_above: Any,
    above_step: int, gradient: int, gradient_step: int, begin: int, end: int,
) -> None:  # fmt: skip
    """Write the gradient of rows ``begin`` to ``end``: the softmax less the labels, times what is above."""
    values, out, of_rows = at_address(logits, like), at_address(gradient, like), at_address(kept, smoothing)
    factors, weight = at_address(above, like_above), at_address(lam, ONE)
    own, mate, unit = at_address(a, LABEL), at_address(b, LABEL), of_rows[3 * rows]
    for i in range(begin, end):
        row, to = i * row_step, i * gradient_step
        first, second, top = own[i * a_step], mate[i * b_step], of_rows[3 * i]
        one, two = shares_of(first, second, weight[i * lam_step], ignored)
        # What does not count has no gradient, even where the loss is divided by 0.
        factor = widen(factors[i * above_step]) * unit if one + two > 0 else in_type_of(0, unit)
        all_of_it = (one + two) * factor
        scale, level = all_of_it / of_rows[3 * i + 1], all_of_it * smoothing / in_type_of(classes, unit)
        scale_row(values, row, out, to, like, classes, top, scale, level)
        # The two columns anew, in one rounding; labels were checked, but may have been overwritten since.
        for label in (first, second):
            if 0 <= label < classes:
                share = (one if label == first else ZERO) + (two if label == second else ZERO)
                p = exp(widen(values[row + label]) - top) * scale
                out[to + label] = narrow(p - level - share * (in_type_of(1, unit) - smoothing) * factor, like)


forward, fill_gradient = compiled(_forward), compiled(_fill_gradient)


# The same by torch's threads


def _losses_by_team(arguments: Any, units: int, threads: int) -> Any:
    return in_team(fill_losses, arguments, units, threads)


def _gradient_by_team(arguments: Any, units: int, threads: int) -> Any:
    return in_team(fill_gradient, arguments, units, threads)


losses_by_team, gradient_by_team = compiled(_losses_by_team), compiled(_gradient_by_team)
