"""What a plan would cost: parameters, FLOPs, data, time."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import functional as F

from zeta_bench.plan import Run
from zeta_bench.records import Record
from zeta_bench.registry import label
from zeta_bench.run import Session, make_model, step_flops
from zeta_bench.training import BenchModule

PATIENCE = 15.0
"""Seconds spent on timing steps of one variant; what is left then is scaled by FLOPs from the largest step timed."""

SAMPLE = 32
"""Sequences of a timed step on a CPU, where time grows with them; a GPU gets the whole batch."""

Rows = list[dict[str, Any]]


@dataclass
class Cost:
    """What one step of a model costs.

    Attributes:
        parameters: trainable ones, and those outside the embedding.
        flops: of the matrix products of a step.
        seconds: of a step.
        source: how the seconds were found: timed · scaled.
    """

    parameters: tuple[int, int]
    flops: int
    seconds: float
    source: str


@dataclass
class _Clock:
    """Time spent on a variant so far, and its last timed step as seconds a FLOP."""

    spent: float = 0.0
    rate: float = 0.0
    known: dict[str, Cost] = field(default_factory=dict)


def estimates(runs: Sequence[Run], session: Session) -> tuple[list[tuple[str, Rows]], str]:
    """A title and a table for each task and protocol, one row a variant and point; and a sentence about the whole.

    The time is that of a record of the same point, of whatever seed, where there is one; otherwise a step is timed.
    """
    recorded = {
        _cell(r.protocol, r.point, label(r.variant, r.settings)): r
        for r in session.store.records("run")
        if r.status in ("ok", "stuck-at-chance") and r.device_class == session.device_class
    }
    costs = _costs(runs, session)
    tables: dict[str, Rows] = {}
    total, waiting = 0.0, 0
    for group in _groups(runs):
        done = sum(_finished(session.store.find(run.run_id(session.device_class))) for run in group)
        row, seconds = _row(group, costs[_shape(group[0])], recorded.get(_cell_of(group[0])), done)
        tables.setdefault(f"{group[0].task_name}, protocol {group[0].point.protocol_id}", []).append(row)
        total, waiting = total + (len(group) - done) * seconds, waiting + len(group) - done
    return list(
        tables.items()
    ), f"{_many(len(runs))}, {waiting} without a record: about {_duration(total)} of training here."


def _groups(runs: Iterable[Run]) -> list[list[Run]]:
    """Runs that differ in the seed alone, together."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(f"{run.task_name} {_cell_of(run)}", []).append(run)
    return list(groups.values())


def _costs(runs: Iterable[Run], session: Session) -> dict[str, Cost]:
    """The cost of each shape of model and batch, each found once, the cheapest first."""
    shapes = {_shape(run): run for run in runs}
    models = {shape: make_model(run) for shape, run in shapes.items()}
    flops = {shape: step_flops(run, models[shape]) for shape, run in shapes.items()}
    clocks: dict[str, _Clock] = {}
    found = {}
    for shape in sorted(shapes, key=lambda shape: flops[shape]):
        run, model = shapes[shape], models.pop(shape)
        clock = clocks.setdefault(run.choice.label, _Clock())
        source = "timed" if clock.spent < PATIENCE or not clock.rate else "scaled"
        if source == "timed":
            started = time.perf_counter()
            seconds = _seconds_a_step(run, BenchModule(model, run.task, run.protocol, ("valid",)), session)
            clock.spent += time.perf_counter() - started
            clock.rate = seconds / max(flops[shape], 1)
        found[shape] = Cost(model.parameter_counts(), flops[shape], clock.rate * max(flops[shape], 1), source)
    return found


def _seconds_a_step(run: Run, module: BenchModule, session: Session) -> float:
    """Seconds of one training step here, the second of two."""
    device = torch.device("cuda" if session.accelerated else "cpu")
    module = module.to(device)
    examples, size = run.task.examples("valid"), run.protocol.budget.batch_size
    sample = size if session.accelerated else min(size, SAMPLE)
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
    return seconds * size / sample


def _row(group: list[Run], cost: Cost, record: Record | None, done: int) -> tuple[dict[str, Any], float]:
    """A row, and the seconds of one of its runs."""
    run, (total, inner) = group[0], cost.parameters
    steps = run.protocol.budget.steps
    seconds, source = (cost.seconds * steps, cost.source) if record is None else (record.seconds, "record")
    row = {
        "variant": run.choice.label,
        "point": " ".join(f"{key.rpartition('.')[2]}={value}" for key, value in run.point.values.items()),
        "seeds": ", ".join(str(each.seed) for each in group),
        "parameters": f"{_millions(total)} ({_millions(inner)} without embedding)",
        "FLOPs": f"{cost.flops * steps:.1e}",
        "data": f"{run.task.nbytes() / 2**20:.0f} MiB",
        "time a run": f"{_duration(seconds)} ({source})",
        "have a record": f"{done} of {len(group)}",
    }
    return row, seconds


def _shape(run: Run) -> str:
    """What a step's cost depends on."""
    protocol = run.protocol
    return f"{run.task_name} {protocol.data} {protocol.backbone} {protocol.budget.batch_size} {run.choice.label}"


def _cell_of(run: Run) -> str:
    return _cell(run.point.protocol_id, run.point.values, run.choice.label)


def _cell(protocol: str, point: dict[str, Any], variant: str) -> str:
    return f"{protocol} {sorted(point.items())} {variant}"


def _finished(record: Record | None) -> bool:
    return record is not None and record.finished


def _many(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"


def _millions(number: int) -> str:
    return f"{number / 1e6:.2f} M" if number >= 1e5 else f"{number / 1e3:.1f} k"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
