"""Partners from another process's batch, under ``torch.distributed``."""

from __future__ import annotations

import zlib
from typing import Any, overload

import torch
from torch import Tensor
from torch import distributed as dist

from batchmix.core.plan import describe
from batchmix.errors import MixError


@overload
def from_next_rank(x: Tensor, y: Tensor, /, *, check: bool = True) -> tuple[Tensor, Tensor]: ...


@overload
def from_next_rank(*tensors: Tensor, check: bool = True) -> tuple[Tensor, ...]: ...


def from_next_rank(*tensors: Tensor, check: bool = True) -> tuple[Tensor, ...]:
    """The batch of the next process, for partners that are not in one's own: rank r gets that of rank r+1.

    All ranks call it at the same step, as any collective. What a step sends over the network is each tensor
    once, ``sum(t.numel() * t.element_size() for t in tensors)`` bytes from every rank (77 MB for 128 float32
    images of 3x224x224: mix uint8 batches after this call, or half precision ones), and 16 bytes to every
    rank for the check. Gradients do not flow back. It is for processes that have batches of their own: those
    that share one, as under tensor parallelism, would give it to one another.

    Args:
        tensors: Of any dtype, on the device that the process group's backend takes (nccl: CUDA, gloo: CPU).
        check: Compare shapes and dtypes of all ranks first, which waits for the device; without it tensors
            that differ hang or garble, as in ``torch.distributed``.

    Returns:
        As many tensors, each in the memory format of one's own; the ones given where there is no other
        process, so that ``between`` then pairs each sample with itself.

    Raises:
        MixError: If a rank's tensors are not like another's, on every rank alike.

    Example:
        >>> import batchmix as bm
        >>> mixup = bm.Mixup(0.4, seed=0)
        >>> x, y = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 0])
        >>> x, y = mixup.between((x, y), from_next_rank(x, y))
    """
    alone = not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1
    if check and not alone:
        _check_alike(tensors)
    for place, tensor in enumerate(tensors):
        if not isinstance(tensor, Tensor):
            raise MixError(f"tensors[{place}] takes a tensor, got {describe(tensor)}")
    if alone or not tensors:
        return tensors
    rank, world = dist.get_rank(), dist.get_world_size()
    sent = [tensor.detach().contiguous() for tensor in tensors]
    received = [torch.empty_like(tensor) for tensor in sent]
    steps = []
    for mine, theirs in zip(sent, received, strict=True):
        steps.append(dist.P2POp(dist.isend, mine, (rank - 1) % world))
        steps.append(dist.P2POp(dist.irecv, theirs, (rank + 1) % world))
    for request in dist.batch_isend_irecv(steps):
        request.wait()
    return tuple(map(_laid_out_like, tensors, received))


def _laid_out_like(own: Tensor, theirs: Tensor) -> Tensor:
    """Their values in the memory format of one's own, in which a kernel mixes the two."""
    return theirs if own.is_contiguous() else torch.empty_like(own).copy_(theirs)


def _check_alike(tensors: tuple[Any, ...]) -> None:
    """Every rank sees every answer, so that all of them raise or none: one alone would hang the rest."""
    shown = ", ".join(_kind(tensor) for tensor in tensors) or "none"
    samples = len(tensors[0]) if tensors and isinstance(tensors[0], Tensor) and tensors[0].dim() else 0
    usual = torch.device("cuda" if "nccl" in dist.get_backend() else "cpu")
    device = next((tensor.device for tensor in tensors if isinstance(tensor, Tensor)), usual)
    mine = torch.tensor([samples, zlib.crc32(shown.encode())], device=device)
    everyones = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(everyones, mine)
    answers = torch.stack(everyones).tolist()
    for rank, answer in enumerate(answers):
        if answer != answers[0]:
            counts = f"{answers[0][0]} samples on rank 0 and {answer[0]} on rank {rank}"
            others = f"others on rank {rank} than on rank 0"
            raise MixError(
                "tensors takes the same shapes and dtypes on every rank, "
                f"got {others if answer[0] == answers[0][0] else counts}; here {shown}"
            )


def _kind(tensor: Any) -> str:
    """What has to be alike; of what is no tensor, its type."""
    return describe(tensor) if isinstance(tensor, Tensor) else type(tensor).__name__
