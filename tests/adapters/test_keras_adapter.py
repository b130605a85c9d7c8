"""The Keras adapter in real fits: every form of data and labels, draws in order, and any backend."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import keras_losses
import numpy as np
import pytest
import torch
from plain_loop import CLASSES, make_samples
from torch.utils.data import DataLoader, TensorDataset

import batchmix as bm
from batchmix.adapters.keras import MixUpDataset

pytestmark = pytest.mark.filterwarnings(
    # Keras 3.15 turns its variables into arrays in a way that NumPy 2 calls deprecated.
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

X = make_samples(20, seed=3)[0].movedim(1, -1).contiguous().numpy()  # images as Keras has them
Y = make_samples(20, seed=3)[1].numpy()
ONE_HOT = keras.utils.to_categorical(Y, CLASSES)


def mixer() -> bm.Mixer:
    return bm.Mixup(0.4, seed=5)


def by_hand(x: Any = X, y: Any = Y, kinds: Any = None) -> tuple[torch.Tensor, bm.MixedTarget]:
    """The first draw on the first 8 samples."""
    return mixer()(torch.as_tensor(x[:8]), torch.as_tensor(y[:8]), kinds=kinds)


def first_batch(x: Any = X, y: Any = Y, **options: Any) -> tuple[Any, Any]:
    options = {"mixer": mixer(), "batch_size": 8, "shuffle": False, **options}
    return MixUpDataset(x, y, **options)[0]


class Batches(keras.utils.PyDataset):
    """A data set that counts its epochs."""

    def __init__(self, *, endless: bool = False, extra: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.endless, self.extra, self.begun, self.ended = endless, extra, 0, 0

    @property
    def num_batches(self) -> int | None:
        return None if self.endless else 3

    def __getitem__(self, index: int) -> Any:
        rows = slice(index % 3 * 8, index % 3 * 8 + 8)
        return (X[rows], Y[rows], np.ones(len(X[rows]))) if self.extra else (X[rows], Y[rows])

    def on_epoch_begin(self) -> None:
        self.begun += 1

    def on_epoch_end(self) -> None:
        self.ended += 1


def make_model(loss: Any = None) -> Any:
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [keras.layers.Conv2D(4, 3), keras.layers.GlobalMaxPooling2D(), keras.layers.Dense(CLASSES)]
    )
    compile_model(model, loss)
    return model


def compile_model(model: Any, loss: Any = None) -> None:
    model.compile(
        optimizer=keras.optimizers.SGD(0.1),
        loss=loss or keras.losses.CategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )


# What comes out


@pytest.mark.parametrize("labels", [Y, Y[:, None], Y.astype("uint8"), torch.as_tensor(Y)], ids=str)
def test_class_ids_become_probabilities(labels: Any) -> None:
    x, y = first_batch(X, labels, num_classes=CLASSES)
    mixed, target = by_hand()
    np.testing.assert_array_equal(x, mixed)
    np.testing.assert_array_equal(y, target.dense(CLASSES))
    assert isinstance(x, np.ndarray)
    assert (x.dtype, y.dtype) == (np.float32, np.float32)


def test_probabilities_are_blended() -> None:
    np.testing.assert_allclose(first_batch(X, ONE_HOT)[1], by_hand()[1].dense(CLASSES), atol=1e-7)


@pytest.mark.parametrize(
    ("shape", "kinds"), [((20,), None), ((20, 1), None), ((20, 2, 3), {"y": "regression"})]
)
def test_values_are_blended(shape: tuple[int, ...], kinds: Any) -> None:
    values = np.linspace(0, 1, np.prod(shape), dtype="float32").reshape(shape)
    (a, b, lam), y = by_hand(X, values, kinds)[1], first_batch(X, values, kinds=kinds)[1]
    lam = lam.view(-1, *[1] * (len(shape) - 1))
    np.testing.assert_allclose(y, lam * a + (1 - lam) * b, atol=1e-6)


def test_several_inputs_and_targets_are_mixed_alike() -> None:
    tall = np.concatenate([X, X], axis=1)
    x, y = first_batch({"image": X, "tall": tall}, {"kind": Y, "size": Y / 4}, num_classes=CLASSES)
    mixed, target = by_hand()
    np.testing.assert_array_equal(x["image"], mixed)
    np.testing.assert_array_equal(x["tall"], np.concatenate([mixed, mixed], axis=1))
    np.testing.assert_array_equal(y["kind"], target.dense(CLASSES))
    np.testing.assert_allclose(y["size"], y["kind"] @ (np.arange(CLASSES) / 4), atol=1e-6)


class LeftHalf(bm.Mixer):
    """Keeps the left half of each image, and takes the right one from the previous sample."""

    def sample(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> bm.MixPlan:
        mask = torch.zeros(1, 1, *x.shape[2:])
        mask[..., : x.shape[3] // 2] = 1
        return bm.MixPlan(torch.arange(len(x)).roll(1), torch.full((len(x),), 0.5), mask)


def test_methods_with_boxes_find_height_and_width() -> None:
    x, _ = first_batch(mixer=LeftHalf(), num_classes=CLASSES)
    np.testing.assert_array_equal(x[1, :, :4], X[1, :, :4])
    np.testing.assert_array_equal(x[1, :, 4:], X[0, :, 4:])
    first = np.moveaxis(X, -1, 1)
    y, _ = first_batch(first, Y, mixer=LeftHalf(), num_classes=CLASSES, data_format="channels_first")
    np.testing.assert_array_equal(np.moveaxis(y, 1, -1), x)


def test_steps_of_a_series_are_cut_with_all_their_features() -> None:
    """(B, steps, features), as Keras' recurrent layers have them."""
    series = np.random.default_rng(0).random((8, 6, 5), dtype="float32")
    x, y = first_batch(series, Y[:8], mixer=bm.CutMix(1.0, seed=1), num_classes=CLASSES)
    (mixed, target) = bm.CutMix(1.0, seed=1)(torch.tensor(series).movedim(-1, 1), torch.as_tensor(Y[:8]))
    np.testing.assert_array_equal(x, mixed.movedim(1, -1))
    np.testing.assert_array_equal(y, target.dense(CLASSES))
    kept = (x == series).mean(-1)
    assert set(np.unique(kept)) == {0, 1}

    first, _ = first_batch(
        series, Y[:8], mixer=bm.CutMix(1.0, seed=1), num_classes=CLASSES, data_format="channels_first"
    )
    assert set(np.unique((first == series).mean(1))) == {0, 1}


def test_embedded_tokens_stay_whole() -> None:
    tokens = np.random.default_rng(0).random((8, 6, 5), dtype="float32")
    x, _ = first_batch(tokens, Y[:8], mixer=bm.TokenCutMix(1.0, seed=1), num_classes=CLASSES)
    assert set(np.unique((x == tokens).mean(-1))) == {0, 1}


def test_labels_of_steps_are_pasted_with_them() -> None:
    series = np.random.default_rng(0).random((8, 6, 5), dtype="float32")
    steps = (series[..., 0] * 4).astype("int64")
    for ids in (steps, steps[..., None]):
        x, y = first_batch(series, ids, mixer=bm.CutMix(1.0, seed=1), kinds={"y": "segmentation"})
        np.testing.assert_array_equal(y.reshape(8, 6), (x[..., 0] * 4).astype("int64"))


def test_values_beside_a_series_are_blended_by_mixup_whatever_their_number() -> None:
    """As many as there are steps: to mixup, which cuts nothing, that is no matter."""
    series = np.random.default_rng(0).random((20, 6, 5), dtype="float32")
    values = series[..., 0]
    x, y = first_batch(series, values)
    np.testing.assert_allclose(y, x[..., 0], atol=1e-6)


def test_masks_of_volumes_stay_with_their_voxels() -> None:
    volumes = np.random.default_rng(0).random((8, 4, 5, 6, 2), dtype="float32")
    masks = (volumes[..., 0] * 4).astype("int64")
    for ids in (masks, masks[..., None]):
        x, y = first_batch(volumes, ids, mixer=bm.CutMix(1.0, seed=1))
        assert (x != volumes).any()
        np.testing.assert_array_equal(y.reshape(masks.shape), (x[..., 0] * 4).astype("int64"))


def test_arrays_that_run_backwards_are_taken() -> None:
    x, y = first_batch(X[..., ::-1], Y[::-1], num_classes=CLASSES)
    mixed, target = by_hand(X[..., ::-1].copy(), Y[::-1].copy())
    np.testing.assert_array_equal(x, mixed)
    np.testing.assert_array_equal(y, target.dense(CLASSES))


@pytest.mark.parametrize(
    "masks", [(X[..., :1] * 4).astype("int64"), (X[..., 0] * 4).astype("int64")], ids=np.ndim
)
@pytest.mark.parametrize("kinds", [None, {"y": "segmentation"}])
def test_masks_are_pasted_with_the_pixels_and_stay_ids(masks: Any, kinds: Any) -> None:
    """Those of batches that are not mixed too: some by their ``p``, and the last one for its single image."""
    data = MixUpDataset(X[:17], masks[:17], mixer=bm.CutMix(1.0, p=0.5, seed=1), kinds=kinds, batch_size=2)
    batches = list(data)
    for x, y in batches:
        assert y.dtype == np.int64
        np.testing.assert_array_equal(y, (x[..., :1] * 4).astype("int64").reshape(y.shape))
    assert batches[-1][1].shape == (1, *masks.shape[1:])


def test_masks_that_are_blended_become_probabilities() -> None:
    masks = (X[..., :1] * 4).astype("int64")
    y = first_batch(X, masks, num_classes=8)[1]
    target = by_hand(X, masks[..., 0], {"y": "segmentation"})[1]
    assert y.shape == (8, 8, 8, 8)
    np.testing.assert_array_equal(y, target.dense(8))


def test_a_kind_overrules_what_a_target_looks_like() -> None:
    labels = np.stack([Y, Y[::-1]], 1)  # of a task with two answers
    y = first_batch(X, labels, num_classes=CLASSES, kinds={"y": "class"})[1]
    np.testing.assert_array_equal(y, by_hand(X, labels)[1].dense(CLASSES))


def test_half_precision_arrives_as_what_numpy_has() -> None:
    normalize = bm.Normalize([0.5] * 3, [0.2] * 3, dtype=torch.bfloat16)
    images = (X / X.max() * 255).astype("uint8")
    mixer = bm.Mixup(0.4, normalize=normalize, seed=5)
    x, y = first_batch(images, torch.as_tensor(ONE_HOT).bfloat16(), mixer=mixer)
    assert x.dtype == y.dtype == np.float32
    mixer.step = 0
    wanted = mixer(torch.as_tensor(images[:8]).movedim(-1, 1), torch.as_tensor(Y[:8]))[0]
    np.testing.assert_array_equal(x, wanted.movedim(1, -1).float())


def test_alpha_0_leaves_the_samples_and_gives_labels_of_the_same_form() -> None:
    plain = MixUpDataset(X, Y, mixer=bm.Mixup(0), num_classes=CLASSES, batch_size=8, shuffle=False)
    x, y = (np.concatenate(parts) for parts in zip(*plain, strict=True))
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(y, ONE_HOT)


def test_arrays_are_read_in_another_order_each_epoch(unmoved_global_rng: None) -> None:
    data = MixUpDataset(X, Y, mixer=bm.Mixup(0, seed=1), num_classes=CLASSES, batch_size=8)
    orders = []
    for _ in range(2):
        data.on_epoch_begin()
        orders.append(np.concatenate([x for x, _ in data]))
    assert not np.array_equal(*orders)
    for order in orders:
        np.testing.assert_array_equal(np.sort(order.sum((1, 2, 3))), np.sort(X.sum((1, 2, 3))))


# In fit


@pytest.mark.parametrize("make", [Batches, lambda: DataLoader(TensorDataset(*map(torch.tensor, (X, Y))), 8)])
def test_every_batch_of_training_is_one_draw(make: Any) -> None:
    data, model = MixUpDataset(make(), mixer=mixer(), num_classes=CLASSES), make_model()
    assert len(data) == data.num_batches == 3
    model.fit(data, epochs=2, verbose=0)
    assert data.mixer.step == 6
    model.fit(data, epochs=1, verbose=0)
    assert data.mixer.step == 9


def test_part_of_an_epoch_counts_as_what_was_read() -> None:
    data = MixUpDataset(Batches(), mixer=mixer(), num_classes=CLASSES)
    make_model().fit(data, epochs=3, steps_per_epoch=1, verbose=0)
    assert data.mixer.step == 3
    endless = MixUpDataset(Batches(endless=True), mixer=mixer(), num_classes=CLASSES)
    make_model().fit(endless, epochs=2, steps_per_epoch=5, verbose=0, shuffle=False)
    assert endless.mixer.step == 10
    with pytest.raises(TypeError, match="no length"):
        len(endless)


class Numbers(keras.Model):
    """Keeps the numbers that its training reads. Keras looks at a batch wherever it was compiled anew."""

    def __init__(self) -> None:
        super().__init__()
        self.top, self.read = keras.layers.Dense(2), []
        self.compile("sgd", "categorical_crossentropy")

    def call(self, x: Any) -> Any:
        return self.top(x)

    def train_step(self, data: Any) -> Any:
        self.read.extend(data[0].flatten().tolist())
        return super().train_step(data)


NUMBERS = torch.arange(24.0)[:, None]
PARITY = torch.arange(24) % 2


def numbers(form: str) -> MixUpDataset:
    mixer = bm.Mixup(0, seed=1)
    if form == "loader":
        return MixUpDataset(DataLoader(TensorDataset(NUMBERS, PARITY), 4), mixer=mixer, num_classes=2)
    return MixUpDataset(NUMBERS, PARITY, mixer=mixer, num_classes=2, batch_size=4, shuffle=form == "shuffled")


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("form", ["loader", "arrays", "shuffled"])
def test_parts_of_an_epoch_make_a_pass_over_all_samples(form: str, shuffle: bool) -> None:
    data, model = numbers(form), Numbers()
    model.fit(data, steps_per_epoch=2, epochs=6, shuffle=shuffle, verbose=0)
    first, second = model.read[:24], model.read[24:]
    assert sorted(first) == sorted(second) == NUMBERS.flatten().tolist()
    in_order = form == "loader" or (form == "arrays" and not shuffle)
    assert (first == sorted(first)) is in_order
    assert data.mixer.step == 12


@pytest.mark.parametrize("look", [False, True])
@pytest.mark.parametrize("form", ["loader", "arrays", "shuffled"])
def test_a_fit_begins_a_pass_of_its_own(form: str, look: bool) -> None:
    data, model = numbers(form), Numbers()
    model.fit(data, steps_per_epoch=2, verbose=0)
    if look:
        compile_model(model)
    model.fit(data, verbose=0)
    assert sorted(model.read[8:]) == NUMBERS.flatten().tolist()
    assert data.mixer.step == 8


def test_a_look_at_the_data_costs_no_draw_in_any_fit() -> None:
    data = MixUpDataset(X, Y, mixer=mixer(), num_classes=CLASSES, batch_size=8)
    model = make_model()
    model.fit(data, verbose=0)
    compile_model(model)
    model.fit(data, verbose=0)
    make_model().fit(data, verbose=0, steps_per_epoch=1, epochs=2)
    assert data.mixer.step == 3 + 3 + 2


def test_arrays_read_by_hand_begin_a_pass_at_their_first_batch() -> None:
    data = numbers("shuffled")
    data[0]
    first, second = (np.concatenate([x for x, _ in data]).flatten().tolist() for _ in range(2))
    assert first != second
    assert sorted(first) == sorted(second) == NUMBERS.flatten().tolist()
    with pytest.raises(IndexError, match="batch 6 of 6"):
        data[6]


def test_a_data_set_hears_of_its_epochs() -> None:
    batches = Batches()
    make_model().fit(MixUpDataset(batches, num_classes=CLASSES), epochs=2, verbose=0)
    alone = Batches()
    make_model("sparse_categorical_crossentropy").fit(alone, epochs=2, verbose=0)
    assert (batches.begun, batches.ended) == (alone.begun, alone.ended)


@pytest.mark.parametrize("recompiled", [False, True])
def test_a_resumed_fit_is_the_unbroken_one(recompiled: bool) -> None:
    def data(seed: int = 5) -> MixUpDataset:
        return MixUpDataset(X, Y, mixer=bm.Mixup(0.4, seed=seed), num_classes=CLASSES, batch_size=8)

    unbroken, halves, first, second = make_model(), make_model(), data(), data(seed=99)
    unbroken.fit(data(), epochs=4, verbose=0, shuffle=False)
    halves.fit(first, epochs=2, verbose=0, shuffle=False)
    second.mixer.load_state_dict(first.mixer.state_dict())
    if recompiled:
        compile_model(halves)
    halves.fit(second, epochs=2, verbose=0, shuffle=False)
    assert second.mixer.state_dict() == {"seed": 5, "step": 12}
    for ours, wanted in zip(halves.weights, unbroken.weights, strict=True):
        assert torch.equal(ours.value, wanted.value)


def test_validation_is_that_of_plain_data() -> None:
    model = make_model()
    data = MixUpDataset(X, Y, mixer=mixer(), num_classes=CLASSES, batch_size=8)
    history = model.fit(data, verbose=0, validation_data=(X, ONE_HOT)).history
    plain = MixUpDataset(X, Y, mixer=bm.Mixup(0), num_classes=CLASSES)
    for loss, accuracy in (model.evaluate(X, ONE_HOT, verbose=0), model.evaluate(plain, verbose=0)):
        assert float(history["val_loss"][0]) == pytest.approx(float(loss), rel=1e-6)
        assert float(history["val_accuracy"][0]) == pytest.approx(float(accuracy))
    assert float(accuracy) == pytest.approx((model.predict(X, verbose=0).argmax(1) == Y).mean())


def test_the_jax_backend_computes_what_torch_computes() -> None:
    if importlib.util.find_spec("jax") is None:
        pytest.skip("jax is not installed")
    ran = subprocess.run(
        [sys.executable, Path(keras_losses.__file__)],
        env=os.environ | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert ran.returncode == 0, ran.stderr
    theirs, ours = json.loads(ran.stdout), keras_losses.losses()
    assert ours["steps"] == [6]
    assert theirs.keys() == ours.keys()
    for name, values in ours.items():
        assert theirs[name] == pytest.approx(values, rel=1e-4), name


def test_options_of_mixup_stand_in_for_a_mixer() -> None:
    for options in ({"alpha": 0.2}, {"mixer": 0.2}):
        assert repr(MixUpDataset(X, Y, seed=1, **options).mixer) == repr(bm.Mixup(0.2, seed=1))


# Wrong use


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": X}, "y takes the targets where x is arrays, got None"),
        ({"x": [X, X]}, "y takes the targets where x is arrays, got None"),
        ({"x": 3}, "x takes arrays, a PyDataset, a torch DataLoader or another sized iterable"),
        ({"x": X, "y": Y[:5]}, r"y takes as many targets as x has samples, got lengths \[5, 20\]"),
        ({"x": X, "y": Y.tolist()}, "x and y take arrays, .* got a list of numbers"),
        ({"x": MixUpDataset(X, Y)}, "x takes data that are not mixed yet, got a MixUpDataset"),
        ({"x": X[:0], "y": Y[:0]}, "x takes at least one sample, got none"),
        ({"x": X, "y": Y, "batch_size": 0}, "batch_size takes a whole number >= 1, got 0"),
        ({"x": X, "y": Y, "shuffle": 3}, "shuffle takes True or False, got 3"),
        (
            {"x": X, "y": np.array(list("abcd") * 5)},
            r"^y takes arrays of numbers, .*np.unique\(y, return_inverse=True\)\[1\] .*, got ndarray array",
        ),
        ({"x": X.astype(object), "y": Y}, "^x takes arrays of numbers, got ndarray array"),
        ({"x": X, "y": ["a"] * 20}, "^y takes arrays of numbers, .*, got str 'a'$"),
        ({"x": X, "y": Y, "mixer": "0.4"}, r"mixer takes a method such as .*, got str '0.4'"),
        ({"x": X, "y": Y, "mixer": bm.Mixup(), "alpha": 1}, "mixer takes all options itself, or None where"),
        ({"x": X, "y": Y, "num_classes": 0}, "num_classes takes a whole number >= 1"),
        ({"x": X, "y": Y, "data_format": "NCHW"}, "data_format takes 'channels_last' or 'channels_first'"),
        ({"x": Batches(), "y": Y}, "y takes nothing where x is a data set"),
        ({"x": Batches(), "batch_size": 8}, "batch_size takes nothing where x is a data set"),
        ({"x": Batches(workers=2)}, "x takes a PyDataset with workers=1, .* give a torch DataLoader"),
        ({"x": Batches(use_multiprocessing=True)}, "got workers=1, use_multiprocessing=True"),
    ],
)
def test_wrong_use_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(bm.MixError, match=message):
        MixUpDataset(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"x": X, "y": Y},
            r"num_classes takes the number of classes where targets are class ids, .*y.astype\('float32'\).* "
            r"got None and int64 tensor \(20,\)",
        ),
        (
            {"x": X, "y": Y / 1.0, "num_classes": 4},
            r"num_classes takes whole numbers .*, got float64 tensor \(20",
        ),
        ({"x": X, "y": ONE_HOT, "num_classes": 7}, r"or floats \(B, 7\); .*, got float64 tensor \(20, 4\)"),
        (
            {"x": X, "y": ONE_HOT.astype("int64")},
            r"y takes one class id .* y.astype\('float32'\), got int64 tensor \(20, 4\)",
        ),
        ({"x": X, "y": ONE_HOT.astype("int64"), "num_classes": 4}, "y takes one class id for each sample"),
        ({"x": X, "y": Y, "num_classes": 2}, "num_classes takes more than every label"),
        (
            {"x": (X * 255).astype("uint8"), "y": ONE_HOT},
            r"^x takes .*, such as x\.astype\('float32'\) / 255, got uint8 \(20, ",
        ),
        ({"x": Batches(extra=True), "num_classes": 4}, "without sample weights, got 3 parts"),
    ],
)
def test_a_batch_that_does_not_fit_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(bm.MixError, match=message):
        make_model().fit(MixUpDataset(**arguments), verbose=0)
