"""The command ``batchmix show``: what it writes, what it says, what it leaves when it fails."""

from __future__ import annotations

import argparse
import re
import sys

import numpy as np
import pytest

from batchmix.cli import show
from batchmix.errors import DataError, MixError

pytest.importorskip("matplotlib")


@pytest.fixture
def fake(monkeypatch):
    """A small CIFAR-10 of noise in place of the real one; each class has one colour."""
    import batchmix.data

    rng = np.random.default_rng(0)
    y = np.tile(np.arange(10, dtype=np.uint8), 4)
    x = rng.integers(0, 20, (40, 32, 32, 3), dtype=np.uint8) + (y * 20)[:, None, None, None]
    data = batchmix.data.Cifar10(x, y, x, y)
    roots = []

    def load(root=None, **options):
        roots.append(root)
        return data

    monkeypatch.setattr(batchmix.data, "load_cifar10", load)
    return data, roots


def call(*words):
    parser = argparse.ArgumentParser()
    show.add_parser(parser.add_subparsers())
    args = parser.parse_args(["show", *map(str, words)])
    return args.func(args)


def figures(data, *words):
    parser = argparse.ArgumentParser()
    show.add_parser(parser.add_subparsers())
    return show._draw(data, parser.parse_args(["show", *map(str, words)]))


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_three_pictures_are_written_and_named(fake, tmp_path, capsys):
    from PIL import Image

    out = tmp_path / "new" / "pictures"
    assert call("--out", out, "--root", tmp_path) == 0
    assert fake[1] == [tmp_path]
    assert files(out) == ["batch.png", "beta.png", "pair.png"]
    assert sorted(capsys.readouterr().out.split()) == sorted(str(out / name) for name in files(out))
    for path in out.iterdir():
        pixels = np.asarray(Image.open(path).convert("L"))
        assert min(pixels.shape) > 200
        assert pixels.std() > 5
        assert path.stat().st_size < 300_000
        assert path.stat().st_mode & 0o777 == 0o644


def test_pictures_go_to_a_folder_of_that_name(fake, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert call() == 0
    assert files(tmp_path) == ["pictures"]
    assert capsys.readouterr().out.split()[0].endswith("pair.png")


def test_the_pair_is_a_dog_and_a_cat(fake):
    data, _ = fake
    figure = figures(data, "--lam", 0.6)["pair"]
    dog, cat, mixed = (np.asarray(axes.images[0].get_array()) * 255 for axes in figure.axes)
    assert any(np.allclose(dog, image) for image in data.test_x[data.test_y == 5])
    assert any(np.allclose(cat, image) for image in data.test_x[data.test_y == 3])
    np.testing.assert_allclose(mixed, 0.6 * dog + 0.4 * cat, atol=0.01)
    assert figure.axes[2].get_label() == "60% dog, 40% cat"


def test_the_batch_is_what_its_labels_say(fake):
    """Each class has one grey level, so the level of a mixed image gives its weights back."""
    from batchmix.data import CIFAR10_CLASSES

    for axes in figures(fake[0], "--alpha", 2, "--count", 12)["batch"].axes:
        parts = [part.split("% ") for part in axes.get_label().split(", ")]
        assert sum(int(percent) for percent, _ in parts) == 100
        expected = sum(
            int(percent) / 100 * (CIFAR10_CLASSES.index(name) * 20 + 9.5) for percent, name in parts
        )
        assert np.asarray(axes.images[0].get_array()).mean() * 255 == pytest.approx(expected, abs=1.5)


def test_options_reach_the_pictures(fake):
    data, _ = fake
    assert len(figures(data, "--count", 5)["batch"].axes) == 5
    assert len(figures(data, "--count", 40)["batch"].axes) == 40
    beta = figures(data, "--alpha", 1.5)["beta"].axes[0]
    assert beta.get_title("left") == "Beta(1.5, 1.5)"
    assert len(beta.lines) > len(figures(data, "--no-fold")["beta"].axes[0].lines)


def test_folded_weights_are_at_least_half_and_others_are_not(fake):
    def first_percents(*words):
        batch = figures(fake[0], "--alpha", 1, "--count", 40, *words)["batch"]
        return [int(axes.get_label().split("%")[0]) for axes in batch.axes if "," in axes.get_label()]

    assert min(first_percents()) >= 50 > min(first_percents("--no-fold"))
    assert len(set(first_percents("--per", "batch"))) == 1 < len(set(first_percents()))


def test_a_seed_gives_the_same_pictures_and_another_gives_others(fake, tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        call("--out", tmp_path / name, "--seed", seed)
    for name in ("pair.png", "batch.png"):
        first, again, other = ((tmp_path / run / name).read_bytes() for run in "abc")
        assert first == again != other


@pytest.mark.parametrize(
    "words",
    [
        ("--alpha", 0),
        ("--alpha", "nan"),
        ("--lam", 1.5),
        ("--lam", "nan"),
        ("--count", 0),
        ("--count", 41),
        ("--seed", -(2**70)),
        ("--seed", 2**32),
        ("--seed", 10**20),
        ("cutmix", "--seed", 10**20),
    ],
)
def test_a_wrong_argument_is_one_line_and_leaves_nothing(fake, tmp_path, words):
    with pytest.raises(MixError) as caught:
        call("--out", tmp_path / "out", *words)
    assert "\n" not in str(caught.value)
    assert files(tmp_path) == []


def test_nothing_half_written_stays_when_saving_fails(fake, tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    (tmp_path / "pair.png").write_bytes(b"before")

    def fail(self, file, **options):
        file.write(b"half a picture")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(DataError, match=r"^cannot write pictures to .*: No space left on device$"):
        call("--out", tmp_path)
    assert files(tmp_path) == ["pair.png"]
    assert (tmp_path / "pair.png").read_bytes() == b"before"


def test_an_interrupt_leaves_nothing_half_written(fake, tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    def interrupt(self, file, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(Figure, "savefig", interrupt)
    with pytest.raises(KeyboardInterrupt):
        call("--out", tmp_path)
    assert files(tmp_path) == []


def test_a_file_in_place_of_the_folder(fake, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(DataError, match="cannot write pictures to"):
        call("--out", tmp_path / "out")


def test_windows_need_a_display_and_this_is_said_before_data_are_loaded(fake, tmp_path, monkeypatch):
    import matplotlib as mpl

    backend = mpl.get_backend()
    mpl.use("agg")
    monkeypatch.chdir(tmp_path)
    try:
        with pytest.raises(MixError, match=r"^--window takes a display[^\n]*$"):
            call("--window")
    finally:
        mpl.use(backend)
    assert fake[1] == []
    assert files(tmp_path) == []


def test_windows_show_the_same_three_pictures(fake, tmp_path, monkeypatch):
    import matplotlib.pyplot as plt

    opened = []

    def look():
        opened.extend(plt.figure(number) for number in plt.get_fignums())

    monkeypatch.setattr(show, "_check_display", lambda: None)
    monkeypatch.setattr(plt, "show", look)
    monkeypatch.chdir(tmp_path)
    try:
        assert call("--window") == 0
        assert [window.get_label() for window in opened] == ["pair", "beta", "batch"]
        for window in opened:
            assert np.asarray(window.axes[0].images[0].get_array()).std() > 0.02
    finally:
        plt.close("all")
    assert files(tmp_path) == []


def test_the_module_loads_nothing_heavy():
    import subprocess

    code = (
        "import sys; import batchmix.cli.show;"
        "assert not {'matplotlib', 'PIL', 'rich'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_real_images(tmp_path):
    """With CIFAR-10 itself, where this machine has it already."""
    from batchmix.data import load_cifar10

    try:
        data = load_cifar10(download=False, progress=False)
    except DataError as error:
        pytest.skip(f"CIFAR-10 is not here: {str(error).splitlines()[0]}")
    drawn = figures(data)
    paths = show._write_all(drawn, tmp_path)
    assert [path.stat().st_size < 300_000 for path in paths] == [True] * 3
    assert len(drawn["batch"].axes) == 16


def test_a_method_is_explained_and_drawn(fake, tmp_path, capsys):
    assert call("cutmix", "--out", tmp_path) == 0
    assert files(tmp_path) == ["cutmix.png"]
    said = capsys.readouterr().out
    assert said.startswith("CutMix: ")
    assert "How to use: " in said
    assert said.rstrip().endswith("cutmix.png")


def test_all_methods_that_take_images_are_drawn_on_the_same_images_and_all_are_on_the_page(fake, tmp_path):
    from batchmix.cards import names_of_all

    assert call("all", "--out", tmp_path / "pictures", "--page", tmp_path / "methods.md") == 0
    assert files(tmp_path) == ["methods.md", "pictures"]
    assert files(tmp_path / "pictures") == ["methods.png"]
    page = (tmp_path / "methods.md").read_text()
    assert page.count("\n## ") == len(names_of_all())


def test_every_row_of_methods_mixes_an_image_with_the_one_before_it(fake):
    from batchmix.cli import gallery

    picture = gallery.draw(fake[0], "all", gallery.pictured(gallery.cards_of("all")), seed=0)["methods"]
    methods = [pair for pair in gallery_methods() if not pair[1].weighs_afterwards]
    shown = [name for name, method in methods if method.takes in gallery.PICTURED]
    assert "transmix" not in shown  # whose picture would be CutMix's
    assert len(picture.axes) == (1 + len(shown)) * len(gallery.SHOWN)
    first = [axes.get_label() for axes in picture.axes[: len(gallery.SHOWN)]]
    assert first == ["cat", "dog", "ship", "automobile", "horse", "airplane"]
    second = [axes.get_label() for axes in picture.axes[len(first) : 2 * len(first)]]
    for own, before, label in zip(first, [first[-1], *first], second, strict=False):
        assert set(re.findall("[a-z]+", label)) <= {own, before}
        assert own in label


def gallery_methods():
    from batchmix.methods import discover

    return discover().items()


def test_a_method_that_takes_no_images_is_explained_without_a_picture(fake, tmp_path, capsys):
    from batchmix.cli.gallery import PICTURED

    names = [name for name, method in gallery_methods() if method.takes not in PICTURED]
    for name in (names[0], "manifold", "transmix"):
        assert call(name, "--out", tmp_path) == 0
        assert files(tmp_path) == []
        assert "How to use: " in capsys.readouterr().out
    assert fake[1] == []  # no images are loaded, or fetched, for it


def test_a_method_may_be_written_as_its_class_and_a_folder_as_it_is(fake, tmp_path, capsys):
    assert call("CutMix", "--out", tmp_path / ":cat:") == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / ":cat:" / "cutmix.png")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nope",), "METHOD takes one of all, .*cutmix.*, got 'nope'"),
        (("cutmix", "--page", "x.md"), "--page takes METHOD 'all', got cutmix"),
        (("cutmix", "--alpha", "7"), "--alpha takes nothing beside METHOD, got 7.0"),
        (("all", "--no-fold"), "--no-fold takes nothing beside METHOD, got False"),
        (("--page", "x.md"), "--page takes METHOD 'all', got none"),
    ],
)
def test_a_wrong_method_is_named_and_leaves_nothing(fake, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MixError, match=f"^{message}$"):
        call(*words)
    assert files(tmp_path) == []
    assert fake[1] == []
