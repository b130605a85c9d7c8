"""The choices of a run: refused by name where they make no sense, and the same after a way through JSON."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from tiny_runs import tiny

from batchmix.errors import MixError
from batchmix.recipe.config import PRESETS, TrainConfig, preset, preset_of

INF, NAN = float("inf"), float("nan")
INVALID = [
    *(("mix", value) for value in ("fmix", None)),
    *(("alpha", value) for value in (-0.1, INF, NAN)),
    *(("per", value) for value in ("image", None)),
    *(("fold", value) for value in ("yes", 1)),
    *(("mix_until", value) for value in (-0.1, 1.1, NAN)),
    *(("p_sample", value) for value in (-0.1, 1.1, NAN)),
    *(("square", value) for value in (-1, 33)),
    *(("epochs", value) for value in (0, -1, 1e308, INF, NAN)),
    *(("batch_size", value) for value in (1, 0, -5)),
    *(("widths", value) for value in ((), (8, 8), (8, 8, 8, 8), (8, 0, 8), (8, 8, 2**40))),
    *(("sizes", value) for value in ((), (15,), (16, 33), (32, -1))),
    *(("crops", value) for value in ((), (15,), (0, 33), (-1,))),
    ("activation", "relu"),
    ("net", "resnet"),
    ("optimizer", "adam"),
    ("schedule", "cosine"),
    ("precision", "float16"),
    ("compile", "yes"),
    *(("tta", value) for value in (-0.1, 1.1, NAN)),
    *(("label_smoothing", value) for value in (-0.1, 1, NAN)),
    *((name, value) for name in ("filter_lr", "bias_lr", "head_lr") for value in (-1, 1e300, INF, NAN)),
    *(("weight_decay", value) for value in (-1, INF, NAN)),
    *(("shift", value) for value in (-1, 9)),
    *(("images", value) for value in (0, 99, 50_001)),
    *(("seed", value) for value in (-1, 2**64, 2**80)),
]


@pytest.mark.parametrize(("name", "value"), INVALID)
def test_a_wrong_value_is_one_line_that_names_its_field(name, value):
    with pytest.raises(MixError, match=rf"^{name} takes [^\n]*, got [^\n]*$"):
        TrainConfig(**{"batch_size": 100, name: value})


def test_every_field_has_a_wrong_value_above():
    assert {name for name, _ in INVALID} == set(TrainConfig().as_dict())


@pytest.mark.parametrize("name", PRESETS, ids="preset-{}".format)
def test_presets_are_valid_and_the_same_after_json(name):
    config = preset(name)
    assert TrainConfig.from_dict(json.loads(json.dumps(config.as_dict()))) == config
    assert config.steps >= 1
    assert PRESETS[name].text


def test_an_unknown_preset_is_refused_with_those_there_are():
    with pytest.raises(MixError, match=r"^preset takes one of auto, smoke, .*got 'big'$"):
        preset("big")


@pytest.mark.parametrize("name", PRESETS, ids="preset-{}".format)
def test_settings_tell_their_preset_whatever_the_seed_and_the_mixing(name):
    values = {**preset(name).as_dict(), "seed": 77, "mix": "none", "accuracy": 0.9}
    assert preset_of(values) == name
    assert preset_of({**values, "filter_lr": 0.123}) is None


@pytest.mark.parametrize("sizes", [(32,), (16, 32), (20, 24, 32), (16, 18, 20, 22, 24)])
def test_sizes_come_in_order_each_for_its_share(sizes):
    config = tiny(sizes=sizes, epochs=6)
    came = [config.size_at(step) for step in range(config.steps)]
    assert came == sorted(came)
    counts = Counter(came)
    assert set(counts) == set(sizes)
    assert max(counts.values()) - min(counts.values()) <= 1


def test_what_the_net_sees_is_no_larger_than_what_is_cut():
    config = tiny(sizes=(20, 32), crops=(0, 24, 28, 0), epochs=2)  # 8 steps
    assert [config.crop_at(step) for step in range(8)] == [0, 0, 24, 24, 28, 28, 0, 0]
    assert [config.size_at(step) for step in range(8)] == [20, 20, 20, 20, 28, 28, 32, 32]


@pytest.mark.parametrize(("epochs", "steps"), [(2, 8), (0.5, 2), (0.01, 1), (1.3, 5)])
def test_steps_are_epochs_of_full_batches_and_at_least_one(epochs, steps):
    assert tiny(images=249, epochs=epochs).steps == steps


def test_what_an_older_version_wrote_has_the_rest_at_its_defaults():
    old = tiny(alpha=0.7).as_dict()
    for name in ("net", "optimizer", "schedule", "precision", "compile", "p_sample", "square", "crops"):
        del old[name]
    assert TrainConfig.from_dict(old) == tiny(alpha=0.7)


def test_muon_is_refused_for_a_net_whose_filters_have_no_fixed_length():
    with pytest.raises(MixError, match=r"^optimizer takes 'sgd' or 'adamw' for a wide net, got 'muon'$"):
        tiny(net="wide")


def test_presets_that_were_there_before_train_as_they_did():
    standard = TrainConfig()
    for name in ("smoke", "quick", "cpu", "cpu-avx512", "cpu-bf16", "gpu"):
        for field in ("net", "optimizer", "schedule", "precision", "compile", "p_sample", "square"):
            assert getattr(preset(name), field) == getattr(standard, field)
