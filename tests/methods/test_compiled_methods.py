"""A training step that mixes by a plan compiles without a graph break, for every method that is there.

Drawing stays outside: it hashes a seed and a step on the host.
"""

from __future__ import annotations

import pytest
import torch
from test_contract import METHODS, VALUES, make, name_of, samples, targets
from torch import Tensor
from torch.nn import functional as F

from batchmix import Mixer, MixPlan


@pytest.mark.parametrize("name", METHODS)
def test_a_training_step_of_every_method_compiles_whole(name: str) -> None:
    torch._dynamo.reset()
    method: type[Mixer] = METHODS[name]
    mixer, x, y = make(method, seed=0), samples(method, 5, torch.float32), targets(method, 5)
    plan = mixer.plan(x, y)
    classes = 1 if name_of(method) in VALUES else 5
    head = torch.randn(x[0].numel(), classes, generator=torch.Generator().manual_seed(1), requires_grad=True)

    def step(x: Tensor, y: Tensor, *parts: Tensor | None) -> Tensor:
        mixed, target = mixer(x, y, plan=MixPlan(*parts))
        output = mixed.flatten(1) @ head
        if classes == 1:
            return F.mse_loss(output.squeeze(1), target.float())
        return F.cross_entropy(output, target)

    parts = plan.partner, plan.lam, plan.mask, plan.window
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    losses = compiled(x, y, *parts), step(x, y, *parts)
    gradients = [torch.autograd.grad(loss, head)[0] for loss in losses]
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*gradients)
    assert (plan.lam < 1).any()
