"""Multi-query associative recall: how an example is drawn.

The task is that of Zoology (Arora et al., ICLR 2024, arXiv 2312.04927, section 3 and appendix E), with the semantics of
``zoology/data/multiquery_ar.py``. An example opens with k pairs of a key and its value; later each key comes once
more, as a query, and the model must name the key's value at that very position::

    k = 2 pairs, L = 12 tokens, vocabulary V = 16: keys 1 … 7, values 8 … 15

                  context     | slots
    position   0   1   2   3  | 4   5   6   7   8   9  10  11
    inputs     5  12   3   9  | 3   0   0   0   5   0   0   0
    labels     ·   ·   ·   ·  | 9   ·   ·   ·  12   ·   ·   ·       · = IGNORE
                                └ slot 0: the answer to key 3 is 9, and it is not written after the query

Only numpy's own generators are used, one a block of examples. An example therefore depends on the data settings, the
split and its index, never on the model, on what was drawn before, or on how many examples are wanted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from zeta_bench.task import IGNORE

VERSION = 1
"""Raise it when a change moves any example."""

BLOCK = 1000
"""Examples drawn from one random stream."""

IntArray = npt.NDArray[np.integer]
Split = Literal["train", "valid", "test"]
_STREAM: dict[Split, int] = {"train": 0, "valid": 1, "test": 2}


@dataclass(frozen=True)
class Recipe:
    """What an example looks like. The values are trusted; `MQAR.Data` checks them.

    Attributes:
        vocab_size: V, even; keys are 1 … V/2 − 1, values V/2 … V − 1, and 0 is the filler. Zoology: 8192.
        seq_len: L, tokens of an example, even and below V. Zoology's Figure 2: 64, 128, 256, 512.
        pairs: k, pairs of an example, 4k ≤ L. Zoology's Figure 2: 4, 8, 16, 64, in step with L.
        power_a: a of the slot law p(s) ∝ a·(s + 1)^(a − 1). Zoology: 0.01, where queries crowd behind the context as
            1 / (s + 1); 1 is uniform.
        random_filler: draw each filler token from [0, V) in place of 0: far harder. Zoology's Figure 2: False.
    """

    vocab_size: int
    seq_len: int
    pairs: int
    power_a: float = 0.01
    random_filler: bool = False


def draw_block(recipe: Recipe, seed: int, split: Split, index: int) -> tuple[IntArray, IntArray]:
    """Draw block `index` of a split: the same examples for the same arguments, whatever else is drawn.

    The three splits, and different numbers of pairs, have streams of their own (distinct spawn keys of one
    `numpy.random.SeedSequence`), so they never share random numbers.

    Returns:
        inputs: int64 [BLOCK, L], the tokens.
        queries: int64 [BLOCK, k], the position at which key i is queried, in the order in which slots were drawn.
    """
    stream = np.random.SeedSequence(seed, spawn_key=(_STREAM[split], recipe.pairs, index))
    return draw_examples(recipe, np.random.Generator(np.random.PCG64(stream)), BLOCK)


def draw_examples(recipe: Recipe, rng: np.random.Generator, n: int) -> tuple[IntArray, IntArray]:
    """Draw `n` examples from `rng`; shapes as in `draw_block`. The filler is drawn last and moves nothing else."""
    context, half = 2 * recipe.pairs, recipe.vocab_size // 2
    keys = 1 + draw_distinct(rng, n, recipe.pairs, half - 1)
    values = half + draw_distinct(rng, n, recipe.pairs, half)
    queries = context + 2 * draw_slots(rng, n, recipe.pairs, slot_law(recipe))
    inputs = np.zeros((n, recipe.seq_len), dtype=np.int64)
    inputs[:, 0:context:2] = keys
    inputs[:, 1:context:2] = values
    np.put_along_axis(inputs, queries, keys, axis=1)
    if recipe.random_filler:
        filler = rng.integers(recipe.vocab_size, size=inputs.shape)
        inputs = np.where(inputs == 0, filler, inputs)  # neither a key nor a value is 0
    return inputs, queries


def label_queries(inputs: IntArray, queries: IntArray) -> tuple[IntArray, IntArray]:
    """The right answers to examples.

    Args:
        inputs: [n, L], as drawn.
        queries: [n, K], as drawn. An example with fewer than K pairs has L in the columns that it does not use.

    Returns:
        labels: int64 [n, L], a key's value at the position where it is queried, IGNORE elsewhere.
        distance: int64 [n, L], tokens from a key in the context to its query, 0 elsewhere.
    """
    n, L = inputs.shape
    context = 2 * queries.shape[1]
    labels = np.full((n, L + 1), IGNORE, dtype=np.int64)  # one column more, where unused queries point
    distance = np.zeros((n, L + 1), dtype=np.int64)
    np.put_along_axis(labels, queries, inputs[:, 1:context:2], axis=1)
    np.put_along_axis(distance, queries, queries - np.arange(0, context, 2), axis=1)
    return labels[:, :L], distance[:, :L]


def slot_law(recipe: Recipe) -> npt.NDArray[np.float64]:
    """Probability that the first query falls on slot s: p(s) ∝ a·(s + 1)^(a − 1), float64 [(L − 2k) / 2].

    Slot s is position 2k + 2s. The law is one of the slot, not of the distance to the key, and does not know the key.
    """
    slots = (recipe.seq_len - 2 * recipe.pairs) // 2
    weights = recipe.power_a * np.arange(1, slots + 1, dtype=np.float64) ** (recipe.power_a - 1)
    return weights / weights.sum()


def draw_slots(rng: np.random.Generator, n: int, k: int, law: npt.NDArray[np.float64]) -> IntArray:
    """Draw k distinct slots by `law`, one after another without replacement: int64 [n, k], in the order drawn.

    An exponential race: slot s arrives at time E / p(s). The first to arrive is s with probability p(s), and because
    the exponential law has no memory, the rest race on as if from the start: their order is the order of drawing.
    """
    arrival = rng.standard_exponential((n, len(law))) / law
    return np.argsort(arrival, axis=1)[:, :k]


def draw_distinct(rng: np.random.Generator, n: int, k: int, size: int) -> IntArray:
    """Draw k distinct numbers of 0 … size − 1, uniformly and in random order: int64 [n, k].

    Whatever repeats an earlier number of its row is drawn anew until nothing does. Renaming the numbers renames the
    outcome, so every ordered choice of k is equally likely. Quick because 4k ≤ L < V keeps k below about size / 2.
    """
    drawn = rng.integers(size, size=(n, k))
    rows = np.arange(n)
    while len(rows):
        repeats = _repeats(drawn[rows])
        again = repeats.any(axis=1)
        rows, repeats = rows[again], repeats[again]
        part = drawn[rows]
        part[repeats] = rng.integers(size, size=int(repeats.sum()))
        drawn[rows] = part
    return drawn


def _repeats(numbers: IntArray) -> npt.NDArray[np.bool_]:
    """Bool [n, k]: whether the same number stands further left in the row."""
    order = np.argsort(numbers, axis=1, kind="stable")  # stable: of equal numbers, the leftmost comes first
    ranked = np.take_along_axis(numbers, order, axis=1)
    later = np.zeros(numbers.shape, dtype=bool)
    np.put_along_axis(later, order[:, 1:], ranked[:, 1:] == ranked[:, :-1], axis=1)
    return later
