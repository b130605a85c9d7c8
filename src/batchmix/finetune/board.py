"""Curves for TensorBoard, where it is installed; ``log.jsonl`` has the same numbers in any case."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from batchmix.errors import why


class Board:
    """Writes scalars below ``folder/tensorboard``.

    Args:
        folder: Of the run.
        step: Where it goes on: what a run that died wrote from there on is not shown.
        kept: False for a rank that writes nothing.
        say: Takes the line that says why there are no curves, where TensorBoard does not take the folder.
    """

    def __init__(self, folder: Path, step: int, *, kept: bool, say: Callable[[str], None]) -> None:
        self.writer: Any = None
        if not kept:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        try:
            self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step or None)
        except (UnicodeError, OSError) as error:  # as of a name that is not UTF-8
            say(f"there will be no curves for TensorBoard: {why(error)}")

    def add(self, step: int, part: str, values: Mapping[str, float]) -> None:
        """Add a point to each of the curves ``part/name``."""
        if self.writer is not None:
            for name, value in values.items():
                self.writer.add_scalar(f"{part}/{name}", value, step)

    def flush(self) -> None:
        """Put on the disk what was added: a run that goes on from here shows it, however this one ends."""
        if self.writer is not None:
            self.writer.flush()

    def __enter__(self) -> Board:
        return self

    def __exit__(self, *_: Any) -> None:
        if self.writer is not None:
            self.writer.close()
