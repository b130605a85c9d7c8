"""Tables, page and picture: from records alone, every number in its place."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest
from made_up_bench import blend_rows, other_rows, record, row

from batchmix.bench.page import page
from batchmix.bench.picture import OURS, PEER, draw_record
from batchmix.bench.records import read_record
from batchmix.bench.table import Table, duration, parts_of, tables_of
from batchmix.bench.words import CAUSES, CAUSES_ON_CPU

ROOT = Path(__file__).resolve().parents[2]


def test_a_table_of_mixing_has_ratios_a_copy_its_bandwidth_and_a_failure_its_reason() -> None:
    small = {"shape": [4, 3, 8, 8]}
    (table,) = tables_of(record([*blend_rows(), *blend_rows(into=20, **small)]), "blend")
    assert table.title == "mixup, float32, 2 threads"
    assert table.headings == ("", "128x3x224x224", "4x3x8x8")
    cells = {row[0]: row[1:] for row in table.rows}
    # 2 * 128*3*224*224 * 4 bytes in 10 ms
    assert cells["torch, copy"][0] == "10 ms, 15.4 GB/s"
    assert cells["batchmix, into a buffer"] == ("1.10 (1.10-1.10)", "2.00 (2.00-2.00)")
    assert cells["batchmix, fresh"][0] == "3.00 (3.00-3.00) / 1.00"  # of the copy, and of the clone
    assert cells["torch, clone"][0] == "3.00 (3.00-3.00)"
    assert cells["batchmix (torch), in place"][0] == "2.00 (2.00-2.00)"
    assert cells["kornia, V2"] == ("-", "-")
    assert table.notes == ("kornia, V2: ValueError: no",)
    marked = [table.rows[index][0] for index in sorted(table.ours)]
    assert marked == [f"batchmix, {f}" for f in ("draw alone", "fresh", "into a buffer", "in place")]


def test_the_tables_of_the_other_parts() -> None:
    made = record(other_rows())
    assert parts_of(made) == ["images", "loss", "sampling", "price"]
    (images,), (loss,), (draws,), (price,) = (tables_of(made, part) for part in parts_of(made))
    assert images.title == "mixup, uint8 to bfloat16, 2 threads"
    assert images.rows[0][1] == "5 ms, 11.6 GB/s"  # reads one byte and writes two
    assert loss.headings == ("", "K = 1,000")
    assert loss.rows[1] == ("batchmix, mixed target", "1.10 (1.10-1.10)")
    assert draws.rows[1] == ("batchmix, mixup, per sample", "500 µs", "0.500%")
    assert price.rows == (("plain loop, 128x3x32x32", "100 ms", "100 ms", "5", "+0.5% (+0.5% to +0.5%)"),)


def test_a_loop_that_failed_is_a_note() -> None:
    shape = {"what": "fastai", "shape": [128, 3, 32, 32]}
    rows = [row("price", who, "fastai", None, **shape) for who in ("none", "mixup")]
    (table,) = tables_of(record(rows), "price")
    assert table.rows == ()
    assert table.notes == ("fastai, 128x3x32x32: ValueError: no",)
    assert table.markdown() == "fastai, 128x3x32x32: ValueError: no"


def test_markdown_is_a_table_with_ours_in_bold() -> None:
    table = Table("t", ("", "x"), (("a", "1"), ("b", "2")), frozenset({1}), ("said",))
    assert table.markdown().splitlines() == [
        "**t**", "", "|  | x |", "|---|---:|", "| a | 1 |", "| **b** | **2** |", "", "said",
    ]  # fmt: skip


def test_the_page_says_where_it_was_made_and_what_is_missing_and_is_the_same_again() -> None:
    made = record()
    text = page([made], ["pictures/a.png"])
    assert "2 cores of Test 9000 (AVX2)" in text
    assert "timm 1.0.0, Composer (its published formula)" in text
    assert "- Missing: kornia (ModuleNotFoundError: No module named 'kornia')." in text
    assert "](pictures/a.png)" in text
    assert "busy with something else" not in text
    assert "| the loss of a mixed target takes at most 1.0 of the plain one | missed (0 of 1" in text
    assert "where that is missed, the first row" in text
    assert "mixup into a buffer or in place takes at most 1.2 of a copy: where" not in text  # it is met
    assert page([copy.deepcopy(made)], ["pictures/a.png"]) == text


def test_the_page_of_a_busy_machine_says_so_and_several_records_are_sections() -> None:
    gpu = record(blend_rows(), machine=record()["machine"] | {"device": "H1000"}, busy_before=0.8)
    text = page([record(), gpu], ["pictures/a.png", None])
    assert text.index("## On 2 cores of Test 9000") < text.index("## On H1000")
    assert text.count("The machine was busy with something else") == 1
    assert text.count("![") == 1


def test_the_page_says_which_classes_the_labels_had() -> None:
    said = "- Classes of the labels that are mixed beside the images: "
    assert f"{said}1,000.\n" in page([record()], [None])  # as all had them before records said so
    options = record()["options"] | {"classes": {"32": 10, "384": 1000}}
    assert f"{said}10 at 32 pixels, 1,000 at 384 pixels.\n" in page([record(options=options)], [None])
    without = [one for one in other_rows() if one["part"] not in ("blend", "images")]
    assert said not in page([record(without)], [None])


def test_what_is_known_of_caches_is_said_of_cpus_alone() -> None:
    rows = [*other_rows(), row("images", "fastai", "callback", 49, dtype="bfloat16", fresh=True)]
    on_gpu = record(rows, options=record()["options"] | {"device": "cuda"})
    goal = (
        "- uint8 to mixed bfloat16 is at least 5 times faster than any peer's chain: where that is missed, "
    )
    for made, cached in ((record(rows), True), (on_gpu, False)):
        (line,) = [line for line in page([made], [None]).splitlines() if line.startswith(goal)]
        assert ("cache" in line) == cached


def test_causes_have_no_numbers_which_a_record_would_have_to_hold() -> None:
    for cause in (*CAUSES.values(), *CAUSES_ON_CPU.values()):
        assert not re.search(r"\d|%|per ?cent", cause)


def test_the_committed_page_is_that_of_the_committed_record() -> None:
    kept = read_record(ROOT / "benchmarks/records/sapphire-rapids.json")
    committed = (ROOT / "docs/benchmarks.md").read_text()
    assert page([kept], ["pictures/bench-sapphire-rapids.png"]) == committed


def test_the_picture_has_ours_in_blue_shortest_first_and_a_line_at_the_copy() -> None:
    figure = draw_record(record())
    assert len(figure.axes) == 3  # mixup, images, loss
    axes = figure.axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == [
        "batchmix, in place", "batchmix, into a buffer", "torch, clone", "batchmix, fresh", "timm, batch",
    ]  # fmt: skip
    widths = [patch.get_width() for patch in axes.patches]
    assert widths == pytest.approx([1, 1.1, 3, 3, 6])
    colours = [label.get_weight() for label in axes.get_yticklabels()]
    assert colours == ["bold", "bold", "normal", "bold", "normal"]
    from matplotlib.colors import to_hex

    assert to_hex(axes.patches[0].get_facecolor()).upper() == OURS
    assert to_hex(axes.patches[-1].get_facecolor()).upper() == PEER
    assert any(list(line.get_xdata()) == [1, 1] for line in axes.lines)
    assert axes.texts[-2].get_text() == "Mixup, 128x3x224x224 float32, 2 threads"


def test_the_picture_takes_the_case_with_most_threads_and_the_nearest_there_is() -> None:
    rows = [*blend_rows(threads=1), *blend_rows(shape=[4, 3, 8, 8]), *blend_rows(dtype="bfloat16")]
    (axes,) = draw_record(record(rows)).axes
    assert axes.texts[-2].get_text() == "Mixup, 128x3x224x224 bfloat16, 2 threads"


def test_a_record_without_anything_to_draw_has_no_picture() -> None:
    rows = [one for one in other_rows() if one["part"] in ("sampling", "price")]
    assert draw_record(record(rows)) is None


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(1.5, "1.5 s"), (0.9996, "1 s"), (0.999, "999 ms"), (2e-3, "2 ms"), (3.21e-5, "32.1 µs")],
)
def test_times_have_three_figures(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown
