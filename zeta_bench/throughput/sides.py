"""Two ways to train one model, timed: as ``zeta-bench run`` does it, and as a bare PyTorch loop would.

Both have the same model, optimiser, schedule, clipping and precision. The bare loop gets batches that lie on the device
already, and does nothing else: what the run takes longer is the price of reading data, of Lightning, and of what makes
runs exact (random numbers a step, a look at the loss, requests to stop).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytorch_lightning as pl
import torch

from zeta_bench.callbacks import Checkpoint, Watch
from zeta_bench.data import BenchDataModule
from zeta_bench.execution import make_trainer
from zeta_bench.plan import Run
from zeta_bench.run import Session, make_model
from zeta_bench.throughput.bare import BareLoop, batches
from zeta_bench.training import BenchModule

WARM_UP = 10
"""Steps before the clock is started."""
HELD = 16
"""Batches that the bare loop goes round in."""


class _Timed(pl.Callback):
    """Seconds from the end of the warm-up to the end of the last step."""

    def __init__(self, device: torch.device, steps: int) -> None:
        self.device, self.steps, self.seconds, self._begun = device, steps, 0.0, 0.0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look at the clock once the device has done its work."""
        if trainer.global_step == WARM_UP:
            self._begun = _now(self.device)
        elif trainer.global_step == WARM_UP + self.steps:
            self.seconds = _now(self.device) - self._begun


def suite(run: Run, session: Session, steps: int) -> float:
    """Seconds a step of ``zeta-bench run``, without evaluations; reading the data is in it."""
    run = _shortened(run, WARM_UP + steps)
    timed = _Timed(session.device, steps)
    module = BenchModule(make_model(run), run.task, run.protocol, ("valid",))
    size = run.protocol.budget.batch_size
    data = BenchDataModule(
        run.task, batch_size=size, steps=WARM_UP + steps, seed=run.seed, eval_splits=module.eval_splits
    )
    with TemporaryDirectory() as folder, session.stop:
        state = Checkpoint(Path(folder) / "state.ckpt", session.stop)
        callbacks = [state, Watch(lambda step, row: None), timed]
        trainer = make_trainer(run, session.execution, callbacks, accelerated=session.accelerated)
        trainer.fit(module, datamodule=data)
    return timed.seconds / steps


def bare(run: Run, session: Session, steps: int) -> float:
    """Seconds a step of a loop that does nothing but train."""
    run = _shortened(run, WARM_UP + steps)
    loop = BareLoop(run, session)
    held = [loop.moved(batch) for batch in batches(run, HELD)]
    begun = 0.0
    for step, batch in enumerate(itertools.islice(itertools.cycle(held), WARM_UP + steps)):
        if step == WARM_UP:
            begun = loop.now()
        loop.step(batch)
    return (loop.now() - begun) / steps


def reading(run: Run, session: Session, steps: int) -> float:
    """Seconds a batch takes to read, alone: what the data path would cost if nothing hid it."""
    read = batches(run, WARM_UP + steps)
    for _ in itertools.islice(read, WARM_UP):
        pass
    begun = time.perf_counter()
    for _ in read:
        pass
    return (time.perf_counter() - begun) / steps


SIDES: dict[str, Callable[[Run, Session, int], float]] = {"suite": suite, "bare": bare, "reading": reading}
"""What is timed, by name; each takes a run, a session and a number of steps."""


def _shortened(run: Run, steps: int) -> Run:
    """The run with so many steps and no evaluation among them, which a run's own clock leaves out, too."""
    protocol = run.protocol
    budget = protocol.budget.model_copy(update={"steps": steps, "eval_every": steps + 1})
    return replace(run, point=replace(run.point, protocol=protocol.model_copy(update={"budget": budget})))


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
