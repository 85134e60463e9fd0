"""The variants of one command: both sides of each timed in turn, recorded, and told as they go."""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime

from zeta_bench import provenance
from zeta_bench.console import STDOUT, ctrl_c, err, out
from zeta_bench.plan import Run
from zeta_bench.records import Record, Status, Store, make_run_id
from zeta_bench.report.text import si
from zeta_bench.report.throughput import TASK
from zeta_bench.run import Session, make_model, step_flops, verdict
from zeta_bench.throughput.learned import Learned, learn
from zeta_bench.throughput.sides import SIDES
from zeta_bench.utilisation import utilisation


@dataclass(frozen=True)
class Procedure:
    """How both sides are timed.

    Attributes:
        steps: timed ones, behind the warm-up.
        rounds: each side this often, in turn, so that a machine that slows down slows both.
        to_the_end: also train both to the end of the protocol, and score them.
    """

    steps: int
    rounds: int
    to_the_end: bool = False


def run_throughput(
    runs: Sequence[Run], session: Session, procedure: Procedure, store: Store, *, force: bool
) -> list[Record]:
    """Measure what has no record yet; a variant that does not run is recorded as such, and the others go on."""
    done = []
    for number, run in enumerate(runs, 1):
        name = f"[{number}/{len(runs)}] {run.task_name} {run.choice.label}"
        old = store.find(run_id(run, session), "bench")
        if old is not None and not force and _same_way(old, procedure):
            out(f"{name}: has a record ({old.status}); --force measures it again.")
            done.append(old)
            continue
        learned = learn(run, session, name, force=force) if procedure.to_the_end else {}
        with STDOUT.status(name) if STDOUT.is_terminal else nullcontext():
            record = measure(run, session, procedure, learned)
        if ctrl_c.pressed:
            raise KeyboardInterrupt
        store.write(record)
        done.append(record)
        if record.status == "ok":
            out(f"{name}: {told(record)}")
        else:
            err(f"{name}: {record.status} ({record.reason}).")
    return done


def _same_way(record: Record, procedure: Procedure) -> bool:
    """Whether a record has all that is asked for."""
    same = (record.payload["steps"], record.payload["rounds"]) == (procedure.steps, procedure.rounds)
    return same and (not procedure.to_the_end or record.payload.get("scored") in record.metrics.get("bare", {}))


def measure(run: Run, session: Session, procedure: Procedure, learned: Mapping[str, Learned] | None = None) -> Record:
    """Time one variant; `learned`: what both sides scored, which goes into the record, too."""
    started = datetime.now(UTC).isoformat(timespec="seconds")
    status: Status = "ok"
    reason = ""
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    try:
        for _ in range(procedure.rounds):
            for side, timed in SIDES.items():
                seconds[side].append(timed(run, session, procedure.steps))
    except Exception as error:
        status, reason = verdict(error, run, session)
        if status == "interrupted":
            raise KeyboardInterrupt from None
        seconds = {}
    metrics = {side: _figures(values) for side, values in seconds.items()}
    for side, each in (learned or {}).items():
        ends: dict[str, float | None] = {run.protocol.metric: each.value, "tokens_per_second": each.tokens_per_second}
        metrics[side] = metrics.get(side, {}) | ends
    return _record(run, session, procedure, metrics, started, status, reason)


def run_id(run: Run, session: Session) -> str:
    """Hash of what identifies a measurement."""
    return make_run_id(kind="bench", task=TASK, run=run.run_id(session.device_class))


def told(record: Record) -> str:
    """``12.3 ms a step, a bare loop 11.0 ms: 89 % of its rate; reading a batch 0.4 ms; 1.2M tokens/s, MFU 31.0 %``.

    In front of it, if both were trained to the end: ``ppl_token 7.03, a bare loop 7.03``.
    """
    suite, bare, reading = (record.metrics[side]["ms"] or 0.0 for side in SIDES)
    rate = si(1000 * record.payload["tokens"] / suite)
    return (
        f"{_ends(record)}{suite:.4g} ms a step, a bare loop {bare:.4g} ms: {100 * bare / suite:.0f} % of its rate; "
        f"reading a batch {reading:.3g} ms; {rate} tokens/s"
        + ("" if record.mfu is None else f", MFU {100 * record.mfu:.1f} %")
    )


def _ends(record: Record) -> str:
    name = record.payload["scored"]
    if name not in record.metrics["bare"]:
        return ""
    suite, bare = (record.metrics[side][name] for side in ("suite", "bare"))
    written = ["no number" if value is None else f"{value:.6g}" for value in (suite, bare)]
    return f"{name} {written[0]}, a bare loop {written[1]}; "


def _record(
    run: Run,
    session: Session,
    procedure: Procedure,
    metrics: dict[str, dict[str, float | None]],
    started: str,
    status: Status,
    reason: str,
) -> Record:
    cls = run.choice.variant.load()
    size, length = run.protocol.budget.batch_size, run.task.shape().max_len
    flops = step_flops(run, make_model(run).to(session.device)) if status == "ok" else 0
    seconds = (metrics.get("suite", {}).get("ms") or 0.0) / 1000
    share = utilisation(flops, seconds, session.device_class, run.protocol.precision)
    return Record(
        run_id=run_id(run, session),
        kind="bench",
        status=status,
        reason=reason,
        task=TASK,
        protocol=run.point.protocol_id,
        point={"task": run.task_name, **run.point.values},
        variant=run.choice.name,
        variant_version=cls.version,
        settings=dict(run.choice.settings),
        config=run.config,
        seed=run.seed,
        metric="ms",
        higher_is_better=False,
        metrics=metrics,
        steps=procedure.steps,
        direction="causal" if run.causal else "bidirectional",
        precision=run.protocol.precision,
        code_digest=provenance.code_digest(cls),
        data_digest=run.task.digest(),
        command=command(run, procedure),
        started_at=started,
        payload={
            "steps": procedure.steps,
            "rounds": procedure.rounds,
            "batch_size": size,
            "length": length,
            "tokens": size * length,
            "scored": run.protocol.metric,
        },
        flops=flops,
        mfu=None if share is None else round(share, 4),
        **provenance.fields(session.accelerated),
    )


def command(run: Run, procedure: Procedure) -> str:
    """The command that repeats one measurement."""
    words = shlex.split(run.command)
    place = words.index("--seed")
    options = ["--steps", str(procedure.steps), "--rounds", str(procedure.rounds)]
    options += ["--to-the-end"] if procedure.to_the_end else []
    return shlex.join(["zeta-bench", TASK, *words[2:place], *options, *words[place + 2 :]])


def _figures(seconds: Sequence[float]) -> dict[str, float | None]:
    """Milliseconds a step: the median over rounds, and the quickest and slowest."""
    ms = [1000 * each for each in seconds]
    return {"ms": statistics.median(ms), "ms_low": min(ms), "ms_high": max(ms)}
