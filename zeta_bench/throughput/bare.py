"""A bare PyTorch loop: what a training script does, and nothing of Lightning or of our training module."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from zeta_bench.backbone import Model
from zeta_bench.data import BatchStream
from zeta_bench.evaluation import LOGITS
from zeta_bench.optimizer import make_optimizer
from zeta_bench.plan import Run
from zeta_bench.run import Session, make_model
from zeta_bench.task import Batch, select_labelled


class BareLoop:
    """The model of a run with its optimiser, schedule, clipping and precision.

    Args:
        run: what is trained.
        session: where.
    """

    def __init__(self, run: Run, session: Session) -> None:
        self.run, self.device = run, session.device
        self.model = make_model(run).to(self.device).train()
        self.optimizer, self.scheduler = make_optimizer(self.model, run.protocol, self.device)

    def step(self, batch: Batch) -> None:
        """Train on one batch, which lies on the device."""
        with self._precision():
            logits = logits_of(self.model, batch)
            labels = batch["labels"][select_labelled(batch)] if self.model.shape.head == "lm" else batch["labels"]
            loss = F.cross_entropy(logits.float(), labels)
        self.optimizer.zero_grad()
        loss.backward()
        if clip := self.run.protocol.optim.grad_clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), clip)
        self.optimizer.step()
        self.scheduler.step()

    @torch.no_grad()
    def score(self) -> float:
        """The protocol's metric on the test split by the model as it is; it may be trained further afterwards."""
        examples, meter = self.run.task.examples("test"), self.run.task.meter().to(self.device)
        shape, size = self.model.shape, self.run.protocol.budget.batch_size
        if shape.head == "lm":  # few windows at a time, so that few logits lie there
            size = min(size, max(LOGITS // (shape.outputs * shape.max_len), 1))
        self.model.eval()
        for indices in torch.arange(len(examples)).split(size):
            batch = self.moved(examples.batch(indices))
            with self._precision():
                logits = logits_of(self.model, batch)
            meter.update(logits.float(), batch)
        self.model.train()
        return meter.compute().values[self.run.protocol.metric]

    def moved(self, batch: Batch) -> Batch:
        """A batch on the device."""
        return {key: value.to(self.device) for key, value in batch.items()}

    def now(self) -> float:
        """The time, once the device has done its work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.run.protocol.precision == "bf16")


def logits_of(model: Model, batch: Batch) -> Tensor:
    """Logits at the places that count."""
    where = select_labelled(batch) if model.shape.head == "lm" else None
    return model(batch["inputs"], batch.get("valid"), where)


def batches(run: Run, count: int) -> Iterator[Batch]:
    """The first batches of a run, in its order, on the CPU."""
    examples = run.task.examples("train")
    stream = BatchStream(len(examples), run.protocol.budget.batch_size, seed=run.seed, steps=count)
    return (examples.batch(indices) for indices in stream)
