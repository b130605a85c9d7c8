"""What oneDNN says of its work, against what was asked of it."""

from __future__ import annotations

import sys

import pytest
import torch
from torch.nn import functional as F

from batchmix.recipe.onednn import convolutions, reorder_seconds, verbose_lines

HEAD = "onednn_verbose,v1,primitive,exec,cpu"
SHAPE = "mb8_ic24oc64_ih31oh30kh3sh1dh0ph1_iw31ow31kw3sw1dw0pw1"
LINES = [
    f"{HEAD},convolution,brgconv:avx512,forward_training,src:bf16::blocked:acdb::f0,,alg:direct,{SHAPE},1.5",
    f"{HEAD},convolution,brgconv:avx512,forward_training,src:bf16::blocked:acdb::f0,,alg:direct,{SHAPE},0.5",
    f"{HEAD},convolution,jit:avx512,backward_weights,src:bf16::blocked:acdb::f0,,alg:direct,{SHAPE},2",
    f"{HEAD},convolution,brg:avx512,backward_weights,src:bf16::blocked:acdb::f0,,alg:direct,{SHAPE},1",
    f"{HEAD},reorder,jit:uni,undef,src:f32::blocked:ab::f0 dst:bf16::blocked:ab::f0,,,64x24x3x3,0.25",
    f"{HEAD},matmul,brg:avx512,undef,src:bf16:a:blocked:ab::f0,,,64x216:216x64,9",
]

needs_onednn = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available() or sys.platform == "win32", reason="no oneDNN here"
)


def test_calls_of_one_shape_and_direction_are_added_up():
    forward, backward = convolutions(LINES)
    assert (forward.inputs, forward.outputs, forward.kernel) == (24, 64, 3)
    assert (forward.size, forward.result) == (31, 30)
    assert (forward.direction, forward.implementation, forward.calls) == ("forward", "brgconv:avx512", 2)
    assert forward.seconds == pytest.approx(0.002)
    assert backward.direction == "gradient of the filters"
    assert (backward.implementation, backward.calls) == ("jit:avx512 and brg:avx512", 2)
    assert backward.as_dict()["seconds"] == 0.003


def test_copies_are_counted_by_themselves():
    assert reorder_seconds(LINES) == pytest.approx(0.00025)
    assert reorder_seconds(LINES[:3]) == 0


@needs_onednn
def test_a_convolution_is_heard_in_all_directions_and_output_comes_back(capfd):
    x = torch.rand(4, 8, 10, 10, requires_grad=True)
    weight = torch.rand(16, 8, 3, 3, requires_grad=True)
    found = convolutions(verbose_lines(lambda: F.conv2d(x, weight).sum().backward()))
    assert {one.direction for one in found} == {
        "forward",
        "gradient of the images",
        "gradient of the filters",
    }
    for one in found:
        assert (one.inputs, one.outputs, one.kernel, one.calls) == (8, 16, 3, 1)
        assert (one.size, one.result) == (10, 8)
        assert 0 < one.seconds < 1
    sys.stdout.write("back")
    F.conv2d(x, weight)  # no longer heard
    assert capfd.readouterr().out == "back"


@needs_onednn
def test_output_comes_back_after_an_error(capfd):
    with pytest.raises(ZeroDivisionError):
        verbose_lines(lambda: 1 / 0)
    sys.stdout.write("back")
    assert capfd.readouterr().out == "back"
