"""The command ``batchmix show``: what mixing does to real images, as three pictures."""

from __future__ import annotations

import argparse
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchmix.cli import existing_folder, flag_name
from batchmix.errors import DataError, MixError, why

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from batchmix.data import Cifar10


OF_THREE = {"alpha": 0.4, "lam": 0.7, "per": "sample", "fold": True, "count": 16}
"""What shapes the three pictures, by default; that of a method has settings of its own."""


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the command to a parser.

    Args:
        subparsers: What ``ArgumentParser.add_subparsers`` gave.
    """
    parser = subparsers.add_parser(
        "show",
        help="draw what mixing does to real images",
        description="Draw three pictures from CIFAR-10: a dog and a cat mixed (pair.png), the density the "
        "weights come from (beta.png), and a mixed batch with its labels (batch.png). With METHOD, say how "
        "to use that method and draw it (METHOD.png); with 'all', draw every method on the same images "
        "(methods.png).",
    )
    add = parser.add_argument
    add("method", nargs="?", type=str.lower, metavar="METHOD", help="a method such as cutmix, or all")
    add("--alpha", type=float, help="shape of the Beta density, > 0 (default: %(default)s)")
    add("--lam", type=float, help="weight of the dog in the pair, 0 to 1 (default: %(default)s)")
    add("--per", choices=("sample", "batch"), help="one weight for each (default: %(default)s)")
    add("--no-fold", dest="fold", action="store_false", help="keep weights below a half as they are drawn")
    add("--count", type=int, help="images in the batch (default: %(default)s)")
    add("--seed", type=int, default=0, help="which images, and how they are mixed (default: %(default)s)")
    add(
        "--out", type=Path, default=Path("pictures"), metavar="DIR", help="where to write (default: pictures)"
    )
    add("--page", type=Path, metavar="FILE", help="with 'all': write how to use each as a Markdown page")
    add("--window", action="store_true", help="open the pictures in windows instead of writing them")
    add(
        "--root",
        type=existing_folder,
        metavar="DIR",
        help="a folder that holds CIFAR-10, as for 'batchmix data'",
    )
    parser.set_defaults(func=run, **OF_THREE)


def run(args: argparse.Namespace) -> int:
    """Draw the three pictures or those of methods, and write them or open them in windows.

    Args:
        args: ``method`` (str or None), ``page`` (Path or None), ``alpha``, ``lam`` (float), ``per`` (str),
            ``fold``, ``window`` (bool), ``count``, ``seed`` (int), ``out`` (Path), ``root`` (Path or None).

    Returns:
        0, the exit status.

    Raises:
        MixError: If an argument is out of its range, or ``window`` is asked for and there is no display.
        DataError: If CIFAR-10 cannot be had, or a picture cannot be written.
    """
    from batchmix.cards import as_page, as_text
    from batchmix.cli import gallery
    from batchmix.data import load_cifar10
    from batchmix.files import write_whole

    if args.page is not None and args.method != "all":
        raise MixError(f"--page takes METHOD 'all', got {args.method or 'none'}")
    for name, default in OF_THREE.items():
        if args.method is not None and getattr(args, name) != default:
            flag = flag_name("no_fold" if name == "fold" else name)
            raise MixError.of(flag, getattr(args, name), "nothing beside METHOD")
    if not 0 <= args.seed < 2**32:
        raise MixError.of("--seed", args.seed, "a whole number from 0, below 2**32")
    cards = gallery.cards_of(args.method)
    if args.window:
        # Said before the data are fetched, not after.
        _check_display()
    if args.method not in (None, "all"):
        _say(as_text(cards[0]))
    # All are drawn before the first is written: a wrong argument leaves nothing behind.
    figures: dict[str, Figure] = {}
    if args.method is None:
        figures = _draw(load_cifar10(args.root), args)
    elif drawn := gallery.pictured(cards):
        figures = gallery.draw(load_cifar10(args.root), args.method, drawn, args.seed)
    if args.page is not None:
        write_whole(args.page, [as_page(cards).encode()])
        _say(str(args.page))
    if args.window:
        _open_windows(figures)
        return 0
    for path in _write_all(figures, args.out):
        _say(str(path))
    return 0


def _draw(data: Cifar10, args: argparse.Namespace) -> dict[str, Figure]:
    """The pictures by name."""
    from batchmix import pictures

    dog, cat = (_one_of(data, name, args.seed) for name in ("dog", "cat"))
    return {
        "pair": pictures.draw_pair(dog, cat, args.lam, ("dog", "cat")),
        "beta": pictures.draw_beta(args.alpha, args.fold),
        "batch": _draw_batch(data, args),
    }


def _one_of(data: Cifar10, name: str, seed: int) -> Any:
    """One test image of a class, (H, W, C) uint8; each seed shows the next.

    Seed 0 shows the second: the first dog of CIFAR-10 turns its back, the second dog and cat look at you.
    """
    from batchmix.data import CIFAR10_CLASSES

    places = (data.test_y == CIFAR10_CLASSES.index(name)).nonzero()[0]
    if not len(places):
        raise DataError(f"the test images hold no {name}")
    return data.test_x[places[(seed + 1) % len(places)]]


def _draw_batch(data: Cifar10, args: argparse.Namespace) -> Figure:
    """A batch of test images as ``Mixup`` hands it to a model."""
    import torch

    from batchmix.data import CIFAR10_CLASSES
    from batchmix.methods.mixup import Mixup
    from batchmix.pictures import draw_batch

    size = len(data.test_y)
    if not 1 <= args.count <= size:
        raise MixError.of("--count", args.count, f"a number of images from 1 to {size}")
    mixup = Mixup(args.alpha, per=args.per, fold=args.fold, seed=args.seed)
    places = torch.randperm(size, generator=torch.Generator().manual_seed(args.seed))[: args.count].numpy()
    x = torch.from_numpy(data.test_x[places]).permute(0, 3, 1, 2).float() / 255
    x, y = mixup(x, torch.from_numpy(data.test_y[places]).long())
    # Four in a row, so that the labels can be read on a phone.
    return draw_batch(x, y, CIFAR10_CLASSES, columns=4, limit=args.count)


def _write_all(figures: Mapping[str, Figure], folder: Path) -> list[Path]:
    """Write each as ``<name>.png``, making the folder if it is not there."""
    from batchmix.pictures import write_figure

    try:
        folder.mkdir(parents=True, exist_ok=True)
        paths = {name: folder / f"{name}.png" for name in figures}
        for name, figure in figures.items():
            write_figure(paths[name], figure)
        return list(paths.values())
    except OSError as error:
        raise DataError(f"cannot write pictures to {folder}: {error.strerror or error}") from error


def _check_display() -> None:
    """Raise a MixError unless matplotlib can open windows here."""
    try:
        import matplotlib.pyplot as plt

        probe = plt.figure()
        framework = getattr(probe.canvas, "required_interactive_framework", None)
        plt.close(probe)
    except ImportError as error:
        raise MixError(f"--window takes a display: {why(error)}") from None
    if framework is None:
        raise MixError(
            f"--window takes a display, and matplotlib found none to open windows on (its backend is "
            f"{plt.get_backend()}); without --window the pictures are written to --out"
        )


def _open_windows(figures: Mapping[str, Figure]) -> None:
    """Show each in a window until all are closed.

    pyplot opens only figures it made itself, so each window is one of its own with the picture painted on it.
    """
    import matplotlib.pyplot as plt

    for name, figure in figures.items():
        png = io.BytesIO()
        figure.savefig(png, format="png")
        png.seek(0)
        # The size in pixels on a screen of the usual 100 dots an inch, not on paper.
        window = plt.figure(name, figsize=figure.get_size_inches(), dpi=100)
        axes = window.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.imshow(plt.imread(png))
    plt.show()


def _say(line: str) -> None:
    """Print a line as it is: no markup, no wrapping of long paths."""
    from batchmix.data.report import plain_console

    plain_console().print(line, soft_wrap=True)
