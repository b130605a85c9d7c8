"""How numbers are written: signs, digits, p-values, budgets."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from batchmix.study.comparisons import Score
from batchmix.study.records import Budget, Study
from batchmix.study.statistics import Interval

NOTHING = "–"


def minus(text: str) -> str:
    """The same with a minus sign as long as the plus.

    Example:
        >>> minus("-0.9")
        '−0.9'
    """
    return text.replace("-", "−")


def value(score: Score, found: Interval) -> str:
    """A mean with its interval, and two decimals more than a difference is given with where it is a share.

    Example:
        >>> value(Score("accuracy", "accuracy", 100, " %", " points", 1), Interval(5, 0.8123, 0.809, 0.8156))
        '81.23 ± 0.33 %'
    """
    if not found.n:
        return NOTHING
    digits = score.digits + (score.scale == 100)
    mean = minus(f"{score.scale * found.mean:.{digits}f}")
    half = "" if math.isnan(found.half) else f" ± {score.scale * found.half:.{digits}f}"
    return f"{mean}{half}{score.unit}"


def gap(score: Score, found: Interval) -> str:
    """A difference with its sign and interval.

    Example:
        >>> gap(Score("accuracy", "accuracy", 100, " %", " points", 1), Interval(5, 0.011, 0.007, 0.015))
        '+1.1 ± 0.4 points'
        >>> gap(Score("loss", "loss"), Interval(1, -0.02, math.nan, math.nan))
        '−0.020'
    """
    if not found.n:
        return NOTHING
    mean, half = score.scale * found.mean, score.scale * found.half
    digits = score.digits
    if 0 < half < 0.95 * 10**-digits:  # one digit of the interval is to be seen
        digits = min(digits + 2, math.ceil(-math.log10(half)))
    shown = minus(f"{mean:+.{digits}f}")
    if not float(f"{mean:.{digits}f}"):  # no sign where no digit is seen
        shown = shown[1:]
    return shown + ("" if math.isnan(half) else f" ± {half:.{digits}f}") + score.gap_unit


def p_value(p: float) -> str:
    """A p-value as ``= .034``, never rounded onto 0.05 from elsewhere.

    Example:
        >>> [p_value(p) for p in (0.0004, 0.0021, 0.0504, 0.34, 1.0, math.nan)]
        ['< .001', '= .002', '= .0504', '= .34', '= 1', '–']
    """
    if math.isnan(p):
        return NOTHING
    if p < 0.001:
        return "< .001"
    digits = 3 if p < 0.1 else 2
    while p != 0.05 and round(p, digits) == 0.05:
        digits += 1
    text = f"{p:.{digits}f}"
    return "= 1" if float(text) == 1 else f"= {text[1:]}"


def count(n: int, what: str) -> str:
    """A number and its noun.

    Example:
        >>> count(1, "seed"), count(3, "seed")
        ('1 seed', '3 seeds')
    """
    return f"{n:,} {what}" + ("" if n == 1 else "s")


def short(text: str, longest: int) -> str:
    """The text, or its beginning.

    Example:
        >>> short("mixup:alpha=0.2", 8)
        'mixup:a…'
    """
    return text if len(text) <= longest else text[: longest - 1] + "…"


def capital(text: str) -> str:
    """The text as it begins a line.

    Example:
        >>> capital("loss"), capital("ECE")
        ('Loss', 'ECE')
    """
    return text[:1].upper() + text[1:]


def listed(items: Iterable[object]) -> str:
    """A list as in a sentence.

    Example:
        >>> listed([0, 1, 4])
        '0, 1 and 4'
    """
    *before, last = map(str, items)
    return f"{', '.join(before)} and {last}" if before else last


def budget(of: Budget, among: Sequence[Budget]) -> str:
    """A budget in words; the images are named where they tell budgets apart.

    Example:
        >>> budget((5000, 40.0), [(5000, 40.0)]), budget((5000, 1.0), [(5000, 1.0), (500, 1.0)])
        ('40 epochs', '1 epoch of 5,000 images')
    """
    images, epochs = of
    length = f"{epochs:g} epoch" + ("" if epochs == 1 else "s")
    return length if len({other for other, _ in among}) <= 1 else f"{length} of {images:,} images"


def machines(study: Study) -> list[str]:
    """Each machine that runs of the study were made on, in a line."""
    return list(dict.fromkeys(_machine(record.get("machine") or {}) for record in study.records))


def _machine(machine: dict[str, object]) -> str:
    device = machine.get("device", "cpu")
    cores = f"{machine.get('cores', '?')} cores of {machine.get('cpu', 'an unknown CPU')}"
    parts = [] if device == "cpu" else [str(device)]
    parts += [cores, f"{machine.get('threads', '?')} of torch's threads a run"]
    parts += [f"{name} {machine[name]}" for name in ("torch", "python") if name in machine]
    return ", ".join(parts)
