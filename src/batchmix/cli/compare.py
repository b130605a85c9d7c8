"""The command ``batchmix compare``: does mixing help, with which method, and by how much?"""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchmix.cards import BESIDE
from batchmix.cli import existing_folder, flag_name
from batchmix.cli.train import FLAGS, add_flag
from batchmix.errors import MixError
from batchmix.methods import discover
from batchmix.recipe.config import PRESETS
from batchmix.study.arms import methods_of_arms
from batchmix.study.plan import RECIPE, SHARED, StudyPlan

if TYPE_CHECKING:
    from batchmix.study.engine import EngineOptions
    from batchmix.study.progress import StudyProgress
    from batchmix.study.records import Study

ARMS = ("none", "mixup")
EPOCHS = (PRESETS["cpu"].config.epochs,)
OUT = Path("study")
MOST_SEEDS = 10_000  # years of training; a list of many more fills the memory
PUBLISHED, PAGE = Path("results/article"), Path("docs/article.md")  # the repository's records, and their page
OF_A_PLAN = ("arms", "seeds", "epochs", "subset", *SHARED)  # what a preset says itself
NOT_FOR_A_REPORT = (*OF_A_PLAN, "data", "size", "root", "jobs", "threads", "device", "out", "scale")
NO_ARMS = ", ".join((*BESIDE, *(discover().keys() - methods_of_arms())))
DESCRIPTION = f"""\
Train every arm with every seed under the same budget, and report what can be said of the difference.
Runs of one seed have the same initial weights, data order and augmentation: the mixing alone differs.

An ARM is none, mixup, mixup:alpha=0.2,per=batch, any other method (but {NO_ARMS})
with its options, choice (of mixup and cutmix, each for half of the batches; choice:mixup=0.3,cutmix=0.5),
or two-loaders (mixup as first published). All but none take until=0.6, the share of the training after
which mixing stops.
The first ARM is what the others are compared with. Where none is named: {" ".join(ARMS)}.

A MODULE:FUNCTION among the arms is a task of your own: a function of a seed that returns a
batchmix.study.Task (model, loaders, loss); 'pydoc batchmix.study.Task' has an example.

The same command goes on with a study that was stopped, and tries failed runs once more; with more arms,
seeds or epochs it extends the study. Its first arm stays the first, and the file of a task as it was.
Seeds that are added after a look at the report make its p-values too small: to judge, train new seeds
in a folder of their own (--seeds 10-32 --out other)."""


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the command to a parser; the recipe's flags are those of ``batchmix train``."""
    parser = subparsers.add_parser(
        "compare",
        help="compare ways to mix, in runs paired by seed",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("arms", nargs="*", metavar="ARM", help="what is compared, and perhaps a task of your own")
    add("--seeds", metavar="N", help="how many, or which ones: 5, 0-9 or 3,5,8 (default: 3)")
    add("--epochs", metavar="X,X,...", help="budgets in passes over the training images (default: "
        f"{EPOCHS[0]:g}, or what your task says)")  # fmt: skip
    add("--data", metavar="NAME", help="cifar10 (default), cifar100, fashion-mnist or folder:PATH")
    add("--size", type=int, metavar="N", help="pixels of an image's side (default: 32)")
    add("--subset", metavar="N", help="train on so many images, 5000 or 10%%, chosen class by class")
    for flag in FLAGS:
        if flag.name in SHARED:
            add_flag(parser, flag)
    add("--out", type=Path, metavar="DIR", help=f"folder of the study (default: {OUT})")
    add("--jobs", type=int, metavar="N", help="runs side by side (default: 1, or 1 a GPU)")
    add("--threads", type=int, metavar="N", help="CPU threads of each run (default: all, shared out)")
    add("--device", help="auto (default), cpu, cuda or cuda:N")
    add(
        "--root",
        type=existing_folder,
        metavar="DIR",
        help="a folder that holds the data, as for 'batchmix data'",
    )
    add("--report", type=Path, metavar="DIR", help="train nothing, make the report of this study anew")
    add("--preset", metavar="NAME", help="a series of experiments with a name: article")
    add("--scale", metavar="NAME", help="with --preset: small, cpu or gpu (default: cpu)")
    add("--page", type=Path, metavar="FILE", help="with --preset: the page it writes (default: "
        f"{PAGE.name} in the folder of the study; for {PUBLISHED} it is {PAGE})")  # fmt: skip
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Carry out the study and write its report; 130 where it was stopped, 1 where runs failed."""
    from batchmix.study.engine import EngineOptions, compare
    from batchmix.study.progress import StudyProgress
    from batchmix.study.records import read_study

    if args.report is not None and (given := _given(args, NOT_FOR_A_REPORT)):
        raise MixError(f"--report takes a study as it is, got {_flags(given)} too")
    options = EngineOptions(
        folder=args.report or args.out or OUT,
        command="batchmix " + shlex.join(sys.argv[1:]),
        jobs=_positive("--jobs", args.jobs),
        threads=_positive("--threads", args.threads),
        device="auto" if args.device is None else args.device,
        root=args.root,
    )
    if args.preset is not None:
        return _run_preset(args, options)
    for flag in ("--scale", "--page"):
        if getattr(args, flag[2:]) is not None:
            raise MixError(f"{flag} takes a --preset beside it, got none")
    if args.report is not None:
        return _report(read_study(args.report), args.report)
    progress = StudyProgress()
    study = compare(plan_from(args), options, progress)
    if progress.stopped:
        return _say_how_to_go_on(progress, options.command)
    status = _count_failed(progress, [study])
    _report(study, options.folder)
    return status


def _run_preset(args: argparse.Namespace, options: EngineOptions) -> int:
    from batchmix.study.article import PRESETS, report_article, run_article
    from batchmix.study.progress import StudyProgress

    if args.preset not in PRESETS:
        raise MixError(f"--preset takes one of {', '.join(PRESETS)}, got {args.preset!r}")
    scales = PRESETS[args.preset]
    scale = args.scale or "cpu"
    if scale not in scales:
        raise MixError(f"--scale takes one of {', '.join(scales)}, got {scale!r}")
    given = _given(args, OF_A_PLAN)
    if given:
        raise MixError(f"--preset {args.preset} takes its own arms and settings, got {_flags(given)} too")
    status = 0
    if args.report is None:
        data = args.data or "cifar10"
        studies = run_article(scales[scale], options, StudyProgress, data=data, size=args.size)
        if studies is None:
            return _say_how_to_go_on(StudyProgress(), options.command)
        status = _count_failed(StudyProgress(), studies)
    is_published = options.folder.resolve() == PUBLISHED.resolve()
    page = PAGE if is_published else options.folder / PAGE.name
    _print_paths(report_article(options.folder, args.page or page))
    return status


def _report(study: Study, folder: Path) -> int:
    from batchmix.study.report import write_report

    return _print_paths(write_report(study, folder))


def _print_paths(paths: list[Path]) -> int:
    for path in paths:
        sys.stdout.write(f"{path}\n")
    return 0


def _count_failed(progress: StudyProgress, studies: Sequence[Study]) -> int:
    """Say how many runs failed; the status, 1 where any did."""
    failed = sum(len(study.failed) for study in studies)
    if failed:
        progress.note(f"{failed} of the runs failed; the same command tries them again")
    return int(failed > 0)


def _say_how_to_go_on(progress: Any, command: str) -> int:
    progress.note("stopped; what is done is kept. To go on:")
    progress.note(f"  {command}")
    return 130


# From words to a plan


def plan_from(args: argparse.Namespace) -> StudyPlan:
    """The study that the arguments ask for.

    Raises:
        MixError: If something is out of range; one line that names it.
        DataError: If the images cannot be had.
    """
    tasks = [text for text in args.arms if is_task(text)]
    if len(tasks) > 1:
        raise MixError(f"ARM takes one task at most, got {', '.join(tasks)}")
    arms = tuple(text for text in args.arms if text not in tasks) or ARMS
    seeds = seeds_of("3" if args.seeds is None else args.seeds)
    epochs = EPOCHS if args.epochs is None else epochs_of(args.epochs)
    config = {name: getattr(args, name) for name in SHARED if getattr(args, name) is not None}
    if tasks:
        return _plan_of_task(args, tasks[0], arms, seeds, epochs)
    # Everything that costs nothing is checked before the images are loaded, or fetched.
    data = "cifar10" if args.data is None else args.data
    plan = StudyPlan(arms, seeds, epochs, 10**6, data, args.size, RECIPE, config)
    return _with_images(plan, args)


def _with_images(plan: StudyPlan, args: argparse.Namespace) -> StudyPlan:
    """The plan with the number of images that there are, or are asked for."""
    import dataclasses

    from batchmix.data import load_images
    from batchmix.study.arms import check_on_images, parse_arms
    from batchmix.study.images import count_of

    for arm in parse_arms(plan.arms):
        check_on_images(arm, plan.config["sizes"][-1])
    try:
        image_set = load_images(plan.data or "", size=plan.size, root=args.root)
    except MixError as error:
        raise MixError(f"in --data {plan.data}: {error}") from None
    images, batch = count_of(args.subset, len(image_set.train_y)), plan.config["batch_size"]
    if images < batch:
        default = ", its default" if args.batch_size is None else ""
        raise MixError(f"--batch-size takes at most the {images} images that there are, got {batch}{default}")
    return dataclasses.replace(plan, images=images)


def _plan_of_task(
    args: argparse.Namespace,
    task: str,
    arms: tuple[str, ...],
    seeds: tuple[int, ...],
    epochs: tuple[float, ...],
) -> StudyPlan:
    """The plan for a task of the user's own, which is asked how long it trains."""
    from batchmix.study.engine import ask_task

    given = _given(args, ("data", "size", "subset", "root", *SHARED))
    if given:
        raise MixError(f"{task} makes its own data and model, got {_flags(given)} too")
    plan = StudyPlan(arms, seeds, epochs, 1, None, None, task)
    answer = ask_task(task)
    epochs = plan.epochs if args.epochs is not None else (float(answer["epochs"]),)
    return StudyPlan(arms, seeds, epochs, answer["images"], None, None, task, source=answer["source"])


def is_task(text: str) -> bool:
    """Whether a word is ``module:function`` rather than an arm."""
    from batchmix.study.arms import arm_names

    name, colon, rest = text.partition(":")
    return bool(colon) and "=" not in rest and name not in arm_names()


def seeds_of(text: str) -> tuple[int, ...]:
    """``"5"`` is 0 to 4, ``"0-9"`` is 0 to 9, ``"3,5,8"`` is just these.

    Raises:
        MixError: If it is none of these.
    """
    found: tuple[int, ...] = ()
    first, dash, last = text.partition("-")
    with contextlib.suppress(ValueError):
        if "," in text:
            found = tuple(int(part) for part in text.removesuffix(",").split(","))
        else:
            low, end = (int(first), int(last) + 1) if dash else (0, int(text))
            found = tuple(range(low, min(end, low + MOST_SEEDS + 1)))
    if not 0 < len(found) <= MOST_SEEDS:
        takes = f"a number of seeds such as 5, or seeds such as 0-9 or 3,5,8, at most {MOST_SEEDS:,} of them"
        raise MixError.of("--seeds", text, takes)
    return found


def epochs_of(text: str) -> tuple[float, ...]:
    """``"5,10"`` as numbers.

    Raises:
        MixError: If they are none.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise MixError.of("--epochs", text, "numbers with commas, such as 5,10,20") from None


def _given(args: argparse.Namespace, names: Iterable[str]) -> list[str]:
    return [name for name in names if getattr(args, name) not in (None, [])]


def _flags(names: list[str]) -> str:
    return ", ".join("ARM" if name == "arms" else flag_name(name) for name in names)


def _positive(flag: str, value: int | None) -> int | None:
    if value is not None and value < 1:
        raise MixError.of(flag, value, "a whole number >= 1")
    return value
