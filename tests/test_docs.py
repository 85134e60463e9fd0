"""What the documentation tells a reader to type exists, and what it links to is there."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import typer

from zeta_bench.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FOLDERS = [path for folder in ("tasks", "results", "examples") for path in sorted((ROOT / folder).rglob("README.md"))]
LINKED = [*PAGES, *FOLDERS, ROOT / "CHANGELOG.md"]
FENCE = re.compile(r"^( *)(```+|~~~+) *(\w*)[^\n]*\n(.*?)^\1\2 *$", re.MULTILINE | re.DOTALL)
SHELL = {"", "sh", "bash", "shell", "console"}
SYNOPSIS = re.compile(r"[\[\]<>…]|\.\.\.(?=[\s\]]|$)")
"""Marks of a line that shows a command's form instead of one that can be typed."""

OPERATORS = {"|", "||", "&&", ";", "&", ">", ">>", "<", "2>"}


def short(path: Path) -> str:
    """A path as in messages and test ids."""
    return str(path.relative_to(ROOT))


def lines(path: Path) -> Iterator[str]:
    """What a page tells to type: shell blocks with continuations, or in a block with prompts what follows one.

    Also what stands between backticks in running text, but for the page of decisions: some are about what is no more.
    Most pages speak of a command by its bare name, such as `zeta-bench draw`, which is not meant to be typed so.
    """
    text = path.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        block = [line.strip() for line in match[4].replace("\\\n", " ").splitlines()]
        if match[3] in SHELL:
            typed = [line.removeprefix("$ ") for line in block if line.startswith("$ ")]
            yield from typed or block
    if path.name != "decisions.md":
        named = re.findall(r"`((?:zeta-bench|make) [^`\n]+)`", FENCE.sub("", text))
        whole = path.name in ("README.md", "commands.md")
        yield from (line for line in named if whole or len(line.split()) > 2)


def words_of(line: str) -> list[list[str]]:
    """The simple commands of a shell line, as words; what stands before them, such as NAME=value, is left out."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    commands: list[list[str]] = [[]]
    for word in lexer:
        if word in OPERATORS:
            commands.append([])
        elif commands[-1] or not re.fullmatch(r"\w+=.*", word):
            commands[-1].append(word)
    return commands


def commands(path: Path, program: str) -> Iterator[tuple[str, list[str]]]:
    """Every use of a program in a page's code blocks: the line, and the words behind the program's name."""
    for line in lines(path):
        if not re.search(rf"(^|[\s/]){program}(\s|$)", line) or line.startswith("#"):
            continue
        try:
            found = words_of(line)
        except ValueError:  # an open quotation mark: the line is output, not input
            continue
        for words in found:
            while words[:1] == ["srun"] and len(words) > 1 and Path(words[0]).name != program:
                words = ["srun", *words[2:]] if Path(words[1]).name != program else words[1:]
            if words and Path(words[0]).name == program:
                yield line, words[1:]


@cache
def tree() -> Any:
    """The commands of zeta-bench as click knows them."""
    return typer.main.get_command(app)


def check(line: str, words: list[str]) -> None:
    """Fail unless `words` could follow ``zeta-bench``. Nothing is run."""
    group: Any = tree()
    before = list(takewhile(lambda word: word.lstrip("[").startswith("-"), words))
    name, rest = next(iter(words[len(before) :]), None), words[len(before) + 1 :]
    parts = [group]
    if name is not None and not SYNOPSIS.search(name):
        assert name in group.commands, f"{line}: there is no command {name}"
        parts.append(group.commands[name])
    known = {option for part in parts for option in options(part)}
    for word in words:
        option = re.match(r"\[*(--?[A-Za-z][\w-]*)", word)
        assert option is None or option[1] in known, f"{line}: there is no option {word}"
    if SYNOPSIS.search(line) or len(parts) == 1:
        return
    try:
        parts[1].make_context(name, rest).close()
    except typer.Exit:
        pass  # --help
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        pytest.fail(f"{line}: {error.format_message()}")


def options(command: Any) -> set[str]:
    """Every spelling of a command's options."""
    return {"--help", *(name for param in command.params for name in (*param.opts, *param.secondary_opts))}


def targets() -> tuple[set[str], set[str]]:
    """Targets and variables of the Makefile."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return (
        set(re.findall(r"^([a-z][a-z-]*):", text, re.MULTILINE)),
        set(re.findall(r"^(\w+) *[?:]?=", text, re.MULTILINE)),
    )


@pytest.mark.parametrize("path", [*PAGES, *FOLDERS], ids=short)
def test_commands_on_the_page_exist(path):
    for line, words in commands(path, "zeta-bench"):
        check(line, words)
    known, variables = targets()
    for line, words in commands(path, "make"):
        for word in words:
            name, equals, _ = word.partition("=")
            assert name in (variables if equals else known) or word.startswith("-"), f"{line}: make knows no {name}"


def test_commands_in_the_makefile_exist():
    shown = subprocess.run(
        ["make", "-n", "-o", ".venv/.ready", "demo", "reproduce", "reproduce-runs", "BUDGET=quick", "SEEDS=1"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.replace("\\\n", " ")  # fmt: skip
    recipes = [line.strip() for line in re.findall(r"bin/zeta-bench ([^|;&\n]+)", shown)]
    assert {recipe.split()[0] for recipe in recipes} == {"run", "report", "sweep"}
    for recipe in recipes:
        check(recipe, shlex.split(recipe))


def test_the_makefile_names_every_sweep():
    named = re.search(r"^SWEEPS := (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(named[1].split()) == sorted(path.stem for path in (ROOT / "results/sweeps").glob("*.toml"))


def test_the_makefile_is_complete():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = set(re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)[1].split())
    assert targets()[0] == phony == set(re.findall(r"^([a-z-]+):.*## \w", text, re.MULTILINE))


@pytest.mark.parametrize("path", LINKED, ids=short)
def test_relative_links_resolve(path):
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    for link in re.findall(r"!?\[[^\]]*\]\(<?([^)\s>]+)", text) + re.findall(
        r'<(?:img|a) [^>]*(?:src|href)="([^"]+)"', text
    ):
        if re.match(r"[a-z]+:", link):
            continue
        place, _, anchor = link.partition("#")
        target = (path.parent / place).resolve() if place else path
        assert target.exists(), f"{short(path)} links to {link}, which is not there"
        assert target.is_relative_to(ROOT), f"{short(path)} links to {link}, outside the project"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{short(path)} links to {link}: no such heading"


def anchors(path: Path) -> set[str]:
    """The names that a page's headings can be linked by, as code hosts make them."""
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    found: set[str] = set()
    for heading in re.findall(r"^#+ +(.*?) *#*$", text, re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        found.add(re.sub(r"[^\w\- ]", "", plain).replace(" ", "-"))
    return found


def test_ci_runs_the_readmes_test_command():
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert re.findall(r"^make .*$", script, re.MULTILINE) == ["make test"]
    assert ["test"] in [words for _, words in commands(ROOT / "README.md", "make")], (
        "the README does not tell how to test"
    )


@pytest.mark.parametrize(
    "line",
    [
        "zeta-bench rn mqar",
        "zeta-bench run mqar --atn zeta",
        "zeta-bench ls nothing",
        "zeta-bench run",
        "zeta-bench run mqar --seeds many",
        "zeta-bench run TASK [--atn A]",
    ],
)
def test_a_wrong_command_would_be_found(line):
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check(line, words_of(line)[0][1:])


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("zeta-bench ls | head", [["ls"]]),
        ("make demo && .venv/bin/zeta-bench ls  # all", [["ls"]]),
        (
            "ZETA_BENCH_OFFLINE=1 zeta-bench run mqar --attn zeta:k=8,d_k=2",
            [["run", "mqar", "--attn", "zeta:k=8,d_k=2"]],
        ),
        ("$ zeta-bench doctor\nzeta-bench 0.1.0", [["doctor"]]),
        ("pip install 'zeta-bench[hf]'", []),
    ],
)
def test_commands_are_found_in_a_page(tmp_path, line, found):
    (tmp_path / "page.md").write_text(f"Text.\n\n```sh\n{line}\n```\n", encoding="utf-8")
    assert [words for _, words in commands(tmp_path / "page.md", "zeta-bench")] == found
