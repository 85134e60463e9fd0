"""ListOps as a task: its settings, its splits and its score."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from functools import cached_property, partial
from itertools import count, pairwise
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, NonNegativeInt, PositiveInt, model_validator
from torch import Tensor

from zeta_bench.errors import ZetaBenchError
from zeta_bench.settings import Settings
from zeta_bench.store.cache import Arrays
from zeta_bench.store.parallel import in_order
from zeta_bench.store.task import Advance, StoredTask
from zeta_bench.task import Batch, Shape, Split
from zeta_bench.tasks.lra.listops.generator import SYMBOLS, VERSION, Block, Recipe, draw_block
from zeta_bench.tasks.lra.meter import AccuracyMeter
from zeta_bench.tasks.lra.splits import DEALT, DealtSplit, FlatSequences, majority

CLASSES = 10
LENGTH_BINS = 6
PATIENCE = 20
"""Blocks in a row that may bring nothing new before drawing is given up."""


class ListOpsData(Settings):
    """The ``[data]`` of a protocol; the defaults are those of the Long Range Arena.

    Attributes:
        max_depth: depth at which every node is a digit; so at most max_depth − 1 operators are nested.
        max_args: most arguments of an operator.
        longer_than: tokens of an expression, exclusive.
        shorter_than: tokens of an expression, exclusive; also the length to which every example is padded.
        train_examples: examples to train on; an epoch.
        valid_examples: examples of the validation split.
        test_examples: examples of the test split.
        seed: of the data; the same for every run of a protocol, whatever the run's own seed.
    """

    max_depth: int = Field(default=10, ge=2, le=20)
    max_args: int = Field(default=10, ge=2, le=100)
    longer_than: NonNegativeInt = 500
    shorter_than: PositiveInt = 2000
    train_examples: PositiveInt = 96_000
    valid_examples: PositiveInt = 2000
    test_examples: PositiveInt = 2000
    seed: NonNegativeInt = 123

    @model_validator(mode="after")
    def _lengths_exist(self) -> Self:
        if self.shorter_than - self.longer_than < 2:
            raise ValueError(
                f"no length is above longer_than = {self.longer_than} and below shorter_than = {self.shorter_than}; "
                "both are exclusive, so set them further apart"
            )
        longest = 1
        for _ in range(self.max_depth - 1):
            longest = 2 + self.max_args * longest
        if longest <= self.longer_than:
            raise ValueError(
                f"with max_depth = {self.max_depth} and max_args = {self.max_args} no expression is longer than "
                f"{longest} tokens, but longer_than = {self.longer_than}; lower it or raise one of the two"
            )
        return self

    @property
    def recipe(self) -> Recipe:
        """Which expressions are drawn."""
        return Recipe(self.max_depth, self.max_args, self.longer_than, self.shorter_than)

    def sizes(self) -> dict[Split, int]:
        """Examples of each split, in the order in which they are drawn."""
        return {"test": self.test_examples, "valid": self.valid_examples, "train": self.train_examples}


class ListOpsExamples(DealtSplit):
    """One split, read from the cache as it is needed; see `DealtSplit`."""

    data: ListOpsData

    def batch(self, indices: Tensor) -> Batch:
        """Examples by their indices, int [B], on the CPU.

        Returns:
            ``inputs`` int64 [B, shorter_than], ids of `generator.SYMBOLS`; ``valid`` bool of that shape, True = no
            padding; ``labels`` int64 [B], the value of the expression; ``slice_depth`` and ``slice_length`` int64 [B].
        """
        rows = self.first + indices.cpu().numpy()
        inputs, valid = self._expressions.padded(rows, self.data.shorter_than)
        arrays = {
            "inputs": inputs,
            "valid": valid,
            "labels": self._arrays["labels"][rows].astype(np.int64),
            "slice_depth": self._arrays["depths"][rows].astype(np.int64) - 1,
            "slice_length": np.searchsorted(length_edges(self.data), self._expressions.lengths[rows]) - 1,
        }
        return {key: torch.from_numpy(array) for key, array in arrays.items()}

    @cached_property
    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {name: self.entry.array(name) for name in ("labels", "depths")}

    @cached_property
    def _expressions(self) -> FlatSequences:
        return FlatSequences(self.entry.array("tokens"), self.entry.array("lengths"))


class ListOps(StoredTask):
    """ListOps of the Long Range Arena (Tay et al., ICLR 2021, arXiv 2011.04006; Nangia and Bowman, 2018)."""

    Data = ListOpsData
    version: ClassVar[int] = 1
    name: ClassVar[str] = "lra.listops"
    data_version: ClassVar[int] = VERSION
    published: ClassVar[Mapping[str, str]] = {
        "v1-3043be39e788": "d1911cdac2ec8292",  # the defaults, those of the Long Range Arena
        "v1-add9e593ccd0": "5785ece63e5e4f38",  # the protocol `quick`
    }

    def __init__(self, data: Any) -> None:
        super().__init__(data)
        self._splits = {split: ListOpsExamples(data, split, self.entry) for split in DEALT}

    def shape(self) -> Shape:
        """A classifier with one class a digit, over the tokens of expressions."""
        return Shape(head="classifier", outputs=CLASSES, max_len=self.data.shorter_than, vocab_size=len(SYMBOLS))

    def examples(self, split: Split) -> ListOpsExamples:
        """A split; its files are opened when a batch is first read."""
        self.check()
        return self._splits[split]

    def meter(self) -> AccuracyMeter:
        """A fresh meter for one split, with slices by depth of operators and by length."""
        edges = length_edges(self.data)
        lengths = [f"{low + 1}–{high}" for low, high in pairwise(edges)]
        depths = [str(depth) for depth in range(1, self.data.max_depth)]
        return AccuracyMeter({"depth": depths, "length": lengths})

    def chance(self) -> float:
        """Share of the test split's most frequent value, above 1 / 10: 0 and 9 are what MIN and MAX of many give."""
        return majority(self.examples("test").labels)

    def drawing_seconds(self) -> float:
        """Some 0.2 µs for each token that there is room for."""
        data = self.data
        return 2e-7 * data.shorter_than * (data.train_examples + data.valid_examples + data.test_examples)

    def make(self, advance: Advance, processes: int) -> Arrays:
        """Draw distinct expressions until there are enough; they are dealt out in the order of `DEALT`."""
        wanted = sum(self.data.sizes().values())
        parts, seen, barren = [], set[bytes](), 0
        with closing(in_order(partial(draw_block, self.data.recipe, self.data.seed), count(), processes)) as blocks:
            while len(seen) < wanted:
                block, before = next(blocks), len(seen)
                parts.append(_select(block, _new(block, seen, wanted)))
                barren = barren + 1 if len(seen) == before else 0
                if barren == PATIENCE:
                    raise ZetaBenchError(
                        f"only {before} of {wanted} distinct expressions were found with these settings; ask for "
                        "fewer examples, or widen longer_than, shorter_than, max_depth or max_args."
                    )
                advance(len(seen), wanted)
        return {
            "tokens": np.concatenate([part.tokens for part in parts]),
            "lengths": np.concatenate([part.lengths for part in parts]).astype(np.int32),
            "labels": np.concatenate([part.labels for part in parts]),
            "depths": np.concatenate([part.depths for part in parts]),
        }


def length_edges(data: ListOpsData) -> list[int]:
    """Edges of the bins of lengths, as even as whole numbers allow; a bin begins above one and ends with the next."""
    low, high = data.longer_than, data.shorter_than - 1
    return sorted({low + (high - low) * i // LENGTH_BINS for i in range(LENGTH_BINS + 1)})


def _expressions(block: Block) -> Iterator[bytes]:
    ends = np.cumsum(block.lengths)
    for begin, end in zip(ends - block.lengths, ends, strict=True):
        yield block.tokens[begin:end].tobytes()


def _new(block: Block, seen: set[bytes], wanted: int) -> npt.NDArray[np.bool_]:
    """Which expressions of a block have not come before, until there are `wanted`; they are added to `seen`."""
    new = np.zeros(len(block.lengths), dtype=bool)
    for place, expression in enumerate(_expressions(block)):
        if len(seen) == wanted:
            break
        new[place] = expression not in seen
        seen.add(expression)
    return new


def _select(block: Block, chosen: npt.NDArray[np.bool_]) -> Block:
    tokens = block.tokens[np.repeat(chosen, block.lengths)]
    return Block(tokens, block.lengths[chosen], block.labels[chosen], block.depths[chosen])
