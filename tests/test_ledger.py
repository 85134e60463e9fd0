"""What a report says of records that an earlier one had and that are gone."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from claim_records import SMALL
from commandline import call
from factory import make_record

from zeta_bench.records import PUBLISHED_STORE, Store, read_all
from zeta_bench.report.ledger import COLUMNS, NAME, keep_ledger

ROOT = Path(__file__).parents[1]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one run of two variants, reported."""
    monkeypatch.chdir(tmp_path)
    for variant in ("zeta", "vanilla"):
        Store(Path("runs")).write(make_record(variant, 0, 0.9, task="mqar", protocol=SMALL, command=f"make {variant}"))
    assert report().err == ""
    return tmp_path


def report(*words: str):  # type: ignore[no-untyped-def]
    said = call("report", "--records", "runs", "--to", "out", "--format", "csv", *words)
    assert said.code == 0
    return said


def delete(variant: str) -> None:
    (path,) = Path("runs/run/mqar", SMALL, variant).glob("*.json")
    path.unlink()


def test_a_report_lists_every_record(here: Path) -> None:
    with Path("out", NAME).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [(row["variant"], row["seed"], row["command"]) for row in rows] == [
        ("vanilla", "0", "make vanilla"),
        ("zeta", "0", "make zeta"),
    ]


def test_what_is_gone_is_told_once_with_the_command_that_makes_it_again(here: Path) -> None:
    delete("zeta")
    assert report("--task", "mqar").err == ""  # of some tasks only
    assert report().err.splitlines() == [
        f"gone since the last report here: run mqar {SMALL} zeta seed 0",
        "  again: make zeta --records runs",
    ]
    assert report().err == ""
    delete("vanilla")
    assert "vanilla seed 0" in report().err  # no record is left


def test_records_of_another_store_are_not_gone(here: Path) -> None:
    Store(Path("more")).write(make_record("zeta", 1, 0.5, task="mqar", protocol=SMALL))
    said = call("report", "--records", "more", "--to", "out", "--format", "csv")
    assert (said.code, said.err) == (0, "")


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "\0", ",".join(COLUMNS) + "\nruns,run\n", '"'])
def test_a_file_of_another_form_says_nothing(here: Path, text: str) -> None:
    Path("out", NAME).write_text(text, encoding="utf-8")
    assert report().err == ""
    Path("out", NAME).write_bytes(b"\xff")
    assert report().err == ""


def test_a_file_that_no_record_makes_any_more_is_told(here: Path) -> None:
    assert call("report", "--records", "runs", "--to", "out").err == ""
    Path("out/tables/old\x1b[31m.md").write_text("x", encoding="utf-8")
    said = call("report", "--records", "runs", "--to", "out")
    assert said.code == 0
    assert "\x1b" not in said.err
    assert said.err.startswith("left over, no record makes it any more: out/tables/old")


def test_the_projects_list_is_that_of_its_records(tmp_path: Path) -> None:
    records, refused = read_all({str(PUBLISHED_STORE): ROOT / PUBLISHED_STORE})
    assert not refused
    keep_ledger(tmp_path, records, [str(PUBLISHED_STORE)])
    assert (tmp_path / NAME).read_bytes() == (ROOT / "results" / NAME).read_bytes(), "run: make reproduce"
