"""One run: protocol × variant × seed → record. And the plan: which runs a command asks for."""

from __future__ import annotations

import logging
import shlex
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from zeta_bench import provenance
from zeta_bench.attention import build_config, check_fit
from zeta_bench.backbone import Model
from zeta_bench.callbacks import Checkpoint, Interrupted, StopRequest, Watch, checkpoint_step
from zeta_bench.data import BenchDataModule
from zeta_bench.errors import Unsupported, UsageError, ZetaBenchError
from zeta_bench.protocol import Point, Protocol, points
from zeta_bench.records import Record, Status, Store, make_run_id
from zeta_bench.registry import Choice, find_task
from zeta_bench.settings import no_setting
from zeta_bench.task import BenchTask, Split, select_labelled
from zeta_bench.training import BenchModule, Diverged

Listener = Callable[[int, dict[str, float] | None], None]

STUCK_MARGIN = 0.1
"""A run is stuck at chance if its best figure has not covered a tenth of the way from chance to perfect."""


@dataclass(frozen=True)
class Run:
    """One run, planned: everything that decides its numbers except the device.

    Attributes:
        task_name: registered name.
        point: the protocol at one point of its grid.
        choice: the variant, with its settings.
        seed: of the initialisation and of the order of the examples.
        task: the task under the protocol's data settings.
        sets: ``--set`` of the protocol, as typed; for the record's command.
    """

    task_name: str
    point: Point
    choice: Choice
    seed: int
    task: BenchTask
    sets: Mapping[str, Any] = field(default_factory=dict)

    @property
    def protocol(self) -> Protocol:
        """The protocol at this point."""
        return self.point.protocol

    @property
    def causal(self) -> bool:
        """Whether the model is causal: as the protocol says; under "any", only if the variant knows nothing else."""
        return self.point.causal or not self.choice.variant.load().bidirectional_ok

    @property
    def config(self) -> dict[str, Any]:
        """Every setting of the variant."""
        return build_config(self.choice).model_dump(mode="json")

    @property
    def command(self) -> str:
        """The command that repeats this run alone."""
        attn = self.choice.label
        if self.choice.source is not None:
            attn = attn.replace(self.choice.name, f"{self.choice.source}:{self.choice.name.rpartition('.')[2]}", 1)
        name = self.protocol.name.partition("+")[0]
        words = ["zeta-bench", "run", self.task_name, "--attn", attn, "--protocol", name, "--seed", str(self.seed)]
        for key, value in {**self.sets, **self.point.values}.items():
            words += ["--set", f"{key}={value}"]
        return shlex.join(words)

    def run_id(self, device_class: str) -> str:
        """Hash of what identifies the run; see design: protocol, variant, config, versions, seed, device, precision."""
        return make_run_id(
            protocol=self.point.protocol_id,
            point=self.point.values,
            variant=self.choice.name,
            config=self.config,
            variant_version=self.choice.variant.load().version,
            task=self.task_name,
            task_version=self.task.version,
            seed=self.seed,
            device=device_class,
            precision=self.protocol.precision,
            direction=self.causal,
        )


def plan(
    task_name: str, protocol: Protocol, choices: Sequence[Choice], seeds: Sequence[int], sets: Mapping[str, Any]
) -> list[Run]:
    """The runs that a command asks for. Every mistake in names, settings or fit is found here, before any training.

    Args:
        task_name: one registered task.
        protocol: as read from its file.
        choices: the variants.
        seeds: one run each.
        sets: ``--set``: ``attn.…`` goes to every variant, the rest to the protocol.
    """
    attn = {key.removeprefix("attn."): value for key, value in sets.items() if key.startswith("attn.")}
    rest = {key: value for key, value in sets.items() if not key.startswith("attn.")}
    choices = [_with_settings(choice, attn) for choice in choices]
    runs = []
    for point in points(protocol, rest):
        task = find_task(task_name).load().from_settings(point.protocol.data, f"protocol '{point.protocol.name}'")
        for choice in choices:
            rotary = point.protocol.backbone.positions == "rotary"
            check_fit(choice, causal=point.causal, rotary=rotary)
            if point.protocol.direction == "bidirectional":
                check_fit(choice, causal=False, rotary=rotary)
            build_config(choice)
            runs += [Run(task_name, point, choice, seed, task, rest) for seed in seeds]
    return runs


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
        devices: devices of one machine.
        nodes: machines.
        resume: continue from a checkpoint where there is one.
        keep: keep the checkpoint of a finished run.
        diagnose: also write a record of kind analysis from the trained model.
        debug: let errors through with their traceback.
    """

    store: Store
    checkpoints: Path
    accelerated: bool
    devices: int = 1
    nodes: int = 1
    resume: bool = False
    keep: bool = False
    diagnose: bool = False
    debug: bool = False
    stop: StopRequest = field(default_factory=StopRequest)

    @property
    def device_class(self) -> str:
        """See `provenance.device_class`."""
        return provenance.device_class(self.accelerated)

    def checkpoint(self, run: Run) -> Path:
        """Where a run's state is kept."""
        return self.checkpoints / f"{run.run_id(self.device_class)}.ckpt"


def execute(run: Run, session: Session, listener: Listener) -> Record:
    """Train and score one run and write its record, whatever comes of it.

    Raises:
        UsageError: nothing was started: a damaged checkpoint, or a store that cannot be written.
    """
    started = datetime.now(UTC).isoformat(timespec="seconds")
    found = _Outcome()
    try:
        _train(run, session, listener, found)
    except UsageError as error:
        if not isinstance(error, Unsupported):
            raise
        found.status, found.reason = "unsupported", str(error)
    except (Interrupted, KeyboardInterrupt) as error:
        found.status, found.reason = "interrupted", str(error) or "stopped by the user"
    except Diverged as error:
        found.status, found.reason = "diverged", str(error)
    except torch.OutOfMemoryError:
        found.status, found.reason = "oom", "out of memory on the accelerator"
    except ZetaBenchError as error:
        found.status, found.reason = "failed", str(error)
    except Exception as error:  # a variant may raise anything; the other runs go on
        if session.debug:
            raise
        found.status, found.reason = "failed", f"{type(error).__name__}: {error}".partition("\n")[0]
    record = _record(run, session, found, started)
    session.store.write(record)
    if record.finished and not session.keep:
        session.checkpoint(run).unlink(missing_ok=True)
    if found.analysis is not None:
        session.store.write(_analysis_record(record, found.analysis))
    return record


@dataclass
class _Outcome:
    """What is known of a run when it ends, however it ends."""

    status: Status = "failed"
    reason: str = ""
    module: BenchModule | None = None
    steps: int = 0
    flops: int = 0
    peak_memory: int = 0
    impl: str = "torch"
    analysis: dict[str, Any] | None = None


def _train(run: Run, session: Session, listener: Listener, found: _Outcome) -> None:
    protocol = run.protocol
    splits: tuple[Split, ...] = (
        ("valid",) if protocol.select.split == "valid" and protocol.select.step == "last" else ("valid", "test")
    )
    model = make_model(run)
    found.flops = step_flops(run, model)
    found.impl = model.attentions()[0].impl
    module = found.module = BenchModule(model, run.task, protocol, splits)
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
    if session.accelerated:
        torch.cuda.reset_peak_memory_stats()
    trainer = make_trainer(run, session, [Checkpoint(checkpoint, session.stop), Watch(listener)])
    with session.stop:
        trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
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

        found.analysis = diagnose(module, run.task.examples("valid"))


def make_trainer(run: Run, session: Session, callbacks: list[pl.Callback]) -> pl.Trainer:
    """A silent Trainer: progress, checkpoints and records are ours."""
    quiet_lightning()
    precision: Any = "bf16-mixed" if run.protocol.precision == "bf16" else "32-true"
    return pl.Trainer(
        accelerator="gpu" if session.accelerated else "cpu",
        devices=session.devices,
        num_nodes=session.nodes,
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


def quiet_lightning() -> None:
    """Keep Lightning's banners and hints off the terminal; its errors still come through."""
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"(pytorch_lightning|lightning_fabric)\..*")


def judge(module: BenchModule, run: Run) -> tuple[Status, str]:
    """Status of a finished run: stuck-at-chance if the metric never came a tenth of the way from chance to perfect."""
    metric, chance = run.protocol.metric, run.task.chance()
    values = [row[f"{module.eval_splits[0]}_{metric}"] for row in module.curve]
    if metric != "accuracy" or not values:
        return "ok", ""
    bound = chance + STUCK_MARGIN * (1 - chance)
    if max(values) >= bound:
        return "ok", ""
    return "stuck-at-chance", f"best {metric} {max(values):.4f} never reached {bound:.4f} (chance is {chance:.4f})"


def step_flops(run: Run, model: Model) -> int:
    """FLOPs of the matrix products of one training step: three times a forward pass (backward is two)."""
    from torch.utils.flop_counter import FlopCounterMode

    batch = run.task.examples("valid").batch(torch.zeros(1, dtype=torch.int64))
    where = select_labelled(batch) if model.shape.head == "lm" else None
    was_training = model.training
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(batch["inputs"], batch.get("valid"), where)
    model.train(was_training)
    return 3 * counter.get_total_flops() * run.protocol.budget.batch_size


def _with_settings(choice: Choice, attn: Mapping[str, Any]) -> Choice:
    known = choice.variant.load().Config.model_fields
    for key in attn:
        if key not in known:
            raise UsageError(f"variant '{choice.name}': {no_setting('attn.' + key, known)}")
    return choice.with_settings(attn)


def _record(run: Run, session: Session, found: _Outcome, started: str) -> Record:
    module, protocol = found.module, run.protocol
    cls = run.choice.variant.load()
    head, dirty = provenance.commit()
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
        tokens_per_second=round(tokens / seconds, 1) if seconds else 0.0,
        peak_memory_bytes=found.peak_memory,
        parameters=parameters,
        parameters_without_embedding=inner,
        flops=found.flops,
        impl=found.impl,
        direction="causal" if run.causal else "bidirectional",
        precision=protocol.precision,
        device=provenance.device_name(session.accelerated),
        device_class=session.device_class,
        devices=session.devices * session.nodes,
        versions=provenance.versions(),
        commit=head,
        dirty=dirty,
        code_digest=provenance.code_digest(cls),
        data_digest=run.task.digest(),
        command=run.command,
        started_at=started,
    )


def _analysis_record(record: Record, payload: dict[str, Any]) -> Record:
    """The same provenance, with what the trained model's layers do instead of what it scored."""
    empty: dict[str, Any] = {"metrics": {}, "slices": {}, "curve": []}
    identity = make_run_id(analysis="diagnose", run=record.run_id)
    return record.model_copy(update={"kind": "analysis", "run_id": identity, "payload": payload, **empty})
