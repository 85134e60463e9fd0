"""A figure that a marker asks for, found in records: its value over seeds, what it is made of and what it lacks."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace

from zeta_bench.analysis.request import ANALYSES
from zeta_bench.claims.quantities import Found, Measured, Place, comparisons_of, find
from zeta_bench.claims.schema import AnalysisQuantity, BenchQuantity, RunQuantity
from zeta_bench.efficiency.workload import OPS
from zeta_bench.errors import UsageError
from zeta_bench.records import Record
from zeta_bench.registry import find_variant
from zeta_bench.report.analyses.series import MEASURES
from zeta_bench.report.fill.asks import AnalysisAsk, Ask, BenchAsk, LayersAsk, RunAsk, check_names
from zeta_bench.report.fill.known import Known
from zeta_bench.report.fill.lacks import Lack, command_of
from zeta_bench.report.runs.selection import find_rule
from zeta_bench.report.runs.stats import interval_seeds
from zeta_bench.report.sources import Source
from zeta_bench.report.trained.recall import find_trained
from zeta_bench.schema import Protocol
from zeta_bench.settings import no_setting


@dataclass(frozen=True)
class Value:
    """A figure with the records behind it.

    Attributes:
        unit: "", "ms", "bytes", "exponent" or "ratio".
        mean: over seeds, of a timing the median; None where there is none.
        low: lower end of its interval, `high` the upper one; its mean where there is no interval.
        values: by seed.
        sources: the records.
        lacks: what would be there with more records.
    """

    unit: str = ""
    mean: float | None = None
    low: float = math.nan
    high: float = math.nan
    values: Mapping[int, float] | None = None
    sources: tuple[Source, ...] = ()
    lacks: tuple[Lack, ...] = ()


def value_of(ask: Ask, known: Known) -> Value:
    """The figure. Raises UsageError without place for a name that there is not, or where several figures fit."""
    if isinstance(ask, RunAsk):
        return _run(ask, known)
    if isinstance(ask, LayersAsk):
        return _layer(ask, known)
    if isinstance(ask, BenchAsk):
        if ask.variant not in OPS:
            find_variant(ask.variant)
        stage = "" if ask.stage == "none" else ask.stage
        _check_stage(stage, known)
        fields = ask.model_dump(exclude={"device", "protocol", "stage"})
        bench = BenchQuantity(kind="bench", name="it", stage=stage, **fields)
        return _measured(ask, find(bench, ask.protocol, known.evidence), known)
    assert isinstance(ask, AnalysisAsk)
    if ask.distribution not in (have := ANALYSES[ask.task].distributions):
        raise UsageError(f"there are no points '{ask.distribution}' in {ask.task}; there is {', '.join(have)}.")
    if ask.measure not in MEASURES[ask.task]:
        raise UsageError(no_setting(ask.measure, MEASURES[ask.task]).replace("setting", "measure", 1))
    quantity = AnalysisQuantity(kind="analysis", name="it", **ask.model_dump(exclude={"protocol"}))
    return _measured(ask, find(quantity, ask.protocol, known.evidence), known)


def _check_stage(stage: str, known: Known) -> None:
    have = dict.fromkeys(curve.mode for each in known.evidence.benches for curve in each.curves if curve.stage)
    if stage and have and stage not in have:
        raise UsageError(no_setting(stage, have).replace("setting", "stage", 1))


def _measured(ask: BenchAsk | AnalysisAsk, found: Found, known: Known) -> Value:
    """A bench or an analysis as claims see it."""
    place = choose_place(list(found), getattr(ask, "device", ""))
    if place is None:
        return Value(lacks=(Lack("no record", command_of(ask, known)),))
    kind = "bench" if isinstance(ask, BenchAsk) else "analysis"
    return _from(found[place], known.sources(kind, found[place].run_ids, place.store), command_of(ask, known))


def _from(found: Measured, sources: tuple[Source, ...], command: str, wanted: int | None = None) -> Value:
    wanted = found.wanted if wanted is None else wanted
    why = found.trouble or (f"{len(found.values)} of {wanted} seeds" if len(found.values) < wanted else "")
    lacks = (Lack(why, command),) if why else ()
    mean = found.mean if math.isfinite(found.mean) else None
    return Value(found.unit, mean, *found.span, found.values, sources, lacks)


def choose_place(places: list[Place], device: str) -> Place | None:
    """Where a figure is taken from: of several stores the first one. Raises UsageError if devices differ."""
    able = [place for place in places if not device or place.device == device]
    if places and not able:
        raise UsageError(f"it was not measured on '{device}', but on {places[0].device}; mend device=.")
    devices = list(dict.fromkeys(place.device for place in able))
    if len(devices) > 1:
        raise UsageError(f"it was measured on {' and on '.join(devices)}; say which: device='{devices[0]}'.")
    return able[0] if able else None


# Runs


def _run(ask: RunAsk, known: Known) -> Value:
    protocol = check_names(ask.task, ask.protocol, ask.variant)
    _check_grid(ask, protocol)
    quantity = RunQuantity(
        kind="run",
        name=ask.variant,
        task=(ask.task,),
        variant=_label(ask, known),
        metric=protocol.metric,
        at=ask.at,
    )
    found = find(quantity, ask.protocol, known.evidence, seeds=protocol.seeds)
    place = choose_place(list(found), ask.device)
    if place is None:
        return Value(lacks=(Lack("no record", command_of(ask, known)),))
    measured, wanted = found[place], protocol.seeds
    sources = known.sources("run", measured.run_ids, place.store)
    if ask.seed is not None or ask.slice or ask.metric not in ("", protocol.metric):
        measured, sources = _part_of(ask, measured, known, sources, protocol.metric)
        wanted = 1 if ask.seed is not None else wanted
    return _from(measured, sources, command_of(ask, known), wanted)


def _part_of(
    ask: RunAsk, whole: Measured, known: Known, sources: tuple[Source, ...], metric: str
) -> tuple[Measured, tuple[Source, ...]]:
    """One seed, one member of a slice, or another metric of the same runs."""
    values: dict[int, float] = {}
    kept: list[Source] = []
    for source, record in zip(sources, known.records_of(sources), strict=True):
        if ask.seed in (None, record.seed):
            value = _figure(ask, record, metric)
            kept.append(source)
            values |= {} if value is None else {record.seed: value}
    interval = interval_seeds(list(values.values()))
    mean = statistics.fmean(values.values()) if values else math.nan
    span = type(whole.span)(*((interval.low, interval.high) if interval else (mean, mean)))
    return replace(whole, mean=mean, span=span, values=values), tuple(kept)


def _figure(ask: RunAsk, record: Record, metric: str) -> float | None:
    """A figure on the test split. Raises UsageError for a metric or slice that a record of the run does not have."""
    if ask.slice:
        group, _, member = ask.slice.partition("/")
        slices = record.slices.get("test", {})
        if not slices and record.value is None:  # a run that has no score
            return None
        if member not in slices.get(group, {}):
            have = ", ".join(f"{name}/{each}" for name, members in slices.items() for each in members)
            raise UsageError(f"there is no slice '{ask.slice}': there is {have or 'none'}.")
        return slices[group][member].get("value")
    figures = record.metrics.get("test", {})
    name = ask.metric or metric
    if figures and name not in figures:
        raise UsageError(no_setting(name, figures).replace("setting", "metric", 1))
    return figures.get(name)


def _check_grid(ask: RunAsk | LayersAsk, protocol: Protocol) -> None:
    """A point of the protocol's grid must be named whole, and no key that it has not."""
    settled = find_rule(ask.task, protocol.id).axis
    axes = {key: axis.values[0][place] for axis in protocol.grid for place, key in enumerate(axis.keys)}
    for key in ask.at:
        if key not in axes or key in settled:
            raise UsageError(f"{key} is no key of the grid of {ask.task} {protocol.name}; leave it out.")
    for key in axes:
        if key not in ask.at and key not in settled:
            raise UsageError(f"{ask.task} {protocol.name} has a grid; say which point: {key}={axes[key]}.")


def _label(ask: RunAsk | LayersAsk, known: Known) -> str:
    """The variant as cells are called. Raises UsageError for a setting that it has not."""
    choice = find_variant(ask.variant)
    defaults = known.evidence.defaults(choice.name) if choice.settings else {}
    if wrong := next((key for key in choice.settings if defaults and key not in defaults), None):
        raise UsageError(f"variant '{choice.name}': {no_setting(wrong, defaults)}")
    return known.evidence.label(choice.label)


def _layer(ask: LayersAsk, known: Known) -> Value:
    protocol = check_names(ask.task, ask.protocol, ask.variant)
    _check_grid(ask, protocol)
    name, command = _label(ask, known), command_of(ask, known)
    records = [(store, known.evidence.bare(record)) for store, record in known.records if record.kind == "analysis"]
    comparisons, wanted = comparisons_of(ask.task, ask.protocol, known.evidence)
    trained = (found for each in comparisons if (found := find_trained(each, records)) is not None)
    able = {
        Place(layer.cell.store, layer.cell.device_class): layer
        for found in trained
        for layer in found.layers
        if layer.cell.label == name
        and dict(layer.cell.point) == {**dict(layer.cell.point), **ask.at}
        and layer.number == ask.layer
        and layer.head in (None, ask.head)
    }
    place = choose_place(list(able), ask.device)
    if place is None:
        return Value(lacks=(Lack("no record", command),))
    layer = able[place]
    if ask.measure not in layer.estimates:
        raise UsageError(no_setting(ask.measure, layer.estimates).replace("setting", "measure", 1))
    estimate = layer.estimates[ask.measure]
    interval = estimate.interval
    ends = (interval.low, interval.high) if interval else (estimate.mean, estimate.mean)
    why = f"{len(estimate.values)} of {wanted} seeds" if len(estimate.values) < wanted else ""
    lacks = (Lack(why, command),) if why else ()
    # A layer counts where its run counts, see zeta_bench.report.trained.recall.
    runs = (run.run_id for run in layer.cell.runs if run.seed in estimate.values)
    sources = (*layer.sources, *known.sources("run", runs, place.store))
    return Value("", estimate.mean, *ends, estimate.values, sources, lacks)
