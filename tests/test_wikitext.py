"""Language modelling: corpora in several packagings, tokenisers, bad data, and the files themselves."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from packagings import serving
from wikitext_files import (
    TWO,
    articles,
    given,
    made,
    make,
    silent,
    texts,
    trust,
    wikipedia,
    word_count,
    write_wikipedia,
    write_zip,
)

from zeta_bench.errors import DataMissing, ZetaBenchError
from zeta_bench.protocol import find_protocol
from zeta_bench.store.cache import content_digest
from zeta_bench.store.source import SourceFile
from zeta_bench.tasks.wikitext import corpora, tokenizer
from zeta_bench.tasks.wikitext.corpora import PACKAGINGS
from zeta_bench.tasks.wikitext.shards import Shard, make_shard
from zeta_bench.tasks.wikitext.task import PARTS, Wikitext
from zeta_bench.tasks.wikitext.text import split_articles, split_pieces
from zeta_bench.tasks.wikitext.tokenizer import GPT2, Bytes, Words
from zeta_bench.tasks.wikitext.windows import TrainingWindows

REAL = Path(__file__).parents[2] / "shared/data"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZETA_BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return given(tmp_path, monkeypatch)


# Corpora


@pytest.mark.parametrize("name", ["bytes", "words", "gpt2"])
def test_the_original_archive_and_the_shuffled_copy_give_the_same_arrays(name: str, folder: Path) -> None:
    task = make(**{**TWO, "tokenizer": name})
    found = []
    for source in task.usable():
        found.append(task.read(source, {file.path: folder / file.path for file in source.files}, silent))
    assert [source.name for source in task.usable()] == ["wikitext-2-v1", "wikitext-2-shuffled"]
    assert content_digest(found[0]) == content_digest(found[1])
    assert int(found[0]["train_words"].sum()) == word_count(texts()["train"])
    assert len(found[0]["test_words"]) == 5, "the documents of an evaluation are whole articles"
    assert len(found[0]["train_words"]) == 20 + 2 * 7, "of training they are pieces"


def test_articles_begin_at_titles_between_empty_lines_and_keep_every_character() -> None:
    text = texts()["train"]
    whole = list(split_articles(text.splitlines(keepends=True)))
    assert ["".join(lines) for lines in whole] == articles(20)
    pieces = split_pieces(text.splitlines(keepends=True))
    assert sorted(line for piece in pieces for line in piece) == sorted(text.splitlines(keepends=True))
    assert list(split_articles([])) == []
    assert list(split_articles(["one\n"])) == [["one\n"]]


def test_the_words_of_a_text_are_its_ids_and_the_bytes_its_text(folder: Path) -> None:
    words, by_bytes = made(folder, tokenizer="words"), made(folder)
    for part in PARTS:
        mine, theirs = words.shard(part), by_bytes.shard(part)
        assert len(mine) == int(mine.words.sum()), "a token a word"
        assert len(theirs) == int(theirs.nbytes.sum()), "a token a byte"
        assert (mine.words == theirs.words).all()
        assert (mine.nbytes == theirs.nbytes).all()
    assert by_bytes.tokenizer().decode(by_bytes.shard("valid").tokens.tolist()) == texts()["valid"]
    told = words.tokenizer().decode(words.shard("test").tokens.tolist())
    assert told.split() == texts()["test"].split()
    assert told.count("\n") == texts()["test"].count("\n")
    assert words.shape().vocab_size == len(set(texts()["train"].split()) | {"<eos>"})


@pytest.mark.parametrize("tokenizer", ["words", "bytes"])
def test_a_prompt_is_cut_as_the_stored_text(tokenizer: str, folder: Path) -> None:
    task = make(corpus="wikitext-2", text="unk", tokenizer=tokenizer)
    task.fetch(silent, folder)
    text = "the river of <unk> ,\n the river\n"
    ids = task.encode(text)
    assert max(ids) < task.shape().outputs
    assert task.decode(ids).split() == text.split()
    assert task.encode("") == []
    assert task.decode(task.encode("the river")) == "the river", "a line that is not ended goes on"


def test_wikipedia_s_documents_end_in_an_empty_line_and_zero_shot_parts_are_stored_beside(folder: Path) -> None:
    settings = {"corpus": "wikipedia-en-2015", "text": "raw"}
    task = made(folder, **settings, zero_shot=True)
    rows = wikipedia()
    told = task.tokenizer().decode(task.shard("train").tokens.tolist())
    assert told == "".join(f"{row['text']}\n\n" for name in ("train-00", "train-01") for row in rows[name])
    assert task.tokenizer().decode(task.shard("zero_valid").tokens.tolist()) == texts()["valid"]
    alone = made(folder, **settings)
    assert alone.entry.key != task.entry.key
    assert alone.parts == PARTS
    assert (alone.shard("test").tokens == task.shard("test").tokens).all()


def test_gpt2_merges_within_a_line_and_stores_its_tokeniser(folder: Path) -> None:
    task = made(folder, corpus="wikitext-103", text="raw", tokenizer="gpt2")
    bpe = task.tokenizer()
    names = {id: name for name, id in json.loads((folder / "gpt2-bpe/encoder.json").read_text()).items()}
    ids = bpe.encode(["the the\n", " the"]).tolist()
    assert [names[id] for id in ids] == ["the", "Ġthe", "Ċ", "Ġthe"]
    assert bpe.decode(task.shard("test").tokens.tolist()) == texts()["test"]
    assert (
        np.concatenate([bpe.encode([line]) for line in texts()["valid"].splitlines(keepends=True)])
        == (task.shard("valid").tokens)
    ).all()


def test_a_word_that_the_training_part_lacks_is_unknown() -> None:
    words = Words.of([["a b a\n", "<unk>\n"]])
    assert words.words == ["<eos>", "a", "<unk>", "b"]
    assert words.encode(["a zzz\n"]).tolist() == [1, 2, 0]
    assert words.decode([1, 3, 0, 1]) == "a b\n a"
    assert Bytes().decode([0xC3, 0xA9, 0xFF]) == "é�"


def test_a_corpus_and_gpt2_s_files_are_downloaded(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(folder) as server:

        def at(file: SourceFile) -> SourceFile:
            return replace(file, urls=(f"{server.url}/good/{file.path}",))

        task = make(text="raw", tokenizer="gpt2")
        (packaging,) = (each for each in task.packagings if each.source.name == "wikitext-103-raw-v1")
        source = replace(packaging.source, files=tuple(map(at, packaging.source.files)))
        monkeypatch.setattr(Wikitext, "packagings", (replace(packaging, source=source),))
        gpt2 = tuple(SourceFile(file.path, file.sha256) for file in task.usable()[0].files[1:])
        monkeypatch.setattr("zeta_bench.tasks.wikitext.task.GPT2_FILES", tuple(map(at, gpt2)))
        manifest = task.fetch(silent)
    assert manifest.digest == made(folder, corpus="wikitext-103", text="raw", tokenizer="gpt2").entry.manifest().digest
    assert (cache / "downloads/gpt2-bpe/vocab.bpe").is_file()


# Bad data


@pytest.mark.parametrize(
    ("path", "content", "part"),
    [
        ("wikitext-2/wiki.train.blocks-shuffled.tokens.xz", b"no xz", "is cut off or damaged after line 0"),
        ("wikitext-2/wiki.valid.tokens", b" \n = A = \n \n \xff\n", "line 4: it is not UTF-8 (byte 2)"),
        ("wikitext-2/wiki.valid.tokens", b" \n = A = \n \n b\n", "valid of 'wikitext-2-shuffled' has 8 words where"),
        ("wikitext-2/wiki.test.tokens", b"", "a part of the corpus has fewer than two tokens"),
    ],
)
def test_a_bad_file_is_one_sentence_and_the_cache_is_as_it_was(
    path: str, content: bytes, part: str, folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "wikitext-2-v1.zip").unlink()
    (folder / path).write_bytes(content)
    trust(folder, monkeypatch)
    with pytest.raises(ZetaBenchError) as caught:
        make(**TWO).fetch(silent, folder)
    assert part in str(caught.value)
    assert "get " in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not cache.exists()


def test_an_xz_that_is_cut_off_is_named(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "wikipedia-en-2015/train-01.jsonl.xz"
    path.write_bytes(path.read_bytes()[:-60])
    trust(folder, monkeypatch)
    with pytest.raises(ZetaBenchError, match=r"train-01\.jsonl\.xz is cut off or damaged"):
        make(corpus="wikipedia-en-2015", tokenizer="bytes").fetch(silent, folder)
    assert not cache.exists()


@pytest.mark.parametrize(
    ("row", "part"),
    [
        ([1], "line 3: it is no object with a 'text'"),
        ({"body": "x"}, "line 3: it is no object with a 'text'"),
        ({"text": 3}, "line 3: its text is empty or no text"),
        ({"text": " \n"}, "line 3: its text is empty or no text"),
    ],
)
def test_a_bad_row_is_named(row: Any, part: str, folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: dict[str, list[Any]] = {**wikipedia()}
    rows["valid"][2] = row
    write_wikipedia(folder, rows)
    trust(folder, monkeypatch)
    with pytest.raises(ZetaBenchError, match="get the file again; the cache is as it was") as caught:
        make(corpus="wikipedia-en-2015", tokenizer="bytes").fetch(silent, folder)
    assert f"valid.jsonl.xz, {part}" in str(caught.value)
    assert not cache.exists()


def test_a_bad_archive_is_named(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_zip(folder / "wikitext-103-raw-v1.zip", {"other.txt": "x"})
    trust(folder, monkeypatch)
    with pytest.raises(ZetaBenchError, match=r"has no wikitext-103-raw/wiki\.train\.raw in it"):
        make(tokenizer="bytes").fetch(silent, folder)
    (folder / "wikitext-103-raw-v1.zip").write_bytes(b"PK no zip")
    trust(folder, monkeypatch)
    with pytest.raises(ZetaBenchError, match=r"wikitext-103-raw-v1\.zip.* is cut off or damaged"):
        make(tokenizer="bytes").fetch(silent, folder)
    assert not cache.exists()


def test_a_wrong_tokeniser_file_is_refused(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"corpus": "wikitext-2", "text": "unk", "tokenizer": "gpt2"}
    (folder / "gpt2-bpe/vocab.bpe").write_text("#version: 0.2\nq z\n", encoding="utf-8")
    with pytest.raises(ZetaBenchError, match=r"gpt2-bpe/vocab\.bpe has the SHA-256"):
        make(**settings).fetch(silent, folder)
    trust(folder, monkeypatch)
    with pytest.raises(ZetaBenchError, match="the files of GPT-2's tokeniser do not belong together"):
        make(**settings).fetch(silent, folder)
    monkeypatch.setattr(tokenizer, "GPT2_SIZE", 50_257)
    with pytest.raises(ZetaBenchError, match="has 2 entries where GPT-2's has 50257"):
        GPT2('{"a": 0, "b": 1}', "#version: 0.2\n")
    assert not cache.exists()


def test_shards_of_another_tokeniser_are_refused_as_they_are_read(folder: Path) -> None:
    task = made(folder)
    place = task.entry.folder
    np.save(place / "unigram.npy", np.zeros(300, np.int64))
    with pytest.raises(ZetaBenchError, match="has a vocabulary of 300 where bytes has 256: it is damaged"):
        task.shard("train")
    shard = Shard(np.array([3, 256, 1], np.uint16), np.array([0, 3]), np.array([2]), np.array([3]), 256)
    with pytest.raises(ZetaBenchError, match="has the id 256 where its tokeniser ends at 255"):
        TrainingWindows(shard, 2).batch(torch.tensor([0]))


def test_data_that_is_not_there_names_the_command_that_fetches_this_corpus_alone() -> None:
    quick = make(**find_protocol("wikitext", "quick").data)
    with pytest.raises(DataMissing) as caught:
        quick.check()
    assert str(caught.value) == (
        "get it with: zeta-bench data fetch wikitext --set data.corpus=wikitext-2 --set data.text=unk "
        "--set data.tokenizer=bytes"
    )
    with pytest.raises(DataMissing, match=r"zeta-bench data fetch wikitext --set data\.corpus=wikitext-103$"):
        make(**find_protocol("wikitext", "matched-124m").data).check()
    with pytest.raises(DataMissing, match=r"--from DIR --set data\.corpus=wikipedia-en-2015 --set data\.zero"):
        make(**find_protocol("wikitext", "small").data).chance()


# The files themselves


@pytest.mark.skipif(not (REAL / "wikitext-2").is_dir(), reason=f"the corpora themselves are not in {REAL.name}")
def test_the_real_files_have_the_published_words_and_gpt2_s_ids() -> None:
    task = make(**find_protocol("wikitext", "quick").data)
    manifest = task.fetch(silent, REAL)
    assert manifest.digest == task.published[task.entry.key]
    assert [task.shard(part).documents for part in PARTS] == [629, 60, 60]
    files = {file.path: REAL / file.path for file in corpora.GPT2_FILES}
    bpe = tokenizer.make_tokenizer("gpt2", files, lambda: ())
    assert bpe.encode(["Hello world, <unk> @-@ 2015.\n"]).tolist() == [
        15496, 995, 11, 1279, 2954, 29, 2488, 12, 31, 1853, 13, 198,
    ]  # fmt: skip
    packaging = next(each for each in PACKAGINGS if each.source.name == "wikipedia-en-2015")
    places = {file.path: REAL / file.path for file in corpora.ZERO_SHOT.values()}
    for part, words, tokens in (("zero_valid", 217_646, 249_735), ("zero_test", 245_569, 285_234)):
        shard = make_shard(packaging.documents(part, places), bpe, lambda words: None)  # type: ignore[arg-type]
        assert (shard.documents, int(shard.words.sum()), len(shard)) == (60, words, tokens)
