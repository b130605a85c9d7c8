"""A net and what it is trained with: what outlives a run, so that its programs serve the next one too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import torch

from batchmix.errors import MixError
from batchmix.recipe.config import TrainConfig
from batchmix.recipe.graphs import StepGraphs
from batchmix.recipe.nets import AnyNet, compile_mode, in_graphs, renew
from batchmix.recipe.optimizers import forget, make_optimizers, rates_on


class Learner:
    """What learns.

    Args:
        net: With fresh weights, on the device.
        config: How it learns.
        device: Where.

    Attributes:
        net: The net.
        optimizers: Its optimizers.
        graphs: What captures whole steps; None where they are taken as they are.
    """

    def __init__(self, net: AnyNet, config: TrainConfig, device: torch.device) -> None:
        self.net = net
        self._config = config
        self.optimizers = make_optimizers(self.net, config)
        self.graphs = StepGraphs(device) if in_graphs(config, device) else None
        self._device = device
        self._compiled = compile_mode(config, device) is not None and config.optimizer != "adamw"
        self.keep_rates()

    def keep_rates(self) -> None:
        """Keep the learning rates where a compiled step reads them: as numbers, each were a new program."""
        if self._compiled:
            rates_on(self._device, self.optimizers)

    def load(self, states: Sequence[dict[str, Any]]) -> None:
        """Take over states of the optimizers; what was captured reads where the old ones lie, and goes."""
        for optimizer, state in zip(self.optimizers, states, strict=True):
            fused = [group.get("fused") for group in optimizer.param_groups]
            optimizer.load_state_dict(state)
            for group, here in zip(optimizer.param_groups, fused, strict=True):
                if "fused" in group:  # which is the device's, and the state may come from another
                    group["fused"] = here
        self.keep_rates()
        if self.graphs is not None:
            self.graphs = StepGraphs(self._device)

    def renew(self, config: TrainConfig) -> None:
        """Begin anew, for a config that ``check`` lets pass; what is compiled stays so."""
        self.check(config)
        renew(self.net, config)
        forget(self.optimizers)

    def check(self, config: TrainConfig) -> None:
        """Refuse a config that differs in more than seed and length: what was captured would not follow it.

        Raises:
            MixError: The message names what differs.
        """
        names = [field.name for field in fields(config) if field.name not in ("seed", "epochs")]
        others = [name for name in names if getattr(config, name) != getattr(self._config, name)]
        if others:
            other = ", ".join(others)
            raise MixError(
                f"learner takes a config with another seed or other epochs alone, got another {other}"
            )
