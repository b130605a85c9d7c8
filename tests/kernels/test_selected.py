"""The kernel is chosen, or named: for a block, for the process, by the environment."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
from typing import Any

import pytest
import torch
from torch import Tensor

import batchmix as bm
from batchmix.kernels import blocks, cpu, pixels, selected

needs_numba = pytest.mark.skipif(cpu.loops() is None, reason="needs numba")

X = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
IMAGES = (X * 255).to(torch.uint8)
PLAN = bm.Mixup(seed=0).plan(X)
NORMALIZE = bm.Normalize((0.5, 0.4, 0.3), (0.2, 0.2, 0.2))


@pytest.fixture(autouse=True)
def nothing_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(selected.VARIABLE, raising=False)
    monkeypatch.setattr(selected, "_named", type(selected._named)(maxlen=64))


def chosen(x: Tensor = X, **options: Any) -> Any:
    given = {"other": None, "out": None, "resized": False, **options}
    return selected.for_samples(x, PLAN.partner, PLAN.lam, None, **given)


def test_a_block_names_the_kernel_and_blocks_nest() -> None:
    assert selected.current() == "auto"
    with bm.kernel("torch") as outer:
        assert selected.current() == "torch"
        with bm.kernel("auto"):
            assert selected.current() == "auto"
        with outer:
            assert selected.current() == "torch"
        with pytest.raises(ZeroDivisionError), bm.kernel("auto"):
            raise ZeroDivisionError
        assert selected.current() == "torch"
    assert selected.current() == "auto"


def test_without_a_block_the_name_holds_for_the_process() -> None:
    bm.kernel("torch")
    assert seen_by_another_thread() == "torch"
    with bm.kernel("auto"):
        assert selected.current() == "auto"
        assert seen_by_another_thread() == "torch"
    assert selected.current() == "torch"
    bm.kernel("auto")
    assert selected.current() == "auto"


def seen_by_another_thread() -> str:
    seen: list[str] = []
    thread = threading.Thread(target=lambda: seen.append(selected.current()))
    thread.start()
    thread.join()
    return seen[0]


def test_blocks_of_many_threads_do_not_undo_one_another() -> None:
    wrong: list[str] = []

    def work(name: Any) -> None:
        for _ in range(300):
            with bm.kernel(name):
                if selected.current() != name:
                    wrong.append(name)

    workers = [threading.Thread(target=work, args=(name,)) for name in ("torch", "auto") * 4]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []
    assert len(selected._named) == 0
    assert selected.current() == "auto"


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_a_child_names_a_kernel_whatever_the_parent_held_as_it_was_forked() -> None:
    child = multiprocessing.get_context("fork").Process(target=bm.kernel, args=("torch",))
    with selected._lock:  # as another thread holds it
        child.start()
    child.join(20)
    exitcode = child.exitcode
    child.kill()
    assert exitcode == 0


def test_names_without_a_block_do_not_pile_up() -> None:
    for _ in range(1000):
        bm.kernel("torch")
    assert len(selected._named) <= 64


def test_the_environment_names_the_kernel_of_a_process() -> None:
    code = "import batchmix as bm; from batchmix.kernels import selected; print(selected.current())"
    for value, printed in (("torch", "torch"), ("", "auto")):
        ran = run(code, value)
        assert ran.stdout.strip() == printed, ran.stderr
    ran = run(code, "cuda")
    assert ran.stderr.splitlines()[-1].endswith(
        "BATCHMIX_KERNEL takes 'auto', 'torch', 'numba' or 'triton', got 'cuda'"
    )


def run(code: str, value: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {selected.VARIABLE: value}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=120)


@pytest.mark.parametrize("name", ["cuda", "Torch", None, 1])
def test_a_kernel_that_does_not_exist_is_named(name: Any) -> None:
    with pytest.raises(bm.MixError, match=r"^kernel takes 'auto', 'torch', 'numba' or 'triton', got "):
        bm.kernel(name)
    assert selected.current() == "auto"


def test_a_kernel_that_is_not_installed_is_an_error_when_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selected, "loops", lambda: None)
    with pytest.raises(
        bm.MixError, match=r"^kernel takes 'auto' or 'torch' where numba is missing or .*'numba'$"
    ):
        bm.kernel("numba")
    monkeypatch.setattr(selected, "_gpu", lambda: None)
    with pytest.raises(
        bm.MixError, match=r"^kernel takes 'auto' or 'torch' where triton is missing, got 'triton'$"
    ):
        bm.kernel("triton")


@needs_numba
def test_a_named_kernel_takes_batches_of_any_size() -> None:
    assert chosen() is None  # too small to gain
    with bm.kernel("numba"):
        assert chosen() is cpu
    with bm.kernel("torch"):
        assert chosen() is None


def test_torch_mixes_large_batches_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "SMALLEST", 0)
    with bm.kernel("torch"):
        assert chosen() is blocks
        assert chosen(resized=True) is None
        assert chosen(X.clone().requires_grad_()) is None


@needs_numba
@pytest.mark.parametrize(
    ("reason", "call"),
    [
        ("gradients, or a mode of torch that looks on", lambda: bm.blend(X.clone().requires_grad_(), PLAN)),
        ("partners that are resized first", lambda: bm.blend(X, bm.ResizeMix(seed=0).plan(X))),
        ("samples, or a mask, that do not lie in memory", lambda: bm.blend(X[..., ::2], PLAN)),
        ("tensors elsewhere than", lambda: bm.blend(X.to("meta"), PLAN.to("meta"))),
        (
            "images, or a mask, that lie in memory",
            lambda: bm.blend(IMAGES[..., ::2], PLAN, normalize=NORMALIZE),
        ),
        ("images, or a mask, that lie in memory", lambda: NORMALIZE(IMAGES[..., ::2])),
    ],
)
def test_a_call_that_the_named_kernel_does_not_take_is_one_line(reason: str, call: Any) -> None:
    call()
    with bm.kernel("numba"), pytest.raises(bm.MixError) as caught:
        call()
    message = str(caught.value)
    assert message.startswith(f"kernel takes 'auto' or 'torch' for {reason}")
    assert message.endswith("got 'numba'")
    assert "\n" not in message


@needs_numba
def test_every_kernel_gives_the_same_bits() -> None:
    results = []
    for name in ("torch", "numba", "auto"):
        with bm.kernel(name):
            mixed = [bm.blend(X, PLAN), bm.blend(X, bm.CutMix(seed=1).plan(X))]
            mixed += [bm.blend(IMAGES, PLAN, normalize=NORMALIZE), NORMALIZE(IMAGES)]
        results.append(mixed)
    for one, two, three in zip(*results, strict=True):
        assert torch.equal(one, two)
        assert torch.equal(one, three)


@needs_numba
def test_images_are_normalised_by_the_loops_or_by_torch() -> None:
    assert selected.for_images(IMAGES, other=None, out=None) is cpu
    assert selected.for_images(IMAGES[..., ::2], other=None, out=None) is pixels
    out = torch.zeros(4, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    assert selected.for_images(IMAGES, other=None, out=out) is pixels  # in another order
    with bm.kernel("torch"):
        assert selected.for_images(IMAGES, other=None, out=None) is pixels


def test_compiled_code_is_torchs() -> None:
    torch._dynamo.reset()
    with bm.kernel("torch"):
        compiled = torch.compile(lambda x: bm.blend(x, PLAN), fullgraph=True, backend="aot_eager")(X)
    torch.testing.assert_close(compiled, bm.blend(X, PLAN))


def test_another_kernel_of_the_same_form_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the Triton kernels."""

    class Gpu:
        reason: str | None = None

        @classmethod
        def why_not(cls, *args: Any, **kwargs: Any) -> str | None:
            return cls.reason

        @classmethod
        def why_not_images(cls, *args: Any, **kwargs: Any) -> str | None:
            return cls.reason

        @staticmethod
        def mix(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            return x + 1

        @staticmethod
        def mix_images(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            return x + 2

    monkeypatch.setattr(selected, "_gpu", lambda: Gpu)
    with bm.kernel("triton"):
        assert torch.equal(bm.blend(X, PLAN), X + 1)
        assert torch.equal(bm.blend(IMAGES, PLAN, normalize=NORMALIZE), IMAGES + 2)
        Gpu.reason = "a call of this kind"
        for normalize, x in ((None, X), (NORMALIZE, IMAGES)):
            with pytest.raises(
                bm.MixError, match=r"^kernel takes 'auto' or 'torch' for a call of this kind, got"
            ):
                bm.blend(x, PLAN, normalize=normalize)
    assert torch.equal(bm.blend(X, PLAN), bm.blend(X.clone(), PLAN))  # on a CPU it is not asked unnamed
