"""The scripts of ``benchmarks/`` as modules: they are no part of the package."""

from __future__ import annotations

import importlib.util
import runpy
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def load(name: str) -> ModuleType:
    """The script of a name."""
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for the module of their fields
    spec.loader.exec_module(module)
    return module


def run(name: str, *words: str | Path) -> int:
    """Run a script with these words as the command line does, and give its exit status.

    In this process, which has loaded torch already: a process for every wrong word takes seconds.
    """
    path = str(BENCHMARKS / f"{name}.py")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [path, *map(str, words)])
        try:
            runpy.run_path(path, run_name="__main__")
        except SystemExit as ended:
            return 0 if ended.code is None else int(ended.code)
    return 0
