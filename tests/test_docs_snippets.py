"""Every Python snippet of the README and of docs/ runs, in the order of its page; every TOML snippet can be read."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from test_docs import FENCE, PAGES, short

from zeta_bench.audit import AUDITS, ZETA_ONLY
from zeta_bench.schema import Protocol
from zeta_bench.sweep.file import read_sweep, requests
from zeta_bench.sweep.grid import plan_grid

ROOT = Path(__file__).parents[1]
ROW = r"^\| `?([a-z][^|`]*?)`? \|[^|]*\| (\d+) \| (\d+) \|$"
"""A sweep and its numbers of runs."""


def blocks(path: Path, language: str) -> list[str]:
    """The code blocks of a page in one language."""
    return [match[4] for match in FENCE.finditer(path.read_text(encoding="utf-8")) if match[3] == language]


WITH_PYTHON = [path for path in PAGES if blocks(path, "python")]
WITH_TOML = [path for path in PAGES if blocks(path, "toml")]


@pytest.mark.parametrize("path", WITH_PYTHON, ids=short)
def test_snippets_of_the_page_run(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = blocks(path, "python")
    if any("transformers" in block for block in code):
        pytest.importorskip("transformers", reason="needs transformers")
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", [str(ROOT / "examples"), *sys.path])
    names: dict[str, Any] = {"__name__": "page"}
    for block in code:
        line = path.read_text(encoding="utf-8").partition(block)[0].count("\n")
        exec(compile("\n" * line + block, str(path), "exec"), names)


@pytest.mark.parametrize("path", WITH_TOML, ids=short)
def test_toml_of_the_page_can_be_read(path: Path) -> None:
    for block in blocks(path, "toml"):
        assert tomllib.loads(block)


def test_the_pages_that_show_code() -> None:
    assert {"README.md", "docs/add-an-attention-variant.md", "docs/read-the-results.md", "docs/use-zeta.md"} <= {
        short(path) for path in WITH_PYTHON
    }
    assert {"docs/add-a-task.md", "docs/run-on-a-cluster.md"} <= {short(path) for path in WITH_TOML}


def test_the_protocol_on_the_page_is_one() -> None:
    (block,) = blocks(ROOT / "docs/add-a-task.md", "toml")
    protocol = Protocol(name="page", **tomllib.loads(block))
    assert protocol.budget.steps == 300


def test_the_sweep_on_the_page_is_one(tmp_path: Path) -> None:
    (block,) = blocks(ROOT / "docs/run-on-a-cluster.md", "toml")
    text = (ROOT / "examples/my_attention.py").read_text(encoding="utf-8").replace("MyAttention", "Mine")
    (tmp_path / "mine.py").write_text(text, encoding="utf-8")
    file = tmp_path / "page.toml"
    file.write_text(block, encoding="utf-8")
    asked = list(requests(file, read_sweep(file)))
    assert len(asked) == 2  # the values of attn.k


def test_what_the_page_says_of_audits_is_what_they_say() -> None:
    page = (ROOT / "docs/add-an-attention-variant.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([a-z-]+) \| (\".*?) \|", page, re.MULTILINE)
    assert [audit for audit, _ in rows] == [audit for audit in AUDITS if audit not in ZETA_ONLY]
    source = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "zeta_bench/audit").glob("*.py")))
    for _, messages in rows:
        for part in re.split(r"[…\"]", messages):
            assert part.strip(" ,") in source, part


def test_the_list_of_pages_is_whole() -> None:
    docs = ROOT / "docs"
    linked = set(re.findall(r"\]\(([\w-]+\.md)\)", (docs / "README.md").read_text(encoding="utf-8")))
    assert linked == {path.name for path in docs.glob("*.md")} - {"README.md"}


def test_the_readme_stays_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 150


def test_the_numbers_of_runs_on_the_page() -> None:
    """What a sweep's runs are under `small`, and where `make reproduce-runs BUDGET=matched` takes the file's own."""
    page = (ROOT / "docs/reproduce-the-paper.md").read_text(encoding="utf-8")
    told = {name: (int(small), int(full)) for name, small, full in re.findall(ROW, page, re.MULTILINE)}
    mqar = re.search(r"on MQAR share runs: (\d+) under `small`, (\d+) under `matched`", page)
    assert mqar is not None
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    sweeps = re.search(r"^SWEEPS := (.*)$", makefile, re.MULTILINE)[1].split()
    counted = {name: (run_ids(name, "small"), run_ids(name, None)) for name in sweeps}
    assert {name: told[name] for name in sweeps} == {name: (len(a), len(b)) for name, (a, b) in counted.items()}
    assert told["all of them, each run once"] == together(counted, sweeps)
    six = [name for name in sweeps if name.partition("-")[2] not in ("lra", "wikitext")]
    assert (int(mqar[1]), int(mqar[2])) == together(counted, six)


def run_ids(name: str, protocol: str | None) -> set[str]:
    """Ids of the runs of a sweep."""
    file = ROOT / f"results/sweeps/{name}.toml"
    asked = list(requests(file, read_sweep(file), protocol=protocol))
    return {item.job.run_id for item in plan_grid(asked, "cpu", accelerated=False).items}


def together(counted: dict[str, tuple[set[str], set[str]]], names: list[str]) -> tuple[int, int]:
    """How many different runs some sweeps have, in both columns."""
    small, full = (set().union(*(counted[name][column] for name in names)) for column in (0, 1))
    return len(small), len(full)
