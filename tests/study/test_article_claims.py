"""The verdicts on the article's claims, from records whose effects are known; no net is trained here."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from article_records import AS_CLAIMED, edit, write_article
from scipy import stats

from batchmix.study.article.claims import all_claims
from batchmix.study.article.curves import accuracy_at, epochs_to, goal_of
from batchmix.study.article.evidence import read_evidence
from batchmix.study.article.page import as_markdown
from batchmix.study.article.presets import (
    CLAIMS,
    FEW,
    ITSELF,
    LOADERS,
    MANY,
    MIXUP,
    MORE,
    NOT_FOLDED,
    PER_BATCH,
    TWO_LOADERS,
)
from batchmix.study.article.verdicts import HELD, OPEN, REFUTED


def statements(folder, place):
    return {one.says: one for one in all_claims(read_evidence(folder))[place].judged}


# Curves


def test_a_curve_is_read_in_straight_lines():
    curve = [{"epoch": e, "accuracy": a} for e, a in ((1, 0.1), (2, 0.3), (4, 0.4), (5, 0.35), (6, 0.5))]
    for epoch in np.linspace(0, 7, 29):
        known = np.interp(epoch, [p["epoch"] for p in curve], [p["accuracy"] for p in curve])
        assert accuracy_at(curve, epoch) == pytest.approx(known)
    for goal in (0.15, 0.3, 0.39, 0.45, 0.5):
        assert accuracy_at(curve, epochs_to(curve, goal)) == pytest.approx(goal)
    assert epochs_to(curve, 0.38) == pytest.approx(3.6)  # the first of three times
    assert epochs_to(curve, 0.05) == 1
    assert epochs_to(curve, 0.51) is None


def test_the_goal_is_the_baselines_median_at_two_thirds(evidence):
    study = evidence.claims
    ends = [study.done("none", study.budgets[0])[seed]["accuracy"] for seed in range(6)]
    assert goal_of(study, study.budgets[0]) == pytest.approx(np.median(ends) * 2 / 3)


# Claims


def test_what_was_made_to_hold_holds(evidence):
    found = {claim.title: claim.verdict for claim in all_claims(evidence)}
    assert len(found) == 6
    assert {name: word for name, word in found.items() if word != HELD} == {
        "A weight for each image trains faster than one for the batch": OPEN  # they were made alike
    }


def test_the_opposite_does_not_hold(tmp_path):
    write_article(tmp_path, {MIXUP: -0.03, PER_BATCH: 0.0, ITSELF: -0.02, TWO_LOADERS: 0.02, NOT_FOLDED: 0.0})
    found = [claim.verdict for claim in all_claims(read_evidence(tmp_path))]
    assert found == [REFUTED, REFUTED, HELD, REFUTED, REFUTED, REFUTED]


def test_noise_shows_nothing(tmp_path):
    write_article(tmp_path, {}, sd=0.03)
    better = all_claims(read_evidence(tmp_path))[0].judged[0]
    assert better.verdict == OPEN
    assert re.fullmatch(r"\d[\d,]* for 0.5 points", better.needed)


def test_the_difference_and_its_p_are_those_of_the_paired_test(evidence):
    study = evidence.more
    runs = {arm: study.done(arm, study.budgets[0]) for arm in (MIXUP, "none")}

    def pairs(key):
        return [[runs[arm][seed][key] for seed in range(6)] for arm in runs]

    plain = {key: stats.ttest_rel(*pairs(key)).pvalue for key in ("accuracy", "loss", "confidence")}
    order = sorted(plain, key=plain.get)
    steps = [(3 - rank) * plain[key] for rank, key in enumerate(order)]
    corrected = dict(zip(order, np.maximum.accumulate(steps), strict=True))
    found = all_claims(evidence)[0].judged
    assert [one.p for one in found] == pytest.approx([corrected[key] for key in plain])
    difference = 100 * np.subtract(*pairs("accuracy"))
    low, high = stats.t.interval(0.95, 5, difference.mean(), stats.sem(difference))
    assert found[0].found == f"{difference.mean():+.2f} points [{low:+.2f}, {high:+.2f}]"


def test_faster_is_fewer_epochs_to_the_goal(tmp_path):
    write_article(tmp_path, {**AS_CLAIMED, MIXUP: 0.1, PER_BATCH: 0.02})
    found = statements(tmp_path, 3)["a weight for each image takes fewer epochs to the goal"]
    assert (found.verdict, found.n) == (HELD, 6)
    assert found.found.startswith("−0.")


def test_a_run_that_never_gets_there_counts_whole_and_is_told(folder):
    for path in (folder / MORE / "runs").glob(f"*-{PER_BATCH}-[0-5].json"):
        edit(path, curve=[{"epoch": 4.0, "accuracy": 0.2, "loss": 2.0, "train_loss": 2.0}])
    claim = all_claims(read_evidence(folder))[3]
    assert claim.notes[0] == "6 of these runs never reached it and count with all of their epochs."
    assert claim.tables[0][1][1][-1] == "4.0 ± 0.0"
    assert "of 2,000 test images at equal distances among all, the last one of all" in claim.experiment
    (folder / MORE / "runs" / f"4-{MIXUP}-0.json").unlink()  # a run without its pair is not among them
    notes = all_claims(read_evidence(folder))[3].notes
    assert notes[0] == "5 of these runs never reached it and count with all of their epochs."


def test_more_seeds_decide_whether_a_weight_for_each_image_is_faster(folder):
    shutil.rmtree(folder / CLAIMS)
    shutil.copytree(folder / MORE, folder / CLAIMS)
    for seed in range(6):  # as fast, and level, in the study of all arms alone
        mixup = json.loads((folder / CLAIMS / "runs" / f"4-{MIXUP}-{seed}.json").read_text())
        level = mixup["accuracy"] + 0.0001 * (-1) ** seed
        edit(folder / CLAIMS / "runs" / f"4-{PER_BATCH}-{seed}.json", curve=mixup["curve"], accuracy=level)
        slow = [{**point, "accuracy": 0.9 * point["accuracy"]} for point in mixup["curve"]]
        edit(folder / MORE / "runs" / f"4-{PER_BATCH}-{seed}.json", curve=slow, accuracy=level)
    claim = all_claims(read_evidence(folder))[3]
    assert [one.verdict for one in claim.judged] == [HELD, HELD]
    assert claim.notes == [
        "The 6 seeds of the study of all arms, none of which is in the table above, said "
        "+0.0 epochs [+0.0, +0.0], not shown; +0.00 points [−0.01, +0.01], held. The picture shows those."
    ]
    shutil.rmtree(folder / MORE)
    alone = all_claims(read_evidence(folder))[3]
    assert [one.verdict for one in alone.judged] == [OPEN, HELD]
    assert alone.notes == []


def test_mixup_pays_from_the_first_of_the_budgets_that_all_hold(folder):
    notes = all_claims(read_evidence(folder))[5].notes
    assert notes == [
        "On 200 images mixup is ahead from 2 epochs on (tried: 2, 4).",
        "On 400 images mixup is ahead from 1 epoch on (tried: 1).",
    ]
    for seed in range(6):  # the shorter budget no more
        edit(folder / FEW / "runs" / f"2-{MIXUP}-{seed}.json", accuracy=0.5 + 0.001 * seed)
    claim = all_claims(read_evidence(folder))[5]
    assert claim.notes[0] == "On 200 images mixup is ahead from 4 epochs on (tried: 2, 4)."
    assert claim.judged[0].verdict == REFUTED
    assert claim.verdict == HELD  # the longest budgets decide
    for seed in range(6):
        edit(folder / CLAIMS / "runs" / f"4-{MIXUP}-{seed}.json", accuracy=0.5 + 0.001 * seed)
    behind = "On 200 images mixup is behind at the longest budget (tried: 2, 4)."
    assert all_claims(read_evidence(folder))[5].notes[0] == behind


def test_the_confidence_without_mixup_is_told_where_it_tells_the_budgets_apart(folder):
    def without_mixup_at(budget: str, confidence: float) -> None:
        for seed in range(6):
            accuracy = json.loads((folder / f"{budget}-none-{seed}.json").read_text())["accuracy"]
            edit(folder / f"{budget}-none-{seed}.json", confidence=accuracy + confidence)

    budgets = {"2": f"{FEW}/runs/2", "4": f"{CLAIMS}/runs/4", "1": f"{MANY}/runs/1"}
    for seed in range(6):
        edit(folder / f"{budgets['2']}-{MIXUP}-{seed}.json", accuracy=0.5 + 0.001 * seed)
    for epochs, gap in {"2": -0.012, "4": 0.05, "1": 0.031}.items():
        without_mixup_at(budgets[epochs], gap)
    assert all_claims(read_evidence(folder))[5].notes[-1] == (
        "Seen afterwards, and not tested: mixup is ahead where the nets without it are more confident than "
        "right, by 3.1 and 5.0 points, and behind where they are less so, by −1.2 points."
    )
    for others in ({"2": 0.04}, {"2": -0.05, "4": -0.03, "1": -0.02}):  # in no order; none too confident
        for epochs, gap in others.items():
            without_mixup_at(budgets[epochs], gap)
        assert len(all_claims(read_evidence(folder))[5].notes) == 2


def test_the_guide_names_a_sign_that_the_records_show():
    """docs/questions.md, on whether mixing helps: the page of the records in the repository says so."""
    root = Path(__file__).resolve().parents[2]
    assert "more confident\nthan right" in (root / "docs" / "questions.md").read_text()
    notes = all_claims(read_evidence(root / "results" / "article"))[5].notes
    assert [note for note in notes if "ahead where the nets without it are more confident than right" in note]


def test_more_seeds_of_both_loaders_decide_and_those_before_them_are_told(folder):
    for seed in range(6):
        edit(folder / CLAIMS / "runs" / f"4-{ITSELF}-{seed}.json", accuracy=0.7 + 0.01 * seed)
    claim = all_claims(read_evidence(folder))[1]
    found = claim.judged[0]
    assert (found.says, found.verdict, found.n) == ("one loader costs no accuracy", HELD, 6)
    assert re.search(
        r"The 6 seeds of the study of all arms.* said −\d+\.\d+ points .*, did not hold\.$", claim.notes[-1]
    )
    assert "| loaders | `two-loaders`, `mixup:per=batch,fold=false` |" in as_markdown(read_evidence(folder))


def test_without_more_seeds_the_study_of_all_arms_decides(folder):
    shutil.rmtree(folder / LOADERS)
    for seed in range(6):
        edit(folder / CLAIMS / "runs" / f"4-{ITSELF}-{seed}.json", accuracy=0.7 + 0.01 * seed)
    claim = all_claims(read_evidence(folder))[1]
    assert claim.judged[0].verdict == REFUTED
    assert claim.notes == ["Rates are medians over the repeats, with their quartiles."]


def test_more_seeds_of_mixup_and_none_decide_and_those_before_them_are_told(folder):
    for seed in range(6):
        edit(folder / CLAIMS / "runs" / f"4-{MIXUP}-{seed}.json", loss=0.3 + 0.01 * seed)
    claim = all_claims(read_evidence(folder))[0]
    assert [one.verdict for one in claim.judged] == [HELD] * 3
    (note,) = claim.notes
    assert re.fullmatch(
        r"The 6 seeds of the study of all arms.* said \+.* points \[.*\], held; "
        r"−0\.\d+ \[.*\], did not hold; −.* points \[.*\], held\.",
        note.removesuffix(" The picture shows those."),
    )
    shutil.rmtree(folder / MORE)
    alone = all_claims(read_evidence(folder))[0]
    assert [one.verdict for one in alone.judged] == [HELD, REFUTED, HELD]
    assert alone.notes == []


@pytest.mark.parametrize(
    ("scaled", "changes", "is_told"),
    [(0.5, {}, True), (0.7, {}, False), (0.5, {"confidence": 0.9}, False), (0.5, {"loss": 0.5}, False)],
)
def test_a_loss_that_is_lower_once_confidence_is_put_right_is_told(folder, scaled, changes, is_told):
    for seed in range(6):
        for arm, loss in (("none", 0.6), (MIXUP, scaled)):
            edit(folder / MORE / "runs" / f"4-{arm}-{seed}.json", loss_scaled=loss + 0.001 * seed**2)
        edit(folder / MORE / "runs" / f"4-{MIXUP}-{seed}.json", **changes)
    edit(folder / MORE / "runs" / f"4-{MIXUP}-0.json", loss_scaled=scaled + 0.001)
    notes = all_claims(read_evidence(folder))[0].notes
    told = [note for note in notes if "temperature" in note]
    assert len(told) == is_told
    assert all("mixup has the lower loss, −0.100 [−0.100, −0.099]." in note for note in told)


def test_one_hot_is_judged_by_what_was_measured(folder):
    path = folder / "measured" / "one-hot.json"
    found = json.loads(path.read_text())["found"]
    form = found["rows"][0]["forms"]["mixed_target"]
    form |= {"seconds": [10 * s for s in form["seconds"]], "bytes": 10_000, "gradient_difference": 1e-3}
    edit(path, found=found)
    wrong = {says for says, one in statements(folder, 2).items() if one.verdict == REFUTED}
    assert wrong == {
        "value and gradient are the same",
        "less memory than one-hot with `MixedTarget`, for every K",
        "less time than one-hot with `MixedTarget`, K = 10",
    }


def test_seeds_that_one_arm_lacks_are_left_out(folder):
    runs = folder / MORE / "runs"
    (runs / f"4-{MIXUP}-0.json").unlink()
    edit(runs / "4-none-1.json", status="failed", error="RuntimeError: out of memory")
    assert statements(folder, 0)["mixup is more accurate than none"].n == 4
    claims = all_claims(read_evidence(folder))
    assert claims[0].experiment.startswith("4 of 6 seeds, 200 training images, 4 epochs, with mixup")
    assert claims[3].experiment.startswith("5 of 6 seeds, ")
    assert "Accuracy: 6 seeds, " in claims[4].experiment
    page = as_markdown(read_evidence(folder))
    assert "- `none`, 200 images, 4 epochs, seed 1: RuntimeError: out of memory" in page
    assert "16 of 18" in page


def test_one_seed_decides_nothing(tmp_path):
    write_article(tmp_path, AS_CLAIMED, seeds=1)
    trained = [claim.judged for claim in all_claims(read_evidence(tmp_path))]
    assert {one.verdict for one in (*trained[0], *trained[3], *trained[5])} == {OPEN}
    assert trained[0][0].needed == "two or more"
