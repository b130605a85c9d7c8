"""Without its framework an adapter says how to install it; this holds for every file in batchmix/adapters."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import batchmix.adapters

HERE = Path(batchmix.adapters.__file__).parent
ROOT = Path(__file__).resolve().parents[2]
ADAPTERS = sorted(path.stem for path in HERE.glob("*.py") if path.stem != "__init__")

IMPORT_WITHOUT = """
import importlib, sys
for name, packages in {missing!r}.items():
    sys.modules.update(dict.fromkeys(packages))  # None in sys.modules is a module that is not there
    try:
        importlib.import_module(f"batchmix.adapters.{{name}}")
    except ModuleNotFoundError as error:
        print(error)
    else:
        print("imported")
    for package in packages:
        del sys.modules[package]
"""


def frameworks(source: str) -> set[str]:
    """The packages that are neither torch nor batchmix nor Python's own."""
    imported = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            imported.add(node.module)
    return (
        {name.partition(".")[0] for name in imported} - {"torch", "batchmix"} - set(sys.stdlib_module_names)
    )


def needed_by(name: str) -> set[str]:
    """The packages of the adapter ``name``."""
    return frameworks((HERE / f"{name}.py").read_text(encoding="utf-8"))


def extras() -> set[str]:
    """Names under [project.optional-dependencies]."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = text.partition("[project.optional-dependencies]\n")[2].partition("\n[")[0]
    return {line.partition("=")[0].strip() for line in section.splitlines() if " = [" in line}


def run(code: str) -> str:
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def messages_without(missing: dict[str, set[str]]) -> dict[str, str]:
    """What importing each adapter says where its packages in ``missing`` are not installed."""
    return dict(zip(missing, run(IMPORT_WITHOUT.format(missing=missing)).splitlines(), strict=True))


@pytest.fixture(scope="module")
def said() -> dict[str, str]:
    """The message of every adapter without its framework, all from one process."""
    return messages_without({name: needed_by(name) for name in ADAPTERS})


@pytest.mark.parametrize("name", ADAPTERS)
def test_the_command_that_installs_a_missing_framework_is_named(name: str, said: dict[str, str]) -> None:
    extra = name.replace("_", "-")  # as packages are named
    assert said[name].startswith("this needs ")
    assert said[name].endswith(f"pip install 'batchmix[{extra}]'")
    assert extra in extras()


def test_the_adapters_and_extras_are_found() -> None:
    assert {"ignite", "skorch", "keras", "torchmetrics"} <= set(ADAPTERS)
    assert {"cli", "ignite", "all"} <= extras()
    assert frameworks("import os, torch\nfrom fw.part import thing\nfrom . import x") == {"fw"}


def test_a_framework_that_is_there_is_not_called_missing() -> None:
    assert messages_without({"skorch": {"fastbook"}}) == {"skorch": "imported"}


def test_a_backend_of_keras_that_is_missing_is_not_called_keras() -> None:
    ask = "import os; os.environ['KERAS_BACKEND'] = 'tensorflow'\n"
    message = run(ask + IMPORT_WITHOUT.format(missing={"keras": {"tensorflow"}}))
    assert message.startswith("this needs tensorflow, ")
    assert "KERAS_BACKEND=torch" in message
    assert "pip install" not in message


def test_the_package_of_adapters_imports_no_framework() -> None:
    packages = sorted(set().union(*map(needed_by, ADAPTERS)))
    assert run(f"import sys, batchmix.adapters; print(sorted(set({packages}) & set(sys.modules)))") == "[]"
