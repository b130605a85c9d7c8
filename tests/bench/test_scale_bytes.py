"""The table of bytes a step: counted from a model, and the one on the page is what the command writes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks/scale_bytes.py"
PAGE = ROOT / "docs/scale.md"


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, SCRIPT, *words]
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "tests/shim"),
    }  # timm needs torchvision, which needs it here
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def test_the_page_holds_what_the_command_writes(tmp_path: Path) -> None:
    page = tmp_path / "scale.md"
    page.write_text(PAGE.read_text())
    ran = run("--page", page)
    assert ran.returncode == 0, ran.stderr
    assert page.read_text() == PAGE.read_text()


def test_numbers_are_those_of_the_model() -> None:
    """timm's smallest model of its tests: weights and norms counted by hand here."""
    timm = pytest.importorskip("timm")
    net = timm.create_model("test_resnet")
    weights = sum(weight.numel() for weight in net.parameters())
    means = [buffer for name, buffer in net.named_buffers() if name.endswith("running_mean")]
    channels = sum(map(len, means))
    lines = run("--model", "test_resnet", "--images", "1000", "--side", "1000").stdout.splitlines()
    assert f"test_resnet has P = {weights:,}, C = {channels:,} and L = {len(means)}." in lines[-1]
    (gradients,) = (line for line in lines if line.startswith("| gradients"))
    assert gradients.endswith(f"| {4 * weights / 1e6:.2g} MB |")
    (pixels,) = (line for line in lines if line.startswith("| the same on float32"))
    assert pixels.endswith("| 12.0 GB |")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--model", "nothing"), "--model"),
        (("--images", "0"), "--images"),
        (("--page", "/no/such/page"), "page"),
    ],
)
def test_a_wrong_call_is_one_line(words: tuple[str, ...], named: str) -> None:
    ran = run(*words)
    assert ran.returncode == 2
    assert named in ran.stderr.splitlines()[-1]
