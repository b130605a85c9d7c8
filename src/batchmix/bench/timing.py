"""Calls timed in turn: each once a round, so that whatever else the machine does meets them all alike."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from batchmix.errors import cut, one_line

Clock = Callable[[Callable[[], object]], float]

WARM_UP = 1  # calls of each before the first round: compilation, lazy imports, first touch of memory
SECONDS = 2.0  # rounds go on for so long at least, since quick calls need many of them
MOST_ROUNDS = 200
AHEAD = 2_000_000  # GPU cycles, about a millisecond: the host gets that far ahead


@dataclass(frozen=True)
class Contender:
    """Something to time.

    Args:
        who: The library, ``"batchmix"`` for ours, ``"torch"`` for what all are measured against.
        form: Which way of calling it.
        call: The call itself, without arguments.
        fresh: Whether it returns new memory of the size of the batch.
        kernel: The kernel it is bound to, where that was named.
    """

    who: str
    form: str
    call: Callable[[], object]
    fresh: bool = False
    kernel: str | None = None


@dataclass
class Timing:
    """What came of a contender: seconds of each round, or why it could not be called."""

    contender: Contender
    seconds: list[float] = field(default_factory=list)
    failed: str | None = None


def wall_clock(call: Callable[[], object]) -> float:
    """Seconds until the call has returned; what it returned is freed after that."""
    begin = time.perf_counter()
    kept = call()
    taken = time.perf_counter() - begin
    del kept
    return taken


def finished_clock(call: Callable[[], object]) -> float:
    """Seconds until the GPU has done what the call asked for, all earlier work being done."""
    torch.cuda.synchronize()
    begin = time.perf_counter()
    kept = call()
    torch.cuda.synchronize()
    taken = time.perf_counter() - begin
    del kept
    return taken


def stream_clock(call: Callable[[], object]) -> float:
    """Seconds that the GPU's stream takes for the call, by its own events.

    The stream sleeps first, so that about a millisecond of launching from Python is hidden, as it is in a
    training step. A call that launches for longer leaves the GPU waiting, and that wait counts as its time.
    """
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    torch.cuda.synchronize()
    torch.cuda._sleep(AHEAD)  # type: ignore[no-untyped-call]
    begin.record()
    kept = call()
    end.record()
    end.synchronize()
    del kept
    return float(begin.elapsed_time(end)) / 1e3


def device_clock(device: torch.device) -> Clock:
    """The clock for work on a device: how long it is taken."""
    return stream_clock if device.type == "cuda" else wall_clock


def in_turn(
    contenders: Sequence[Contender],
    *,
    repeats: int,
    clock: Clock = wall_clock,
    before: Callable[[], object] = lambda: None,
    seconds: float = SECONDS,
) -> list[Timing]:
    """Time every contender once a round, in an order drawn anew for each round.

    Args:
        contenders: What to time; one that raises is left out from then on, with its reason.
        repeats: Rounds at least.
        clock: What times a call.
        before: Called before each call and not timed: it puts the input back.
        seconds: How long the rounds go on at least, up to ``MOST_ROUNDS`` of them.

    Returns:
        One ``Timing`` each, in their order; the k-th seconds of all that did not fail are of the same round.
    """
    timings = [Timing(contender) for contender in contenders]
    for timing in timings:
        timing.failed = _warm_up(timing.contender, before)
    running = [timing for timing in timings if timing.failed is None]
    order = random.Random(0)
    with _no_collection():
        begin = time.perf_counter()
        for done in range(max(repeats, MOST_ROUNDS)):
            if done >= repeats and time.perf_counter() - begin > seconds:
                break
            for timing in order.sample(running, len(running)):
                before()
                try:
                    timing.seconds.append(clock(timing.contender.call))
                except Exception as error:  # as in _warm_up
                    timing.failed = reason(error)
            running = [timing for timing in running if timing.failed is None]
    return timings


def _warm_up(contender: Contender, before: Callable[[], object]) -> str | None:
    """Call it a few times; why it cannot be called, or None."""
    try:
        for _ in range(WARM_UP):
            before()
            contender.call()
    except Exception as error:  # another library's: the others are measured all the same
        return reason(error)
    return None


def reason(error: BaseException) -> str:
    """Why something could not be measured, short enough for a table."""
    return cut(one_line(error), 120)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Collect garbage now, and not while something is timed."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
