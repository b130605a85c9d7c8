"""A task of the user's own: model, loaders and loss, compared as the built-in recipe is."""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from batchmix.errors import MixError
from batchmix.study.seeding import seed_everything


@dataclass
class Task:
    """What ``batchmix compare my_module:make_task`` trains.

    ``make_task(seed)`` returns one. It is called anew for every run, with the global generators of Python,
    NumPy and torch seeded, so that the runs of a seed start from the same weights; ``train_loader`` comes in
    the same order in all of them.

    Args:
        model: Called as ``model(x)``.
        train_loader: Of batches (x, y), with a length; a ``DataLoader`` as you have it.
        test_loader: Of batches (x, y), in a fixed order.
        loss: Called as ``loss(model(x), y)``, of mixed targets through ``mixed_loss``: any will do that gives
            one value a sample or has a ``reduction``, as torch's losses do.
        optimizer: Of the model's parameters; ``AdamW`` with a rate of 0.001 if left out.
        epochs: Passes over ``train_loader`` where ``--epochs`` does not say.
        schedule: Factor of every learning rate as a function of the share of the training that is done, 0
            to 1; 1 throughout if left out.

    Raises:
        MixError: If a part is not of this form.

    Example: (``my_module.py``)
        >>> from torch.utils.data import DataLoader, TensorDataset
        >>> def make_task(seed):
        ...     x = torch.rand(200, 4)
        ...     data = TensorDataset(x, (x[:, 0] > x[:, 1]).long())
        ...     return Task(
        ...         model=nn.Linear(4, 2),
        ...         train_loader=DataLoader(data, batch_size=20, shuffle=True),
        ...         test_loader=DataLoader(data, batch_size=100),
        ...         loss=nn.CrossEntropyLoss(),
        ...         epochs=3,
        ...     )
        >>> make_task(0).epochs
        3
    """

    model: nn.Module
    train_loader: Iterable[Any]
    test_loader: Iterable[Any]
    loss: Callable[[Any, Any], Tensor]
    optimizer: torch.optim.Optimizer | None = None
    epochs: float = 10
    schedule: Callable[[float], float] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.model, nn.Module):
            raise MixError.of("model", self.model, "a torch.nn.Module")
        for name in ("train_loader", "test_loader"):
            loader = getattr(self, name)
            if not isinstance(loader, Iterable) or _length(loader) < 1:
                raise MixError.of(name, loader, "an iterable of batches with a length of 1 or more")
        if not callable(self.loss):
            raise MixError.of("loss", self.loss, "a callable of output and target")
        if not self.epochs > 0:
            raise MixError.of("epochs", self.epochs, "a number > 0")
        if self.optimizer is None:
            self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3)

    @property
    def images(self) -> int:
        """How many training samples there are."""
        return _length(getattr(self.train_loader, "dataset", None)) or self.steps_per_epoch

    @property
    def steps_per_epoch(self) -> int:
        """How many batches an epoch has."""
        return _length(self.train_loader)


def _length(loader: Any) -> int:
    """The length, 0 where there is none: a DataLoader of an endless data set has the method and no length."""
    try:
        return len(loader)
    except TypeError:
        return 0


def find_task(name: str) -> Callable[[int], Task]:
    """The function ``"module:function"``, imported with the current folder on the path.

    Raises:
        MixError: If there is no such module or function.
    """
    module_name, _, function_name = name.partition(":")
    if not module_name or module_name.startswith("."):
        raise MixError.of("task", name, "MODULE:FUNCTION")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name != module_name.partition(".")[0]:
            raise
        raise MixError(f"found no module {module_name!r} for {name}, in this folder or installed") from None
    function = getattr(module, function_name, None)
    if not callable(function):
        raise MixError(f"the task {name} takes a function of {module_name}, found no {function_name!r} there")
    made: Callable[[int], Task] = function
    return made


def digest(name: str) -> str | None:
    """A hash of the module of ``"module:function"``, None where it is no file.

    What that module imports is not in it.
    """
    module = importlib.import_module(name.partition(":")[0])
    path = Path(getattr(module, "__file__", None) or "")
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def make(name: str, seed: int) -> Task:
    """Call the user's function under a fixed seed.

    Raises:
        MixError: If it does not return a ``Task``.
    """
    function = find_task(name)
    seed_everything(seed)
    task = function(seed)
    if not isinstance(task, Task):
        raise MixError(f"{name} takes a seed and returns a batchmix.study.Task, got {type(task).__name__}")
    return task
