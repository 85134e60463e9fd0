"""A protocol as data: everything that fixes what a number means, read from TOML, frozen and hashed.

Whatever can move a number is in the hash; what cannot (summary, expected figures, number of seeds) is not. A protocol
may span a grid (widths, learning rates, lengths); each point of the grid is one run of the same protocol.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, PositiveInt, ValidationError, model_validator

from zeta_bench.errors import UsageError
from zeta_bench.registry import Task, find_task, unknown
from zeta_bench.settings import Settings, explain, no_setting

Probability = Field(default=0.0, ge=0.0, lt=1.0)


class Backbone(Settings):
    """The model around the attention.

    Attributes:
        d_model: width.
        n_layers: blocks, each: norm → (short convolution) → attention → residual, then norm → MLP → residual.
        n_heads: attention heads.
        mlp_ratio: hidden width of the MLP ÷ d_model; 0 = no MLP, as in zoology's MQAR.
        short_conv: width of the depthwise convolution before each attention (causal, or centred where the task is
            bidirectional); 0 = none.
        positions: absolute position embedding, or "rotary" inside the attention.
        pooling: how a classifier sums up the sequence.
        dropout: residual dropout.
        embed_dropout: dropout after the embedding.
        attn_dropout: given to the attention.
        tie_embeddings: the language-model head shares the token embedding.
    """

    d_model: PositiveInt
    n_layers: PositiveInt = 2
    n_heads: PositiveInt = 1
    mlp_ratio: float = Field(default=0.0, ge=0.0)
    short_conv: int = Field(default=0, ge=0)
    positions: Literal["none", "learned", "sinusoidal", "rotary"] = "none"
    pooling: Literal["mean", "cls"] = "mean"
    dropout: float = Probability
    embed_dropout: float = Probability
    attn_dropout: float = Probability
    tie_embeddings: bool = True


class Optim(Settings):
    """AdamW and its schedule.

    Attributes:
        lr: peak learning rate.
        weight_decay: decoupled decay.
        decay: "matrices" leaves out vectors and scalars (biases, norms, γ); "all" decays everything, as zoology does.
        betas: as in AdamW.
        eps: as in AdamW.
        schedule: shape after the warm-up; cosine and linear end at `floor` · lr.
        warmup: steps of linear warm-up.
        schedule_every: the schedule moves once in so many steps; 1 = every step (zoology: once an epoch).
        grad_clip: largest gradient norm; 0 = no clipping.
    """

    lr: float = Field(gt=0.0)
    weight_decay: float = Field(default=0.1, ge=0.0)
    decay: Literal["matrices", "all"] = "matrices"
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(default=1e-8, gt=0.0)
    schedule: Literal["cosine", "linear", "constant", "inverse-sqrt"] = "cosine"
    warmup: int = Field(default=0, ge=0)
    floor: float = Field(default=0.0, ge=0.0, le=1.0)
    schedule_every: PositiveInt = 1
    grad_clip: float = Field(default=0.0, ge=0.0)


class Budget(Settings):
    """How long a run trains: every variant gets the same.

    Attributes:
        steps: optimiser steps.
        batch_size: sequences a step, over all devices.
        eval_every: steps between looks at the validation split (one point of the curve).
        stop_above: end the run once the selection split's metric is above this; None = never.
    """

    steps: PositiveInt
    batch_size: PositiveInt
    eval_every: PositiveInt
    stop_above: float | None = None


class Axis(Settings):
    """One axis of a grid: keys that move together, and their values.

    Example: ``keys = ["data.seq_len", "data.pairs"]``, ``values = [[64, 4], [128, 8]]``.
    """

    keys: tuple[str, ...]
    values: tuple[tuple[Any, ...], ...]

    @model_validator(mode="after")
    def _same_length(self) -> Self:
        if any(len(row) != len(self.keys) for row in self.values):
            raise ValueError(
                f"each row of values needs {len(self.keys)} entries, one for each of {', '.join(self.keys)}"
            )
        return self


class Select(Settings):
    """Which figure a run reports.

    Attributes:
        split: the split that chooses a step (and a value of `axis`). The test split is reported at that choice.
        step: "last" reports the last step; "best" the step with the best figure on `split`.
        axis: a grid key whose best value on `split` stands for all, such as "optim.lr"; None = every point is reported.
    """

    split: Literal["valid", "test"] = "valid"
    step: Literal["last", "best"] = "last"
    axis: str | None = None


class Protocol(Settings):
    """Everything that fixes what a number means. See the fields' own models; `data` is read by the task.

    Attributes:
        direction: "any" lets a variant that can do both run bidirectional.
        metric: name of the reported metric, always on the test split.
        seeds: how many seeds a published cell needs.
        published: protocol ids of results/published.csv whose rows it may stand beside.
        expected: what it scored and cost when last run, by variant.
    """

    name: str
    task: str
    summary: str
    direction: Literal["causal", "bidirectional", "any"]
    metric: str
    higher_is_better: bool = True
    precision: Literal["fp32", "bf16"] = "fp32"
    data: dict[str, Any]
    backbone: Backbone
    optim: Optim
    budget: Budget
    select: Select = Select()
    grid: tuple[Axis, ...] = ()
    seeds: PositiveInt = 3
    published: tuple[str, ...] = ()
    expected: dict[str, Any] = Field(default_factory=dict)

    @property
    def digest(self) -> str:
        """First 8 hex digits of the SHA-256 of everything that can move a number."""
        content = self.model_dump(mode="json", exclude={"name", "summary", "seeds", "published", "expected"})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]

    @property
    def id(self) -> str:
        """Name and content hash, such as ``small@1f2e3d4c``."""
        return f"{self.name}@{self.digest}"


@dataclass(frozen=True)
class Point:
    """One point of a protocol's grid: a protocol without a grid, which keeps the id of the whole.

    Attributes:
        protocol: with every setting at its value here.
        protocol_id: id of the protocol with its grid.
        values: the grid's keys and their values here; empty where there is no grid.
    """

    protocol: Protocol
    protocol_id: str
    values: dict[str, Any]

    @property
    def causal(self) -> bool:
        """Whether the protocol itself demands a causal model ("any" does not)."""
        return self.protocol.direction == "causal"


def load(path: Path) -> Protocol:
    """Read a protocol file. Raises UsageError naming the file and the first mistake."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read the protocol {path}: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}.") from None
    return _validate({"name": path.stem, **values}, str(path))


def protocol_files(task: Task) -> dict[str, Path]:
    """Names and files of a task's protocols, sorted by name."""
    return {path.stem: path for path in sorted(task.protocol_folder().glob("*.toml"))}


def find_protocol(task_name: str, name: str) -> Protocol:
    """A task's protocol by name, or a user's ``./my.toml``."""
    if name.endswith(".toml"):
        protocol = load(Path(name))
        if protocol.task != task_name:
            raise UsageError(f"{name} is a protocol of task '{protocol.task}', not of '{task_name}'.")
        return protocol
    files = protocol_files(find_task(task_name))
    if name not in files:
        raise UsageError(unknown("protocol", name, files) + f" Task '{task_name}' has: {', '.join(files)}.")
    return load(files[name])


def points(protocol: Protocol, sets: Mapping[str, Any]) -> list[Point]:
    """The runs that a protocol asks for, with ``--set`` applied.

    A value that the grid has picks its points and leaves the protocol's id alone. Any other setting changes the
    protocol: its name then says so (``small+optim.lr=0.01``), and so does its hash.
    """
    picked = {key: value for key, value in sets.items() if _on_grid(protocol, key, value)}
    changed = {key: value for key, value in sets.items() if key not in picked}
    protocol = _change(protocol, changed)
    rows = [[dict(zip(axis.keys, row, strict=True)) for row in axis.values] for axis in protocol.grid]
    merged = [{key: value for part in parts for key, value in part.items()} for parts in itertools.product(*rows)]
    found = [values for values in merged if all(values[key] == value for key, value in picked.items())]
    if not found:
        wanted = ", ".join(f"{key}={value}" for key, value in picked.items())
        raise UsageError(f"no point of protocol '{protocol.name}' has {wanted} together.")
    return [Point(_apply(protocol, values, grid=()), protocol.id, values) for values in found]


def _on_grid(protocol: Protocol, key: str, value: Any) -> bool:
    return any(
        key in axis.keys and any(row[axis.keys.index(key)] == value for row in axis.values) for axis in protocol.grid
    )


def _change(protocol: Protocol, changed: Mapping[str, Any]) -> Protocol:
    if not changed:
        return protocol
    for key in changed:
        _check_key(protocol, key)
    name = protocol.name + "".join(f"+{key}={_file_safe(value)}" for key, value in sorted(changed.items()))
    grid = tuple(axis for axis in protocol.grid if not set(axis.keys) & set(changed))
    dropped = [axis for axis in protocol.grid if axis not in grid and len(axis.keys) > 1]
    if dropped:
        raise UsageError(
            f"protocol '{protocol.name}' moves {', '.join(dropped[0].keys)} together; "
            f"pick one of its values: {dropped[0].values}."
        )
    return _apply(protocol, changed, grid=grid, name=name)


def _check_key(protocol: Protocol, key: str) -> None:
    """Refuse a key that the protocol does not have; keys of `data` are checked by the task."""
    section, dot, leaf = key.partition(".")
    if section == "data" and dot:
        return
    models: dict[str, type[Settings]] = {"backbone": Backbone, "optim": Optim, "budget": Budget, "select": Select}
    if section not in models or not dot:
        if key in {"precision", "direction"}:
            return
        raise UsageError(
            f"protocol '{protocol.name}': there is no setting '{key}'; --set takes backbone.…, optim.…, budget.…, "
            "select.…, data.…, precision, direction, or attn.… for the variant."
        )
    if leaf not in models[section].model_fields:
        raise UsageError(f"protocol '{protocol.name}': {no_setting(key, models[section].model_fields)}")


def _apply(protocol: Protocol, values: Mapping[str, Any], **fields: Any) -> Protocol:
    content = protocol.model_dump()
    content.update(fields)
    for key, value in values.items():
        *path, leaf = key.split(".")
        target = content
        for part in path:
            target = target[part]
        target[leaf] = value
    return _validate(content, f"protocol '{content['name']}'")


def _validate(content: dict[str, Any], owner: str) -> Protocol:
    try:
        return Protocol(**content)
    except ValidationError as error:
        raise UsageError(f"{owner}: {explain(error, Protocol)}") from None


def _file_safe(value: Any) -> str:
    return "".join(c if c.isalnum() or c in "+-._" else "_" for c in str(value))
