"""Whether records are the official ones."""

from __future__ import annotations

import hashlib

from batchmix.data.layout import Batches, Layout
from batchmix.data.report import Report
from batchmix.errors import DataError


def verify(batches: Batches, layout: Layout, report: Report) -> None:
    """Compare every batch with its official MD5 checksum.

    MD5 is what the authors published; it finds damage and mix-ups.

    Args:
        batches: The records.
        layout: The checksums.
        report: Shows the progress.

    Raises:
        DataError: If a batch differs.
    """
    with report.bar(f"checking {layout.title}", batches.nbytes) as advance:
        for number, (batch, want) in enumerate(zip(batches, layout.md5, strict=True), start=1):
            if hashlib.md5(batch, usedforsecurity=False).hexdigest() != want:
                raise DataError(f"batch {number} differs from the official one (MD5 is not {want})")
            advance(batch.nbytes)
