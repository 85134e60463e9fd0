"""How predictions of the next token are scored: perplexity by token and by word, and bits by byte."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from zeta_bench.task import Batch, Meter, Score, select_labelled

FIRST_EDGE = 64
"""Upper end of the nearest bin of contexts, in tokens; each further edge is twice the one before."""
LARGEST = 700.0
"""A larger exponent would overflow."""


@dataclass(frozen=True)
class Documents:
    """The documents that a split may have.

    Attributes:
        targets: tokens to predict, each [D].
        words: words of their text.
        nbytes: bytes of their text.
        own: how many of them, the first ones, are of the corpus trained on; the others are scored zero-shot.
    """

    targets: Sequence[int]
    words: Sequence[int]
    nbytes: Sequence[int]
    own: int


class PerplexityMeter(Meter):
    """Figures of a text, all from one sum of negative log-likelihoods.

    Values, of the documents of the corpus trained on; each with ``<metric>_stderr_items``, a standard error over the
    documents, from two documents on:
        loss: nats a token.
        ppl_token: exp(loss).
        ppl_word: exp(nats ÷ words of the text); whatever the tokeniser, it is the same words.
        bits_per_byte: bits ÷ bytes of the text.

    Slices (ppl_token, with the number of tokens as the count; parts without a token are left out):
        document: by the document's number; what an interval over documents is drawn from.
        context: by the number of tokens that a prediction could look at, ``1–64``, ``65–128``, ``129–256``, …
        zero-shot: the documents of the other corpus together, with ppl_word, bits_per_byte and words beside.

    Args:
        documents: what there is in the splits.
        length: L, tokens of a window.
        zero_shot: name of the other corpus.
    """

    by_position = True
    nll: Tensor  # float64 [D]: nats; sums over batches and devices differ in their last bits at most
    seen: Tensor  # int64 [D]: tokens
    context_nll: Tensor  # float64 [bins]
    context_seen: Tensor  # int64 [bins]

    def __init__(self, documents: Documents, length: int, zero_shot: str = "") -> None:
        super().__init__()
        self.documents, self.zero_shot = documents, zero_shot
        self.edges = context_edges(length)
        for name, size in (("", len(documents.targets)), ("context_", len(self.edges))):
            self.add_state(f"{name}nll", torch.zeros(size, dtype=torch.float64), dist_reduce_fx="sum")
            self.add_state(f"{name}seen", torch.zeros(size, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, batch: Batch) -> None:
        """Take in one batch.

        Args:
            logits: [M, V] at the M labelled positions, row by row.
            batch: with ``labels`` and ``documents``, int64 [B, N].
        """
        labelled = select_labelled(batch)
        labels, document = batch["labels"][labelled], batch["documents"][labelled]
        nll = F.cross_entropy(logits.float(), labels, reduction="none").double()
        self.nll.index_add_(0, document, nll)
        self.seen += torch.bincount(document, minlength=len(self.seen))
        own = document < self.documents.own
        place = torch.arange(1, labelled.shape[1] + 1, device=labels.device).expand_as(labelled)[labelled]
        bins = torch.bucketize(place, torch.tensor(self.edges, device=labels.device))[own]
        self.context_nll.index_add_(0, bins, nll[own])
        self.context_seen += torch.bincount(bins, minlength=len(self.context_seen))

    def compute(self) -> Score:
        """The score of everything since `reset`; NaN where nothing was seen."""
        rows = self._rows()
        own = [row for row in rows if row.number < self.documents.own]
        other = [row for row in rows if row.number >= self.documents.own]
        slices = {
            "document": {str(row.number): _part(row.nll, row.seen) for row in own},
            "context": self._context(),
        }
        if other:
            found = _figures(other)
            words = sum(row.words for row in other)
            kept = {name: found[name] for name in ("ppl_word", "bits_per_byte")}
            total = _part(sum(row.nll for row in other), sum(row.seen for row in other))
            slices["zero-shot"] = {self.zero_shot: {**total, **kept, "words": words}}
        return Score({**_figures(own), **_errors(own)}, slices)

    def _rows(self) -> list[_Row]:
        """The documents of which a token was seen; one seen in part has that part of its words and bytes."""
        table = zip(self.nll.tolist(), self.seen.tolist(), strict=True)
        of = self.documents
        rows = []
        for number, (nll, seen) in enumerate(table):
            if seen:
                share = seen / of.targets[number]
                rows.append(_Row(number, nll, seen, of.words[number] * share, of.nbytes[number] * share))
        return rows

    def _context(self) -> dict[str, dict[str, float]]:
        names = [f"{low + 1}–{high}" for low, high in zip((0, *self.edges), self.edges, strict=False)]
        table = zip(names, self.context_nll.tolist(), self.context_seen.tolist(), strict=True)
        return {name: _part(nll, seen) for name, nll, seen in table if seen}


@dataclass(frozen=True)
class _Row:
    number: int
    nll: float
    seen: int
    words: float
    nbytes: float


def context_edges(length: int) -> tuple[int, ...]:
    """Upper ends of the bins of contexts: 64, 128, 256, … until they cover the window; the last is its length."""
    edges = []
    edge = FIRST_EDGE
    while edge < length:
        edges.append(edge)
        edge *= 2
    return (*edges, length)


def _figures(rows: Sequence[_Row]) -> dict[str, float]:
    nll = math.fsum(row.nll for row in rows)
    per_token = _ratio(nll, sum(row.seen for row in rows))
    return {
        "loss": per_token,
        "ppl_token": _exp(per_token),
        "ppl_word": _exp(_ratio(nll, math.fsum(row.words for row in rows))),
        "bits_per_byte": _ratio(nll, math.fsum(row.nbytes for row in rows)) / math.log(2),
    }


def _errors(rows: Sequence[_Row]) -> dict[str, float]:
    """Standard errors over documents, of a ratio of two sums; of exp(ratio) by its derivative."""
    if len(rows) < 2:
        return {}
    per_token = _ratio_error([(row.nll, row.seen) for row in rows])
    per_word = _ratio_error([(row.nll, row.words) for row in rows])
    found = _figures(rows)
    return {
        "loss_stderr_items": per_token,
        "ppl_token_stderr_items": found["ppl_token"] * per_token,
        "ppl_word_stderr_items": found["ppl_word"] * per_word,
        "bits_per_byte_stderr_items": _ratio_error([(row.nll, row.nbytes) for row in rows]) / math.log(2),
    }


def _ratio_error(pairs: Sequence[tuple[float, float]]) -> float:
    n, below = len(pairs), math.fsum(b for _, b in pairs)
    ratio = math.fsum(a for a, _ in pairs) / below
    return math.sqrt(n / (n - 1) * math.fsum((a - ratio * b) ** 2 for a, b in pairs)) / below


def _part(nll: float, seen: int) -> dict[str, float]:
    return {"value": _exp(nll / seen), "count": seen}


def _ratio(above: float, below: float) -> float:
    return above / below if below else math.nan


def _exp(x: float) -> float:
    return math.exp(min(x, LARGEST)) if x == x else math.nan
