"""Imports point one way. The checker reads source text; a second test shows that it can fail."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parents[2] / "src"

# From the ground up: a layer may import any layer before it. `mixer` lies under `methods` because a method
# is a class that derives from Mixer; ARCHITECTURE.md says why.
LAYERS = (
    "kernels",
    "core",
    "mixer",
    "choice",
    "manifold",
    "regmixup",
    "snapmix",
    "methods",
    "cards",
    "loaders",
    "collate",
    "adapters",
    "scale",
    "recipe",
    "finetune",
    "study",
    "bench",
    "cli",
)
OPEN = {"errors", "files", "lock", "_version"}  # to all
ROOT = "__init__"  # batchmix itself, the public names
SECOND_NAMES = {"pytorch_lightning": "lightning"}  # one framework of two names: one adapter of two names

MAY_IMPORT: dict[str, set[str]] = {layer: set(LAYERS[:i]) for i, layer in enumerate(LAYERS)}
for _user in ("adapters", "recipe", "finetune", "study", "bench", "cli"):
    MAY_IMPORT[_user] |= {ROOT}
for _user in ("recipe", "finetune", "study", "bench", "cli"):
    MAY_IMPORT[_user] |= {"data", "pictures"}
MAY_IMPORT |= {
    ROOT: {"kernels", "core", "mixer", "choice", "manifold", "regmixup", "snapmix", "methods", "collate"},
    "data": set(),
    # Names for annotations, from wherever they are
    "typing": {"kernels", "core", "mixer", "choice", "manifold", "snapmix", "methods"},
    "pictures": {"core"},
    "__main__": {"cli"},
    "errors": set(),
    "files": set(),
    "lock": set(),
    "_version": set(),
}


def imported(tree: ast.Module, package: str) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of everything imported, wherever in the file the import stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")
                above = above[: max(0, len(above) - node.level + 1)]
                base = ".".join([*above, base] if base else above)
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            name = node.args[0].value
            if called in ("import_module", "__import__") and isinstance(name, str):
                yield node.lineno, package + name if name.startswith(".") else name


def violations(source: str, module: str) -> list[str]:
    """Every import in ``source`` that the layers forbid.

    Args:
        source: Text of the module.
        module: Its dotted name; a package's own file ends in ``.__init__``.

    Returns:
        One line for each, "module:line: what is wrong"; empty where all is well.
    """
    unit = module.split(".")[1]
    if unit not in MAY_IMPORT:
        return [f"{module}:1: {unit} has no place in the layers; give it one in {Path(__file__).name}"]

    found, outside = [], set()
    for line, name in imported(ast.parse(source), module.rpartition(".")[0]):
        where, parts = f"{module}:{line}:", name.split(".")
        if parts[0] != "batchmix":
            outside.add(parts[0])
            if unit == "core" and parts[0] != "torch" and parts[0] not in sys.stdlib_module_names:
                found.append(f"{where} core imports torch and the standard library only, not {parts[0]}")
            continue
        target = parts[1] if len(parts) > 1 and parts[1] in MAY_IMPORT else ROOT
        if target != unit and target not in MAY_IMPORT[unit] | OPEN:
            found.append(f"{where} {unit} may not import {name}")
        elif target == unit and unit in ("methods", "adapters"):
            own = module.split(".")[2]
            same = [SECOND_NAMES.get(own)] if unit == "adapters" else []
            if own != "__init__" and not {*parts[2:3]} & {own, *same}:
                found.append(f"{where} {unit} never import one another: {name}")

    if unit == "adapters" and not module.endswith("adapters.__init__"):
        frameworks = {SECOND_NAMES.get(name, name) for name in outside}
        frameworks -= {*sys.stdlib_module_names, "torch"}
        if len(frameworks) > 1:
            found.append(f"{module}:1: an adapter imports one framework, not {', '.join(sorted(frameworks))}")
        if not frameworks:
            found.append(f"{module}:1: an adapter imports one framework, and this one imports none")
    return found


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(SRC).with_suffix("").parts)


MODULES = sorted((SRC / "batchmix").rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_point_one_way(path: Path) -> None:
    assert violations(path.read_text(encoding="utf-8"), module_name(path)) == []


def test_the_modules_are_found() -> None:
    names = {module_name(path) for path in MODULES}
    assert {"batchmix.__init__", "batchmix.errors", "batchmix.core.plan"} <= names


@pytest.mark.parametrize(
    ("module", "source", "expected"),
    [
        # one arrow up from every layer
        ("kernels.cpu", "from batchmix.core.plan import MixPlan", "kernels may not import batchmix.core"),
        ("core.plan", "from batchmix.mixer import Mixer", "core may not import batchmix.mixer"),
        ("mixer", "import batchmix.methods.mixup", "mixer may not import batchmix.methods"),
        ("collate", "from batchmix.adapters import timm", "collate may not import batchmix.adapters"),
        ("methods.mixup", "from batchmix.adapters import plain", "methods may not import batchmix.adapters"),
        ("adapters.a", "import fw, batchmix.recipe", "adapters may not import batchmix.recipe"),
        ("recipe.train", "from batchmix.study import pairs", "recipe may not import batchmix.study"),
        ("study.pairs", "from batchmix import cli", "study may not import batchmix.cli"),
        ("recipe.train", "import batchmix.__main__", "recipe may not import batchmix.__main__"),
        # open to all means that they stand on nothing of ours
        ("errors", "from batchmix.core import plan", "errors may not import batchmix.core"),
        ("_version", "import batchmix.core", "_version may not import batchmix.core"),
        # the public names
        ("__init__", "from batchmix.recipe import train", "__init__ may not import batchmix.recipe"),
        ("__init__", "import batchmix.data", "__init__ may not import batchmix.data"),
        ("core.plan", "from batchmix import MixPlan", "core may not import batchmix.MixPlan"),
        ("methods.mixup", "import batchmix as bm", "methods may not import batchmix"),
        # the leaves
        ("data.cifar", "from batchmix.core import plan", "data may not import batchmix.core"),
        ("data.cifar", "import batchmix", "data may not import batchmix"),
        ("adapters.a", "import fw\nfrom batchmix import data", "adapters may not import batchmix.data"),
        ("mixer", "import batchmix.pictures", "mixer may not import batchmix.pictures"),
        ("pictures", "from batchmix.methods import mixup", "pictures may not import batchmix.methods"),
        ("pictures", "from batchmix.data import cifar", "pictures may not import batchmix.data"),
        # siblings
        ("methods.cutmix", "from batchmix.methods.mixup import Mixup", "never import one another"),
        ("methods.cutmix", "from batchmix.methods import Mixup", "never import one another"),
        ("methods.cutmix", "from . import mixup", "never import one another"),
        ("adapters.a", "import fw\nfrom .b import step", "never import one another"),
        ("adapters.lightning", "import fw\nfrom batchmix.adapters.pytorch_lightning import f", "one another"),
        ("methods.pytorch_lightning", "from batchmix.methods import lightning", "one another"),
        # third parties
        ("core.plan", "import numpy as np", "torch and the standard library only, not numpy"),
        ("adapters.a", "import fastai.callback\nimport lightning", "not fastai, lightning"),
        ("adapters.lightning", "import pytorch_lightning, lightning, fastai", "not fastai, lightning"),
        ("adapters.a", "import torch\nfrom batchmix.mixer import Mixer", "this one imports none"),
        # wherever the import stands, and however it is written
        ("core.plan", "from ..mixer import Mixer", "core.plan:1: core may not import batchmix.mixer"),
        ("core.plan", "from .. import mixer", "core may not import batchmix.mixer"),
        ("core.__init__", "from ..cli import main", "core may not import batchmix.cli"),
        ("core.plan", "def f():\n    from batchmix import cli", "plan:2: core may not import batchmix.cli"),
        (
            "core.plan",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from batchmix.mixer import Mixer",
            "plan:3: core may not import batchmix.mixer",
        ),
        (
            "core.plan",
            "import importlib\nimportlib.import_module('batchmix.cli')",
            "core may not import batchmix.cli",
        ),
        # a module nobody has placed
        ("helpers", "", "helpers has no place in the layers"),
    ],
)
def test_the_checker_can_fail(module: str, source: str, expected: str) -> None:
    found = violations(source, f"batchmix.{module}")
    assert len(found) == 1
    assert expected in found[0]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("core.plan", "import math\nimport torch.nn.functional as F\nfrom batchmix.kernels import cpu"),
        ("core.__init__", "from .plan import MixPlan\nfrom batchmix.core import losses"),
        ("methods.mixup", "from batchmix.mixer import Mixer\nfrom batchmix.core import sampling"),
        ("methods.__init__", "from batchmix.methods.mixup import Mixup"),
        ("collate", "from batchmix.mixer import Mixer\nfrom batchmix.core.plan import describe"),
        ("adapters.timm", "import timm\nfrom batchmix.collate import MixCollate"),
        ("adapters.lightning", "import lightning, pytorch_lightning"),
        ("adapters.pytorch_lightning", "import pytorch_lightning\nfrom batchmix.adapters.lightning import f"),
        ("methods.tokens.draw", "from batchmix.methods.tokens.boxes import box"),
        (
            "adapters.fastai",
            "import torch, fastai\nfrom batchmix.methods import Mixup\nimport batchmix as bm",
        ),
        (
            "recipe.train",
            "import batchmix as bm\nfrom batchmix.data import cifar\nfrom batchmix import pictures",
        ),
        ("cli.__init__", "from batchmix import __version__, errors\nfrom batchmix.kernels import cpu"),
        ("data.cifar", "import numpy\nfrom batchmix.errors import DataError\nfrom . import sources"),
        ("pictures", "import matplotlib\nfrom batchmix.core import blending"),
        ("__init__", "from batchmix._version import __version__\nfrom batchmix.methods import Mixup"),
        ("__main__", "from batchmix.cli import main"),
    ],
)
def test_the_checker_lets_the_rest_pass(module: str, source: str) -> None:
    assert violations(source, f"batchmix.{module}") == []
