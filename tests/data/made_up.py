"""A made-up data set of six batches of four records, in every form that CIFAR-10 is published in."""

from __future__ import annotations

import io
import json
import pickle
import struct
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from batchmix.data.layout import Batches, Layout

RECORDS = 4
NAMES = ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"]


class Python2Pickler(pickle._Pickler):
    """Writes bytes as python 2 wrote its strings."""

    def save_bytes(self, obj: bytes) -> None:
        self.write(pickle.BINSTRING + struct.pack("<i", len(obj)) + obj)
        self.memoize(obj)

    dispatch = {**pickle._Pickler.dispatch, bytes: save_bytes}  # noqa: RUF012


def python2_pickle(value: object) -> bytes:
    buffer = io.BytesIO()
    Python2Pickler(buffer, protocol=2).dump(value)
    return buffer.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def tar_gz(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@dataclass
class Small:
    layout: Layout
    batches: Batches

    @property
    def whole(self) -> bytes:
        return self.batches.tobytes()

    def binary(self) -> dict[str, bytes]:
        return {f"{n}.bin": b.tobytes() for n, b in zip(NAMES, self.batches, strict=True)}

    def pickles(self) -> dict[str, bytes]:
        return {
            n: python2_pickle({b"batch_label": b"x", b"labels": b[:, 0].tolist(), b"data": b[:, 1:].copy()})
            for n, b in zip(NAMES, self.batches, strict=True)
        }

    def pngs(self) -> dict[str, bytes]:
        files = {}
        for name, batch in zip(NAMES, self.batches, strict=True):
            pixels = np.ascontiguousarray(batch[:, 1:].reshape(RECORDS, 3, 1024).transpose(0, 2, 1))
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG")
            files[f"{name}.png"] = buffer.getvalue()
        labels = self.batches[..., 0].ravel().tolist()
        files["train_lables.json"] = json.dumps(labels[: 5 * RECORDS]).encode()
        files["test_lables.json"] = json.dumps(labels[5 * RECORDS :]).encode()
        return files

    def binary_archive(self) -> bytes:
        return tar_gz({f"cifar-10-batches-bin/{n}": c for n, c in self.binary().items()})

    def python_archive(self) -> bytes:
        return tar_gz({f"cifar-10-batches-py/{n}": c for n, c in self.pickles().items()})

    def npm_archive(self) -> bytes:
        return tar_gz({f"package/{n}": c for n, c in self.pngs().items()})


def put(folder: Path, files: Mapping[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder
