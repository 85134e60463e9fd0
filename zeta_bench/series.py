"""The runs of one command, one after the other, told on the terminal as they go."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from zeta_bench.console import ctrl_c, out, print_ended, print_known, print_report, print_table
from zeta_bench.estimate import Estimates, estimates
from zeta_bench.plan import Run
from zeta_bench.progress import Progress
from zeta_bench.records import Record
from zeta_bench.report import write_report
from zeta_bench.run import Session, execute

GOOD = ("ok", "stuck-at-chance")


def run_series(runs: Sequence[Run], session: Session, *, force: bool) -> list[Record]:
    """Run what has no record yet; an interrupted run is the last. The records of all that is done."""
    done: list[Record] = []
    for number, run in enumerate(runs, 1):
        if ctrl_c.pressed:
            raise KeyboardInterrupt
        name = f"[{number}/{len(runs)}] {run.name}"
        old = None if force else known(run, session)
        if old is not None:
            print_known(name, old, run.choice.source if session.changed(run, old) else None)
            done.append(old)
            continue
        if not session.resume and session.stopped(run):
            out(f"{name}: starts anew; --resume goes on from the state that a stopped run left.")
        if told := session.moved(run):
            out(f"{name}: {told}")
        with Progress(name, run.protocol.budget.steps) as progress:
            record = execute(run, session, progress.update)
        done.append(record)
        print_ended(name, record, session.checkpoint(run))
        if record.status == "interrupted":
            break
    return done


def print_plan(runs: Sequence[Run], session: Session) -> None:
    """What the runs would cost; nothing is run and nothing is written."""
    found = estimates(runs, session)
    print_estimates(found)
    out(f"Nothing was run. {found.sentence}")


def print_estimates(found: Estimates) -> None:
    """The tables of an estimate, and how to read them."""
    for title, rows in found.tables.items():
        print_table(rows, title=title, empty="nothing to run")
    rows = [row for table in found.tables.values() for row in table]
    if rows:
        out("memory: at least, for weights, gradients, Adam and what a forward pass keeps; or the peak of a record.")
    if any(str(row["time a run"]).startswith("~") for row in rows):
        out("~: scaled by FLOPs from the step of a smaller model.")


def print_results(done: Sequence[Record], session: Session, folder: Path) -> None:
    """The tables and figures of the protocols that ran, and the next command."""
    if not session.is_main or not any(record.value is not None for record in done):
        return
    root = session.store.root
    report = write_report({str(root): root}, folder, tasks={record.task for record in done})
    print_report(report, only={(record.task, record.protocol) for record in done})
    if not any(":" in record.variant for record in done):  # somebody's own file took part
        out(f"Compare further: zeta-bench run {done[0].task} --attn ./mine.py:Mine (see examples/my_attention.py).")


def went_wrong(done: Collection[Record]) -> bool:
    """Whether a run did not come to its end."""
    return any(record.status not in GOOD for record in done)


def known(run: Run, session: Session) -> Record | None:
    """The finished record of a run, unless a stopped repeat of it is to be resumed."""
    old = session.store.find(run.run_id(session.device_class))
    if old is None or not old.finished or (session.resume and session.unfinished(run, old)):
        return None
    return old
