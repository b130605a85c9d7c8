"""Manifold mixup: the output of a layer is mixed instead of the input, at a layer drawn for each batch.

How to use: around the forward pass, with the model itself unchanged:
``manifold = ManifoldMixup(model, ["layer1", "layer2"], mixer=Mixup(2.0, fold=False))``, then for each batch
``with manifold(x, y) as target: loss = F.cross_entropy(model(x), target)``. Outside of the block the model is
as it was, also after an error in it; evaluation needs nothing.
Suggested values: ``alpha`` 2 and the input with the first layers or blocks, for long budgets.
Technical details: one place is drawn for each batch, the input among them unless ``with_input=False``, from
the mixer's own seed and step. The mixing is a part of the graph, and targets are mixed outside of the model
by the same plan. Every forward pass of the block is mixed by that plan. Layers under
``torch.utils.checkpoint`` run again in the backward pass, so call ``backward()`` inside the block there.
Attention masks stay what the model was given, so that of a longer partner no more is seen than the sample's
own length: for texts of different lengths mix the embeddings, ``Mixup`` with their ``"attention_mask"``.
Compiled code does not see hooks: a compiled model is refused, and so is a layer inside of a compiled block;
the block itself can be a layer. Departures from the paper: a weight for each sample where the mixer says so;
the paper has one for the batch, ``Mixup(2.0, per="batch")``.
Paper: Verma, Lamb, Beckham, Najafi, Mitliagkas, Lopez-Paz and Bengio 2019, Manifold Mixup: Better
Representations by Interpolating Hidden States, arXiv:1806.05236.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from batchmix.core.batches import Leaf, check_lengths
from batchmix.core.blending import blend
from batchmix.core.plan import MixPlan, describe
from batchmix.core.targets import MixedTarget
from batchmix.errors import MixError, shorten
from batchmix.mixer import Mixer, check_mixer

Layer = str | type[nn.Module] | Callable[[str, nn.Module], bool]
"""A module's name, all modules of a type, or all for whose name and module a function is true."""

INPUT = "<input>"  # no module can be taken for it


class ManifoldMixup:
    """Mixes a batch at a layer drawn at random, for as long as a ``with`` block lasts.

    A model with gradient checkpointing (``torch.utils.checkpoint``) runs its layers again in ``backward``,
    which then has to be called in the block too: after it the layers would run unmixed.

    Args:
        model: Any module, also inside ``DistributedDataParallel``. Nothing in it is replaced.
        layers: Whose output can be mixed: names as in ``model.named_modules()``, types, or functions of
            (name, module); one of them or several. The output is a tensor (B, ...), or a tuple or list that
            begins with one, which alone is mixed. All of a sample has to pass it: after one of two branches,
            the other would stay as it is.
        mixer: Draws the plans; one that mixes whole samples, such as ``Mixup``, since a layer has its own
            positions.
        with_input: The model's input is one more place: the first floating point tensor that it is given.

    Attributes:
        places: The names of all places, from which one is drawn for each batch.
        place: The one of the last batch; None where it was not mixed.
        plan: Of the last batch, to replay on what belongs to it, such as a teacher's logits,
            ``blend(teacher(x), manifold.plan)``; None before the first.
        mixer: Holds seed and step: ``manifold.mixer.state_dict()`` resumes the same draws.

    Raises:
        MixError: If an argument is not of the form above, or there is no such layer.

    Example:
        >>> import torch, batchmix as bm
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> manifold = ManifoldMixup(model, ["0", nn.ReLU], mixer=bm.Mixup(2.0, seed=0))
        >>> manifold.places
        ('<input>', '0', '1')
        >>> x, y = torch.rand(5, 4), torch.tensor([0, 1, 2, 0, 1])
        >>> with manifold(x, y) as target:
        ...     loss = nn.functional.cross_entropy(model(x), target)

    Source: Verma et al. 2019, arXiv:1806.05236, section 2.
    """

    def __init__(
        self, model: nn.Module, layers: Layer | Sequence[Layer], *, mixer: Mixer, with_input: bool = True
    ) -> None:
        if not isinstance(model, nn.Module):
            raise MixError(f"model takes a torch.nn.Module, got {describe(model)}")
        check_mixer(mixer, "Mixup(2.0)")
        if mixer.normalize is not None:
            raise MixError(
                "mixer takes one without normalize, since the model is given its own input, got "
                f"{shorten(mixer)}"
            )
        if not isinstance(with_input, bool):
            raise MixError.of("with_input", with_input, "True or False")
        self.model = model
        self.mixer = mixer
        names = _names_of(layers, _bare(model), empty_ok=with_input)
        _check_seen(names, _bare(model))
        self.places = ((INPUT,) if with_input else ()) + names
        self.place: str | None = None
        self.plan: MixPlan | None = None

    @contextmanager
    def __call__(self, x: Tensor, y: Tensor, *, step: int | None = None) -> Iterator[MixedTarget]:
        """Mix every forward pass of the block.

        Args:
            x: The batch that the model will be given, (B, ...); its length and device count.
            y: Its targets, (B, ...).
            step: Draw as at this step; the mixer's own stays.

        Yields:
            The mixed target, for the loss.

        Raises:
            MixError: If ``x`` and ``y`` are not a batch, a block is open already, the layer's output cannot
                be mixed, the layer runs twice in a forward pass, or it has not run when the block ends.
        """
        check_lengths([Leaf("x", x, "input"), Leaf("y", y, "soft")])
        model = _bare(self.model)
        _check_free(model)
        draws = self.mixer._take(step)
        plan = self.mixer._plan(draws, x, y, between=False, normalize=None)
        if plan is None:
            self.place, self.plan = None, MixPlan.identity(len(x), y.device)
            yield MixedTarget.from_plan(y, self.plan)
            return
        if plan.mask is not None:
            raise MixError(f"mixer takes one that mixes whole samples, got {type(self.mixer).__name__}")
        self.plan = plan
        self.place = self.places[int(draws.fork("place").coin * len(self.places))]
        hook = _Hook(self.place, plan)
        handles = [model.register_forward_pre_hook(hook.begin, with_kwargs=True)]
        if self.place != INPUT:
            handles.append(model.get_submodule(self.place).register_forward_hook(hook.after))
        try:
            yield MixedTarget.from_plan(y, plan)
        finally:
            for handle in handles:
                handle.remove()
        if not hook.ran:
            raise MixError(
                f"layers takes modules that run in each block, {hook.place!r} did not: nothing was mixed but "
                "the target (the model was not called there, or it is compiled)"
            )

    def __repr__(self) -> str:
        return f"ManifoldMixup({type(self.model).__name__}, {list(self.places)}, mixer={self.mixer!r})"


class _Hook:
    """Mixes at one place, once in each forward pass of the model; by no plan, never."""

    def __init__(self, place: str, plan: MixPlan) -> None:
        self.place = place
        self.plan: MixPlan | None = plan
        self.ran = False  # in the block
        self.done = False  # in this forward pass

    def begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Before the model: a new forward pass; its first floating point tensor is the input."""
        self.done = False
        if self.place != INPUT or self.plan is None:
            return None
        self.ran = True
        for index, value in enumerate(args):
            if isinstance(value, Tensor) and value.is_floating_point():
                return (*args[:index], self.mix(value, self.plan), *args[index + 1 :]), kwargs
        for name, value in kwargs.items():
            if isinstance(value, Tensor) and value.is_floating_point():
                return args, {**kwargs, name: self.mix(value, self.plan)}
        raise MixError("with_input takes False where the model is given no floating point tensor, got True")

    def after(self, module: nn.Module, args: Any, output: Any) -> Any:
        """After the layer: what it returns, mixed."""
        if self.plan is None:
            return None
        if self.done and not _in_backward():
            raise MixError(f"layers takes modules that run once in a forward pass, {self.place!r} ran twice")
        self.ran = self.done = True
        if isinstance(output, (tuple, list)) and output:
            mixed = [self.mix(output[0], self.plan), *output[1:]]
            return type(output)(*mixed) if hasattr(output, "_fields") else type(output)(mixed)
        return self.mix(output, self.plan)

    def mix(self, value: Any, plan: MixPlan) -> Tensor:
        size = len(plan)
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.shape[:1] != (size,):
            raise MixError(
                f"layers takes places with a floating point tensor (B, ...) of B = {size}, "
                f"{self.place!r} got {describe(value)}"
            )
        return blend(value, plan.to(value.device))

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "plan": None}  # nobody takes it from a copy of the model that the block was for


def _in_backward() -> bool:
    """A layer under ``torch.utils.checkpoint`` runs again there, to the same output."""
    return bool(torch._C._current_graph_task_id() != -1)


def _bare(model: nn.Module) -> nn.Module:
    """The model inside ``DistributedDataParallel``; a compiled one is refused."""
    bare = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
    if _is_compiled(bare):
        raise MixError(
            "model takes one that is not compiled, since compiled code does not see hooks, got one"
        )
    return bare


def _is_compiled(module: nn.Module) -> bool:
    """By ``torch.compile``, or in place."""
    return "_orig_mod" in module._modules or getattr(module, "_compiled_call_impl", None) is not None


def _check_seen(names: tuple[str, ...], model: nn.Module) -> None:
    """A hook of a compiled block stands around its code, one inside is unseen once the block ran without."""
    for name in names:
        above, _, last = name.rpartition(".")
        if last == "_orig_mod":  # the block itself, in its wrapper
            above = above.rpartition(".")[0]
        parts = above.split(".")
        blocks = (".".join(parts[:depth]) for depth in range(1, len(parts) + 1))
        if above and any(_is_compiled(model.get_submodule(block)) for block in blocks):
            raise MixError(
                "layers takes compiled blocks as a whole, since compiled code does not see hooks, "
                f"got {name!r} inside of one"
            )


def _check_free(model: nn.Module) -> None:
    """Two blocks over one model would mix twice and have one target each."""
    for module in model.modules():
        for hook in (*module._forward_pre_hooks.values(), *module._forward_hooks.values()):
            ours = getattr(hook, "__self__", None)
            if isinstance(ours, _Hook) and ours.plan is not None:
                raise MixError(
                    "model takes one block of ManifoldMixup at a time, got a second inside the first"
                )


def _names_of(layers: Any, model: nn.Module, *, empty_ok: bool) -> tuple[str, ...]:
    """The names of all modules that are asked for, in the model's order."""
    wanted = layers if isinstance(layers, (tuple, list, set, frozenset)) else [layers]
    modules = {name: module for name, module in model.named_modules() if name}
    found: set[str] = set()
    for layer in wanted:
        if isinstance(layer, str):
            names = [layer] if layer in modules else []
        elif isinstance(layer, type) and issubclass(layer, nn.Module):
            names = [name for name, module in modules.items() if isinstance(module, layer)]
        elif callable(layer) and not isinstance(layer, (type, nn.Module)):
            names = [name for name, module in modules.items() if layer(name, module)]
        else:
            raise MixError(f"layers takes names, types or functions of (name, module), got {describe(layer)}")
        if not names:
            outermost = sorted(modules, key=lambda name: name.count("."))
            there = shorten(", ".join(outermost), 120).strip("'")
            raise MixError(f"layers takes modules of the model ({there}), got {describe(layer)}")
        found.update(names)
    if not found and not empty_ok:
        raise MixError(f"layers takes at least one name, type or function, got {describe(layers)}")
    return tuple(name for name in modules if name in found)
