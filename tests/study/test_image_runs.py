"""One run on images: the recipe's own training, the same images for all, and the same after a stop."""

from __future__ import annotations

import itertools
import signal
import sys

import numpy as np
import pytest
import torch

from batchmix.data import ImageSet
from batchmix.errors import MixError
from batchmix.recipe.training import Training
from batchmix.study.curve import POINTS, Curve
from batchmix.study.execute import execute
from batchmix.study.image_runs import ImageRun
from batchmix.study.images import count_of, spread_over, stratified, study_images
from batchmix.study.plan import RecipeConfig, StudyPlan
from batchmix.study.records import read_record

CPU = torch.device("cpu")
ARMS = ("none", "mixup", "mixup:per=batch", "cutmix", "choice", "two-loaders")


def made_up(count=200, tests=90, classes=10, size=32, name="cifar10"):
    """Images whose class is their colour, under noise."""
    rng = np.random.default_rng(0)
    colours = rng.integers(200, size=(classes, 1, 1, 3))

    def some(count):
        labels = np.arange(count) % classes
        noise = rng.integers(56, size=(count, size, size, 3))
        return (colours[labels] + noise).astype(np.uint8), labels.astype(np.int64)

    (train_x, train_y), (test_x, test_y) = some(count), some(tests)
    return ImageSet(name, train_x, train_y, test_x, test_y, tuple(map(str, range(classes))))


def config(**changes):
    tiny = {"widths": (8, 8, 8), "sizes": (16,), "images": 200, "batch_size": 50, "epochs": 3, "mix": "none"}
    return RecipeConfig(**{**tiny, **changes})


def start(arm="mixup", images=None, **changes):
    settings = config(**changes)
    return ImageRun(settings, arm, study_images(images or made_up(), settings.images), CPU)


def finish(run):
    for _ in run.run():
        pass
    return run.finish()


def weights(run):
    return {name: tensor.clone() for name, tensor in run.training.net.state_dict().items()}


def identical(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def without_times(scores):
    return {name: v for name, v in scores.items() if name not in ("train_seconds", "images_per_second")}


# Paired


@pytest.fixture
def seen(monkeypatch):
    """What every call of a mixer got in each run: (images, labels)."""
    calls = []
    plain = Training._one_step

    def spy(self):
        size = self.config.size_at(self.step)
        calls[-1].append(self.batches.at(self.step, size))
        return plain(self)

    monkeypatch.setattr(Training, "_one_step", spy)
    return calls


def test_runs_of_a_seed_differ_in_the_mixing_alone(seen):
    runs = [start(arm, seed=7) for arm in ARMS]
    assert all(identical(weights(run), weights(runs[0])) for run in runs)
    for run in runs:
        seen.append([])
        finish(run)
    for batches in zip(*seen, strict=True):
        for x, y in batches[1:]:
            assert torch.equal(x, batches[0][0])
            assert torch.equal(y, batches[0][1])
    assert len(seen[0]) == 12
    for one, other in itertools.combinations(runs, 2):
        assert not identical(weights(one), weights(other))


def test_seeds_differ_in_weights_and_order():
    first, second = start(seed=0), start(seed=1)
    assert not identical(weights(first), weights(second))
    assert not torch.equal(first.training.batches.at(0, 16)[1], second.training.batches.at(0, 16)[1])


@pytest.mark.parametrize(
    ("arm", "same"),
    [
        ("mixup:until=0.6", {"mix": "mixup"}),
        ("mixup:alpha=1,per=batch,fold=false,until=0.5",
         {"mix": "mixup", "alpha": 1.0, "per": "batch", "fold": False, "mix_until": 0.5}),
        ("none", {"mix": "none"}),
    ],
)  # fmt: skip
def test_an_arm_trains_as_the_recipe_does_to_the_last_bit(arm, same):
    images = made_up()
    run = start(arm, images)
    finish(run)
    x, y = torch.from_numpy(images.train_x), torch.from_numpy(images.train_y)
    recipe = Training(config(**same), x, y, CPU)
    list(recipe.run())
    assert identical(weights(run), recipe.net.state_dict())


def test_the_loaders_of_two_loaders_come_in_independent_orders():
    run = start("two-loaders")
    first = run.training.batches.at(0, 16)
    second = run.training.mixup.second(0)
    assert first[0].shape == second[0].shape
    assert not torch.equal(first[1], second[1])


# What comes of it


def test_the_scores_of_a_run_are_those_of_the_record():
    scores = finish(start("none", epochs=10, widths=(16, 32, 32)))
    assert scores["accuracy"] > 0.5
    assert scores["accuracy"] == scores["curve"][-1]["accuracy"]
    assert len(scores["curve"]) == POINTS
    assert [point["epoch"] for point in scores["curve"]] == [float(i) for i in range(1, 11)]
    assert sum(scores["reliability"]["count"]) == 90
    named = {"confidence", "ece", "brier", "temperature", "ece_scaled", "loss_scaled", "images_per_second"}
    assert named <= set(scores)
    losses = [point["train_loss"] for point in scores["curve"]]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("epochs", [0.25, 0.75, 1, 2.5])
def test_a_short_run_has_fewer_points_and_ends_with_the_last_step(epochs):
    curve = finish(start(epochs=epochs))["curve"]
    assert curve[-1]["epoch"] == epochs
    assert len(curve) == min(POINTS, int(4 * epochs))


def test_other_images_have_their_own_classes_size_mean_and_spread():
    images = made_up(classes=3, size=24, name="folder:/mine")
    run = start("two-loaders", images, sizes=(24,))
    x, _ = run.training.batches.at(0, 24)
    assert x.shape == (50, 3, 24, 24)
    assert abs(float(x.mean())) < 0.3
    assert 0.7 < float(x.std()) < 1.3
    assert run.training.net.head.out_features == 3
    assert 0 <= finish(run)["accuracy"] <= 1


@pytest.mark.parametrize("arm", ["mixup", "two-loaders", "choice:until=0.6"])
@pytest.mark.parametrize("stop", [1, 5, 11])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path, arm, stop):
    unbroken, first, second = start(arm), start(arm), start(arm)
    expected = finish(unbroken)
    for _ in first.run(lambda: first.training.step == stop):
        pass
    assert not first.done
    first.save(tmp_path / "unfinished" / "run.pt")
    second.resume(tmp_path / "unfinished" / "run.pt")
    assert second.training.step == stop
    assert without_times(finish(second)) == without_times(expected)
    assert identical(weights(second), weights(unbroken))


def test_what_is_no_state_of_this_run_is_not_taken(tmp_path):
    path = tmp_path / "run.pt"
    for write in (lambda: path.write_bytes(b"cut short"), lambda: torch.save([1], path)):
        write()
        run = start()
        run.resume(path)
        assert run.training.step == 0
    other = start(seed=1)
    next(other.run())
    other.save(path)
    run.resume(path)
    assert run.training.step == 0


# The record, and what is kept until there is one


@pytest.fixture
def carry_out(tmp_path, monkeypatch):
    """One run with its record, as its process makes it; what it told of its steps."""
    monkeypatch.setattr("batchmix.study.execute.load_images", lambda *_, **__: made_up())
    (tmp_path / "runs").mkdir()
    small = {"widths": (8, 8, 8), "sizes": (16,), "batch_size": 50}

    def act(data="cifar10"):
        plan, told = StudyPlan(("mixup",), (0,), (1,), 200, data, config=small), []
        orders = {"plan": plan.as_dict(), "run": vars(plan.runs()[0]), "device": "cpu", "root": None}
        assert execute({**orders, "command": ""}, tmp_path, lambda *steps: told.append(steps))
        return told, read_record(tmp_path, plan.runs()[0].key)

    return act


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent as on Unix")
def test_a_stop_while_a_run_is_tested_lets_it_end(carry_out, tmp_path, monkeypatch):
    plain = ImageRun.finish

    def stopped(run):
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL  # which would end this process
        signal.raise_signal(signal.SIGTERM)
        return plain(run)

    monkeypatch.setattr(ImageRun, "finish", stopped)
    assert carry_out()[1]["status"] == "done"
    assert list((tmp_path / "unfinished").iterdir()) == []


def killed(run):
    raise KeyboardInterrupt


def test_a_run_that_is_killed_while_it_is_tested_is_not_trained_again(carry_out, tmp_path, monkeypatch):
    _, expected = carry_out()
    (tmp_path / "runs" / "200x1-mixup-seed0.json").unlink()
    with monkeypatch.context() as patched:
        patched.setattr(ImageRun, "finish", killed)
        with pytest.raises(KeyboardInterrupt):
            carry_out()
    steps, record = carry_out()
    assert steps == []
    measured = ("train_seconds", "images_per_second", "peak_memory_mb", "date")
    assert {name: v for name, v in record.items() if name not in measured} == {
        name: v for name, v in expected.items() if name not in measured
    }


@pytest.mark.parametrize(("data", "steps"), [("cifar10", 0), ("cifar100", 4)])
def test_a_state_of_other_images_is_not_gone_on_with(carry_out, monkeypatch, data, steps):
    with monkeypatch.context() as patched:
        patched.setattr(ImageRun, "finish", killed)
        with pytest.raises(KeyboardInterrupt):
            carry_out()
    assert len(carry_out(data)[0]) == steps


def test_a_state_of_an_earlier_version_does_not_say_of_which_images_it_is(tmp_path):
    run = start()
    next(run.run())
    run.save(tmp_path / "run.pt")
    state = torch.load(tmp_path / "run.pt")
    del state["origin"]
    torch.save(state, tmp_path / "run.pt")
    other = ImageRun(run.config, "mixup", run.images, CPU, {"data": "cifar10"})
    other.resume(tmp_path / "run.pt")
    assert other.training.step == 1


def test_points_of_a_run_of_far_less_than_an_epoch_are_apart():
    curve, scores = Curve(3, 20_000), {"accuracy": 0.1, "loss": 2.0}
    for step in (1, 2, 3):
        curve.losses.append(2.0)
        curve.add(step, scores)
    assert [point["epoch"] for point in curve.points] == [0.00005, 0.0001, 0.00015]
    longer = Curve(70, 700)
    longer.losses.append(2.0)
    longer.add(11, scores)
    assert longer.points[0]["epoch"] == 0.016  # as it always was


# Which images


def test_a_part_has_the_shares_of_the_classes_and_is_part_of_every_larger_one():
    labels = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)[torch.randperm(100)]
    for count in (10, 20, 50, 100):
        chosen = stratified(labels, count)
        assert torch.equal(chosen, chosen.unique())
        assert labels[chosen].bincount().tolist() == [round(0.6 * count), round(0.3 * count), count // 10]
        assert set(chosen.tolist()) <= set(stratified(labels, min(100, 2 * count)).tolist())
    assert torch.equal(stratified(labels, 100), torch.arange(100))
    for count in range(1, 100):
        shares = labels[stratified(labels, count)].bincount(minlength=3)
        assert (shares - torch.tensor([0.6, 0.3, 0.1]) * count).abs().max() <= 1


def test_the_same_images_are_taken_whatever_the_global_generator():
    labels = torch.arange(100) % 10
    torch.manual_seed(0)
    first = stratified(labels, 30)
    torch.manual_seed(1)
    assert torch.equal(stratified(labels, 30), first)


def test_images_keep_their_labels():
    images = made_up()
    images.train_x[:, 0, 0, 0] = np.arange(200)
    chosen = study_images(images, 40)
    assert len(chosen.train_x) == 40
    places = chosen.train_x[:, 0, 0, 0].long()
    assert torch.equal(chosen.train_y, torch.from_numpy(images.train_y)[places])
    with pytest.raises(MixError, match="at most the 200 training images"):
        study_images(images, 201)


@pytest.mark.parametrize(
    ("subset", "count"), [(None, 200), ("10%", 20), ("100%", 200), ("7", 7), ("0.5%", 1), ("12.5%", 25)]
)
def test_a_subset_is_a_number_or_a_share(subset, count):
    assert count_of(subset, 200) == count


@pytest.mark.parametrize("subset", ["0", "201", "101%", "0%", "-5", "many", "%", "nan%", "1e400%", "5.5"])
def test_what_is_no_subset_is_one_line(subset):
    with pytest.raises(MixError, match=rf"^--subset takes .* at most 200, got '{subset}'$"):
        count_of(subset, 200)


@pytest.mark.parametrize(("count", "total"), [(3, 10), (10, 10), (20, 10), (7, 2000)])
def test_a_glance_is_spread_over_all(count, total):
    places = spread_over(count, total)
    assert len(places.unique()) == min(count, total)
    assert int(places[0]) == 0
    assert int(places[-1]) < total
    assert int(places.diff().max() - places.diff().min()) <= 1
