"""``zeta-bench bench`` as it is typed: records, tables, mistakes, Ctrl-C."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from commandline import call, command, environment, files, records

from zeta_bench.efficiency import timing
from zeta_bench.efficiency.contenders import Eager

TINY = ("--heads", "1", "--d-v", "8", "--k", "4", "--repeats", "3")
TWO = ("-n", "32", "-n", "64", *TINY)

MISTAKES = {
    "nothing to measure": ([], "Missing argument 'what'. Choose from: speed, memory"),
    "something else": (["sped"], "'sped' is not one of 'speed', 'memory'"),
    "no length": (["speed", "-n", "4kk"], "--length 4kk is no length: write 4096, 4k or 1M"),
    "an unknown contender": (["speed", "-c", "sdpa"], "unknown contender 'sdpa': did you mean sdpa-math?"),
    "a contender like nothing": (["speed", "-c", "xyzzy"], "there is zeta, zeta-dot, eager, sdpa-math"),
    "an unknown variant": (["speed", "-a", "vanila"], "unknown variant 'vanila': did you mean vanilla?"),
    "no such file": (["speed", "-a", "./no.py:X"], "there is no file no.py"),
    "a setting": (["speed", "-a", "zeta:kk=3"], "there is no setting 'kk'; did you mean 'k'?"),
    "both levels": (["speed", "-a", "zeta", "-c", "zeta"], "they are never compared: leave one out"),
    "keys of a module": (["speed", "-a", "zeta", "--k", "4"], "--attn zeta:k=16"),
    "codes of a module": (["speed", "-a", "zeta", "--codes", "walk"], "--codes belongs to the operations"),
    "impl of a module": (["speed", "-a", "zeta", "--impl", "triton"], "--impl belongs to the operation 'zeta'"),
    "stages of eager": (["speed", "-c", "eager", "--breakdown"], "add --contender zeta"),
    "impl of eager": (["speed", "-c", "eager", "--impl", "triton"], "--impl is about zeta"),
    "a graph on a CPU": (["speed", "--graph"], "there is no GPU here, and only a GPU has CUDA graphs"),
    "a graph of memory": (["memory", "--no-graph"], "--graph belongs to 'bench speed'"),
    "repetitions of memory": (["memory", "--repeats", "3"], "--repeats belongs to 'bench speed'"),
    "the peak of a backward pass": (["memory", "--mode", "backward"], "--mode both is a forward and a backward pass"),
    "no keys": (["speed", "--k", "0"], "Invalid value for '--k'"),
    "a dtype": (["speed", "--dtype", "fp8"], "'fp8' is not one of 'bf16', 'fp16', 'fp32'"),
    "a mode": (["speed", "--mode", "sideways"], "'sideways' is not one of 'forward', 'backward', 'both'"),
    "an option": (["speed", "--lenght", "4k"], "--lenght"),
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    return tmp_path


def bench(*words: str):
    return call("bench", *words)


@pytest.mark.parametrize(("words", "sentence"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_sentence_and_leaves_nothing(words, sentence, here):
    assert sentence in bench(*words).sentence()
    assert files(here) == {}


def test_a_folder_that_cannot_be_written_is_one_sentence(here):
    (here / "taken").write_text("a file")
    assert "cannot write records to taken" in bench("speed", "-c", "eager", *TWO, "--records", "taken").sentence()


def test_points_are_recorded_shown_and_not_measured_again(here):
    words = ("speed", "-c", "eager", "-c", "sdpa-math", "--mode", "both", *TWO)
    first = bench(*words)
    assert first.code == 0
    assert "[1/4] eager 32: both " in first.out
    kept = records(kind="bench")
    assert {(r.variant, r.point["length"]) for r in kept} == {
        (name, n) for name in ("eager", "sdpa-math") for n in (32, 64)
    }
    assert all(r.status == "ok" and set(r.metrics) == {"both"} and r.payload["agreement"] for r in kept)
    for text in ("time over sequence length, ms", "variant", "N^", "(1.0×)", "relative to the fastest of torch's"):
        assert text in first.out
    stem = f"speed-{kept[0].protocol}"
    assert f"figure: {Path('runs/report/figures')}/{stem}-both.png" in first.out
    assert {f"runs/report/tables/{stem}.{suffix}" for suffix in ("md", "tex", "csv")} <= set(files(here))
    again = bench(*words)
    assert again.out.count("has a record (ok); --force measures it again.") == 4
    assert "A/A" not in again.out + again.err
    assert records(kind="bench") == kept
    more = bench(*words, "--mode", "forward")
    assert "has a record" not in more.out
    assert all(set(r.metrics) == {"forward", "both"} for r in records(kind="bench"))
    assert bench(*words, "--force").out.count("has a record") == 0
    assert all(set(r.metrics) == {"forward", "both"} for r in records(kind="bench")), "nothing is lost"


def test_its_command_repeats_a_point(here):
    settings = ("--bidirectional", "--codes", "clusters", "--mean", "all", "--impl", "reference", "--mode", "both")
    assert bench("speed", "-c", "zeta", "-n", "32", *TINY, *settings).code == 0
    (record,) = records(kind="bench")
    assert (record.settings, record.impl, record.direction) == ({"impl": "reference"}, "reference", "bidirectional")
    again = call(*shlex.split(record.command)[1:])
    assert "zeta:impl=reference 32: has a record (ok)" in again.out


def test_a_module_stands_beside_vanilla(here):
    (here / "mine.py").write_text(
        "from zeta_bench.attention import QKVAttention\n"
        "class Mine(QKVAttention):\n"
        "    def attend(self, q, k, v, valid):\n"
        "        return v.cumsum(2)\n"
    )
    words = (
        "speed",
        "-a",
        "./mine.py:Mine",
        "-n",
        "32",
        "--heads",
        "1",
        "--d-v",
        "8",
        "--repeats",
        "3",
        "--mode",
        "both",
    )
    done = bench(*words)
    assert done.code == 0
    assert {r.variant for r in records(kind="bench")} == {"vanilla", "mine.Mine"}
    assert "relative to vanilla" in done.out
    assert records(kind="bench")[0].protocol.startswith("bench-module-causal-fp32@")


def test_out_of_memory_is_a_row_and_the_rest_goes_on(here, monkeypatch):
    bind = Eager.bind

    def short_of_memory(self, q, k, v):
        if q.shape[2] >= 64:
            raise torch.OutOfMemoryError("no")
        return bind(self, q, k, v)

    monkeypatch.setattr(Eager, "bind", short_of_memory)
    done = bench("speed", "-c", "eager", "-c", "sdpa-math", "-n", "128", *TWO, "--mode", "both")
    assert done.code == 0
    assert "eager 64: oom (out of memory on the CPU)" in done.out
    assert "eager 128: oom (not tried: larger than a length that ran out of memory (64))" in done.out
    assert "sdpa-math 128: both " in done.out
    found = {r.point["length"]: r.status for r in records(kind="bench") if r.variant == "eager"}
    assert found == {32: "ok", 64: "oom", 128: "oom"}
    again = bench("speed", "-c", "eager", *TWO, "-n", "256", "--mode", "both")
    assert "eager 256: oom (not tried" in again.out, "an old record tells where memory ends"


def test_what_cannot_be_had_here_is_a_row_told_once(here):
    done = bench("speed", "-c", "eager", "-c", "sdpa-cudnn", *TWO, "--mode", "both")
    assert done.code == 0
    assert "sdpa-cudnn 32: unsupported (torch cannot run this backend here" in done.out
    assert "sdpa-cudnn 64: unsupported (as above)" in done.out
    assert {r.status for r in records(kind="bench") if r.variant == "sdpa-cudnn"} == {"unsupported"}
    alone = bench("speed", "-c", "sdpa-cudnn", "-n", "16", *TINY)
    assert (alone.code, alone.err) == (1, "nothing could be measured; the lines above say why.\n")


def test_a_contender_that_breaks_fails_the_command_and_not_the_others(here):
    (here / "mine.py").write_text(
        "from zeta_bench.attention import QKVAttention\n"
        "class Mine(QKVAttention):\n"
        "    def attend(self, q, k, v, valid):\n"
        "        raise RuntimeError('boom [red]')\n"
    )
    done = bench("speed", "-a", "./mine.py:Mine", "-n", "16", "--heads", "1", "--d-v", "8", "--mode", "both")
    assert done.code == 1
    assert "mine.Mine 16: failed (RuntimeError: boom [red] (mine.py, line 4));" in done.err
    assert "vanilla 16: both " in done.out
    assert bench("speed", "-a", "./mine.py:Mine", "-n", "16", "--heads", "1", "--d-v", "8", "--mode", "both").code == 1


def test_a_noisy_machine_is_told_and_recorded(here, monkeypatch):
    blocks = iter(range(1, 10_000))
    monkeypatch.setattr(timing.Clock, "samples", lambda self, work, count: [float(next(blocks))] * count)
    done = bench("speed", "-c", "eager", "-n", "32", *TINY, "--mode", "both")
    assert done.err.startswith("this machine is noisy: one thing timed twice, eager at 32, both: 2 ms and 3 ms, 50")
    assert "Noisy machine: one thing timed twice differed by 50 % (eager at 32, both)." in done.out
    (record,) = records(kind="bench")
    assert record.payload["agreement"]["noisy"] is True


def test_memory_is_weighed_and_fitted(here):
    done = bench(
        "memory", "-c", "eager", "-c", "zeta", "-n", "64", "-n", "128", "-n", "256", "--heads", "1", "--k", "4"
    )
    assert done.code == 0
    assert "peak memory over sequence length, MiB" in done.out
    assert "storages of live tensors" in " ".join(done.out.split())
    assert all(set(r.metrics) == {"forward", "both"} for r in records(kind="bench"))
    assert "A/A" not in done.out + done.err


def test_the_deadline_ends_it_and_the_same_command_goes_on(here):
    words = ("speed", "-c", "eager", *TWO, "--mode", "both")
    done = bench(*words, "--deadline", "0")
    assert done.code == 0
    assert done.err.endswith(
        "the deadline has come: 0 new records kept in runs, 2 of the points not measured; "
        "the same command goes on with them.\n"
    )
    assert bench(*words).code == 0
    assert len(records(kind="bench")) == 2


def test_a_report_shows_benches(here):
    assert "there are no bench records of speed" in call("report", "--task", "speed").out
    bench("speed", "-c", "eager", *TWO, "--mode", "both")
    done = call("report", "--records", "runs", "--to", "out")
    assert done.code == 0
    assert "time over sequence length, ms" in done.out
    assert {path.suffix[1:] for path in Path("out").rglob("speed-*")} == {"csv", "md", "tex", "png", "svg", "pdf"}
    assert "time over sequence length" in call("report", "--task", "speed").out
    assert "nothing to report" in call("report", "--task", "mqar").out


def test_ctrl_c_keeps_what_was_measured_and_says_so(here):
    words = ("bench", "speed", "-c", "eager", "--mode", "both", *TINY)
    lengths = [word for n in range(16, 4000) for word in ("-n", str(n))]
    started = subprocess.Popen(
        command(*words, *lengths),
        cwd=here,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while started.poll() is None and len(list(Path("runs").rglob("*.json"))) < 3:
        time.sleep(0.05)
    os.kill(started.pid, signal.SIGINT)
    _, err = started.communicate()
    assert started.returncode == 1
    assert "Traceback" not in err
    assert "stopped: " in err.splitlines()[-1]
    assert "of the points not measured; the same command goes on with them." in err.splitlines()[-1]
    assert len(records(kind="bench")) >= 3
