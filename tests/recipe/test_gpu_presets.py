"""What the presets for one GPU are made of, at sizes for a CPU; no step waits for the device."""

from __future__ import annotations

import pytest
import torch
from tiny_runs import finish, identical, made_up, start, tiny, weights
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import batchmix as bm
from batchmix.errors import MixError
from batchmix.recipe import nets
from batchmix.recipe.images import without_waiting
from batchmix.recipe.muon import update_together
from batchmix.recipe.nets import check_device, compile_mode, in_graphs, net_on, new_net
from batchmix.recipe.network import Net
from batchmix.recipe.optimizers import make_optimizers
from batchmix.recipe.residual import ResidualNet
from batchmix.recipe.schedules import momentum_at, rate_at
from batchmix.recipe.training import Training, autocast_for, load_checkpoint, save_checkpoint
from batchmix.recipe.wide import WideNet

CPU = torch.device("cpu")
WIDE = {"net": "wide", "optimizer": "adamw", "schedule": "one-cycle", "filter_lr": 3e-3, "weight_decay": 0.2}
KINDS = {
    "residual": {"net": "residual", "mix": "cutmix", "square": 14, "p_sample": 0.5, "shift": 4},
    "wide": WIDE,
    "sgd": {"optimizer": "sgd", "filter_lr": 0.0015, "schedule": "triangle", "mix": "none"},
}


class NoQuestions(TorchDispatchMode):
    """Fails on an operator whose result, or the size of it, the host has to wait for."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        asks = {"_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "equal", "_unique2"}
        assert func.overloadpacket.__name__ not in asks, func
        if func is torch.ops.aten.index.Tensor:
            assert not any(index is not None and index.dtype == torch.bool for index in args[1])
        return func(*args, **(kwargs or {}))


def test_the_check_can_fail():
    with pytest.raises(AssertionError), NoQuestions():
        torch.ones(1).item()


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [16, 21, 32])
@pytest.mark.parametrize(
    "net", [ResidualNet((8, 16, 4), 7), WideNet((8, 16, 16), 7)], ids=["residual", "wide"]
)
def test_logits_for_every_size(net, size):
    assert net(random(2, 3, size, size)).shape == (2, 7)


def test_the_article_s_net_is_wrn_22_6():
    net = WideNet()
    layers = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d) and m.kernel_size == (3, 3)]
    shortcuts = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d) and m.kernel_size == (1, 1)]
    assert (len(layers), len(shortcuts)) == (1 + 18, 3)
    assert [conv.out_channels for conv in layers[1::6]] == [96, 192, 384]
    assert net.blocks(net.stem(torch.empty(1, 3, 32, 32))).shape[-2:] == (8, 8)


def test_a_residual_block_adds_what_its_first_convolution_gave():
    block = ResidualNet((8, 8, 8)).blocks[1].eval()
    x, act = random(2, 8, 6, 6), block.activation
    first = act(block.norm1(F.max_pool2d(block.conv1(x), 2)))
    torch.testing.assert_close(block(x), act(act(first / (1 + 1e-12) ** 0.5) + first), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_learnable_set_is_learned(kind):
    reports = finish(start(epochs=8, widths=(16, 16, 16), **{**KINDS[kind], "mix": "none"}))
    assert min(report.loss for report in reports[-4:]) < 0.9 * reports[0].loss
    assert reports[-1].accuracy > reports[0].accuracy


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_ends_with_the_weights_of_an_unbroken_one(tmp_path, kind):
    unbroken, first, second = (start(**KINDS[kind]) for _ in range(3))
    finish(unbroken)
    list(first.run(stop=lambda: first.step == 5))
    save_checkpoint(first, tmp_path / "checkpoint.pt")
    second.load_state_dict(load_checkpoint(tmp_path / "checkpoint.pt"))
    second.run_through()
    assert identical(weights(second), weights(unbroken))


@pytest.mark.parametrize("kind", [*KINDS, "muon"])
def test_a_learner_made_anew_in_place_trains_as_a_fresh_one(kind):
    config = tiny(seed=3, **KINDS.get(kind, {}))
    fresh = Training(config, *made_up(200), CPU)
    used = start(**KINDS.get(kind, {}))
    finish(used)
    used.learner.renew(config)
    again = Training(config, *made_up(200), CPU, learner=used.learner)
    for training in (fresh, again):
        training.run_through()
    assert again.net is used.net
    assert identical(weights(fresh), weights(again))


@pytest.mark.parametrize(
    "change", [{"label_smoothing": 0.1}, {"widths": (8, 8, 12)}, {"precision": "float32"}]
)
def test_a_learner_refuses_a_config_that_what_it_captured_would_not_follow(change):
    learner, (name,) = start().learner, change
    config = tiny(**change)
    with pytest.raises(MixError, match=f"^learner takes .*, got another {name}$"):
        learner.renew(config)
    with pytest.raises(MixError, match=f"^learner takes .*, got another {name}$"):
        Training(config, *made_up(200), CPU, learner=learner)
    learner.check(tiny(seed=9, epochs=1))


def test_a_state_from_another_device_leaves_an_optimizer_as_the_device_has_it():
    here, other = start(), start()
    sgd = here.optimizers[0]
    for group in sgd.param_groups:
        group["fused"] = True  # as on a GPU
    here.learner.load([optimizer.state_dict() for optimizer in other.optimizers])
    assert [group["fused"] for group in sgd.param_groups] == [True] * len(sgd.param_groups)
    assert all("fused" not in group for group in here.optimizers[1].param_groups)


def test_several_processes_refuse_what_they_cannot_compile():
    gpu = torch.device("cuda")
    for config, ranks, exact, takes in (
        (tiny(compile="graph"), 2, False, "a mode other than graph for 2 processes, got 'graph'"),
        (tiny(compile="default"), 2, True, "'off' with --exact, got 'default'"),
    ):
        with pytest.raises(MixError, match=f"^compile takes {takes}$"):
            check_device(config, gpu, ranks, exact=exact)
        check_device(config, gpu, exact=exact)  # one process may
    check_device(tiny(compile="auto"), CPU, 2, exact=True)  # which is off there


def test_squares_are_pasted_and_their_share_is_exact():
    training = start(mix="cutmix", square=8, p_sample=0.5, sizes=(32,), batch_size=200)
    x, labels = training.batches.at(0, 32)
    mixed, y = training.mixup(x, labels)
    changed = y.lam < 1
    assert isinstance(training.mixup, bm.CutMix)
    assert 60 < changed.sum() < 140
    assert torch.equal(y.lam[changed], torch.full_like(y.lam[changed], 1 - 64 / 1024))
    assert ((mixed != x).any(1).sum((1, 2)) <= 64).all()


@pytest.mark.parametrize("kind", [*KINDS, "muon"])
def test_no_step_asks_the_device_anything(kind):
    options = KINDS.get(kind, {})
    if kind == "wide":  # AdamW asks for its count of steps, which torch keeps on the host
        options = {**options, "optimizer": "sgd", "schedule": "linear"}
    training = start(**options)
    training.net.train()
    training.batches.at(0, 16)  # the order of the epoch is drawn on the host
    with NoQuestions():
        training._one_step()


def test_what_is_drawn_on_the_host_travels_from_memory_that_a_gpu_can_read(monkeypatch):
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda x: pinned.append(x) or x)
    monkeypatch.setattr(torch.Tensor, "to", lambda x, device, non_blocking: (x, device, non_blocking))
    x = torch.arange(3)
    assert without_waiting(x, torch.device("cuda")) == (x, torch.device("cuda"), True)
    assert len(pinned) == 1
    without_waiting(x, CPU)
    assert len(pinned) == 1


def test_rates_of_the_schedules():
    for schedule, first, peak, last in (("triangle", 0.2, 0.23, 0.07), ("one-cycle", 0.1, 0.5, 1e-5)):
        rates = [rate_at(schedule, step / 1000) for step in range(1001)]
        assert rates[0] == pytest.approx(first)
        assert rates[round(1000 * peak)] == pytest.approx(1) == max(rates)
        assert rates[-1] == pytest.approx(last)
    assert [momentum_at(share) for share in (0, 0.5, 1)] == pytest.approx([0.95, 0.85, 0.95])


def test_one_cycle_is_torch_s():
    weight = torch.nn.Parameter(torch.zeros(1))
    adam = torch.optim.AdamW([weight], lr=3e-3, betas=(0.9, 0.99))
    torchs = torch.optim.lr_scheduler.OneCycleLR(
        adam, 3e-3, total_steps=102, pct_start=0.5, div_factor=10, final_div_factor=1e4
    )
    for step in range(102):
        progress = 0.5 + (step - 50) / (100 if step < 50 else 102)  # torch's halves have 50 and 51 steps
        assert adam.param_groups[0]["lr"] == pytest.approx(3e-3 * rate_at("one-cycle", progress))
        assert adam.param_groups[0]["betas"][0] == pytest.approx(momentum_at(progress))
        adam.step()
        if step < 101:
            torchs.step()


def test_one_cycle_reaches_adamw():
    training = start(**WIDE)
    training._one_step()
    group = training.optimizers[0].param_groups[0]
    assert group["lr"] == pytest.approx(3e-4)
    assert group["betas"] == pytest.approx((0.95, 0.99))


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_that_learns_has_one_optimizer(kind):
    training = start(**KINDS[kind])
    groups = [group for optimizer in training.optimizers for group in optimizer.param_groups]
    given = [id(weight) for group in groups for weight in group["params"]]
    assert sorted(given) == sorted(id(w) for w in training.net.parameters() if w.requires_grad)


def test_a_net_is_compiled_in_place_where_it_is_asked_for(monkeypatch):
    modes = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **options: modes.append(options))
    for mode in ("off", "auto", "reduce-overhead"):
        net_on(CPU, tiny(compile=mode))
    assert modes == [{"mode": "reduce-overhead", "dynamic": False}]


def test_adamw_s_steps_are_not_captured():
    with pytest.raises(MixError, match=r"^compile takes another mode with adamw, got 'graph'$"):
        tiny(compile="graph", **WIDE)


def test_a_graph_needs_a_gpu():
    with pytest.raises(
        MixError, match=r"^compile takes a mode other than graph on the device cpu, got 'graph'$"
    ):
        start(compile="graph")


@pytest.mark.parametrize("mode", ["auto", "graph"])
def test_on_a_gpu_whole_steps_are_captured_where_no_optimizer_counts_on_the_host(mode):
    gpu = torch.device("cuda")
    for optimizer in ("muon", "sgd"):
        config = tiny(compile=mode, optimizer=optimizer)
        assert in_graphs(config, gpu)
        assert not in_graphs(config, CPU)
        assert compile_mode(config, gpu) == "default"
    wide = tiny(compile="auto", **WIDE)
    assert not in_graphs(wide, gpu)
    assert compile_mode(wide, gpu) == "reduce-overhead"
    assert compile_mode(tiny(), gpu) is None
    assert not in_graphs(tiny(), gpu)


def test_rates_are_written_to_where_a_program_reads_them():
    training = start(compile="default")
    rates = [group["lr"] for optimizer in training.optimizers for group in optimizer.param_groups]
    before = [rate.item() for rate in rates]
    training.step = 6  # half of the way
    training._set_rates()
    training.load_state_dict(start().state_dict())  # of a run whose rates were numbers
    assert [rate.item() for rate in rates] == pytest.approx([0.0] + [rate / 2 for rate in before[1:]])
    loaded = [group["lr"] for optimizer in training.optimizers for group in optimizer.param_groups]
    assert all(isinstance(rate, torch.Tensor) for rate in loaded)


def test_a_compiled_run_has_the_losses_of_a_plain_one(monkeypatch):
    """Traced and differentiated as when compiled, without waiting for a compiler of C++."""
    plain = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module,
        "compile",
        lambda self, mode, dynamic: plain(self, backend="aot_eager", dynamic=dynamic),
    )
    monkeypatch.setattr(
        "batchmix.recipe.optimizers.compiled_update",
        lambda: torch.compile(update_together, backend="aot_eager", dynamic=False),
    )
    options = {"mix": "none", "epochs": 2, "precision": "float32"}
    compiled, eager = start(compile="default", **options), start(**options)
    losses = [report.loss for report in finish(eager)]
    assert [report.loss for report in finish(compiled)] == pytest.approx(losses, abs=1e-4)


def test_precision_by_name():
    for precision, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        with autocast_for(CPU, precision)():
            assert F.linear(random(2, 3), random(4, 3)).dtype == dtype


@pytest.mark.usefixtures("unmoved_global_rng")
def test_new_nets_move_no_generator():
    for kind in KINDS.values():
        new_net(tiny(**kind))
    assert type(new_net(tiny())) is Net
    assert nets.net_on(CPU, tiny(**WIDE)).whitening is None
    assert len(make_optimizers(new_net(tiny()), tiny())) == 2
