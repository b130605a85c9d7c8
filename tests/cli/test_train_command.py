"""``batchmix train``: flags made from the config, and one line for what can't be carried out."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from test_main import call, refused

from batchmix.cli import build_parser
from batchmix.cli.train import config_from
from batchmix.data import Cifar10
from batchmix.recipe import run as recipe_run
from batchmix.recipe.config import PRESETS, TrainConfig, preset

TINY = ["--device=cpu", "--widths=8,8,8", "--sizes=16", "--images=100", "--batch-size=50", "--epochs=1"]
OTHER = {
    "mix": ("none", "none"),
    "alpha": ("0.7", 0.7),
    "per": ("batch", "batch"),
    "fold": (None, False),
    "mix_until": ("0.25", 0.25),
    "p_sample": ("0.5", 0.5),
    "square": ("12", 12),
    "epochs": ("1.5", 1.5),
    "batch_size": ("64", 64),
    "net": ("residual", "residual"),
    "widths": ("8,8,8", (8, 8, 8)),
    "sizes": ("16,32", (16, 32)),
    "crops": ("24,0", (24, 0)),
    "activation": ("silu", "silu"),
    "label_smoothing": ("0.1", 0.1),
    "optimizer": ("sgd", "sgd"),
    "schedule": ("triangle", "triangle"),
    "filter_lr": ("0.5", 0.5),
    "bias_lr": ("0.6", 0.6),
    "head_lr": ("0.8", 0.8),
    "weight_decay": ("0.002", 0.002),
    "shift": ("1", 1),
    "tta": ("0.25", 0.25),
    "precision": ("float32", "float32"),
    "compile": ("auto", "auto"),
    "images": ("3000", 3000),
    "seed": ("5", 5),
}


def config(*words):
    return config_from(build_parser().parse_args(["train", *words]), "cpu")


@pytest.mark.parametrize("field", dataclasses.fields(TrainConfig), ids=lambda field: field.name)
def test_every_field_of_the_config_has_a_flag(field):
    text, value = OTHER[field.name]
    flag = field.name.replace("_", "-")
    made = config(f"--no-{flag}") if text is None else config(f"--{flag}", text)
    assert made == dataclasses.replace(preset("cpu"), **{field.name: value})
    assert made != preset("cpu")


def test_the_recipe_mixes_with_cutmix_too():
    assert config("--mix=cutmix", "--square=8") == dataclasses.replace(preset("cpu"), mix="cutmix", square=8)


@pytest.mark.parametrize("name", PRESETS, ids="preset-{}".format)
def test_flags_change_the_preset_and_nothing_else(name):
    args = build_parser().parse_args(["train", "--preset", name, "--seed", "3"])
    assert config_from(args, name) == dataclasses.replace(preset(name), seed=3)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--preset", "big"], "preset"),
        (["--epochs", "x"], "--epochs"),
        (["--epochs", "nan"], "epochs"),
        (["--epochs", "inf"], "epochs"),
        (["--epochs", "-1"], "epochs"),
        (["--epochs", "1e308"], "epochs takes a number in (0, 1000000], got 1e+308"),
        (["--preset", ""], "preset takes one of auto, "),
        (["--batch-size", "2.5"], "--batch-size"),
        (["--batch-size", "1"], "batch_size"),
        (["--widths", "8,8"], "widths"),
        (["--widths", "999999999,1,1"], "widths takes three numbers in [1, 65536], got (999999999, 1, 1)"),
        (["--widths", "8,eight,8"], "--widths"),
        (["--sizes", ""], "--sizes"),
        (["--sizes", "8"], "sizes"),
        (["--alpha", "-1"], "alpha"),
        (["--per", "image"], "--per"),
        (["--mix", "fmix"], "--mix"),
        (["--mix", "both"], "--mix"),
        (["--seed", "-1"], "seed"),
        (["--seed", "99999999999999999999"], "seed"),
        (["--images", "60000"], "images"),
        (["--filter-lr", "inf"], "filter_lr"),
        (["--head-lr", "1e300"], "head_lr takes a number in [0, 1e+30], got 1e+300"),
        (["--epochs"], "--epochs"),
        (["--device", "abacus"], "device"),
        (["--device", "cuda:99"], "device"),
        (["--compile", "graph", "--device", "cpu"], "compile"),
        (["--root", ".", "--resume", "x"], "--resume"),
        (["--root", "typo"], "--root"),
    ],
)
def test_a_wrong_argument_is_one_line_that_names_it(capsys, tmp_path, monkeypatch, words, named):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(recipe_run, "load_cifar10", lambda *_, **__: pytest.fail("it begins to load data"))
    assert named in refused(capsys, "train", *words, *([] if "--preset" in words else ["--preset", "smoke"]))
    assert list(tmp_path.iterdir()) == []


def test_a_resumed_run_takes_no_flags(capsys, tmp_path):
    line = refused(capsys, "train", "--resume", tmp_path, "--epochs", 3, "--no-fold", "--batch-size", 9)
    assert "--resume" in line
    for flag in ("--epochs", "--fold", "--batch-size"):
        assert flag in line
    line = refused(capsys, "train", "--resume", tmp_path, "--preset=smoke", "--exact")
    assert "own settings, got --preset, --exact too" in line
    line = refused(capsys, "train", "--data=folder:here", "--resume", tmp_path, "--size=64", "--exact")
    assert "own settings, got --size, --exact too" in line


@pytest.mark.parametrize(
    ("words", "takes"),
    [
        (["--epochs", "1e308"], "epochs takes a number in (0, 1000000], got 1e+308"),
        (["--lr", "1e300"], "lr takes a number in (0, 1e+30], got 1e+300"),
    ],
)
def test_what_no_training_on_a_folder_can_be_is_one_line(capsys, words, takes):
    assert takes in refused(capsys, "train", "--data=folder:here", *words)


@pytest.mark.parametrize("words", [("--preset", "cpu"), ("--root", "."), ("--widths", "8,8,8")])
def test_what_is_of_cifar10_is_nothing_for_a_folder(capsys, words):
    line = refused(capsys, "train", "--data=folder:here", *words)
    assert f"error: {words[0]} takes nothing beside --data folder:PATH, got " in line


def test_the_home_folder_is_known_after_folder_too(capsys, tmp_path, monkeypatch):
    """A shell that meets ~ in the middle of a word leaves it as it is."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "images").mkdir()
    line = refused(capsys, "train", "--data", "folder:~/images", "--out", tmp_path / "runs")
    assert f"no class folders in {tmp_path / 'images'}" in line


def test_a_folder_without_a_checkpoint_and_a_broken_one(capsys, tmp_path):
    assert "found no" in refused(capsys, "train", "--resume", tmp_path / "none")
    assert "found no" in refused(capsys, "train", "--resume", tmp_path)
    (tmp_path / "checkpoint.pt").write_bytes(b"not a checkpoint")
    assert str(tmp_path / "checkpoint.pt") in refused(capsys, "train", "--resume", tmp_path)


def test_a_folder_without_data(capsys, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "holiday.txt").write_text("not CIFAR-10")
    status, out, err = call(capsys, "train", "--preset=smoke", "--root", folder, "--out", tmp_path / "runs")
    assert (status, out) == (2, "")
    assert "Traceback" not in err
    assert str(folder) in err
    assert not (tmp_path / "runs").exists()
    assert [path.name for path in folder.iterdir()] == ["holiday.txt"]


@pytest.fixture
def noise(monkeypatch):
    """Noise in the place of CIFAR-10."""
    x = np.random.default_rng(0).integers(256, size=(100, 32, 32, 3), dtype=np.uint8)
    y = np.arange(100, dtype=np.uint8) % 10
    monkeypatch.setattr(recipe_run, "load_cifar10", lambda *_, **__: Cifar10(x, y, x, y))
    monkeypatch.setattr(recipe_run, "busy_share", lambda: 0.0)
    monkeypatch.setattr(recipe_run, "prepare", lambda device: None)


@pytest.mark.usefixtures("noise")
def test_a_net_that_there_is_no_memory_for_is_one_line_and_leaves_nothing(capsys, tmp_path, monkeypatch):
    def no_memory(*_):
        raise RuntimeError("[enforce fail] can't allocate memory:\nyou tried to allocate 9 bytes")

    monkeypatch.setattr("batchmix.recipe.nets.new_net", no_memory)
    line = refused(capsys, "train", *TINY, "--out", tmp_path / "runs")
    assert "widths takes those of a net that there is memory for ([enforce fail] can't allocate" in line
    assert not (tmp_path / "runs").exists()


@pytest.mark.usefixtures("noise")
def test_a_machine_that_cannot_compile_is_one_line_and_leaves_nothing(capsys, tmp_path, monkeypatch):
    def no_compiler(*_, **__):
        raise RuntimeError("No working C++ compiler found\n\nSet TORCHDYNAMO_VERBOSE=1 for more")

    monkeypatch.setattr(torch, "compile", no_compiler)
    line = refused(capsys, "train", *TINY, "--compile=default", "--out", tmp_path / "runs")
    assert line == (
        "error: --compile takes 'off' on this machine (No working C++ compiler found), got 'default'\n"
    )
    assert not (tmp_path / "runs").exists()


@pytest.mark.usefixtures("noise")
def test_results_are_on_standard_output_and_all_else_on_the_other(capsys, tmp_path):
    status, out, err = call(capsys, "train", *TINY, "--out", tmp_path)
    assert status == 0
    (folder,) = tmp_path.iterdir()
    assert [line.split("  ")[0] for line in out.splitlines()] == [
        "accuracy", "with test-time augmentation", "loss", "mean confidence", "calibration error (ECE)",
        "training", "results",
    ]  # fmt: skip
    assert str(folder) in out
    assert "mixup, seed 0" in err


@pytest.mark.usefixtures("noise")
def test_a_time_that_holds_compilation_gives_no_pace(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(recipe_run, "compile_mode", lambda *_: "default")
    _, out, _ = call(capsys, "train", *TINY, "--out", tmp_path)
    (line,) = (line for line in out.splitlines() if line.startswith("training"))
    assert line.endswith(" s, the compilation of the net included")
    assert json.loads(next(tmp_path.glob("*/summary.json")).read_text())["images_per_second"] is None


@pytest.mark.usefixtures("noise")
def test_json_is_one_object_and_nothing_else(capsys, tmp_path):
    status, out, err = call(capsys, "train", *TINY, "--preset=smoke", "--json", "--out", tmp_path)
    assert (status, err, out.count("\n")) == (0, "", 1)
    assert json.loads(out)["preset"] == "smoke"
    assert json.loads(out)["widths"] == [8, 8, 8]


@pytest.mark.usefixtures("noise")
@pytest.mark.parametrize("flag", ["--out", "--record"])
def test_a_file_in_the_way_is_one_line(capsys, tmp_path, flag):
    (tmp_path / "file").write_text("mine")
    words = ["--out", tmp_path / "runs", flag, tmp_path / "file" / "below"]
    assert "cannot write" in refused(capsys, "train", *TINY, "--json", *words)
    assert (tmp_path / "file").read_text() == "mine"


def test_auto_is_the_preset_of_this_machine(capsys, monkeypatch, tmp_path):
    chosen = []
    monkeypatch.setattr(recipe_run, "train", lambda config, options, _: chosen.append((config, options)))
    flags = (set(), {"avx512_bf16"}, {"avx512_bf16", "amx_bf16"})
    for found in flags:
        monkeypatch.setattr("batchmix.recipe.machine._cpu_flags", lambda found=found: found)
        assert call(capsys, "train", "--device=cpu", "--out", tmp_path)[0] == 130
    names = ["cpu", "cpu-avx512", "cpu-bf16"]
    assert [options.preset for _, options in chosen] == names
    assert [config for config, _ in chosen] == [preset(name) for name in names]
    monkeypatch.setattr("batchmix.recipe.training.pick_device", lambda name: torch.device("cuda"))
    call(capsys, "train")
    assert chosen[-1][1].preset == "gpu"


def test_quick_is_quick_on_this_machine(capsys, monkeypatch):
    chosen = []
    monkeypatch.setattr(recipe_run, "train", lambda config, options, _: chosen.append((config, options)))
    for found in (set(), {"avx512_bf16"}, {"avx512_bf16", "amx_bf16"}):
        monkeypatch.setattr("batchmix.recipe.machine._cpu_flags", lambda found=found: found)
        call(capsys, "train", "--preset=quick", "--device=cpu")
    names = ["quick", "quick", "quick-bf16"]
    assert [options.preset for _, options in chosen] == names
    assert [config for config, _ in chosen] == [preset(name) for name in names]
