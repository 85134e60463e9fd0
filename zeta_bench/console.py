"""What the terminal shows: lines, tables and a progress bar, or plain lines where there is no terminal."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from zeta_bench.registry import label

if TYPE_CHECKING:
    from zeta_bench.records import Record
    from zeta_bench.report import Report

_out = Console(highlight=False, soft_wrap=True)
_err = Console(stderr=True, highlight=False, soft_wrap=True)

PLAIN_EVERY_SECONDS = 30.0
"""How often progress prints a line where there is no terminal and no evaluation."""


def out(text: str) -> None:
    """A line on stdout, exactly as it is."""
    _out.print(text, markup=False)


def err(text: str) -> None:
    """A line on stderr, exactly as it is."""
    _err.print(text, markup=False)


def print_table(rows: Sequence[dict[str, Any]], *, title: str, empty: str) -> None:
    """A table of rows with the same keys."""
    if not rows:
        out(empty)
        return
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
    for name in rows[0]:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(escape("" if value is None else str(value)) for value in row.values()))
    Console(highlight=False).print(table)


def print_audit(record: Record) -> None:
    """One line for each audit of a variant, failures with what was found."""
    from zeta_bench.audit import findings_of

    out(f"{label(record.variant, record.settings)}: {record.reason or record.status}")
    for finding in findings_of(record) if record.payload else []:
        number = "" if finding.worst is None else f" (worst {finding.worst:.2g}, bound {finding.bound:.2g})"
        out(f"  {finding.status:<4} {finding.id:<19} {finding.direction:<13} {finding.detail}{number}")


def print_report(report: Report) -> None:
    """The tables of a report, what was left out, and what was written."""
    from zeta_bench.report import terminal_tables

    for sentence in report.refused:
        err(f"left out: {sentence}")
    if report.nothing:
        out(report.nothing)
    for table in terminal_tables(report):
        Console(highlight=False).print(table)
    for path in report.written:
        if path.suffix == ".png":
            out(f"figure: {path}")
    if report.written:
        out(f"tables and figures in {report.written[0].parent.parent}")


class Progress:
    """One line for a running job: step, loss, metric, time left.

    Args:
        name: of the job.
        steps: optimiser steps in all.
    """

    def __init__(self, name: str, steps: int) -> None:
        self.name, self.steps = name, steps
        self._started = self._told = time.monotonic()
        self._first = 0
        self._bar: Any = None
        self._state = ""

    def __enter__(self) -> Progress:
        if _out.is_terminal:
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
            self._bar = Bar(
                *columns,
                TimeRemainingColumn(),
                TextColumn("{task.fields[state]}", markup=False),
                console=_out,
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(self.name, total=self.steps, state="preparing the data")
        else:
            out(f"{self.name}: {self.steps} steps")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, step: int, row: dict[str, float] | None) -> None:
        """After a step; `row` is a new row of the curve, if there is one."""
        if row is not None:
            self._state = " ".join(f"{key} {value:.4g}" for key, value in row.items() if _worth_showing(key))
        if self._bar is not None:
            self._bar.update(self._task, completed=step, state=self._state)
            return
        now = time.monotonic()
        if row is not None or now - self._told > PLAIN_EVERY_SECONDS:
            self._told = now
            out(f"  step {step}/{self.steps}, {now - self._started:.0f} s{', ' + self._state if self._state else ''}")


def _worth_showing(key: str) -> bool:
    return key == "train_loss" or (key.startswith("valid_") and "stderr" not in key)
