"""Every public name stands on one page of docs/api, and every example on its page.

What is public is read from the files: a framework need not be installed, and neither has Sphinx to be.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
from torch import Tensor, nn

import batchmix.typing
from batchmix.typing import Kind

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"
PAGES = sorted((ROOT / "docs" / "api").glob("*.rst"))
PACKAGES = ("__init__", "typing", "data/__init__", "pictures/__init__", "study/__init__")
DIRECTIVE = re.compile(r"^\.\. (?P<kind>[a-z:]+):: (?P<name>[\w.]+)", re.MULTILINE)
CANONICAL = re.compile(r"^\.\. py:type:: (\w+)\n +:canonical: (.+)$", re.MULTILINE)
NAMING = {"autoclass", "autodata", "autoexception", "autofunction", "py:data", "py:type"}


def public_files() -> list[Path]:
    adapters = (SOURCE / "batchmix" / "adapters").glob("[!_]*.py")
    return [*(SOURCE / "batchmix" / f"{name}.py" for name in PACKAGES), *sorted(adapters)]


def public_names(path: Path, source: Path = SOURCE) -> list[str]:
    """What the ``__all__`` of a file holds, as ``batchmix.Mixup``."""
    parts = path.relative_to(source).with_suffix("").parts
    module = ".".join(part for part in parts if part != "__init__")
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return [f"{module}.{name}" for name in ast.literal_eval(node.value)]
    raise AssertionError(f"{module} has no __all__")


def names_on(page: str) -> list[str]:
    """The names that a page describes, each with the module that was named last above it."""
    module, names = "", []
    for directive in DIRECTIVE.finditer(page):
        kind, name = directive["kind"], directive["name"]
        if kind in ("automodule", "currentmodule"):
            module = name
        elif kind in NAMING:
            names.append(name if name.startswith("batchmix.") else f"{module}.{name}")
    return names


def differences(public: list[str], described: list[str]) -> list[str]:
    counts = Counter(described)
    missing = [f"on no page: {name}" for name in public if name not in counts]
    repeated = [f"{count} times: {name}" for name, count in counts.items() if count > 1]
    return missing + repeated + [f"not public: {name}" for name in counts if name not in public]


def test_every_public_name_is_on_one_page() -> None:
    public = [name for path in public_files() for name in public_names(path)]
    described = [name for page in PAGES for name in names_on(page.read_text(encoding="utf-8"))]
    assert (
        differences([*public, "batchmix.errors.DataError"], described) == []
    )  # which `data` and `study` raise


def test_differences_are_caught() -> None:
    page = """
.. currentmodule:: batchmix

.. autoclass:: Mixup
   :members:
.. autofunction:: blend
.. autofunction:: blend
.. py:data:: batchmix.errors.DataError

.. automodule:: batchmix.adapters.timm

.. autoclass:: Mixup
"""
    assert differences(["batchmix.Mixup", "batchmix.blend", "batchmix.ramp"], names_on(page)) == [
        "on no page: batchmix.ramp",
        "2 times: batchmix.blend",
        "not public: batchmix.errors.DataError",
        "not public: batchmix.adapters.timm.Mixup",
    ]


def test_public_names_are_those_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "batchmix" / "__init__.py"
    path.parent.mkdir()
    path.write_text('from a import b, c\n\n__all__ = ["b"]\n')
    assert public_names(path, tmp_path) == ["batchmix.b"]
    path.write_text("")
    with pytest.raises(AssertionError, match="batchmix has no __all__"):
        public_names(path, tmp_path)


def test_types_are_on_the_page_as_they_are_in_the_code() -> None:
    page = (ROOT / "docs" / "api" / "typing.rst").read_text(encoding="utf-8")
    known = {"Any": Any, "Callable": Callable, "Kind": Kind, "Literal": Literal, "Mapping": Mapping}
    known |= {"Tensor": Tensor, "nn": nn}
    written = {name: eval(form, known) for name, form in CANONICAL.findall(page)}
    assert written == {name: getattr(batchmix.typing, name) for name in written}
    assert written.keys() == set(batchmix.typing.__all__) - {"Kind", "MixerOptions"}  # taken from the code


def test_every_example_is_on_its_page() -> None:
    page = (ROOT / "docs" / "examples.rst").read_text(encoding="utf-8")
    shown = re.findall(r"^\.\. literalinclude:: \.\./examples/(\S+)", page, re.MULTILINE)
    assert sorted(shown) == sorted(path.name for path in (ROOT / "examples").glob("*.py"))
