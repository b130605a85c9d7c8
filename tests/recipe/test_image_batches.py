"""The batches of the recipe, against crops cut one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from batchmix.recipe.images import MEAN, STD, ImageBatches, _windows, normalize, resize


def batches(count=12, *, batch_size=6, shift=2, seed=0, side=8):
    """Random images of ``side`` pixels whose label is their index."""
    images = torch.randint(256, (count, side, side, 3), generator=torch.Generator().manual_seed(7))
    images = images.to(torch.uint8)
    return images, ImageBatches(images, torch.arange(count), batch_size=batch_size, shift=shift, seed=seed)


def slow_crops(image, shift):
    """Every crop that can come out, normalised, (crops, 3, H, W), and (top, left, flipped) of each."""
    height, width, _ = image.shape
    padded = np.pad(image, ((shift, shift), (shift, shift), (0, 0)), mode="reflect")
    crops, places = [], []
    for top in range(2 * shift + 1):
        for left in range(2 * shift + 1):
            crop = padded[top : top + height, left : left + width]
            crop = ((crop / 255 - np.array(MEAN)) / np.array(STD)).transpose(2, 0, 1)
            crops += [crop, crop[:, :, ::-1]]
            places += [(top, left, False), (top, left, True)]
    return np.array(crops), places


@pytest.mark.parametrize(("shift", "side"), [(0, 8), (1, 8), (2, 8), (8, 20)])
def test_every_image_is_one_of_the_slow_crops_and_flips_alternate(shift, side):
    images, made = batches(shift=shift, side=side)
    slow = [slow_crops(image.numpy(), shift) for image in images]
    flips = {index: [] for index in range(12)}
    places = set()
    for step in range(8):  # four epochs
        x, labels = made.at(step, side)
        for pixels, index in zip(x.numpy(), labels.tolist(), strict=True):
            crops, names = slow[index]
            (found,) = np.flatnonzero(np.abs(crops - pixels).max((1, 2, 3)) < 1e-5)
            top, left, flipped = names[found]
            flips[index].append(flipped)
            places.add((top, left))
    for flipped in flips.values():
        assert flipped in ([True, False] * 2, [False, True] * 2)
    assert {flipped[0] for flipped in flips.values()} == {True, False}
    assert len(places) > shift * 4 or shift == 0


@pytest.mark.parametrize(("crop", "shift", "places"), [(4, 1, 5), (6, 2, 5), (7, 1, 3), (8, 2, 5), (5, 0, 4)])
def test_crops_are_windows_from_all_over_the_image_and_no_farther_out_than_shifts(crop, shift, places):
    images, made = batches(60, batch_size=60, shift=shift)
    padded = np.pad(images.numpy(), ((0, 0), (shift, shift), (shift, shift), (0, 0)), mode="reflect")
    first = (8 + 2 * shift - crop - (places - 1)) // 2
    seen = set()
    for step in range(4):
        x, labels = made.at(step, crop, crop=crop)
        assert x.shape == (60, 3, crop, crop)
        pixels = ((x.permute(0, 2, 3, 1) * torch.tensor(STD) + torch.tensor(MEAN)) * 255).round().numpy()
        for window, index in zip(pixels, labels.tolist(), strict=True):
            found = [
                (top, left)
                for top in range(9 + 2 * shift - crop)
                for left in range(9 + 2 * shift - crop)
                for cut in [padded[index, top : top + crop, left : left + crop]]
                if (cut == window).all() or (cut[:, ::-1] == window).all()
            ]
            assert len(found) == 1
            seen.add(found[0])
    expected = {first + place for place in range(places)}
    assert {top for top, _ in seen} == expected
    assert {left for _, left in seen} == expected
    assert len(seen) == places**2


def test_a_crop_can_be_resized_and_0_is_none():
    _, made = batches(side=32)
    assert made.at(0, 16, crop=24)[0].shape == (6, 3, 16, 16)
    assert torch.equal(made.at(0, 32, crop=0)[0], made.at(0, 32)[0])
    assert torch.equal(made.at(0, 32, crop=32)[0], made.at(0, 32)[0])


def test_all_shifts_occur_about_equally():
    _, made = batches(batch_size=12, shift=1)
    shifts = torch.stack([made.at(step, 8)[0][:, :, 4, 4].sum() for step in range(3)])
    assert len(shifts.unique()) == 3  # another draw every step
    corner = ImageBatches(ramp(400), torch.arange(400), batch_size=400, shift=1, seed=0)
    values = (corner.at(0, 8)[0][:, 0, 3, 3] * STD[0] + MEAN[0]) * 255
    counts = torch.bincount((values.round().long() // 20), minlength=8)[2:5]
    assert counts.sum() == 400
    assert counts.min() > 400 / 3 - 45  # 5 standard deviations


def ramp(count):
    """Images whose pixel at any row r is 20*r, so that a pixel tells the vertical shift."""
    rows = (torch.arange(8) * 20).to(torch.uint8)
    return rows[None, :, None, None].expand(count, 8, 8, 3).contiguous()


@pytest.mark.parametrize("count", [60, 65])
def test_each_image_is_seen_once_an_epoch_in_another_order(count):
    _, made = batches(count, batch_size=20)
    assert made.steps_per_epoch == 3
    epochs = [torch.cat([made.at(3 * epoch + i, 8)[1] for i in range(3)]).tolist() for epoch in range(3)]
    for seen in epochs:
        assert len(set(seen)) == 60
    assert epochs[0] != epochs[1] != epochs[2]


def test_a_step_is_the_same_from_wherever_it_is_reached():
    _, walked = batches()
    steps = [walked.at(step, 8) for step in range(6)]
    for step in (5, 0, 3):
        _, jumped = batches()
        for first, second in zip(jumped.at(step, 8), steps[step], strict=True):
            assert torch.equal(first, second)
    _, other = batches(seed=1)
    assert not torch.equal(other.at(0, 8)[0], steps[0][0])


@pytest.mark.parametrize("size", [16, 21, 32])
def test_shape_dtype_and_memory_format(size):
    _, made = batches(side=32)
    x, labels = made.at(0, size)
    assert (x.shape, x.dtype) == ((6, 3, size, size), torch.float32)
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert (labels.shape, labels.dtype) == ((6,), torch.int64)


@pytest.mark.usefixtures("unmoved_global_rng")
def test_no_global_generator_is_moved():
    batches()[1].at(3, 8)


def test_normalize_is_the_plain_formula():
    images, _ = batches()
    expected = (images.double() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    torch.testing.assert_close(normalize(images).permute(0, 2, 3, 1), expected.float(), atol=1e-5, rtol=0)


def test_mean_and_deviation_are_those_of_the_training_images(real_data):
    pixels = real_data.train_x.reshape(100, -1, 3)
    mean, square = np.mean([((part / 255).mean(0), ((part / 255) ** 2).mean(0)) for part in pixels], axis=0)
    np.testing.assert_allclose(mean, MEAN, atol=1e-4)
    np.testing.assert_allclose(np.sqrt(square - mean**2), STD, atol=1e-4)


@pytest.mark.parametrize("size", [16, 20, 31])
def test_resizing_keeps_a_constant_and_the_mean_of_a_ramp(size):
    flat = torch.full((2, 3, 32, 32), 0.7)
    torch.testing.assert_close(resize(flat, size), torch.full((2, 3, size, size), 0.7))
    slope = torch.linspace(-1, 1, 32).expand(1, 3, 32, 32)
    assert resize(slope, size).mean().item() == pytest.approx(0, abs=1e-5)


def test_an_image_of_the_size_is_left_as_it_is():
    x = torch.rand(2, 3, 32, 32)
    assert resize(x, 32) is x


def test_compiled_windows_are_the_same(monkeypatch):
    """Traced as when compiled, without waiting for a compiler of C++."""
    images = torch.randint(256, (40, 8, 8, 3), generator=torch.Generator().manual_seed(7)).to(torch.uint8)
    options = {"batch_size": 20, "shift": 2, "seed": 0}
    monkeypatch.setattr(
        "batchmix.recipe.images._compiled_windows",
        lambda: torch.compile(_windows, backend="aot_eager", dynamic=False),
    )
    plain = ImageBatches(images, torch.arange(40), **options)
    compiled = ImageBatches(images, torch.arange(40), **options, compiled=True)
    for step, crop in ((0, 0), (1, 5), (2, 0)):
        both = (made.at(step, crop or 8, crop=crop) for made in (plain, compiled))
        for one, other in zip(*both, strict=True):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=0)
