"""What the report says in words, for studies whose numbers are known."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from made_up_study import fail, make_study

from batchmix.study.comparisons import cells, compare_all, of
from batchmix.study.sentences import write_sentences

stats = pytest.importorskip("scipy.stats")


def said(study):
    return [str(one) for one in write_sentences(study, compare_all(study))]


def with_scores(arms, key="accuracy", **others):
    """A study whose runs have just these values of one score: {arm: [one for each seed, None for failed]}."""
    study = make_study(tuple(arms), range(max(map(len, arms.values()))), **others)
    records = []
    for record in study.records:
        values = arms[record["arm"]]
        if record["seed"] < len(values):
            value = values[record["seed"]]
            records.append(fail(record) if value == "failed" else {**record, key: value})
    return dataclasses.replace(study, records=records)


def accuracy_sentence(**arms):
    study = with_scores(arms)
    (sentence,) = write_sentences(study, compare_all(study))
    return f"{sentence.arm}: {sentence.text}"


NONE = [0.800, 0.804, 0.798, 0.801, 0.803]
MIXUP = [0.811, 0.816, 0.805, 0.814, 0.812]
LEVEL = [0.802, 0.800, 0.799, 0.803, 0.801]


def test_a_difference_is_said_with_interval_n_and_p():
    gaps = [100 * (a - b) for a, b in zip(MIXUP, NONE, strict=True)]
    half = stats.t.ppf(0.975, 4) * stats.sem(gaps)
    p = stats.ttest_rel(MIXUP, NONE).pvalue
    assert accuracy_sentence(none=NONE, mixup=MIXUP) == (
        f"mixup: +1.0 ± {half:.1f} points of accuracy at 40 epochs (n = 5, p {'< .001' if p < 0.001 else p})"
    )


def test_two_arms_are_corrected_for_two_comparisons():
    first, second = said(with_scores({"none": NONE, "mixup": MIXUP, "cutmix": LEVEL}))
    assert "(n = 5, p = .001 corrected for 2 comparisons)" in first
    p = stats.ttest_rel(LEVEL, NONE).pvalue
    assert f"p = {f'{p:.2f}'[1:]} corrected for 2 comparisons)" in second


def test_where_nothing_is_shown_it_says_how_many_seeds_would():
    assert accuracy_sentence(none=NONE[:3], mixup=[0.807, 0.803, 0.802]) == (
        "mixup: no difference in accuracy could be shown at 40 epochs with 3 seeds "
        "(+0.3 ± 1.0 points, p = .29); about 8 in all would be needed for half a point"
    )


def test_enough_seeds_say_that_half_a_point_would_have_been_seen():
    level = [a + (0.001 if i % 2 else -0.001) for i, a in enumerate(NONE * 2)]
    assert accuracy_sentence(none=NONE * 2, mixup=level).endswith(
        "half a point would most likely have been seen with so many"
    )


def test_half_a_point_that_the_interval_holds_is_not_said_to_be_out_of_the_question():
    differences = (-0.0006, 0.0018, 0.0028, 0.0035, 0.0065)
    mixup = [a + gap for a, gap in zip(NONE, differences, strict=True)]
    assert max(stats.t.interval(0.95, 4, np.mean(differences), stats.sem(differences))) > 0.005
    assert accuracy_sentence(none=NONE, mixup=mixup).endswith("a difference of half a point is not ruled out")


def test_half_a_point_is_ruled_out_at_the_level_that_the_correction_leaves():
    mixup = [a + (0.0055 if i % 2 else -0.0011) for i, a in enumerate(NONE * 2)]
    alone = said(with_scores({"none": NONE * 2, "mixup": mixup}))
    beside = said(with_scores({"none": NONE * 2, "mixup": mixup, "cutmix": LEVEL * 2}))
    assert "; half a point would most likely have been seen with so many." in alone[0]
    assert "; a difference of half a point is not ruled out." in beside[0]


def test_nobody_runs_a_million_seeds():
    wild = [0.1, 0.9]
    study = with_scores({"none": [1e5, 0.0], "mixup": wild})
    assert "no number of seeds within reason would do for half a point" in said(study)[0]


def test_one_seed_shows_nothing_and_says_so():
    assert accuracy_sentence(none=[0.80], mixup=[0.85]) == (
        "mixup: +5.0 points of accuracy at 40 epochs, from 1 seed: no interval, and nothing is shown"
    )


def test_identical_runs_are_called_so():
    sentence = accuracy_sentence(none=NONE, mixup=NONE)
    assert sentence == "mixup: exactly the accuracy of none at 40 epochs, in each of 5 seeds"


def test_seeds_that_change_nothing_show_nothing():
    assert accuracy_sentence(none=[0.80] * 3, mixup=[0.81] * 3) == (
        "mixup: +1.0 points of accuracy at 40 epochs, the same in 3 seeds: "
        "seeds that change nothing show nothing"
    )


def test_differences_that_agree_by_coarse_scores_are_not_said_to_come_of_seeds_that_change_nothing():
    """With a hundred test images an accuracy is a whole number of points."""
    assert accuracy_sentence(none=[0.80, 0.82, 0.81], mixup=[0.81, 0.83, 0.82]) == (
        "mixup: +1.0 points of accuracy at 40 epochs, the same difference in all 3 seeds: "
        "no spread to judge it by"
    )


def test_only_common_seeds_are_compared_and_the_others_named():
    study = with_scores({"none": [0.8, 0.81, 0.82, 0.8], "mixup": [0.82, 0.82]})
    (text,) = said(study)
    assert "with 2 seeds" in text
    assert "only seeds that both have are compared, seeds 2 and 3 left out" in text
    (comparison,) = of(compare_all(study), key="accuracy")
    assert list(comparison.differences) == [0, 1]
    assert (comparison.paired.n, comparison.left_out) == (2, (2, 3))


def test_failed_runs_are_counted_and_named():
    study = with_scores({"none": NONE, "mixup": [*MIXUP[:3], "failed", "failed"]})
    assert "seeds 3 and 4 left out; 2 runs of it failed" in said(study)[0]


def test_an_arm_that_failed_altogether_is_not_compared():
    study = with_scores({"none": NONE, "mixup": ["failed"] * 5, "cutmix": MIXUP})
    first, second = write_sentences(study, compare_all(study))
    assert (first.verdict, first.beside) == ("not tested", "")
    assert first.text.startswith(
        "nothing to compare at 40 epochs, no seed has an ended run of both it and none"
    )
    assert first.text.endswith("5 runs of it failed")
    assert "corrected" not in second.text  # one comparison is left, and nothing to correct for


def test_a_score_that_is_null_leaves_its_seed_out_of_that_score_alone():
    study = with_scores({"none": [*NONE[:4], None], "mixup": [*MIXUP[:4], math.nan]})
    (accuracy,) = of(compare_all(study), key="accuracy")
    (loss,) = of(compare_all(study), key="loss")
    assert (accuracy.paired.n, accuracy.left_out, loss.paired.n) == (4, (4,), 5)
    assert "seed 4 left out" in said(study)[0]


def test_a_task_without_accuracy_is_judged_by_its_loss():
    study = make_study(("none", "mixup"), seed=3)
    gone = dict.fromkeys(
        ("accuracy", "confidence", "ece", "ece_scaled", "brier", "reliability", "loss_scaled")
    )
    study = dataclasses.replace(study, records=[{**record, **gone} for record in study.records])
    (text,) = said(study)
    assert " in loss at 40 epochs (n = 5" in text
    assert "accuracy" not in text
    assert "points" not in text


def test_a_single_arm_is_described_and_a_second_asked_for():
    (text,) = said(with_scores({"none": NONE}))
    half = 100 * stats.t.ppf(0.975, 4) * stats.sem(NONE)
    assert text.startswith(f"none: accuracy 80.12 ± {half:.2f} %, loss ")
    assert text.endswith("at 40 epochs (n = 5); a comparison takes a second arm.")


def test_all_runs_of_the_only_arm_failed():
    (text,) = said(with_scores({"none": ["failed"] * 2}))
    assert (
        text == "none: no score at 40 epochs (n = 0; 2 runs of it failed); a comparison takes a second arm."
    )


def test_every_arm_and_budget_has_its_sentence_and_counts_in_the_correction():
    study = make_study(("none", "mixup", "cutmix"), epochs=(1, 40))
    sentences = write_sentences(study, compare_all(study))
    assert [(one.arm, one.budget[1]) for one in sentences] == [
        ("mixup", 1), ("mixup", 40), ("cutmix", 1), ("cutmix", 40)
    ]  # fmt: skip
    assert all("corrected for 4 comparisons" in one.text for one in sentences)
    assert "at 1 epoch " in sentences[0].text


def test_nothing_is_called_better_or_worse_above_five_percent():
    """Small effects and few seeds, so that corrected p-values fall on both sides of 0.05."""
    verdicts = set()
    for seed in range(40):
        study = make_study(seeds=range(3 + seed % 3), effect={"mixup": 0.006, "cutmix": -0.006}, seed=seed)
        comparisons = compare_all(study)
        sentences = write_sentences(study, comparisons)
        for one, sentence in zip(of(comparisons, key="accuracy"), sentences, strict=True):
            direction = "better" if one.paired.mean > 0 else "worse"
            assert sentence.verdict == (direction if one.p <= 0.05 else "not shown")
            assert ("could be shown" in sentence.text) == (one.p > 0.05)
            verdicts.add(sentence.verdict)
    assert verdicts == {"better", "worse", "not shown"}


def test_the_other_scores_are_said_beside_it_each_by_its_own_p():
    study = make_study(("none", "mixup"))
    (sentence,) = write_sentences(study, compare_all(study))
    confidence = of(compare_all(study), key="confidence")[0]
    assert confidence.verdict == "lower"
    assert f"confidence −{abs(100 * confidence.paired.mean):.1f} ± " in sentence.beside
    for name in ("loss", "confidence", "ECE"):
        assert name in sentence.beside
    unsure = of(compare_all(with_scores({"none": NONE, "mixup": LEVEL}, key="ece")), key="ece")[0]
    assert unsure.verdict == "not shown"
    (text,) = said(with_scores({"none": NONE, "mixup": LEVEL}, key="ece"))
    assert "no difference in ECE shown" in text


def test_lower_is_better_for_loss_and_ece():
    less, more = [0.1, 0.11, 0.105], [0.2, 0.22, 0.21]
    for key in ("loss", "ece", "brier"):
        (found,) = of(compare_all(with_scores({"none": more, "mixup": less}, key=key)), key=key)
        assert found.verdict == "better"
        (found,) = of(compare_all(with_scores({"none": less, "mixup": more}, key=key)), key=key)
        assert found.verdict == "worse"


def test_a_cell_is_the_mean_of_its_seeds():
    study = with_scores({"none": NONE, "mixup": [*MIXUP[:3], "failed"]})
    none, mixup = cells(study, (5000, 40.0))
    assert none.scores["accuracy"].mean == pytest.approx(sum(NONE) / 5)
    assert (mixup.seeds, mixup.failed, mixup.scores["accuracy"].n) == ((0, 1, 2), 1, 3)
