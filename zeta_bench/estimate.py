"""What a plan would cost: parameters, FLOPs, data, time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from zeta_bench.errors import ZetaBenchError
from zeta_bench.plan import Run
from zeta_bench.records import Record
from zeta_bench.registry import label
from zeta_bench.run import Session, make_model, step_flops
from zeta_bench.training import BenchModule
from zeta_bench.userfile import describe

PATIENCE = 15.0
"""Seconds spent on timing steps of one variant; what is left then is scaled by FLOPs from the largest step timed."""

SAMPLE = 32
"""Sequences of a timed step on a CPU, where time grows with them; a GPU gets the whole batch."""

Rows = list[dict[str, Any]]


@dataclass
class Cost:
    """What one step of a model costs.

    Attributes:
        parameters: trainable ones.
        flops: of the matrix products of a step.
        seconds: of a step.
        scaled: the seconds come from a smaller model's step by FLOPs; otherwise they were timed.
    """

    parameters: int
    flops: int
    seconds: float
    scaled: bool


@dataclass
class _Clock:
    """Time spent on a variant so far, and its last timed step as seconds a FLOP."""

    spent: float = 0.0
    rate: float = 0.0


def estimates(runs: Sequence[Run], session: Session) -> tuple[list[tuple[str, Rows]], str]:
    """A title and a table for each task and protocol, one row for runs that cost the same; a sentence about the whole.

    The time is that of a record of the same point, of whatever seed, where there is one; otherwise a step is timed.
    """
    recorded = {
        _cell(r.protocol, r.point, label(r.variant, r.settings)): r.seconds
        for r in session.store.records("run")
        if r.status in ("ok", "stuck-at-chance") and r.device_class == session.device_class
    }
    costs = _costs(runs, session)
    telling = _telling_keys(runs)
    tables: dict[str, Rows] = {}
    total, waiting = 0.0, 0
    for group in _groups(runs):
        run, cost = group[0], costs[_shape(group[0])]
        known = [recorded[cell] for each in group if (cell := _cell_of(each)) in recorded]
        seconds = statistics.median(known) if known else cost.seconds * run.protocol.budget.steps
        done = sum(_finished(session.store.find(each.run_id(session.device_class))) for each in group)
        row = _row(group, telling, cost, ("~" if cost.scaled and not known else "") + _duration(seconds), done)
        tables.setdefault(f"{run.task_name}, protocol {run.point.protocol_id}", []).append(row)
        total, waiting = total + (len(group) - done) * seconds, waiting + len(group) - done
    found = f"{len(runs)} run{'' if len(runs) == 1 else 's'}, {waiting} without a record"
    return list(tables.items()), f"{found}: about {_duration(total)} of training here."


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


def _costs(runs: Iterable[Run], session: Session) -> dict[str, Cost]:
    """The cost of each shape of model and batch, each found once, the cheapest first."""
    shapes = {_shape(run): run for run in runs}
    looked = {}
    for shape, run in shapes.items():
        with _failing(run, session):
            model = make_model(run).to(session.device)
            looked[shape] = (step_flops(run, model), model)
    clocks: dict[str, _Clock] = {}
    found = {}
    for shape in sorted(shapes, key=lambda shape: looked[shape][0]):
        run, (flops, model) = shapes[shape], looked.pop(shape)
        clock = clocks.setdefault(run.choice.label, _Clock())
        scaled = clock.spent > PATIENCE
        if not scaled:
            started = time.perf_counter()
            with _failing(run, session):
                seconds = _seconds_a_step(run, BenchModule(model, run.task, run.protocol, ("valid",)), session)
            clock.spent += time.perf_counter() - started
            clock.rate = seconds / max(flops, 1)
        found[shape] = Cost(model.parameter_counts()[0], flops, clock.rate * max(flops, 1), scaled)
    return found


@contextmanager
def _failing(run: Run, session: Session) -> Iterator[None]:
    """Turn whatever a variant raises into one sentence."""
    try:
        yield
    except Exception as error:
        if isinstance(error, ZetaBenchError) or session.debug:
            raise
        text = describe(error, run.choice.source)
        raise ZetaBenchError(f"{run.name}: {text}; 'zeta-bench --debug run …' shows the traceback.") from error


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


def _row(group: list[Run], telling: Sequence[str], cost: Cost, duration: str, done: int) -> dict[str, Any]:
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
        "time a run": duration,
        "recorded": done or "",
    }


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


def _millions(number: int) -> str:
    return f"{number / 1e6:.2f} M" if number >= 1e5 else f"{number / 1e3:.1f} k"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
