"""The published tables, figures and the README against the committed records: nothing in them is typed by hand."""

from __future__ import annotations

import re
import subprocess
from contextlib import chdir
from pathlib import Path
from urllib.parse import unquote

import pytest

from zeta_bench.claims import read_claims
from zeta_bench.records import PUBLISHED_STORE, Store
from zeta_bench.report import write_report
from zeta_bench.report.draw.digest import read_digest
from zeta_bench.report.fill import fill_pages
from zeta_bench.report.fill.marks import read_marks

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("results/*.md"))]
PAGES += sorted(ROOT.glob("tasks/*/README.md"))


REBUILD = "run: zeta-bench report --records results/records --to results"
COMMITTED = {".png", ".svg"}
"""Forms of a figure that are kept; PDFs are written by the same command and stay out of the repository."""


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tables/ and figures/ made anew from the committed records."""
    out = tmp_path_factory.mktemp("results")
    report = write_report({str(PUBLISHED_STORE): ROOT / PUBLISHED_STORE}, out)
    assert not report.refused
    assert report.tables
    return out


def figures_in(folder: Path) -> dict[str, str | None]:
    """The digest of each figure of a kept form, by file name."""
    return {path.name: read_digest(path) for path in folder.iterdir() if path.suffix in COMMITTED}


def test_tables_are_those_of_the_records(rebuilt: Path) -> None:
    made = {path.name: path.read_bytes() for path in (rebuilt / "tables").iterdir()}
    committed = {path.name: path.read_bytes() for path in (ROOT / "results/tables").iterdir()}
    assert sorted(made.keys() - committed.keys()) == [], f"tables are missing; {REBUILD}"
    assert sorted(committed.keys() - made.keys()) == [], "no record makes these tables any more; delete them"
    assert sorted(name for name in made if made[name] != committed[name]) == [], f"tables are stale; {REBUILD}"


def test_figures_are_those_of_the_records(rebuilt: Path) -> None:
    made, committed = figures_in(rebuilt / "figures"), figures_in(ROOT / "results/figures")
    assert None not in made.values()
    assert sorted(made.keys() - committed.keys()) == [], f"figures are missing; {REBUILD}"
    assert sorted(committed.keys() - made.keys()) == [], "no record makes these figures any more; delete them"
    assert sorted(name for name in made if made[name] != committed[name]) == [], f"figures are stale; {REBUILD}"


def test_a_changed_record_makes_its_figures_stale_and_no_others(rebuilt: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "records")
    changed = ""
    for record in Store(ROOT / PUBLISHED_STORE).records("run"):
        new = not changed and record.variant == "zeta" and not record.settings
        changed = record.protocol if new else changed
        metrics = {**record.metrics, "test": {**record.metrics["test"], record.metric: 0.5}} if new else record.metrics
        store.write(record.model_copy(update={"metrics": metrics}))
    write_report({str(PUBLISHED_STORE): store.root}, tmp_path / "out", formats=("csv",))
    made, before = figures_in(tmp_path / "out/figures"), figures_in(rebuilt / "figures")
    stale = {name for name in made if made[name] != before[name]}
    assert any(name.endswith("-score.png") for name in stale)
    assert all(changed in name for name in stale)
    assert not any("-curve." in name for name in stale)  # the validation figures are as they were


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_figure_and_table_that_a_page_shows_is_there(page: Path) -> None:
    written = re.findall(r"\]\(([^)\s]+)\)|(?:src|href|srcset)=\"([^\"\s]+)\"", page.read_text(encoding="utf-8"))
    linked = {unquote(link.partition("#")[0]) for pair in written for link in pair if link}
    results = {link for link in linked if re.search(r"(figures|tables)/", link) and "://" not in link}
    absent = sorted(link for link in results if not (page.parent / link).is_file())
    assert absent == [], f"{page.name} shows what no record makes"


def test_numbers_in_pages_are_those_of_the_records() -> None:
    marked = [page for page in PAGES if read_marks(page.read_text(encoding="utf-8"), page.name)]
    assert {ROOT / "README.md", ROOT / "results/README.md", ROOT / "docs/findings.md"} <= set(marked)
    with chdir(ROOT):
        filling = fill_pages({str(PUBLISHED_STORE): PUBLISHED_STORE}, marked, write=False)
    stale = [f"{page.path}:{each.mark.line}" for page in filling.pages for each in page.filled if each.changed]
    assert stale == [], "numbers are stale; run: make reproduce"
    assert not filling.refused


def test_make_reproduce_fills_every_page_that_has_numbers() -> None:
    marked = {page for page in PAGES if read_marks(page.read_text(encoding="utf-8"), page.name)}
    shown = subprocess.run(
        ["make", "-n", "-o", ".venv/.ready", "reproduce"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert {ROOT / name for name in re.findall(r"--fill (\S+)", shown)} >= marked


def test_the_account_of_findings_speaks_of_every_claim() -> None:
    text = (ROOT / "docs/findings.md").read_text(encoding="utf-8")
    told = set(re.findall(r"<!--n claim/(C\d+)-->", text))
    assert told == {claim.id for claim in read_claims().claim}


def test_published_runs_are_complete_and_clean() -> None:
    records = list(Store(ROOT / PUBLISHED_STORE).records())
    assert records
    for record in records:
        assert record.finished, record.run_id
        assert record.commit, record.run_id
        assert not record.dirty, record.run_id
