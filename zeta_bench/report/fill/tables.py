"""A table's marker, filled in: some rows and columns of a table of the report, or the claims with their status.

    run/TASK/PROTOCOL [view=layers]        a report's table of that task and protocol, or one of its views
    bench/speed|memory/WORKLOAD [graph=true]
    analysis/locality|distortion/SETTINGS
    claims

``columns=`` names columns, ``variant=zeta|vanilla`` (any column's name) the rows; ``presets`` leaves out variants with
settings of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from zeta_bench.claims.evidence import protocol_of
from zeta_bench.claims.schema import protocol_id
from zeta_bench.errors import UsageError
from zeta_bench.records import is_of
from zeta_bench.registry import label, tasks_of
from zeta_bench.report import Report, make_report
from zeta_bench.report.fill.asks import BenchAsk, check_names
from zeta_bench.report.fill.known import Known
from zeta_bench.report.fill.lacks import Lack, analysis_words, bench_words
from zeta_bench.report.fill.numbers import NOT_RUN, Result, behind
from zeta_bench.report.fill.words import CLAIMS, Words
from zeta_bench.report.sources import Source
from zeta_bench.report.table import Column, Entry, Table
from zeta_bench.report.text import NOTHING, safe_stem
from zeta_bench.report.write.render import markdown_rows
from zeta_bench.settings import no_setting

PRESETS = "presets"
WHO = "variant"
_VIEW = re.compile(r"-(layers|published|attribution-.+|ablation-.+-.+)$")
_TITLE = Column("what it says", "text")


def fill_table(words: Words, known: Known) -> Result:
    """The rows of a table. Raises UsageError without place for a name that there is not."""
    keys = dict(words.keys)
    if words.sign or set(words.bare) - {PRESETS}:
        raise UsageError(f"a table has key=value and the word '{PRESETS}', no '{words.sign or words.bare[-1]}'.")
    columns = [name for name in keys.pop("columns", "").split("|") if name]
    if words.path == (CLAIMS,):
        return _claims(columns, keys, known)
    stem, command = _stem(words.path, keys)
    command = known.command(command)
    report = _report(words, keys, known)
    table = next((table for table in _tables(report) if table.name == safe_stem(stem)), None)
    if table is None:
        return Result(NOT_RUN, lacks=(Lack("no record", command),))
    rows, absent = _rows(table, keys)
    narrow = _columns(replace(table, rows=(*rows, *absent)), columns)
    # Bold and digits come from rows that are not shown as well, and what a view shows from which runs count.
    sources = {source: None for row in _columns(table, columns).rows for entry in row for source in entry.sources}
    if "view" in words.keys:
        sources |= {Source(store, record.kind, record.run_id): None for store, record in report.records}
    lacks = [*_few_seeds(stem, rows, report, command), *_holes(narrow, command)]
    return Result(markdown_rows(narrow), tuple(sources), tuple(lacks))


def _stem(path: tuple[str, ...], keys: dict[str, str]) -> tuple[str, str]:
    """The name of a report's table, and the command that makes its records; keys that it used are taken out."""
    kind, *parts = path
    if len(parts) != 2 or kind not in ("run", "bench", "analysis"):
        raise UsageError(
            f"'{'/'.join(path)}' is no table: write run/TASK/PROTOCOL, bench/TASK/WORKLOAD, analysis/TASK/SETTINGS "
            f"or {CLAIMS}."
        )
    task, protocol = parts
    if kind == "run":
        return _run_stem(task, protocol, keys)
    if kind == "bench":
        if task not in BenchAsk.model_fields["task"].annotation.__args__:  # type: ignore[union-attr]
            raise UsageError(f"there is no bench '{task}'; there is speed and memory.")
        graph = keys.pop("graph", "false") == "true"
        stem = f"{task}-{protocol_id(task, protocol)}{'-graph' if graph else ''}"
        return stem, " ".join(["zeta-bench", *bench_words(task, protocol, graph)])
    return f"{task}-{protocol_id(task, protocol)}", " ".join(["zeta-bench", *analysis_words(task, protocol)])


def _run_stem(task: str, protocol: str, keys: dict[str, str]) -> tuple[str, str]:
    members = tasks_of(task)
    found = check_names(members[0], protocol)
    view = f"-{keys.pop('view')}" if "view" in keys else ""
    if view and not _VIEW.match(view):
        raise UsageError(
            f"there is no view '{view[1:]}': write layers, attribution-VARIANT or ablation-VARIANT-SETTING."
        )
    name = found.name if task not in members else found.id if "+" not in protocol else protocol
    variants = " ".join(f"--attn {each}" for each in keys.get(WHO, "zeta|vanilla").split("|"))
    diagnose = " --diagnose" if view == "-layers" else ""
    command = (
        f"zeta-bench run {task} {variants} --protocol {protocol.partition('+')[0]} --seeds {found.seeds}{diagnose}"
    )
    return f"{task}-{name}{view}", command


def _report(words: Words, keys: Mapping[str, str], known: Known) -> Report:
    """The report of what the table is about; of runs only those of the variants that it shows.

    So bold is clear of what stands in the same table, and no number depends on a record that it does not show.
    """
    kind, task, protocol = words.path
    if kind != "run":
        return make_report([each for each in known.records if each[1].kind == kind and each[1].task == task])
    mine = [(s, r) for s, r in known.records if is_of(r, [task]) and r.protocol.rpartition("@")[0] == protocol]
    if "view" in words.keys:
        return make_report(mine)
    shown = set(keys[WHO].split("|")) if WHO in keys else None
    presets = PRESETS in words.bare
    names = [label(record.variant, record.settings) for _, record in mine]
    return make_report(
        [
            each
            for each, name in zip(mine, names, strict=True)
            if (shown is None or name in shown) and not (presets and ":" in name)
        ]
    )


def _tables(report: Report) -> tuple[Table, ...]:
    return (*report.tables, *report.view_tables, *report.bench_tables, *report.analysis_tables)


# Rows and columns


def _rows(table: Table, filters: Mapping[str, str]) -> tuple[list[tuple[Entry, ...]], list[tuple[Entry, ...]]]:
    """The rows that are asked for, and one for each name that has none."""
    names = [column.name for column in table.columns]
    for key in filters:
        if key not in names:
            raise UsageError(no_setting(key, names).replace("setting", "column", 1))
    wanted = {names.index(key): text.split("|") for key, text in filters.items()}
    rows = [row for row in table.rows if all(_bare(row[at].text) in texts for at, texts in wanted.items())]
    absent = []
    for at, texts in wanted.items():
        have = {_bare(row[at].text) for row in table.rows}
        absent += [_absent(table, at, text) for text in texts if text not in have]
    return rows, absent


def _bare(text: str) -> str:
    return text.removesuffix(" †")


def _absent(table: Table, at: int, name: str) -> tuple[Entry, ...]:
    return tuple(Entry(name) if place == at else Entry(NOT_RUN, faint=True) for place in range(len(table.columns)))


def _columns(table: Table, wanted: Sequence[str]) -> Table:
    """Some of its columns, in the order in which they were named; ``accuracy`` is ``accuracy ↑``."""
    if not wanted:
        return table
    names = {re.sub(" [↑↓]$", "", column.name): number for number, column in enumerate(table.columns)}
    for name in wanted:
        if name not in names:
            raise UsageError(no_setting(name, names).replace("setting", "column", 1))
    kept = [names[name] for name in wanted]
    rows = tuple(tuple(row[number] for number in kept) for row in table.rows)
    return replace(table, columns=tuple(table.columns[number] for number in kept), rows=rows)


# What is missing


def _few_seeds(stem: str, rows: Iterable[tuple[Entry, ...]], report: Report, command: str) -> Iterable[Lack]:
    """Rows with fewer seeds than their protocol asks for."""
    shown = {_bare(row[0].text) for row in rows}
    for comparison in report.comparisons:
        if comparison.name != stem:
            continue
        protocol = protocol_of(comparison.task, comparison.protocol.rpartition("@")[0])
        wanted = protocol.seeds if protocol else 3
        for cell in comparison.cells:
            if cell.series in shown and cell.n < wanted:
                yield Lack(f"{cell.series}: {cell.n} of {wanted} seeds", _for(command, cell.label))


def _for(command: str, variant: str) -> str:
    return re.sub(r"--attn .*(?= --protocol)", lambda _: f"--attn {variant}", command)


def _holes(table: Table, command: str) -> Iterable[Lack]:
    """Rows that were not run, and figures that a row has not."""
    for row in table.rows:
        who = " ".join(entry.text for column, entry in zip(table.columns, row, strict=True) if column.kind == "who")
        cells = [(c.name, e.text) for c, e in zip(table.columns, row, strict=True) if c.kind == "figure"]
        holes = [name for name, text in cells if text in (NOT_RUN, NOTHING)]
        if holes:
            told = who.replace(f" {NOT_RUN}", "")
            yield Lack(f"{told}: no record" + (f" at {', '.join(holes)}" if len(holes) < len(cells) else ""), command)


# Claims


def _claims(columns: Sequence[str], filters: Mapping[str, str], known: Known) -> Result:
    """The table of claims with a column of their titles, one line a claim."""
    table = known.claim_tables[CLAIMS]
    found = [(*known.claims[row[0].text], row) for row in table.rows]
    rows = tuple(
        (row[0], Entry(claim.title), *(entry.computed_from(behind(claim, verdict, known)[0]) for entry in row[1:]))
        for claim, verdict, row in found
    )
    whole = replace(table, columns=(table.columns[0], _TITLE, *table.columns[1:]), rows=rows)
    kept, absent = _rows(whole, filters)
    if absent:
        raise UsageError(f"there is no such row: {absent[0][0].text}.")
    narrow = _columns(replace(whole, rows=tuple(kept)), columns or ["claim", _TITLE.name, "status"])
    sources: dict[Any, None] = {source: None for row in narrow.rows for entry in row for source in entry.sources}
    ids = {row[0].text for row in kept}
    lacks = [lack for claim, verdict, _ in found if claim.id in ids for lack in behind(claim, verdict, known)[1]]
    return Result(markdown_rows(narrow), tuple(sources), tuple(lacks))
