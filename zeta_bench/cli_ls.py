"""The command ``zeta-bench ls``: its options, and printing what there is."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from zeta_bench.console import err, out, print_table
from zeta_bench.records import USER_STORE


class What(StrEnum):
    """What ``ls`` can list."""

    variants = "variants"
    tasks = "tasks"
    protocols = "protocols"
    records = "records"
    published = "published"


def list_things(
    what: Annotated[
        What | None,
        typer.Argument(help="variants · tasks · protocols · records · published; the first three if left out."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    records: Annotated[Path, typer.Option("--records", help="Folder of the records.", metavar="DIR")] = USER_STORE,
    task: Annotated[str | None, typer.Option(help="Only published numbers of this task.")] = None,
) -> None:
    """List variants, tasks, protocols, records, or the numbers that papers publish."""
    from zeta_bench import listing

    listing.check_folder(records)
    listing.check_task_option(what, task)
    chosen = [what] if what else [What.variants, What.tasks, What.protocols]
    rows = {str(kind): listing.rows(str(kind), records, task) for kind in chosen}
    if json:
        import json as encoder

        out(encoder.dumps(rows if what is None else rows[str(what)], indent=1, ensure_ascii=False))
        return
    for kind, table in rows.items():
        print_table(listing.shown(kind, table), title=kind, empty=f"no {kind} in {records}")
    for problem in listing.problems(records if what is What.records else None):
        err(problem)
