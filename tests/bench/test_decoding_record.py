"""The measure of decoding: folders of JPEGs, one case of each kind, and the page made from the record."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from benchmark_scripts import load
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
COUNT = 12


@pytest.fixture(scope="module")
def decoding() -> ModuleType:
    return load("decoding")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A few JPEGs of two classes."""
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, 40, 40, 3), dtype=np.uint8)
    for number, image in enumerate(pixels):
        path = tmp_path / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(path)
    return tmp_path


@pytest.mark.parametrize("kind", [None, "crop", "square"])
@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
def test_each_case_decodes_what_it_is_given(decoding: ModuleType, folder: Path, kind: str | None) -> None:
    told = decoding.measure(folder, kind, 32, 0, COUNT)
    assert told["images_per_second"] > 1
    assert told["peak_mib"] > told["grown_mib"] >= 0


def test_the_committed_page_is_that_of_the_committed_record(decoding: ModuleType) -> None:
    record = json.loads((ROOT / "benchmarks/records/decoding.json").read_text())
    page = (ROOT / "docs/scale.md").read_text()
    between = page.split(decoding.BEGIN)[1].split(decoding.END)[0]
    assert between == f"\n{decoding.table(record)}\n"
