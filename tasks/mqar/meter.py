"""How answers to multi-query associative recall are scored."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from zeta_bench.task import Batch, Meter, Score, select_labelled

FIRST_EDGE = 16
"""Upper end of the nearest bin of distances, in tokens; each further edge is twice the one before."""


class MQARMeter(Meter):
    """Accuracy as in Zoology: each example's mean over its queries, then the mean over examples.

    Examples with another number of pairs than `pairs` are scored in the slice "pairs" and nowhere else.

    Values:
        accuracy: in [0, 1]; with accuracy_stderr_items, its standard error over the examples, from two examples on.
        loss: mean cross-entropy of a query, in nats.

    Slices (accuracy, with the number of queries as the count; bins without a query are left out):
        distance: tokens from the key to its query, ``1–15``, ``16–31``, ``32–63``, …
        pairs: pairs of the example.

    Args:
        seq_len: L, tokens of an example; bounds the distance.
        pairs: k, pairs of the examples that make up the accuracy.
        slice_pairs: further numbers of pairs that may occur.
    """

    # Every state but the loss is a count: sums over batches and devices are exact in any order.
    correct: Tensor  # right answers
    correct_squared: Tensor  # sum over examples of (right answers)²
    examples: Tensor
    loss_sum: Tensor
    distance_counts: Tensor  # [bins, 2]: queries, right answers
    pairs_counts: Tensor  # [1 + len(slice_pairs), 2]: the same

    def __init__(self, seq_len: int, pairs: int, slice_pairs: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.pairs = pairs
        self.all_pairs = (pairs, *slice_pairs)
        self.edges = distance_edges(seq_len)
        for name in ("correct", "correct_squared", "examples"):
            self.add_state(name, torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("loss_sum", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("distance_counts", torch.zeros(len(self.edges), 2, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("pairs_counts", torch.zeros(len(self.all_pairs), 2, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, batch: Batch) -> None:
        """Take in one batch.

        Args:
            logits: [M, V] at the M labelled positions, row by row.
            batch: with ``labels`` and ``distance`` int64 [B, N] and ``pairs`` int64 [B].
        """
        labelled = select_labelled(batch)
        answers, distance = batch["labels"][labelled], batch["distance"][labelled]
        pairs = batch["pairs"][:, None].expand_as(labelled)[labelled]
        right, main = logits.argmax(dim=-1) == answers, pairs == self.pairs

        grid = torch.zeros_like(labelled)
        grid[labelled] = right & main
        self.correct += grid.sum()
        self.correct_squared += grid.sum(dim=1).square().sum()
        self.examples += (batch["pairs"] == self.pairs).sum()
        loss = F.cross_entropy(logits.float(), answers, reduction="none")
        self.loss_sum += loss[main].sum(dtype=torch.float64)

        inner = torch.tensor(self.edges[:-1], device=distance.device)
        bins = torch.bucketize(distance, inner, right=True)
        self.distance_counts += _count(bins.masked_fill(~main, -1), range(len(self.edges)), right)
        self.pairs_counts += _count(pairs, self.all_pairs, right)

    def compute(self) -> Score:
        """The score of everything since `reset`; NaN where no example of the main number of pairs was seen."""
        n, correct = int(self.examples), int(self.correct)
        queries = n * self.pairs
        values = {
            "accuracy": correct / queries if n else math.nan,
            "loss": float(self.loss_sum) / queries if n else math.nan,
        }
        if n > 1:
            variance = (int(self.correct_squared) - correct**2 / n) / (n - 1) / self.pairs**2
            values["accuracy_stderr_items"] = math.sqrt(max(variance, 0.0) / n)
        distance = [f"{low}–{high - 1}" for low, high in zip((1, *self.edges), self.edges, strict=False)]
        pairs = [str(number) for number in self.all_pairs]
        slices = {"distance": _part(distance, self.distance_counts), "pairs": _part(pairs, self.pairs_counts)}
        return Score(values, slices)


def distance_edges(seq_len: int) -> tuple[int, ...]:
    """Upper ends (exclusive) of the bins of distances: 16, 32, 64, … until they cover seq_len − 1."""
    edges = [FIRST_EDGE]
    while edges[-1] < seq_len:
        edges.append(2 * edges[-1])
    return tuple(edges)


def _count(group: Tensor, groups: range | tuple[int, ...], right: Tensor) -> Tensor:
    """Queries and right answers of each group, int64 [len(groups), 2]; deterministic on every device."""
    member = group[:, None] == torch.tensor(groups, device=group.device)
    return torch.stack([member.sum(dim=0), (member & right[:, None]).sum(dim=0)], dim=1)


def _part(names: list[str], counts: Tensor) -> dict[str, dict[str, float]]:
    """A slice's rows by name, in the order of `names`."""
    rows = zip(names, counts.tolist(), strict=True)
    return {name: {"value": right / queries, "count": queries} for name, (queries, right) in rows if queries}
