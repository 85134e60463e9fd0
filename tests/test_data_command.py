"""`zeta-bench data` and the cache: what is there, what is made, and that nothing half-written or damaged is used."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commandline import call, command, environment, files

from zeta_bench.errors import ZetaBenchError
from zeta_bench.store import cache as cache_module
from zeta_bench.store.cache import Entry, content_digest, make_key, save
from zeta_bench.store.parallel import in_order

TINY = [
    *("--set", "data.max_depth=4", "--set", "data.longer_than=8", "--set", "data.shorter_than=40"),
    *("--set", "data.train_examples=50", "--set", "data.valid_examples=20", "--set", "data.test_examples=20"),
]
GENERATE = ["data", "generate", "lra.listops", "--processes", "1"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZETA_BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def one(cache: Path) -> Path:
    """The only data set in the cache."""
    (folder,) = (cache / "lra.listops").iterdir()
    return folder


def arrays() -> dict[str, np.ndarray[Any, Any]]:
    return {"tokens": np.arange(1000, dtype=np.uint8), "labels": np.arange(7)}


# The command


def test_generate_then_ls_then_verify(cache: Path) -> None:
    assert "not here" in call("data", "ls").out
    done = call(*GENERATE, *TINY)
    assert done.code == 0, done.err
    assert f"kept in {one(cache)}" in done.out
    manifest = json.loads((one(cache) / "manifest.json").read_text())
    assert (manifest["task"], manifest["settings"]["train_examples"]) == ("lra.listops", 50)
    assert manifest["digest"] in done.out
    assert set(manifest["files"]) == {"tokens.npy", "lengths.npy", "labels.npy", "depths.npy"}
    listed = next(line for line in call("data", "ls", "lra").out.splitlines() if one(cache).name in line)
    assert listed.split() == ["lra.listops", "-", one(cache).name, "0.0", "MiB", "here"]
    whole = call("data", "verify")
    assert whole.code == 0
    assert f"{one(cache).name}: whole, digest {manifest['digest']}" in whole.out


def test_what_is_here_is_not_made_again_without_force(cache: Path) -> None:
    call(*GENERATE, *TINY)
    before = files(cache)
    again = call(*GENERATE, *TINY)
    assert again.code == 0
    assert "is here already; --force makes it again" in again.out
    stamp = (one(cache) / "tokens.npy").stat().st_ino
    forced = call(*GENERATE, *TINY, "--force")
    assert forced.code == 0
    assert (one(cache) / "tokens.npy").stat().st_ino != stamp
    assert files(cache) == before


def test_a_protocol_s_data_and_the_run_that_asks_for_it(cache: Path) -> None:
    asked = call("run", "lra.listops", "--attn", "vanilla", "--protocol", "quick", "--dry-run")
    assert asked.code == 1
    assert not cache.exists()
    assert asked.err == "lra.listops: not run: data. get it with: zeta-bench data generate lra.listops\n"
    assert call(*GENERATE, "--protocol", "quick").code == 0
    assert call("run", "lra.listops", "--attn", "vanilla", "--protocol", "quick", "--dry-run").code == 0
    rows = call("data", "ls", "lra.listops").out
    assert rows.count("not here") == 1
    (one(cache) / "tokens.npy").write_bytes(b"cut off")
    cut = call("run", "lra.listops", "--attn", "vanilla", "--protocol", "quick", "--dry-run")
    assert cut.code == 1
    assert "tokens.npy has 7 bytes" in cut.err
    assert "zeta-bench data generate lra.listops --force" in cut.err


SHORT = [
    *("--protocol", "quick", "--set", "budget.steps=2", "--set", "budget.eval_every=2", "--set", "budget.batch_size=8"),
    *("--set", "optim.warmup=1"),
]


def test_a_run_makes_data_that_is_drawn_quickly(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zeta_bench.machine.cores", lambda: 1)
    first = call("run", "lra.listops", "--attn", "vanilla", *SHORT, *TINY)
    assert first.code == 0, first.err
    assert f"kept in {one(cache)}" in first.out
    again = call("run", "lra.listops", "--attn", "vanilla", *SHORT, *TINY, "--seed", "1")
    assert again.code == 0
    assert "kept in" not in again.out


def test_a_run_makes_no_data_that_takes_long(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zeta_bench.cli_plan.UNASKED", 0.0)
    asked = call("run", "lra.listops", "--attn", "vanilla", *SHORT, *TINY)
    assert asked.code == 1
    assert "lra.listops: not run: data. get it with: zeta-bench data generate lra.listops" in asked.err
    assert not cache.exists()


def test_data_that_a_run_cannot_make_is_one_sentence(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(task: object, *_: object) -> None:
        raise ZetaBenchError("the disk is full")

    monkeypatch.setattr("zeta_bench.store.task.StoredTask.generate", full)
    asked = call("run", "lra.listops", "--attn", "vanilla", *SHORT, *TINY)
    assert asked.code == 1
    assert "lra.listops: the disk is full\nlra.listops: not run: data." in asked.err


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["data", "generate"], "name a task: zeta-bench data generate lra.listops"),
        (["data", "generate", "lra.listop"], "did you mean lra.listops"),
        (["data", "generate", "mqar"], "mqar draws its data as it is read"),
        (["data", "fetch", "lra.listops"], "is generated: zeta-bench data generate lra.listops"),
        (["data", "ls", "--force"], "--force goes with 'data generate' and 'data fetch', not with 'data ls'"),
        (["data", "verify", "lra.listops", "--processes", "2"], "--processes goes with"),
        ([*GENERATE, "--protocol", "quik"], "did you mean quick"),
        ([*GENERATE, "--set", "optim.lr=1"], "has no part in the data"),
        ([*GENERATE, "--set", "data.max_dept=4"], "did you mean 'max_depth'"),
        ([*GENERATE, "--set", "data.max_depth"], "key=value"),
        (["data", "make", "lra.listops"], "--help"),
        (["data", "generate", "lra.listops", "--processes", "0"], "--help"),
    ],
)
def test_misuse_is_one_sentence_and_makes_nothing(words: list[str], part: str, cache: Path) -> None:
    done = call(*words)
    assert part in done.err
    assert done.code == 2
    assert len(done.err.splitlines()) == 1
    assert not cache.exists()


def test_nothing_to_verify_is_told() -> None:
    assert "no data here to verify" in call("data", "verify", "lra.listops").sentence(1)


@pytest.mark.parametrize("what", ["a byte", "cut off", "gone", "manifest", "digest"])
def test_verify_finds_what_is_damaged(what: str, cache: Path) -> None:
    call(*GENERATE, *TINY)
    path, manifest = one(cache) / "labels.npy", one(cache) / "manifest.json"
    content = path.read_bytes()
    if what == "a byte":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif what == "cut off":
        path.write_bytes(content[:-5])
    elif what == "gone":
        path.unlink()
    elif what == "manifest":
        manifest.write_text("{")
    else:
        manifest.write_text(manifest.read_text().replace('"digest": "', '"digest": "0'))
    found = call("data", "verify")
    assert found.code == 1
    assert str(manifest if what in ("manifest", "digest") else path) in found.err
    again = f"; make it again with: zeta-bench data generate lra.listops {' '.join(TINY)} --force\n"
    if what == "manifest":  # nobody knows the settings then
        again = "; delete its folder, then make it again with: zeta-bench data generate lra.listops\n"
    assert found.err.endswith(again)
    if what not in ("digest", "a byte"):  # `ls` looks at sizes alone
        assert "damaged" in call("data", "ls").out


def test_a_cache_that_cannot_be_written_is_one_sentence_before_any_work(cache: Path) -> None:
    cache.write_text("a file, not a folder")
    sentence = call(*GENERATE, *TINY).sentence(1)
    assert f"the cache {cache} cannot be written" in sentence
    assert "ZETA_BENCH_CACHE" in sentence


def test_a_full_disk_is_one_sentence(cache: Path) -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        sentence = call(*GENERATE, "--set", "data.train_examples=100").sentence(1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert f"there is no space for lra.listops in {cache}" in sentence
    assert not files(cache)


def _press_when_busy(words: list[str], folder: Path, act: Callable[[int], None]) -> subprocess.Popen[str]:
    """Start a command as a session of its own and act on it once it says that it makes data."""
    process = subprocess.Popen(
        command(*words),
        cwd=folder,
        env=environment(PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert "making the data" in process.stdout.readline()
    time.sleep(1.0)
    act(process.pid)
    return process


def _members(group: int) -> list[int]:
    """Processes of a group that are alive."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes in /proc")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_what_is_stopped_leaves_the_cache_untouched_and_no_process(sent: int, cache: Path, tmp_path: Path) -> None:
    words = ["data", "generate", "lra.listops", "--processes", "2", "--set", "data.train_examples=2000000"]
    whole_group = sent == signal.SIGINT  # as a terminal does; a kill meets the parent alone
    process = _press_when_busy(words, tmp_path, lambda pid: (os.killpg if whole_group else os.kill)(pid, sent))
    out, err = process.communicate(timeout=60)
    assert process.returncode != 0
    if sent == signal.SIGINT:
        assert process.returncode == 1
        assert err == "stopped; nothing was left half-written, and the same command starts again.\n", out + err
    deadline = time.monotonic() + 20
    while _members(process.pid) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not _members(process.pid)
    assert not files(cache)


# The cache


def test_save_gives_back_what_was_put_in(cache: Path) -> None:
    entry = Entry("t", make_key(1, {"a": 1}))
    manifest = save(entry, 1, {"a": 1}, arrays())
    assert entry.manifest() == manifest
    assert manifest.digest == content_digest(arrays())
    for name, array in arrays().items():
        found = entry.array(name)
        assert isinstance(found, np.memmap)
        assert not found.flags.writeable
        assert (found == array).all()
    assert [path.name for path in (cache / "t").iterdir()] == [entry.key]


def test_content_digest_sees_names_types_shapes_and_values() -> None:
    base = content_digest(arrays())
    others = [
        {**arrays(), "labels": np.arange(1, 8)},
        {**arrays(), "labels": np.arange(7, dtype=np.int32)},
        {**arrays(), "tokens": np.arange(1000, dtype=np.uint8).reshape(10, 100)},
        {"token": arrays()["tokens"], "labels": arrays()["labels"]},
    ]
    assert len({base, *map(content_digest, others)}) == 5
    swapped = {name: array.astype(array.dtype.newbyteorder(">")) for name, array in arrays().items()}
    assert content_digest(swapped) == base


def test_keys_tell_versions_and_settings_apart() -> None:
    assert len({make_key(1, {"a": 1}), make_key(2, {"a": 1}), make_key(1, {"a": 2})}) == 3
    assert make_key(1, {"a": 1, "b": 2}) == make_key(1, {"b": 2, "a": 1})


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "there is no space for t"),
        (OSError(errno.EIO, "Input/output error"), "cannot be written: Input/output error"),
        (KeyboardInterrupt("pressed"), "pressed"),
    ],
)
def test_a_write_that_fails_leaves_the_older_data(
    error: BaseException, part: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = Entry("t", "v1-x")
    save(entry, 1, {}, arrays())
    before, calls = files(cache), count()

    def fail(handle: int) -> None:
        if next(calls) == 1:  # the first array is written by then
            raise error

    monkeypatch.setattr(cache_module.os, "fsync", fail)
    with pytest.raises(ZetaBenchError if isinstance(error, OSError) else KeyboardInterrupt, match=part):
        save(entry, 1, {}, {"tokens": np.zeros(5), "labels": np.zeros(5)})
    assert files(cache) == before


def test_a_rename_that_fails_brings_the_older_data_back(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = Entry("t", "v1-x")
    save(entry, 1, {}, arrays())
    before, rename = files(cache), Path.rename

    def fail(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(ZetaBenchError, match="cannot be written"):
        save(entry, 1, {}, {"tokens": np.zeros(5)})
    assert files(cache) == before


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_module.cache_root() == tmp_path / "cache"
    monkeypatch.setenv("ZETA_BENCH_CACHE", "~/mine")
    assert cache_module.cache_root() == Path.home() / "mine"
    monkeypatch.delenv("ZETA_BENCH_CACHE")
    assert cache_module.cache_root() == tmp_path / "xdg/zeta-bench"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_module.cache_root() == Path.home() / ".cache/zeta-bench"


# Several processes


@pytest.mark.parametrize("processes", [1, 2])
def test_results_come_in_order_from_an_endless_source(processes: int) -> None:
    results = in_order(abs, map(int.__neg__, count()), processes)
    assert list(islice(results, 20)) == list(range(20))
    results.close()


def test_a_process_that_is_ended_is_one_sentence() -> None:
    with pytest.raises(ZetaBenchError, match="try --processes 1"):
        list(in_order(os._exit, [3], 2))


def test_an_error_of_the_function_comes_through() -> None:
    with pytest.raises(TypeError):
        list(in_order(abs, ["a"], 2))


def test_verify_names_the_command_that_makes_the_same_data_again(cache: Path) -> None:
    few = [word for split in ("train", "valid", "test") for word in ("--set", f"data.{split}_examples=20")]
    assert call("data", "generate", "lra.listops", "--processes", "1", *few).code == 0
    (tokens,) = cache.glob("lra.listops/*/labels.npy")
    tokens.write_bytes(tokens.read_bytes()[:-1])
    told = call("data", "verify", "lra.listops").err.rstrip("\n")
    command = "zeta-bench data generate lra.listops " + " ".join(few) + " --force"
    assert told.endswith(f"make it again with: {command}")
    assert call(*command.split()[1:], "--processes", "1").code == 0
    assert call("data", "verify", "lra.listops").code == 0


def test_more_than_there_is_memory_for_is_one_sentence(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise MemoryError("Unable to allocate 2.51 EiB for an array")

    monkeypatch.setattr("zeta_bench.tasks.lra.listops.task.ListOps.make", full)
    told = call("data", "generate", "lra.listops", "-p", "quick", "--processes", "1").sentence(1)
    assert told.startswith("that takes more memory than there is (Unable to allocate 2.51 EiB for an array); ask")
