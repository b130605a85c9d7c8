"""Manifold mixup: which layer, what is mixed there, and that nothing stays behind."""

from __future__ import annotations

import copy
import io
import pickle
from collections import Counter, OrderedDict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.distributed
import torch.nn.functional as F
from scipy import stats
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.checkpoint import checkpoint

import reference
from batchmix import CutMix, MixedTarget, MixError, Mixup, off_after
from batchmix.manifold import INPUT, ManifoldMixup

X = torch.rand(6, 4, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 0, 1, 2])

pytestmark = pytest.mark.usefixtures("unmoved_global_rng")


@pytest.fixture
def model() -> nn.Module:
    with torch.random.fork_rng():
        layers = {"first": nn.Linear(4, 8), "act": nn.ReLU(), "last": nn.Linear(8, 3)}
    generator = torch.Generator().manual_seed(1)
    model = nn.Sequential(OrderedDict(layers))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


def mixup(seed: int = 0, **options: object) -> Mixup:
    return Mixup(1.0, partner="derangement", seed=seed, **options)


def hooks_of(model: nn.Module) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.modules())


def by_hand(model: nn.Module, place: str) -> Tensor:
    """The forward pass, layer by layer, mixed at ``place`` by the first plan of ``mixup()``."""
    plan = mixup().plan(X)
    h = X
    for name, layer in [(INPUT, nn.Identity()), *model.named_children()]:
        h = layer(h)
        if name == place:
            h = reference.blend(h, plan.partner, plan.lam).float()
    return h


@pytest.mark.parametrize("place", [INPUT, "first", "act", "last"])
def test_the_place_alone_is_mixed_and_the_target_by_the_same_plan(model: nn.Module, place: str) -> None:
    layers, with_input = ([], True) if place == INPUT else (place, False)
    manifold = ManifoldMixup(model, layers, mixer=mixup(), with_input=with_input)
    with manifold(X, Y) as target:
        logits = model(X)
    torch.testing.assert_close(logits, by_hand(model, place))
    assert manifold.place == place
    plan = mixup().plan(X)
    assert torch.equal(target.a, Y)
    assert torch.equal(target.b, Y[plan.partner])
    assert torch.equal(target.lam, plan.lam)
    assert not torch.equal(logits, model(X))


def test_the_plan_of_a_batch_can_be_replayed(model: nn.Module) -> None:
    manifold = ManifoldMixup(model, "first", mixer=mixup(schedule=off_after(1)))
    assert manifold.plan is None
    for lam in (mixup().plan(X).lam, torch.ones(6)):  # the second batch is not mixed
        with manifold(X, Y) as target:
            model(X)
        assert torch.equal(manifold.plan.lam, lam)
        replayed = MixedTarget.from_plan(Y, manifold.plan)
        assert all(map(torch.equal, replayed, target))


@pytest.mark.parametrize("place", ["first", "act", "last"])
def test_gradients_are_those_of_the_mixed_forward_pass(model: nn.Module, place: str) -> None:
    twin = copy.deepcopy(model)
    manifold = ManifoldMixup(model, place, mixer=mixup(), with_input=False)
    with manifold(X, Y) as target:
        loss = F.cross_entropy(model(X), target)
    loss.backward()
    F.cross_entropy(by_hand(twin, place), MixedTarget.from_plan(Y, mixup().plan(X))).backward()
    for one, two in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad)


def test_manifold_mixup_1_and_2_the_output_changes_and_not_the_target_alone(model: nn.Module) -> None:
    """Its hook returned nothing, so that the features stayed as they were and only the targets were mixed."""
    clean = model(X)
    for place in ("first", "act", "last"):
        with ManifoldMixup(model, place, mixer=mixup(), with_input=False)(X, Y) as target:
            mixed = model(X)
        assert (target.lam < 1).all()
        assert (mixed != clean).any(1).all()


def test_torchbearer_the_model_is_as_before_after_every_block(model: nn.Module) -> None:
    """Its callback replaced ``forward`` and never put it back, so that evaluation was mixed too."""
    before, forwards = model(X), [part.forward for part in model.modules()]
    manifold = ManifoldMixup(model, nn.Module, mixer=mixup())
    for _ in range(20):
        with manifold(X, Y):
            model(X)
        assert hooks_of(model) == 0
        assert torch.equal(model(X), before)
    assert [part.forward for part in model.modules()] == forwards


def test_an_error_in_the_forward_pass_leaves_nothing_behind(model: nn.Module) -> None:
    before = model(X)
    manifold = ManifoldMixup(model, ["first", "act"], mixer=mixup())
    for _ in range(8):
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), manifold(X, Y):
            model(X[:, :3])
        assert hooks_of(model) == 0
    with pytest.raises(KeyboardInterrupt), manifold(X, Y):
        raise KeyboardInterrupt
    assert hooks_of(model) == 0
    assert torch.equal(model(X), before)


def test_the_model_is_pickled_and_copied_after_a_block(model: nn.Module) -> None:
    manifold = ManifoldMixup(model, "first", mixer=mixup())
    with manifold(X, Y):
        model(X)
    for twin in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert torch.equal(twin(X), model(X))
    saved = io.BytesIO()
    torch.save(model, saved)
    twin = pickle.loads(pickle.dumps(manifold))
    with twin(X, Y) as one:
        twin.model(X)
    with manifold(X, Y) as two:
        model(X)
    assert torch.equal(one.lam, two.lam)


@pytest.mark.parametrize("place", [INPUT, "act"])
def test_a_copy_made_inside_of_a_block_is_not_mixed(model: nn.Module, place: str) -> None:
    layers = [] if place == INPUT else [place]
    mixed = by_hand(model, place)
    with ManifoldMixup(model, layers, mixer=mixup(), with_input=place == INPUT)(X, Y):
        twins = [copy.deepcopy(model), pickle.loads(pickle.dumps(model)), AveragedModel(model).module]
        torch.testing.assert_close(model(X), mixed)
    for twin in twins:
        torch.testing.assert_close(twin(X), model(X))
        assert twin(X[:2]).shape == (2, 3)
        with ManifoldMixup(twin, layers, mixer=mixup(), with_input=place == INPUT)(X, Y):
            torch.testing.assert_close(twin(X), mixed)


def test_a_block_inside_a_block_is_refused_and_the_first_goes_on(model: nn.Module) -> None:
    one = ManifoldMixup(model, "first", mixer=mixup(), with_input=False)
    two = ManifoldMixup(model, "last", mixer=mixup(1), with_input=False)
    for second in (one, two):
        with one(X, Y, step=0):
            with pytest.raises(MixError, match=r"^model takes one block of ManifoldMixup at a time, got "):
                second(X, Y).__enter__()
            logits = model(X)
        torch.testing.assert_close(logits, by_hand(model, "first"))
        assert hooks_of(model) == 0
    other = copy.deepcopy(model)
    with one(X, Y), ManifoldMixup(other, "last", mixer=mixup())(X, Y):  # two models, as of a GAN
        model(X), other(X)


def test_a_block_in_which_the_layer_does_not_run_is_an_error_and_not_a_mixed_target_alone(
    model: nn.Module,
) -> None:
    manifold = ManifoldMixup(model, "last", mixer=mixup(), with_input=False)
    with (
        pytest.raises(MixError, match=r"^layers takes modules that run in each block, 'last' did not"),
        manifold(X, Y),
    ):
        model.first(X)
    with pytest.raises(MixError, match="'<input>' did not"), ManifoldMixup(model, [], mixer=mixup())(X, Y):
        pass
    assert hooks_of(model) == 0


def test_a_model_compiled_before_does_not_go_unmixed_in_silence(model: nn.Module) -> None:
    compiled = torch.compile(model, backend="eager")
    clean = compiled(X)
    with pytest.raises(MixError, match=r"^model takes one that is not compiled"):
        ManifoldMixup(compiled, "first", mixer=mixup())
    manifold = ManifoldMixup(model, "first", mixer=mixup(), with_input=False)
    try:
        with manifold(X, Y):
            mixed = compiled(X)
    except MixError as error:
        assert "did not" in str(error)  # noqa: PT017
    else:
        torch.testing.assert_close(mixed, by_hand(model, "first"))
    assert torch.equal(compiled(X), clean)
    torch.compiler.reset()


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize("warm", [True, False])
@torch.no_grad()  # with a graph, torch's compiler warns of itself
def test_a_compiled_block_is_a_place_and_what_is_inside_is_refused(
    model: nn.Module, in_place: bool, warm: bool
) -> None:
    torch.compiler.reset()
    by_layers = {place: by_hand(model, place) for place in ("first", "act")}
    model.first = nn.Sequential(model.first)
    if in_place:
        model.first.compile(backend="eager")
    else:
        model.first = torch.compile(model.first, backend="eager")
    inside = "first.0" if in_place else "first._orig_mod.0"
    if warm:
        model(X)
    for layers in (inside, ["last", inside], nn.Linear):
        with pytest.raises(
            MixError, match=rf"^layers takes compiled blocks as a whole, .* '{inside}' [^\n]*$"
        ):
            ManifoldMixup(model, layers, mixer=mixup())
    for place in ("first", "act"):
        manifold = ManifoldMixup(model, place, mixer=mixup(), with_input=False)
        for step in range(3):  # that of step 0 is what by_hand has
            with manifold(X, Y, step=step):
                mixed = model(X)
            assert torch.allclose(mixed, by_layers[place]) == (step == 0)
        torch.testing.assert_close(model(X), model.last(model.act(model.first(X))))
    torch.compiler.reset()


def test_a_block_with_a_compiled_part_is_a_place(model: nn.Module) -> None:
    torch.compiler.reset()
    expected = by_hand(model, "first")
    model.first = nn.Sequential(torch.compile(model.first, backend="eager"))
    manifold = ManifoldMixup(model, "first", mixer=mixup(), with_input=False)
    for _ in range(2):
        with manifold(X, Y, step=0):
            torch.testing.assert_close(model(X), expected)
    torch.compiler.reset()


def test_every_forward_pass_of_a_block_is_mixed_by_the_same_plan(model: nn.Module) -> None:
    manifold = ManifoldMixup(model, "act", mixer=mixup(), with_input=False)
    with manifold(X, Y):
        one, two = model(X), model(X)
    assert torch.equal(one, two)
    torch.testing.assert_close(one, by_hand(model, "act"))


def test_each_place_is_drawn_alike_and_apart_from_the_plan(model: nn.Module) -> None:
    manifold = ManifoldMixup(model, ["first", "act"], mixer=mixup())
    drawn = []
    for _ in range(600):
        with manifold(X, Y):
            model(X)
        drawn.append(manifold.place)
    counts = Counter(drawn)
    assert set(counts) == {INPUT, "first", "act"}
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3
    again = Counter(pairwise(drawn))
    assert stats.chi2_contingency([[again[a, b] for b in counts] for a in counts]).pvalue > 1e-3


def test_where_half_of_the_batches_are_mixed_each_place_is_still_drawn_alike(model: nn.Module) -> None:
    manifold = ManifoldMixup(model, ["first", "act"], mixer=mixup(p=0.5))
    drawn = []
    for _ in range(600):
        with manifold(X, Y):
            model(X)
        drawn.append(manifold.place)
    counts = Counter(drawn)
    assert stats.binomtest(counts.pop(None), 600, 0.5).pvalue > 1e-3
    assert set(counts) == {INPUT, "first", "act"}
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3


def test_draws_follow_the_mixers_seed_and_step(model: nn.Module) -> None:
    def draws(manifold: ManifoldMixup, count: int) -> list[object]:
        drawn = []
        for _ in range(count):
            with manifold(X, Y) as target:
                model(X)
            drawn.append((manifold.place, target.lam.tolist()))
        return drawn

    unbroken = draws(ManifoldMixup(model, nn.Module, mixer=mixup(3)), 6)
    first = ManifoldMixup(model, nn.Module, mixer=mixup(3))
    assert draws(first, 3) == unbroken[:3]
    second = ManifoldMixup(model, nn.Module, mixer=mixup(99))
    second.mixer.load_state_dict(first.mixer.state_dict())
    assert draws(second, 3) == unbroken[3:]
    with second(X, Y, step=1) as target:
        model(X)
    assert [(second.place, target.lam.tolist())] == unbroken[1:2]
    assert second.mixer.step == 6


def test_a_batch_that_is_not_mixed_runs_without_hooks(model: nn.Module) -> None:
    manifold = ManifoldMixup(model, "first", mixer=mixup(p=0.0))
    with manifold(X, Y) as target:
        assert hooks_of(model) == 0
        assert torch.equal(model(X), model(X))
    assert manifold.place is None
    assert torch.equal(target.lam, torch.ones(6))
    assert manifold.mixer.step == 1


@pytest.mark.parametrize(
    ("layers", "places"),
    [
        ("act", ("act",)),
        (["last", "first"], ("first", "last")),
        (nn.Linear, ("first", "last")),
        ((nn.Linear, "act"), ("first", "act", "last")),
        (lambda name, module: name.endswith("st"), ("first", "last")),
        ([lambda name, module: isinstance(module, nn.ReLU), "act"], ("act",)),
    ],
)
def test_layers_are_found_by_name_by_type_and_by_function(
    model: nn.Module, layers: object, places: tuple[str, ...]
) -> None:
    assert ManifoldMixup(model, layers, mixer=mixup()).places == (INPUT, *places)
    assert ManifoldMixup(model, layers, mixer=mixup(), with_input=False).places == places


class Pair(NamedTuple):
    main: Tensor
    rest: str


class Returns(nn.Module):
    """Returns what a function makes of its input."""

    def __init__(self, function: object) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> object:
        return self.function(x)


@pytest.mark.parametrize(
    ("wrap", "unwrap"),
    [
        (lambda x: (x, "rest"), lambda out: out[0]),
        (lambda x: [x, None, x], lambda out: out[0]),
        (lambda x: Pair(x, "rest"), lambda out: out.main),
    ],
)
def test_of_a_tuple_the_first_tensor_is_mixed(wrap: object, unwrap: object) -> None:
    model = nn.Sequential(Returns(wrap), Returns(unwrap))
    with ManifoldMixup(model, "0", mixer=mixup(), with_input=False)(X, Y):
        mixed = model(X)
    plan = mixup().plan(X)
    torch.testing.assert_close(mixed, reference.blend(X, plan.partner, plan.lam).float())


def test_a_recurrent_layer_is_mixed_in_its_output() -> None:
    with torch.random.fork_rng():
        lstm = nn.LSTM(4, 5, batch_first=True)
    model = nn.Sequential(OrderedDict(lstm=lstm, take=Returns(lambda out: out[0])))
    x = torch.rand(6, 7, 4, generator=torch.Generator().manual_seed(2))
    clean = model(x)
    with ManifoldMixup(model, "lstm", mixer=mixup(), with_input=False)(x, Y):
        mixed = model(x)
    plan = mixup().plan(X)
    torch.testing.assert_close(mixed, reference.blend(clean, plan.partner, plan.lam).float())


@pytest.mark.parametrize(
    "returned",
    [
        lambda x: x.sum(0, keepdim=True),
        lambda x: x.T,
        lambda x: x.long(),
        lambda x: {"x": x},
        lambda x: (),
        lambda x: ("rest", x),
    ],
)
def test_an_output_that_cannot_be_mixed_is_named_in_one_line(returned: object) -> None:
    model = nn.Sequential(Returns(returned))
    with (
        pytest.raises(MixError, match=r"^layers takes [^\n]* B = 6, '0' got [^\n]*$"),
        ManifoldMixup(model, "0", mixer=mixup(), with_input=False)(X, Y),
    ):
        model(X)
    assert hooks_of(model) == 0


def test_a_layer_used_twice_in_a_forward_pass_is_named() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.act(self.act(x))

    model = Twice()
    with (
        pytest.raises(MixError, match=r"^layers takes modules that run once .*, 'act' ran twice$"),
        ManifoldMixup(model, "act", mixer=mixup(), with_input=False)(X, Y),
    ):
        model(X)


def test_a_module_of_the_name_input_is_a_layer_like_any_other() -> None:
    model = nn.Sequential(OrderedDict(input=nn.Flatten(), last=nn.ReLU()))
    manifold = ManifoldMixup(model, "input", mixer=mixup(), with_input=False)
    assert manifold.places == ("input",)
    with manifold(X, Y):
        mixed = model(X)
    plan = mixup().plan(X)
    torch.testing.assert_close(mixed, reference.blend(X, plan.partner, plan.lam).float())


class Keywords(nn.Module):
    """Takes ids and images by keyword."""

    def forward(self, *, ids: Tensor, images: Tensor | None = None) -> Tensor:
        return ids if images is None else images


def test_the_input_is_the_first_floating_point_tensor_of_the_call() -> None:
    model = Keywords()
    manifold = ManifoldMixup(model, [], mixer=mixup())
    with manifold(X, Y):
        mixed = model(ids=Y, images=X)
    plan = mixup().plan(X)
    torch.testing.assert_close(mixed, reference.blend(X, plan.partner, plan.lam).float())
    with pytest.raises(MixError, match=r"^with_input takes False where "), manifold(X, Y):
        model(ids=Y)
    assert hooks_of(model) == 0


def test_tokens_are_mixed_behind_their_embedding() -> None:
    with torch.random.fork_rng():
        model = nn.Sequential(OrderedDict(embed=nn.Embedding(10, 4), last=nn.Linear(4, 3)))
    ids = torch.randint(10, (6, 5), generator=torch.Generator().manual_seed(0))
    with ManifoldMixup(model, "embed", mixer=mixup(), with_input=False)(ids, Y) as target:
        mixed = model(ids)
    plan = mixup().plan(X)
    expected = model.last(reference.blend(model.embed(ids), plan.partner, plan.lam).float())
    torch.testing.assert_close(mixed, expected)
    assert torch.equal(target.lam, plan.lam)


def test_half_precision_features_stay_half(model: nn.Module) -> None:
    model = model.bfloat16()
    with ManifoldMixup(model, "first", mixer=mixup(), with_input=False)(X, Y):
        assert model(X.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("place", ["first", "act"])
def test_layers_that_run_again_in_the_backward_pass_are_mixed_again(model: nn.Module, place: str) -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = copy.deepcopy(model)

        def forward(self, x: Tensor) -> Tensor:
            return checkpoint(self.inner, x, use_reentrant=False)

    outer = Checkpointed()
    with ManifoldMixup(outer, f"inner.{place}", mixer=mixup(), with_input=False)(X, Y) as target:
        F.cross_entropy(outer(X), target).backward()
    F.cross_entropy(by_hand(model, place), MixedTarget.from_plan(Y, mixup().plan(X))).backward()
    for one, two in zip(outer.inner.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad)


@pytest.fixture
def one_rank(tmp_path: Path) -> Iterator[None]:
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("one_rank")
@pytest.mark.parametrize("place", [INPUT, "first"])
def test_a_model_in_distributed_data_parallel_is_mixed_by_its_own_names(model: nn.Module, place: str) -> None:
    twin = copy.deepcopy(model)
    parallel = nn.parallel.DistributedDataParallel(model)
    layers, with_input = ([], True) if place == INPUT else (place, False)
    with ManifoldMixup(parallel, layers, mixer=mixup(), with_input=with_input)(X, Y) as target:
        loss = F.cross_entropy(parallel(X), target)
    loss.backward()
    F.cross_entropy(by_hand(twin, place), MixedTarget.from_plan(Y, mixup().plan(X))).backward()
    for one, two in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad)


def test_a_method_that_pastes_is_refused() -> None:
    model = nn.Sequential(nn.Flatten(2))
    x = torch.zeros(6, 3, 8, 8)
    manifold = ManifoldMixup(model, "0", mixer=CutMix(1.0, partner="roll", seed=0))
    with pytest.raises(MixError, match=r"^mixer takes one that mixes whole samples, got CutMix$"):
        manifold(x, Y).__enter__()
    assert hooks_of(model) == 0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": "resnet"}, "model takes a torch.nn.Module"),
        ({"layers": "layer1"}, r"layers takes modules of the model \(first, act, last\)"),
        ({"layers": [nn.Conv2d]}, "layers takes modules of the model"),
        ({"layers": lambda name, module: False}, "layers takes modules of the model"),
        ({"layers": 3}, "layers takes names, types or functions"),
        ({"layers": [nn.ReLU()]}, "layers takes names, types or functions"),
        ({"layers": int}, "layers takes names, types or functions"),
        ({"layers": "", "with_input": False}, "layers takes modules of the model"),
        ({"layers": [], "with_input": False}, "layers takes at least one"),
        ({"mixer": 0.4}, "mixer takes a method"),
        ({"with_input": 1}, "with_input takes True or False"),
    ],
)
def test_a_wrong_argument_is_named_in_one_line(
    model: nn.Module, changed: dict[str, object], message: str
) -> None:
    arguments = {"model": model, "layers": "first", "mixer": mixup(), **changed}
    with pytest.raises(MixError, match=rf"^{message}[^\n]*, got [^\n]*$"):
        ManifoldMixup(**arguments)


@pytest.mark.parametrize(("x", "y"), [(X, Y[:5]), (X, None), (None, Y), (X[:0], Y[:0])])
def test_what_is_no_batch_is_refused_before_anything_is_drawn(model: nn.Module, x: object, y: object) -> None:
    manifold = ManifoldMixup(model, "first", mixer=mixup())
    with pytest.raises(MixError, match="takes"):
        manifold(x, y).__enter__()
    assert manifold.mixer.step == 0
    assert hooks_of(model) == 0
