"""The claims that take a measurement beside trained nets, or instead: (b), (c) and (e)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, median, quantiles
from typing import Any

from batchmix.files import is_number
from batchmix.study.article.claim import Claim, Table, earlier_seeds, of_runs, scores_table, training_of
from batchmix.study.article.evidence import LOADING, ONE_HOT, Evidence
from batchmix.study.article.presets import ITSELF, MIXUP, NOT_FOLDED, TWO_LOADERS
from batchmix.study.article.verdicts import ACCURACY, Comparison, Fact, Quantity, judge, overall
from batchmix.study.records import Study

Row = Mapping[str, Any]  # of the measurement of one-hot targets, for one K

SPEED = Quantity("mixed images a second", 0.05, ratio=True)
TIME = Quantity("time", 0.05, ratio=True)
SAME_VALUE = 1e-5  # relative, of a loss and of its gradient: sums of float32 in another order
FORMS = {"one_hot": "one-hot", "two_calls": "two calls", "mixed_target": "`MixedTarget`"}


def one_loader(evidence: Evidence) -> Claim:
    """(b) A batch mixed with itself is as good as two loaders, and loads faster."""
    study, found = evidence.loaders or evidence.claims, evidence.loading
    batch = found["batches"] * found["batch_size"]
    rates = {name: [batch / seconds for seconds in found["seconds"][name]] for name in found["seconds"]}
    judged = judge(
        [
            _costs_nothing(study),
            Comparison(
                "one loader gives more mixed images a second",
                SPEED,
                "more",
                rates["one_loader"],
                rates["two_loaders"],
            ),
        ]
    )
    rows = [
        (name, _spread(rates[key], 1), _spread(rates[key], decoded))
        for name, key, decoded in (("one loader", "one_loader", 1), ("two loaders", "two_loaders", 2))
    ]
    return Claim(
        title="A batch mixed with a shuffled version of itself does the work of two loaders",
        said="The paper draws a batch from each of two loaders, which loads twice the images. Mixing a "
        "batch with a shuffled version of itself avoids the slow-down and does as well.",
        experiment=f"Accuracy: {training_of(study, (ITSELF, TWO_LOADERS))}, `{ITSELF}` against "
        f"`{TWO_LOADERS}`, both with one weight a batch, not folded, as in the paper. Loading: "
        f"{found['images']:,} images written as JPEG files of {found['size']} x {found['size']} pixels "
        f"(quality {found['quality']}, {found['bytes_per_file']:,} bytes a file) and decoded by "
        f"{found['decoder']}, {_workers(found['workers'])}; {found['batches']} batches of "
        f"{found['batch_size']} in each of {len(rates['one_loader'])} repeats that take turns."
        f"{_busy(evidence, LOADING)} No training takes the batches: where it is slower than the loading, a "
        "second loader in other processes costs cores, not time.",
        judged=judged,
        verdict=overall([one.verdict for one in judged]),
        tables=[
            scores_table(study, (ITSELF, TWO_LOADERS)),
            (("loading", "mixed images a second", "JPEGs decoded a second"), rows),
        ],
        notes=[
            "Rates are medians over the repeats, with their quartiles.",
            *([] if evidence.loaders is None else [earlier_seeds([_costs_nothing(evidence.claims)])]),
        ],
        pictures=("loading",),
    )


def _costs_nothing(study: Study) -> Comparison:
    """The statement on accuracy of (b)."""
    return of_runs(study, ITSELF, TWO_LOADERS, "one loader costs no accuracy", ACCURACY, "no less")


def no_one_hot(evidence: Evidence) -> Claim:
    """(c) No one-hot targets: the same value for less."""
    rows = evidence.one_hot["rows"]
    worst = max(
        form[key]
        for row in rows
        for form in row["forms"].values()
        for key in ("loss_difference", "gradient_difference")
    )
    judged = judge(
        [
            Fact("value and gradient are the same", f"{worst:.0e} apart at most", worst <= SAME_VALUE),
            *(_memory_fact(rows, form) for form in ("two_calls", "mixed_target")),
            *(_time_comparison(row, form) for row in rows for form in ("two_calls", "mixed_target")),
        ]
    )
    return Claim(
        title="No target has to be one-hot, which saves time and memory",
        said="PyTorch avoids one-hot targets where it can, and mixup need not undo that: t times the loss "
        "of the first label plus 1 - t times that of the second is the loss of the mixed target.",
        experiment="Forward and backward of the cross entropy of "
        f"{evidence.one_hot['batch_size']} rows of logits in three forms: one-hot (dense probabilities, "
        "zeros with both labels added in), two calls (the article's form) and "
        "`F.cross_entropy(logits, MixedTarget)`. The article claims the same value; that time and memory "
        "are saved is what one would expect of it. Each form is timed "
        f"{evidence.one_hot['repeats']} times, in turns.{_busy(evidence, ONE_HOT)} Memory is the most that "
        "is allocated at once beside the logits, the logits' gradient and the target's probabilities "
        "included: on a CPU every allocation in torch's profiler, on a GPU the allocator's peak. The same "
        f"means {SAME_VALUE:.0e} of the loss, and of the gradient's largest value.",
        judged=judged,
        verdict=overall([one.verdict for one in judged]),
        tables=[_one_hot_table(rows)],
        notes=[
            "Times are medians; memory also in multiples of the logits. Repeats in one process share its "
            "state of the machine: their intervals say how sure this run is, not what another machine "
            "would give."
        ],
        pictures=("one-hot",),
    )


def folding(evidence: Evidence) -> Claim:
    """(e) Without max(t, 1-t) a batch holds duplicates, and the accuracy falls."""
    study, found = evidence.claims, evidence.duplicates
    counts = {(row["batch_size"], row["fold"]): row for row in found["counts"]}
    sizes = sorted({size for size, _ in counts})
    pairs = Quantity("pairs of the same mix in a batch", 1.0, "", digits=2)
    judged = judge(
        [
            *(
                Comparison(
                    f"a batch of {size:,} holds more pairs of the same mix where t is not folded",
                    pairs,
                    "more",
                    counts[size, False]["pairs"],
                    counts[size, True]["pairs"],
                )
                for size in sizes
            ),
            of_runs(study, MIXUP, NOT_FOLDED, "folding makes the net more accurate", ACCURACY, "more"),
        ]
    )
    rows = [
        (f"{size:,}", "yes" if fold else "no", *(f"{fmean(row[key]):.3f}" for key in ("pairs", "swapped")))
        for (size, fold), row in sorted(counts.items())
    ]
    head = ("batch", "folded", "pairs of the same mix a batch", "of them two that mix one another")
    return Claim(
        title="Folding t removes duplicates, which cost accuracy",
        said="If an image is mixed with a second one, and the second with the first, t and 1 - t make the "
        "same picture twice. The accuracy dropped where such duplicates were left in; max(t, 1 - t) "
        "removes them.",
        experiment=f"{found['batches']:,} draws of `Mixup({found['alpha']:g})`, each folded and not. Two "
        f"mixes count as the same where at most {found['tolerance']:.0%} of the weight would have to move "
        "from image to image to make them equal. The article's duplicates are those of two images that "
        "mix one another; the others are a sample that is nearly its partner, and that partner, nearly "
        f"unmixed. Accuracy: {training_of(study, (MIXUP, NOT_FOLDED))}, `{MIXUP}` against "
        f"`{NOT_FOLDED}`.",
        judged=judged,
        verdict=overall([one.verdict for one in judged]),
        tables=[(head, rows), scores_table(study, (MIXUP, NOT_FOLDED))],
    )


def _memory_fact(rows: Sequence[Row], form: str) -> Fact:
    shares = [row["forms"][form]["bytes"] / row["forms"]["one_hot"]["bytes"] for row in rows]
    found = f"{min(shares):.2f} to {max(shares):.2f} times one-hot's"
    return Fact(f"less memory than one-hot with {FORMS[form]}, for every K", found, max(shares) < 1)


def _time_comparison(row: Row, form: str) -> Comparison:
    says = f"less time than one-hot with {FORMS[form]}, K = {row['classes']:,}"
    forms = row["forms"]
    return Comparison(says, TIME, "less", forms[form]["seconds"], forms["one_hot"]["seconds"])


def _one_hot_table(rows: Sequence[Row]) -> Table:
    head = ("K", *(f"{name}, ms" for name in FORMS.values()), *(f"{name}, memory" for name in FORMS.values()))
    made = []
    for row in rows:
        forms = [row["forms"][form] for form in FORMS]
        times = [f"{1e3 * median(form['seconds']):.3g}" for form in forms]
        memory = [
            f"{form['bytes'] / 1e6:.3g} MB ({form['bytes'] / row['logit_bytes']:.2f})" for form in forms
        ]
        made.append((f"{row['classes']:,}", *times, *memory))
    return head, made


def _busy(evidence: Evidence, name: str) -> str:
    """What else the machine did as a timing began, as a sentence; records of earlier versions do not say."""
    busy = evidence.measurements[name].get("busy_before")
    return f" Just before, {busy:.0%} of the machine's cores were busy." if is_number(busy) else ""


def _workers(count: int) -> str:
    return "in the process that mixes" if count == 0 else f"by {count} processes in all"


def _spread(numbers: Sequence[float], factor: int) -> str:
    """Median and quartiles, as whole numbers."""
    scaled = [factor * number for number in numbers]
    low, middle, high = quantiles(scaled, n=4, method="inclusive") if len(scaled) > 1 else scaled * 3
    return f"{middle:,.0f} ({low:,.0f} to {high:,.0f})"
