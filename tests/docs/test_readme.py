"""What the documents show is true: their Python runs, and the targets, flags and files they name exist.

In a Markdown file, an HTML comment before a ```python block steers it:

- ``<!-- python-setup`` ... ``-->`` holds code that runs first and that the reader does not see;
- ``<!-- not-run: reason -->`` leaves the block out.
"""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
ALL_MARKDOWN = sorted({*ROOT.glob("*.md"), *DOCS})
SHELLS = {"sh", "bash", "shell", "console"}

FENCE = re.compile(r"^ *```+(?P<lang>[\w-]*).*\n(?P<text>(?:.*\n)*?) *```+ *$", re.MULTILINE)
COMMENT = re.compile(r"<!-- *(?P<kind>python-setup|not-run):?(?P<text>.*?)-->", re.DOTALL)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def line_of(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


# Python blocks


def python_pieces(text: str) -> list[tuple[int, str]]:
    """Line and code of everything that is to run, set-up comments included, in the order of the file."""
    fences = list(FENCE.finditer(text))
    pieces = []
    for fence in (f for f in fences if f["lang"] in ("python", "py")):
        before = [
            c for c in COMMENT.finditer(text, 0, fence.start()) if not text[c.end() : fence.start()].strip()
        ]
        if before and before[0]["kind"] == "not-run":
            line = line_of(text, before[0].start())
            assert before[0]["text"].strip(), f"line {line}: not-run takes a reason"
        else:
            pieces.append((fence.start("text"), fence["text"]))
    inside = [(fence.start(), fence.end()) for fence in fences]
    for comment in COMMENT.finditer(text):
        shown = any(start < comment.start() < end for start, end in inside)
        if comment["kind"] == "python-setup" and not shown:
            pieces.append((comment.start("text"), comment["text"]))
    return [(line_of(text, position), code) for position, code in sorted(pieces)]


def run_python(text: str, name: str) -> None:
    """Run a document's Python from top to bottom as one program."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for line, code in python_pieces(text):
        try:
            # The empty lines make a traceback's line numbers those of the document.
            exec(compile("\n" * (line - 1) + code, name, "exec"), namespace)
        except Exception as error:
            raise AssertionError(f"{name}:{line}: {type(error).__name__}: {error}") from error


@pytest.mark.filterwarnings("ignore")  # the README imports every framework, and some warn when they are
@pytest.mark.parametrize("path", DOCS, ids=name_of)
def test_python_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng():
        run_python(path.read_text(encoding="utf-8"), name_of(path))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Words\n\n```python\na = 1\n```\n\n```python\na.b\n```\n", "X.md:8: AttributeError"),
        ("```python\n1 +\n```\n", "X.md:2: SyntaxError"),
        ("<!-- python-setup\nb = 1\n-->\n```python\nassert b == 2\n```\n", "X.md:5: AssertionError"),
        ("<!-- python-setup\nb.c\n-->\n", "X.md:1: NameError"),
        ("<!-- not-run: -->\n```python\na\n```\n", "line 1: not-run takes a reason"),
        ("<!-- not-run: long -->\n\nWords between.\n\n```python\na\n```\n", "X.md:6: NameError"),
    ],
)
def test_python_that_fails_is_named(text: str, expected: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(expected)):
        run_python(text, "X.md")


def test_python_runs_in_order_in_one_namespace() -> None:
    run_python(
        "<!-- python-setup\nseen = [0]\n-->\n```python\nseen.append(1)\n```\n"
        "<!-- not-run: needs a GPU -->\n```python\nseen.append(2)\n```\n"
        "```sh\nmake nothing\n```\n```python\nassert seen == [0, 1]\n```\n",
        "X.md",
    )


# Shell commands


@dataclass(frozen=True)
class Command:
    line: int
    words: tuple[str, ...]


def split_commands(text: str, line: int) -> Iterator[Command]:
    for offset, row in enumerate(text.replace("\\\n", " ").splitlines()):
        lexer = shlex.shlex(row.strip().removeprefix("$ "), posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set(";|&"):
                if words:
                    yield Command(line + offset, tuple(words))
                words = []
            elif words or not re.match(r"\w+=", word):  # VAR=value before a command
                words.append(word)


def shell_commands(text: str) -> list[Command]:
    """Every command of the ```sh blocks."""
    blocks = [fence for fence in FENCE.finditer(text) if fence["lang"] in SHELLS]
    return [c for block in blocks for c in split_commands(block["text"], line_of(text, block.start("text")))]


def spoken_commands(text: str) -> list[Command]:
    """Every `make ...` and `batchmix ...` inside a sentence."""
    prose = FENCE.sub(lambda fence: "\n" * fence[0].count("\n"), text)
    spans = re.finditer(r"`((?:make|batchmix) [^`\n]+)`", prose)
    return [command for span in spans for command in split_commands(span[1], line_of(prose, span.start()))]


def makefile_targets(makefile: str) -> set[str]:
    rules = re.findall(r"^([A-Za-z0-9_.\- ]+):(?!=)", makefile, re.MULTILINE)
    return {target for rule in rules for target in rule.split() if not target.startswith(".")}


def unknown_targets(commands: list[Command], targets: set[str]) -> list[str]:
    return [
        f"{command.line}: make {word}"
        for command in commands
        if command.words[0] == "make"
        for word in command.words[1:]
        if not word.startswith("-") and "=" not in word and word not in targets
    ]


def batchmix_words(command: Command) -> list[str] | None:
    """The arguments that reach batchmix, or None where the command is another one."""
    first, *rest = command.words
    if Path(first).name == "batchmix":
        return rest
    if Path(first).name.startswith("python") and rest[:2] == ["-m", "batchmix"]:
        return rest[2:]
    given = [word.removeprefix("ARGS=") for word in rest if word.startswith("ARGS=")]
    if first == "make" and "train" in rest and given:
        return ["train", *shlex.split(given[0])]
    return None


def unknown_flags(command: Command, parser: argparse.ArgumentParser) -> list[str]:
    """Subcommands and flags of a command that the parser does not know."""
    unknown: list[str] = []
    for raw in batchmix_words(command) or []:
        word = raw.strip("[]").partition("=")[0]  # [--flag] is how a sentence writes an option
        if word.startswith("--"):
            if word not in parser._option_string_actions:
                unknown.append(f"{command.line}: {parser.prog} has no {word}")
        elif subparsers := [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]:
            if word not in subparsers[0].choices:
                return [*unknown, f"{command.line}: {parser.prog} has no command {word}"]
            parser = subparsers[0].choices[word]
    return unknown


@pytest.mark.parametrize("path", ALL_MARKDOWN, ids=name_of)
def test_make_targets_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    targets = makefile_targets((ROOT / "Makefile").read_text(encoding="utf-8"))
    assert unknown_targets(shell_commands(text) + spoken_commands(text), targets) == []


@pytest.mark.parametrize("path", ALL_MARKDOWN, ids=name_of)
def test_batchmix_commands_exist(path: Path) -> None:
    from batchmix.cli import build_parser

    text = path.read_text(encoding="utf-8")
    commands = shell_commands(text) + spoken_commands(text)
    assert [unknown for command in commands for unknown in unknown_flags(command, build_parser())] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("```sh\nmake test\nmake nonsense\n```\n", ["3: make nonsense"]),
        ("```sh\n$ cd a && FAST=1 make -j wrong  # fast\n```\n", ["2: make wrong"]),
        ('```bash\nmake test ARGS="-k wrong"\n```\n', []),
        ("Say `make wrong`.\n\n```python\n# make other\n```\n", ["1: make wrong"]),
        ("Rules that make sense.\n", []),
    ],
)
def test_unknown_targets_are_caught(text: str, expected: list[str]) -> None:
    targets = makefile_targets("VENV := .venv\n.PHONY: test\ntest lint: .venv ## test\n\tmake wrong: no\n")
    assert targets == {"test", "lint"}
    assert unknown_targets(shell_commands(text) + spoken_commands(text), targets) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("```sh\nbatchmix train --epochs 3 --alpha=0.2\n```\n", []),
        ("```sh\nbatchmix train \\\n  --epoch 3\n```\n", ["2: batchmix train has no --epoch"]),
        ("```sh\n.venv/bin/batchmix trian\n```\n", ["2: batchmix has no command trian"]),
        ("```sh\npython -m batchmix --fast\n```\n", ["2: batchmix has no --fast"]),
        ("```sh\nls; batchmix data get --slow\n```\n", ["2: batchmix data get has no --slow"]),
        ('```sh\nmake train ARGS="--epochs 3 --beta 1"\n```\n', ["2: batchmix train has no --beta"]),
        ("Run `batchmix train [--epochs 3]`, then `batchmix bench`.\n", ["1: batchmix has no command bench"]),
        ("The package `batchmix` and `batchmix.Mixup`.\n", []),
    ],
)
def test_unknown_flags_are_caught(text: str, expected: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="batchmix")
    commands = parser.add_subparsers()
    train = commands.add_parser("train")
    train.add_argument("--epochs")
    train.add_argument("--alpha")
    commands.add_parser("data").add_subparsers().add_parser("get")
    found = shell_commands(text) + spoken_commands(text)
    assert [unknown for command in found for unknown in unknown_flags(command, parser)] == expected


# Links

LINK = re.compile(
    r"\]\(\s*<?([^)\s>]+)>?[^)]*\)|^\[[^\]]+\]: +(\S+)|<(?:img|a)\s[^>]*?(?:src|href)=\"([^\"]+)\"", re.M
)


def broken_links(text: str, folder: Path) -> list[str]:
    """Relative links and image paths that lead to no file; line numbers first."""
    prose = FENCE.sub(lambda fence: "\n" * fence[0].count("\n"), text)
    prose = re.sub(r"`[^`\n]*`", "", prose)
    broken = []
    for match in LINK.finditer(prose):
        target = next(group for group in match.groups() if group)
        path = target.partition("#")[0]
        if path and not re.match(r"[a-z][a-z0-9+.-]*:", path) and not (folder / path).exists():
            broken.append(f"{line_of(prose, match.start())}: {target}")
    return broken


@pytest.mark.parametrize("path", ALL_MARKDOWN, ids=name_of)
def test_links_lead_to_files(path: Path) -> None:
    assert broken_links(path.read_text(encoding="utf-8"), path.parent) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("See [a](there.md), [b](there.md#part), [c](#here), [d](https://example.org/x).\n", []),
        ("One\n[a](gone.md)\n", ["2: gone.md"]),
        ("![plot](pictures/gone.png)\n", ["1: pictures/gone.png"]),
        ('![plot](gone.png "A title") and [x](gone.md#part)\n', ["1: gone.png", "1: gone.md#part"]),
        ('<p><img width="5" src="gone.svg"></p>\n', ["1: gone.svg"]),
        ("[a][b]\n\n[b]: gone.md\n", ["3: gone.md"]),
        ("`[a](gone.md)`\n\n```\n[a](gone.md)\n```\n", []),
        ("[![badge](there.md)](gone.md)\n", ["1: gone.md"]),
    ],
)
def test_broken_links_are_caught(text: str, expected: list[str], tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("")
    assert broken_links(text, tmp_path) == expected
