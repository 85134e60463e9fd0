"""The contract of a task: what its data looks like, where batches come from, and how outputs are scored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

import torchmetrics
from pydantic import BaseModel
from torch import Tensor

from zeta_bench.errors import UsageError
from zeta_bench.settings import Settings, make_settings

IGNORE = -100
"""A label that carries no loss and no score."""

Batch = dict[str, Tensor]
Split = Literal["train", "valid", "test"]


@dataclass(frozen=True)
class Shape:
    """What a model for the task must take and give.

    Attributes:
        head: "lm": one label a position, IGNORE where there is none · "classifier": one label a sequence ·
            "pair": one label a pair of sequences, inputs [B, 2, N].
        outputs: number of classes, or of tokens for "lm".
        max_len: longest sequence in tokens.
        vocab_size: number of token ids; None where inputs are real numbers.
        channels: width of a real-valued input [B, N, channels]; used where vocab_size is None.
    """

    head: Literal["lm", "classifier", "pair"]
    outputs: int
    max_len: int
    vocab_size: int | None = None
    channels: int = 1


@dataclass
class Score:
    """What a meter has found on one split.

    Attributes:
        values: metrics by name. A standard error over the test items, where there is one, is `<metric>_stderr_items`.
        slices: metric of parts of the split, ``{"distance": {"≤ 16": {"value": 0.98, "count": 1234}}}``.
    """

    values: dict[str, float]
    slices: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)


class Meter(torchmetrics.Metric):
    """Gathers the score of one split; a `torchmetrics.Metric`, so that it adds up over devices.

    ``update(logits, batch)`` gets logits [B, outputs], or for "lm" [M, outputs] at the M labelled positions in
    row-major order. ``compute()`` returns a `Score`. A split may come in batches of any size.

    Class attributes:
        by_position: whether the score adds up over labelled positions, so that even one sequence may come in several
            parts, each with the other labels set to IGNORE. Long windows of a large vocabulary need it.
    """

    full_state_update = False
    by_position: ClassVar[bool] = False

    def update(self, logits: Tensor, batch: Batch) -> None:
        """Take in one batch."""
        raise NotImplementedError

    def compute(self) -> Score:
        """The score of everything since `reset`."""
        raise NotImplementedError


class Examples(Protocol):
    """One split: a number of examples, read by their indices. Reading must not depend on what was read before."""

    def __len__(self) -> int: ...

    def batch(self, indices: Tensor) -> Batch:
        """Examples as a batch.

        Its keys are

        - ``inputs``: int64 [B, N], or float [B, N, channels]; for "pair" with a 2 after B;
        - ``labels``: int64 [B], or for "lm" [B, N] with IGNORE where there is none;
        - ``valid``: bool, shaped as the inputs' tokens, True = a real token; left out where all are real;
        - anything else the task's meter wants.
        """
        ...


class BenchTask(ABC):
    """A task under one protocol's data settings.

    Class attributes:
        Data: the settings that a protocol's ``[data]`` may have.
        version: raise it when a change moves the data or the score; part of every run's id.
    """

    Data: ClassVar[type[BaseModel]] = Settings
    version: ClassVar[int] = 1

    def __init__(self, data: BaseModel) -> None:
        self.data: Any = data

    @classmethod
    def from_settings(cls, values: dict[str, Any], owner: str) -> BenchTask:
        """The task under these settings. Raises UsageError, beginning with `owner`, for the first mistake in them."""
        return cls(make_settings(cls.Data, values, f"{owner}, [data]"))

    @abstractmethod
    def shape(self) -> Shape:
        """What a model must take and give."""

    @abstractmethod
    def examples(self, split: Split) -> Examples:
        """A split. Raises DataMissing, with the command that gets it, where the data is not at hand."""

    @abstractmethod
    def meter(self) -> Meter:
        """A fresh meter for one split."""

    @abstractmethod
    def digest(self) -> str:
        """Hex digest that changes when the examples do."""

    @abstractmethod
    def chance(self) -> float:
        """The metric of a guess that uses nothing of the input's content; a run that stays there is stuck-at-chance."""

    def encode(self, text: str) -> list[int]:
        """Ids of a text, of a task whose tokens are text. Raises UsageError where they are none."""
        raise UsageError("the tokens of this task are no text; only a model of a text task writes, such as wikitext.")

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, as `encode`."""
        raise UsageError("the tokens of this task are no text; only a model of a text task writes, such as wikitext.")

    def check(self) -> None:  # noqa: B027  (a task whose data is generated has nothing to check)
        """Raise DataMissing if the data is not at hand; cheap, called before anything is planned."""

    def nbytes(self) -> int:
        """Size of the data in memory, in bytes, as ``--dry-run`` prints it."""
        shape = self.shape()
        splits: tuple[Split, ...] = ("train", "valid", "test")
        return sum(len(self.examples(split)) * shape.max_len * 8 for split in splits)


def select_labelled(batch: Batch) -> Tensor:
    """Bool, shaped as the labels: where the loss and the score look."""
    return batch["labels"] != IGNORE
