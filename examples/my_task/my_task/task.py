"""A whole task: tokens in random order, then in another; which token followed each of them the first time?"""

import hashlib
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor

from zeta_bench.settings import Settings
from zeta_bench.task import IGNORE, Batch, BenchTask, Meter, Score, Shape, Split, select_labelled

SEEDS: dict[Split, int] = {"train": 0, "valid": 1, "test": 2}


class SuccessorData(Settings):
    """The ``[data]`` of a protocol."""

    tokens: int = Field(default=16, ge=3)
    train_examples: PositiveInt = 20_000
    test_examples: PositiveInt = 500


def _shuffled(rows: int, n: int, generator: torch.Generator) -> Tensor:
    """0 … n − 1 in random order, int64 [rows, n]."""
    return torch.rand(rows, n, generator=generator).argsort(1)


class Drawn:
    """One split, drawn from its own seed: every run of a protocol sees the same examples."""

    def __init__(self, data: SuccessorData, split: Split) -> None:
        size = data.train_examples if split == "train" else data.test_examples
        generator = torch.Generator().manual_seed(SEEDS[split])
        order = _shuffled(size, data.tokens, generator)
        asked = _shuffled(size, data.tokens - 1, generator)  # places with a successor, each once
        self.inputs = torch.cat((order, order.gather(1, asked)), dim=1)
        self.labels = torch.cat((torch.full_like(order, IGNORE), order.gather(1, asked + 1)), dim=1)

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Tensor) -> Batch:
        """Examples by their indices; ``valid`` is left out because all tokens are real."""
        return {"inputs": self.inputs[indices], "labels": self.labels[indices]}


class Accuracy(Meter):
    """Share of right answers. Its states are counts, so that they add up over batches and devices."""

    right: Tensor
    seen: Tensor
    loss: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("right", "seen"):
            self.add_state(name, torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("loss", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, batch: Batch) -> None:
        """Take in logits [M, outputs] at the M positions that have a label."""
        labels = batch["labels"][select_labelled(batch)]
        self.right += (logits.argmax(-1) == labels).sum()
        self.seen += len(labels)
        self.loss += F.cross_entropy(logits.double(), labels, reduction="sum")

    def compute(self) -> Score:
        """Accuracy, and the mean cross-entropy in nats."""
        return Score({"accuracy": float(self.right / self.seen), "loss": float(self.loss / self.seen)})


class Successor(BenchTask):
    """The task under one protocol's settings."""

    Data = SuccessorData
    version: ClassVar[int] = 1  # raise it when a change moves the data or the score

    def __init__(self, data: Any) -> None:
        super().__init__(data)
        self._splits: dict[Split, Drawn] = {}

    def shape(self) -> Shape:
        """A language model: it names a token at the positions that have a label."""
        n = self.data.tokens
        return Shape("lm", outputs=n, max_len=2 * n - 1, vocab_size=n)

    def examples(self, split: Split) -> Drawn:
        """A split; drawn when it is first asked for."""
        if split not in self._splits:
            self._splits[split] = Drawn(self.data, split)
        return self._splits[split]

    def meter(self) -> Accuracy:
        """A fresh meter for one split."""
        return Accuracy()

    def digest(self) -> str:
        """Of the test split: the data has changed when it does."""
        return hashlib.sha256(self.examples("test").inputs.numpy().tobytes()).hexdigest()[:16]

    def chance(self) -> float:
        """A guess among the tokens that are not the one asked for."""
        return 1 / (self.data.tokens - 1)
