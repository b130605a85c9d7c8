"""A step with a mixed target compiles without a graph break and computes what the eager step computes."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from batchmix import MixedTarget, MixPlan, MixUpLoss, blend, mixed_loss

FORMS = {
    "function": F.cross_entropy,
    "wrapped": MixUpLoss(nn.CrossEntropyLoss(weight=torch.linspace(0.5, 2, 5), label_smoothing=0.1)),
    "mse": lambda output, target: F.mse_loss(output, target.map(lambda y: F.one_hot(y, 5).float())),
}


def parts() -> tuple[Tensor, MixedTarget]:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randint(5, (2, 6), generator=generator)
    return torch.randn(6, 4, generator=generator), MixedTarget(a, b, torch.rand(6, generator=generator))


def loss_and_gradients(form: str, backend: str | None) -> tuple[Tensor, ...]:
    torch._dynamo.reset()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 5))
    loss_fn = copy.deepcopy(FORMS[form])

    def step(x: Tensor, target: MixedTarget) -> Tensor:
        return loss_fn(model(x), target)

    run = step if backend is None else torch.compile(step, fullgraph=True, backend=backend)
    loss = run(*parts())
    loss.backward()
    return loss.detach(), *(parameter.grad for parameter in model.parameters())


@pytest.mark.parametrize("form", FORMS)
def test_a_training_step_compiles_whole(form: str) -> None:
    compiled, eager = (loss_and_gradients(form, backend) for backend in ("aot_eager", None))
    torch.testing.assert_close(compiled, eager)


@pytest.mark.parametrize("autocast", [False, True])
def test_a_loss_of_half_precision_compiles_whole(autocast: bool) -> None:
    torch._dynamo.reset()
    x, target = parts()
    logits = torch.cat([x, x], 1)[:, :5].bfloat16()

    def loss(logits: Tensor, target: MixedTarget) -> Tensor:
        return mixed_loss(F.cross_entropy, logits, target)

    with torch.autocast("cpu", enabled=autocast):
        compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")(logits, target)
        torch.testing.assert_close(compiled, loss(logits, target))
    assert compiled.dtype == (torch.float32 if autocast else torch.bfloat16)


def test_blending_compiles_whole() -> None:
    torch._dynamo.reset()
    x, target = parts()
    partner = torch.tensor([1, 0, 3, 2, 5, 4])

    def mix(x: Tensor, partner: Tensor, lam: Tensor) -> Tensor:
        return blend(x, MixPlan(partner, lam))

    compiled = torch.compile(mix, fullgraph=True, backend="aot_eager")(x, partner, target.lam)
    torch.testing.assert_close(compiled, mix(x, partner, target.lam))


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("kind", ["pasted", "weighed", "resized"])
def test_blending_by_a_mask_compiles_whole(kind: str, grad: bool) -> None:
    torch._dynamo.reset()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 2, 4, 6, generator=generator, requires_grad=grad)
    partner, mask = torch.tensor([1, 2, 0]), torch.rand(3, 1, 4, 6, generator=generator)
    window = torch.tensor([[0, 4, 0, 6], [1, 3, 2, 5], [0, 1, 0, 6]]) if kind == "resized" else None
    mask = mask if kind == "weighed" else mask > 0.5
    lam = mask.double().mean((1, 2, 3)).float()

    def mix(x: Tensor, partner: Tensor, lam: Tensor, mask: Tensor, window: Tensor | None) -> Tensor:
        return blend(x, MixPlan(partner, lam, mask, window))

    compiled = torch.compile(mix, fullgraph=True, backend="aot_eager")(x, partner, lam, mask, window)
    torch.testing.assert_close(compiled, mix(x, partner, lam, mask, window))
    if grad:
        (one,) = torch.autograd.grad(compiled.square().sum(), x)
        (two,) = torch.autograd.grad(mix(x, partner, lam, mask, window).square().sum(), x)
        torch.testing.assert_close(one, two)


def in_a_step(logits: Tensor, target: MixedTarget) -> Tensor:
    return F.cross_entropy(logits, target)


@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize("loss", [F.cross_entropy, in_a_step])
def test_the_loss_compiles_with_the_default_backend(loss: Callable[..., Tensor]) -> None:
    torch._dynamo.reset()
    _, target = parts()
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(1))
    compiled = torch.compile(loss, fullgraph=True)(logits, target)
    torch.testing.assert_close(compiled, loss(logits, target))
