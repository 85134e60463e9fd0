"""What a command asks for: its runs, protocol × variant × seed, with every mistake found before any training."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError

from zeta_bench.attention import Attention, build_config, check_fit
from zeta_bench.backbone import attention_spec
from zeta_bench.errors import DataMissing, Unsupported, UsageError, ZetaBenchError
from zeta_bench.protocol import Point, Protocol, default_protocol, find_protocol, points
from zeta_bench.records import make_run_id
from zeta_bench.registry import Choice, Task, Variant, find_task
from zeta_bench.settings import no_setting
from zeta_bench.task import BenchTask
from zeta_bench.userfile import describe


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
        file: the user's protocol file, None for a registered protocol; for the record's command.
    """

    task_name: str
    point: Point
    choice: Choice
    seed: int
    task: BenchTask
    sets: Mapping[str, Any] = field(default_factory=dict)
    file: Path | None = None

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
    def name(self) -> str:
        """What a terminal calls it: ``mqar zeta-token seed 0 backbone.d_model=64``."""
        point = "".join(f" {key}={value}" for key, value in self.point.values.items())
        return f"{self.task_name} {self.choice.label} seed {self.seed}{point}"

    @property
    def command(self) -> str:
        """The command that repeats this run alone."""
        protocol = self.protocol.name.partition("+")[0] if self.file is None else str(self.file)
        words = [
            "zeta-bench",
            "run",
            self.task_name,
            "--attn",
            self.choice.typed,
            "--protocol",
            protocol,
            "--seed",
            str(self.seed),
        ]
        for key, value in {**self.sets, **self.point.values}.items():
            words += ["--set", f"{key}={value}"]
        return shlex.join(words)

    @property
    def origin(self) -> dict[str, Any]:
        """What makes the model and its task again, in plain types."""
        protocol = self.protocol.model_dump(mode="json")
        return {"task": self.task_name, "protocol": protocol, "variant": self.choice.typed, "causal": self.causal}

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
    task_name: str,
    protocol: Protocol,
    choices: Sequence[Choice],
    seeds: Sequence[int],
    sets: Mapping[str, Any],
    file: Path | None = None,
) -> list[Run]:
    """The runs that a command asks for. Every mistake in names, settings or fit is found here, before any training.

    Args:
        task_name: one registered task.
        protocol: as read from its file.
        choices: the variants; one that comes twice is planned once.
        seeds: one run each.
        sets: ``--set``: ``attn.…`` goes to every variant, the rest to the protocol.
        file: the protocol's file, if it is the user's own.
    """
    rest = {key: value for key, value in sets.items() if not key.startswith("attn.")}
    choices, _ = distinct(choices, sets)
    tasks: dict[str, BenchTask] = {}
    runs = []
    for point in points(protocol, rest):
        data = point.protocol.data
        task = tasks.get(key := json.dumps(data, sort_keys=True, default=str))
        if task is None:  # points with the same data share it, and so the memory that it takes
            cls = load(task_name, find_task(task_name))
            task = tasks[key] = cls.from_settings(data, f"protocol '{point.protocol.name}'")
        for choice in choices:
            check_direction(choice, point.protocol)
            runs += [Run(task_name, point, choice, seed, task, rest, file) for seed in seeds]
    return runs


def plan_task(
    task: str,
    protocol: str | None,
    choices: Sequence[Choice],
    seeds: Sequence[int],
    sets: Mapping[str, Any],
    *,
    accelerated: bool,
) -> list[Run]:
    """`plan` with the protocol's name or file, or the default one."""
    name = protocol or default_protocol(accelerated)
    file = Path(name) if name.endswith(".toml") else None
    return plan(task, find_protocol(task, name), choices, seeds, sets, file)


@dataclass(frozen=True)
class Plan:
    """What a command asks for, as far as it can be had here.

    Attributes:
        runs: in the order in which they run.
        missing: the tasks whose data is not at hand, by a sentence that says so.
        notes: what the user should know before the runs start, first of all the protocol.
    """

    runs: list[Run]
    missing: dict[str, BenchTask]
    notes: list[str]


def plan_command(
    tasks: Sequence[str],
    protocol: str | None,
    choices: Sequence[Choice],
    seeds: Sequence[int],
    sets: Mapping[str, Any],
    *,
    accelerated: bool,
) -> Plan:
    """`plan_task` for several tasks, with what the user should know of them."""
    found = Plan([], {}, [])
    for task in tasks:
        planned = plan_task(task, protocol, choices, seeds, sets, accelerated=accelerated)
        found.notes.append(protocol_note(planned[0], protocol, len(tasks) > 1, accelerated))
        try:
            check_runs(planned)
        except DataMissing as error:
            found.missing[f"{task}: not run: data. {error}"] = planned[0].task
            continue
        found.runs.extend(planned)
    found.notes.extend(distinct(choices, sets)[1])
    return found


def distinct(choices: Sequence[Choice], sets: Mapping[str, Any]) -> tuple[list[Choice], list[str]]:
    """The choices with ``--set attn.…``, without those that repeat an earlier one; and a sentence for each of these."""
    attn = {key.removeprefix("attn."): value for key, value in sets.items() if key.startswith("attn.")}
    found: dict[tuple[str, str], Choice] = {}
    notes = []
    for choice in choices:
        full = _with_settings(choice, attn)
        first = found.setdefault((full.name, build_config(full).model_dump_json()), full)
        if first is not full:
            again = "" if first.label == full.label else f" is {first.label} again and"
            notes.append(f"--attn {full.label}{again or ' is named twice and'} runs once.")
    return list(found.values()), list(dict.fromkeys(notes))


def protocol_note(run: Run, asked: str | None, several: bool, accelerated: bool) -> str:
    """One sentence: the run's protocol, where it is from, and what it is; `several`: name the task too."""
    why = f" from {run.file}" if run.file else ""
    if asked is None:
        why = f", the default {'on a GPU' if accelerated else 'without a GPU'} (--protocol chooses another)"
    return f"{f'{run.task_name}: ' if several else ''}protocol {run.point.protocol_id}{why}: {run.protocol.summary}"


@overload
def load(name: str, entry: Variant) -> type[Attention]: ...
@overload
def load(name: str, entry: Task) -> type[BenchTask]: ...
def load(name: str, entry: Variant | Task) -> type[Attention] | type[BenchTask]:
    """The class behind a name. Raises ZetaBenchError where a plug-in's module does not import."""
    try:
        return entry.load()
    except ZetaBenchError:
        raise
    except Exception as error:  # a stranger's module may raise anything
        raise ZetaBenchError(
            f"'{name}' does not import: {describe(error)}; reinstall the package it is from."
        ) from error


def check_variant(choice: Choice) -> type[Attention]:
    """The class of a choice. Raises ZetaBenchError if it does not import, is no variant, or its Config is none."""
    cls = load(choice.name, choice.variant)
    if not (isinstance(cls, type) and issubclass(cls, Attention)):
        raise UsageError(f"'{choice.name}' is not an Attention; a variant subclasses zeta_bench.attention.Attention.")
    if not (isinstance(cls.Config, type) and issubclass(cls.Config, BaseModel)):
        raise UsageError(
            f"the Config of '{choice.name}' is not a pydantic model; subclass zeta_bench.settings.Settings, or leave "
            "Config out where there are no settings."
        )
    return cls


def check_settings(choices: Sequence[Choice]) -> None:
    """Raise UsageError for the first choice that is no variant or whose settings cannot be, as far as they import."""
    for choice in choices:
        try:
            choice.variant.load()
        except Exception:  # the audit says what it is
            continue
        _with_settings(choice, {})


def check_direction(choice: Choice, protocol: Protocol) -> None:
    """Raise Unsupported if the variant cannot do what the protocol asks."""
    either = not choice.variant.load().bidirectional_ok
    causal = either if protocol.direction == "any" else protocol.direction == "causal"
    check_fit(choice, causal=causal, rotary=protocol.backbone.positions == "rotary")


def check_runs(runs: Sequence[Run]) -> None:
    """What only the data can tell: that it is at hand, and that the batch and the model's width fit.

    Raises:
        DataMissing: with the command that gets the data.
        UsageError: the first run that cannot be, in one sentence.
    """
    for run in runs:
        run.task.check()
        owner, batch = f"protocol '{run.protocol.name}'", run.protocol.budget.batch_size
        if batch > (size := len(run.task.examples("train"))):
            raise UsageError(
                f"{owner}: budget.batch_size = {batch} is more than the {size} training examples; lower it."
            )
        try:
            spec = attention_spec(run.task.shape(), run.protocol.backbone, causal=run.causal)
        except UsageError as error:
            raise UsageError(f"{owner}: {error}") from None
        if spec.rotary and spec.d_head % 2:
            raise Unsupported(f"{owner}: rotary positions need an even d_model / n_heads; here it is {spec.d_head}.")


def _with_settings(choice: Choice, attn: Mapping[str, Any]) -> Choice:
    known = check_variant(choice).Config.model_fields
    for key in attn:
        if key not in known:
            raise UsageError(f"variant '{choice.name}': {no_setting('attn.' + key, known)}")
    choice = choice.with_settings(attn)
    try:
        build_config(choice).model_dump_json()
    except PydanticSerializationError as error:
        raise UsageError(
            f"variant '{choice.name}': its settings cannot be recorded: {error}; use plain types."
        ) from None
    return choice
