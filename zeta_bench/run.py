"""One run: protocol × variant × seed → record."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zeta_bench import provenance
from zeta_bench.backbone import Model
from zeta_bench.callbacks import Checkpoint, Interrupted, StopRequest, Watch, checkpoint_devices, checkpoint_step
from zeta_bench.data import BenchDataModule
from zeta_bench.errors import Unsupported, UsageError, ZetaBenchError
from zeta_bench.execution import Execution, make_trainer
from zeta_bench.outcome import Outcome, judge, make_analysis, make_record
from zeta_bench.plan import Run, plan
from zeta_bench.records import Record, Status, Store, require_writable
from zeta_bench.task import Split, select_labelled
from zeta_bench.training import BenchModule, Diverged
from zeta_bench.userfile import describe
from zeta_bench.utilisation import counted_flops

__all__ = ["Run", "Session", "execute", "judge", "make_model", "plan", "step_flops"]

Listener = Callable[[int, dict[str, float] | None], None]


def make_model(run: Run) -> Model:
    """The model of a run, initialised by its seed: the same for every run with that seed, variant and settings."""
    torch.manual_seed(run.seed)
    return Model(run.task.shape(), run.protocol.backbone, run.choice, causal=run.causal)


@dataclass
class Session:
    """What the runs of one command share.

    Attributes:
        store: where records go.
        checkpoints: folder of the unfinished runs' states.
        accelerated: train on the GPU.
        execution: how they are computed.
        resume: continue from a checkpoint where there is one.
        keep: keep the checkpoint of a finished run.
        diagnose: also write a record of kind analysis from the trained model.
        debug: let errors through with their traceback.
    """

    store: Store
    checkpoints: Path
    accelerated: bool
    execution: Execution = field(default_factory=Execution)
    resume: bool = False
    keep: bool = False
    diagnose: bool = False
    debug: bool = False
    stop: StopRequest = field(default_factory=StopRequest)

    @property
    def device_class(self) -> str:
        """See `provenance.device_class`."""
        return provenance.device_class(self.accelerated)

    @property
    def device(self) -> torch.device:
        """Where this process trains."""
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if self.accelerated else torch.device("cpu")

    @property
    def is_main(self) -> bool:
        """Whether this process speaks and writes: with several devices each has a process of its own."""
        ranks = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
        return self.execution.world == 1 or all(os.environ.get(name, "0") == "0" for name in ranks)

    def checkpoint(self, run: Run) -> Path:
        """Where a run's state is kept."""
        return self.checkpoints / f"{run.run_id(self.device_class)}.ckpt"

    def stopped(self, run: Run) -> bool:
        """Whether an earlier start of the run left a state and no finished record."""
        return self.checkpoint(run).exists() and not _has_finished(self.store.find(run.run_id(self.device_class)))

    def moved(self, run: Run) -> str:
        """A sentence if the state to go on from is of another number of devices; "" otherwise."""
        path, mine = self.checkpoint(run), self.execution.world
        if not (self.resume and path.exists()) or (before := checkpoint_devices(path)) == mine:
            return ""
        was, now = (f"{number} device{'s' if number > 1 else ''}" for number in (before, mine))
        return (
            f"the state is of {was} and goes on with {now}: with the same batches and schedule, but for rounding and "
            "dropout's random numbers, which each device draws for itself."
        )

    def unfinished(self, run: Run, record: Record) -> bool:
        """Whether a repeat of a finished run was stopped: it left a state of another step than the record's last."""
        path = self.checkpoint(run)
        return path.exists() and checkpoint_step(path, run.protocol) != record.steps

    def changed(self, run: Run, record: Record) -> bool:
        """Whether the user's file is another one than when the record was written."""
        return run.choice.source is not None and record.code_digest != provenance.code_digest(run.choice.variant.load())

    def check_folders(self, runs: Sequence[Run]) -> None:
        """Raise UsageError if records or checkpoints cannot be written, or a checkpoint to resume cannot be read."""
        self.store.check_writable()
        require_writable(self.checkpoints, "checkpoints", "start from a folder that can be written")
        for run in runs:
            if self.resume and self.checkpoint(run).exists():
                checkpoint_step(self.checkpoint(run), run.protocol)


def execute(run: Run, session: Session, listener: Listener) -> Record:
    """Train and score one run and write its record, whatever comes of it.

    A run that failed or was stopped leaves the record of an earlier, finished one as it is.

    Raises:
        UsageError: nothing was started: a damaged checkpoint, or a store that cannot be written.
    """
    started = datetime.now(UTC).isoformat(timespec="seconds")
    found = Outcome()
    try:
        _train(run, session, listener, found)
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        found.status, found.reason = verdict(error, run, session)
    finally:
        session.checkpoint(run).with_suffix(".partial").unlink(missing_ok=True)
    record = make_record(run, session, found, started)
    if not session.is_main:
        return record
    if record.finished or not _has_finished(session.store.find(record.run_id)):  # a failed repeat replaces nothing
        session.store.write(record)
    if record.finished and not session.keep:
        session.checkpoint(run).unlink(missing_ok=True)
    if found.analysis is not None:
        session.store.write(make_analysis(record, found.analysis))
    return record


def _has_finished(record: Record | None) -> bool:
    return record is not None and record.finished


def verdict(error: BaseException, run: Run, session: Session) -> tuple[Status, str]:
    """Status and reason of a run that an exception ended; raises it again where nothing was started."""
    if isinstance(error, Unsupported):
        return "unsupported", str(error)
    if isinstance(error, UsageError):
        raise error
    if isinstance(error, Interrupted | KeyboardInterrupt) or session.stop.requested:  # Lightning turns the latter
        return "interrupted", str(error) if isinstance(error, Interrupted) else "stopped by the user"  # into SystemExit
    if isinstance(error, Diverged):
        return "diverged", str(error)
    if isinstance(error, torch.OutOfMemoryError):
        return "oom", "out of memory on the accelerator"
    if isinstance(error, ZetaBenchError):
        return "failed", str(error)
    if session.debug:
        raise error
    return "failed", describe(error, run.choice.source)  # a variant may raise anything; the other runs go on


def _train(run: Run, session: Session, listener: Listener, found: Outcome) -> None:
    protocol = run.protocol
    splits: tuple[Split, ...] = (
        ("valid",) if protocol.select.split == "valid" and protocol.select.step == "last" else ("valid", "test")
    )
    execution = session.execution
    model = make_model(run).to(session.device)  # which implementation runs depends on where it does
    found.flops = step_flops(run, model)
    found.impl = model.attentions()[0].impl
    model.recompute = execution.recompute
    module = found.module = BenchModule(model, run.task, protocol, splits, execution.micro_batch)
    module.origin = run.origin
    if execution.compile:
        model.compile_blocks()
        module.compiled = True
    data = BenchDataModule(
        run.task,
        batch_size=protocol.budget.batch_size,
        steps=protocol.budget.steps,
        seed=run.seed,
        eval_splits=splits,
    )
    checkpoint = session.checkpoint(run)
    resume = checkpoint if session.resume and checkpoint.exists() else None
    if resume is not None:
        data.start = checkpoint_step(resume, protocol)
        _require_fit(module, resume)
    if session.accelerated:
        torch.cuda.reset_peak_memory_stats()
    callbacks = [Checkpoint(checkpoint, session.stop), Watch(listener)]
    trainer = make_trainer(run, execution, callbacks, accelerated=session.accelerated)
    with session.stop:
        try:
            trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
        finally:
            module.stop_clock()
            found.steps = trainer.global_step
        if session.stop.requested and trainer.global_step < protocol.budget.steps:
            raise Interrupted(f"stopped at step {trainer.global_step}")
        if not module.curve or module.curve[-1]["step"] != trainer.global_step:
            trainer.validate(module, datamodule=data, verbose=False)
        if "test" not in module.scores:
            trainer.test(module, datamodule=data, verbose=False)
    found.peak_memory = torch.cuda.max_memory_allocated() if session.accelerated else 0
    found.status, found.reason = judge(module, run)
    if session.diagnose:
        from zeta_bench.diagnostics import diagnose

        if execution.strategy == "fsdp":
            from zeta_bench.fsdp import gather

            gather(model)
        found.analysis = diagnose(module, run.task.examples("valid"))


def _require_fit(module: BenchModule, checkpoint: Path) -> None:
    """Raise UsageError if the checkpoint is of a model with other parameters: the variant's code has changed."""
    kept = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    have = module.state_dict()
    if {name: value.shape for name, value in kept.items()} != {name: value.shape for name, value in have.items()}:
        raise UsageError(
            f"the checkpoint {checkpoint} does not fit the model, whose code must have changed; run again without "
            "--resume."
        )


def step_flops(run: Run, model: Model) -> int:
    """FLOPs of the matrix products of one training step: three times a forward pass (backward is two).

    The pass runs where the model is; see `zeta_bench.utilisation` for what is counted. It is also the first look at
    what a variant returns and at the metric's name.

    Raises:
        ZetaBenchError: an attention returns another shape than it was given.
        UsageError: the task does not have the protocol's metric.
    """
    batch = run.task.examples("valid").batch(torch.zeros(1, dtype=torch.int64))
    device = next(model.parameters()).device
    moved = {key: value.to(device) for key, value in batch.items()}
    where = select_labelled(moved) if model.shape.head == "lm" else None
    was_training = model.training
    hooks = [attention.register_forward_hook(_require_shape) for attention in model.attentions()]
    with torch.no_grad(), counted_flops() as counter:
        logits = model.eval()(moved["inputs"], moved.get("valid"), where)
    for hook in hooks:
        hook.remove()
    model.train(was_training)
    meter = run.task.meter()
    meter.update(logits.float().cpu(), batch)
    if run.protocol.metric not in (known := meter.compute().values):
        raise UsageError(
            f"protocol '{run.protocol.name}': task '{run.task_name}' has no metric '{run.protocol.metric}'; "
            f"it has {', '.join(known)}."
        )
    return 3 * counter.get_total_flops() * run.protocol.budget.batch_size


def _require_shape(attention: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
    """Forward hook: what goes out must be shaped as what came in, or it would be broadcast unseen."""
    want = tuple(inputs[0].shape)
    have = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    if have != want:
        name = type(attention).__name__
        raise ZetaBenchError(f"{name}.forward returned {have} for an input of shape {want}; return the input's shape.")
