"""The table of bytes a step: counted from a model, and the one on the page is what the command writes."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmark_scripts import run

PAGE = Path(__file__).resolve().parents[2] / "docs/scale.md"


def test_the_page_holds_what_the_command_writes(tmp_path: Path) -> None:
    page = tmp_path / "scale.md"
    page.write_text(PAGE.read_text())
    assert run("scale_bytes", "--page", page) == 0
    assert page.read_text() == PAGE.read_text()


def test_numbers_are_those_of_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    """timm's smallest model of its tests: weights and norms counted by hand here."""
    timm = pytest.importorskip("timm")
    net = timm.create_model("test_resnet")
    weights = sum(weight.numel() for weight in net.parameters())
    means = [buffer for name, buffer in net.named_buffers() if name.endswith("running_mean")]
    channels = sum(map(len, means))
    assert run("scale_bytes", "--model", "test_resnet", "--images", "1000", "--side", "1000") == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"test_resnet has P = {weights:,}, C = {channels:,} and L = {len(means)}." in lines[-1]
    (gradients,) = (line for line in lines if line.startswith("| gradients"))
    assert gradients.endswith(f"| {4 * weights / 1e6:.2g} MB |")
    buffers = sum(buffer.numel() * buffer.element_size() for buffer in net.buffers())
    (statistics,) = (line for line in lines if line.startswith("| running statistics"))
    assert statistics.endswith(f"| 16(C + L) | {2 * buffers / 1e6:.2g} MB |")
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
def test_a_wrong_call_is_one_line(
    words: tuple[str, ...], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("scale_bytes", *words) == 2
    assert named in capsys.readouterr().err.splitlines()[-1]
