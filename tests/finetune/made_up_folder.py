"""Small folders of JPEGs whose class is their colour."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def make_folder(folder: Path, counts: dict[str, int], *, side: int = 48) -> Path:
    """Write ``folder/PART/CLASS/NUMBER.jpg`` for each part and count; images go to two classes in turn."""
    draws = np.random.default_rng(0)
    for part, count in counts.items():
        for number in range(count):
            name = ("blue", "red")[number % 2]
            pixels = draws.integers(0, 120, (side, side + 8, 3), dtype=np.uint8)
            pixels[..., 2 if name == "blue" else 0] += 120
            path = folder / part / name / f"{number:04}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path, quality=90)
    return folder
