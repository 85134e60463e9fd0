"""Multi-query associative recall as a task: its settings, its splits and its score."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveInt, model_validator
from torch import Tensor

from zeta_bench.settings import Settings
from zeta_bench.task import Batch, BenchTask, Shape
from zeta_bench.tasks.mqar.generator import BLOCK, VERSION, IntArray, Recipe, Split, draw_block, label_queries
from zeta_bench.tasks.mqar.meter import MQARMeter

SPLITS: tuple[Split, ...] = ("train", "valid", "test")


class MQARData(Settings):
    """The ``[data]`` of a protocol; see `generator.Recipe` for what the first five mean.

    Attributes:
        train_examples: examples to train on; an epoch.
        valid_examples: examples of the validation split.
        test_examples: examples of the test split, for each number of pairs.
        seed: of the data; the same for every run of a protocol, whatever the run's own seed.
        slice_pairs: smaller numbers of pairs. The test split has as many examples of each again, which are scored in
            the slice "pairs" only.
    """

    vocab_size: PositiveInt = 8192
    seq_len: PositiveInt
    pairs: PositiveInt
    power_a: float = Field(default=0.01, gt=0.0, allow_inf_nan=False)
    random_filler: bool = False
    train_examples: PositiveInt = 100_000
    valid_examples: PositiveInt = 3000
    test_examples: PositiveInt = 3000
    seed: NonNegativeInt = 123
    slice_pairs: tuple[PositiveInt, ...] = ()

    @model_validator(mode="after")
    def _fits(self) -> Self:
        # With 4k ≤ L < V there are always more keys (V/2 − 1) than an example needs.
        L, V, k = self.seq_len, self.vocab_size, self.pairs
        if L % 2:
            raise ValueError(f"seq_len = {L} must be even (pairs and query slots are two tokens wide); use {L + 1}")
        if V % 2:
            raise ValueError(f"vocab_size = {V} must be even (one half are keys, one half values); use {V + 1}")
        if V <= L:
            raise ValueError(f"vocab_size = {V} must be above seq_len = {L}; raise it or shorten the sequences")
        if 4 * k > L:
            raise ValueError(
                f"pairs = {k} does not fit into seq_len = {L}: 4 · pairs tokens are needed, "
                f"so use at most {L // 4} pairs or a seq_len of at least {4 * k}"
            )
        return self

    @model_validator(mode="after")
    def _slices_differ(self) -> Self:
        if any(number >= self.pairs for number in self.slice_pairs):
            raise ValueError(
                f"slice_pairs = {list(self.slice_pairs)} must hold numbers below pairs = {self.pairs}, "
                "which has a row of its own already"
            )
        if len(set(self.slice_pairs)) < len(self.slice_pairs):
            raise ValueError(f"slice_pairs = {list(self.slice_pairs)} names a number twice; leave one out")
        return self

    def recipe(self, pairs: int) -> Recipe:
        """How examples with so many pairs are drawn."""
        return Recipe(self.vocab_size, self.seq_len, pairs, self.power_a, self.random_filler)

    def parts(self, split: Split) -> dict[int, int]:
        """Number of pairs → number of examples with it, in the order in which the split holds them."""
        if split == "test":
            return dict.fromkeys((self.pairs, *self.slice_pairs), self.test_examples)
        return {self.pairs: self.train_examples if split == "train" else self.valid_examples}


class MQARExamples:
    """One split, drawn as a whole when it is first read and held as small integers.

    Args:
        data: the task's settings.
        split: which one.
    """

    def __init__(self, data: MQARData, split: Split) -> None:
        self.data, self.split, self.parts = data, split, data.parts(split)

    def __len__(self) -> int:
        return sum(self.parts.values())

    def batch(self, indices: Tensor) -> Batch:
        """Examples by their indices, int [B], on the CPU.

        Returns:
            int64 tensors: ``inputs`` [B, L]; ``labels`` [B, L], IGNORE where nothing is asked; ``distance`` [B, L],
            tokens from a key to its query, 0 where nothing is asked; ``pairs`` [B].
        """
        rows = indices.cpu().numpy()
        inputs, queries = (array[rows].astype(np.int64) for array in self._drawn)
        labels, distance = label_queries(inputs, queries)
        part = np.searchsorted(np.cumsum(list(self.parts.values())), rows, side="right")
        pairs = np.array(list(self.parts))[part]
        arrays = {"inputs": inputs, "labels": labels, "distance": distance, "pairs": pairs}
        return {key: torch.from_numpy(np.ascontiguousarray(array)) for key, array in arrays.items()}

    @property
    def nbytes(self) -> int:
        """Bytes that the split takes in memory once it is drawn."""
        token = np.min_scalar_type(self.data.vocab_size).itemsize
        position = np.min_scalar_type(self.data.seq_len).itemsize
        return len(self) * (self.data.seq_len * token + self.data.pairs * position)

    @cached_property
    def _drawn(self) -> tuple[IntArray, IntArray]:
        """Inputs [n, L] and queries [n, pairs] as `label_queries` wants them, in the smallest type that holds them."""
        data, n = self.data, len(self)
        inputs = np.empty((n, data.seq_len), np.min_scalar_type(data.vocab_size))
        queries = np.full((n, data.pairs), data.seq_len, np.min_scalar_type(data.seq_len))
        begin = 0
        for pairs, count in self.parts.items():
            for index in range(-(-count // BLOCK)):
                end = begin + min(BLOCK, count - index * BLOCK)
                drawn = draw_block(data.recipe(pairs), data.seed, self.split, index)
                inputs[begin:end], queries[begin:end, :pairs] = (array[: end - begin] for array in drawn)
                begin = end
        return inputs, queries


class MQAR(BenchTask):
    """Multi-query associative recall (Arora et al., Zoology, ICLR 2024, arXiv 2312.04927)."""

    Data = MQARData
    version: ClassVar[int] = 1

    def __init__(self, data: Any) -> None:
        super().__init__(data)
        self._splits = {split: MQARExamples(data, split) for split in SPLITS}

    def shape(self) -> Shape:
        """A language model over the V tokens; it answers with a token."""
        V = self.data.vocab_size
        return Shape(head="lm", outputs=V, max_len=self.data.seq_len, vocab_size=V)

    def examples(self, split: Split) -> MQARExamples:
        """A split; it is drawn when a batch is first read from it."""
        return self._splits[split]

    def meter(self) -> MQARMeter:
        """A fresh meter for one split."""
        return MQARMeter(self.data.seq_len, self.data.pairs, self.data.slice_pairs)

    def digest(self) -> str:
        """First 16 hex digits of the SHA-256 of the settings, the generator's version and each split's first block.

        The blocks are there because numpy does not promise the same stream in every future release.
        """
        settings = {"generator": VERSION, **self.data.model_dump(mode="json")}
        found = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        for split in SPLITS:
            for array in draw_block(self.data.recipe(self.data.pairs), self.data.seed, split, 0):
                found.update(array.astype("<i8").tobytes())
        return found.hexdigest()[:16]

    def chance(self) -> float:
        """1 / pairs: a model that names one of the values in the context and knows nothing of the keys.

        Below it lies 2 / V, a guess among all values. Models that do not learn the task end at 1 / pairs.
        """
        return 1 / self.data.pairs

    def nbytes(self) -> int:
        """Bytes of the three splits in memory, without drawing them."""
        return sum(split.nbytes for split in self._splits.values())
