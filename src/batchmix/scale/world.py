"""The processes that train together, as torchrun starts them; one alone is a world of size 1."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist

from batchmix.errors import DataError, MixError, shorten, why

T = TypeVar("T")

# How long ranks wait for one that fetches, decodes or tests: torch's own limits, 10 minutes for NCCL and 30
# for gloo, would end them. That a rank has died is seen all the same: gloo says so, torchrun ends the others.
PATIENCE = timedelta(hours=2)


@dataclass(frozen=True)
class World:
    """Who trains together. Every method is called by all ranks alike, and does nothing where there is one.

    Args:
        rank: This process's place, 0 to ``size - 1``.
        size: Processes on all hosts.
        local_rank: This process's place on its host.
        device: What the collectives take: ``cpu`` (gloo), or this process's GPU (NCCL).
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    device: str = "cpu"

    @property
    def first(self) -> bool:
        """Whether this process speaks and writes files for all."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """This rank's part of a batch of ``count``: neighbours in order, sizes that differ by 1 at most."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def check_batch(self, batch_size: int) -> None:
        """Refuse a batch of which a process has one image, whose batch norm takes two.

        Raises:
            MixError: If it is that small.
        """
        if batch_size < 2 * self.size:
            raise MixError.of(
                "batch_size", batch_size, f"two images or more for each of {self.size} processes"
            )

    def sum(self, values: Tensor) -> Tensor:
        """The sum over the ranks, a new tensor; no gradients."""
        if self.size == 1:
            return values
        total = values.detach().to(self.device, copy=True)
        dist.all_reduce(total)
        return total.to(values.device)

    def any(self, flag: bool) -> bool:
        """Whether the flag is up on any rank: the answer is the same on all of them."""
        return flag if self.size == 1 else self.sum(torch.tensor([float(flag)])).item() > 0

    def told(self, value: T) -> T:
        """The first rank's value, which can be pickled, on every rank."""
        if self.size == 1:
            return value
        held = [value]
        dist.broadcast_object_list(held, device=torch.device(self.device))
        return held[0]

    def wait(self) -> None:
        """Return when every rank has come here."""
        self.any(False)  # where barrier() is given no GPU, NCCL guesses one, and warns

    @contextmanager
    def first_on_host(self) -> Iterator[None]:
        """Inside, the first process of each host is done before its others come in."""
        if self.local_rank > 0:
            self.wait()
        yield
        if self.local_rank == 0:
            self.wait()

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its sum over the ranks, in one message for each dtype.

        DistributedDataParallel hides its messages behind the backward, but takes a net whose trained
        parameters stay the same; the recipe's do not, and its net is small.
        """
        if self.size == 1:
            return
        by_dtype: dict[torch.dtype, list[Tensor]] = {}
        for parameter in parameters:
            if parameter.grad is not None:
                by_dtype.setdefault(parameter.dtype, []).append(parameter.grad)
        for gradients in by_dtype.values():
            flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
            dist.all_reduce(flat)
            totals = torch.split(flat, [gradient.numel() for gradient in gradients])
            for gradient, total in zip(gradients, totals, strict=True):
                gradient.copy_(total.view(gradient.shape))

    def equalize(self, tensors: Iterable[Tensor]) -> None:
        """Give every rank the first rank's values, in place."""
        if self.size == 1:
            return
        for tensor in tensors:
            dist.broadcast(tensor.detach(), 0)


ALONE = World()


@contextmanager
def joined(device: str = "auto") -> Iterator[World]:
    """Join the processes that torchrun started beside this one; ``ALONE`` where it started none.

    Args:
        device: ``auto``, ``cpu`` or ``cuda``. GPUs go by local rank, one a process.

    Raises:
        MixError: If this host has fewer GPUs than processes, a GPU is named by its number, or what the
            environment says is no number.
        DataError: If another process ends, or is not to be reached any more.
    """
    size = _told("WORLD_SIZE", "1")
    if size == 1 or "MASTER_ADDR" not in os.environ:
        yield ALONE
        return
    rank, local = _told("RANK", ""), _told("LOCAL_RANK", "0")  # not all launchers tell the second
    own = _device_of(device, local)
    backend = "nccl" if own.startswith("cuda") else "gloo"
    try:
        store, seen = _meeting_place(rank, size), backend == "gloo" or dist.is_torchelastic_launched()
        patience = PATIENCE if seen else None  # torch's own
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=patience)
        yield World(rank, size, local, own)
    except RuntimeError as error:
        if "Duplicate GPU" in str(error):  # NCCL's words
            raise MixError("--nproc-per-node takes a GPU for each process, got several on one GPU") from error
        if not _is_of_others(error):
            raise
        lost = f"another process of this run has ended, and says why itself: {shorten(why(error), 160)}"
        raise DataError(lost) from error
    # Not after an error: the others may be gone, and leaving them in good order would wait for them.
    dist.destroy_process_group()


def _told(name: str, otherwise: str) -> int:
    """A number that torchrun, or another launcher, has put into the environment."""
    found = os.environ.get(name, otherwise)
    if not found.isdecimal():
        raise MixError(f"{name} takes a whole number, as torchrun sets it in the environment, got {found!r}")
    return int(found)


def _meeting_place(rank: int, size: int) -> Any:
    """Where the ranks of this start leave their addresses, those of killed ranks being elsewhere.

    torchrun keeps one store over its restarts, and torch 2.13 does not tell them apart
    (https://github.com/pytorch/pytorch/issues/135712); hosts count restarts each for itself. So the first
    rank gives the start a name, and tells it to every rank that has answered to it.
    """
    store, _, _ = next(iter(dist.rendezvous("env://", rank, size)))  # type: ignore[attr-defined]
    own = uuid.uuid4().hex
    if rank == 0:
        store.set("start", own)
        for answer in [store.get(f"{own}/{other}").decode() for other in range(1, size)]:
            store.set(answer, own)
        return dist.PrefixStore(own, store)  # type: ignore[attr-defined]
    until = time.monotonic() + store.timeout.total_seconds()
    while not store.check([own]):
        if time.monotonic() > until:
            raise DataError(f"the first of {size} processes has not answered within {store.timeout}")
        store.set(f"{store.get('start').decode()}/{rank}", own)  # maybe a dead rank's: it is asked for again
        time.sleep(0.05)
    return dist.PrefixStore(store.get(own).decode(), store)  # type: ignore[attr-defined]


def _is_of_others(error: RuntimeError) -> bool:
    """Whether a collective has failed, of which gloo's errors have no type of their own."""
    return isinstance(error, dist.DistError) or "/gloo/" in str(error)


def _device_of(device: str, local: int) -> str:
    """This process's device, made the current one."""
    if device not in ("auto", "cpu", "cuda"):
        raise MixError.of("--device", device, "auto, cpu or cuda under torchrun, which gives each rank a GPU")
    if device == "cuda" and not torch.cuda.is_available():
        raise MixError(f"--device takes one of auto, cpu, got {device!r}")  # as one process alone has it
    if device == "cpu" or not torch.cuda.is_available():
        return "cpu"
    count = torch.cuda.device_count()
    if count == 1 and _sees_its_own_gpu():
        local = 0
    if local >= count:
        raise MixError.of("--nproc-per-node", f"{local + 1} or more", f"at most {count} here")
    torch.cuda.set_device(local)
    return f"cuda:{local}"


def _sees_its_own_gpu() -> bool:
    """Whether the launcher shows this process one GPU, as SLURM does: torchrun shows all of them to each."""
    shown = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return shown != "" and "," not in shown and not dist.is_torchelastic_launched()
