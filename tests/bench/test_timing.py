"""Everybody has a turn in each round, with the input put back before; who fails does not stop the others."""

from __future__ import annotations

import gc
import time

import pytest
import torch

from batchmix.bench.timing import (
    MOST_ROUNDS,
    WARM_UP,
    Contender,
    finished_clock,
    in_turn,
    reason,
    stream_clock,
    wall_clock,
)


def test_every_contender_has_a_turn_in_each_round_and_the_input_back_before_it() -> None:
    log: list[str] = []
    contenders = [Contender("x", name, lambda name=name: log.append(name)) for name in "abc"]
    timings = in_turn(contenders, repeats=6, seconds=0, before=lambda: log.append("back"))

    assert log[::2] == ["back"] * (len(log) // 2)
    called = log[1::2]
    assert called[: 3 * WARM_UP] == [name for name in "abc" for _ in range(WARM_UP)]
    rounds = [called[i : i + 3] for i in range(3 * WARM_UP, len(called), 3)]
    assert len(rounds) == 6
    assert all(sorted(one) == ["a", "b", "c"] for one in rounds)
    assert len({tuple(one) for one in rounds}) > 1  # nobody always follows the same one
    assert [len(timing.seconds) for timing in timings] == [6, 6, 6]


def test_who_raises_is_left_out_with_the_reason() -> None:
    def fail() -> None:
        raise ValueError("no such\n  dtype")

    bad, good = in_turn([Contender("a", "", fail), Contender("b", "", lambda: None)], repeats=3, seconds=0)
    assert (bad.failed, bad.seconds) == ("ValueError: no such dtype", [])
    assert good.failed is None
    assert len(good.seconds) == 3


def test_who_raises_in_a_later_round_is_left_out_from_then_on() -> None:
    calls = iter(range(100))

    def fail_at_last() -> None:
        if next(calls) == WARM_UP + 2:
            raise ValueError("enough")

    contenders = [Contender("a", "", fail_at_last), Contender("b", "", lambda: None)]
    bad, good = in_turn(contenders, repeats=6, seconds=0)
    assert bad.failed == "ValueError: enough"
    assert next(calls) == WARM_UP + 3  # it was not called again
    assert (good.failed, len(good.seconds)) == (None, 6)


def test_an_interrupt_is_not_swallowed() -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        in_turn([Contender("a", "", stop)], repeats=3)


def test_quick_calls_get_more_rounds_and_the_collector_is_as_before() -> None:
    seen: list[bool] = []
    (timing,) = in_turn([Contender("a", "", lambda: seen.append(gc.isenabled()))], repeats=3, seconds=60)
    assert len(timing.seconds) == MOST_ROUNDS
    assert not any(seen[WARM_UP:])
    assert gc.isenabled()


def test_the_clock_is_the_one_given_and_seconds_are_seconds() -> None:
    (timing,) = in_turn([Contender("a", "", lambda: None)], repeats=4, seconds=0, clock=lambda call: 7.0)
    assert timing.seconds == [7.0] * 4
    assert wall_clock(lambda: time.sleep(0.01)) >= 0.01


def test_a_reason_is_one_line_without_colours() -> None:
    assert reason(RuntimeError("\x1b[1mnot\x1b[0m\n\n implemented")) == "RuntimeError: not implemented"
    assert reason(RuntimeError()) == "RuntimeError"
    assert len(reason(RuntimeError("long " * 100))) == 120


def test_a_gpus_stream_is_timed_by_its_own_events_with_the_host_ahead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log: list[str] = []

    class Event:
        made = 0

        def __init__(self, *, enable_timing: bool) -> None:
            Event.made += 1
            self.name = f"event {Event.made}"

        def record(self) -> None:
            log.append(f"{self.name} recorded")

        def synchronize(self) -> None:
            log.append(f"{self.name} waited for")

        def elapsed_time(self, end: Event) -> float:
            return 250.0  # milliseconds

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: log.append("all waited for"))
    monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: log.append("sleep"))
    assert stream_clock(lambda: log.append("call")) == 0.25
    recorded = ["event 1 recorded", "call", "event 2 recorded"]
    assert log == ["all waited for", "sleep", *recorded, "event 2 waited for"]

    log.clear()
    assert finished_clock(lambda: log.append("call")) >= 0
    assert log == ["all waited for", "call", "all waited for"]


@pytest.mark.gpu
def test_the_clocks_of_a_gpu_agree_on_a_long_copy() -> None:
    source = torch.zeros(1 << 28, device="cuda")  # 1 GiB
    target = torch.empty_like(source)
    (timing,) = in_turn(
        [Contender("", "", lambda: target.copy_(source))], repeats=5, clock=stream_clock, seconds=0
    )
    (host,) = in_turn(
        [Contender("", "", lambda: target.copy_(source))], repeats=5, clock=finished_clock, seconds=0
    )
    assert min(timing.seconds) == pytest.approx(min(host.seconds), rel=0.2)
