"""The article's experiments, carried out in a folder, and the page made from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from batchmix.errors import MixError
from batchmix.study.article.duplicates import measure_duplicates
from batchmix.study.article.evidence import DUPLICATES, LOADING, ONE_HOT, measure, read_evidence
from batchmix.study.article.loading import measure_loading
from batchmix.study.article.onehot import measure_one_hot, sources
from batchmix.study.article.presets import Scale

if TYPE_CHECKING:
    from batchmix.study.engine import EngineOptions
    from batchmix.study.progress import StudyProgress
    from batchmix.study.records import Study


def run_article(
    scale: Scale,
    options: EngineOptions,
    new_progress: Callable[[], StudyProgress],
    *,
    data: str = "cifar10",
    size: int | None = None,
) -> list[Study] | None:
    """Make the measurements and train the studies; what is in the folder already is not done again.

    Args:
        scale: How much.
        options: How the runs are carried out; ``folder`` gets a folder for each study, and ``measured``.
        new_progress: Makes what follows a study.
        data: Name of the image set, as for ``load_images``.
        size: Pixels of an image's side in training; as the image set has them if left out.

    Returns:
        The studies, of which runs may have failed; None where a Ctrl-C stopped it.

    Raises:
        MixError: If the folder holds studies of other settings, or there are not as many images.
        DataError: If the images cannot be had, or a file cannot be read or written.
    """
    from batchmix.study.engine import compare

    plans = scale.plans(data, size)
    studies: list[Study] = []
    _check_images(scale, options, data, size)
    make_measurements(scale, options, new_progress().note, data=data)
    for name, plan in plans.items():
        progress = new_progress()
        progress.note(f"study {list(plans).index(name) + 1} of {len(plans)}, {name}")
        studies.append(compare(plan, replace(options, folder=options.folder / name), progress))
        if progress.stopped or (progress.interrupted and len(studies) < len(plans)):
            return None
    return studies


def _check_images(scale: Scale, options: EngineOptions, data: str, size: int | None) -> None:
    """Refuse a folder that has too few images for a scale; the published sets have enough for each."""
    from batchmix.data import load_images

    if not data.startswith("folder:"):
        return
    most, there = scale.many, len(load_images(data, size=size, root=options.root).train_y)
    if there < most:
        takes = f"a set with the {most:,} training images of this scale or more"
        raise MixError(f"--data takes {takes}, got {data} with {there:,}")


def make_measurements(
    scale: Scale, options: EngineOptions, say: Callable[[str], None], *, data: str = "cifar10"
) -> None:
    """What needs no training: loading, one-hot targets, duplicates."""
    import torch

    from batchmix.data import load_images
    from batchmix.recipe.training import pick_device

    device, cpu = pick_device(options.device), torch.device("cpu")
    settings = dict(scale.loading)

    def loading() -> dict[str, object]:
        arguments = dict(settings)
        count = arguments.pop("images")
        images = load_images(data, root=options.root)
        return measure_loading(images.train_x[:count], images.train_y[:count], say=say, **arguments)

    def one_hot() -> dict[str, object]:
        return measure_one_hot(device=device, say=say, **scale.one_hot)

    def duplicates() -> dict[str, object]:
        return measure_duplicates(**scale.duplicates)

    folder, command = options.folder, options.command
    measure(folder, LOADING, loading, {"data": data, **settings}, command, cpu)
    timed = {"device": device.type, "sources": sources(), **scale.one_hot}
    measure(folder, ONE_HOT, one_hot, timed, command, device)
    measure(folder, DUPLICATES, duplicates, scale.duplicates, command, cpu)


def report_article(folder: Path, page: Path) -> list[Path]:
    """Write the page and its pictures from the records in a folder, and from nothing else.

    Args:
        folder: What ``run_article`` filled.
        page: The Markdown file; the pictures go to the folder ``pictures`` beside it.

    Returns:
        The files, the page first.

    Raises:
        DataError: If a record is missing or broken, or a file cannot be written.
    """
    from batchmix.study.article.page import write_page

    return write_page(read_evidence(folder), page)
