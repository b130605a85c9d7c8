"""Decodes a folder as a rank of torchrun does, until a signal asks it to stop; test_workers.py starts it."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

from torch import distributed as dist

from batchmix.data.listing import list_images
from batchmix.finetune.files import ImageFiles
from batchmix.finetune.views import Views, stream

AFTER = 20  # batches that are still wanted then


def say(line: str) -> None:
    """Write a line for the test."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Say ``begins``, ``decodes`` and ``stopped in good order``."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    listing = list_images(Path(sys.argv[1]))
    batches = ([(index % 8, 0)] for index in range(10**6))
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    say("begins")
    left = AFTER
    for count, _ in enumerate(
        stream(Views(ImageFiles(listing.folder, listing.train), 32), batches, workers=2)
    ):
        if count == 0:
            say("decodes")
        time.sleep(0.01)
        left -= bool(asked)
        if left == 0:
            break
    say("stopped in good order")


if __name__ == "__main__":
    main()
