"""Arms as text: every option of every method by its type, the same arm always the same text."""

from __future__ import annotations

import itertools

import pytest
import torch

import batchmix as bm
from batchmix.errors import MixError
from batchmix.methods import discover
from batchmix.study.arms import (
    TwoLoaders,
    arm_names,
    check_on_images,
    options_for,
    parse_arm,
    parse_arms,
)

X, Y = torch.rand(16, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(16) % 4
OTHER_X = torch.rand(16, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def mixed_by(mixer, steps=1):
    return [mixer(X, Y) for _ in range(steps)]


def same(first, second):
    (x1, y1), (x2, y2) = first, second
    return torch.equal(x1, x2) and torch.equal(y1.lam, y2.lam) and torch.equal(y1.b, y2.b)


@pytest.mark.parametrize("name", arm_names())
def test_every_arm_is_there_by_its_name_alone(name):
    arm = parse_arm(name)
    assert str(arm) == name
    assert isinstance(arm.mixer(seed=0, steps=10), bm.Mixer)
    assert arm.settings()["method"] == name
    if name != "none":
        assert str(parse_arm(f"{name}:until=0.5")) == f"{name}:until=0.5"


OTHER = {float: "0.25", int: "5", bool: None}


def option_texts():
    for name in arm_names()[1:]:  # but "none", which has none
        for key, option in options_for(name).items():
            if option.kind is bool:
                text = "false" if option.default else "true"
            elif option.kind in OTHER:
                text = OTHER[option.kind]
            else:
                continue
            yield name, key, text


@pytest.mark.parametrize(("name", "key", "text"), list(option_texts()))
def test_every_number_and_flag_can_be_said_and_is_the_same_when_read_again(name, key, text):
    arm = parse_arm(f"{name}:{key}={text}")
    assert str(arm) == f"{name}:{key}={text}"
    assert parse_arm(str(arm)) == arm
    value = {"true": True, "false": False}.get(text, float(text) if text[0] in "05" else None)
    assert arm.settings()[key] == value


@pytest.mark.parametrize(
    ("text", "mixer"),
    [
        ("mixup", bm.Mixup(seed=5)),
        ("mixup:alpha=0.2,per=batch,fold=false", bm.Mixup(0.2, per="batch", fold=False, seed=5)),
        ("mixup:partner=derangement,p_sample=0.5", bm.Mixup(partner="derangement", p_sample=0.5, seed=5)),
        ("cutmix:minmax=0.2,0.5,per=pair", bm.CutMix(minmax=(0.2, 0.5), per="pair", seed=5)),
        ("cutmix:minmax=none", bm.CutMix(seed=5)),
        ("resizemix:scale=0.2,0.3", bm.ResizeMix((0.2, 0.3), seed=5)),
        ("kmixup:k=4", bm.KMixup(k=4, seed=5)),
        ("choice", bm.Choice({bm.CutMix(1.0): 0.5, bm.Mixup(0.4): 0.5}, seed=5)),
        ("choice:mixup=0.3,cutmix=0.5", bm.Choice({bm.CutMix(): 0.5, bm.Mixup(): 0.3}, seed=5)),
        ("choice:fmix=1,per=sample", bm.Choice({bm.FMix(): 1.0}, per="sample", seed=5)),
    ],
)  # fmt: skip
def test_an_arm_mixes_as_the_method_that_it_names(text, mixer):
    for got, expected in zip(mixed_by(parse_arm(text).mixer(5, 6), 6), mixed_by(mixer, 6), strict=True):
        assert same(got, expected)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        (" mixup:per=batch,alpha=0.20 ", "mixup:alpha=0.2,per=batch"),
        ("mixup:alpha=0.4,fold=yes,per=sample,until=1", "mixup"),
        ("mixup:fold=NO", "mixup:fold=false"),
        ("cutmix:per=pair,minmax=0.20,0.5", "cutmix:per=pair,minmax=0.2,0.5"),
        ("choice:cutmix=.5,mixup=.3", "choice:cutmix=0.5,mixup=0.3"),
        ("choice:mixup=.5,per=sample,cutmix=.5", "choice:per=sample"),
        ("two-loaders:alpha=1.0", "two-loaders:alpha=1"),
        ("none:", "none"),
    ],
)
def test_the_same_arm_is_always_the_same_text(text, written):
    first = str(parse_arm(text))
    assert str(parse_arm(first)) == first
    assert first == written
    pieces = text.strip().partition(":")
    for order in itertools.permutations(pieces[2].split(",")):
        if all("=" in piece for piece in order):
            assert str(parse_arm(f"{pieces[0]}:{','.join(order)}")) == first


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("mixupp", "ARM takes one of none, mixup, .*two-loaders, got 'mixupp'"),
        ("", "ARM takes one of"),
        ("mixup:alhpa=1", "mixup takes alpha, per, fold, .*until, got 'alhpa'"),
        ("mixup:alpha=1,alpha=2", "once, got 'alpha' twice"),
        ("mixup:alpha=", "alpha of the arm mixup takes a number, got ''"),
        ("mixup:alpha=nan", "alpha of the arm mixup takes a number, got 'nan'"),
        ("mixup:alpha=-1", r"in the arm mixup:alpha=-1: alpha takes a .*>= 0, got -1"),
        ("mixup:alpha=none", "alpha .*a number, got 'none'"),
        ("mixup:fold=perhaps", "fold .*true or false, got 'perhaps'"),
        ("mixup:per=image", "per .*one of batch, pair, sample, got 'image'"),
        ("mixup:seed=3", "got 'seed'"),
        ("mixup:schedule=3", "got 'schedule'"),
        ("saliencymix:saliency=x", "got 'saliency'"),
        ("mixup:0.4", "name=value, got '0.4'"),
        ("kmixup:k=2.5", "k .*a whole number, got '2.5'"),
        ("cutmix:minmax=0.2,x", "minmax .*numbers with commas"),
        ("cutmix:minmax=0.2", "minmax"),
        ("none:alpha=1", "none takes no options, got 'alpha'"),
        ("mixup:until=1.5", r"until .*\[0, 1\], got 1.5"),
        ("choice:mixup=0.7,cutmix=0.7", "at most 1"),
        ("choice:tokencutmix=0.5", "got 'tokencutmix'"),
        ("two-loaders:fold=true", "two-loaders takes alpha, p, until, got 'fold'"),
    ],
)
def test_what_is_no_arm_is_one_line_that_names_it(text, named):
    with pytest.raises(MixError, match=named) as raised:
        parse_arm(text)
    assert "\n" not in str(raised.value)


def test_two_arms_that_are_the_same_are_refused():
    assert [str(arm) for arm in parse_arms(["none", "mixup"])] == ["none", "mixup"]
    with pytest.raises(MixError, match=r"'mixup' and 'mixup:alpha=0.40', which are the same"):
        parse_arms(["none", "mixup", "mixup:alpha=0.40"])


@pytest.mark.parametrize("name", ["mixup", "cutmix", "choice", "fmix"])
@pytest.mark.parametrize("until", [0, 0.25, 0.6, 1])
def test_mixing_stops_at_its_share_of_the_training(name, until):
    steps = 10
    mixed = mixed_by(parse_arm(f"{name}:until={until}").mixer(0, steps), steps)
    assert [not torch.equal(x, X) for x, _ in mixed] == [step < until * steps for step in range(steps)]


def test_none_mixes_nothing():
    for x, y in mixed_by(parse_arm("none").mixer(seed=0, steps=3), steps=3):
        assert torch.equal(x, X)
        assert bool((y.lam == 1).all())


# Two loaders


def two_loaders(text, steps, num_classes=4):
    asked = []

    def second(step):
        asked.append(step)
        return OTHER_X + step, (Y + step) % 4

    return TwoLoaders(parse_arm(text).mixer(3, steps), second, num_classes), asked


def test_two_loaders_are_one_weight_a_batch_and_dense_one_hot_targets():
    mixer, asked = two_loaders("two-loaders:alpha=0.4", 20)
    weights = []
    for step in range(20):
        x, target = mixer(X, Y)
        other, labels = OTHER_X + step, (Y + step) % 4
        lam = ((x - other) / (X - other)).median()
        weights.append(float(lam))
        torch.testing.assert_close(x, lam * X + (1 - lam) * other, atol=1e-4, rtol=0)
        dense = lam * torch.eye(4)[Y] + (1 - lam) * torch.eye(4)[labels]
        torch.testing.assert_close(target, dense, atol=1e-4, rtol=0)
    assert asked == list(range(20))
    assert min(weights) < 0.5 < max(weights)  # not folded
    assert len({round(lam, 4) for lam in weights}) > 10


def test_the_second_loader_is_not_asked_any_more_once_the_mixing_is_over():
    mixer, asked = two_loaders("two-loaders:until=0.5", 10)
    mixed = [mixer(X, Y) for _ in range(10)]
    assert asked == list(range(5))
    assert all(torch.equal(x, X) and torch.equal(y.a, Y) for x, y in mixed[5:])


def test_two_loaders_go_on_from_their_state_and_take_any_loss():
    first, _ = two_loaders("two-loaders", 10, num_classes=None)
    again, asked = two_loaders("two-loaders", 10, num_classes=None)
    expected = [first(X, Y) for _ in range(4)]
    again.load_state_dict({**first.state_dict(), "step": 2})
    assert same(again(X, Y), expected[2])
    assert asked == [2]
    assert isinstance(expected[0][1], bm.MixedTarget)
    assert first.settings(0) == again.settings(0)


# On images


def test_methods_for_something_else_are_refused_before_anything_trains():
    for name in ("none", "mixup", "cutmix", "fmix", "saliencymix", "choice", "two-loaders"):
        check_on_images(parse_arm(name), 32)
    with pytest.raises(MixError, match=r"^the arm tokencutmix does not mix images with class ids: [^\n]+$"):
        check_on_images(parse_arm("tokencutmix"), 32)


def test_a_method_that_weighs_labels_after_the_model_is_no_arm():
    assert "transmix" in discover()
    with pytest.raises(MixError, match=r"ARM takes one of none, mixup, .*, got 'transmix'"):
        parse_arm("transmix")
    with pytest.raises(MixError, match=r"the arm choice takes .*, got 'transmix'"):
        parse_arm("choice:transmix=0.5,mixup=0.5")
