"""What a report was made from, one line a record, so that the next one can say which records are gone."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from zeta_bench.analysis.request import TASKS as ANALYSES
from zeta_bench.errors import UsageError
from zeta_bench.records import Record, write_atomically
from zeta_bench.registry import label
from zeta_bench.report.text import plain

NAME = "records.csv"
COLUMNS = ("store", "kind", "task", "protocol", "variant", "point", "seed", "status", "run_id", "command")


def keep_ledger(folder: Path, records: Sequence[tuple[str, Record]], stores: Collection[str]) -> dict[str, list[str]]:
    """Write ``records.csv`` anew and compare it with the one that was there.

    Args:
        folder: of the report.
        records: that it was made from, each with the label of its store.
        stores: labels of every store that was read.

    Returns:
        By the command that makes them again, the records that are gone from the stores of this report.

    Raises:
        UsageError: the file cannot be written.
    """
    rows = [_row(store, record) for store, record in records]
    rows.sort(key=lambda row: tuple(row.values()))
    gone = _gone(folder / NAME, rows, stores)
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    try:
        write_atomically(folder / NAME, text.getvalue())
    except OSError as error:
        raise UsageError(f"cannot write {folder / NAME}: {error.strerror}; choose another folder with --to.") from None
    return gone


def _row(store: str, record: Record) -> dict[str, str]:
    diagnosed = record.kind == "analysis" and record.task not in ANALYSES
    values = (
        *(store, record.kind, record.task, record.protocol, label(record.variant, record.settings)),
        " ".join(f"{key}={value}" for key, value in sorted(record.point.items())),
        *(str(record.seed), record.status, record.run_id, f"{record.command}{' --diagnose' if diagnosed else ''}"),
    )
    return dict(zip(COLUMNS, map(plain, values), strict=True))


def _gone(path: Path, rows: Iterable[Mapping[str, str]], stores: Collection[str]) -> dict[str, list[str]]:
    """What an earlier report of the same stores had and these rows have not; a file of another form says nothing."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            before = list(reader) if tuple(reader.fieldnames or ()) == COLUMNS else []
    except (OSError, UnicodeDecodeError, csv.Error):
        return {}
    have = {_key(row) for row in rows}
    found: dict[str, list[str]] = {}
    for row in before:
        if None not in row.values() and row["store"] in stores and _key(row) not in have:
            words = (*(row[name] for name in ("kind", "task", "protocol", "variant", "point")), f"seed {row['seed']}")
            command = f"{row['command']} --records {shlex.quote(row['store'])}"
            found.setdefault(plain(command), []).append(plain(" ".join(filter(None, words))))
    return found


def _key(row: Mapping[str, str]) -> tuple[str, ...]:
    return row["store"], row["kind"], row["run_id"]
