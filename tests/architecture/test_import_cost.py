"""`import batchmix` costs torch and nothing else, and `--help` loads nothing that a command would need."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"matplotlib", "rich", "PIL", "scipy", "numba", "safetensors", "psutil"}

# The top-level names of what runs after `first`, in an interpreter of its own, are printed as the last line.
PROBE = """
import json, sys
sys.argv = ["batchmix", "--help"]
{first}
before = set(sys.modules)
code = 0
try:
    {then}
except SystemExit as stop:
    code = stop.code
new = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print()
print(json.dumps([code, sorted(new)]))
"""


def newly_loaded(then: str, *, first: str = "pass", path: Path | None = None) -> tuple[set[str], str]:
    """Third-party modules that ``then`` loads on top of ``first``, and what it printed."""
    env = os.environ | ({"PYTHONPATH": str(path)} if path else {})
    ran = subprocess.run(
        [sys.executable, "-c", PROBE.format(first=first, then=then)],
        capture_output=True,
        text=True,
        env=env,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    *printed, last = ran.stdout.splitlines()
    code, names = json.loads(last)
    assert not code, f"{then} exited with {code}: {ran.stderr}"
    standard = {
        name for name in names if name in sys.stdlib_module_names or name.startswith("_sysconfigdata")
    }
    return set(names) - standard, "\n".join(printed)


def test_import_loads_torch_only() -> None:
    loaded, _ = newly_loaded("import batchmix", first="import torch")
    assert loaded - {"torch"} == {"batchmix"}


@pytest.mark.parametrize(
    "start",
    [
        "import runpy; runpy.run_module('batchmix', run_name='__main__')",
        "import batchmix.cli; sys.exit(batchmix.cli.main())",
    ],
    ids=["python -m batchmix", "batchmix"],
)
def test_help_loads_nothing_heavy(start: str) -> None:
    loaded, printed = newly_loaded(start, first="import torch")
    assert "usage" in printed.lower()
    assert not loaded & HEAVY


def test_a_heavy_import_is_caught(tmp_path: Path) -> None:
    (tmp_path / "heavy.py").write_text("")
    (tmp_path / "direct.py").write_text("import json, heavy\n")
    (tmp_path / "late.py").write_text("def main():\n    import heavy\n    raise SystemExit(0)\n")
    assert newly_loaded("import direct", path=tmp_path)[0] == {"direct", "heavy"}
    assert newly_loaded("import late; late.main()", path=tmp_path)[0] == {"late", "heavy"}
    assert newly_loaded("import late", path=tmp_path)[0] == {"late"}


def test_a_failing_start_is_caught() -> None:
    with pytest.raises(AssertionError, match="exited with 2"):
        newly_loaded("raise SystemExit(2)")
    with pytest.raises(AssertionError, match="no_such_module"):
        newly_loaded("import no_such_module")
