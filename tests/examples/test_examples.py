"""Every example runs as a user runs it, trains on real images, and reaches the accuracy that it states."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from batchmix.data import load_cifar10

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def stated(source: str) -> float:
    """The accuracy, in per cent, that the docstring promises: "... reaches 90 % ..."."""
    found = re.search(r"reaches (\d+) %", source)
    assert found, "the docstring of an example says what it reaches: 'reaches 90 %'"
    return float(found[1])


def printed(output: str) -> float:
    """The accuracy, in per cent, of the last line: "accuracy 93.4 %"."""
    found = re.search(r"accuracy (\d+\.\d) %\s*\Z", output)
    assert found, f"an example ends with a line such as 'accuracy 93.4 %', got: {output[-500:]}"
    return float(found[1])


@pytest.fixture(scope="session")
def cifar10() -> None:
    """The real images, fetched once and kept in the cache."""
    load_cifar10()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
@pytest.mark.usefixtures("cifar10")
def test_an_example_reaches_what_it_states(path: Path, tmp_path: Path) -> None:
    shim = str(ROOT / "tests" / "shim")
    ran = subprocess.run(
        [sys.executable, str(path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": shim},
        timeout=280,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert printed(ran.stdout) >= stated(path.read_text(encoding="utf-8"))
    assert not list(tmp_path.iterdir()), "an example leaves nothing behind"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_can_be_read_at_a_glance(path: Path) -> None:
    assert 30 <= len(path.read_text(encoding="utf-8").splitlines()) <= 60


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_says_how_to_install_and_run_it(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    wanted = (
        r"mixup [^\n]+\.\n\n"
        r"pip install -e '\.\[cli(,[a-z-]+)?\]'\n"
        rf"python examples/{path.name}    # reaches \d\d % in half a minute on two cores(\ntorchrun .+)?"
    )
    assert re.fullmatch(wanted, docstring)


def test_what_is_stated_and_printed_is_read() -> None:
    assert stated('"""Trains a net that reaches 90 % in 20 s."""') == 90
    assert printed("epoch 1\naccuracy 93.4 %\n") == 93.4
    for wrong in ("accuracy 93.4 %\nbye\n", "nothing", "accuracy nan %"):
        with pytest.raises(AssertionError):
            printed(wrong)
