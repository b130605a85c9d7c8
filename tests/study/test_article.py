"""What is run for the article: three scales, three measurements, three or four studies."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from article_records import write

from batchmix.errors import DataError, MixError
from batchmix.study.arms import parse_arm
from batchmix.study.article import PRESETS, onehot, run_article
from batchmix.study.article.evidence import measure
from batchmix.study.article.presets import ARMS, ITSELF, MIXUP, PER_BATCH, SMALL, TWO_LOADERS
from batchmix.study.engine import EngineOptions


@pytest.mark.parametrize("scale", PRESETS["article"].values(), ids=PRESETS["article"])
def test_the_plans_of_every_scale(scale):
    plans = scale.plans("fashion-mnist", size=28)
    claims, few, many = list(plans.values())[:3]
    more = dict(list(plans.items())[3:])
    assert claims.arms == tuple(str(parse_arm(arm)) for arm in ARMS) == ARMS
    assert few.arms == many.arms == ("none", MIXUP)
    assert claims.images == few.images < many.images
    assert not set(claims.epochs) & set(few.epochs)
    assert {plan.seeds for plan in (claims, few, many)} == {tuple(scale.seeds)}
    assert {(plan.data, plan.size) for plan in plans.values()} == {("fashion-mnist", 28)}
    assert claims.config == few.config
    arms = {"loaders": (TWO_LOADERS, ITSELF), "more-seeds": ("none", MIXUP, PER_BATCH)}
    wanted = {"loaders": scale.loader_seeds, "more-seeds": scale.more_seeds}
    assert more == {name: own for name, own in plans.items() if wanted.get(name)}
    for name, study in more.items():
        assert (study.arms, study.seeds) == (arms[name], tuple(wanted[name]))
        assert not set(study.seeds) & set(claims.seeds)
        assert (study.images, study.epochs, study.config) == (claims.images, claims.epochs, claims.config)


@pytest.fixture
def engine(monkeypatch):
    """An engine that trains nothing: it notes what it is asked for, and stops where it is told to."""
    import batchmix.data
    import batchmix.study.engine

    asked = []
    notes = SimpleNamespace(asked=asked, stop_at=None, asked_at=None, loads=0)

    def compare(plan, options, progress):
        asked.append((options.folder.name, plan.images, plan.epochs))
        progress.stopped = options.folder.name == notes.stop_at
        progress.interrupted = options.folder.name in (notes.stop_at, notes.asked_at)
        return options.folder.name

    def load_images(name, *, size=None, root=None):
        notes.loads += 1
        noise = np.random.default_rng(0).integers(0, 255, (30, 8, 8, 3), np.uint8)
        return SimpleNamespace(train_x=noise, train_y=np.arange(30) % 3)

    monkeypatch.setattr("batchmix.study.article.evidence.busy_share", lambda: 0.1234)
    monkeypatch.setattr(batchmix.study.engine, "compare", compare)
    monkeypatch.setattr(batchmix.data, "load_images", load_images)
    return notes


def progress():
    return SimpleNamespace(note=lambda line: None, stopped=False, interrupted=False)


def test_all_studies_and_three_measurements(engine, tmp_path):
    options = EngineOptions(folder=tmp_path, command="as typed", device="cpu")
    names = ["claims", "few-images", "many-images", "loaders", "more-seeds"]
    assert run_article(SMALL, options, progress) == names
    assert engine.asked == [
        ("claims", 200, (4,)),
        ("few-images", 200, (2,)),
        ("many-images", 400, (1,)),
        ("loaders", 200, (4,)),
        ("more-seeds", 200, (4,)),
    ]
    for name in ("loading", "one-hot", "duplicates"):
        record = json.loads((tmp_path / "measured" / f"{name}.json").read_text())
        assert record["command"] == "as typed"
        assert record["machine"]["threads"] == torch.get_num_threads()
        assert record["busy_before"] == 0.12
    assert run_article(SMALL, options, progress)
    assert engine.loads == 1  # what is measured is not measured again


def test_a_study_that_is_stopped_stops_all(engine, tmp_path):
    engine.stop_at = "few-images"
    options = EngineOptions(folder=tmp_path, command="as typed", device="cpu")
    assert run_article(SMALL, options, progress) is None
    assert [name for name, *_ in engine.asked] == ["claims", "few-images"]


def test_a_stop_in_the_last_test_of_a_study_begins_no_other_study(engine, tmp_path):
    engine.asked_at = "claims"
    options = EngineOptions(folder=tmp_path, command="as typed", device="cpu")
    assert run_article(SMALL, options, progress) is None
    assert [name for name, *_ in engine.asked] == ["claims"]
    engine.asked_at = "more-seeds"  # after which there is no other
    assert run_article(SMALL, options, progress) is not None


def test_a_folder_of_too_few_images_is_refused_before_anything_is_measured(engine, tmp_path):
    options = EngineOptions(folder=tmp_path / "out", command="as typed", device="cpu")
    says = "^--data takes a set with the 400 training images of this scale or more, got folder:mine with 30$"
    with pytest.raises(MixError, match=says):
        run_article(SMALL, options, progress, data="folder:mine")
    assert engine.asked == []
    assert not options.folder.exists()
    assert max(scale.many for scale in PRESETS["article"].values()) <= 50_000  # as the smallest published set


@pytest.mark.parametrize(
    "changed", ["core/torch_losses.py", "kernels/loss_loops.py", "study/article/onehot.py"]
)
def test_a_loss_that_has_changed_is_timed_anew(engine, tmp_path, monkeypatch, changed):
    options = EngineOptions(folder=tmp_path, command="before", device="cpu")
    run_article(SMALL, options, progress)
    copy = tmp_path / "package"
    shutil.copytree(onehot.PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(onehot, "PACKAGE", copy)
    run_article(SMALL, replace(options, command="the same"), progress)
    (copy / changed).write_text("another loop")
    run_article(SMALL, replace(options, command="after"), progress)
    made = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "measured").iterdir()}
    assert {name: record["command"] for name, record in made.items()} == {
        "loading": "before", "one-hot": "after", "duplicates": "before"
    }  # fmt: skip


def test_other_settings_are_measured_anew(tmp_path, monkeypatch):
    monkeypatch.setattr("batchmix.study.article.evidence.busy_share", lambda: 0.0)
    made = []

    def make():
        made.append(len(made))
        return {"made": len(made)}

    for settings in ({"repeats": 3, "classes": (1, 2)}, {"repeats": 3, "classes": (1, 2)}, {"repeats": 4}):
        record = measure(tmp_path, "one-hot", make, settings, "as typed", torch.device("cpu"))
    assert made == [0, 1]
    assert record["found"] == {"made": 2}


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("batchmix.study.article.evidence.busy_share", lambda: 0.0)
    write(tmp_path / "measured", "a file")
    with pytest.raises(DataError, match="cannot"):
        measure(tmp_path, "loading", dict, {}, "as typed", torch.device("cpu"))
