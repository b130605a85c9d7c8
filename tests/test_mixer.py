from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch

from batchmix import (
    AttentiveCutMix,
    CMixup,
    GridMix,
    MixedTarget,
    Mixer,
    MixError,
    MixPlan,
    Mixup,
    off_after,
    ramp,
    sample_lam,
)
from refusals import assert_named

X, Y = torch.rand(4, 3, generator=torch.Generator().manual_seed(0)), torch.arange(4)


class Halves(Mixer):
    """The smallest method: everybody half and half with the previous sample."""

    def sample(self, x, y, *, between, generator, **settings):
        own = torch.arange(len(x), device=generator.device)
        return MixPlan(own if between else own.roll(1), torch.full((len(x),), 0.5, device=generator.device))


def is_mixed(mixer: Mixer) -> bool:
    return mixer(X, Y)[0] is not X


def test_a_method_only_says_how_a_plan_is_drawn() -> None:
    x, target = Halves(seed=0)(X, Y)
    torch.testing.assert_close(x, 0.5 * X + 0.5 * X.roll(1, 0))
    assert torch.equal(target.b, Y.roll(1))
    with pytest.raises(NotImplementedError, match="Mixer"):
        Mixer(seed=0)(X, Y)


def test_a_callable_schedule_is_a_factor_of_p() -> None:
    mixer = Halves(schedule=off_after(3), seed=0)
    assert [is_mixed(mixer) for _ in range(5)] == [True, True, True, False, False]
    assert Halves(p=0.5, schedule=ramp(0, 1, 10), seed=0).settings(5) == {"p": 0.25, "p_sample": 1.0}


def test_a_schedule_can_be_assigned_later() -> None:
    mixer = Halves(seed=0)
    mixer.schedule = off_after(2)
    assert [is_mixed(mixer) for _ in range(4)] == [True, True, False, False]
    mixer.schedule = None
    assert is_mixed(mixer)
    with pytest.raises(MixError, match=r"^schedule takes "):
        mixer.schedule = 0.5


@pytest.mark.parametrize(("name", "value"), [("alpha", -1), ("p", 1.5), ("p_sample", "all")])
def test_what_is_assigned_wrongly_is_named_at_the_next_batch(name: str, value: object) -> None:
    """A negative alpha would mix nothing, without a word."""
    mixup = Mixup(0.4, seed=0)
    setattr(mixup, name, value)
    with pytest.raises(MixError, match=f"^{name} takes "):
        mixup(X, Y)


def test_processes_of_one_batch_draw_alike_by_the_rank_that_they_are_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lam(told: int, given: int | None) -> list[float]:
        monkeypatch.setenv("RANK", str(told))
        return Mixup(1.0, seed=0, rank=given).plan(X).lam.tolist()

    assert lam(told=2, given=1) == lam(told=3, given=1) == lam(told=1, given=None) != lam(told=2, given=None)
    mixup = Mixup(1.0, seed=0)
    mixup.rank = 1
    assert "rank=1" in repr(mixup)
    assert mixup.plan(X).lam.tolist() == lam(told=0, given=1)
    with pytest.raises(MixError, match=r"^rank takes a whole number >= 0, got -1"):
        mixup.rank = -1


def test_a_mapping_schedules_each_hyperparameter() -> None:
    mixup = Mixup(2.0, p=0.8, schedule={"alpha": ramp(1, 0, 4), "p": ramp(0, 1, 4)}, seed=0)
    assert mixup.settings() == mixup.settings(0) == {"p": 0.0, "p_sample": 1.0, "alpha": 2.0}
    assert mixup.settings(2) == pytest.approx({"p": 0.4, "p_sample": 1.0, "alpha": 1.0})
    mixup.step = 4
    assert mixup.settings() == pytest.approx({"p": 0.8, "p_sample": 1.0, "alpha": 0.0})


def test_alpha_that_has_run_out_mixes_nothing() -> None:
    mixup = Mixup(1.0, partner="roll", schedule={"alpha": off_after(2)}, seed=0)
    assert [is_mixed(mixup) for _ in range(4)] == [True, True, False, False]


def test_the_schedule_reads_the_step_that_was_resumed() -> None:
    mixer = Halves(schedule=off_after(3), seed=0)
    mixer.load_state_dict({"seed": 0, "step": 3})
    assert not is_mixed(mixer)
    mixer.step = 2
    assert is_mixed(mixer)


@pytest.mark.parametrize("factor", [lambda step: 2.0, lambda step: -1.0, lambda step: float("nan")])
def test_a_factor_that_leads_out_of_range_is_named(factor: object) -> None:
    with pytest.raises(MixError, match=r"^p times schedule\['p'\] at step 0 takes .*, got "):
        Halves(schedule=factor, seed=0)(X, Y)


def test_every_batch_counts_as_a_step_mixed_or_not() -> None:
    mixer = Halves(p=0.5, seed=0)
    for step in range(6):
        assert mixer.step == step
        mixer(X, Y)
    assert mixer.state_dict() == {"seed": 0, "step": 6}


@pytest.mark.usefixtures("unmoved_global_rng")
def test_without_a_seed_the_draws_follow_manual_seed_and_leave_it_alone() -> None:
    with torch.random.fork_rng(devices=[]):
        lams = []
        for seed in (7, 7, 8):
            torch.manual_seed(seed)
            state = torch.get_rng_state()
            lams.append(Mixup(1.0)(X, Y)[1].lam)
            assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(lams[0], lams[1])
    assert not torch.equal(lams[0], lams[2])


@pytest.mark.parametrize(
    "state", [{}, {"seed": 1}, {"seed": 1, "step": 0, "p": 1}, {"seed": 1, "step": -1}, {1: 2, "a": 3}, None]
)
def test_a_state_of_another_form_is_refused_and_changes_nothing(state: dict[str, int]) -> None:
    mixer = Halves(seed=5)
    with pytest.raises(MixError, match=" takes "):
        mixer.load_state_dict(state)
    assert mixer.state_dict() == {"seed": 5, "step": 0}


@pytest.mark.parametrize("name", ["step", "seed"])
@pytest.mark.parametrize("value", [-1, 2000 / 10, "a", None, True])
def test_a_state_that_could_not_be_loaded_is_not_taken(name: str, value: object) -> None:
    mixer = Mixup(seed=0)
    with pytest.raises(MixError, match=f"^{name} takes a whole number >= 0, got "):
        setattr(mixer, name, value)
    setattr(mixer, name, np.int64(3))
    assert type(mixer.state_dict()[name]) is int
    mixer.load_state_dict(mixer.state_dict())


def test_threads_that_share_a_mixer_draw_apart() -> None:
    class Late(Mixup):
        """Time passes between reading the step and counting it."""

        @property
        def step(self) -> int:
            step = self._step
            time.sleep(0.002)
            return step

        @step.setter
        def step(self, step: int) -> None:
            self._step = step

    mixer, drawn = Late(seed=0), []

    def draw() -> None:
        drawn.extend(tuple(mixer.plan(X).lam.tolist()) for _ in range(5))

    threads = [threading.Thread(target=draw) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(drawn)) == mixer.step == 20


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_process_that_is_forked_amid_a_draw_does_not_wait_for_its_end() -> None:
    from batchmix import mixer

    with mixer._taking:  # as another thread holds it
        child = os.fork()
        if child == 0:
            os._exit(int(mixer._taking.locked()))
    assert os.waitpid(child, 0)[1] == 0


def test_repr_shows_how_it_was_made() -> None:
    shown = repr(Mixup(0.3, per="batch", seed=5))
    for part in ("Mixup(", "alpha=0.3", "per='batch'", "seed=5"):
        assert part in shown


def test_numbers_of_numpy_are_numbers() -> None:
    """As ``np.arange`` and ``Generator.integers`` give them."""
    mixup = Mixup(np.float32(0.5), p=np.float32(1), p_sample=np.int64(1), seed=np.int64(3))
    assert (mixup.alpha, mixup.p, mixup.p_sample, mixup.seed) == (0.5, 1, 1, 3)
    assert [type(part) for part in mixup.state_dict().values()] == [int, int]
    assert torch.equal(mixup.plan(X, step=np.int64(2)).lam, Mixup(0.5, seed=3).plan(X, step=2).lam)
    mixup.load_state_dict({"seed": np.uint8(4), "step": np.int32(5)})
    assert mixup.state_dict() == {"seed": 4, "step": 5}
    halved = Mixup(0.5, schedule={"alpha": lambda step: np.float32(0.5)}, seed=3)
    assert halved.settings()["alpha"] == 0.25
    for grid in (GridMix(1.0, cells=np.int32(3)), AttentiveCutMix(cells=np.int32(3))):
        assert type(grid.cells) is int
        assert grid.cells == 3
    lam = sample_lam(1.0, np.int64(4), generator=torch.Generator().manual_seed(0))
    assert torch.equal(lam, sample_lam(1.0, 4, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("seed", [-1, 1.0, True, "1", torch.ones(2), None], ids=str)
def test_what_is_no_whole_number_is_no_seed(seed: object) -> None:
    with pytest.raises(MixError, match=r"^seed takes a whole number >= 0, got "):
        MIXER.load_state_dict({"seed": seed, "step": 0})


MIXER = Halves(seed=0)


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("y", lambda: MIXER(X, Y[:3])),
        ("y", lambda: MIXER(X, [0, 1, 2, 3])),
        ("y", lambda: MIXER(X, torch.tensor(1))),
        ("y", lambda: MIXER(X, Y.to("meta"))),
        ("y", lambda: MIXER(X, MIXER(X, Y)[1])),
        ("x", lambda: MIXER(X.byte(), Y)),
        ("x", lambda: MIXER(torch.tensor(1.0), Y)),
        ("x", lambda: MIXER(X[:0], Y[:0])),
        ("x.1", lambda: MIXER([X, X[:3]], Y)),
        ("x", lambda: MIXER.plan(X[:0])),
        ("x", lambda: MIXER.plan(torch.tensor(1.0))),
        ("x", lambda: MIXER(np.zeros((4, 3)), Y)),
        ("plan", lambda: MIXER(X, Y, plan=MixPlan.identity(3))),
        ("plan", lambda: MIXER(X, Y, plan=MixPlan.identity(4, "meta"))),
        ("plan", lambda: MIXER(X, Y, plan=MixPlan(torch.arange(3), torch.ones(3)))),
        ("plan", lambda: MIXER(X, Y, plan="again")),
        ("second", lambda: MIXER.between((X, Y), (X[:, :2], Y))),
        ("second", lambda: MIXER.between((X, Y), (X[:3], Y[:3]))),
        ("first", lambda: MIXER.between(X[:2], X[2:])),
        ("first", lambda: MIXER.between(None, (X, Y))),
        ("first", lambda: MIXER.between((X, Y, Y), (X, Y))),
        ("second", lambda: MIXER.between((X, Y), ({"a": X}, Y))),
        ("y", lambda: MIXER.between((X, Y), (X, Y[:3]))),
        ("b", lambda: MIXER.between((X, Y), (X, Y.float()))),
    ],
)
def test_a_wrong_argument_is_named_in_one_line(argument: str, call: Callable[[], object]) -> None:
    assert_named(argument, call)


@pytest.mark.parametrize(
    "mixer", [Mixup(partner="other-class", seed=0), CMixup(seed=0)], ids=["class", "value"]
)
def test_partners_of_several_targets_are_chosen_by_a_plan(mixer: Mixer) -> None:
    x, labels = torch.rand(4, 3), torch.tensor([0, 1, 0, 1])
    y = {"label": labels, "size": torch.rand(4)}
    with pytest.raises(
        MixError, match=r"^y takes .*: mixer\(x, y, plan=mixer\.plan\(x, labels\)\) says which$"
    ):
        mixer(x, y)
    chosen_by = labels if isinstance(mixer, Mixup) else y["size"]
    mixed = mixer(x, y, plan=mixer.plan(x, chosen_by))[1]
    assert [type(part) for part in mixed.values()] == [MixedTarget] * 2
