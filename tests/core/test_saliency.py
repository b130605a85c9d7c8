"""The built-in saliency against plain NumPy, and the helpers of the methods that look at images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from batchmix import MixError
from batchmix.core.saliency import _shifted_sums, fine_grained, maps_of, peaks

pytestmark = pytest.mark.usefixtures("unmoved_global_rng")


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def expected_map(image: np.ndarray) -> np.ndarray:
    """Pixel by pixel, one image (C, H, W), from the definition."""
    grey = image.mean(0)
    height, width = grey.shape
    for _ in range(2):
        wide = np.pad(grey, 1, mode="edge")
        weights = np.outer([1, 2, 1], [1, 2, 1]) / 16
        grey = np.array(
            [[(wide[r : r + 3, c : c + 3] * weights).sum() for c in range(width)] for r in range(height)]
        )
    found = np.zeros_like(grey)
    for reach in (12, 24, 28, 48, 56, 112):
        for r in range(height):
            for c in range(width):
                around = grey[max(0, r - reach) : r + reach + 1, max(0, c - reach) : c + reach + 1]
                found[r, c] += abs(grey[r, c] - (around.sum() - grey[r, c]) / (around.size - 1))
    return found


@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (2, 1, 20, 33), (1, 3, 64, 40), (1, 4, 90, 5)])
def test_the_map_is_that_of_plain_numpy(shape: tuple[int, ...]) -> None:
    x = images(*shape)
    maps = fine_grained(x)
    assert maps.dtype == torch.float32
    assert maps.shape == (shape[0], *shape[2:])
    for image, found in zip(x, maps, strict=True):
        np.testing.assert_allclose(found.numpy(), expected_map(image.double().numpy()), rtol=0, atol=2e-5)


@pytest.mark.parametrize("side", [1, 2, 3, 8, 13])
@pytest.mark.parametrize("axis", [1, 2])
def test_sums_that_are_deterministic_on_a_gpu_are_those_of_cumsum(side: int, axis: int) -> None:
    class Names(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            names.add(func.overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    names: set[str] = set()
    values = torch.randint(9, (2, side, side), generator=torch.Generator().manual_seed(0)).float()
    with Names():
        sums = _shifted_sums(values, axis)
    assert torch.equal(sums, values.cumsum(axis))  # whole numbers, which have no rounding
    assert not {"cumsum", "scatter_add", "index_add", "put_"} & names


@pytest.mark.parametrize("noise", [0.0, 0.05, 0.3])
@pytest.mark.parametrize("side", [4, 8])
def test_the_peak_is_on_what_stands_out(noise: float, side: int) -> None:
    x = noise * images(32, 3, 32, 48)
    corners = torch.randint(0, 32 - side, (32, 2), generator=torch.Generator().manual_seed(1))
    for image, (row, column) in zip(x, corners.tolist(), strict=True):
        image[:, row : row + side, column : column + side] += 1
    found = peaks(fine_grained(x))
    inside = ((found >= corners) & (found < corners + side)).all(1)
    assert inside.float().mean() > 0.9


def test_shift_and_batch_do_not_matter_scale_scales_and_half_precision_is_close() -> None:
    x = images(4, 3, 24, 24)
    maps = fine_grained(x)
    torch.testing.assert_close(fine_grained(x + 5), maps, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(fine_grained(x * 255), maps * 255, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(fine_grained(x[2:3]), maps[2:3])
    half = fine_grained(x.half())
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, maps, rtol=0, atol=0.01)


@pytest.mark.parametrize("shape", [(2, 3, 1, 1), (2, 3, 1, 7), (1, 1, 5, 2), (1, 3, 200, 1)])
@pytest.mark.parametrize("value", [0.0, 1.0, -3.0])
def test_maps_are_finite_for_images_of_one_colour_and_of_few_pixels(
    shape: tuple[int, ...], value: float
) -> None:
    maps = fine_grained(torch.full(shape, value))
    assert maps.isfinite().all()
    assert (maps >= 0).all()


def test_no_graph_is_built_unless_the_callable_builds_one_itself() -> None:
    x = images(2, 3, 8, 8).requires_grad_()
    assert not fine_grained(x).requires_grad

    def plain(x: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        assert not x.requires_grad
        return x.mean(1)

    def by_gradient(x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad((x**2).sum(), x)
        return gradient.abs().sum(1)

    assert not maps_of(plain, x, name="saliency").requires_grad
    torch.testing.assert_close(
        maps_of(by_gradient, x, name="saliency"), (2 * x.detach()).abs().sum(1), rtol=1e-6, atol=1e-6
    )


def test_a_map_of_one_channel_is_a_map() -> None:
    x = images(2, 3, 8, 8)
    one = maps_of(lambda x: x.mean(1), x, name="saliency")
    assert torch.equal(maps_of(lambda x: x.mean(1, keepdim=True), x, name="saliency"), one)
    assert maps_of(lambda x: x.mean(1).double(), x, name="saliency").dtype == torch.float32


@pytest.mark.parametrize(
    "wrong",
    [lambda x: x, lambda x: x.mean((1, 2, 3)), lambda x: x[:1, 0], lambda x: None, lambda x: [x.mean(1)]],
)
def test_what_is_no_map_is_named_in_one_line(wrong: object) -> None:
    with pytest.raises(MixError, match=r"^saliency takes a callable that returns maps .*, got [^\n]*$"):
        maps_of(wrong, images(2, 3, 8, 8), name="saliency")


@pytest.mark.parametrize("x", [torch.rand(2, 3, 8), torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "x"])
def test_what_is_no_image_is_named_in_one_line(x: object) -> None:
    with pytest.raises(MixError, match=r"^x takes floating point images \(B, C, H, W\), all >= 1, got "):
        fine_grained(x)
