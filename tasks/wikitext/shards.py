"""Documents as flat arrays of ids: how they are made, and how they are read from the cache.

Of each part of a corpus the cache has ``<part>_tokens`` uint16 or int32 [tokens]; ``<part>_begins`` int64
[documents + 1], where each document begins among them; ``<part>_words`` and ``<part>_bytes`` int32 [documents]: what
the documents' text has, whatever the tokeniser. Words stand between white space; each line has one more, for its end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from zeta_bench.errors import ZetaBenchError
from zeta_bench.store.cache import Arrays
from zeta_bench.tasks.wikitext.tokenizer import Tokenizer

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Shard:
    """A part of a corpus.

    Attributes:
        tokens: ids, [T].
        begins: where each document begins, and the end, int64 [D + 1].
        words: of each document's text, [D].
        nbytes: UTF-8 bytes of each document's text, [D].
        vocab_size: every id is below it.
    """

    tokens: Array
    begins: Array
    words: Array
    nbytes: Array
    vocab_size: int

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def documents(self) -> int:
        """How many there are."""
        return len(self.words)

    @property
    def targets(self) -> npt.NDArray[np.int64]:
        """Tokens of each document that can be predicted: all but the very first, int64 [D]."""
        found = np.diff(self.begins).astype(np.int64)
        found[0] -= 1
        return found

    def first(self, documents: int | None = None, tokens: int | None = None) -> Shard:
        """Only so many documents, or only so many tokens, from the beginning."""
        if documents is not None:
            n = min(documents, self.documents)
            end = int(self.begins[n])
            return Shard(self.tokens[:end], self.begins[: n + 1], self.words[:n], self.nbytes[:n], self.vocab_size)
        return Shard(self.tokens[:tokens], self.begins, self.words, self.nbytes, self.vocab_size)

    def read(self, begin: int, end: int) -> npt.NDArray[np.int64]:
        """Ids of places begin … end − 1. Raises ZetaBenchError if one is none of the tokeniser's."""
        found: npt.NDArray[np.int64] = np.asarray(self.tokens[begin:end]).astype(np.int64)
        if len(found) and (highest := int(found.max())) >= self.vocab_size:
            raise ZetaBenchError(
                f"the stored text has the id {highest} where its tokeniser ends at {self.vocab_size - 1}: they do not "
                "belong together; make the data again with: zeta-bench data fetch wikitext --protocol NAME --force"
            )
        return found


def make_shard(documents: Iterable[Sequence[str]], tokenizer: Tokenizer, told: Callable[[int], None]) -> Shard:
    """Encode documents one by one, so that only their ids are held; `told`: called with the words of each.

    Raises:
        ZetaBenchError: there are fewer than two tokens.
    """
    ids, words, sizes, lengths = [], [], [], [0]
    kind = np.uint16 if tokenizer.vocab_size <= 2**16 else np.int32
    for lines in documents:
        found = tokenizer.encode(lines)
        ids.append(found.astype(kind))
        lengths.append(len(found))
        words.append(sum(len(line.split()) + 1 for line in lines))
        sizes.append(sum(len(line.encode()) for line in lines))
        told(words[-1])
    if sum(lengths) < 2:
        raise ZetaBenchError("a part of the corpus has fewer than two tokens; get its files again.")
    return Shard(
        np.concatenate(ids), np.cumsum(lengths), np.array(words, np.int32), np.array(sizes, np.int32),
        tokenizer.vocab_size,
    )  # fmt: skip


def as_arrays(part: str, shard: Shard) -> Arrays:
    """A part as it is kept."""
    return {
        f"{part}_tokens": shard.tokens,
        f"{part}_begins": shard.begins,
        f"{part}_words": shard.words,
        f"{part}_bytes": shard.nbytes,
    }


def from_arrays(part: str, array: Callable[[str], Array], vocab_size: int) -> Shard:
    """A part as it was kept; `array`: gives the arrays by name."""
    tokens, begins, words, nbytes = (array(f"{part}_{what}") for what in ("tokens", "begins", "words", "bytes"))
    return Shard(tokens, begins, words, nbytes, vocab_size)


def count(shard: Shard) -> npt.NDArray[np.int64]:
    """How often each id comes, int64 [vocab_size]."""
    return np.bincount(shard.tokens, minlength=shard.vocab_size).astype(np.int64)


def unigram_nll(counts: npt.NDArray[np.int64], shard: Shard) -> float:
    """Nats a target of a shard under the frequencies of ids in another text, each counted once more than it came."""
    log_p = np.log(counts + 1.0) - np.log(counts.sum() + len(counts))
    targets = np.bincount(shard.tokens[1:], minlength=len(counts))
    return float(-(targets * log_p).sum() / targets.sum())
