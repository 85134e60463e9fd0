"""The command line: reading what was typed, printing what was found, and nothing else.

Heavy imports stand inside the commands, so that ``--help`` and ``ls`` answer at once.
"""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zeta_bench import __version__
from zeta_bench.console import Progress, err, out, print_table
from zeta_bench.errors import DataMissing, UsageError, ZetaBenchError
from zeta_bench.records import PUBLISHED_STORE, USER_STORE

if TYPE_CHECKING:
    from zeta_bench.records import Record
    from zeta_bench.run import Run, Session

app = typer.Typer(
    help="Benchmark and reproduction suite for efficient attention, built around ZETA (arXiv 2501.14577).",
    epilog="Begin with: zeta-bench run mqar --attn zeta-token --attn vanilla",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

DEBUG = False
REPORT = USER_STORE / "report"


class What(StrEnum):
    """What ``ls`` can list."""

    variants = "variants"
    tasks = "tasks"
    protocols = "protocols"
    records = "records"


Attn = Annotated[
    list[str] | None,
    typer.Option(
        "--attn", "-a", help="A variant: zeta · zeta:k=16,d_k=2 · ./mine.py:Mine. Repeat it to compare.", metavar="A"
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="attn.K=V sets it for every variant; optim.lr=1e-3 changes the protocol (its id says so).",
        metavar="K=V",
    ),
]
RecordsDir = Annotated[Path, typer.Option("--records", help="Folder of the records.", metavar="DIR")]


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Options that stand before the command."""
    global DEBUG
    DEBUG = debug
    if version:
        out(__version__)
        raise typer.Exit


@app.command("ls")
def list_things(
    what: Annotated[
        What | None, typer.Argument(help="variants · tasks · protocols · records; all but records if left out.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    records: RecordsDir = USER_STORE,
) -> None:
    """List variants, tasks, protocols or records."""
    from zeta_bench import listing

    chosen = [what] if what else [What.variants, What.tasks, What.protocols]
    rows = {str(kind): listing.rows(str(kind), records) for kind in chosen}
    if json:
        import json as encoder

        out(encoder.dumps(rows if what is None else rows[str(what)], indent=1, ensure_ascii=False))
        return
    for kind, table in rows.items():
        print_table(table, title=kind, empty=f"no {kind} in {records}")
    for problem in listing.problems(records if what is What.records else None):
        err(problem)


@app.command()
def run(
    task: Annotated[str, typer.Argument(help="mqar · see 'zeta-bench ls tasks'.")],
    attn: Attn = None,
    protocol: Annotated[
        str | None,
        typer.Option("--protocol", "-p", help="Name or ./file.toml; without it quick on a CPU, small on a GPU."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="One run with this seed.", min=0)] = None,
    seeds: Annotated[int | None, typer.Option(help="So many runs, seeds 0, 1, ….", min=1)] = None,
    sets: Sets = None,
    records: RecordsDir = USER_STORE,
    devices: Annotated[int, typer.Option(help="Devices of this machine.", min=1)] = 1,
    nodes: Annotated[int, typer.Option(help="Machines.", min=1)] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoints of interrupted runs.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan: parameters, FLOPs, data, estimated time.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Run again what has a record.")] = False,
    diagnose: Annotated[
        bool, typer.Option("--diagnose", help="Also record what the trained layers do: recall, γ, codes.")
    ] = False,
    keep: Annotated[bool, typer.Option("--keep-checkpoints", help="Keep the state of finished runs.")] = False,
) -> None:
    """Train variants on a task under one protocol, and compare them."""
    if seed is not None and seeds is not None:
        raise UsageError(
            "--seed and --seeds exclude each other: --seed 3 is one run, --seeds 3 are the seeds 0, 1 and 2."
        )
    wanted = list(range(seeds)) if seeds else [seed or 0]
    runs, session, missing = _plan(task, attn or [], protocol, wanted, sets or [], records)
    session.devices, session.nodes, session.resume = devices, nodes, resume
    session.diagnose, session.keep, session.debug = diagnose, keep, DEBUG
    if dry_run:
        from zeta_bench.estimate import estimates

        print_table(estimates(runs, session), title="plan (nothing was run)", empty="nothing to run")
        return
    session.store.check_writable()
    done = _execute(runs, session, force)
    _conclude(done, session, records, missing)


@app.command()
def audit(
    variants: Annotated[
        list[str] | None, typer.Argument(help="Variants or ./mine.py:Mine; all registered ones if left out.")
    ] = None,
    records: Annotated[
        Path | None, typer.Option("--records", help="Also write records of kind audit here.", metavar="DIR")
    ] = None,
) -> None:
    """Check that variants are what they claim: causal, padding-proof, deterministic, equal to their definition."""
    from zeta_bench.audit import run_audits
    from zeta_bench.console import print_audit
    from zeta_bench.records import Store
    from zeta_bench.registry import catalogue, find_variant

    choices = [find_variant(name) for name in variants or catalogue().variants]
    store = None if records is None else Store(records)
    if store is not None:
        store.check_writable()
    done = run_audits(choices, store, progress=print_audit)
    failed = [record.variant for record in done if record.status == "failed"]
    out(f"{len(done) - len(failed)} of {len(done)} passed" + (f"; failed: {', '.join(failed)}" if failed else ""))
    if failed:
        raise typer.Exit(1)


@app.command()
def report(
    records: Annotated[
        list[Path] | None,
        typer.Option("--records", help="Folders of records; runs and results/records if left out.", metavar="DIR"),
    ] = None,
    task: Annotated[list[str] | None, typer.Option(help="Only these tasks.")] = None,
    format: Annotated[list[str] | None, typer.Option("--format", help="md · tex · csv; all three if left out.")] = None,
    to: Annotated[Path, typer.Option("--to", help="Where tables/ and figures/ are written.", metavar="DIR")] = Path(
        "runs/report"
    ),
) -> None:
    """Tables and figures from records: on the terminal, and as Markdown, LaTeX, CSV, PNG and SVG."""
    from zeta_bench.console import print_report
    from zeta_bench.report import write_report

    formats = tuple(format or ("md", "tex", "csv"))
    for folder in records or []:
        if not folder.is_dir():
            raise UsageError(f"there is no folder {folder}; --records takes a folder that 'zeta-bench run' wrote to.")
    stores = {str(folder): folder for folder in records or (USER_STORE, PUBLISHED_STORE)}
    print_report(write_report(stores, to, tasks=task, formats=formats))


@app.command()
def doctor() -> None:
    """What works on this machine, ready to paste into an issue."""
    from zeta_bench.doctor import findings

    for name, finding in findings():
        out(f"{name:<18} {finding}")


def _plan(
    name: str, attn: list[str], protocol_name: str | None, seeds: list[int], sets: list[str], records: Path
) -> tuple[list[Run], Session, list[str]]:
    """Everything that can be found wrong before training, found now."""
    from zeta_bench.registry import find_variant, parse_value, tasks_of

    names = tasks_of(name)
    if not attn:
        raise UsageError("name at least one variant: --attn zeta-token ('zeta-bench ls variants' lists them).")
    choices = [find_variant(text) for text in attn]
    settings: dict[str, Any] = {}
    for text in sets:
        key, equals, value = text.partition("=")
        if not equals or not value:
            raise UsageError(f"cannot read --set {text}: it is written key=value, as in --set attn.k=16.")
        settings[key] = parse_value(value)

    import torch

    from zeta_bench.protocol import find_protocol
    from zeta_bench.records import Store
    from zeta_bench.run import Session, plan

    accelerated = torch.cuda.is_available()
    session = Session(Store(records), USER_STORE / "checkpoints", accelerated)
    if protocol_name is None:
        protocol_name = "small" if accelerated else "quick"
        out(f"protocol {protocol_name} ({session.device_class}); --protocol chooses another.")
    runs: list[Run] = []
    missing: list[str] = []
    for task in names:
        planned = plan(task, find_protocol(task, protocol_name), choices, seeds, settings)
        try:
            planned[0].task.check()
        except DataMissing as error:
            missing.append(f"{task}: not run: data. {error}")
            continue
        runs += planned
    return runs, session, missing


def _execute(runs: list[Run], session: Session, force: bool) -> list[Record]:
    """Run what has no record yet, one after the other; an interrupted run ends the series."""
    from zeta_bench.provenance import code_digest
    from zeta_bench.run import execute

    done: list[Record] = []
    for number, one in enumerate(runs, 1):
        name = f"[{number}/{len(runs)}] {one.task_name} {one.choice.label} seed {one.seed}"
        name += "".join(f" {key}={value}" for key, value in one.point.values.items())
        old = None if force else session.store.find(one.run_id(session.device_class))
        if old is not None and old.finished:
            out(f"{name}: has a record ({old.status}); --force runs it again.")
            if one.choice.source and old.code_digest != code_digest(one.choice.variant.load()):
                err(f"{one.choice.source} has changed since that record was written; add --force to run the new code.")
            done.append(old)
            continue
        with Progress(name, one.protocol.budget.steps) as progress:
            record = execute(one, session, progress.update)
        done.append(record)
        out(f"{name}: {_sentence(record)}")
        if record.status == "interrupted":
            err(f"The state is kept in {session.checkpoint(one)}; go on with: {one.command} --resume")
            break
    return done


def _sentence(record: Record) -> str:
    """One line about a run that has ended."""
    value = "" if record.value is None else f"{record.metric} {record.value:.4f} on test, "
    state = "" if record.status == "ok" else f"{record.status} ({record.reason}), "
    return f"{state}{value}{record.steps} steps in {record.seconds:.0f} s"


def _conclude(done: list[Record], session: Session, records: Path, missing: list[str]) -> None:
    """The table, the figures, the next command, and the exit code."""
    from zeta_bench.console import print_report
    from zeta_bench.report import write_report

    for sentence in missing:
        err(sentence)
    if any(record.value is not None for record in done):
        print_report(write_report({str(records): records}, REPORT, tasks={record.task for record in done}))
        out(f"Compare further: zeta-bench run {done[0].task} --attn ./mine.py:Mine (see examples/my_attention.py).")
    if missing and not done:
        raise typer.Exit(1)
    if any(record.status not in ("ok", "stuck-at-chance") for record in done):
        raise typer.Exit(1)


def main() -> None:
    """Entry point: every mistake is one sentence on stderr; exit code 2 for misuse, 1 for what failed."""
    try:
        code = typer.main.get_command(app)(standalone_mode=False)
    except ZetaBenchError as error:
        if DEBUG:
            raise
        err(str(error))
        code = error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        err("stopped; nothing was left half-written.")
        code = 1
    except BrokenPipeError:  # the reader, such as head, has had enough
        sys.stderr.close()
        code = 0
    except Exception as error:
        if DEBUG or not hasattr(error, "format_message"):
            raise
        err(f"{error.format_message()} 'zeta-bench --help' shows what there is.")
        code = 2
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
