"""The ways to draw a plan, one file each; a file here is found by being here."""

from __future__ import annotations

import importlib
import pkgutil

from batchmix.mixer import Mixer


def discover() -> dict[str, type[Mixer]]:
    """Every method by the name of its file, such as ``{"mixup": Mixup}``."""
    found: dict[str, type[Mixer]] = {}
    for module_info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{module_info.name}")
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, Mixer) and value.__module__ == module.__name__:
                found[module_info.name] = value
    return found
