"""Which images a step shows, how they are decoded, and what a broken one says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_up_folder import make_folder

import batchmix as bm
from batchmix.data.listing import list_images
from batchmix.errors import DataError, MixError
from batchmix.finetune.config import FolderConfig
from batchmix.finetune.files import ImageFiles
from batchmix.finetune.order import Order
from batchmix.finetune.views import Crop, Views, lost_workers, stream
from batchmix.scale.world import World


@pytest.fixture
def files(tmp_path: Path) -> ImageFiles:
    listing = list_images(make_folder(tmp_path, {"train": 10, "val": 2}))
    return ImageFiles(listing.folder, listing.train)


def test_names_come_back(files: ImageFiles) -> None:
    assert len(files) == 10
    assert all(files.path(index).is_file() for index in range(10))
    assert [files.path(i).parent.name for i in range(10)] == [("blue", "red")[i] for i in files.labels]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_ranks_share_every_batch_and_have_as_many_steps(size: int) -> None:
    """Nobody has a batch fewer: what does not fill one of all ranks is left for another epoch's order."""
    orders = [Order(23, 5, 0, World(rank, size), None, 32) for rank in range(size)]
    parts = [list(order.views(0, 8)) for order in orders]
    assert {len(steps) for steps in parts} == {8}
    for epoch in range(2):
        seen = [v for steps in zip(*parts, strict=True) for part in steps for v in part if v[1] == epoch]
        assert len(seen) == len(set(seen)) == 20
    assert orders[0].batch(0)[1].tolist() != orders[0].batch(4)[1].tolist()


@pytest.mark.parametrize("mix", ["mixup", "cutmix", "both", "none"])
def test_parts_of_a_shared_mix_are_the_parts_of_the_whole(mix: str) -> None:
    normalize = bm.Normalize((0.5,) * 3, (0.5,) * 3)
    config = FolderConfig(mix=mix, batch_size=7)
    mixer = config.mixer(normalize)
    pool = torch.randint(256, (20, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for step in range(4):
        _, batch = Order(20, 7, 0, World(), mixer, 16).batch(step)
        whole, target = mixer(pool[batch], torch.from_numpy(batch), step=step)
        for rank in range(2):
            world = World(rank, 2)
            part = Order(20, 7, 0, world, mixer, 16).part(step)
            x, own = pool[part.indices], slice(len(part.plan))
            mixed = bm.blend(x[own], part.plan, other=x[part.partners], normalize=normalize)
            assert torch.equal(mixed, whole[world.share(7)])
            labels = torch.from_numpy(part.indices)
            mixed_with, real = labels[part.partners], part.plan.lam < 1
            assert torch.equal(mixed_with[real], target.b[world.share(7)][real])


def test_a_shared_mix_is_drawn_on_the_device_of_the_images_as_in_one_process() -> None:
    """A GPU's generator draws other numbers than the CPU's."""
    drawn_on = []

    class Watched(bm.Mixup):
        def plan(self, x: torch.Tensor, y: torch.Tensor | None = None, *, step: int | None = None) -> Any:
            drawn_on.append(x.device.type)
            return super().plan(x.new_zeros(x.shape, device="cpu"), y, step=step)

    Order(20, 7, 0, World(0, 2), Watched(0.4, seed=0), 16, torch.device("meta")).part(3)
    assert drawn_on == ["meta"]


def test_views_are_the_same_in_whatever_worker(files: ImageFiles) -> None:
    views = Views(files, 32, crop=0.3, flip=True)
    batches = [[(0, 0), (3, 0)], [(0, 1), (7, 1)]]
    here, there = (list(stream(views, batches, workers=workers)) for workers in (0, 2))
    for (x, y), (other, labels) in zip(here, there, strict=True):
        assert torch.equal(x, other)
        assert torch.equal(y, labels)
        assert x.shape == (2, 3, 32, 32)
    assert not torch.equal(here[0][0][0], here[1][0][0])  # another epoch, another crop


def test_a_broken_image_is_one_line_with_its_name(files: ImageFiles) -> None:
    files.path(4).write_bytes(b"\xff\xd8 not a picture")
    with pytest.raises(DataError, match=files.path(4).name) as caught:
        list(stream(Views(files, 32), [[(4, 0)]], workers=1))
    assert "\n" not in str(caught.value)


def test_memory_that_runs_out_is_not_a_broken_image(
    files: ImageFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Views, "_decode", refused)
    with pytest.raises(MemoryError):
        list(stream(Views(files, 32), [[(4, 0)]], workers=0))
    with pytest.raises(DataError, match=r"^memory ran out: [^\n]*--workers[^\n]*$"), lost_workers():
        list(stream(Views(files, 32), [[(4, 0)]], workers=0))


@pytest.mark.parametrize("shape", [(1000, 20), (20, 1000), (64, 64)])
def test_crops_lie_within_the_image(shape: tuple[int, int]) -> None:
    for draws in np.random.default_rng(0).random((100, 5)):
        left, top, right, bottom = Crop(0.3, tuple(draws)).box(*shape)
        assert 0 <= left < right <= shape[0] + 1e-9
        assert 0 <= top < bottom <= shape[1] + 1e-9


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mix", "x"),
        ("size", 8),
        ("epochs", 0),
        ("lr", 0),
        ("ema", 1),
        ("crop", 0),
        ("batch_size", 1),
        ("alpha", -1.0),
        ("cutmix_alpha", -1.0),
    ],
)
def test_a_wrong_value_is_named(name: str, value: object) -> None:
    with pytest.raises(MixError, match=f"^{name} takes"):
        FolderConfig(**{name: value})
