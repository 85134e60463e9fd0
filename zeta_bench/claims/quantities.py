"""From records to the quantities that claims name: a figure with its interval, in every place where it was measured.

A place is a store and a class of device. Figures are compared within a place only: times of two machines, or runs of
two campaigns, differ for other reasons than the variant.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from zeta_bench.analysis.request import SEEDS
from zeta_bench.claims.evidence import Evidence, protocol_of
from zeta_bench.claims.rules import Span, exactly
from zeta_bench.claims.schema import AnalysisQuantity, BenchQuantity, Quantity, RunQuantity, protocol_id
from zeta_bench.report.analyses.series import Estimate
from zeta_bench.report.benches.curves import Curve
from zeta_bench.report.runs.selection import Comparison
from zeta_bench.report.runs.stats import Cell, interval_seeds
from zeta_bench.report.text import seeds_told

SEEDS_WANTED = 3
MIDDLE = ("p20", "p80")
"""Quantiles of a timing's repetitions that stand for its interval: a bench has one machine and no seeds."""


class Place(NamedTuple):
    """Where something was measured; an analysis needs no device."""

    store: str
    device: str


@dataclass(frozen=True)
class Measured:
    """A quantity in one place.

    Attributes:
        name: as in the claim.
        unit: "", "ms", "bytes" or "exponent".
        mean: over seeds; of a bench the median; NaN where there is none.
        span: its interval.
        values: by seed.
        wanted: how many seeds decide.
        trouble: why it cannot decide, "" if it can.
        protocol: id in the records.
        run_ids: of the records.
        instead: grid values of a preview that has not those of the claim.
    """

    name: str
    unit: str
    mean: float
    span: Span
    values: Mapping[int, float]
    wanted: int
    trouble: str
    protocol: str
    run_ids: tuple[str, ...]
    instead: str = ""


Found = dict[Place, Measured]


def find(
    quantity: Quantity, protocol: str, evidence: Evidence, *, seeds: int = SEEDS_WANTED, preview: bool = False
) -> Found:
    """The quantity wherever it was measured under a protocol; empty where it was not.

    Args:
        quantity: what is looked for.
        protocol: as a part of a claim names it.
        evidence: where.
        seeds: so many are wanted of a protocol whose file is not at hand.
        preview: the protocol need not have the points of a grid that the quantity names.
    """
    if isinstance(quantity, RunQuantity):
        return _runs(quantity, protocol, seeds, preview, evidence)
    if isinstance(quantity, BenchQuantity):
        return _benches(quantity, protocol, evidence)
    return _analyses(quantity, quantity.protocol or protocol, evidence)


# Runs


def _runs(quantity: RunQuantity, protocol: str, seeds: int, preview: bool, evidence: Evidence) -> Found:
    found = [_of_task(quantity, task, protocol, seeds, preview, evidence) for task in quantity.task]
    places = [place for place in found[0] if all(place in each for each in found)]
    return {place: _mean_over_tasks([each[place] for each in found]) for place in places}


def _of_task(quantity: RunQuantity, task: str, name: str, seeds: int, preview: bool, evidence: Evidence) -> Found:
    comparisons, wanted = comparisons_of(task, name, evidence, seeds)
    by_place: dict[Place, list[Cell]] = {}
    for cell in (cell for each in comparisons for cell in each.cells):
        if _fits(cell, quantity, preview, evidence):
            by_place.setdefault(Place(cell.store, cell.device_class), []).append(cell)
    return {place: _cell(quantity, cells, wanted, name) for place, cells in by_place.items()}


def comparisons_of(task: str, name: str, evidence: Evidence, seeds: int = SEEDS_WANTED) -> tuple[list[Comparison], int]:
    """Those under a protocol of that name in the newest version of the task, and how many seeds it asks for.

    Records of a protocol whose file has changed since do not count. Where there is no file all of the name do.
    """
    known = protocol_of(task, name)
    named = [each for each in evidence.comparisons if each.task == task and each.protocol.rpartition("@")[0] == name]
    if known is not None:
        named = [each for each in named if each.protocol == known.id]
    newest = max((each.task_version for each in named), default=1)
    return [each for each in named if each.task_version == newest], known.seeds if known else seeds


def _fits(cell: Cell, quantity: RunQuantity, preview: bool, evidence: Evidence) -> bool:
    point = dict(cell.point)
    there = all(point[key] == value if key in point else preview for key, value in quantity.at.items())
    return there and cell.runs[0].metric == quantity.metric and cell.label == evidence.label(quantity.variant)


def _cell(quantity: RunQuantity, cells: Sequence[Cell], wanted: int, name: str) -> Measured:
    newest = max(cell.runs[0].variant_version for cell in cells)
    cells = [cell for cell in cells if cell.runs[0].variant_version == newest]
    cell = cells[0]
    values = {run.seed: float(run.value) for run in cell.counted if run.value is not None}
    lost = "" if cell.n == len(cell.runs) else f"{quantity.name}: {seeds_told(cell)}"
    several = f"{quantity.name}: {len(cells)} settings, versions or grid points fit" if len(cells) > 1 else ""
    return Measured(
        *(quantity.name, "", math.nan if cell.mean is None else cell.mean, _over_seeds(values), values, wanted),
        trouble=several or lost,
        protocol=cell.protocol,
        run_ids=tuple(run.run_id for run in cell.runs),
        instead=_instead(quantity, cell, name),
    )


def _instead(quantity: RunQuantity, cell: Cell, name: str) -> str:
    """``d_model=128``: what a preview has where the claim asks for another value of a grid that it has not."""
    keys = [key for key in quantity.at if key not in dict(cell.point)]
    protocol = protocol_of(cell.task, name)
    content: Mapping[str, Any] = protocol.model_dump() if protocol else {}
    told = []
    for section, _, leaf in (key.partition(".") for key in keys):
        value = content.get(section, {}).get(leaf)
        told += [] if value is None or value == quantity.at[f"{section}.{leaf}"] else [f"{leaf}={value}"]
    return ", ".join(told)


def _mean_over_tasks(found: Sequence[Measured]) -> Measured:
    """The mean over tasks, seed by seed, of the seeds that all of them have."""
    if len(found) == 1:
        return found[0]
    seeds = set.intersection(*(set(each.values) for each in found))
    values = {seed: statistics.fmean(each.values[seed] for each in found) for seed in sorted(seeds)}
    return Measured(
        *(found[0].name, found[0].unit, statistics.fmean(values.values()) if values else math.nan),
        *(_over_seeds(values), values, max(each.wanted for each in found)),
        trouble="; ".join(dict.fromkeys(each.trouble for each in found if each.trouble)),
        protocol=", ".join(dict.fromkeys(each.protocol for each in found)),
        run_ids=tuple(run_id for each in found for run_id in each.run_ids),
    )


def _over_seeds(values: Mapping[int, float]) -> Span:
    """The interval over seeds; of one seed its value."""
    have = list(values.values())
    if not have:
        return exactly(math.nan)
    interval = interval_seeds(have)
    return exactly(have[0]) if interval is None else Span(interval.low, interval.high)


# Benches


def _benches(quantity: BenchQuantity, protocol: str, evidence: Evidence) -> Found:
    wanted = protocol_id(quantity.task, protocol)
    sets = [
        each
        for each in evidence.benches
        if (each.task, each.protocol, each.graph) == (quantity.task, wanted, quantity.graph)
    ]
    curves = [
        curve
        for each in sets
        for curve in each.curves
        if (curve.series, curve.mode, curve.stage)
        == (quantity.variant, quantity.stage or quantity.mode, bool(quantity.stage))
        and all(length in curve.records for length in quantity.lengths)
    ]
    return {Place(curve.store, curve.device): _curve(quantity, curve, wanted) for curve in curves}


def _curve(quantity: BenchQuantity, curve: Curve, protocol: str) -> Measured:
    troubles = (_bench_trouble(quantity.name, curve, length) for length in quantity.lengths)
    trouble = next(filter(None, troubles), "")
    unit = "ms" if quantity.task == "speed" else "bytes"
    mean, span = math.nan, exactly(math.nan)
    if not trouble:
        middle = {length: curve.values[length] for length in quantity.lengths}
        ends = {length: _middle(curve, length) for length in quantity.lengths}
        mean, span = next(iter(middle.values())), next(iter(ends.values()))
        if len(middle) > 1:
            mean, span, unit = _slope({n: exactly(value) for n, value in middle.items()}).low, _slope(ends), "exponent"
    values = {} if trouble else {0: mean}
    run_ids = tuple(curve.records[length].run_id for length in quantity.lengths)
    return Measured(quantity.name, unit, mean, span, values, 1, trouble, protocol, run_ids)


def _bench_trouble(name: str, curve: Curve, length: int) -> str:
    """Why a figure is missing, or cannot be believed."""
    told = curve.told(length)
    if length not in curve.values:
        return f"{name}: {told.get('status', 'no figure')} at N = {length}"
    noisy = curve.records[length].payload.get("agreement", {}).get("noisy")
    return f"{name}: the machine was not quiet at N = {length} (A/A check)" if noisy else ""


def _middle(curve: Curve, length: int) -> Span:
    """From the 20th to the 80th percentile of a timing; a peak of memory has no spread."""
    figures, value = curve.figures(length), curve.values[length]
    low, high = (figures.get(f"ms_{each}") for each in MIDDLE)
    return exactly(value) if low is None or high is None else Span(min(low, value), max(high, value))


def _slope(ends: Mapping[int, Span]) -> Span:
    """Slope of log value on log length by least squares: the smallest and the largest that the intervals allow."""
    x = [math.log(length) for length in ends]
    mean = statistics.fmean(x)
    weights = [(each - mean) / sum((other - mean) ** 2 for other in x) for each in x]
    logs = [Span(math.log(span.low), math.log(span.high)) for span in ends.values()]
    low = sum(w * (span.low if w > 0 else span.high) for w, span in zip(weights, logs, strict=True))
    high = sum(w * (span.high if w > 0 else span.low) for w, span in zip(weights, logs, strict=True))
    return Span(low, high)


# Analyses


def _analyses(quantity: AnalysisQuantity, protocol: str, evidence: Evidence) -> Found:
    wanted = protocol_id(quantity.task, protocol)
    key = (quantity.distribution, quantity.length, quantity.code, quantity.measure)
    return {
        Place(series.store, ""): _estimate(quantity, series.estimates[quantity.d_k], wanted, series.store, evidence)
        for each in evidence.analyses
        if (each.task, each.protocol) == (quantity.task, wanted)
        for series in each.series
        if (series.distribution, series.length, series.code, series.measure) == key and quantity.d_k in series.estimates
    }


def _estimate(
    quantity: AnalysisQuantity, estimate: Estimate, protocol: str, store: str, evidence: Evidence
) -> Measured:
    run_ids = tuple(
        record.run_id
        for label, record in evidence.records
        if (label, record.kind, record.task, record.protocol) == (store, "analysis", quantity.task, protocol)
        and (record.point.get("distribution"), record.point.get("length")) == (quantity.distribution, quantity.length)
    )
    span = _over_seeds(estimate.values)
    return Measured(quantity.name, "", estimate.mean, span, estimate.values, SEEDS, "", protocol, run_ids)
