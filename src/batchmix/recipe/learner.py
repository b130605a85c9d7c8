"""A net and what it is trained with: what outlives a run, so that its programs serve the next one too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

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
            optimizer.load_state_dict(state)
        self.keep_rates()
        if self.graphs is not None:
            self.graphs = StepGraphs(self._device)

    def renew(self, config: TrainConfig) -> None:
        """Begin anew, for a config that differs in its seed or its length; what is compiled stays so."""
        renew(self.net, config)
        forget(self.optimizers)
