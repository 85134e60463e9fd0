"""Language modelling as a task: its settings, its corpora and their shards, its splits and its score."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import Field, PositiveInt, model_validator

from zeta_bench.errors import ZetaBenchError
from zeta_bench.settings import Settings
from zeta_bench.store.cache import Arrays
from zeta_bench.store.fetched import FetchedTask
from zeta_bench.store.source import Source
from zeta_bench.store.task import Advance
from zeta_bench.task import Examples, Shape, Split
from zeta_bench.tasks.wikitext.corpora import (
    GPT2_FILES,
    PACKAGINGS,
    VOCABULARY,
    WORDS,
    ZERO_SHOT,
    Corpus,
    Packaging,
    Part,
    Text,
)
from zeta_bench.tasks.wikitext.meter import Documents, PerplexityMeter
from zeta_bench.tasks.wikitext.shards import Shard, as_arrays, count, from_arrays, make_shard, unigram_nll
from zeta_bench.tasks.wikitext.tokenizer import BYTES_SIZE, GPT2_SIZE, Name, Tokenizer, make_tokenizer, restore
from zeta_bench.tasks.wikitext.windows import EvaluationWindows, TrainingWindows

ZERO_SHOT_NAME = "wikitext-103 with <unk>"
PARTS: tuple[Part, ...] = ("train", "valid", "test")
CHOICES = ("seq_len", "eval_stride", "train_tokens", "eval_documents")
"""Settings that choose among what is stored."""


class WikitextData(Settings):
    """The ``[data]`` of a protocol.

    Attributes:
        corpus: what is trained on; a figure on one says nothing about another.
        text: "raw", or with ``<unk>`` in place of rare words.
        tokenizer: "gpt2"; "words", for texts with ``<unk>``; "bytes".
        zero_shot: also score WikiText-103's validation and test part, in the slice "zero-shot" alone.
        seq_len: tokens of a window, from 1024 to 16384 in what is published.
        eval_stride: targets that count in each window of an evaluation but the first; None = all, without overlap.
        train_tokens: train on the first so many tokens only; None = all.
        eval_documents: validate and test on the first so many documents only; None = all.
    """

    corpus: Corpus = "wikitext-103"
    text: Text = "raw"
    tokenizer: Name = "gpt2"
    zero_shot: bool = False
    seq_len: PositiveInt = 1024
    eval_stride: PositiveInt | None = None
    train_tokens: int | None = Field(default=None, ge=2)
    eval_documents: PositiveInt | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        """No setting asks for what is not there."""
        if self.corpus == "wikipedia-en-2015" and self.text == "unk":
            raise ValueError("corpus wikipedia-en-2015 has no <unk>; write text = raw")
        if self.tokenizer == "words" and self.text == "raw":
            raise ValueError("tokenizer words needs a vocabulary that is whole; write text = unk")
        if self.zero_shot and self.corpus != "wikipedia-en-2015":
            raise ValueError(f"zero_shot is for corpus wikipedia-en-2015; {self.corpus} is WikiText itself")
        if self.eval_stride is not None and self.eval_stride > self.seq_len:
            raise ValueError(f"eval_stride = {self.eval_stride} is more than seq_len = {self.seq_len}; lower it")
        return self


class Wikitext(FetchedTask):
    """Language modelling (Merity et al., 2016, arXiv 1609.07843)."""

    Data = WikitextData
    version: ClassVar[int] = 1
    name: ClassVar[str] = "wikitext"
    sources: ClassVar[tuple[Source, ...]] = tuple(packaging.source for packaging in PACKAGINGS)
    packagings: ClassVar[tuple[Packaging, ...]] = PACKAGINGS
    words: ClassVar[Mapping[Corpus, Mapping[Part, int]]] = WORDS
    vocabulary: ClassVar[Mapping[Corpus, int]] = VOCABULARY
    published: ClassVar[Mapping[str, str]] = {
        "v1-fff2bbb30da9": "4aa1041039fbee88",
        "v1-3c6fc8dc3658": "9e4e346a4dbb1028",
    }

    def identity(self) -> dict[str, Any]:
        """Which text there is and how it is cut into tokens; the rest chooses windows."""
        settings = self.data.model_dump(mode="json")
        return {name: value for name, value in settings.items() if name not in CHOICES}

    def usable(self) -> list[Source]:
        """The packagings of the corpus, each with the tokeniser's files and those of the zero-shot parts."""
        extra = (GPT2_FILES if self.data.tokenizer == "gpt2" else ()) + (
            tuple(ZERO_SHOT.values()) if self.data.zero_shot else ()
        )
        mine = [each for each in self.packagings if (each.corpus, each.text) == (self.data.corpus, self.data.text)]
        return [Source(each.source.name, each.source.files + extra, each.source.note) for each in mine]

    def read(self, source: Source, files: Mapping[str, Path], advance: Advance) -> Arrays:
        """Every part as a `Shard`, the tokeniser, and how often each id comes in training: ``unigram`` int64 [V]."""
        packaging = next(each for each in self.packagings if each.source.name == source.name)
        tokenizer = make_tokenizer(self.data.tokenizer, files, lambda: packaging.documents("train", files))
        self._check_vocabulary(tokenizer, source)
        arrays: dict[str, Any] = {f"tokenizer_{name}": array for name, array in tokenizer.stored().items()}
        progress = _Progress(advance, sum(self.words[self.data.corpus].values()))
        for part in self.parts:
            shard = make_shard(packaging.documents(part, files), tokenizer, progress)
            self._check_words(part, shard, source)
            arrays |= as_arrays(part, shard)
            if part == "train":
                arrays["unigram"] = count(shard)
        return arrays

    @property
    def parts(self) -> tuple[Part, ...]:
        """What is stored of the corpus."""
        return PARTS + (tuple(ZERO_SHOT) if self.data.zero_shot else ())

    def shape(self) -> Shape:
        """A language model over the tokeniser's ids."""
        size = self._vocab_size
        return Shape(head="lm", outputs=size, max_len=self.data.seq_len, vocab_size=size)

    def examples(self, split: Split) -> Examples:
        """A split; its files are opened when a batch is first read."""
        self.check()
        if split == "train":
            return TrainingWindows(self.shard("train").first(tokens=self.data.train_tokens), self.data.seq_len)
        number, evaluated = 0, []
        for part, shard in self._evaluated.items():
            if part in (split, f"zero_{split}"):
                evaluated.append((shard, number))
            number += shard.documents
        shards, numbers = zip(*evaluated, strict=True)
        return EvaluationWindows(shards, self.data.seq_len, self.data.eval_stride or self.data.seq_len, numbers)

    def meter(self) -> PerplexityMeter:
        """A fresh meter for one split; it knows the documents of both."""
        shards = self._evaluated
        documents = Documents(
            targets=[int(n) for shard in shards.values() for n in shard.targets],
            words=[int(n) for shard in shards.values() for n in shard.words],
            nbytes=[int(n) for shard in shards.values() for n in shard.nbytes],
            own=shards["valid"].documents + shards["test"].documents,
        )
        return PerplexityMeter(documents, self.data.seq_len, ZERO_SHOT_NAME)

    def chance(self) -> float:
        """Perplexity a token of the test split under the frequencies of the tokens in training."""
        return self._chance

    def tokenizer(self) -> Tokenizer:
        """The tokeniser that made the stored ids."""
        self.check()
        return restore(self.data.tokenizer, lambda name: self.entry.array(f"tokenizer_{name}"))

    def encode(self, text: str) -> list[int]:
        """Ids of a text, cut line by line as the stored ones."""
        ids: list[int] = self._tokenizer.encode(text.splitlines(keepends=True)).tolist()
        ends = self.data.tokenizer == "words" and text and not text.endswith("\n")  # of words a line's end is one, too
        return ids[:-1] if ends else ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids."""
        return self._tokenizer.decode(ids)

    def shard(self, part: Part) -> Shard:
        """A part as it is stored. Raises ZetaBenchError if the ids are of another tokeniser."""
        if (size := len(self.entry.array("unigram"))) != self._vocab_size:
            raise ZetaBenchError(
                f"{self.entry.folder} has a vocabulary of {size} where {self.data.tokenizer} has {self._vocab_size}: "
                f"it is damaged; make it again with: {self.remedy('--force')}"
            )
        return from_arrays(part, self.entry.array, self._vocab_size)

    def remedy(self, *more: str) -> str:
        """The command that fetches this corpus alone: the others are large, or not to be had."""
        named = self.changes() if self.entry.key in self.published else []  # otherwise they are named already
        if not self.changes():
            named = ["--set", f"data.corpus={self.data.corpus}"]  # without any it would be every protocol's
        return super().remedy(*named, *more)

    def why_other(self) -> str:
        """The files are fixed by their digests, so it is the tokeniser's library that differs."""
        return "the package tokenizers cuts the text otherwise; install the version that constraints.txt names"

    @property
    def _vocab_size(self) -> int:
        sizes = {"gpt2": GPT2_SIZE, "bytes": BYTES_SIZE, "words": self.vocabulary.get(self.data.corpus, 0)}
        return sizes[self.data.tokenizer]

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return self.tokenizer()

    @cached_property
    def _evaluated(self) -> dict[str, Shard]:
        """Shards of the evaluations; those of the corpus trained on come first."""
        shards: dict[str, Shard] = {part: self.shard(part) for part in self.parts if part != "train"}
        for part in ("valid", "test"):
            shards[part] = shards[part].first(documents=self.data.eval_documents)
        return shards

    @cached_property
    def _chance(self) -> float:
        self.check()
        return math.exp(unigram_nll(self.entry.array("unigram"), self._evaluated["test"]))

    def _check_vocabulary(self, tokenizer: Tokenizer, source: Source) -> None:
        if tokenizer.vocab_size != self._vocab_size:
            raise ZetaBenchError(
                f"the training part of '{source.name}' has {tokenizer.vocab_size} different words where "
                f"{self.data.corpus} has {self._vocab_size}: it is another file; get it again. The cache is as it was."
            )

    def _check_words(self, part: Part, shard: Shard, source: Source) -> None:
        """A part with ``<unk>`` has as many words as were published; of the others nobody has counted them."""
        expected = self.words[self.data.corpus].get(part) if self.data.text == "unk" else None
        if expected is not None and (found := int(shard.words.sum(dtype="int64"))) != expected:
            raise ZetaBenchError(
                f"{part} of '{source.name}' has {found} words where {self.data.corpus} has {expected}: it is cut off "
                "or another file; get it again. The cache is as it was."
            )


class _Progress:
    """Adds up words and tells how many there are."""

    def __init__(self, advance: Advance, total: int) -> None:
        self.advance, self.total, self.done = advance, total, 0

    def __call__(self, words: int) -> None:
        self.done += words
        self.advance(min(self.done, self.total), self.total)
