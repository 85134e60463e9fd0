"""Training one model: the LightningModule, its optimiser and its schedule."""

from __future__ import annotations

import math
import time
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zeta_bench.backbone import Model
from zeta_bench.errors import ZetaBenchError
from zeta_bench.evaluation import score
from zeta_bench.optimizer import make_optimizer
from zeta_bench.protocol import Protocol
from zeta_bench.task import IGNORE, Batch, BenchTask, Meter, Score, Split, select_labelled

FINITE_CHECK_EVERY = 50
"""Steps between looks at the loss: each look waits for the device."""

NAMED = 8
"""Examples of a bad batch that are named."""

EVALUATION = -1
"""The step that seeds an evaluation's random numbers."""


class Diverged(ZetaBenchError):
    """The loss is no longer a finite number."""


class BenchModule(pl.LightningModule):
    """Trains a `Model` by cross-entropy at the labelled places and keeps the curve.

    Args:
        model: the network.
        task: scores it.
        protocol: optimiser, budget and selection.
        eval_splits: splits scored at each evaluation, as in the data module.
        micro_batch: sequences that go through the model at once while it trains; None = the whole batch.

    Attributes:
        origin: kept in checkpoints, so that `zeta_bench.trained` can make the model again; plain types.
    """

    def __init__(
        self,
        model: Model,
        task: BenchTask,
        protocol: Protocol,
        eval_splits: tuple[Split, ...],
        micro_batch: int | None = None,
    ) -> None:
        super().__init__()
        self.model, self.protocol, self.eval_splits, self.micro_batch = model, protocol, eval_splits, micro_batch
        self.meters = nn.ModuleDict({split: task.meter() for split in (*eval_splits, "test")})
        self.curve: list[dict[str, float]] = []
        self.scores: dict[Split, Score] = {}
        self.best: dict[str, Any] = {"step": -1, "value": None}
        self.seconds, self.compile_seconds, self.compiled = 0.0, 0.0, False
        self._since: float | None = None
        self.origin: dict[str, Any] = {}
        self._loss_sum = torch.tensor(0.0)
        self._loss_count = 0
        self._bad_step = torch.tensor(-1)

    def logits(self, batch: Batch) -> Tensor:
        """Logits at the places that count."""
        where = select_labelled(batch) if self.model.shape.head == "lm" else None
        return self.model(batch["inputs"], batch.get("valid"), where)

    def labels(self, batch: Batch) -> Tensor:
        """Labels at the places that count, in the order of `logits`."""
        labels = batch["labels"]
        return labels[labels != IGNORE] if self.model.shape.head == "lm" else labels

    def configure_model(self) -> None:
        """Share the model out among devices, where Lightning's strategy has made a mesh of them."""
        if self.device_mesh is not None:
            from zeta_bench.fsdp import shard

            shard(self.model, self.device_mesh["data_parallel"])

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Mean cross-entropy over the labelled places of the batch; over all devices, where there are several.

        Of a batch that goes through in parts the gradients of all but the last are summed here; the last part's share
        of the loss is returned.
        """
        self.optimizers(use_pl_optimizer=False).zero_grad()  # type: ignore[union-attr]
        parts = self._parts(batch)
        if len(parts) == 1 and self.trainer.world_size == 1:
            loss = F.cross_entropy(self.logits(batch).float(), self.labels(batch))
            self._note(loss.detach())
            return loss
        count = torch.tensor(float(self.labels(batch).numel()))
        if self.trainer.world_size > 1:  # gradients are averaged over devices, whose shares of the labels may differ
            count = self._over_devices(count)
        count, total = count.to(self.device), torch.zeros((), device=self.device)
        for number, part in enumerate(parts, 1):
            loss = F.cross_entropy(self.logits(part).float(), self.labels(part), reduction="sum") / count
            total += loss.detach()
            if number < len(parts):  # DDP averages what has been summed up once, after the last
                with torch.autocast(self.device.type, enabled=False):
                    loss.backward()
        self._note(total)
        return loss

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any) -> None:
        """Nothing: `training_step` has done it, before the first part of the batch."""

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Score one batch of one of the evaluation splits."""
        score(self.meter(self.eval_splits[dataloader_idx]), self.model, batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Score one batch of the test split."""
        score(self.meter("test"), self.model, batch)

    def meter(self, split: str) -> Meter:
        """The meter of a split."""
        return self.meters[split]  # type: ignore[return-value]

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Start the clock at the first step after an evaluation, and make the step's randomness its own."""
        self._reseed(self.global_step, self.global_rank)
        if self._since is None:
            self._since = time.perf_counter()

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Stop a run whose loss is not a number any more; keep the first step of a compiled model apart."""
        if self.compiled and batch_idx == 0:
            before = self.seconds
            self.stop_clock()
            self.compile_seconds, self.seconds = self.compile_seconds + self.seconds - before, before
        if self.global_step % FINITE_CHECK_EVERY == 0:
            self._require_finite()

    def on_train_start(self) -> None:
        """Stop a run that was resumed after it had come above the protocol's bound."""
        self._stop_if_above()

    def on_validation_epoch_start(self) -> None:
        """Stop the clock, evaluation being no training time, and make the evaluation's randomness its own."""
        self.stop_clock()
        self._reseed(EVALUATION, self.global_rank)

    def on_test_epoch_start(self) -> None:
        """Make the randomness of an evaluation its own, as in validation."""
        self._reseed(EVALUATION, self.global_rank)

    def on_validation_epoch_end(self) -> None:
        """Add a row to the curve, and remember whether this is the best step so far."""
        again = bool(self.curve) and self.curve[-1]["step"] == self.global_step
        found = {split: self._take(split) for split in self.eval_splits}
        row: dict[str, float] = self.curve.pop() if again else {"step": self.global_step}
        row["seconds"] = round(self.seconds, 3)
        if self._loss_count:
            self._require_finite()
            row["train_loss"] = self._loss_total() / self._loss_count
            self._loss_sum, self._loss_count = torch.tensor(0.0), 0
        for split, figures in found.items():
            row |= {f"{split}_{name}": value for name, value in figures.values.items()}
        self.curve.append(row)
        self._select(found)

    def on_test_epoch_end(self) -> None:
        """Keep the test split's score."""
        self.scores["test"] = self._take("test")

    def stop_clock(self) -> None:
        """Add the time since the clock was started to `seconds`."""
        if self._since is not None:
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            self.seconds += time.perf_counter() - self._since
            self._since = None

    def configure_optimizers(self) -> Any:
        """AdamW and its schedule, as the protocol says."""
        optimizer, scheduler = make_optimizer(self.model, self.protocol, self.device)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what an exact continuation needs, in plain types, so that `weights_only` loads it."""
        self.stop_clock()
        checkpoint["zeta_bench"] = {
            "protocol": self.protocol.digest,
            "devices": self.trainer.world_size,
            "origin": self.origin,
            "curve": self.curve,
            "best": self.best,
            "scores": {split: vars(score) for split, score in self.scores.items()},
            "seconds": self.seconds,
            "loss_sum": self._loss_total(),
            "loss_count": self._loss_count,
        }
        checkpoint["loops"] = {"fit_loop": _whole_steps(checkpoint["loops"]["fit_loop"], self.global_step)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up what `on_save_checkpoint` kept."""
        kept = checkpoint["zeta_bench"]
        self.curve, self.best, self.seconds = list(kept["curve"]), dict(kept["best"]), kept["seconds"]
        self.scores = {split: Score(**score) for split, score in kept["scores"].items()}
        self._loss_sum, self._loss_count = torch.tensor(kept["loss_sum"]), kept["loss_count"]

    def _take(self, split: str) -> Score:
        score = self.meter(split).compute()
        self.meter(split).reset()
        return score

    def _select(self, found: dict[Split, Score]) -> None:
        rule, metric = self.protocol.select, self.protocol.metric
        if rule.split not in found:
            return
        value = found[rule.split].values[metric]
        sign = 1 if self.protocol.higher_is_better else -1
        better = self.best["value"] is None or sign * value > sign * self.best["value"]
        if rule.step == "last" or better:
            self.best = {"step": self.global_step, "value": value}
            self.scores |= found
        self._stop_if_above()

    def _stop_if_above(self) -> None:
        bound, key = self.protocol.budget.stop_above, f"{self.protocol.select.split}_{self.protocol.metric}"
        if bound is not None and self.curve and self.curve[-1].get(key, -math.inf) > bound:
            self.trainer.should_stop = True

    def _reseed(self, step: int, rank: int) -> None:
        """Random numbers as a function of (seed, step, device): the same after a resume, whatever else drew some."""
        seed = getattr(self.trainer.datamodule, "seed", 0)  # type: ignore[attr-defined]
        torch.manual_seed(((seed * 1_000_003 + step) * 1009 + rank + 1) % 2**63)

    def _over_devices(self, x: Tensor) -> Tensor:
        """Mean of a number over devices."""
        return self.trainer.strategy.reduce(x.to(self.device, copy=True), reduce_op="mean")

    def _loss_total(self) -> float:
        """Sum of the losses since the last evaluation."""
        return self._over_devices(self._loss_sum).item()

    def _parts(self, batch: Batch) -> list[Batch]:
        """The batch in parts of at most `micro_batch` sequences."""
        size = self.micro_batch or len(batch["labels"])
        split = {key: value.split(size) for key, value in batch.items()}
        return [{key: values[n] for key, values in split.items()} for n in range(len(split["labels"]))]

    def _note(self, loss: Tensor) -> None:
        """Add a step's loss to the sum, and remember the first step whose loss is no number; nothing waits for it."""
        self._loss_sum = self._loss_sum.to(loss.device) + loss
        self._loss_count += 1
        first = self._bad_step.to(loss.device)
        self._bad_step = torch.where((first < 0) & ~loss.isfinite(), self.global_step, first)

    def _require_finite(self) -> None:
        loss = self._loss_total()
        if not math.isfinite(loss):
            step = max(int(self._bad_step), 0)
            examples = ", ".join(map(str, self.trainer.datamodule.indices(step).tolist()[:NAMED]))  # type: ignore[attr-defined]
            raise Diverged(
                f"the loss was {loss} at step {step + 1}, whose batch is the training examples {examples}, …; try a "
                "smaller optim.lr or precision=fp32."
            )


def _whole_steps(state: dict[str, Any], step: int) -> dict[str, Any]:
    """Lightning's progress as it stands between two steps, whichever hook the checkpoint is written in.

    A resumed run gets a loader that begins at `step`, so that to Lightning it is a new epoch; only totals go on.
    """
    optimizer = "epoch_loop.automatic_optimization.optim_progress"
    names = ("ready", "started", "processed", "completed")
    progress = {"total": dict.fromkeys(names, step), "current": dict.fromkeys(names, 0), "is_last_batch": False}
    return {
        optimizer: state[optimizer],
        "epoch_loop.batch_progress": progress,
        "epoch_loop.state_dict": {"_batches_that_stepped": step},
    }
