"""What the terminal shows: lines, tables, and one sentence for every mistake."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from zeta_bench.errors import ZetaBenchError
from zeta_bench.registry import label
from zeta_bench.report.text import plain, si

if TYPE_CHECKING:
    from zeta_bench.records import Record
    from zeta_bench.report import Report
    from zeta_bench.report.analyses.series import AnalysisSet
    from zeta_bench.report.benches.curves import BenchSet
    from zeta_bench.report.runs.selection import Comparison

COLUMN = 12
"""Characters below which no column of a table is squeezed."""


class Terminal(Console):
    """A console whose reader may leave, as ``head`` does: then it falls silent, and the work goes on."""

    def on_broken_pipe(self) -> None:
        """Send what is still to come nowhere; without this Python complains when it closes stdout."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())


STDOUT = Terminal(highlight=False, soft_wrap=True)
STDERR = Terminal(stderr=True, highlight=False, soft_wrap=True)


def out(text: str) -> None:
    """A line on stdout, exactly as it is."""
    STDOUT.print(text, markup=False)


def err(text: str) -> None:
    """A line on stderr, exactly as it is."""
    STDERR.print(text, markup=False)


def explain(error: Exception) -> int:
    """One sentence on stderr about what ended a command, and its exit code: 2 for misuse, 1 for anything else."""
    if isinstance(error, ZetaBenchError):
        err(str(error))
        return error.exit_code
    if isinstance(error, OSError):
        err(f"the system refused: {error}; mend that and start again.")
        return 1
    if isinstance(error, MemoryError):
        told = str(error).strip().partition("\n")[0].rstrip(".")
        why = f" ({told})" if told else ""
        err(f"that takes more memory than there is{why}; ask for less, such as fewer examples.")
        return 1
    if not hasattr(error, "format_message"):  # no error of ours, nor of the command line: a defect
        text = str(error).strip().partition("\n")[0]
        err(f"this is a defect: {type(error).__name__}: {text}; please report what 'zeta-bench --debug …' shows.")
        return 1
    context = getattr(error, "ctx", None)
    if context is not None and error.format_message() == context.get_help():  # no command at all
        out(context.get_help())
        return 2
    message = " ".join(error.format_message().replace("Value error, ", "").split()).rstrip(".")
    program = context.command_path if context is not None else "zeta-bench"
    err(f"{message}{' ' if message.endswith('?') else '; '}'{program} --help' shows what there is.")
    return 2


def mute() -> None:
    """Say nothing from here on: another process of the same run speaks."""
    STDOUT.quiet = STDERR.quiet = True


STOPPED = "stopped; nothing was left half-written, and the same command starts again."


class CtrlC:
    """What a Ctrl-C does while no run is training; a SIGTERM, as schedulers send it, does the same everywhere.

    Before anything is written it ends the process at once: raised inside an import it would come out as any error, or
    be swallowed. From `begin` on it is a KeyboardInterrupt, so that what is being written is cleaned up.
    """

    def __init__(self) -> None:
        self.pressed = False
        self._begun = False
        self._previous: Any = None

    def __enter__(self) -> CtrlC:
        self.pressed = self._begun = False
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._act)
            signal.signal(signal.SIGTERM, lambda number, frame: signal.raise_signal(signal.SIGINT))
        return self

    def __exit__(self, *exc: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def begin(self) -> None:
        """Say that files may be written from here on."""
        self._begun = True

    def _act(self, number: int, frame: FrameType | None) -> None:
        self.pressed = True
        if not self._begun:
            os.write(2, f"{STOPPED}\n".encode())
            os._exit(1)
        raise KeyboardInterrupt


ctrl_c = CtrlC()


def print_table(rows: Sequence[dict[str, Any]], *, title: str, empty: str) -> None:
    """A table of rows with the same keys, without columns that say nothing; one below the other if it is too wide."""
    if not rows:
        out(empty)
        return
    cells = [{key: "" if value is None else str(value) for key, value in row.items()} for row in rows]
    names = [key for key in rows[0] if any(row[key] for row in cells)]
    least = sum(min(COLUMN, max(len(key), *(len(row[key]) for row in cells))) + 2 for key in names)
    if least > STDOUT.width:
        _print_stacked(cells, names, title)
        return
    table = Table(title=escape(title), title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for name in names:
        table.add_column(name, overflow="fold")
    for row in cells:
        table.add_row(*(escape(row[name]) for name in names))
    STDOUT.print(table, soft_wrap=False)


def _print_stacked(cells: Sequence[dict[str, str]], names: Sequence[str], title: str) -> None:
    """A table for a terminal that is too narrow for its columns."""
    out(title)
    for row in cells:
        out("\n" + row[names[0]])
        for name in names[1:]:
            if row[name]:
                STDOUT.print(f"  {name}: {row[name]}", markup=False, soft_wrap=False)


def print_known(name: str, record: Record, changed: Path | None) -> None:
    """A run that is not run again because it has a record; `changed`: the user's file, if it is another by now."""
    out(f"{name}: has a record ({record.status}); --force runs it again.")
    if changed is not None:
        err(f"{changed} has changed since that record was written; add --force to run the new code.")


def print_ended(name: str, record: Record, checkpoint: Path) -> None:
    """One line about a run that has ended: on stdout with its figure, on stderr what went wrong and what to do."""
    value = "" if record.value is None else f"{record.metric} {record.value:.4f} on test, "
    spent = f"{value}{record.steps} steps in {record.seconds:.0f} s{_speed(record)}"
    if record.status in ("ok", "stuck-at-chance"):
        out(f"{name}: {'' if record.status == 'ok' else f'{record.status} ({record.reason}), '}{spent}")
    elif record.status == "interrupted":
        err(f"{name}: {_how_to_go_on(record, checkpoint.exists())}")
    else:
        known = record.status != "failed" or record.reason.endswith(".")  # a sentence of ours, not an exception's text
        hint = "" if known else "; 'zeta-bench --debug run …' shows the traceback"
        err(plain(f"{name}: {record.status} after {record.steps} steps ({record.reason.rstrip('.')}){hint}."))


def _speed(record: Record) -> str:
    """``, 1.2M tokens/s, MFU 31.0 %``: what is known of it."""
    told = f", {si(record.tokens_per_second)} tokens/s" if record.tokens_per_second else ""
    return told if record.mfu is None else f"{told}, MFU {100 * record.mfu:.1f} %"


def _how_to_go_on(record: Record, kept: bool) -> str:
    """What to type after a Ctrl-C: the same command, with the state where there is one."""
    words = [word for word in sys.argv[1:] if word not in ("--force", "--resume")]
    command = shlex.join(["zeta-bench", *words, *(["--resume"] if kept else [])])
    if not kept:
        return f"stopped before a state was kept; start again with: {command}"
    return f"{record.reason}, the state is kept; go on with: {command}"


def print_audit(record: Record, verbose: bool = False) -> None:
    """One line a variant with its counts; below it what failed and what was skipped, or every finding."""
    from zeta_bench.audit import findings_of

    findings = findings_of(record)
    name = label(record.variant, record.settings)
    if not findings:
        out(f"{name}: {record.status}, {record.reason}")
        return
    out(f"{name}: " + ", ".join(f"{number} {word}" for word, number in _counts(record).items() if number))
    for finding in findings:
        if verbose or finding.status != "pass":
            number = "" if finding.worst is None else f" (worst {finding.worst:.2g}, bound {finding.bound:.2g})"
            out(f"  {finding.status:<4} {finding.id:<19} {finding.direction:<13} {finding.detail}{number}")


def print_audits(records: Sequence[Record]) -> None:
    """The table that ends an audit, and one line that sums it up."""
    from zeta_bench.audit import findings_of

    rows = []
    for record in records:
        failed: dict[str, list[str]] = {}
        for each in findings_of(record):
            if each.status == "fail":
                failed.setdefault(each.id, []).append(each.direction)
        named = [f"{id} ({ways[0]})" if len(ways) == 1 else id for id, ways in failed.items()]
        what = ", ".join(named) if failed or record.status == "ok" else record.reason
        rows.append({"variant": label(record.variant, record.settings), **_counts(record), "what failed": what})
    print_table(rows, title="audits", empty="nothing to audit")
    bad = [label(record.variant, record.settings) for record in records if record.status == "failed"]
    absent = [label(record.variant, record.settings) for record in records if record.status == "unsupported"]
    text = f"{len(records) - len(bad) - len(absent)} of {len(records)} passed"
    text += f"; failed: {', '.join(bad)}" if bad else ""
    out(text + (f"; not audited: {', '.join(absent)}" if absent else ""))


def _counts(record: Record) -> dict[str, int]:
    from zeta_bench.audit import findings_of

    counts = Counter(finding.status for finding in findings_of(record))
    return {"passed": counts["pass"], "failed": counts["fail"], "skipped": counts["skip"]}


def print_report(report: Report, only: Collection[tuple[str, str]] | None = None) -> None:
    """The tables of a report, what was left out, and what was written.

    Args:
        report: as it was read or written.
        only: (task, protocol id) of the comparisons, benches and analyses to print; None = all.
    """
    from zeta_bench.report import terminal_claims, terminal_tables, terminal_views

    for sentence in report.refused:
        err(f"left out: {plain(sentence)}")
    if report.nothing:
        out(report.nothing)
    for overview in terminal_claims(report):
        STDOUT.print(overview, soft_wrap=False)
    stems = []
    of: list[Comparison | BenchSet | AnalysisSet] = [*report.comparisons, *report.benches, *report.analyses]
    tables = (*report.tables, *report.bench_tables, *report.analysis_tables)
    grids = terminal_tables(report)
    for source, table, grid in zip(of, tables, grids, strict=True):
        if only is None or (source.task, source.protocol) in only:
            safe = table.name == source.name  # a name that had to be changed ends in a digest
            stems.append(f"{table.name if safe else table.name.rpartition('-')[0]}-")
            STDOUT.print(grid, soft_wrap=False)
    for grid in terminal_views(report, only):
        stems.append(grid.table.name)
        STDOUT.print(grid, soft_wrap=False)
    for path in report.written:
        if path.suffix == ".png" and path.stem.startswith(tuple(stems)):
            out(f"figure: {path}")
    rest = [path for path in report.written if path != report.page]
    if rest:
        out(f"tables and figures in {rest[0].parent.parent}")
    if report.page is not None:
        out(f"page: {report.page}")


def open_page(path: Path) -> None:
    """Show a page in the user's browser; where there is none, say where it is."""
    import webbrowser

    if not webbrowser.open(path.resolve().as_uri()):
        err(f"no browser could be started here; open {path} in one.")
