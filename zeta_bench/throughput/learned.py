"""What is learned: a run's score on the test split beside that of a bare PyTorch loop trained to the end.

Both have the same model, batches in the same order, optimiser, schedule, clipping and precision. So without dropout
they score the same but for rounding; with dropout they draw other random numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from zeta_bench.console import err, print_ended
from zeta_bench.plan import Run
from zeta_bench.progress import Progress
from zeta_bench.records import Record
from zeta_bench.run import Session, execute
from zeta_bench.series import GOOD, known
from zeta_bench.throughput.bare import BareLoop, batches


@dataclass(frozen=True)
class Learned:
    """What came of one side.

    Attributes:
        value: the protocol's metric on the test split; None = not a finite number.
        tokens_per_second: of training, over the whole of it.
    """

    value: float | None
    tokens_per_second: float


def learn(run: Run, session: Session, name: str, *, force: bool) -> dict[str, Learned]:
    """Both sides, by name; nothing if the run did not come to its end, which is told.

    Args:
        run: what is trained.
        session: where; the run's record is taken from its store, or written there.
        name: what a terminal calls it.
        force: train the run again even where it has a record.
    """
    record = _by_run(run, session, name, force=force)
    if record.status not in GOOD:
        print_ended(name, record, session.checkpoint(run))
        return {}
    suite = Learned(record.value, record.tokens_per_second)
    try:
        return {"suite": suite, "bare": _by_bare_loop(run, session, name, record)}
    except torch.OutOfMemoryError:
        err(f"{name}: the bare loop ran out of memory.")
        return {"suite": suite}


def _by_run(run: Run, session: Session, name: str, *, force: bool) -> Record:
    """The record of ``zeta-bench run`` on one device; trained now where there is none, going on from a stopped one."""
    record = None if force else known(run, session)
    if record is not None and record.devices == 1 and not record.execution:
        return record
    session.resume = not force
    with Progress(f"{name}, as 'run' trains it", run.protocol.budget.steps) as progress:
        record = execute(run, session, progress.update)
    if record.status == "interrupted":
        raise KeyboardInterrupt
    return record


def _by_bare_loop(run: Run, session: Session, name: str, record: Record) -> Learned:
    """Train for as many steps as the run did, and score at the step that it selected."""
    loop = BareLoop(run, session)
    value, seconds, since = math.nan, 0.0, loop.now()
    with Progress(f"{name}, as a bare loop trains it", record.steps) as progress:
        for step, batch in enumerate(batches(run, record.steps), 1):
            loop.step(loop.moved(batch))
            if step in (record.selected_step, record.steps):
                seconds += loop.now() - since
                value = loop.score() if step == record.selected_step else value
                since = loop.now()
            progress.update(step, None)
    tokens = record.steps * run.protocol.budget.batch_size * run.task.shape().max_len
    return Learned(value if math.isfinite(value) else None, tokens / seconds)
