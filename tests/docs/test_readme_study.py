"""The README's own task runs as written, with the README's own command, on fewer seeds."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")


def test_the_task_of_the_readme_runs_and_is_reported(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (task,) = [block for block in blocks if "def make_task" in block]
    (command,) = re.findall(r"^(batchmix compare my_module:.*?) +#", README, re.MULTILINE)
    assert " --seeds 5" in command
    command = command.replace(" --seeds 5", " --seeds 2")  # every run is a process of its own, of seconds
    (tmp_path / "my_module.py").write_text(task)
    ran = subprocess.run(
        [sys.executable, "-m", *shlex.split(command), "--threads", "1", "--jobs", "2"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert len(list((tmp_path / "study" / "runs").glob("*.json"))) == 4
    report = (tmp_path / "study" / "report.md").read_text(encoding="utf-8")
    assert "my_module:make_task" in report
    assert re.search(r"\bn = 2\b|\b2 seeds", report)
