"""The net that a config names: made, compiled, and made anew in place."""

from __future__ import annotations

import torch

from batchmix.errors import MixError, cut, why
from batchmix.recipe.config import TrainConfig
from batchmix.recipe.network import Net
from batchmix.recipe.residual import ResidualNet
from batchmix.recipe.wide import WideNet

AnyNet = Net | WideNet

IN_GRAPH = "default"  # torch.compile's mode for a net that is part of a captured step


def new_net(config: TrainConfig, num_classes: int = 10) -> AnyNet:
    """A net with fresh weights, on the CPU: a function of the config's seed, which moves no generator."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)  # and not those of GPUs
        if config.net == "wide":
            return WideNet(config.widths, num_classes)
        kind = ResidualNet if config.net == "residual" else Net
        return kind(config.widths, num_classes, config.activation)


def net_on(device: torch.device, config: TrainConfig, num_classes: int = 10) -> AnyNet:
    """A net with fresh weights, on a device and in channels_last, compiled where the config asks for it.

    Raises:
        MixError: If the device cannot do what the config asks for, or has no memory for the net.
    """
    check_device(config, device)
    try:
        net = new_net(config, num_classes).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    except RuntimeError as error:  # of which a CPU's has no type of its own
        if "memory" not in str(error):
            raise
        takes = f"those of a net that there is memory for ({cut(why(error), 160)})"
        raise MixError.of("widths", config.widths, takes) from error
    mode = compile_mode(config, device)
    if mode is not None:
        # In place, so that the names of the weights stay. Shapes are few and fixed: one program for each.
        net.compile(mode=mode, dynamic=False)
    made: AnyNet = net
    return made


def renew(net: AnyNet, config: TrainConfig) -> None:
    """Give a net the weights that ``net_on`` would give it; what is compiled stays so."""
    classes = net.head.out_features
    net.load_state_dict(new_net(config, classes).state_dict())
    net.bias_learns = True
    for parameter in net.parameters():
        parameter.grad = None


def check_device(config: TrainConfig, device: torch.device, ranks: int = 1, *, exact: bool = False) -> None:
    """Refuse what a device, or several processes, cannot compile.

    Raises:
        MixError: If whole steps are to be captured where there is no GPU, or by ranks, which exchange
            gradients; or if ranks are to be exact with a compiled net, which hides its norms.
    """
    if config.compile == "graph" and device.type != "cuda":
        raise MixError.of("compile", config.compile, f"a mode other than graph on the device {device}")
    if config.compile == "graph" and ranks > 1:
        raise MixError.of("compile", config.compile, f"a mode other than graph for {ranks} processes")
    if exact and ranks > 1 and compile_mode(config, device) is not None:
        raise MixError.of("compile", config.compile, "'off' with --exact")


def check_compiler(config: TrainConfig, device: torch.device) -> None:
    """Compile one operation, where the net is to be compiled: a machine may lack what that takes.

    Raises:
        MixError: If it does; the message has the first line of what torch says.
    """
    if compile_mode(config, device) is None:
        return
    try:
        torch.compile(torch.sin, dynamic=False)(torch.zeros(8, device=device))
    except Exception as error:  # of torch, or of the compiler that it calls
        reason = cut(next(iter(str(error).splitlines()), type(error).__name__), 160)
        raise MixError.of("--compile", config.compile, f"'off' on this machine ({reason})") from error


def compile_mode(config: TrainConfig, device: torch.device) -> str | None:
    """torch.compile's mode for a net; None for as it is."""
    if in_graphs(config, device):
        return IN_GRAPH  # the graph of the whole step takes the place of those of the net
    if config.compile in ("auto", "graph"):
        return "reduce-overhead" if device.type == "cuda" else None
    return None if config.compile == "off" else config.compile


def in_graphs(config: TrainConfig, device: torch.device) -> bool:
    """Whether whole steps are captured: AdamW's are not, whose momentum is a number of the host."""
    return device.type == "cuda" and config.compile in ("auto", "graph") and config.optimizer != "adamw"
