"""``batchmix`` with made-up images in the place of CIFAR-10; test_torchrun.py starts it."""

from __future__ import annotations

import sys

from launching import kill_at_step

from batchmix.cli import main
from batchmix.data import Cifar10
from batchmix.recipe import run as recipe_run
from batchmix.recipe.training import Training

if __name__ == "__main__":
    from tiny_runs import made_up  # from tests/recipe, which pytest need not have on its path here

    train_x, train_y = (part.numpy() for part in made_up(200))
    test_x, test_y = (part.numpy() for part in made_up(100, seed=1))
    recipe_run.load_cifar10 = lambda *_, **__: Cifar10(train_x, train_y, test_x, test_y)
    recipe_run.busy_share = lambda: 0.0
    kill_at_step(Training, "_one_step")
    raise SystemExit(main(sys.argv[1:]))
