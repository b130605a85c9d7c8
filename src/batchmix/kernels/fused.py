"""The compiled loops, and what they are given: flat arrays, an order of rows, blocks to share."""

from __future__ import annotations

import functools
import importlib
import math
import sys
import warnings
from typing import Any

import torch
from torch import Tensor

from batchmix.errors import MixError, cut, one_line
from batchmix.kernels.layout import Layout, check_layout, flat, fresh_like, row_stride
from batchmix.kernels.pixels import Constants
from batchmix.kernels.threads import share, threads_for

BLOCK = 1 << 20  # bytes of a row at a time: long enough to be fetched ahead, and still cached when read again
BLOCK_IN_PLACE = 1 << 18  # the row kept from each cycle has to stay in the cache too
BLOCK_NORMALISED = 1 << 11  # values, channels last: their patterns of constants lie in the innermost cache
ALL_ROWS = 1 << 19  # bytes of a block of all rows, where rows are read in no order
PRICE_OF_IMAGES = 4  # how much longer a byte takes that is normalised than one that is mixed alone


@functools.cache
def loops() -> Any:
    """The compiled loops, or None where numba is missing, does not fit NumPy, or is switched off."""
    try:
        importlib.import_module("numba")
        module = importlib.import_module("batchmix.kernels.loops")
        if sys.byteorder != "little" or module.numba.config.DISABLE_JIT:
            return None
        # A first small loop shows whether there is a compiler that works, and room to keep what it makes.
        partner, order, ends = torch.zeros(3, 1, dtype=torch.int64, device="cpu").numpy()
        module.find_cycles(partner, 1, order, ends)
    except (ImportError, OSError, RuntimeError, SystemError):
        return None
    except Exception as error:  # of numba's own, as one of another release may raise
        said = f"numba does not compile the loops that mix, and torch mixes instead: {one_line(error)}"
        warnings.warn(cut(said, 300), RuntimeWarning, stacklevel=2)
        return None
    return module


def fuse(
    x: Tensor,
    partner: Tensor,
    lam: Tensor,
    mask: Tensor | None,
    other: Tensor,
    out: Tensor | None,
    normal: Constants | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Mix what ``layout_of`` has a layout for; with ``normal``, uint8 images into ``dtype``."""
    mates, order, ends = _cycles(partner, len(other))
    result = fresh_like(x, dtype) if out is None else out
    if x.numel() == 0:
        return result
    layout = check_layout(x, mask, by_channel=normal is not None)
    in_place = normal is None and result.data_ptr() == x.data_ptr() and other is x
    if in_place and ends is None:  # a row that several need cannot be overwritten
        x = other = fresh_like(x).copy_(x)
        in_place = False
    paste = mask is not None and mask.dtype == torch.bool
    weights = _weights(x, lam, mask, normal)
    if in_place:
        _mix_in_place(result, order, ends, weights, layout, paste)
    else:
        rows = order if ends is not None and other is x else torch.arange(len(x), device="cpu").numpy()
        scattered = ends is None and other is x
        _mix(x, other, result, mates, rows, weights, layout, paste, normal, scattered)
    if not result.is_inference():
        torch.autograd.graph.increment_version(result)  # autograd has to know that it was written
    return result


def _mix_in_place(x: Tensor, order: Any, ends: Any, weights: list[Any], layout: Layout, paste: bool) -> None:
    """Along the cycles of the permutation."""
    threads = threads_for(x.nbytes)
    block, units = _blocks(BLOCK_IN_PLACE // x.element_size(), layout, threads, paste)
    loop = loops().paste_cycles if paste else loops().mix_cycles
    shape = _shape(layout, block, paste)
    arguments = (flat(x, raw=paste), row_stride(x), order, ends, *weights, *shape)
    share(loop, loops().BY_TEAM[loop], units, threads, *arguments)


def _mix(
    x: Tensor, other: Tensor, out: Tensor, mates: Any, order: Any, weights: list[Any],
    layout: Layout, paste: bool, normal: Constants | None, scattered: bool,
) -> None:  # fmt: skip
    """From ``x`` and ``other`` into memory apart from them."""
    if normal is None:
        loop = loops().paste_rows if paste else loops().mix_rows
        threads = threads_for(x.nbytes)
    else:
        loop = loops().paste_rows if paste else loops().mix_images
        threads = threads_for(x.nbytes * PRICE_OF_IMAGES)
    size = BLOCK // x.element_size()
    if normal is not None and layout.inner > 1:
        size = BLOCK_NORMALISED
    elif scattered:
        size = max(1024, ALL_ROWS // (len(x) * x.element_size()))
    block, units = _blocks(size, layout, threads, paste)
    raw = paste and normal is None
    source, target = flat(x, raw=raw), flat(out, raw=raw)
    mate = source if other is x else flat(other, raw=raw)
    strides = (row_stride(x), row_stride(other), row_stride(out))
    arguments = [source, mate, target, strides, mates, order, *weights, *_shape(layout, block, paste)]
    if normal is not None:
        arguments.append(_patterns(normal, layout, block))
    elif paste:
        arguments.append(None)
    share(loop, loops().BY_TEAM[loop], units, threads, *arguments)


def _cycles(partner: Tensor, rows: int) -> tuple[Any, Any, Any]:
    """Partners, the rows cycle by cycle, and where each cycle ends, None if they are no permutation."""
    mates = partner.detach().contiguous().numpy()
    order, ends = torch.empty(2, rows, dtype=torch.int64, device="cpu").numpy()
    cycles = loops().find_cycles(mates, rows, order, ends)
    if cycles == -2:
        raise MixError(
            f"partner takes rows of the other batch, 0 to {rows - 1}, got {mates.min()} to {mates.max()}"
        )
    return mates, order, None if cycles < 0 else ends[:cycles]


def _weights(x: Tensor, lam: Tensor, mask: Tensor | None, normal: Constants | None) -> list[Any]:
    """What a loop is told of weights: those of rows, unless it pastes; those of places and their stride."""
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    wide = wide if normal is None else normal.scale.dtype
    of_rows = lam.detach().to(wide).contiguous().numpy()
    if mask is None:
        return [of_rows, None, 0]
    values, stride = mask.detach().contiguous(), 0 if len(mask) == 1 else math.prod(mask.shape[1:])
    if mask.dtype == torch.bool:
        return [values.view(torch.uint8).flatten().numpy(), stride]
    if normal is not None:
        values = values.float()  # so that the product with a grey level is exact in float64
    return [of_rows, values.to(wide).flatten().numpy(), stride]


def _blocks(size: int, layout: Layout, threads: int, paste: bool) -> tuple[int, int]:
    """Values of a block of about ``size``, and how many there are to share; no value depends on either."""
    planes = 1 if paste else layout.planes
    size = min(size, math.ceil(layout.span * planes / threads), layout.span)
    block = max(1, math.ceil(size / layout.inner)) * layout.inner
    return block, planes * math.ceil(layout.span / block)


def _shape(layout: Layout, block: int, paste: bool) -> tuple[int, ...]:
    whole = (layout.span, layout.inner, block)
    return (layout.planes, *whole) if paste else whole


@functools.lru_cache(maxsize=64)
def _patterns(normal: Constants, layout: Layout, block: int) -> tuple[Any, ...]:
    """The constants by plane: one number for each, or channel after channel as long as a block is.

    ``pixels.constants`` hands out the same tensors again, so that they are found here by identity.
    """
    channels = len(normal.scale)
    if layout.inner == 1:
        return tuple(part.repeat_interleave(layout.planes // channels).numpy() for part in normal)
    return tuple(part.repeat(1, block // channels).numpy() for part in normal)
