"""The command ``zeta-bench report``: its options, and what it says of pages that were filled in."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zeta_bench.console import ctrl_c, err, open_page, out, print_report
from zeta_bench.errors import UsageError
from zeta_bench.records import PUBLISHED_STORE, USER_STORE
from zeta_bench.report.text import plain

if TYPE_CHECKING:
    from zeta_bench.report import Report
    from zeta_bench.report.fill import Filling, Page

REPORT = USER_STORE / "report"


def report(
    records: Annotated[
        list[Path] | None,
        typer.Option("--records", help="Folders of records; runs and results/records if left out.", metavar="DIR"),
    ] = None,
    task: Annotated[list[str] | None, typer.Option(help="Only these tasks.")] = None,
    format: Annotated[
        list[str] | None, typer.Option("--format", help="md · tex · csv · html (one page); all if left out.")
    ] = None,
    to: Annotated[
        Path, typer.Option("--to", help="Where index.html, tables/ and figures/ are written.", metavar="DIR")
    ] = REPORT,
    show: Annotated[bool, typer.Option("--open", help="Show the page in a browser.")] = False,
    fill: Annotated[
        list[Path] | None,
        typer.Option(
            "--fill", help="Write no report, but fill in the numbers of this Markdown page. Repeat it.", metavar="PAGE"
        ),
    ] = None,
) -> None:
    """Tables and figures from records: on the terminal, as files of every form, and as one page."""
    from zeta_bench.listing import check_tasks
    from zeta_bench.report import FORMATS, PAGE, write_report

    check_tasks(task or [])
    formats = tuple(dict.fromkeys(format or FORMATS))
    if show and PAGE not in formats:
        raise UsageError(f"--open shows the page, which --format {formats[0]} leaves out; add --format {PAGE}.")
    for folder in records or []:
        if not folder.is_dir():
            raise UsageError(f"there is no folder {folder}; --records takes a folder that 'zeta-bench run' wrote to.")
    if fill and (task or format or show or to != REPORT):
        raise UsageError("--fill goes with --records alone: it fills pages in and writes no report.")
    stores = {str(folder): folder for folder in records or (USER_STORE, PUBLISHED_STORE)}
    ctrl_c.begin()
    if fill:
        _fill(stores, fill)
        return
    done = write_report(stores, to, tasks=task, formats=formats)
    print_report(done)
    if not task and "csv" in formats and to.is_dir():
        _tell_gone(done, stores, to, whole=not format)
    if show and done.page is not None:
        open_page(done.page)


def _tell_gone(done: Report, stores: Collection[str], folder: Path, *, whole: bool) -> None:
    """What an earlier report in this folder had: records that are gone, and files that none of them makes any more."""
    from zeta_bench.report.ledger import keep_ledger

    for command, names in keep_ledger(folder, done.records, stores).items():
        err(plain(f"gone since the last report here: {'; '.join(names)}"))
        err(plain(f"  again: {command}"))
    for kind in ("tables", "figures") if whole else ():
        for path in sorted(set((folder / kind).glob("[!.]*")) - set(done.written)):
            err(plain(f"left over, no record makes it any more: {path}"))


# Pages


def _fill(stores: Mapping[str, Path], pages: Sequence[Path]) -> None:
    """Fill pages in; say what changed, and what is missing with the command that makes it."""
    from zeta_bench.report.fill import fill_pages

    done = fill_pages(stores, pages)
    for sentence in done.refused:
        err(f"left out: {plain(sentence)}")
    for page in done.pages:
        out(plain(f"{page.path}: {_told(page)}"))
    _tell_missing(done)


def _told(page: Page) -> str:
    """``63 numbers and 2 tables filled in, 4 changed``."""
    if not page.filled:
        return "no markers, nothing to fill in"
    tables = sum(each.mark.kind == "table" for each in page.filled)
    counts = ((len(page.filled) - tables, "number"), (tables, "table"))
    told = " and ".join(f"{count} {word}{'' if count == 1 else 's'}" for count, word in counts if count)
    return f"{told} filled in, {page.changed or 'none'} changed"


def _tell_missing(done: Filling) -> None:
    """By command, since one often makes several figures."""
    missing = done.missing
    count = len({place for wanted in missing.values() for places in wanted.values() for place in places})
    if missing:
        out(f"missing, or of fewer seeds than asked for, in {count} place{'' if count == 1 else 's'}:")
    for command, wanted in missing.items():
        out(plain(f"  {command or 'seeds that both sides have'}"))
        for what, places in wanted.items():
            out(plain(f"    {', '.join(dict.fromkeys(places))}: {what}"))
