"""What holds for every picture."""

from __future__ import annotations

import subprocess
import sys

import pytest
from looking import png

from batchmix.errors import MixError
from batchmix.pictures import draw_batch, draw_beta, draw_pair


def test_pictures_are_white_outside_and_not_empty(images):
    for figure in (draw_pair(images[0], images[1]), draw_beta(0.4, True), draw_batch(images, range(6))):
        pixels = png(figure)
        assert (pixels[0] == 255).all()
        assert (pixels[-1] == 255).all()
        assert (pixels < 250).any(axis=2).mean() > 0.01


def test_drawing_needs_no_pyplot():
    code = (
        "import sys, torch; from batchmix import pictures as p; assert 'matplotlib' not in sys.modules;"
        "p.draw_pair(torch.rand(3, 8, 8), torch.rand(3, 8, 8)); p.draw_beta();"
        "p.draw_batch(torch.rand(2, 3, 8, 8), [0, 1]); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_without_matplotlib_the_way_to_get_it_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MixError, match=r"pip install 'batchmix\[cli\]'"):
        draw_beta()
