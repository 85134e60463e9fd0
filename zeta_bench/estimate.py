"""What a plan would cost: parameters, FLOPs, data, memory, time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch.nn import functional as F

from zeta_bench.errors import ZetaBenchError
from zeta_bench.footprint import training_bytes
from zeta_bench.plan import Run
from zeta_bench.records import Record
from zeta_bench.registry import label
from zeta_bench.run import Session, make_model, step_flops
from zeta_bench.training import BenchModule
from zeta_bench.userfile import describe

PATIENCE = 15.0
"""Seconds spent on timing steps of one variant; what is left then is scaled by FLOPs from the largest step timed."""

PATIENCE_IN_ALL = 90.0
"""The same for all variants together, in equal shares."""

SAMPLE = 32
"""Sequences of a timed step on a CPU, where time grows with them; a GPU gets the whole batch."""

Rows = list[dict[str, Any]]


@dataclass
class Cost:
    """What one step of a model costs.

    Attributes:
        parameters: trainable ones.
        flops: of the matrix products of a step.
        memory: bytes of training, see `zeta_bench.footprint`.
        seconds: of a step.
        scaled: the seconds come from a smaller model's step by FLOPs; otherwise they were timed.
    """

    parameters: int
    flops: int
    memory: int
    seconds: float
    scaled: bool


@dataclass
class _Clock:
    """Time spent on a variant so far, and its last timed step as seconds a FLOP."""

    spent: float = 0.0
    rate: float = 0.0


@dataclass
class Estimates:
    """What a plan would cost.

    Attributes:
        tables: a title and rows for each task and protocol, one row for runs that cost the same.
        seconds: of all runs that have no record yet.
        runs: all of them.
        waiting: those without a record.
        trouble: why a model cannot be made or run here, one sentence a kind of model.
    """

    tables: dict[str, Rows] = field(default_factory=dict)
    seconds: float = 0.0
    runs: int = 0
    waiting: int = 0
    trouble: list[str] = field(default_factory=list)

    @property
    def sentence(self) -> str:
        """The whole in one sentence."""
        found = f"{self.runs} run{'' if self.runs == 1 else 's'}, {self.waiting} without a record"
        return f"{found}: about {duration(self.seconds)} of training here."


def estimates(runs: Sequence[Run], session: Session, *, tolerant: bool = False) -> Estimates:
    """What the runs would cost here.

    Time and memory are those of records of the same point, of whatever seed, where there are some; otherwise a step is
    timed, and what a forward pass keeps is weighed.

    Args:
        runs: as planned.
        session: where they would run.
        tolerant: go on after a model that fails, and say so in `trouble`, instead of raising ZetaBenchError.
    """
    recorded: dict[str, list[Record]] = {}
    for record in session.store.records("run"):
        if record.status in ("ok", "stuck-at-chance") and record.device_class == session.device_class:
            recorded.setdefault(cell_of_record(record), []).append(record)
    found = Estimates(runs=len(runs))
    costs = _costs(runs, session, found.trouble if tolerant else None)
    telling = _telling_keys(runs)
    for group in _groups(runs):
        run = group[0]
        done = sum(_finished(session.store.find(each.run_id(session.device_class))) for each in group)
        found.waiting += len(group) - done
        if (cost := costs.get(_shape(run))) is None:
            continue
        known = [record for cell in {cell_of(each) for each in group} for record in recorded.get(cell, [])]
        seconds = cost.seconds * run.protocol.budget.steps
        if known:
            seconds = statistics.median(record.seconds for record in known)
            cost = replace(cost, scaled=False, memory=_peak(known) or cost.memory)
        row = _row(group, telling, cost, seconds, done)
        found.tables.setdefault(f"{run.task_name}, protocol {run.point.protocol_id}", []).append(row)
        found.seconds += (len(group) - done) * seconds
    found.tables = dict(_data_in_the_title(title, rows) for title, rows in found.tables.items())
    return found


def _data_in_the_title(title: str, rows: Rows) -> tuple[str, Rows]:
    """A column less where all rows have the same data."""
    sizes = {row["data"] for row in rows}
    if len(sizes) > 1:
        return title, rows
    return f"{title}, {sizes.pop()} of data", [{**row, "data": ""} for row in rows]


def _peak(records: Sequence[Record]) -> int:
    """The largest peak of memory of some records; 0 where none was measured."""
    return max(record.peak_memory_bytes for record in records)


def _groups(runs: Iterable[Run]) -> list[list[Run]]:
    """Runs that cost the same, together: they differ in the seed or in the learning rate."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(f"{_shape(run)} {run.point.protocol_id} {run.protocol.budget.steps}", []).append(run)
    return list(groups.values())


def _telling_keys(runs: Iterable[Run]) -> list[str]:
    """Grid keys that tell the points apart, without those that move along with an earlier one."""
    points = list({str(run.point.values): run.point.values for run in runs}.values())
    kept: list[str] = []
    for key in dict.fromkeys(key for point in points for key in point):
        pairs = [{(str(point.get(first)), str(point.get(key))) for point in points} for first in kept]
        if not any(len(each) == len({first for first, _ in each}) for each in pairs):
            kept.append(key)
    return kept


def _costs(runs: Iterable[Run], session: Session, trouble: list[str] | None) -> dict[str, Cost]:
    """The cost of each shape of model and batch, each found once, the cheapest first."""
    shapes = {_shape(run): run for run in runs}
    modules: dict[str, tuple[int, BenchModule]] = {}
    for shape, run in shapes.items():
        with _failing(run, session, trouble):
            model = make_model(run).to(session.device)
            model.recompute = session.execution.recompute
            modules[shape] = (step_flops(run, model), BenchModule(model, run.task, run.protocol, ("valid",)))
    clocks: dict[str, _Clock] = {}
    patience = min(PATIENCE, PATIENCE_IN_ALL / max(len({run.choice.label for run in shapes.values()}), 1))
    found = {}
    for shape in sorted(modules, key=lambda shape: modules[shape][0]):
        run, (flops, module) = shapes[shape], modules.pop(shape)
        clock = clocks.setdefault(run.choice.label, _Clock())
        with _failing(run, session, trouble):
            found[shape] = _cost(run, module, flops, clock, session, patience)
    return found


def _cost(run: Run, module: BenchModule, flops: int, clock: _Clock, session: Session, patience: float) -> Cost:
    """What a step costs: timed as long as the variant's share of patience lasts, then scaled."""
    memory, scaled = training_bytes(run, module.to(session.device), session.execution), clock.spent > patience
    if not scaled:
        started = time.perf_counter()
        seconds = _seconds_a_step(run, module, session)
        clock.spent += time.perf_counter() - started
        clock.rate = seconds / max(flops, 1)
    return Cost(module.model.parameter_counts()[0], flops, memory, clock.rate * max(flops, 1), scaled)


@contextmanager
def _failing(run: Run, session: Session, trouble: list[str] | None) -> Iterator[None]:
    """Turn whatever a variant raises into one sentence: raised, or added to `trouble`."""
    try:
        yield
    except Exception as error:
        if session.debug or (trouble is None and isinstance(error, ZetaBenchError)):
            raise
        text = str(error) if isinstance(error, ZetaBenchError) else describe(error, run.choice.source)
        if trouble is not None:
            trouble.append(f"{run.task_name} {run.choice.label}: {text.rstrip('.')}.")
            return
        raise ZetaBenchError(f"{run.name}: {text}; 'zeta-bench --debug run …' shows the traceback.") from error


def _seconds_a_step(run: Run, module: BenchModule, session: Session) -> float:
    """Seconds of one training step here, the second of two; what devices tell each other is not in it."""
    device, size = session.device, run.protocol.budget.batch_size
    examples, sample = run.task.examples("valid"), session.execution.at_once(size)
    sample = sample if session.accelerated else min(sample, SAMPLE)
    batch = {key: value.to(device) for key, value in examples.batch(torch.arange(sample) % len(examples)).items()}
    seconds = 0.0
    for _ in range(2):
        start = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=run.protocol.precision == "bf16"):
            loss = F.cross_entropy(module.logits(batch).float(), module.labels(batch))
        loss.backward()
        loss.item()
        if session.accelerated:
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - start
    return seconds * size / sample / session.execution.world


def _row(group: list[Run], telling: Sequence[str], cost: Cost, seconds: float, done: int) -> dict[str, Any]:
    run = group[0]
    same = [key for key in telling if len({str(each.point.values.get(key)) for each in group}) == 1]
    return {
        "variant": run.choice.label,
        "point": " ".join(
            f"{key.rpartition('.')[2]}={run.point.values[key]}" for key in same if key in run.point.values
        ),
        "runs": len(group),
        "parameters": _millions(cost.parameters),
        "FLOPs": f"{cost.flops * run.protocol.budget.steps:.1e}",
        "data": f"{run.task.nbytes() / 2**20:.0f} MiB",
        "memory": _bytes(cost.memory),
        "time a run": ("~" if cost.scaled else "") + duration(seconds),
        "done": done or "",
    }


def _shape(run: Run) -> str:
    """What a step's cost depends on."""
    protocol = run.protocol
    return f"{run.task_name} {protocol.data} {protocol.backbone} {protocol.budget.batch_size} {run.choice.label}"


def cell_of(run: Run) -> str:
    """What runs share that differ in the seed alone: protocol, point of its grid, variant and settings."""
    return _cell(run.point.protocol_id, run.point.values, run.choice.label)


def cell_of_record(record: Record) -> str:
    """As `cell_of`."""
    return _cell(record.protocol, record.point, label(record.variant, record.settings))


def _cell(protocol: str, point: dict[str, Any], variant: str) -> str:
    return f"{protocol} {sorted(point.items())} {variant}"


def _finished(record: Record | None) -> bool:
    return record is not None and record.finished


def _millions(number: int) -> str:
    return f"{number / 1e6:.2f} M" if number >= 1e5 else f"{number / 1e3:.1f} k"


def _bytes(number: int) -> str:
    for unit, power in (("GiB", 30), ("MiB", 20)):
        if number >= 2**power:
            return f"{number / 2**power:.3g} {unit}"
    return f"{number / 2**10:.0f} KiB"


def duration(seconds: float) -> str:
    """``45 s``, ``12 min`` or ``3.5 h``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
