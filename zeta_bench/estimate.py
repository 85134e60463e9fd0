"""What a plan would cost: parameters, FLOPs, data, time."""

from __future__ import annotations

import time
from typing import Any

import torch

from zeta_bench.backbone import Model
from zeta_bench.registry import label
from zeta_bench.run import Run, Session, make_model, step_flops
from zeta_bench.training import BenchModule


def estimates(runs: list[Run], session: Session) -> list[dict[str, Any]]:
    """One row a run.

    The time is that of the run's own record or of another seed's, where there is one; otherwise one step is timed
    here for each variant and scaled by FLOPs to the other points of the grid.
    """
    recorded = {
        (r.protocol, str(r.point), label(r.variant, r.settings)): r.seconds
        for r in session.store.records("run")
        if r.finished and r.device_class == session.device_class
    }
    rates: dict[str, float] = {}
    rows = []
    for run in runs:
        model = make_model(run)
        flops = step_flops(run, model)
        seconds = recorded.get((run.point.protocol_id, str(run.point.values), run.choice.label))
        source = "record"
        if seconds is None:
            if run.choice.label not in rates:
                rates[run.choice.label] = _seconds_a_step(run, model, session) / max(flops, 1)
            seconds = rates[run.choice.label] * max(flops, 1) * run.protocol.budget.steps
            source = "one step timed"
        done = session.store.find(run.run_id(session.device_class))
        rows.append(
            _row(run, model, flops, f"{_duration(seconds)} ({source})", "yes" if done and done.finished else "no")
        )
    return rows


def _row(run: Run, model: Model, flops: int, duration: str, done: str) -> dict[str, Any]:
    total, inner = model.parameter_counts()
    return {
        "task": run.task_name,
        "protocol": run.point.protocol_id,
        "point": " ".join(f"{key}={value}" for key, value in run.point.values.items()),
        "variant": run.choice.label,
        "seed": run.seed,
        "parameters": f"{total / 1e6:.2f} M ({inner / 1e6:.2f} M without embedding)",
        "FLOPs": f"{flops * run.protocol.budget.steps:.2e}",
        "data": f"{run.task.nbytes() / 2**20:.0f} MiB",
        "time": duration,
        "done": done,
    }


def _seconds_a_step(run: Run, model: Model, session: Session) -> float:
    """Seconds of one training step here, the second of two."""
    device = torch.device("cuda" if session.accelerated else "cpu")
    module = BenchModule(model, run.task, run.protocol, ("valid",)).to(device)
    size = run.protocol.budget.batch_size
    batch = run.task.examples("valid").batch(torch.arange(size) % len(run.task.examples("valid")))
    batch = {key: value.to(device) for key, value in batch.items()}
    seconds = 0.0
    for _ in range(2):
        start = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=run.protocol.precision == "bf16"):
            loss = module.training_step(batch, 0)
        loss.backward()
        loss.item()
        seconds = time.perf_counter() - start
    return seconds


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
