"""docs/environment.md names each environment variable that the code reads or sets, and none that it does not."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CODE = [path for folder in ("zeta_bench", "tasks", "baselines") for path in sorted((ROOT / folder).rglob("*.py"))]
NAME = re.compile(r"[A-Z][A-Z0-9_]{3,}")
ELSEWHERE = "Read by what it stands on"
"""The section about variables that the code only speaks of."""


def used(source: str) -> set[str]:
    """Names of environment variables in a module: what looks like one in a statement or function about os.environ.

    So it also finds a name that stands in a tuple first and is looked up in a loop below.
    """
    tree = ast.parse(source)
    places = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    places += [node for node in tree.body if not isinstance(node, ast.FunctionDef | ast.ClassDef)]
    return {name for place in places if about_environment(place) for name in names(place)}


def about_environment(place: ast.AST) -> bool:
    """Whether os.environ, os.getenv or an option's envvar is in it."""
    for node in ast.walk(place):
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv"):
            return True
        if isinstance(node, ast.keyword) and node.arg == "envvar":
            return True
    return False


def names(place: ast.AST) -> Iterator[str]:
    """Texts that look like a variable's name, but for the values that calls give as a default."""
    values = {id(arg) for node in ast.walk(place) if isinstance(node, ast.Call) for arg in node.args[1:]}
    for node in ast.walk(place):
        text = node.value if isinstance(node, ast.Constant) and id(node) not in values else None
        if isinstance(text, str) and NAME.fullmatch(text):
            yield text


def page() -> tuple[set[str], set[str]]:
    """Variables in the page's tables: those that the code uses, and those that it only speaks of."""
    text = (ROOT / "docs/environment.md").read_text(encoding="utf-8")
    own, _, others = text.partition(ELSEWHERE)
    assert others
    rows = re.compile(r"^\| `(\w+)` \|", re.MULTILINE)
    return set(rows.findall(own)), set(rows.findall(others))


def test_the_page_names_what_the_code_uses() -> None:
    found = set().union(*(used(path.read_text(encoding="utf-8")) for path in CODE))
    assert found, "nothing was found, so nothing was compared"
    own, _ = page()
    assert sorted(found - own) == [], "docs/environment.md lacks these"
    assert sorted(own - found) == [], "docs/environment.md has these, which no code reads"


def test_what_others_read_is_spoken_of_in_the_code() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in CODE)
    _, others = page()
    assert others
    assert sorted(name for name in others if name not in text) == []


def test_the_makefiles_variables_are_named() -> None:
    (line,) = re.findall(r"^`make` takes .*?(?=\n\n|\Z)", (ROOT / "docs/environment.md").read_text(), re.M | re.S)
    asked = set(re.findall(r"^(\w+) \?=", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert asked <= set(re.findall(r"`(\w+)`", line))


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import os\nX = os.environ.get('ZETA_NEW', 'DEFAULT')", {"ZETA_NEW"}),
        ("def f():\n    for name in ('RANK', 'OTHER_RANK'):\n        os.environ[name]", {"RANK", "OTHER_RANK"}),
        ("def f():\n    return {'MASTER', 'SLURM'} & os.environ.keys()", {"MASTER", "SLURM"}),
        ("def f(x=Option(envvar='ZETA_X')): ...", {"ZETA_X"}),
        ("X = 'NO_VARIABLE'\ndef f():\n    os.getenv('SOME_NAME')", {"SOME_NAME"}),
    ],
)
def test_how_a_variable_is_found(source: str, found: set[str]) -> None:
    assert used(source) == found
