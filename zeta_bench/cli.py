"""The command line: reading what was typed, printing what was found, and nothing else.

Heavy imports stand inside the commands, so that ``--help`` and ``ls`` answer at once.
"""

from __future__ import annotations

import io
import os
import sys
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

import typer

from zeta_bench import __version__
from zeta_bench.cli_analyse import analyse
from zeta_bench.cli_bench import bench
from zeta_bench.cli_compare import compare
from zeta_bench.cli_data import data
from zeta_bench.cli_draw import draw
from zeta_bench.cli_generate import generate
from zeta_bench.cli_ls import list_things
from zeta_bench.cli_plan import make_plan, make_quick_data, tell_plan
from zeta_bench.cli_report import REPORT, report
from zeta_bench.cli_sweep import sweep
from zeta_bench.cli_throughput import throughput
from zeta_bench.console import (
    STOPPED,
    ctrl_c,
    err,
    explain,
    mute,
    out,
    print_audit,
    print_audits,
)
from zeta_bench.errors import UsageError
from zeta_bench.listing import completion
from zeta_bench.records import USER_STORE

app = typer.Typer(
    help="Benchmark and reproduction suite for efficient attention, built around ZETA (arXiv 2501.14577).",
    epilog="Begin with: zeta-bench run mqar --attn zeta-token --attn vanilla",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

DEBUG = False
FOLDERS = ("--records", "--to", "--from")


Attn = Annotated[
    list[str] | None,
    typer.Option(
        "--attn",
        "-a",
        help="A variant: zeta · zeta:k=16,d_k=2 · ./mine.py:Mine. Repeat it to compare.",
        metavar="A",
        autocompletion=completion("variants"),
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
RecordsDir = Annotated[
    Path, typer.Option("--records", help="Folder of the records; states are in runs/checkpoints.", metavar="DIR")
]


def _print_version(wanted: bool) -> None:
    if wanted:
        out(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", callback=_print_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Options that stand before the command."""
    global DEBUG
    DEBUG = debug


app.command("ls")(list_things)


@app.command()
def run(
    task: Annotated[str, typer.Argument(help="mqar · see 'zeta-bench ls tasks'.", autocompletion=completion("tasks"))],
    attn: Attn = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            "--protocol",
            "-p",
            help="Name or ./file.toml; without it quick on a CPU, small on a GPU.",
            autocompletion=completion("protocols"),
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="One run with this seed.", min=0)] = None,
    seeds: Annotated[int | None, typer.Option(help="So many runs, seeds 0, 1, ….", min=1)] = None,
    sets: Sets = None,
    records: RecordsDir = USER_STORE,
    devices: Annotated[int, typer.Option(help="GPUs of this machine, or processes on its CPU.", min=1)] = 1,
    nodes: Annotated[int, typer.Option(help="Machines.", min=1)] = 1,
    strategy: Annotated[
        Literal["ddp", "fsdp"], typer.Option(help="On each of several devices the whole model, or a share of it.")
    ] = "ddp",
    micro_batch: Annotated[
        int | None, typer.Option(help="Sequences at once on a device; gradients add up to the batch.", min=1)
    ] = None,
    recompute: Annotated[
        bool, typer.Option("--recompute", help="Activation checkpointing: less memory, a third more time.")
    ] = False,
    compile: Annotated[bool, typer.Option("--compile", help="Blocks by torch.compile.")] = False,
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
    if devices * nodes > 1:  # before torch is imported: DDP warns each process of parameters that are all used
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    found, session = make_plan(task, attn or [], protocol, wanted, sets or [], records)
    if not dry_run and make_quick_data(found):
        found, session = make_plan(task, attn or [], protocol, wanted, sets or [], records)
    from zeta_bench.execution import Execution

    session.execution = Execution(devices, nodes, strategy, micro_batch, recompute, compile)
    session.execution.check(accelerated=session.accelerated)
    session.resume, session.diagnose, session.keep, session.debug = resume, diagnose, keep, DEBUG
    if not session.is_main:
        mute()
    tell_plan(found)
    for each in found.runs:
        session.execution.check_run(each)
    from zeta_bench.series import print_plan, print_results, run_series, went_wrong

    if dry_run:
        print_plan(found.runs, session)
        return
    ctrl_c.begin()
    session.check_folders(found.runs)
    done = run_series(found.runs, session, force=force)
    if not any(record.status == "interrupted" for record in done):
        print_results(done, session, REPORT)
    if went_wrong(done):
        raise typer.Exit(1)


app.command()(sweep)


@app.command()
def audit(
    variants: Annotated[
        list[str] | None,
        typer.Argument(
            help="Variants or ./mine.py:Mine; all registered ones if left out.", autocompletion=completion("variants")
        ),
    ] = None,
    records: Annotated[
        Path | None, typer.Option("--records", help="Also write records of kind audit here.", metavar="DIR")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Print every finding.")] = False,
) -> None:
    """Check that variants are what they claim: causal, padding-proof, deterministic, equal to their definition."""
    from zeta_bench.registry import catalogue, find_variants

    choices = find_variants(variants or list(catalogue().variants))
    from zeta_bench.audit import run_audits
    from zeta_bench.plan import check_settings
    from zeta_bench.records import Store

    check_settings(choices)
    ctrl_c.begin()
    store = None if records is None else Store(records)
    if store is not None:
        store.check_writable()
    done = run_audits(choices, store, progress=lambda record: print_audit(record, verbose))
    print_audits(done)
    if any(record.status == "failed" for record in done):
        raise typer.Exit(1)


app.command()(bench)
app.command()(throughput)
app.command()(compare)
app.command()(analyse)
app.command()(data)
app.command()(generate)
app.command()(draw)
app.command()(report)


@app.command()
def doctor() -> None:
    """What works on this machine, ready to paste into an issue."""
    from zeta_bench.doctor import findings

    for name, finding in findings():
        out(f"{name:<18} {finding}")


def _check_folders(words: list[str]) -> None:
    """Raise UsageError for a folder that is empty text, as a variable that is not set leaves it: it would mean here."""
    for option, value in pairwise([*words, "-"]):
        if (option in FOLDERS and not value) or option in {f"{name}=" for name in FOLDERS}:
            raise UsageError(f"{option.rstrip('=')} is given nothing; name a folder, '.' for the one you are in.")


def main() -> None:
    """Entry point: every mistake is one sentence on stderr; exit code 2 for misuse, 1 for what failed."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal without γ shows ? instead of a traceback
            stream.reconfigure(errors="replace")
    with ctrl_c:
        code = _call()
    if code == 130:
        err(STOPPED)
        code = 1
    sys.exit(code)


def _call() -> int:
    """Run the command; its exit code, 130 after a Ctrl-C."""
    try:
        _check_folders(sys.argv[1:])
        code = typer.main.get_command(app)(standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except Exception as error:
        if ctrl_c.pressed:
            return 130
        if DEBUG and not hasattr(error, "format_message"):
            raise
        return explain(error)
    return code if isinstance(code, int) else 0
