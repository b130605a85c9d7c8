"""Python runs a file of this name at its start if its folder is on PYTHONPATH."""

import torchvision_ops  # noqa: F401
