"""The four files of a report: what they hold, and that nothing in a record can break them."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from made_up_study import COMMAND, MACHINE, fail, make_study, write_study

from batchmix.core.metrics import calibration_error
from batchmix.errors import DataError
from batchmix.study import series
from batchmix.study.comparisons import compare_all, of
from batchmix.study.page import as_html, as_markdown
from batchmix.study.picture import write_picture
from batchmix.study.records import read_study
from batchmix.study.report import as_dict, write_report
from batchmix.study.sentences import write_sentences
from batchmix.study.statistics import mean_interval
from batchmix.study.svg import nice_ticks, span

pytest.importorskip("matplotlib")
stats = pytest.importorskip("scipy.stats")
BAD = '<script>alert("1")</script>|*x*'
BUDGET = (5000, 40.0)


class Page(HTMLParser):
    """The tags of a page with their attributes, its text, and its tables."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.text, self.tables, self._open = [], [], [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.append((tag, dict(attrs)))
        if tag not in ("meta", "link"):
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        assert self._open.pop() == tag, f"</{tag}> closes another tag"

    def handle_data(self, data):
        if "style" not in self._open:
            self.text.append(data)
        if {"td", "th"} & set(self._open):
            self.tables[-1][-1][-1] += data


def report(study):
    """The texts of a report, without its picture, which takes longer than all of them."""
    comparisons = compare_all(study)
    sentences = write_sentences(study, comparisons)
    return {
        "html": as_html(study, comparisons, sentences),
        "md": as_markdown(study, comparisons, sentences),
        "json": json.dumps(as_dict(study, comparisons, sentences), allow_nan=False),
    }


def strange_studies():
    """Studies at the edge of what there can be, by name."""
    plain = make_study(("none", "mixup"))
    gone = dict.fromkeys(("accuracy", "loss", "confidence", "ece", "brier", "reliability", "temperature"))
    flat = {"accuracy": 0.5, "loss": 1.0, "curve": [{"epoch": 40.0, "accuracy": 0.5, "loss": None}]}

    def changed(**changes):
        return dataclasses.replace(plain, records=[{**record, **changes} for record in plain.records])

    return {
        "one arm": make_study(("none",)),
        "one seed": make_study(seeds=[3]),
        "one arm, one seed": make_study(("none",), seeds=[0]),
        "an arm that failed": make_study(failed=[("mixup", seed) for seed in range(5)]),
        "all failed": dataclasses.replace(plain, records=[fail(record) for record in plain.records]),
        "nothing run yet": dataclasses.replace(plain, records=[]),
        "unpaired": make_study(failed=[("mixup", 0), ("none", 1), ("cutmix", 4)]),
        "identical runs": changed(**flat),
        "null scores": changed(**gone, ece_scaled=None, loss_scaled=None, curve=[]),
        "not a number": changed(accuracy=math.nan, loss=math.inf),
        "bare records": changed(machine={}, config=None, peak_memory_mb=None, images_per_second=None),
        "many arms": make_study(("none", *(f"mixup:alpha={i / 10:g}" for i in range(1, 12))), range(2)),
        "very short": changed(curve=[{"epoch": 0.0, "accuracy": 0.1, "loss": 2.3, "train_loss": 2.3}]),
        "several budgets": make_study(epochs=(0.5, 5, 40)),
        "regression": changed(**{**gone, "loss": 0.25}, ece_scaled=None, loss_scaled=None),
    }


STRANGE = strange_studies()


@pytest.mark.parametrize("name", STRANGE)
def test_every_study_gets_a_whole_report(name):
    study = STRANGE[name]
    files = report(study)
    page = Page(files["html"])
    assert page._open == []
    text = "".join(page.text)
    for arm in study.arms:
        assert arm in text
        assert arm in files["md"]
    assert not re.search(r"\bnan\b|\binf\b|None|undefined", text.replace("infinite", ""))
    assert not re.search(r"\bnan\b|\binf\b|None", files["md"])
    assert not re.search(r'="(nan|inf|-inf|None)', files["html"])
    json.loads(files["json"], parse_constant=pytest.fail)


@pytest.mark.parametrize(
    "name", ["one arm", "nothing run yet", "null scores", "several budgets", "many arms"]
)
def test_every_study_gets_a_picture_that_holds_all_it_draws(name, tmp_path):
    from PIL import Image

    study = STRANGE[name]
    write_picture(tmp_path / "report.png", study, compare_all(study))
    image = np.asarray(Image.open(tmp_path / "report.png").convert("RGB"))
    assert image.std() > 5
    edge = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    assert (edge == 255).all()


@pytest.fixture
def drawn(monkeypatch):
    """The panels of a picture."""

    def draw(study):
        figures = []
        monkeypatch.setattr("batchmix.study.picture.write_figure", lambda _, figure: figures.append(figure))
        write_picture(Path("report.png"), study, compare_all(study))
        return figures[0].axes

    return draw


@pytest.mark.parametrize("name", ["all failed", "nothing run yet", "null scores"])
def test_a_panel_without_anything_in_it_has_no_numbers_and_says_so(name, drawn):
    panel, _ = drawn(STRANGE[name])
    assert [text.get_text() for text in panel.texts] == ["no run has such a score"]
    assert [*panel.get_xticks(), *panel.get_yticks()] == []


def test_no_interval_of_an_accuracy_is_drawn_beyond_0_or_100(drawn):
    study = make_study(("none", "mixup"), range(2), epochs=(1, 40))
    apart = [{**record, "accuracy": (0.2, 0.9)[record["seed"]]} for record in study.records]
    study = dataclasses.replace(study, records=apart)
    low, high = drawn(study)[1].get_ylim()
    assert -6 < low < high < 106
    svg = re.search(
        r'<svg[^>]*aria-label="accuracy against epochs".*?</svg>', as_html(study, compare_all(study), [])
    )
    ticks = re.findall(r'text-anchor="end"[^>]*>([^<]*)<', svg.group())
    assert ticks == ["0", "20", "40", "60", "80", "100"]


@pytest.mark.parametrize("name", STRANGE)
def test_charts_stay_inside_their_frame(name):
    html = as_html(STRANGE[name], compare_all(STRANGE[name]), [])
    for svg in re.findall(r"<svg.*?</svg>", html):
        width, height = map(float, re.search(r'viewBox="0 0 (\S+) (\S+)"', svg).groups())
        for key, value in re.findall(r' (c?x[12]?|c?y[12]?)="([^"]+)"', svg):
            assert 0 <= float(value) <= (width if "x" in key else height), svg


def test_the_same_records_give_the_same_report(tmp_path):
    study = make_study(("none", "mixup"), range(2))
    write_study(study, tmp_path / "a")
    first = write_report(read_study(tmp_path / "a"), tmp_path / "new" / "b")
    second = write_report(study, tmp_path / "c")
    assert [path.name for path in first] == ["report.html", "report.md", "report.png", "report.json"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert sorted(first) == sorted((tmp_path / "new" / "b").iterdir())


def test_the_numbers_are_those_of_the_records():
    study = make_study(effect={"mixup": 0.01}, failed=[("cutmix", 2)])
    found = json.loads(report(study)["json"])
    mixup = study.done("mixup", BUDGET)
    none = study.done("none", BUDGET)
    (cell,) = [cell for cell in found["arms"] if cell["arm"] == "mixup"]
    for key in ("accuracy", "loss", "confidence", "ece", "ece_scaled", "brier", "train_seconds"):
        expected = mean_interval([record[key] for record in mixup.values()])
        assert cell["scores"][key] == {
            "n": 5, "mean": expected.mean, "low": expected.low, "high": expected.high
        }  # fmt: skip
    for one in found["comparisons"]:
        arm, key = study.done(one["arm"], BUDGET), one["score"]
        seeds = sorted(arm)
        expected = stats.ttest_rel([arm[s][key] for s in seeds], [none[s][key] for s in seeds])
        assert one["p"] == pytest.approx(expected.pvalue)
        assert one["differences"] == {str(s): arm[s][key] - none[s][key] for s in seeds}
        both = [other["p"] for other in found["comparisons"] if other["score"] == key]
        assert one["p_corrected"] == pytest.approx(stats_holm(both)[both.index(one["p"])])
    assert [(f["arm"], f["seed"], f["error"]) for f in found["failed"]] == [
        ("cutmix", 2, "RuntimeError: out of memory")
    ]
    assert found["asked"] == study.asked


def stats_holm(two):
    """Holm's correction of two p-values, written out."""
    small, large = sorted(two)
    first = min(1.0, 2 * small)
    corrected = {small: first, large: max(first, large)}
    return [corrected[p] for p in two]


def test_what_is_not_a_number_is_null():
    files = report(make_study(seeds=[0]))
    found = json.loads(files["json"], parse_constant=pytest.fail)
    assert {(one["p"], one["low"], one["verdict"]) for one in found["comparisons"]} == {
        (None, None, "not tested")
    }


def test_the_page_shows_the_tables_of_the_study():
    study = make_study(failed=[("cutmix", 1)])
    page = Page(report(study)["html"])
    failed, scores, differences, runs = page.tables
    assert failed[1] == ["cutmix", "1", "5,000", "40", "RuntimeError: out of memory"]
    assert scores[0][2:] == [
        "accuracy", "loss", "confidence", "ECE", "ECE after scaling", "Brier score", "training"
    ]  # fmt: skip
    accuracies = [100 * record["accuracy"] for record in study.done("mixup", BUDGET).values()]
    half = stats.t.ppf(0.975, 4) * stats.sem(accuracies)
    assert scores[2][:3] == ["mixup", "5", f"{np.mean(accuracies):.2f} ± {half:.2f} %"]
    assert scores[3][:2] == ["cutmix", "4 (+ 1 failed)"]
    assert [row[:3] for row in differences if row[1] == "accuracy"] == [
        ["mixup", "accuracy", "5"],
        ["cutmix", "accuracy", "4"],
    ]
    assert len(runs) == 1 + 14
    assert runs[0] == [
        "arm", "seed", "images", "epochs", "training (s)", "images/s", "peak memory (MB)", "date"
    ]  # fmt: skip


def test_the_page_says_what_was_asked_and_what_the_words_mean():
    files = report(make_study())
    text = "".join(Page(files["html"]).text)
    for words in (
        COMMAND, "cifar10", "5,000", "0 to 4 (5 of them)", MACHINE["cpu"], "widths 32 64 128", "2026-11-24",
        "expected calibration error", "15 of 15 runs ended", "added after a look at a report",
    ):  # fmt: skip
        assert words in text
        assert words.replace("_", r"\_") in files["md"]


def test_a_task_has_no_data_to_name():
    study = make_study()
    files = report(dataclasses.replace(study, asked={**study.asked, "data": None, "task": "mine:make"}))
    assert "mine:make" in files["md"]
    assert "None" not in files["md"]
    assert "None" not in "".join(Page(files["html"]).text)


def test_sentences_come_before_charts_and_tables():
    files = report(make_study(effect={"mixup": 0.01}))
    for text, later in ((files["html"], "<svg"), (files["md"], "| arm")):
        assert text.index("points of accuracy at 40 epochs (n = 5") < text.index(later)


def test_a_study_that_is_not_finished_says_how_far_it_is():
    study = make_study(failed=[("mixup", 0)])
    study = dataclasses.replace(study, records=study.records[:10])
    assert "9 of 15 runs ended, 1 failed, 5 not run yet." in report(study)["html"]


def hostile():
    """A study in which every text is an attack."""
    study = make_study(("none", f"mixup:{BAD}"), failed=[(f"mixup:{BAD}", 1)])
    machine = dict.fromkeys(MACHINE, BAD)
    texts = {"machine": machine, "batchmix": BAD, "date": BAD, "data": BAD}
    records = [{**record, **texts} for record in study.records]
    records = [{**r, "error": f"{BAD}\n{BAD}"} if r["status"] == "failed" else r for r in records]
    asked = {**study.asked, "data": BAD, "task": BAD, "command": BAD, "config": {BAD: BAD}}
    return dataclasses.replace(study, asked=asked, records=records)


def test_texts_of_records_stay_texts():
    files = report(hostile())
    html, markdown = files["html"], files["md"]
    assert "script" not in Page(html).tags
    assert "<script" not in html
    assert '<script>alert("1")' in "".join(Page(html).text)
    prose = re.sub(r"~~~sh\n.*?\n~~~", "", markdown, flags=re.DOTALL)
    assert "<script" not in prose
    assert not re.search(r"(?<!\\)\*x", prose)
    for block in re.findall(r"(?:^\|.*\n)+", prose, flags=re.MULTILINE):
        columns = {len(re.findall(r"(?<!\\)\|", row)) for row in block.splitlines()}
        assert len(columns) == 1, block


def test_the_page_needs_nothing_from_elsewhere():
    html = report(make_study())["html"]
    page = Page(html)
    assert "script" not in page.tags
    for tag, attributes in page.attributes:
        assert not attributes.get("src"), tag
        assert attributes.get("href", "data:,") == "data:,"
        assert not [name for name in attributes if name.startswith("on")]
    assert "://" not in html
    assert "url(" not in html
    assert "@import" not in html
    assert len(html) < 200_000


def test_an_arm_has_one_colour_everywhere():
    study = STRANGE["many arms"]
    html = report(study)["html"]
    keys = set(re.findall(r'<i class="key ([^"]+)"></i>([^<]+)<', html))
    assert len(keys) == len(study.arms)
    assert len({colour for colour, _ in keys}) == len(study.arms)  # with the dashes
    assert [colour for colour, arm in keys if arm == "none"] == ["arm0"]


def test_pooled_reliability_is_that_of_all_predictions():
    import torch

    study = make_study(("none",))
    generator = torch.Generator().manual_seed(0)
    confidences, hits, records = [], [], []
    for record in study.records:
        confidence = torch.rand(500, generator=generator) * 0.8 + 0.2
        hit = torch.rand(500, generator=generator) < confidence - 0.1
        place = (confidence * 15).long().clamp(max=14)
        bins = [(int((place == i).sum()), confidence[place == i], hit[place == i]) for i in range(15)]
        made = {
            "count": [n for n, _, _ in bins],
            "confidence": [float(c.mean()) if n else None for n, c, _ in bins],
            "accuracy": [float(h.float().mean()) if n else None for n, _, h in bins],
        }
        records.append({**record, "reliability": made})
        confidences.append(confidence)
        hits.append(hit)
    found = series.reliability(dataclasses.replace(study, records=records), "none", BUDGET)
    sure, right = torch.cat(confidences), torch.cat(hits)
    # calibration_error takes the most probable class, so that sure below a half needs more classes
    probabilities = torch.cat([sure[:, None], (1 - sure[:, None]) / 9 * torch.ones(1, 9)], 1)
    labels = torch.where(right, 0, 1)
    assert found.gap == pytest.approx(float(calibration_error(probabilities, labels)), abs=1e-4)
    assert sum(found.count) == 2500
    assert sum(found.share) == pytest.approx(1)
    assert (found.count[0], found.confidence[0]) == (0, None)


def test_bins_of_a_few_predictions_are_counted_and_not_drawn():
    found = series.Reliability((10, 60, 30), (0.1, 0.5, 0.9), (0.6, 0.5, 0.8))
    assert found.points == [(50, 50), (90, 80)]
    assert found.gap == pytest.approx(0.1 * 0.5 + 0.3 * 0.1)


def test_mean_curves_go_through_the_mean_of_the_runs():
    study = make_study(("none",), seeds=range(3))
    found = series.curves(study, "none", BUDGET, "accuracy")
    assert len(found.runs) == 3
    for i, (epoch, value) in enumerate(found.mean):
        points = [record["curve"][i] for record in study.records]
        assert epoch == pytest.approx(points[0]["epoch"])
        assert value == pytest.approx(np.mean([point["accuracy"] for point in points]))


def test_the_frontier_holds_each_budget_with_its_interval():
    study = make_study(("none", "mixup"), epochs=(40, 5, 10))
    assert series.frontiers(study) == [5000]
    assert series.frontiers(make_study()) == []
    found = series.frontier(study, "mixup", 5000, "loss")
    assert [epochs for epochs, _ in found] == [5, 10, 40]
    losses = [record["loss"] for record in study.done("mixup", (5000, 5.0)).values()]
    assert found[0][1] == mean_interval(losses)


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (-0.3, 1.1), (0, 100), (74.1, 83.9), (1e-5, 3e-5), (-5e4, 2e5), (0.5, 0.5004)]
)
def test_ticks_are_round_few_and_inside(low, high):
    ticks = nice_ticks(low, high)
    assert 2 <= len(ticks) <= 8
    assert low - 1e-9 <= ticks[0] <= ticks[-1] <= high + 1e-9
    steps = np.diff(ticks)
    assert np.allclose(steps, steps[0])
    assert f"{steps[0]:.2e}"[0] in "125"


def test_a_span_is_never_empty():
    for values in ([0.0], [3.0, 3.0], [-2.0], [0.0, 1e-9]):
        low, high = span(values)
        assert low < min(values) <= max(values) < high


def test_a_report_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"^cannot write [^\n]*$"):
        write_report(make_study(), tmp_path / "file" / "out")


def test_a_path_of_any_bytes_can_be_reported(tmp_path, monkeypatch):
    """As Python has them from the command line: not all of them are UTF-8."""
    monkeypatch.setattr("batchmix.study.report.write_picture", lambda *_: None)
    odd, shown = "folder:/home/caf\udce9", r"folder:/home/caf\udce9"
    study = make_study(("none", "mixup"))
    write_report(dataclasses.replace(study, asked={**study.asked, "data": odd, "command": odd}), tmp_path)
    for name in ("report.html", "report.md"):
        assert shown in (tmp_path / name).read_text(encoding="utf-8")
    assert json.loads((tmp_path / "report.json").read_text())["asked"]["data"] == odd


def test_a_difference_shown_is_full_and_another_is_not():
    study = make_study(effect={"mixup": 0.02})
    comparisons = compare_all(study)
    shown = [one.shown for one in of(comparisons, key="accuracy")]
    svg = re.search(
        r'<svg[^>]*aria-label="Paired differences in accuracy".*?</svg>', as_html(study, comparisons, [])
    )
    dots = re.findall(r'class="mean( empty)? arm\d"', svg.group())
    assert [dot == "" for dot in dots] == shown
    assert set(shown) == {True, False}
