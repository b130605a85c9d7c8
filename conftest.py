"""Before any test or docstring example: what the frameworks need to be importable on this machine."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")  # read by keras when it is first imported
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0)):
    # Tests in several processes share the cores; torch reads this when it is first imported.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))
sys.path.insert(0, str(Path(__file__).parent / "tests" / "shim"))
import torchvision_ops  # noqa: F401  (torchvision beside a CPU build of torch; its docstring says how)

# Triton is for Linux alone; its kernels are imported where they are called.
collect_ignore_glob = [] if importlib.util.find_spec("triton") else ["src/batchmix/*/triton_*.py"]
