"""The page of a record, or of several: what ran where, goals, a picture and all tables, as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from batchmix.bench.goals import goals_of
from batchmix.bench.records import CLASSES_BEFORE, Record
from batchmix.bench.table import goal_table, parts_of, tables_of
from batchmix.bench.words import CAUSES, CAUSES_ON_CPU, HEAD, INTRO, TITLES
from batchmix.recipe.machine import BUSY


def page(records: Sequence[Record], pictures: Sequence[str | None]) -> str:
    """The whole page.

    Args:
        records: One for each machine or run, in the order of the page.
        pictures: The path of each one's picture, as the page links to it; None where there is none.
    """
    sections = [_section(record, picture) for record, picture in zip(records, pictures, strict=True)]
    return "\n".join([HEAD, *sections])


def machine_lines(record: Record) -> list[str]:
    """What a record has to say of where, when and how it was made."""
    machine = record["machine"]
    device = "" if machine["device"] == "cpu" else f"{machine['device']}, "
    peers = [_with_version(name, version) for name, version in record["peers"].items()]
    lines = [
        f"{device}{_cores(record)} ({machine['isa']}), {machine['system']}, "
        f"Python {machine['python']}, torch {machine['torch']}, batchmix {record['batchmix']}",
        f"Beside it: {', '.join(peers) or 'no other library'}",
        *(f"Missing: {name} ({reason})" for name, reason in record["missing"].items()),
        *(f"Not measured: {entry['case']} ({entry['reason']})" for entry in record.get("failed", [])),
        f"Run: `{record['command']}`, {record['date'][:10]}; other work took {record['busy_before']:.0%} "
        "of the cores before it began",
    ]
    if {"blend", "images"} & set(parts_of(record)):
        lines.append(f"Classes of the labels that are mixed beside the images: {_classes(record)}")
    if record["busy_before"] > BUSY:
        lines.append("The machine was busy with something else: these timings say little")
    return lines


def _classes(record: Record) -> str:
    counts = record["options"].get("classes")
    if counts is None:
        return f"{CLASSES_BEFORE:,}"
    return ", ".join(f"{count:,} at {side} pixels" for side, count in counts.items())


def _section(record: Record, picture: str | None) -> str:
    machine = record["machine"]
    name = machine["device"] if machine["device"] != "cpu" else _cores(record)
    text = [f"## On {name}\n", "\n".join(f"- {line}." for line in machine_lines(record)), ""]
    if picture is not None:
        text.append(f"![Times of every library, ours in blue]({picture})\n")
    goals = goal_table(record)
    if goals.rows:
        text += ["### Goals\n", goals.markdown(), "", *_causes(record)]
    for part in parts_of(record):
        text += [f"### {TITLES[part]}\n", f"{INTRO[part]}\n"]
        text += [f"{table.markdown()}\n" for table in tables_of(record, part)]
    return "\n".join(text)


def _cores(record: Record) -> str:
    count = record["machine"]["cores"]
    return f"{count} core{'s' if count > 1 else ''} of {record['machine']['cpu']}"


def _with_version(name: str, version: str) -> str:
    return f"{name} {version}" if version[:1].isdigit() else f"{name} ({version})"


def _causes(record: Record) -> list[str]:
    """What is known of why a goal is missed."""
    known = [*CAUSES.items(), *(CAUSES_ON_CPU.items() if record["options"]["device"] == "cpu" else ())]
    lines = []
    for goal in goals_of(record):
        found = [" ".join(cause.split()) for start, cause in known if goal.text.startswith(start)]
        if found and not goal.met:
            lines.append(f"- {goal.text}: where that is missed, {' '.join(found)}")
    return ["Causes that are known:\n", *lines, ""] if lines else []
