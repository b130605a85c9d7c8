from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

from batchmix.data.decoding import decode_crop, decode_square, each, resize_all
from batchmix.errors import DataError


def _photo(width: int, height: int, seed: int = 0) -> Image.Image:
    """Something with broad shades, sharp edges and fine grain, as a photograph has."""
    rng = np.random.default_rng(seed)
    shades = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize((width, height))
    draw = ImageDraw.Draw(shades)
    for _ in range(30):
        x, y, side = rng.integers(0, width), rng.integers(0, height), rng.integers(4, 60)
        draw.ellipse((x, y, x + side, y + side), fill=tuple(int(c) for c in rng.integers(0, 256, 3)))
    grain = rng.integers(-12, 13, (height, width, 1))
    return Image.fromarray(np.clip(np.asarray(shades) + grain, 0, 255).astype(np.uint8))


def _fitted(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """The shorter side resized, the middle taken: Pillow's own way, at full size."""
    return np.asarray(ImageOps.fit(image.convert("RGB"), (size, size), Image.Resampling.BICUBIC))


def _difference(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


# Sides of all kinds: multiples of the scale 8 and not, wide and tall.
@pytest.mark.parametrize("shape", [(640, 480), (641, 427), (333, 1001), (523, 523)])
@pytest.mark.parametrize("size", [32, 50])
def test_a_drafted_jpeg_is_close_to_the_full_one(shape: tuple[int, int], size: int, tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    _photo(*shape).save(path, quality=92)
    with Image.open(path) as image:
        full = _fitted(image, size)
    drafted = decode_square(path, size)
    assert 0 < _difference(drafted, full) < 1  # of 255; 0 would mean that nothing is drafted
    shifted = np.roll(full, 1, axis=1)
    assert _difference(drafted, full) < _difference(shifted, full) / 5


@pytest.mark.parametrize("form", ["jpg", "png", "webp", "bmp"])
def test_what_is_not_much_larger_is_decoded_in_full(form: str, tmp_path: Path) -> None:
    path = tmp_path / f"image.{form}"
    _photo(120, 90).save(path)
    with Image.open(path) as image:
        full = _fitted(image, 64)
    np.testing.assert_array_equal(decode_square(path, 64), full)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("form", "shape"), [("jpg", (643, 401)), ("png", (80, 50)), ("tif", (50, 80))])
def test_the_exif_orientation_is_honoured(
    orientation: int, form: str, shape: tuple[int, int], tmp_path: Path
) -> None:
    path = tmp_path / f"image.{form}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    _photo(*shape).save(path, exif=exif)
    with Image.open(path) as image:
        full = _fitted(ImageOps.exif_transpose(image), 24)
    assert _difference(decode_square(path, 24), full) < 1


@pytest.mark.parametrize("form", ["png", "jpg", "webp"])
@pytest.mark.parametrize("exif", [b"Exif\0\0garbage!", b"Exif\0\0MM"])
def test_pixels_are_decoded_whatever_the_exif_is(exif: bytes, form: str, tmp_path: Path) -> None:
    whole, damaged = tmp_path / f"whole.{form}", tmp_path / f"damaged.{form}"
    _photo(80, 50).save(whole)
    _photo(80, 50).save(damaged, exif=exif)
    np.testing.assert_array_equal(decode_square(damaged, 24), decode_square(whole, 24))
    crops = [decode_crop(path, 24, lambda width, height: (0, 0, width, height)) for path in (damaged, whole)]
    np.testing.assert_array_equal(*crops)


def _write(kind: str, path: Path) -> Path:
    photo = _photo(60, 40)
    made = {
        "gray": lambda: photo.convert("L").save(path.with_suffix(".jpg")),
        "gray with alpha": lambda: photo.convert("LA").save(path.with_suffix(".png")),
        "rgba": lambda: photo.convert("RGBA").save(path.with_suffix(".png")),
        "cmyk": lambda: photo.convert("CMYK").save(path.with_suffix(".jpg")),
        "palette": lambda: photo.convert("P").save(path.with_suffix(".png")),
        "palette with transparency": lambda: photo.quantize(255).save(
            path.with_suffix(".png"), transparency=bytes(range(255))
        ),
        "one bit": lambda: photo.convert("1").save(path.with_suffix(".png")),
        "gif": lambda: photo.save(
            path.with_suffix(".gif"), save_all=True, append_images=[_photo(60, 40, seed=1)]
        ),
    }
    made[kind]()
    (written,) = path.parent.iterdir()
    return written


KINDS = ["gray", "gray with alpha", "rgba", "cmyk", "palette", "palette with transparency", "one bit", "gif"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_pixel_becomes_rgb(kind: str, tmp_path: Path) -> None:
    path = _write(kind, tmp_path / "image")
    with Image.open(path) as image:
        full = _fitted(image.convert("RGBA") if kind == "palette with transparency" else image, 30)
    got = decode_square(path, 30)
    assert (got.shape, got.dtype) == ((30, 30, 3), np.uint8)
    np.testing.assert_array_equal(got, full)
    if kind != "one bit":
        gray = _fitted(_photo(60, 40).convert("L"), 30) if "gray" in kind else _fitted(_photo(60, 40), 30)
        assert _difference(got, gray) < 20  # the photograph, give or take a palette of 256


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 32 * 32).astype(np.uint16).reshape(32, 32)
    Image.fromarray(ramp).save(tmp_path / "image.png")
    got = decode_square(tmp_path / "image.png", 32)
    np.testing.assert_array_equal(got, np.repeat((ramp >> 8)[..., None], 3, axis=2))


@pytest.mark.parametrize(("form", "largest"), [("tif", 255), ("tif", 65535), ("pgm", 65535)])
def test_32_bits_hold_values_of_8_or_of_16(form: str, largest: int, tmp_path: Path) -> None:
    ramp = np.linspace(0, largest, 32 * 32).astype(np.int32).reshape(32, 32)
    Image.fromarray(ramp).save(tmp_path / f"image.{form}")
    got = decode_square(tmp_path / f"image.{form}", 32)
    np.testing.assert_array_equal(got[..., 0], ramp if largest == 255 else ramp >> 8)


def test_a_dark_image_of_sixteen_bits_stays_dark(tmp_path: Path) -> None:
    for form, kind in (("png", np.uint16), ("tif", np.uint16), ("pgm", np.int32)):
        Image.fromarray(np.full((32, 32), 200, kind)).save(tmp_path / f"image.{form}")
        assert decode_square(tmp_path / f"image.{form}", 32).max() == 0


def test_floating_point_pixels_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).random((32, 32), np.float32)).save(tmp_path / "image.tif")
    with pytest.raises(DataError, match=r"^its pixels are floating-point numbers: save it with 8 or 16 bits"):
        decode_square(tmp_path / "image.tif", 32)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (2, 3)])
@pytest.mark.parametrize("form", ["png", "jpg"])
def test_tiny_and_thin_images(shape: tuple[int, int], form: str, tmp_path: Path) -> None:
    path = tmp_path / f"image.{form}"
    Image.new("RGB", shape, (200, 100, 50)).save(path)
    got = decode_square(path, 32)
    assert got.shape == (32, 32, 3)
    assert np.abs(got.astype(int) - [200, 100, 50]).max() <= 3


@pytest.mark.parametrize("count", [0, 1, 64, 1000])
def test_each_number_is_done_once(count: int) -> None:
    done = np.zeros(count, int)

    def work(number: int) -> None:
        done[number] += 1

    assert list(each(count, work)) == list(range(count))
    assert (done == 1).all()


def test_what_work_raises_ends_it(tmp_path: Path) -> None:
    started = []

    def work(number: int) -> None:
        started.append(number)
        time.sleep(0.005)  # as decoding would: on a busy machine all would have failed before one is seen
        raise KeyError(number)

    with pytest.raises(KeyError):
        list(each(100_000, work))
    assert len(started) < 100_000 / 64  # what is left is not even begun


def test_resizing_all_is_resizing_each() -> None:
    images = np.random.default_rng(0).integers(0, 256, (70, 32, 32, 3), np.uint8)
    got = resize_all(images, 20)
    want = np.stack([np.asarray(Image.fromarray(image).resize((20, 20))) for image in images])
    np.testing.assert_array_equal(got, want)
    assert resize_all(images, 32) is images
