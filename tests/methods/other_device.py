"""A program that runs the library on a device that is no CPU, on a machine that has none.

Torch works out shapes and devices alone, and an operator refuses tensors of two devices, as a GPU's does. The
program prints in JSON where the results of each case lie. It makes a device known to torch for good, and so
has to have a process of its own. ``KMixup`` and ``mix_objects`` ask the device for values, and are left out.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from test_no_host_sync import BESIDE, CASES
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode

import batchmix as bm
from batchmix.core.draws import Draws
from batchmix.core.objects import _see_boxes
from batchmix.recipe.config import preset
from batchmix.recipe.evaluation import predict
from batchmix.recipe.images import normalize
from batchmix.recipe.learner import Learner
from batchmix.recipe.nets import new_net
from batchmix.recipe.training import Training

DEVICE = torch.device("privateuseone", 0)  # torch's name for a device that others bring

Case = Callable[[], object]


class GeneratorThere(torch.Generator):
    """The CPU's, which says that it is the device's: no value is drawn from it here."""

    device = DEVICE


class ShapesAlone(FakeTensorMode):
    """Gives tensors no memory, on a device that torch has no code for."""

    avoid_device_init = True  # numbers become tensors on the CPU, and travel without memory


class Watch(TorchDispatchMode):
    """Notices what is copied from the device to the CPU, which waits for it, and float64 on the device."""

    def __init__(self) -> None:
        super().__init__()
        self.read_back = self.float64 = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default:
            comes_from_it = args[0].device == DEVICE
            self.read_back |= comes_from_it and result.device != DEVICE
            self.float64 |= comes_from_it and result.dtype == torch.float64  # a device converts, then sends
        self.float64 |= any(t.device == DEVICE and t.dtype == torch.float64 for t in tensors(result))
        return result


def there(tensor: Tensor) -> Tensor:
    dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
    return torch.empty(tensor.shape, dtype=dtype, device=DEVICE)


def images(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(8, 3, 6, 8, dtype=dtype, device=DEVICE)


def ids(*shape: int) -> Tensor:
    return torch.empty(8, *shape, dtype=torch.int64, device=DEVICE)


def tensors(result: object) -> Iterator[Tensor]:
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, dict):
        yield from tensors(list(result.values()))
    elif isinstance(result, bm.MixPlan):
        yield from tensors([result.partner, result.lam, result.mask])
    elif isinstance(result, list | tuple | bm.MixedTarget):
        for part in result:
            yield from tensors(part)


def mixed(name: str) -> Case:
    make, (x, y) = CASES[name]
    return lambda: make()(there(x), there(y))


def loss(fn: Callable[..., Tensor], labels: Callable[[], Tensor], **options: object) -> Case:
    """A loss, its gradient, and what else is asked of its target."""

    def run() -> object:
        logits = torch.empty(8, 10, device=DEVICE, requires_grad=True)
        _, y = bm.Mixup(0.4)(images(), labels())
        given = {name: value() if callable(value) else value for name, value in options.items()}
        found = fn(logits.sigmoid(), y, **given)
        (gradient,) = torch.autograd.grad(found.sum(), logits)
        return found, gradient, bm.mixed_loss(fn, logits.sigmoid(), y)

    return run


def classes() -> Tensor:
    return torch.empty(10, device=DEVICE)


def dense() -> Tensor:
    return torch.empty(8, 10, device=DEVICE)


def tree() -> object:
    batch = {"image": images(), "label": ids(), "mask": ids(6, 8)}
    return [mixer.mix(batch, kinds={"mask": "segmentation"}) for mixer in (bm.CutMix(1.0), bm.Mixup(0.4))]


def from_uint8() -> object:
    normalize = bm.Normalize((0.5, 0.4, 0.3), (0.2, 0.2, 0.2), dtype=torch.bfloat16)
    mixers = [
        bm.Mixup(0.4, normalize=normalize),
        bm.Mixup(0.4, p=0.0, normalize=normalize),
        bm.CutMix(1.0, normalize=normalize),
    ]
    return [normalize(images(torch.uint8)), *(mixer(images(torch.uint8), ids()) for mixer in mixers)]


def options() -> object:
    mixers = [bm.Mixup(0.4, partner="derangement"), bm.Mixup(0.4, partner="roll"), bm.Mixup(alpha=0.0)]
    mixers += [bm.Mixup(0.4, per="pair"), bm.Mixup(0.4, per="batch", fold=False)]
    return [mixer(images(), ids()) for mixer in mixers]


def by_class() -> object:
    return [bm.Mixup(0.4, partner=rule)(images(), ids()) for rule in ("other-class", "same-class")]


def targets() -> object:
    target = bm.MixedTarget(ids(), ids(), 0.3)
    return target, target.view(-1), target[2:5], target.chunk(2)


def replayed() -> object:
    plan, x = bm.CutMix(1.0).plan(images()), images()
    return (
        plan,
        bm.blend(x, plan),
        bm.blend(x, plan, out=x),
        plan.only(plan.lam < 0.5),
        bm.blend(images(torch.float16), plan),
    )


def manifold() -> object:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, device=DEVICE), torch.nn.ReLU())
    with bm.ManifoldMixup(model, ["0"], mixer=bm.Mixup(2.0))(images(), ids()) as y:
        return y, model(images())


def recipe(name: str) -> Case:
    def run() -> object:
        config = replace(
            preset(name),
            epochs=2,
            images=40,
            batch_size=8,
            widths=(8, 8, 8),
            precision="float32",
            compile="off",
        )
        with DEVICE:
            net = new_net(config)
        x = torch.empty(40, 32, 32, 3, dtype=torch.uint8, device=DEVICE)
        y = torch.empty(40, dtype=torch.int64, device=DEVICE)
        training = Training(config, x, y, DEVICE, learner=Learner(net, config, DEVICE))
        training.run_through()
        return list(net.parameters()), predict(net, normalize(x))

    return run


def measured() -> object:
    _, y = bm.Mixup(0.4)(images(), ids())
    logits = torch.empty(8, 10, device=DEVICE)
    return (
        y.expected_accuracy(logits),
        bm.calibration_error(logits.softmax(1), y.dominant),
        y.chunk(2),
        y[1:3],
    )


ALL: dict[str, Case] = {
    **{name: mixed(name) for name in CASES},
    **{name: lambda step=step: step(images(), ids()) for name, step in BESIDE.items()},
    "manifold": manifold,  # with a net that is made there: torch moves no module of such tensors
    "two loaders": lambda: bm.Mixup(0.4, per="batch").between((images(), ids()), (images(), ids())),
    "options": options,
    "by class": by_class,
    "targets": targets,
    "boxes of objects": lambda: _see_boxes(images()[0, 0, :4, :4], images()[0, 0] > 0),
    "a batch with a mask": tree,
    "uint8": from_uint8,
    "a plan": replayed,
    "metrics": measured,
    **{f"recipe {name}": recipe(name) for name in ("gpu94", "gpu95", "gpu96", "fastai2018")},
    "cross entropy": loss(F.cross_entropy, ids, weight=classes, ignore_index=3),
    "cross entropy, smoothed": loss(F.cross_entropy, ids, label_smoothing=0.1),
    "cross entropy, weighted and smoothed": loss(F.cross_entropy, ids, weight=classes, label_smoothing=0.1),
    "cross entropy, dense": loss(F.cross_entropy, dense, weight=classes),
    "nll": loss(F.nll_loss, ids, weight=classes),
    "bce": loss(F.binary_cross_entropy_with_logits, dense, pos_weight=classes),
    "mse": loss(F.mse_loss, dense),
    "kl": loss(F.kl_div, dense, reduction="batchmean"),
}


def became(case: Case) -> str:
    """Where the results of a case lie, and what was noticed meanwhile; or the error it ended in."""
    watch = Watch()
    try:
        with watch:
            found = {str(tensor.device) for tensor in tensors(case())}
    except Exception as error:
        lines = [f"{frame.name}, line {frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
        return f"{type(error).__name__}: {error} (in {' > '.join(lines[:6])})"
    noticed = [name for name in ("read_back", "float64") if getattr(watch, name)]
    return ", ".join([*sorted(found), *noticed])


def main() -> None:
    backend_registration._setup_privateuseone_for_python_backend("elsewhere")
    with ShapesAlone():
        noticed = {
            "two devices": became(lambda: images() * torch.ones(8, 1, 1, 1)),
            "read_back": became(lambda: images().cpu()),
            "float64": became(lambda: images().double()),
            "float64 on the way": became(lambda: images().to("cpu", torch.float64)),
        }
        # As on Apple's GPUs: draws are made on the CPU, and there is no float64. The recipe is not for those.
        apart = {name: became(case) for name, case in ALL.items() if not name.startswith("recipe")}
        # As on CUDA's: all is done on the device.
        Draws.generator = lambda self, device: GeneratorThere()  # type: ignore[method-assign]
        together = {name: became(case) for name, case in ALL.items()}
    results = {"on the CPU": apart, "there": together}
    json.dump({"device": str(DEVICE), "results": results, "noticed": noticed}, sys.stdout)


if __name__ == "__main__":
    main()
