"""What one-hot targets cost: value, time and memory of the mixed cross entropy, with and without them."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from batchmix.core.sampling import sample_lam
from batchmix.core.targets import MixedTarget

CLASSES = (10, 100, 1_000, 10_000, 50_000)
BATCH_SIZE = 128
SECONDS = 0.03  # of each timing, so that the clock and the loop are nothing beside it
PACKAGE = Path(__file__).parents[2]
TIMED = ("study/article/onehot.py", "core/*.py", "kernels/*.py")  # files of it that can run in a timing

Form = Callable[[Tensor, MixedTarget], Tensor]


def one_hot(logits: Tensor, target: MixedTarget) -> Tensor:
    """Cross entropy with dense probabilities (B, K), made first: zeros, and both labels added in."""
    return F.cross_entropy(logits, target.dense(logits.shape[1]))


def two_calls(logits: Tensor, target: MixedTarget) -> Tensor:
    """The article's form: the plain loss for each label, weighed for each sample."""
    a, b, lam = target
    first = F.cross_entropy(logits, a, reduction="none")
    return (lam * first + (1 - lam) * F.cross_entropy(logits, b, reduction="none")).mean()


def mixed_target(logits: Tensor, target: MixedTarget) -> Tensor:
    """This library's form: the loss as it stands."""
    return F.cross_entropy(logits, target)  # type: ignore[arg-type]


FORMS: dict[str, Form] = {"one_hot": one_hot, "two_calls": two_calls, "mixed_target": mixed_target}


def sources() -> str:
    """A digest of the files that run in a timing: a record with another one is of another loss."""
    files = sorted(path for pattern in TIMED for path in PACKAGE.glob(pattern))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:8]


def measure_one_hot(
    *,
    classes: tuple[int, ...] = CLASSES,
    batch_size: int = BATCH_SIZE,
    repeats: int = 15,
    device: torch.device | str = "cpu",
    seed: int = 0,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Compare the forms: value and gradient, time and peak memory of forward and backward.

    Args:
        classes: Numbers of classes, K.
        batch_size: B.
        repeats: Timings of each form; the forms take turns, in an order that moves on with every repeat.
        device: Where.
        seed: Of logits, labels and weights.
        say: Called with a line before each number of classes.

    Returns:
        What the page is made from: for each K and form the difference to one-hot, seconds a call, and bytes.
    """
    rows = []
    for count in classes:
        say(f"one-hot, {count:,} classes")
        rows.append(
            {
                "classes": count,
                "logit_bytes": 4 * batch_size * count,
                "forms": _measure(count, batch_size, repeats, torch.device(device), seed),
            }
        )
    return {"batch_size": batch_size, "repeats": repeats, "seed": seed, "rows": rows}


def _measure(count: int, batch_size: int, repeats: int, device: torch.device, seed: int) -> dict[str, Any]:
    logits, target = make_batch(count, batch_size, seed)
    logits, target = logits.to(device).requires_grad_(), target.to(device)
    loss, gradient = value(one_hot, logits, target)
    found: dict[str, Any] = {}
    for name, form in FORMS.items():
        own_loss, own_gradient = value(form, logits, target)
        found[name] = {
            "loss_difference": abs(own_loss - loss) / abs(loss),
            "gradient_difference": float((own_gradient - gradient).abs().max() / gradient.abs().max()),
            "bytes": peak_bytes(form, logits, target),
            "seconds": [],
        }
    calls = {name: _calls(form, logits, target) for name, form in FORMS.items()}
    names = list(FORMS)
    for repeat in range(repeats):
        start = repeat % len(names)
        for name in names[start:] + names[:start]:
            found[name]["seconds"].append(_seconds(FORMS[name], logits, target, calls[name]))
    return found


def make_batch(count: int, batch_size: int, seed: int) -> tuple[Tensor, MixedTarget]:
    """Logits (B, K) with a standard deviation of 2 and labels that are drawn; weights from Beta(0.4, 0.4)."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(batch_size, count, generator=generator)
    a, b = torch.randint(count, (2, batch_size), generator=generator)
    return logits, MixedTarget(a, b, sample_lam(0.4, batch_size, generator=generator))


def value(form: Form, logits: Tensor, target: MixedTarget) -> tuple[float, Tensor]:
    """The loss, and its gradient by the logits (B, K)."""
    loss = form(logits, target)
    (gradient,) = torch.autograd.grad(loss, logits)
    return loss.item(), gradient


def peak_bytes(form: Form, logits: Tensor, target: MixedTarget) -> int:
    """The most memory that forward and backward hold at once, beside the logits and the two lists of labels.

    On a CPU from torch's profiler, which notes every allocation; on a GPU from the allocator's own count.
    """
    value(form, logits, target)  # whatever is allocated once is there
    if logits.device.type == "cuda":
        torch.cuda.synchronize(logits.device)
        before = torch.cuda.memory_allocated(logits.device)
        torch.cuda.reset_peak_memory_stats(logits.device)
        value(form, logits, target)
        return int(torch.cuda.max_memory_allocated(logits.device)) - before
    live = peak = 0
    for change in _allocations(lambda: value(form, logits, target)):
        live += change
        peak = max(peak, live)
    return peak


def _allocations(act: Callable[[], Any]) -> list[int]:
    """Bytes allocated (above 0) and freed (below) on the CPU, in order."""
    from torch.profiler import ProfilerActivity, profile

    with _quiet_profiler(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        act()
    with TemporaryDirectory(prefix="batchmix-trace-") as folder:
        path = Path(folder) / "trace.json"
        seen.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    changes = [event for event in events if event["name"] == "[memory]"]
    return [event["args"]["Bytes"] for event in sorted(changes, key=lambda event: event["ts"])]


@contextmanager
def _quiet_profiler() -> Iterator[None]:
    """The profiler writes lines of its own to the terminal, unless it is told not to before its first use."""
    name = "KINETO_LOG_LEVEL"
    before = os.environ.get(name)
    os.environ[name] = "99"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _calls(form: Form, logits: Tensor, target: MixedTarget) -> int:
    """How many calls fill a timing."""
    _seconds(form, logits, target, 1)
    return max(1, round(SECONDS / _seconds(form, logits, target, 3)))


def _seconds(form: Form, logits: Tensor, target: MixedTarget, calls: int) -> float:
    """Seconds of a forward and backward, mean of several in a row."""
    _wait(logits.device)
    started = time.perf_counter()
    for _ in range(calls):
        torch.autograd.grad(form(logits, target), logits)
    _wait(logits.device)
    return (time.perf_counter() - started) / calls


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
