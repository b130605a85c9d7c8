"""Batches of any structure: every leaf is mixed by its kind and one plan, or refused by its name."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict, UserDict, namedtuple
from collections.abc import Iterator, MutableMapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from batchmix import (
    Choice,
    CutMix,
    MixedTarget,
    Mixer,
    MixError,
    MixPlan,
    Mixup,
    ResizeMix,
    SmoothMix,
    TabularCutMix,
    TokenCutMix,
    blend,
)

G = torch.Generator().manual_seed(0)
B = 4
IMAGE = torch.rand(B, 3, 6, 8, generator=G)
SECOND = torch.rand(B, 1, 6, 8, generator=G)
AGE = torch.rand(B, 2, generator=G)
LABEL = torch.tensor([3, 1, 0, 2])
MAP = torch.randint(5, (B, 6, 8), generator=G)
VALUE = torch.rand(B, generator=G)
NAMES = ["a", "b", "c", "d"]

Pair = namedtuple("Pair", "image age")


@dataclasses.dataclass
class Sample:
    image: Tensor
    label: Tensor
    note: Any = None


def plan_of(mixer: Any) -> MixPlan:
    return type(mixer)(1.0, seed=3).plan(IMAGE)


def assert_target(got: Any, y: Tensor, plan: MixPlan) -> None:
    assert isinstance(got, MixedTarget)
    assert torch.equal(got.a, y)
    assert torch.equal(got.b, y[plan.partner])
    assert torch.equal(got.lam, plan.lam)


@pytest.mark.parametrize(
    "nest",
    [
        lambda x, a: (x, a),
        lambda x, a: [x, a],
        lambda x, a: Pair(x, a),
        lambda x, a: {"image": x, "age": a},
        lambda x, a: OrderedDict(image=x, age=a),
        lambda x, a: UserDict(image=x, age=a),
        lambda x, a: {"deep": [(x,), {"age": a}]},
    ],
    ids=["tuple", "list", "namedtuple", "dict", "OrderedDict", "UserDict", "nested"],
)
def test_every_structure_comes_back_as_it_was_with_one_plan_for_all(nest: Any) -> None:
    mixer = Mixup(1.0, seed=3)
    plan = plan_of(mixer)
    before = nest(IMAGE.clone(), AGE.clone())
    x, y = mixer(before, {"label": LABEL, "value": VALUE})
    expected = nest(blend(IMAGE, plan), blend(AGE, plan))
    assert type(x) is type(expected)
    for got, wanted in zip(tensors(x), tensors(expected), strict=True):
        assert torch.equal(got, wanted)
    assert all(torch.equal(t, u) for t, u in zip(tensors(before), (IMAGE, AGE), strict=True))
    assert_target(y["label"], LABEL, plan)
    assert_target(y["value"], VALUE, plan)


class Attributes(dict):
    """What easy dicts are: keys that are attributes."""

    def __init__(self, *given: Any, **values: Any) -> None:
        super().__init__(*given, **values)
        self.__dict__ = self


def test_keys_that_are_attributes_are_mixed_as_both() -> None:
    batch = Attributes(image=IMAGE, label=LABEL)
    mixed = CutMix(1.0, seed=3).mix(batch)
    assert type(mixed) is Attributes
    assert mixed.image is mixed["image"]
    assert_target(mixed.label, LABEL, plan_of(CutMix()))
    assert (batch.image is IMAGE, batch["label"] is LABEL) == (True, True)


class Shared(MutableMapping[str, Tensor]):
    """A mapping whose copies have one storage, since it says nothing of copies."""

    def __init__(self, **entries: Tensor) -> None:
        self.entries = entries

    def __getitem__(self, key: str) -> Tensor:
        return self.entries[key]

    def __setitem__(self, key: str, value: Tensor) -> None:
        self.entries[key] = value

    def __delitem__(self, key: str) -> None:
        del self.entries[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


class Apart(Shared):
    def __copy__(self) -> Apart:
        return Apart(**self.entries)


def test_a_mapping_that_would_be_changed_itself_is_refused() -> None:
    x = Shared(note=LABEL, image=IMAGE, age=AGE)
    line = r"^x takes a mapping [^\n]*, got Shared, whose copy shares its entries$"
    with pytest.raises(MixError, match=line):
        Mixup(seed=3)(x, LABEL, kinds={"x.note": "pass"})
    assert x["image"] is IMAGE
    assert x["age"] is AGE
    mixed, _ = Mixup(seed=3)(Apart(image=IMAGE), LABEL)
    assert isinstance(mixed, Apart)
    assert torch.equal(mixed["image"], blend(IMAGE, Mixup(seed=3).plan(IMAGE)))


def tensors(nest: Any) -> list[Tensor]:
    if isinstance(nest, Tensor):
        return [nest]
    parts = nest.values() if hasattr(nest, "values") else nest
    return [tensor for part in parts for tensor in tensors(part)]


def test_a_dataclass_holds_inputs_and_targets() -> None:
    mixed = Mixup(1.0, seed=3).mix(Sample(IMAGE, LABEL))
    plan = plan_of(Mixup())
    assert isinstance(mixed, Sample)
    assert torch.equal(mixed.image, blend(IMAGE, plan))
    assert_target(mixed.label, LABEL, plan)
    assert mixed.note is None


def test_one_dict_with_a_kind_for_each_leaf_in_doubt() -> None:
    batch = {"image": IMAGE, "age": AGE, "label": LABEL, "map": MAP, "name": NAMES, "value": VALUE}
    kinds = {"age": "input", "map": "segmentation", "name": "pass", "value": "regression"}
    plan = plan_of(CutMix())
    mixed = CutMix(1.0, seed=3).mix(batch, kinds=kinds)
    assert list(mixed) == list(batch)
    own = plan.mask
    assert torch.equal(mixed["image"], torch.where(own, IMAGE, IMAGE[plan.partner]))
    assert torch.equal(mixed["map"], torch.where(own[:, 0], MAP, MAP[plan.partner]))
    torch.testing.assert_close(mixed["age"], blend(AGE, MixPlan(plan.partner, plan.lam)))  # no positions
    assert mixed["name"] is NAMES
    assert_target(mixed["label"], LABEL, plan)
    assert_target(mixed["value"], VALUE, plan)
    assert batch["image"] is IMAGE


@pytest.mark.parametrize("method", [CutMix, ResizeMix, SmoothMix])
@pytest.mark.parametrize("shape", [(3, 6, 8), (3, 8)])
def test_a_map_without_channels_stays_in_step_with_the_samples(
    method: type[Mixer], shape: tuple[int, ...]
) -> None:
    x = torch.rand(B, *shape, generator=G)
    batch, _ = method(partner="roll", seed=3)({"x": x, "map": x[:, 0], "features": x.flatten(1)}, LABEL)
    assert torch.equal(batch["map"], batch["x"][:, 0])
    plan = method(partner="roll", seed=3).plan(x)
    assert torch.equal(batch["features"], blend(x.flatten(1), plan.without_mask()))


def test_class_ids_of_positions_are_pasted_or_paired_and_never_blended() -> None:
    _, pasted = CutMix(1.0, seed=3)(IMAGE, MAP)
    assert pasted.dtype == MAP.dtype
    assert set(pasted.unique().tolist()) <= set(MAP.unique().tolist())
    _, paired = Mixup(1.0, seed=3)(IMAGE, MAP)
    assert_target(paired, MAP, plan_of(Mixup()))


@pytest.mark.parametrize(
    "alone", [CutMix(1.0, p=0.5, seed=3), Choice({CutMix(1.0): 0.5}, seed=3)], ids=["CutMix", "Choice"]
)
def test_class_ids_of_positions_stay_ids_where_a_method_that_pastes_does_not_mix(alone: Mixer) -> None:
    changed = []
    for _ in range(10):
        _, ids = alone(IMAGE, MAP)
        assert isinstance(ids, Tensor)
        changed.append(ids is not MAP)
    assert set(changed) == {True, False}


def test_class_ids_of_positions_stay_paired_where_a_method_that_blends_does_not_mix() -> None:
    for mixer in (Mixup(p=0.0), Choice({Mixup(): 0.0, CutMix(): 0.0})):
        _, paired = mixer(IMAGE, MAP)
        assert_target(paired, MAP, MixPlan.identity(B))


def test_a_replayed_plan_mixes_masks_and_second_views_alike() -> None:
    mixer = CutMix(1.0, seed=3)
    plan = mixer.plan(IMAGE)
    (image, second), y = mixer((IMAGE, SECOND), LABEL, plan=plan)
    assert torch.equal(image, blend(IMAGE, plan))
    assert torch.equal(second, blend(SECOND, plan))
    assert_target(y, LABEL, plan)


def test_videos_and_series_are_cut_by_one_mask() -> None:
    video = torch.rand(B, 3, 5, 6, 8, generator=G)
    plan = CutMix(1.0, seed=3).plan(video)
    mixed, _ = CutMix(1.0, seed=3)(video, LABEL)
    assert plan.mask.shape[-2:] == (6, 8)
    own = plan.mask.view(B, 1, 1, 6, 8)
    assert torch.equal(mixed, torch.where(own, video, video[plan.partner]))
    series = torch.rand(B, 3, 9, generator=G)
    mixed, y = CutMix(1.0, seed=3)(series, LABEL)
    stays = (mixed == series).all(1).float().mean(1)
    torch.testing.assert_close(stays, y.lam)


def test_a_resolution_that_changes_in_mid_run_is_fine() -> None:
    mixer = CutMix(1.0, seed=3)
    for size in (6, 8, 6, 10):
        x, _ = mixer(torch.rand(B, 3, size, size + 2, generator=G), LABEL)
        assert x.shape == (B, 3, size, size + 2)


def test_where_a_batch_is_not_mixed_inputs_are_handed_back_and_targets_have_weight_one() -> None:
    x = {"image": IMAGE, "attention_mask": torch.ones(B, 4, dtype=torch.long)}
    mixed, y = Mixup(p=0.0)(x, (LABEL, VALUE))
    assert mixed["image"] is IMAGE
    assert torch.equal(mixed["attention_mask"], x["attention_mask"])
    assert all(torch.equal(part.lam, torch.ones(B)) for part in y)


MIX = Mixup(seed=0)


@pytest.mark.parametrize(
    ("named", "call"),
    [
        ("x.1", lambda: MIX((IMAGE, IMAGE.byte()), LABEL)),
        ("x.ids", lambda: MIX({"ids": LABEL, "image": IMAGE}, LABEL)),
        ("x.name", lambda: MIX({"image": IMAGE, "name": NAMES}, LABEL)),
        ("y.b", lambda: MIX(IMAGE, {"a": LABEL, "b": LABEL[:3]})),
        ("y.0", lambda: MIX(IMAGE, [3.0, LABEL])),
        ("y.0", lambda: MIX(IMAGE, (MIX(IMAGE, LABEL)[1], LABEL))),
        ("map", lambda: MIX.mix({"image": IMAGE, "map": MAP})),
        ("value", lambda: MIX.mix({"image": IMAGE, "value": VALUE})),
        ("1", lambda: MIX.mix([IMAGE, NAMES])),
        ("batch", lambda: MIX.mix({"label": LABEL})),
        ("batch", lambda: MIX.mix({})),
        ("y", lambda: MIX(IMAGE, torch.rand(B, 6, 8))),
        ("kinds", lambda: MIX(IMAGE, LABEL, kinds={"y.map": "pass"})),
        ("kinds", lambda: MIX(IMAGE, LABEL, kinds=["pass"])),
        ("kinds", lambda: MIX(IMAGE, LABEL, kinds={0: "pass", "q": "pass"})),
        ("kinds['y']", lambda: MIX(IMAGE, LABEL, kinds={"y": "labels"})),
        ("y.map", lambda: CutMix(seed=0)(IMAGE, {"map": MAP[:, :3]}, kinds={"y.map": "segmentation"})),
        ("y", lambda: CutMix(seed=0)(IMAGE, torch.rand(B, 1, 6, 8))),  # depth, or heat
        ("y", lambda: CutMix(seed=0)(IMAGE, MAP[:, ::2, ::2])),  # ids of positions at half the resolution
        ("y", lambda: CutMix(seed=0)(IMAGE.unsqueeze(2), MAP)),  # one map for all frames of a video
        ("y", lambda: CutMix(seed=0)(IMAGE[:, :, 0], MAP[:, 0])),  # each step of a series, or 8 labels
        ("y", lambda: CutMix(seed=0)(IMAGE[:, :, 0], torch.rand(B, 8))),
        ("y.boxes", lambda: CutMix(seed=0)(IMAGE, {"boxes": torch.rand(B, 5, 4), "label": LABEL})),
        ("x.attention_mask", lambda: MIX({"x": IMAGE[:, 0], "attention_mask": torch.ones(B, 6)}, LABEL)),
        ("x.0", lambda: MIX([IMAGE[0]] * 3, [{"boxes": torch.zeros(0, 4)}] * 3)),  # 3 images of 3 channels
        ("image", lambda: MIX.mix({"image": IMAGE.byte(), "label": LABEL})),
        ("x", lambda: MIX({0: IMAGE, "0": IMAGE}, LABEL)),
        ("batch", lambda: MIX.mix({1: {"a": IMAGE}, "1": {"b": LABEL}})),
        ("batch", lambda: MIX.mix({"": IMAGE, "label": LABEL})),
        ("batch", lambda: MIX({"a": {"b": IMAGE}, "a.b": IMAGE}, LABEL)),
        ("mask", lambda: MIX.mix({"mask": MAP[:, None].float(), "image": IMAGE, "label": LABEL})),
        ("boxes", lambda: MIX.mix({"image": IMAGE, "boxes": torch.rand(B, 5, 4), "label": LABEL})),
        ("y.keypoints", lambda: MIX(IMAGE, {"keypoints": torch.rand(B, 5, 3)})),
        ("x", lambda: TabularCutMix(seed=0)(np.random.default_rng(0).random((B, 4)), LABEL)),
        ("x.0", lambda: TokenCutMix(seed=0)([[1, 2, 3], [4, 5, 6]], LABEL[:2])),
        ("x", lambda: MIX(IMAGE.to_sparse(), LABEL)),
    ],
)
def test_a_leaf_in_doubt_is_named_in_one_line(named: str, call: Any) -> None:
    with pytest.raises(MixError) as caught:
        call()
    message = str(caught.value)
    assert message.startswith((f"{named} takes ", f"{named}: "))
    assert "\n" not in message


def test_a_kind_settles_the_doubt() -> None:
    dense = torch.rand(B, 6, 8, generator=G)
    _, y = MIX(IMAGE, dense, kinds={"y": "regression"})
    assert isinstance(y, MixedTarget)
    _, y = CutMix(1.0, seed=3)(IMAGE, dense, kinds={"y": "segmentation"})
    assert isinstance(y, Tensor)
    x, _ = MIX({"image": IMAGE, "ids": LABEL, "meta": {"name": NAMES, "age": AGE}}, LABEL, kinds=PASSED)
    assert x["ids"] is LABEL
    assert x["meta"]["name"] is NAMES


def test_samples_of_unequal_lengths_are_told_to_be_padded() -> None:
    nested = torch.nested.nested_tensor([torch.rand(5 + i, 2) for i in range(B)], layout=torch.jagged)
    with pytest.raises(
        MixError, match=r"^sound takes a dense tensor, such as sound\.to_padded_tensor\(0\.0\)"
    ):
        MIX.mix({"sound": nested, "label": LABEL})


def test_bytes_are_told_how_to_become_images() -> None:
    with pytest.raises(
        MixError, match=r"^image takes floating point images, such as image\.float\(\) / 255, or"
    ):
        MIX.mix({"image": IMAGE.byte(), "label": LABEL})


@pytest.mark.parametrize(
    ("image", "channels", "hint"),
    [(IMAGE.permute(0, 2, 3, 1), 3, r"uint8 images \(B, 3, H, W\), or "), (IMAGE[:, :1], 1, "")],
    ids=["channels last", "gray"],
)
def test_bytes_to_be_normalised_are_not_told_to_become_floats(
    image: Tensor, channels: int, hint: str
) -> None:
    """Which would be refused in their turn."""
    mixer = Mixup(seed=0, normalize=((0.5,) * channels, (0.5,) * channels))
    with pytest.raises(MixError, match=rf"^image takes {hint}a kind, as in kinds="):
        mixer.mix({"image": image.byte(), "label": LABEL})


@pytest.mark.parametrize(
    ("samples", "hint"),
    [
        (torch.zeros(B, 1, 50, dtype=torch.int16), r", such as x\.float\(\) / 32768"),
        (torch.zeros(B, 1, 4, 5, 6, dtype=torch.int16), r", such as \(x\.float\(\) - low\) / \(high - low\)"),
        (torch.zeros(B, 9, dtype=torch.complex64), r", such as torch\.view_as_real\(x\)"),
        (torch.zeros(B, 9, dtype=torch.int64), r" \(TokenCutMix and TabularCutMix paste ids\)"),
    ],
)
def test_sound_and_ids_are_not_told_to_become_images(samples: Tensor, hint: str) -> None:
    with pytest.raises(MixError, match=rf"^x takes floating point samples{hint}, got "):
        MIX(samples, LABEL)


def test_only_a_leaf_beside_others_is_told_that_it_may_pass() -> None:
    with pytest.raises(MixError, match=r"^x\.ids takes .*, or kinds={'x\.ids': 'pass'}, got int64 tensor"):
        MIX({"image": IMAGE, "ids": LABEL}, LABEL)
    with pytest.raises(MixError, match=r"^x takes a tensor .*, such as torch\.as_tensor\(x\), got ndarray"):
        MIX(IMAGE.numpy(), LABEL)
    with pytest.raises(MixError, match=r"^y takes .*, such as torch\.as_tensor\(y\), got ndarray"):
        MIX(IMAGE, LABEL.numpy())


@pytest.mark.parametrize(
    ("leaf", "kind"), [(VALUE[:, None], "input"), (VALUE, "regression"), (LABEL[:, None], "multilabel")]
)
def test_a_leaf_in_doubt_is_told_the_likely_kind(leaf: Tensor, kind: str) -> None:
    with pytest.raises(MixError, match=rf"^value takes a kind, as in kinds={{'value': '{kind}'}}"):
        MIX.mix({"image": IMAGE, "value": leaf})


@pytest.mark.parametrize(("shape", "kind"), [((B, 5, 2), "regression"), ((B, 6, 8), "segmentation")])
def test_values_of_a_sample_are_told_from_those_of_its_positions(shape: tuple[int, ...], kind: str) -> None:
    with pytest.raises(MixError, match=rf"^y takes a kind, as in kinds={{'y': '{kind}'}}"):
        MIX(IMAGE, torch.zeros(shape))


def test_a_lone_tensor_is_named_as_the_error_names_it() -> None:
    with pytest.raises(MixError, match=r"^batch takes a kind, as in kinds={'batch': 'input'}"):
        Mixup(seed=0).mix(AGE)
    assert Mixup(seed=0).mix(AGE, kinds={"batch": "input"}).shape == AGE.shape


def test_a_plan_is_replayed_on_dicts_in_compiled_code() -> None:
    mixer, plan = Mixup(seed=0), plan_of(Mixup())

    def step(batch: dict, y: Tensor) -> tuple[Tensor, Tensor]:
        x, target = mixer(batch, y, plan=plan)
        return x["image"], target.lam

    compiled = torch.compile(step, fullgraph=True, backend="eager")
    for got, wanted in zip(compiled({"image": IMAGE}, LABEL), step({"image": IMAGE}, LABEL), strict=True):
        assert torch.equal(got, wanted)


@dataclasses.dataclass(frozen=True)
class Frozen:
    image: Tensor
    scale: dataclasses.InitVar[int]
    size: tuple[int, ...] = dataclasses.field(init=False, default=())

    def __post_init__(self, scale: int) -> None:
        object.__setattr__(self, "size", (6 * scale, 8 * scale))


def test_a_dataclass_that_cannot_be_built_again_from_its_fields_is_mixed() -> None:
    whole = Frozen(IMAGE, 2)
    mixed, _ = Mixup(1.0, seed=3)({"deep": [whole]}, LABEL, kinds={"x.deep.0.size": "pass"})
    assert torch.equal(mixed["deep"][0].image, blend(IMAGE, plan_of(Mixup())))
    assert mixed["deep"][0].size == (12, 16)
    assert whole.image is IMAGE


PASSED = {"x.ids": "pass", "x.meta": "pass"}


def test_a_mask_of_pixels_in_use_is_no_image_to_be_normalised() -> None:
    batch = {"pixel_values": torch.randint(256, (B, 3, 8, 8), dtype=torch.uint8)}
    batch["pixel_mask"] = torch.ones(B, 8, 8, dtype=torch.uint8)
    mixer = Mixup(0.4, seed=0, normalize=([0.5] * 3, [0.5] * 3))
    x, _ = mixer(batch, torch.arange(B))
    assert torch.equal(x["pixel_mask"], batch["pixel_mask"])
