"""A task of the user's own: any loss, and the same order, weights and draws for all arms of a seed."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, RandomSampler, TensorDataset

import batchmix as bm
from batchmix.errors import MixError
from batchmix.study.curve import POINTS
from batchmix.study.plan import Run
from batchmix.study.seeding import OwnRandomness, derived_seed, seed_everything, seed_loader
from batchmix.study.task import Task, find_task, make
from batchmix.study.task_runs import TaskRun

CPU = torch.device("cpu")
ARMS = ("none", "mixup", "cutmix", "choice", "two-loaders")


class Augmented(Dataset):
    """Images that are changed by each of the global generators whenever they are read."""

    def __init__(self, count=60):
        generator = torch.Generator().manual_seed(5)
        self.x = torch.rand(count, 1, 6, 6, generator=generator)
        self.y = (self.x.mean((1, 2, 3)) > 0.5).long() + 2 * (self.x[:, 0, 0, 0] > 0.5).long()

    def __len__(self):
        return len(self.y)

    def __getitem__(self, place):
        noise = torch.rand(1, 6, 6) + np.random.rand() + random.random()  # noqa: NPY002
        return self.x[place] + 0.01 * noise, self.y[place]


def loader_of(kind, data):
    if kind == "global generator":
        return DataLoader(data, batch_size=10, shuffle=True)
    if kind == "its own generator":
        return DataLoader(data, batch_size=10, shuffle=True, generator=torch.Generator().manual_seed(4))
    if kind == "its sampler's generator":
        sampler = RandomSampler(data, replacement=True, generator=torch.Generator())
        return DataLoader(data, batch_size=10, sampler=sampler)
    return DataLoader(data, batch_size=10)


LOADERS = ("global generator", "its own generator", "its sampler's generator", "no order of chance")


def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 4))


def task(kind="global generator", **changes):
    data = Augmented()
    parts = {
        "model": net(),
        "train_loader": loader_of(kind, data),
        "test_loader": DataLoader(data, batch_size=25),
        "loss": nn.CrossEntropyLoss(),
    }
    return Task(**{**parts, **changes})


def start(arm="mixup", seed=0, epochs=2.0, new_task=task):
    def seeded():
        seed_everything(seed)
        return new_task()

    return TaskRun(seeded, Run(arm, seed, 60, epochs), CPU)


def finish(run):
    for _ in run.run():
        pass
    return run.finish()


def weights(run):
    return {name: tensor.clone() for name, tensor in run.task.model.state_dict().items()}


def identical(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# Paired


@pytest.fixture
def seen(monkeypatch):
    """The batches of every run as they come from the loader, before they are mixed."""
    calls = []
    plain = TaskRun._one_step

    def spy(self, batch, rates):
        calls[-1].append(batch)
        return plain(self, batch, rates)

    monkeypatch.setattr(TaskRun, "_one_step", spy)
    return calls


@pytest.mark.parametrize("kind", LOADERS)
def test_all_arms_of_a_seed_see_the_same_batches_from_the_same_weights(seen, kind):
    runs = [start(arm, seed=3, new_task=lambda: task(kind)) for arm in ARMS]
    assert all(identical(weights(run), weights(runs[0])) for run in runs)
    for run in runs:
        seen.append([])
        finish(run)
        torch.rand(7)  # what was drawn before does not matter
    assert len(seen[0]) == 12
    for batches in zip(*seen, strict=True):
        for x, y in batches[1:]:
            assert torch.equal(x, batches[0][0])
            assert torch.equal(y, batches[0][1])
    assert len({tuple(weights(run)["1.weight"].flatten().tolist()) for run in runs}) == len(ARMS)


@pytest.mark.parametrize("kind", LOADERS[:3])
def test_epochs_and_seeds_come_in_other_orders(seen, kind):
    for seed in (0, 1):
        seen.append([])
        finish(start("none", seed, new_task=lambda: task(kind)))
    first, second = ([y.tolist() for _, y in batches] for batches in seen)
    assert first[:6] != first[6:]
    assert first != second


def test_a_run_is_the_same_when_it_is_made_again():
    for arm in ARMS:
        first, second = start(arm), start(arm)
        one, two = finish(first), finish(second)
        assert one["curve"] == two["curve"]
        assert identical(weights(first), weights(second))


def test_without_mixing_it_is_the_plain_loop():
    run = start("none", seed=2, epochs=3)
    finish(run)
    seed_everything(2)
    plain = task()
    optimizer = torch.optim.AdamW(plain.model.parameters(), lr=1e-3)
    for epoch in range(3):
        seed_loader(plain.train_loader, 2, epoch)
        for x, y in plain.train_loader:
            loss = F.cross_entropy(plain.model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert identical(weights(run), plain.model.state_dict())


def test_mixing_is_that_of_the_method(seen):
    seen.append([])
    run = start(
        "mixup:alpha=1",
        seed=2,
        epochs=1,
        new_task=lambda: task(model=nn.Sequential(nn.Flatten(), nn.Linear(36, 4))),
    )
    before = nn.Sequential(nn.Flatten(), nn.Linear(36, 4))
    before.load_state_dict(weights(run))
    list(run.run())
    mixup, optimizer = bm.Mixup(1.0, seed=2), torch.optim.AdamW(before.parameters(), lr=1e-3)
    for x, y in seen[0]:
        mixed, target = mixup(x, y)
        optimizer.zero_grad()
        F.cross_entropy(before(mixed), target).backward()
        optimizer.step()
    assert identical(weights(run), before.state_dict())


def test_the_second_of_two_loaders_has_an_order_of_its_own(seen):
    seen.append([])
    run = start("two-loaders", new_task=lambda: task("no order of chance"))
    first = next(iter(run.task.train_loader))[1]
    assert torch.equal(run.mixer.second(0)[1], first)  # a loader without an order stays one
    shuffled = start("two-loaders")
    finish(shuffled)
    again = start("two-loaders")
    assert not torch.equal(again.mixer.second(0)[1], seen[0][0][1])


# Losses and scores


class Focal(nn.Module):
    def forward(self, logits, labels):
        own = logits.log_softmax(1).gather(1, labels[:, None]).squeeze(1)
        return -((1 - own.exp()) ** 2) * own  # one a sample


@pytest.mark.parametrize(
    "loss",
    [nn.CrossEntropyLoss(label_smoothing=0.1), Focal(), F.cross_entropy],
    ids=["module", "own", "function"],
)
@pytest.mark.parametrize("arm", ["none", "mixup", "two-loaders"])
def test_any_loss_goes(loss, arm):
    scores = finish(start(arm, epochs=10, new_task=lambda: task(loss=loss)))
    assert len(scores["curve"]) == POINTS
    assert scores["curve"][-1]["train_loss"] < scores["curve"][0]["train_loss"]
    assert scores["curve"][-1]["accuracy"] == scores["accuracy"]
    assert scores["images_per_second"] > 0
    assert sum(scores["reliability"]["count"]) == 60


def test_a_loss_that_is_one_number_cannot_be_mixed_by_sample_and_says_so():
    def total(logits, labels):
        return F.cross_entropy(logits, labels)

    finish(start("mixup:per=batch", new_task=lambda: task(loss=total)))
    with pytest.raises(MixError, match="per='batch'"):
        finish(start("mixup", new_task=lambda: task(loss=total)))


def regression():
    data = Augmented()
    data.y = data.x.mean((1, 2, 3))[:, None]
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 1))
    return Task(model, DataLoader(data, 10, shuffle=True), DataLoader(data, 25), nn.MSELoss())


def test_regression_has_a_loss_and_no_accuracy():
    run = start("mixup", new_task=regression)
    scores = finish(run)
    assert scores["accuracy"] is scores["ece"] is scores["reliability"] is None
    losses = []
    run._testing = OwnRandomness(0)
    with OwnRandomness(0)(), torch.inference_mode():
        for x, y in run.task.test_loader:
            losses.append(F.mse_loss(run.task.model.eval()(x), y, reduction="none"))
    assert run._scores(None)["loss"] == pytest.approx(torch.cat(losses).mean().item(), rel=1e-5)


def test_the_rate_follows_the_schedule():
    rates = []

    def scheduled():
        made = task(schedule=lambda share: 1 - share)
        step = made.optimizer.step
        made.optimizer.step = lambda: (rates.append(made.optimizer.param_groups[0]["lr"]), step())
        return made

    finish(start(new_task=scheduled))
    assert rates == pytest.approx([1e-3 * (1 - step / 12) for step in range(12)])


def test_batches_may_hold_more_than_a_tensor():
    data = [({"a": torch.rand(10, 3), "b": torch.rand(10, 3)}, torch.arange(10) % 2)] * 4

    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(3, 2)

        def forward(self, x):
            return self.head(x["a"] + x["b"])

    assert finish(start(new_task=lambda: Task(Sum(), data, data, nn.CrossEntropyLoss())))["accuracy"] >= 0


def test_a_stop_is_after_a_step():
    run = start(epochs=5)
    for progress in run.run(lambda: run.step == 3):
        last = progress
    assert (last.step, last.steps, run.done) == (3, 30, False)


# What is no task


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model": 3}, "^model takes a torch.nn.Module"),
        ({"train_loader": []}, "^train_loader takes"),
        ({"train_loader": iter([1])}, "^train_loader takes"),
        ({"test_loader": 5}, "^test_loader takes"),
        ({"loss": "mse"}, "^loss takes"),
        ({"epochs": 0}, "^epochs takes"),
    ],
)
def test_a_part_that_is_none_is_named(changes, named):
    with pytest.raises(MixError, match=named):
        task(**changes)


def test_batches_that_are_no_pairs_are_named():
    with pytest.raises(MixError, match=r"batches \(x, y\), got a dict"):
        finish(start(new_task=lambda: task(train_loader=[{"x": 1}])))


def test_an_empty_epoch_does_not_go_on_for_ever():
    class Empty(list):
        def __iter__(self):
            return iter(())

    with pytest.raises(MixError, match="train_loader takes"):
        finish(start(new_task=lambda: task(train_loader=Empty([1]))))
    with pytest.raises(MixError, match="test_loader takes"):
        finish(start(new_task=lambda: task(test_loader=Empty([1]))))


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module of the user's in the current folder."""
    text = """
import torch
from torch.utils.data import DataLoader, TensorDataset
from batchmix.study import Task

def make_task(seed):
    data = TensorDataset(torch.rand(20, 3), torch.arange(20) % 2)
    return Task(torch.nn.Linear(3, 2), DataLoader(data, 5), DataLoader(data, 5), torch.nn.CrossEntropyLoss())

def make_nothing(seed):
    return None
"""
    name = f"users_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(text)
    (tmp_path / f"{name}_broken.py").write_text("import a_module_that_is_not_there")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    return name


def test_the_function_is_found_in_the_current_folder_and_called_under_a_fixed_seed(module):
    first, second, other = (make(f"{module}:make_task", seed).model.weight for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert make(f"{module}:make_task", 0).images == 20


def test_what_is_not_found_or_no_task_is_one_line(module):
    for name, said in (
        ("no_such_module_at_all:make", "found no module"),
        (":make", "^task takes MODULE:FUNCTION, got ':make'$"),
        (".near:make", "^task takes MODULE:FUNCTION, got '.near:make'$"),
        (f"{module}:nothing", "found no 'nothing'"),
        (f"{module}:make_nothing", "returns a batchmix.study.Task, got NoneType"),
    ):
        with pytest.raises(MixError, match=said):
            make(name, 0)
    with pytest.raises(ModuleNotFoundError, match="a_module_that_is_not_there"):
        find_task(f"{module}_broken:make")


# Generators


@pytest.mark.usefixtures("unmoved_global_rng")
def test_own_randomness_leaves_the_global_generators_where_they_were():
    own = OwnRandomness(3)
    with own():
        first = torch.rand(2), np.random.rand(), random.random()  # noqa: NPY002
    with own():
        second = torch.rand(2)
    with OwnRandomness(3)():
        again = torch.rand(2), np.random.rand(), random.random()  # noqa: NPY002
    assert torch.equal(first[0], again[0])
    assert first[1:] == again[1:]
    assert not torch.equal(first[0], second)


def test_samplers_are_told_the_epoch():
    class Sampler(RandomSampler):
        epochs = []  # noqa: RUF012

        def set_epoch(self, epoch):
            self.epochs.append(epoch)

    data = TensorDataset(torch.rand(4, 1))
    loader = DataLoader(data, sampler=Sampler(data))
    seed_loader(loader, 0, 7)
    assert set(Sampler.epochs) == {7}
    assert derived_seed(0, "a") != derived_seed(0, "b") != derived_seed(1, "b")
