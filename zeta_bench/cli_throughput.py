"""The command ``zeta-bench throughput``: its options, and in which order its parts are called."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zeta_bench.cli_plan import make_plan, tell_plan
from zeta_bench.console import ctrl_c
from zeta_bench.errors import UsageError
from zeta_bench.listing import completion
from zeta_bench.records import USER_STORE

if TYPE_CHECKING:
    from zeta_bench.plan import Run
    from zeta_bench.records import Record


def throughput(
    task: Annotated[str, typer.Argument(help="mqar · lra.listops · …", autocompletion=completion("tasks"))],
    attn: Annotated[
        list[str] | None,
        typer.Option("--attn", "-a", help="A variant; repeat it.", metavar="A", autocompletion=completion("variants")),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option("--protocol", "-p", help="Name or ./file.toml; without it quick on a CPU, small on a GPU."),
    ] = None,
    sets: Annotated[list[str] | None, typer.Option("--set", help="As in 'zeta-bench run'.", metavar="K=V")] = None,
    steps: Annotated[int, typer.Option(help="Timed steps a round, behind 10 of warm-up.", min=1)] = 50,
    rounds: Annotated[int, typer.Option(help="Rounds; the median counts.", min=1)] = 3,
    length: Annotated[
        list[str] | None,
        typer.Option(
            "--length", "-n", help="data.seq_len: 4096 or 4k, with as many tokens a step; repeat it.", metavar="N"
        ),
    ] = None,
    to_the_end: Annotated[
        bool, typer.Option("--to-the-end", help="Also train both to the protocol's end, and score them on test.")
    ] = False,
    records: Annotated[Path, typer.Option("--records", help="Folder of the records.", metavar="DIR")] = USER_STORE,
    force: Annotated[bool, typer.Option("--force", help="Measure again what has a record.")] = False,
) -> None:
    """Time the training steps of a run beside a bare PyTorch loop with the same model: what the harness costs."""
    found, session = make_plan(task, attn or [], protocol, [0], sets or [], records)
    tell_plan(found)
    runs = found.runs
    if length:
        changes = _changes(runs, length, sets or [])
        plans = [make_plan(task, attn or [], protocol, [0], [*(sets or []), *each], records)[0] for each in changes]
        runs = [run for plan in plans for run in plan.runs]
    from zeta_bench.throughput.series import Procedure, run_throughput

    ctrl_c.begin()
    session.store.check_writable()
    done = run_throughput(runs, session, Procedure(steps, rounds, to_the_end), session.store, force=force)
    _print_table(done)
    if any(record.status != "ok" for record in done):
        raise typer.Exit(1)


def _changes(runs: Sequence[Run], lengths: Sequence[str], sets: Sequence[str]) -> list[list[str]]:
    """What to set for each length: the length, and the batch that has as many tokens as the protocol's.

    Raises:
        UsageError: the task has no lengths to choose, or a length does not fit into a step.
    """
    from zeta_bench.efficiency.workload import parse_length

    own = getattr(runs[0].task.data, "seq_len", None)
    if own is None:
        raise UsageError(f"--length: task '{runs[0].task_name}' has no data.seq_len; leave it out.")
    named = {text.partition("=")[0].strip() for text in sets}
    if "data.seq_len" in named:
        raise UsageError("--length and --set data.seq_len say the same; leave one out.")
    tokens = own * runs[0].protocol.budget.batch_size
    changes = []
    for size in sorted({parse_length(text) for text in lengths}):
        if size > tokens:
            raise UsageError(
                f"--length {size}: a step of this protocol has {tokens} tokens; add --set budget.batch_size."
            )
        batch = [] if "budget.batch_size" in named else [f"budget.batch_size={tokens // size}"]
        changes.append([f"data.seq_len={size}", *batch])
    return changes


def _print_table(done: list[Record]) -> None:
    """The table of what this command has measured."""
    from zeta_bench.console import STDOUT
    from zeta_bench.report import make_report, terminal_views

    for grid in terminal_views(make_report([("here", record) for record in done])):
        STDOUT.print(grid, soft_wrap=False)
