"""Threads for the loops, as many as torch has been given: torch's own where ``team`` finds them.

Else they are Python's: the loops give up the interpreter lock. numba's own pool would be a second one beside
torch's, and depending on its layer it dies of a fork or of two callers at once. Ours is left behind by a fork
and made anew.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import torch
from torch.utils.data import get_worker_info

from batchmix.kernels import team

WORTH_A_THREAD = 1 << 24  # bytes of a batch; less is done sooner by one
WORTH_A_SHARE = 1 << 19  # the same for torch's threads, which are awake: it takes 50 microseconds to mix them

_pool: ThreadPoolExecutor | None = None
_lock = threading.Lock()


def threads_for(size: int) -> int:
    """How many threads share ``size`` bytes: at most torch's, and one in a DataLoader's worker."""
    if get_worker_info() is not None:
        return 1
    worth = min(WORTH_A_SHARE, WORTH_A_THREAD) if team.is_there() else WORTH_A_THREAD
    return max(1, min(torch.get_num_threads(), size // worth))


def share(
    loop: Callable[..., None], by_team: Callable[..., int], units: int, threads: int, *arguments: Any
) -> None:
    """Call ``loop(*arguments, first, last)`` for all of ``units``, the caller's thread doing its share.

    Args:
        loop: Compiled, without the interpreter lock.
        by_team: The same loop for torch's threads: ``by_team(arguments, units, threads)`` is 0, or it failed.
        units: How many there are to share.
        threads: At most so many take part.
        arguments: Of the loop, what comes before its first unit and its last.
    """
    threads = max(1, min(threads, units))
    if threads == 1:
        loop(*arguments, 0, units)
    elif not team.is_there():
        _share_out(loop, units, threads, *arguments)
    elif by_team(arguments, units, threads):
        raise MemoryError("a thread found no memory for its part of a batch")


def _share_out(loop: Callable[..., None], units: int, threads: int, *arguments: Any) -> None:
    """The same with threads of our own."""
    bounds = [units * k // threads for k in range(threads + 1)]
    waiting = []
    try:
        pool = _the_pool()
        for first, last in pairwise(bounds[1:]):
            waiting.append(pool.submit(loop, *arguments, first, last))
    except RuntimeError:  # the interpreter is on its way out and starts no more threads
        pass
    done = len(waiting) + 1
    try:
        loop(*arguments, 0, bounds[1])
        if done < threads:
            loop(*arguments, bounds[done], units)
    finally:
        for future in waiting:
            future.result()


def _the_pool() -> ThreadPoolExecutor:
    global _pool
    with _lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(max(1, (os.cpu_count() or 1) - 1), thread_name_prefix="batchmix")
        return _pool


def _forget() -> None:
    """In a forked child: the threads stayed with the parent, and the lock may have been held there."""
    global _pool, _lock
    _pool, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
