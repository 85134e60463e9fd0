"""``zeta-bench report``: tables and figures from the records of one or several stores.

Nothing heavy is imported until a report is made. Records come from `zeta_bench.records`, the rules of selection from
the protocols' files; the package prints nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from zeta_bench.analysis.request import TASKS as ANALYSES
from zeta_bench.efficiency.workload import TASKS as BENCHES
from zeta_bench.errors import UsageError
from zeta_bench.published import read_published
from zeta_bench.records import Record, frame, is_of, read_all, write_atomically
from zeta_bench.registry import catalogue
from zeta_bench.report.analyses import AnalysisSet, analysis_sets
from zeta_bench.report.analysis_tables import build_analysis_table
from zeta_bench.report.bench_tables import build_bench_table
from zeta_bench.report.benches import BenchSet, bench_sets
from zeta_bench.report.selection import Comparison, compare
from zeta_bench.report.tables import Table, build_table

if TYPE_CHECKING:
    from zeta_bench.report.terminal import TerminalTable

__all__ = ["Report", "make_report", "read_report", "terminal_tables", "write_report"]


@dataclass(frozen=True)
class Report:
    """What a report found and wrote.

    Attributes:
        comparisons: the cells behind the tables, one a task and protocol.
        tables: one a comparison.
        benches: the curves behind the tables of benches, one a task, protocol and use of graphs.
        bench_tables: one each.
        analyses: what the curve and projections keep, one a task and protocol.
        analysis_tables: one each.
        written: every file written, tables before figures.
        refused: a sentence for each record file that was left out.
        nothing: a sentence if there was nothing to report, else "".
    """

    comparisons: tuple[Comparison, ...] = ()
    tables: tuple[Table, ...] = ()
    benches: tuple[BenchSet, ...] = ()
    bench_tables: tuple[Table, ...] = ()
    analyses: tuple[AnalysisSet, ...] = ()
    analysis_tables: tuple[Table, ...] = ()
    written: tuple[Path, ...] = ()
    refused: tuple[str, ...] = ()
    nothing: str = ""


def read_report(stores: Mapping[str, Path], *, tasks: Collection[str] | None = None) -> Report:
    """The tables of every run, bench and analysis record in some stores; nothing is written.

    Args:
        stores: folders of records by the label that tables give them, such as ``{"runs": Path("runs")}``.
        tasks: names of tasks, benches or analyses, or of families ("lra" for every "lra.…"); None = all.
    """
    records, refused = read_all(stores)
    report = make_report([(label, record) for label, record in records if is_of(record, tasks)])
    return replace(report, refused=tuple(refused), nothing=report.nothing and _nothing(stores, tasks))


def make_report(records: Sequence[tuple[str, Record]]) -> Report:
    """The tables of records that are at hand, each with the label of its store; such as those of one command."""
    runs = [(label, record) for label, record in records if record.kind == "run"]
    benches, analyses = bench_sets(records), analysis_sets(records)
    if not runs and not benches and not analyses:
        return Report(nothing="nothing to report: no run was recorded.")
    comparisons = compare(frame(runs)) if runs else ()
    published = read_published() if any(each.rule.published for each in comparisons) else ()
    defects = {name: variant.defect for name, variant in catalogue().variants.items() if variant.defect}
    return Report(
        comparisons,
        tuple(build_table(each, defects, published) for each in comparisons),
        benches,
        tuple(build_bench_table(each, defects) for each in benches),
        analyses,
        tuple(build_analysis_table(each) for each in analyses),
    )


def write_report(
    stores: Mapping[str, Path],
    out: Path,
    *,
    tasks: Collection[str] | None = None,
    formats: Sequence[str] = ("md", "tex", "csv"),
) -> Report:
    """Write the tables of `read_report` to ``out/tables`` and the figures (PNG and SVG) to ``out/figures``.

    Args:
        stores: folders of records by the label that tables give them.
        out: the folder to write into; made if need be. Without records nothing is made.
        tasks: names of tasks, or of families; None = all.
        formats: file formats of the tables: "md", "tex", "csv".

    Raises:
        UsageError: an unknown format, or a folder that cannot be written.
    """
    from zeta_bench.report.render import WRITERS

    for name in formats:
        if name not in WRITERS:
            raise UsageError(f"there is no table format '{name}'; there is {', '.join(WRITERS)}.")
    report = read_report(stores, tasks=tasks)
    if report.nothing:
        return report
    tables = (*report.tables, *report.bench_tables, *report.analysis_tables)
    written = [*_write_tables(tables, out / "tables", formats), *_write_figures(report, out / "figures")]
    return replace(report, written=tuple(written))


def terminal_tables(report: Report) -> list[TerminalTable]:
    """The tables of a report for ``rich.console.Console.print``."""
    from zeta_bench.report.terminal import TerminalTable, WrappedTable

    return [*map(TerminalTable, report.tables), *map(WrappedTable, (*report.bench_tables, *report.analysis_tables))]


def _write_tables(tables: Iterable[Table], folder: Path, formats: Sequence[str]) -> Iterable[Path]:
    from zeta_bench.report.files import writing_to
    from zeta_bench.report.render import WRITERS

    with writing_to(folder):
        for table in tables:
            for suffix in formats:
                path = folder / f"{table.name}.{suffix}"
                write_atomically(path, WRITERS[suffix](table))
                yield path


def _write_figures(report: Report, folder: Path) -> Iterable[Path]:
    from zeta_bench.report.analysis_figures import draw_analyses
    from zeta_bench.report.bench_figures import curve_names, draw_benches
    from zeta_bench.report.figures import draw, line_name
    from zeta_bench.report.files import writing_to
    from zeta_bench.report.style import looks

    names = {line_name(cell, each) for each in report.comparisons for cell in each.cells}
    palette = looks(names | curve_names(report.benches))
    with writing_to(folder):
        for drawing in chain(
            *(draw(each, palette) for each in report.comparisons),
            *(draw_benches(each, palette) for each in report.benches),
            *(draw_analyses(each) for each in report.analyses),
        ):
            for suffix, content in (("png", drawing.png()), ("svg", drawing.svg())):
                path = folder / f"{drawing.name}.{suffix}"
                write_atomically(path, content)
                yield path


def _nothing(stores: Mapping[str, Path], tasks: Collection[str] | None) -> str:
    where = " or ".join(str(root) for root in stores.values())
    what = f" of {', '.join(sorted(tasks))}" if tasks else ""
    kinds = {"bench": ("bench", BENCHES), "analysis": ("analyse", ANALYSES)}
    found = ((kind, verb) for kind, (verb, known) in kinds.items() if tasks and set(tasks) <= set(known))
    kind, verb = next(found, ("run", "run"))
    return f"nothing to report: there are no {kind} records{what} in {where}; 'zeta-bench {verb}' makes them."
