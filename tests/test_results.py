"""The published tables, figures and the README against the committed records: nothing in them is typed by hand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from zeta_bench.records import PUBLISHED_STORE, Store
from zeta_bench.report import write_report

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tables/ and figures/ made anew from the committed records."""
    out = tmp_path_factory.mktemp("results")
    report = write_report({str(PUBLISHED_STORE): ROOT / PUBLISHED_STORE}, out)
    assert not report.refused
    assert report.tables
    return out


def test_tables_are_those_of_the_records(rebuilt: Path) -> None:
    made = {path.name: path.read_bytes() for path in (rebuilt / "tables").iterdir()}
    committed = {path.name: path.read_bytes() for path in (ROOT / "results/tables").iterdir()}
    assert made == committed, "run: zeta-bench report --records results/records --to results"


def test_there_is_a_figure_for_each_that_the_records_make(rebuilt: Path) -> None:
    made = {path.name for path in (rebuilt / "figures").iterdir()}
    assert made == {path.name for path in (ROOT / "results/figures").iterdir()}


def test_the_table_of_the_readme_is_the_published_one() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    name = re.search(r"results/tables/(\S+\.md)", readme)
    assert name is not None
    published = (ROOT / "results/tables" / name[1]).read_text(encoding="utf-8")
    rows = [line for line in published.splitlines() if line.startswith("|")]
    assert "\n".join(rows) in readme


def test_rows_of_other_tables_in_the_readme_are_the_published_ones() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    quoted = re.findall(r"<!-- rows of (results/tables/\S+\.md);.*?-->\n(.*?)(?=\n#|\n- )", readme, re.DOTALL)
    assert quoted
    for table, text in quoted:
        rows = [line for line in text.splitlines() if line.startswith("|")]
        assert rows
        assert set(rows) <= set((ROOT / table).read_text(encoding="utf-8").splitlines()), table


def test_published_runs_are_complete_and_clean() -> None:
    records = list(Store(ROOT / PUBLISHED_STORE).records())
    assert records
    for record in records:
        assert record.finished, record.run_id
        assert record.commit, record.run_id
        assert not record.dirty, record.run_id
