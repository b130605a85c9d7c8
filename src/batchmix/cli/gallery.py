"""The methods on the same real images: what ``batchmix show METHOD`` and ``batchmix show all`` draw."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from batchmix.errors import MixError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from batchmix.cards import Card
    from batchmix.data import Cifar10
    from batchmix.mixer import Mixer

PICTURED = ("images", "any samples")  # what the methods take that can be drawn
SHOWN = (3, 5, 8, 1, 7, 0)  # cat, dog, ship, automobile, horse, airplane
ALPHA = 4.0  # of all methods that take one: most weights are far from 0 and 1, so that the mixing can be seen


def cards_of(method: str | None) -> list[Card]:
    """The cards to show: of one method, of all of them, or none.

    Raises:
        MixError: If there is no such method.
    """
    from batchmix.cards import card, names_of_all

    if method is None:
        return []
    names = names_of_all()
    if method != "all" and method not in names:
        raise MixError(f"METHOD takes one of all, {', '.join(names)}, got {method!r}")
    # The oldest first, the others by name.
    names.sort(key=lambda name: (name != "mixup", name != "cutmix", name))
    return [card(name) for name in names if method in ("all", name)]


def pictured(cards: list[Card]) -> list[Card]:
    """Those that can be drawn: of methods that take images, and are done before the model."""
    from batchmix.methods import discover

    drawn = [name for name, method in discover().items() if not method.weighs_afterwards]
    return [card for card in cards if card.name in drawn and card.takes in PICTURED]


def draw(data: Cifar10, name: str, cards: list[Card], seed: int) -> dict[str, Figure]:
    """One picture of the images and of each method, by its name.

    Args:
        data: Where the images are from: one of each of six classes.
        name: Of the method, or ``"all"``.
        cards: What to draw, of those that can be.
        seed: Which images, and how they are mixed.
    """
    import torch

    from batchmix.data import CIFAR10_CLASSES
    from batchmix.methods import discover
    from batchmix.pictures import draw_methods

    places = [(data.test_y == label).nonzero()[0] for label in SHOWN]
    chosen = [int(found[(seed + 1) % len(found)]) for found in places]
    x = torch.from_numpy(data.test_x[chosen]).permute(0, 3, 1, 2).float() / 255
    y = torch.from_numpy(data.test_y[chosen]).long()
    rows: dict[str, tuple[Any, Any]] = {"images": (x, y)}
    methods = discover()
    for found in cards:
        rows[found.title] = _mixer(methods[found.name], seed)(x, y)
    return {"methods" if name == "all" else name: draw_methods(rows, CIFAR10_CLASSES)}


def _mixer(method: type[Mixer], seed: int) -> Mixer:
    """The method with the previous image as partner and much mixing, so that the rows can be compared."""
    wanted = {"partner": "roll", "alpha": ALPHA}
    taken = inspect.signature(method).parameters
    options: dict[str, Any] = {name: value for name, value in wanted.items() if name in taken}
    return method(seed=seed, **options)
