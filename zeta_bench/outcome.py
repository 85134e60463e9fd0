"""What came of a run: its status, and the record that says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zeta_bench import provenance
from zeta_bench.plan import Run
from zeta_bench.records import Record, Status, make_run_id
from zeta_bench.training import BenchModule
from zeta_bench.utilisation import utilisation

if TYPE_CHECKING:
    from zeta_bench.run import Session

STUCK_MARGIN = 0.1
"""A run is stuck at chance if its best figure has not covered a tenth of the way from chance to perfect."""


@dataclass
class Outcome:
    """What is known of a run when it ends, however it ends."""

    status: Status = "failed"
    reason: str = ""
    module: BenchModule | None = None
    steps: int = 0
    flops: int = 0
    peak_memory: int = 0
    impl: str = "torch"
    analysis: dict[str, Any] | None = None


def judge(module: BenchModule, run: Run) -> tuple[Status, str]:
    """Status of a finished run: stuck-at-chance if the metric never came a tenth of the way from chance to perfect.

    A perplexity a token is perfect at 1, and its way there is that of its logarithm.
    """
    metric, chance = run.protocol.metric, run.task.chance()
    values = [row[f"{module.eval_splits[0]}_{metric}"] for row in module.curve]
    falls = metric == "ppl_token"
    if (metric != "accuracy" and not falls) or not values:
        return "ok", ""
    bound = chance ** (1 - STUCK_MARGIN) if falls else chance + STUCK_MARGIN * (1 - chance)
    best = min(values) if falls else max(values)
    if (best <= bound) if falls else (best >= bound):
        return "ok", ""
    return "stuck-at-chance", f"best {metric} {best:.4f} never reached {bound:.4f} (chance is {chance:.4f})"


def make_record(run: Run, session: Session, found: Outcome, started: str) -> Record:
    """The record of a run that has ended, with its provenance."""
    module, protocol = found.module, run.protocol
    cls = run.choice.variant.load()
    parameters, inner = module.model.parameter_counts() if module else (0, 0)
    steps = found.steps or (int(module.curve[-1]["step"]) if module and module.curve else 0)
    tokens = steps * protocol.budget.batch_size * run.task.shape().max_len
    seconds = module.seconds if module else 0.0
    return Record(
        run_id=run.run_id(session.device_class),
        kind="run",
        status=found.status,
        reason=found.reason,
        task=run.task_name,
        task_version=run.task.version,
        protocol=run.point.protocol_id,
        point=run.point.values,
        variant=run.choice.name,
        variant_version=cls.version,
        settings=dict(run.choice.settings),
        config=run.config,
        seed=run.seed,
        metric=protocol.metric,
        higher_is_better=protocol.higher_is_better,
        metrics={split: dict(score.values) for split, score in module.scores.items()} if module else {},
        slices={split: score.slices for split, score in module.scores.items() if score.slices} if module else {},
        curve=[{**row} for row in module.curve] if module else [],
        chance=run.task.chance(),
        selected_step=module.best["step"] if module else 0,
        steps=steps,
        tokens=tokens,
        seconds=round(seconds, 3),
        compile_seconds=round(module.compile_seconds, 3) if module else 0.0,
        tokens_per_second=round(tokens / seconds, 1) if seconds else 0.0,
        mfu=_mfu(found, protocol.precision, seconds / max(steps, 1), session),
        peak_memory_bytes=found.peak_memory,
        parameters=parameters,
        parameters_without_embedding=inner,
        flops=found.flops,
        impl=found.impl,
        direction="causal" if run.causal else "bidirectional",
        precision=protocol.precision,
        devices=session.execution.world,
        execution=session.execution.told,
        code_digest=provenance.code_digest(cls),
        data_digest=run.task.digest(),
        command=run.command,
        started_at=started,
        **provenance.fields(session.accelerated),
    )


def _mfu(found: Outcome, precision: str, seconds: float, session: Session) -> float | None:
    """Model FLOPs utilisation of a run whose steps took so many seconds each, to four digits."""
    device = provenance.device_class(session.accelerated)
    share = utilisation(found.flops, seconds, device, precision, session.execution.world)
    return None if share is None else round(share, 4)


def make_analysis(record: Record, payload: dict[str, Any]) -> Record:
    """The same provenance, with what the trained model's layers do instead of what it scored."""
    empty: dict[str, Any] = {"metrics": {}, "slices": {}, "curve": []}
    identity = make_run_id(analysis="diagnose", run=record.run_id)
    return record.model_copy(update={"kind": "analysis", "run_id": identity, "payload": payload, **empty})
