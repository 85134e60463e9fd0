"""How runs are computed: on how many devices, compiled or not, with how much memory. What is computed stays."""

from __future__ import annotations

import logging
import os
import warnings
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

import pytorch_lightning as pl
import torch

from zeta_bench.errors import UsageError
from zeta_bench.machine import cores

if TYPE_CHECKING:
    from zeta_bench.plan import Run


@dataclass(frozen=True)
class Execution:
    """The choices; none of them is part of a run's id, since they move its numbers by rounding alone.

    Attributes:
        devices: of one machine; on a CPU so many processes, which talk by gloo.
        nodes: machines.
        strategy: "ddp": each device has the whole model · "fsdp": each keeps a share of weights, gradients and
            optimiser states, and gathers one block at a time; for models that do not fit otherwise.
        micro_batch: sequences that a device takes at once; a step's gradients are summed over such parts of its batch.
            None = all at once.
        recompute: keep only what enters each block and compute the rest again in the backward pass (activation
            checkpointing): less memory, a third more time.
        compile: the blocks by torch.compile.
    """

    devices: int = 1
    nodes: int = 1
    strategy: Literal["ddp", "fsdp"] = "ddp"
    micro_batch: int | None = None
    recompute: bool = False
    compile: bool = False

    @property
    def world(self) -> int:
        """Processes that train one model together."""
        return self.devices * self.nodes

    @property
    def told(self) -> dict[str, Any]:
        """What is not the default, apart from the number of devices, which records have a field for."""
        options = [field for field in fields(self) if field.name not in ("devices", "nodes")]
        return {each.name: getattr(self, each.name) for each in options if getattr(self, each.name) != each.default}

    def at_once(self, batch_size: int) -> int:
        """Sequences that go through the model at once on one device."""
        share = -(-batch_size // self.world)
        return min(share, self.micro_batch or share)

    def check(self, *, accelerated: bool) -> None:
        """Raise UsageError if the devices are not there, or are too few for what is asked."""
        if self.strategy == "fsdp" and self.world == 1:
            raise UsageError("--strategy fsdp shares a model out among several devices; add --devices N.")
        have, what = (torch.cuda.device_count(), "GPUs") if accelerated else (cores(), "cores")
        if self.devices > have and self.devices > 1:
            raise UsageError(f"--devices {self.devices}: this machine has {have} {what}; ask for at most so many.")
        by_launcher = {"SLURM_JOB_ID", "TORCHELASTIC_RUN_ID"} & os.environ.keys()
        if self.nodes > 1 and not by_launcher and not {"MASTER_ADDR", "MASTER_PORT", "NODE_RANK"} <= os.environ.keys():
            raise UsageError(
                f"--nodes {self.nodes}: start the command by srun, or on each machine with MASTER_ADDR, MASTER_PORT "
                "and NODE_RANK set."
            )

    def check_run(self, run: Run) -> None:
        """Raise UsageError if a run so computed would be another run."""
        if run.protocol.backbone.norm == "batch" and (self.micro_batch or self.world > 1):
            option = "--micro-batch" if self.micro_batch else "--devices" if self.devices > 1 else "--nodes"
            raise UsageError(
                f"{option} would change what is computed: protocol '{run.protocol.name}' has backbone.norm = batch, "
                "whose statistics are of the whole batch; leave it out."
            )
        size = run.protocol.budget.batch_size
        if self.strategy == "fsdp" and size % self.world:  # they gather together, so all need as many parts
            raise UsageError(
                f"--strategy fsdp: budget.batch_size = {size} cannot be dealt out to {self.world} devices evenly; take "
                "a number of devices that divides it."
            )


def make_trainer(run: Run, execution: Execution, callbacks: list[pl.Callback], *, accelerated: bool) -> pl.Trainer:
    """A silent Trainer: progress, checkpoints and records are ours."""
    quiet_lightning()
    precision: Any = "bf16-mixed" if run.protocol.precision == "bf16" else "32-true"
    return pl.Trainer(
        accelerator="gpu" if accelerated else "cpu",
        strategy=_strategy(execution),
        devices=execution.devices,
        num_nodes=execution.nodes,
        precision=precision,
        max_steps=run.protocol.budget.steps,
        max_epochs=-1,
        val_check_interval=run.protocol.budget.eval_every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        gradient_clip_val=run.protocol.optim.grad_clip or None,
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
    )


def _strategy(execution: Execution) -> Any:
    """Lightning's word, or object, for how devices share the work."""
    if execution.world == 1:
        return "auto"
    if execution.strategy == "fsdp":
        from zeta_bench.fsdp import FullySharded

        return FullySharded(execution.world)
    return "ddp_find_unused_parameters_true"  # score=dot leaves γ unused


def quiet_lightning() -> None:
    """Keep Lightning's banners and hints off the terminal; its errors still come through."""
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"(pytorch_lightning|lightning_fabric)\..*")
