"""The threads that torch has, where they are those of an OpenMP that is called like GNU's.

Such threads stay awake for milliseconds after each of torch's operations, to be there for the next. A thread
of our own would take turns with them on the same cores: on two cores it gains nothing. So a loop is handed to
them, by ``team_code``.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys

import torch

FUNCTIONS = ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads", "omp_get_max_threads")

_is_child = False


def is_there() -> bool:
    """Whether loops can be handed to torch's threads. A fork leaves those behind; OpenMP does not notice."""
    return not _is_child and _is_linked()


@functools.cache
def _is_linked() -> bool:
    """Whether there are such functions in the process, and they are of the OpenMP that torch has."""
    if sys.platform != "linux" or "parallel backend: OpenMP" not in torch.__config__.parallel_info():
        return False
    process, threads = ctypes.CDLL(None), torch.get_num_threads()
    if not all(hasattr(process, name) for name in FUNCTIONS):
        return False
    most: int = process.omp_get_max_threads()
    return most == threads


def _leave() -> None:
    """In a forked child."""
    global _is_child
    _is_child = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave)
