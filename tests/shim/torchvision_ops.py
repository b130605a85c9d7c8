"""Lets torchvision's wheel import beside a CPU build of torch, by declaring two operators it cannot load.

The conftest.py at the root imports it for the tests themselves; processes that a test starts with this folder
on PYTHONPATH have it from sitecustomize.py. No test calls the two operators. Where torchvision imports as it
is, nothing is done.
"""

import importlib.util

if importlib.util.find_spec("torchvision") is not None:
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):
        import sys

        import torch

        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        LIBRARY = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            LIBRARY.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
