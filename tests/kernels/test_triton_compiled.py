"""The Triton kernels compile for GPUs, which needs none: the interpreter takes what the compiler refuses."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path
from typing import Any

import pytest

from batchmix.kernels import gpu, gpu_loss
from batchmix.kernels.launching import OPTIONS

HAS_TRITON = importlib.util.find_spec("triton") is not None
pytestmark = [
    pytest.mark.skipif(not HAS_TRITON, reason="needs triton"),
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter compiles nothing"),
]

NONE, WEIGHTS, PASTE = range(3)
POINTERS = {
    "partner": "i64",
    "lam": "fp32",
    "a": "i64",
    "b": "i64",
    "grad": "fp32",
    "count": "fp32",
    "parts": "fp32",
}
MULTIPLES_OF_16 = ["out", "x", "other", "mask", "logits", "span", "classes"]
MULTIPLES_OF_16 += [f"{name}_step" for name in ("out", "x", "other", "mask", "row")]


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


def assembly(kernel: Any, dtypes: dict[str, str], warps: int, **constants: Any) -> str:
    """PTX for an H100, of pointers to ``dtypes`` and sizes that 16 divides."""
    import triton
    from triton.backends.compiler import GPUTarget

    types = {name: f"*{dtype}" for name, dtype in {**POINTERS, **dtypes}.items()} | {"smoothing": "fp32"}
    signature = {
        name: "constexpr" if name in constants else types.get(name, "i32") for name in kernel.arg_names
    }
    places = [kernel.arg_names.index(name) for name in MULTIPLES_OF_16 if name in kernel.arg_names]
    hints = {(place,): [["tt.divisibility", 16]] for place in places}
    source = triton.compiler.ASTSource(kernel, signature, constants, hints)
    target = GPUTarget("cuda", 90, 32)
    ptx: str = triton.compile(source, target=target, options={"num_warps": warps, **OPTIONS}).asm["ptx"]
    assert "__assertfail" in ptx  # what is out of range stops the device
    return ptx


def wide(dtype: str) -> Any:
    from batchmix.kernels import triton_blend

    return triton_blend.FLOAT64 if dtype == "fp64" else triton_blend.FLOAT32


@pytest.mark.parametrize(
    ("dtype", "kind", "inner"),
    [("fp32", NONE, 1), ("fp32", WEIGHTS, 3), ("fp32", PASTE, 1), ("bf16", PASTE, 3), ("fp64", NONE, 1)],
)
def test_rows_are_mixed_in_one_rounding(dtype: str, kind: int, inner: int) -> None:
    from batchmix.kernels.triton_blend import mix_rows

    mask = "u8" if kind == PASTE else "fp32"
    dtypes = dict.fromkeys(("out", "x", "other"), dtype) | {"mask": mask}
    dtypes |= dict.fromkeys(("high", "low", "scale"), "fp32")
    config = gpu.CONFIGS[0]
    ptx = assembly(
        mix_rows, dtypes, config.warps, kind=kind, normal=False, wide=wide(dtype), inner=inner, group=1,
        block=config.values,
    )  # fmt: skip
    number = "f64" if dtype == "fp64" else "f32"
    each = config.values // (32 * config.warps)
    assert len(re.findall(rf"fma\.rn\.{number}", ptx)) == (0 if kind == PASTE else each)
    vector = "v2" if dtype == "fp64" else "v4"
    assert (
        len(re.findall(rf"ld\.global\.{vector}", ptx))
        >= 2 * each * {"bf16": 2, "fp32": 4, "fp64": 8}[dtype] // 16
    )


@pytest.mark.parametrize(("result", "inner"), [("fp32", 1), ("bf16", 3)])
def test_images_are_normalised(result: str, inner: int) -> None:
    from batchmix.kernels.triton_blend import mix_rows

    computed = "fp64" if result == "fp32" else "fp32"
    dtypes = {"out": result, "x": "u8", "other": "u8", "mask": "fp32"}
    dtypes |= dict.fromkeys(("high", "low", "scale"), computed)
    config = gpu.CONFIGS[0]
    ptx = assembly(
        mix_rows, dtypes, config.warps, kind=NONE, normal=True, wide=wide(computed), inner=inner, group=1,
        block=config.values,
    )  # fmt: skip
    assert "ld.global.v4" in ptx


@pytest.mark.parametrize("rows", [16, 1024])
@pytest.mark.parametrize(
    ("dtype", "kind"), [("fp32", NONE), ("fp32", WEIGHTS), ("bf16", PASTE), ("fp64", NONE)]
)
def test_in_place_all_is_read_before_anything_is_written(dtype: str, kind: int, rows: int) -> None:
    from batchmix.kernels.triton_blend import mix_in_place

    config = gpu.CONFIGS_IN_PLACE[-1]
    block = max(gpu.LINE, config.values // rows) // (2 if dtype == "fp64" else 1)
    ptx = assembly(
        mix_in_place, {"x": dtype, "mask": "u8" if kind == PASTE else "fp32"}, config.warps, kind=kind,
        wide=wide(dtype), inner=1, group=rows, block=block,
    )  # fmt: skip
    order = "".join(operation[0] for operation in re.findall(r"ld\.global|bar\.sync|st\.global", ptx))
    assert re.fullmatch(r"[lb]*lb+s+", order), order  # loads, at least one barrier, stores


@pytest.mark.parametrize(("dtype", "classes"), [("fp32", 10), ("bf16", 1000), ("fp32", 50_000)])
def test_the_loss_compiles(dtype: str, classes: int) -> None:
    from batchmix.kernels import triton_loss

    group, block, warps = gpu_loss._blocks(128, classes)
    one = dict.fromkeys(("class_step", "a_step", "b_step", "lam_step"), 1)
    dtypes = {"logits": dtype, "out": dtype}
    forward = assembly(triton_loss.losses, dtypes, warps, smooth=True, group=group, block=block, **one)
    backward = assembly(
        triton_loss.gradients, dtypes, warps, mean=True, group=group, block=block, out_class_step=1, **one
    )
    assert "ex2.approx" in forward
    assert "ex2.approx" in backward
