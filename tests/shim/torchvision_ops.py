"""Lets torchvision's wheel import beside a CPU build of torch, by declaring two operators it cannot load.

The conftest.py at the root imports it for the tests themselves; processes that a test starts with this folder
on PYTHONPATH have it from sitecustomize.py. No test calls the two operators. It acts while torchvision is
imported and at no other time, and where torchvision finds its own operators it does nothing.
"""

import importlib.abc
import sys


class DeclareOperators(importlib.abc.MetaPathFinder):
    """Finds no module, but sees what is imported: torchvision's module that needs the operators."""

    def find_spec(self, name, path=None, target=None):
        if name == "torchvision._meta_registrations" and not sys.modules["torchvision.extension"]._has_ops():
            import torch

            self.library = torch.library.Library("torchvision", "DEF")  # they last as long as this does
            for operator in ("nms", "qnms"):
                self.library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


sys.meta_path.insert(0, DeclareOperators())
