"""What the machine does fast."""

from __future__ import annotations

import pytest
import torch

from batchmix.errors import MixError
from batchmix.recipe.machine import in_bfloat16, memory_told


@pytest.mark.parametrize(
    ("capability", "hip", "faster"), [((7, 5), None, False), ((8, 0), None, True), ((9, 0), "6.4", True)]
)
def test_gpus_compute_in_bfloat16_where_they_have_units_for_it(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], hip: str | None, faster: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.version, "hip", hip)
    gpu = torch.device("cuda:0")
    assert in_bfloat16(gpu) is faster
    assert in_bfloat16(gpu, "bfloat16")
    assert not in_bfloat16(gpu, "float32")


@pytest.mark.parametrize("units", [set(), {"avx512_bf16"}, {"amx_bf16"}])
def test_cpus_too(monkeypatch: pytest.MonkeyPatch, units: set[str]) -> None:
    monkeypatch.setattr("batchmix.recipe.machine._cpu_flags", lambda: units)
    assert in_bfloat16(torch.device("cpu")) is bool(units)
    assert not in_bfloat16(torch.device("meta"))


def test_a_gpu_whose_memory_ends_is_told_in_one_line() -> None:
    told = r"^--batch-size takes fewer images, [^\n]*: CUDA out of memory. Tried [^\n]{0,140}$"
    with pytest.raises(MixError, match=told), memory_told():
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.\n" + "Of it " * 99)
