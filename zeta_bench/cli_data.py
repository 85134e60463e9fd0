"""The command ``zeta-bench data``: its options, and in which order its parts are called."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zeta_bench.console import ctrl_c, err, out, print_table
from zeta_bench.errors import UsageError, ZetaBenchError
from zeta_bench.listing import completion
from zeta_bench.machine import cores

if TYPE_CHECKING:
    from zeta_bench.store.cache import Manifest
    from zeta_bench.store.fetched import FetchedTask
    from zeta_bench.store.task import StoredTask


class What(StrEnum):
    """What can be done with data."""

    ls = "ls"
    fetch = "fetch"
    verify = "verify"
    generate = "generate"


GETTING = (What.generate, What.fetch)
GOES_WITH = {
    "--from": (What.fetch,),
    "--protocol": GETTING,
    "--set": GETTING,
    "--processes": (What.generate,),
    "--force": GETTING,
}


def data(
    what: Annotated[What, typer.Argument(help="ls · fetch · verify · generate")],
    task: Annotated[
        list[str] | None,
        typer.Argument(
            help="lra.listops · lra (all its tasks); ls and verify take every task if left out.",
            autocompletion=completion("tasks"),
        ),
    ] = None,
    origin: Annotated[
        Path | None,
        typer.Option("--from", help="fetch: a folder that holds the files, instead of a download.", metavar="DIR"),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option("--protocol", "-p", help="Only the data of this protocol, a name or ./file.toml."),
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", help="data.K=V changes the data's settings.", metavar="K=V"),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option("--processes", help="generate: so many at once. [one a core]", min=1, show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Make it again where it is here.")] = False,
) -> None:
    """The data of tasks: what is here, what is missing, whether it is whole; fetch it or generate it."""
    names = task or []
    typed = {"--from": origin, "--protocol": protocol, "--set": sets, "--processes": processes, "--force": force}
    alien = next((option for option, value in typed.items() if value and what not in GOES_WITH[option]), None)
    if alien is not None:
        right = " and ".join(f"'data {each}'" for each in GOES_WITH[alien])
        raise UsageError(f"{alien} goes with {right}, not with 'data {what}'; leave it out.")
    if not names and what in GETTING:
        example = "lra.listops" if what is What.generate else "lra.text"
        raise UsageError(f"name a task: zeta-bench data {what} {example} ('zeta-bench data ls' shows all).")
    if what is What.ls:
        _ls(names)
    elif what is What.verify:
        _verify(names)
    elif what is What.fetch:
        _fetch(names, protocol, sets or [], origin, force)
    else:
        _generate(names, protocol, sets or [], processes or cores(), force)


def _ls(names: list[str]) -> None:
    from zeta_bench.store.cache import cache_root
    from zeta_bench.store.wanted import rows, stored_tasks

    out(f"cache: {cache_root()}")
    print_table(rows(stored_tasks(names)), title="data", empty="no task keeps data in the cache")


def _verify(names: list[str]) -> None:
    from zeta_bench.store.wanted import again, checks, stored_tasks

    seen, bad = 0, 0
    for name in stored_tasks(names):
        for entry, mistake in checks(name):
            seen, bad = seen + 1, bad + bool(mistake)
            if mistake:
                err(f"{name}: {mistake}; {again(name, entry)}")
            else:
                out(f"{name} {entry.key}: whole, digest {entry.manifest().digest}")
    if not seen:
        err("there is no data here to verify; 'zeta-bench data ls' shows what is missing.")
    if bad or not seen:
        raise typer.Exit(1)


def _fetch(names: list[str], protocol: str | None, sets: list[str], origin: Path | None, force: bool) -> None:
    """A family's data sets that fail do not keep the others from being fetched."""
    from zeta_bench.store.fetched import FetchedTask

    due, failed = _due(What.fetch, names, protocol, sets, force)
    for task, of in due:
        assert isinstance(task, FetchedTask)
        try:
            _get(task, of, origin)
        except ZetaBenchError as error:
            if len(due) == 1 or ctrl_c.pressed:
                raise
            failed += 1
            _tell_failed(task, error)
    if failed:
        raise typer.Exit(1)


def _generate(names: list[str], protocol: str | None, sets: list[str], processes: int, force: bool) -> None:
    due, failed = _due(What.generate, names, protocol, sets, force)
    for task, of in due:
        make(task, of, processes)
    if failed:
        raise typer.Exit(1)


def _due(
    what: What, names: list[str], protocol: str | None, sets: list[str], force: bool
) -> tuple[list[tuple[StoredTask, str]], int]:
    """The data sets to get, each with whose they are, and how many are here but damaged, which is said of each.

    Every mistake in what was typed is found before that.
    """
    from zeta_bench.registry import parse_sets
    from zeta_bench.store.cache import check_writable
    from zeta_bench.store.wanted import choose, wanted

    changes = parse_sets(sets)
    chosen, others = choose(what, names)
    found = [each for name in chosen for each in wanted(name, protocol, changes).values()]
    ctrl_c.begin()
    for name, command in others:
        out(f"{name}: passed by; its data comes with: {command}")
    due, damaged = [], 0
    for task, users in found:
        of = f"of {', '.join(users)}" if users else "with these settings"
        if task.entry.exists() and not force:
            try:
                task.check()
                out(f"{task.name}: the data {of} is here already; --force makes it again.")
            except ZetaBenchError as error:
                if len(found) == 1:
                    raise
                damaged += 1
                _tell_failed(task, error)
            continue
        check_writable(task.entry)
        due.append((task, of))
    return due, damaged


def _tell_failed(task: StoredTask, error: ZetaBenchError) -> None:
    err(str(error) if str(error).startswith(task.name) else f"{task.name}: {error}")


def _get(task: FetchedTask, of: str, origin: Path | None) -> None:
    from zeta_bench.store.download import Paused
    from zeta_bench.store.progress import MakingProgress

    begun = time.monotonic()
    out(f"{task.name}: fetching the data {of}{f' from {origin}' if origin else ''}")
    try:
        with MakingProgress(task.name, "MiB") as progress:
            source, files = task.collect(origin, progress)
    except Paused as paused:
        err(str(paused))
        raise typer.Exit(1) from None
    out(f"{task.name}: '{source.name}' is here and whole; reading it")
    with MakingProgress(task.name) as progress:
        manifest = task.keep_from(source, files, progress)
    _tell_made(task, manifest, begun)


def make(task: StoredTask, of: str, processes: int) -> None:
    """Make a task's data and tell of it; `of`: whose it is."""
    from zeta_bench.store.progress import MakingProgress

    out(f"{task.name}: making the data {of} with {processes} process{'es' if processes > 1 else ''}")
    begun = time.monotonic()
    with MakingProgress(task.name) as progress:
        manifest = task.generate(progress, processes)
    _tell_made(task, manifest, begun)


def _tell_made(task: StoredTask, manifest: Manifest, begun: float) -> None:
    spent = time.monotonic() - begun
    out(f"{task.name}: {manifest.nbytes / 2**20:.1f} MiB in {spent:.0f} s, digest {manifest.digest}")
    out(f"{task.name}: kept in {task.entry.folder}")
