"""The table of ``zeta-bench throughput``: steps of a run beside those of a bare loop with the same model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from zeta_bench.records import Record
from zeta_bench.registry import label
from zeta_bench.report import text
from zeta_bench.report.benches.tables import figure_text
from zeta_bench.report.draw import style
from zeta_bench.report.sources import sources_of
from zeta_bench.report.table import Column, Entry, Table

if TYPE_CHECKING:
    import pandas as pd

TASK = "throughput"
_Labelled = tuple[str, Record]
_NAMES = ("task", "protocol", "length", "variant", "device", "source")
_SHOWN_IF_SEVERAL = ("length", "device", "source")
_FIGURES = ("run, ms/step", "bare, ms/step", "share", "read, ms", "tokens/s", "MFU")
_ENDS = ("run, to the end", "bare, to the end")


def build_throughput_table(records: Sequence[_Labelled]) -> Table | None:
    """The table of every measurement among some records, each with the label of its store; None if there is none."""
    found = sorted((each for each in records if each[1].kind == "bench" and each[1].task == TASK), key=_order)
    if not found:
        return None
    told = [_told(store, record) for store, record in found]
    same = {name: values.pop() for name in _SHOWN_IF_SEVERAL if len(values := {each[name] for each in told}) == 1}
    names = [name for name in _NAMES if name not in same]
    ends = _ENDS if any(_scored(record, "bare") for _, record in found) else ()
    return Table(
        name=TASK,
        title="what the harness costs: training steps of a run and of a bare PyTorch loop with the same model",
        caption=_caption(same, [record for _, record in found]),
        columns=(*(Column(name, "who") for name in names), *(Column(name, "figure") for name in (*_FIGURES, *ends))),
        rows=tuple(
            (*(Entry(each[name]) for name in names), *_figures(store, record, len(ends)))
            for each, (store, record) in zip(told, found, strict=True)
        ),
        notes=tuple(_notes(record for _, record in found)),
        frame=_frame(found),
    )


def share(record: Record) -> float | None:
    """The run's rate ÷ the bare loop's; None where nothing was measured."""
    suite, bare = (record.metrics.get(side, {}).get("ms") for side in ("suite", "bare"))
    return None if suite is None or bare is None else bare / suite


def _caption(same: Mapping[str, str], records: Sequence[Record]) -> str:
    commits = sorted({text.commit(record) for record in records})
    parts = [same.get("device", ""), f"commit{'s' if len(commits) > 1 else ''} {', '.join(commits)}"]
    parts += [f"from {same['source']}"] if "source" in same else []
    return text.plain(" · ".join(filter(None, parts)))


def _figures(store: str, record: Record, ends: int) -> tuple[Entry, ...]:
    sources, rate = sources_of(store, [record]), share(record)
    figures = [_milliseconds(record, side) for side in ("suite", "bare", "reading")]
    figures.insert(2, record.status if rate is None else f"{100 * rate:.0f} %")
    figures.append(_tokens_per_second(record))
    figures.append(text.NOTHING if record.mfu is None else f"{100 * record.mfu:.1f} %")
    figures += [_scored(record, side) or text.NOTHING for side in ("suite", "bare")[:ends]]
    return tuple(Entry(figure, faint=rate is None, sources=sources) for figure in figures)


def _told(store: str, record: Record) -> dict[str, str]:
    """What a measurement is of, by the names of the columns."""
    point = {key: value for key, value in record.point.items() if key != "task"}
    setting = text.point_text(tuple(point.items()), point)
    protocol = f"{record.protocol} [{setting}]" if setting else record.protocol
    name = label(record.variant, record.settings)
    length = str(record.payload.get("length", text.NOTHING))
    values = (record.point["task"], protocol, length, name, text.device(record), store)
    return {key: text.plain(value) for key, value in zip(_NAMES, values, strict=True)}


def _milliseconds(record: Record, side: str) -> str:
    """``12.3 (12.1–12.9)``: the median over rounds, and the quickest and slowest."""
    figures = record.metrics.get(side, {})
    if "ms" not in figures:
        return text.NOTHING
    ms, low, high = (figure_text(figures[name] or 0.0) for name in ("ms", "ms_low", "ms_high"))
    return ms if low == high else f"{ms} ({low}–{high})"


def _tokens_per_second(record: Record) -> str:
    """Of a run's timed steps; padding counts."""
    ms, tokens = record.metrics.get("suite", {}).get("ms"), record.payload.get("tokens")
    return text.si(1000 * tokens / ms) if ms and tokens else text.NOTHING


def _scored(record: Record, side: str) -> str:
    """``ppl_token 7.0312, 41.2k tokens/s``: of a side that was trained to the end; "" of one that was not."""
    name, figures = record.payload.get("scored"), record.metrics.get(side, {})
    if name not in figures or "tokens_per_second" not in figures:
        return ""
    value, rate = figures[name], figures["tokens_per_second"]
    return text.plain(f"{name} {text.NOTHING if value is None else f'{value:.6g}'}, {text.si(rate or 0.0)} tokens/s")


def _notes(records: Iterable[Record]) -> Iterable[str]:
    records = list(records)
    told = {(record.payload["steps"], record.payload["rounds"]) for record in records}
    how = "; ".join(f"{steps} steps, {rounds} rounds in turn" for steps, rounds in sorted(told))
    yield f"Median over rounds (quickest to slowest) of the mean over a round's steps, behind a warm-up: {how}."
    yield (
        "share: of the bare loop's rate. Both have the same model, optimiser, clipping and precision; the bare loop's "
        "batches lie on the device already, a run reads its own. read: reading a batch alone, on one core. MFU: what "
        "a step multiplies ÷ its time ÷ the device's peak; – where that peak is not known."
    )
    if any(_scored(record, "bare") for record in records):
        yield (
            "to the end: the score on the test split and the rate of the whole training, evaluation left out. Without "
            "dropout both sides differ by rounding alone."
        )


def _frame(records: Sequence[_Labelled]) -> pd.DataFrame:
    import pandas as pd

    rows = []
    for store, record in records:
        sides = {f"{side}.{name}": value for side, each in record.metrics.items() for name, value in each.items()}
        rows.append({**_told(store, record), "share": share(record), **sides})
    return pd.DataFrame(rows)


def _order(each: _Labelled) -> tuple[object, ...]:
    store, record = each
    name = label(record.variant, record.settings)
    protocol = record.protocol.partition("+")[0].partition("@")[0]
    size = record.payload.get("length", 0)
    return (
        record.point["task"],
        protocol,
        size,
        record.protocol,
        record.device,
        style.order(name),
        store,
        str(record.point),
    )
