"""What the commands that train have in common: from what was typed to a plan, and what the user is told of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from zeta_bench.console import ctrl_c, err, out
from zeta_bench.records import USER_STORE

if TYPE_CHECKING:
    from zeta_bench.plan import Plan
    from zeta_bench.run import Session


UNASKED = 120.0
"""Seconds that a run takes to make its data without having been asked to."""


def make_plan(
    task: str, attn: list[str], protocol: str | None, seeds: list[int], sets: list[str], records: Path
) -> tuple[Plan, Session]:
    """Everything that can be found wrong before training, found now; misspellings before torch is imported."""
    from zeta_bench.protocol import find_protocol
    from zeta_bench.registry import find_variants, parse_sets, tasks_of

    tasks, choices, settings = tasks_of(task), find_variants(attn), parse_sets(sets)
    for name in tasks if protocol else []:
        find_protocol(name, str(protocol))

    import torch

    from zeta_bench.plan import plan_command
    from zeta_bench.records import Store
    from zeta_bench.run import Session

    accelerated = torch.cuda.is_available()
    session = Session(Store(records), USER_STORE / "checkpoints", accelerated)
    return plan_command(tasks, protocol, choices, seeds, settings, accelerated=accelerated), session


def make_quick_data(found: Plan) -> bool:
    """Make the data that a run lacks, where it is drawn in a minute or two; whether any was made."""
    from zeta_bench.cli_data import make
    from zeta_bench.errors import ZetaBenchError
    from zeta_bench.machine import cores
    from zeta_bench.store.cache import check_writable
    from zeta_bench.store.task import StoredTask

    made = False
    for task in found.missing.values():
        if not isinstance(task, StoredTask) or task.entry.exists() or task.drawing_seconds() / cores() > UNASKED:
            continue
        ctrl_c.begin()
        try:
            check_writable(task.entry)
            make(task, "of this protocol", cores())
            made = True
        except ZetaBenchError as error:  # the plan will say that this task does not run
            err(f"{task.name}: {error}")
    return made


def tell_plan(found: Plan) -> None:
    """The notes, and which tasks lack their data; ends the command where none is left."""
    for note in found.notes:
        out(note)
    for sentence in found.missing:
        err(sentence)
    if found.missing and not found.runs:
        raise typer.Exit(1)
