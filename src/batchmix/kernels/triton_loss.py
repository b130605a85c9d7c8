"""Cross entropy with two labels a row for Triton to compile; ``gpu_loss`` prepares every argument.

Each way reads the logits once: forward with a maximum and a sum that follows it as it rises, backward with
what was kept of them. A program has ``group`` rows, a ``block`` of columns at a time, computed in float32.
Programs at the end read the last row more than once, so that they compute with nothing that is not there.
"""

from __future__ import annotations

import triton
import triton.language as tl


def _label(
    labels: tl.tensor, step: tl.tensor, share: tl.tensor, row: tl.tensor,
    ignored: tl.tensor, classes: tl.tensor,
) -> tl.tensor:  # fmt: skip
    """The label of each row and its share; class 0 and nothing where it is ignored."""
    label = tl.load(labels + row * step).to(tl.int64)
    counts = label != ignored
    label = tl.where(counts, label, 0)
    tl.device_assert((label >= 0) & (label < classes), "target takes labels of the classes there are")
    return label, tl.where(counts, share, 0.0)


def _pick(
    logits: tl.tensor, row_at: tl.tensor, class_step: tl.tensor, label: tl.tensor, share: tl.tensor,
    base: tl.tensor, log_total: tl.tensor,
) -> tl.tensor:  # fmt: skip
    """``share`` times the log-probability of the label; 0 where the share is, however unlikely the label."""
    logit = tl.load(logits + row_at + label * class_step).to(tl.float32)
    return tl.where(share == 0, 0.0, share * (logit - base - log_total))


label_of, pick = triton.jit(_label), triton.jit(_pick)


def _losses(
    parts: tl.tensor, logits: tl.tensor, a: tl.tensor, b: tl.tensor, lam: tl.tensor,
    rows: tl.tensor, classes: tl.tensor, row_step: tl.tensor, class_step: tl.tensor,
    a_step: tl.tensor, b_step: tl.tensor, lam_step: tl.tensor, ignored: tl.tensor, smoothing: tl.tensor,
    smooth: tl.constexpr, group: tl.constexpr, block: tl.constexpr,
) -> None:  # fmt: skip
    """Of each row to ``parts`` (4, B): loss, weight that counts, greatest logit, log of the sum beside it."""
    place = tl.program_id(0).to(tl.int64) * group + tl.arange(0, group)
    row, is_row = tl.minimum(place, rows - 1), place < rows
    row_at = row * row_step
    highest = tl.full((group,), float("-inf"), tl.float32)
    base = tl.zeros((group,), tl.float32)
    total, spread = base, base
    for begin in range(0, classes, block):
        column = begin + tl.arange(0, block).to(tl.int64)
        inside = (column < classes)[None, :]
        at = logits + row_at[:, None] + (column * class_step)[None, :]
        logit = tl.load(at, mask=inside, other=float("-inf")).to(tl.float32)
        higher = tl.maximum(highest, tl.max(logit, 1))
        risen = tl.where(higher == float("-inf"), 0.0, higher)  # a row of -inf alone has nothing to compare
        beside = logit - risen[:, None]
        total = total * tl.exp(highest - risen) + tl.sum(tl.exp(beside), 1)
        if smooth:
            spread += tl.sum(tl.where(inside, beside, 0.0), 1) - (risen - base) * begin
        highest, base = higher, risen
    log_total = tl.log(total)

    share = tl.load(lam + row * lam_step)
    first, own = label_of(a, a_step, share, row, ignored, classes)
    second, mate = label_of(b, b_step, 1 - share, row, ignored, classes)
    loss = -pick(logits, row_at, class_step, first, own, base, log_total)
    loss -= pick(logits, row_at, class_step, second, mate, base, log_total)
    if smooth:
        other = (classes * log_total - spread) / classes
        loss = (1 - smoothing) * loss + tl.where(own + mate == 0, 0.0, smoothing * (own + mate) * other)
    tl.store(parts + row, loss, mask=is_row)
    tl.store(parts + rows + row, own + mate, mask=is_row)
    tl.store(parts + 2 * rows + row, base, mask=is_row)
    tl.store(parts + 3 * rows + row, log_total, mask=is_row)


def _gradients(
    out: tl.tensor, grad: tl.tensor, count: tl.tensor, parts: tl.tensor, logits: tl.tensor,
    a: tl.tensor, b: tl.tensor, lam: tl.tensor,
    rows: tl.tensor, classes: tl.tensor, out_step: tl.tensor, out_class_step: tl.tensor, grad_step: tl.tensor,
    row_step: tl.tensor, class_step: tl.tensor, a_step: tl.tensor, b_step: tl.tensor, lam_step: tl.tensor,
    ignored: tl.tensor, smoothing: tl.tensor, mean: tl.constexpr, group: tl.constexpr, block: tl.constexpr,
) -> None:  # fmt: skip
    """The gradient of the logits: probabilities less what was wanted, times the gradient of the loss."""
    blocks = tl.cdiv(classes, block)
    place = (tl.program_id(0) // blocks).to(tl.int64) * group + tl.arange(0, group)
    row, is_row = tl.minimum(place, rows - 1), place < rows
    column = (tl.program_id(0) % blocks).to(tl.int64) * block + tl.arange(0, block)
    inside = is_row[:, None] & (column < classes)[None, :]
    share = tl.load(lam + row * lam_step)
    first, own = label_of(a, a_step, share, row, ignored, classes)
    second, mate = label_of(b, b_step, 1 - share, row, ignored, classes)
    kept = own + mate
    base, log_total = tl.load(parts + 2 * rows + row), tl.load(parts + 3 * rows + row)
    factor = tl.load(grad + row * grad_step).to(tl.float32)
    if mean:
        factor = factor / tl.load(count)
    factor = tl.where(kept == 0, 0.0, factor)  # what does not count, even where the loss is divided by 0

    logit = tl.load(logits + (row * row_step)[:, None] + (column * class_step)[None, :], mask=inside, other=0)
    probability = tl.exp(logit.to(tl.float32) - base[:, None] - log_total[:, None])
    wanted = tl.where(column[None, :] == first[:, None], own[:, None], 0.0)
    wanted += tl.where(column[None, :] == second[:, None], mate[:, None], 0.0)
    wanted = (1 - smoothing) * wanted + (smoothing / classes * kept)[:, None]
    gradient = (kept[:, None] * probability - wanted) * factor[:, None]
    at = out + (row * out_step)[:, None] + (column * out_class_step)[None, :]
    tl.store(at, gradient.to(out.dtype.element_ty), mask=inside)


losses, gradients = triton.jit(_losses), triton.jit(_gradients)
