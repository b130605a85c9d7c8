"""The other libraries, called as their users call them: the mixing of one batch, its targets included.

Each peer is a class whose ``__init__`` imports its library. ``load_peers`` tells which there are, and why the
others are missing.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from batchmix.bench.cases import ALPHA, MEAN, STD
from batchmix.bench.timing import reason

Images = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Mix:
    """One way of calling a peer: ``call(x, y)`` gives the mixed images and their targets."""

    form: str
    call: Callable[[Tensor, Tensor], tuple[Tensor, Any]]
    fresh: bool = True  # False where it writes into x


class Peer(Protocol):
    """A library that mixes."""

    name: ClassVar[str]
    version: str

    def __init__(self, device: torch.device) -> None: ...

    def mixes(self, method: str, classes: int) -> list[Mix]:
        """Its ways of doing ``"mixup"`` or ``"cutmix"`` for labels of so many classes."""
        ...

    def normaliser(self, dtype: torch.dtype) -> Images:
        """What makes uint8 images normalised ones of a dtype, in which they are mixed."""
        ...


def load_peers(device: torch.device) -> tuple[list[Peer], dict[str, str]]:
    """All peers that can be imported, and why the others cannot, by their names."""
    found: list[Peer] = []
    missing: dict[str, str] = {}
    for peer in PEERS:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # theirs, about themselves
                found.append(peer(device))
        except Exception as error:  # another library's: the others are measured all the same
            missing[peer.name] = reason(error)
    return found, missing


def mean_and_std(device: torch.device, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Mean and std of each channel, in the shape that images (B, C, H, W) take."""
    mean, std = (torch.tensor(values, device=device).view(1, -1, 1, 1) * scale for values in (MEAN, STD))
    return mean, std


def _in_place(device: torch.device, dtype: torch.dtype) -> Images:
    """How a loader normalises images in [0, 255] on the device: converted, then two operations in place."""
    mean, std = (values.to(dtype) for values in mean_and_std(device, 255))
    return lambda x: x.to(dtype).sub_(mean).div_(std)


class Fastai:
    """fastai's callbacks, at work in a real Learner between two steps."""

    name: ClassVar[str] = "fastai"

    def __init__(self, device: torch.device) -> None:
        self.version = importlib.metadata.version("fastai")
        self.learner = importlib.import_module("fastai.learner").Learner
        self.loaders = importlib.import_module("fastai.data.core").DataLoaders
        self.loss = importlib.import_module("fastai.losses").CrossEntropyLossFlat
        self.callbacks = importlib.import_module("fastai.callback.mixup")
        self.transforms = importlib.import_module("fastai.data.transforms")
        self.image = importlib.import_module("fastai.torch_core").TensorImage
        self.device = device

    def mixes(self, method: str, classes: int) -> list[Mix]:
        """See ``Peer``."""
        callback = {"mixup": self.callbacks.MixUp, "cutmix": self.callbacks.CutMix}[method](ALPHA[method])
        loaders = self.loaders([], [], device=self.device)
        learn = self.learner(loaders, torch.nn.Identity(), loss_func=self.loss(), cbs=[callback])
        learn.training = True
        callback.learn = learn
        callback.before_train()

        def call(x: Tensor, y: Tensor) -> tuple[Tensor, Any]:
            learn.xb, learn.yb = (x,), (y,)
            callback.before_batch()
            return learn.xb[0], (learn.yb, callback.yb1, callback.lam)

        return [Mix("callback", call, fresh=method == "mixup")]

    def normaliser(self, dtype: torch.dtype) -> Images:
        """See ``Peer``."""
        scale = self.transforms.IntToFloatTensor()
        normalise = self.transforms.Normalize.from_stats(MEAN, STD, cuda=self.device.type == "cuda")

        def call(x: Tensor) -> Tensor:
            made: Tensor = normalise.encodes(scale.encodes(self.image(x)))
            return made.as_subclass(Tensor).to(dtype)  # which it makes float32 always

        return call


class Timm:
    """timm's Mixup, which writes into the batch; its loader's way of normalising."""

    name: ClassVar[str] = "timm"

    def __init__(self, device: torch.device) -> None:
        self.version = importlib.metadata.version("timm")
        self.mixup = importlib.import_module("timm.data.mixup").Mixup
        self.device = device

    def mixes(self, method: str, classes: int) -> list[Mix]:
        """See ``Peer``."""
        alphas = {"mixup_alpha": 0.0, "cutmix_alpha": 0.0, f"{method}_alpha": ALPHA[method]}
        return [
            Mix(mode, self.mixup(**alphas, mode=mode, label_smoothing=0.0, num_classes=classes), fresh=False)
            for mode in ("batch", "elem")
        ]

    def normaliser(self, dtype: torch.dtype) -> Images:
        """See ``Peer``."""
        return _in_place(self.device, dtype)


class Torchvision:
    """The transforms v2 of torchvision."""

    name: ClassVar[str] = "torchvision"

    def __init__(self, device: torch.device) -> None:
        self.version = importlib.metadata.version("torchvision")
        self.v2 = importlib.import_module("torchvision.transforms.v2")

    def mixes(self, method: str, classes: int) -> list[Mix]:
        """See ``Peer``."""
        transform = {"mixup": self.v2.MixUp, "cutmix": self.v2.CutMix}[method]
        return [Mix("v2", transform(alpha=ALPHA[method], num_classes=classes))]

    def normaliser(self, dtype: torch.dtype) -> Images:
        """See ``Peer``."""
        steps = [self.v2.ToDtype(dtype, scale=True), self.v2.Normalize(list(MEAN), list(STD))]
        composed: Images = self.v2.Compose(steps)
        return composed


class Kornia:
    """kornia's mixes of a batch; MixUp draws its weight uniformly, since it takes no alpha."""

    name: ClassVar[str] = "kornia"

    def __init__(self, device: torch.device) -> None:
        self.version = importlib.metadata.version("kornia")
        self.device = device
        self.augmentation = importlib.import_module("kornia.augmentation")

    def mixes(self, method: str, classes: int) -> list[Mix]:
        """See ``Peer``."""
        keys = ["input", "class"]
        if method == "mixup":
            return [Mix("V2", self.augmentation.RandomMixUpV2(data_keys=keys))]
        right = {"use_correct_lambda": True}
        return [Mix("V2", self.augmentation.RandomCutMixV2(beta=ALPHA[method], data_keys=keys, **right))]

    def normaliser(self, dtype: torch.dtype) -> Images:
        """See ``Peer``."""
        mean, std = (torch.tensor(values, device=self.device, dtype=dtype) for values in (MEAN, STD))
        normalise = self.augmentation.Normalize(mean=mean, std=std, p=1.0).to(self.device)
        return lambda x: normalise(x.to(dtype) / 255)


class Keras:
    """The layers of Keras 3 on torch; the caller makes labels one-hot. CutMix draws its weight uniformly."""

    name: ClassVar[str] = "Keras"

    def __init__(self, device: torch.device) -> None:
        # Both are read when Keras is imported, and have to be said before.
        os.environ.setdefault("KERAS_BACKEND", "torch")
        os.environ.setdefault("KERAS_TORCH_DEVICE", device.type)
        self.version = importlib.metadata.version("keras")
        keras: Any = importlib.import_module("keras")
        if keras.backend.backend() != "torch":
            raise RuntimeError(f"Keras is loaded with the backend {keras.backend.backend()}, not torch")
        self.layers = keras.layers

    def mixes(self, method: str, classes: int) -> list[Mix]:
        """See ``Peer``."""
        layer = functools.cache(functools.partial(self._layer, method))

        def call(x: Tensor, y: Tensor) -> tuple[Tensor, Any]:
            made = layer(x.dtype)({"images": x, "labels": F.one_hot(y, classes).float()}, training=True)
            return made["images"], made["labels"]

        return [Mix("layer", call)]

    def _layer(self, method: str, dtype: torch.dtype) -> Any:
        form = {"dtype": _name_of(dtype), "data_format": "channels_first"}
        return self.layers.MixUp(ALPHA[method], **form) if method == "mixup" else self.layers.CutMix(**form)

    def normaliser(self, dtype: torch.dtype) -> Images:
        """See ``Peer``."""
        scale = self.layers.Rescaling(1 / 255, dtype=_name_of(dtype))
        form = {"mean": list(MEAN), "variance": [std * std for std in STD], "dtype": _name_of(dtype)}
        normalise = self.layers.Normalization(axis=1, **form)
        return lambda x: normalise(scale(x))


def _name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


class Composer:
    """What Composer publishes as its formula, written anew: one weight a batch, dense targets.

    The package itself is not called: it pins versions of torch that leave no other peer beside it.
    """

    name: ClassVar[str] = "Composer"

    def __init__(self, device: torch.device) -> None:
        self.version = "its published formula"
        self.device = device
        self.beta = importlib.import_module("numpy").random.default_rng(0).beta

    def mixes(self, method: str, classes: int) -> list[Mix]:
        """See ``Peer``."""
        return [Mix("formula", self._mixup(classes) if method == "mixup" else self._cutmix(classes))]

    def _mixup(self, classes: int) -> Callable[[Tensor, Tensor], tuple[Tensor, Any]]:
        def call(x: Tensor, y: Tensor) -> tuple[Tensor, Any]:
            drawn = self.beta(ALPHA["mixup"], ALPHA["mixup"])
            of_partner, perm = min(drawn, 1 - drawn), torch.randperm(len(x), device=x.device)
            mixed = (1 - of_partner) * x + of_partner * x[perm]
            return mixed, _dense(y, perm, of_partner, classes)

        return call

    def _cutmix(self, classes: int) -> Callable[[Tensor, Tensor], tuple[Tensor, Any]]:
        def call(x: Tensor, y: Tensor) -> tuple[Tensor, Any]:
            height, width = x.shape[-2:]
            half = (1 - self.beta(ALPHA["cutmix"], ALPHA["cutmix"])) ** 0.5 / 2
            row, column = torch.randint(height, (1,)).item(), torch.randint(width, (1,)).item()
            top, bottom = max(0, int(row - half * height)), min(height, int(row + half * height))
            left, right = max(0, int(column - half * width)), min(width, int(column + half * width))
            perm, mixed = torch.randperm(len(x), device=x.device), x.clone()
            mixed[..., top:bottom, left:right] = x[perm][..., top:bottom, left:right]
            share = (bottom - top) * (right - left) / (height * width)
            return mixed, _dense(y, perm, share, classes)

        return call

    def normaliser(self, dtype: torch.dtype) -> Images:
        """See ``Peer``."""
        return _in_place(self.device, dtype)


def _dense(y: Tensor, perm: Tensor, of_partner: float, classes: int) -> Tensor:
    one_hot = F.one_hot(y, classes).float()
    return (1 - of_partner) * one_hot + of_partner * one_hot[perm]


PEERS: tuple[type[Peer], ...] = (Fastai, Timm, Torchvision, Kornia, Keras, Composer)
