"""The command line under test: in this process for what is quick, in one of its own for signals, pipes and imports."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from unittest import mock

from zeta_bench.cli import main
from zeta_bench.records import Record, Store

TINY = """
task = "mqar"
summary = "a few steps for tests"
direction = "causal"
metric = "loss"
higher_is_better = false
[data]
vocab_size = 32
seq_len = 16
pairs = 2
train_examples = 64
valid_examples = 16
test_examples = 16
[backbone]
d_model = 16
n_layers = 1
n_heads = 2
[optim]
lr = 1e-3
[budget]
steps = 6
batch_size = 8
eval_every = 3
"""
"""A run of it takes a fraction of a second. Its metric is the loss, so that a run of six steps is "ok"."""


@dataclass
class Result:
    """What a command left: its exit code and what it wrote."""

    code: int
    out: str
    err: str

    def sentence(self, code: int = 2) -> str:
        """The one line on stderr of a command that ended with that code."""
        assert self.code == code, f"exit code {self.code}\n{self.out}\n{self.err}"
        assert "Traceback" not in self.out + self.err
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].endswith((".", "?", "!")) or "go on with:" in lines[0] or "start again with:" in lines[0], (
            lines[0]
        )
        return lines[0]


def call(*words: str) -> Result:
    """``zeta-bench words…`` in this process, through its entry point."""
    out, err = StringIO(), StringIO()
    with mock.patch.object(sys, "argv", ["zeta-bench", *words]), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as left:
            code = left.code
    assert isinstance(code, int)
    return Result(code, out.getvalue(), err.getvalue())


def run(*words: str) -> Result:
    """``zeta-bench run mqar`` with the tiny protocol of the current folder."""
    return call("run", "mqar", "--protocol", "tiny.toml", *words)


def command(*words: str) -> list[str]:
    """The words that start ``zeta-bench`` as a process of its own."""
    return [sys.executable, "-m", "zeta_bench", *words]


def environment(**more: str) -> dict[str, str]:
    """One torch thread: the tests share the cores."""
    return {**os.environ, "OMP_NUM_THREADS": "1", **more}


def process(folder: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """``zeta-bench words…`` in a process of its own."""
    return subprocess.run(
        command(*words), cwd=folder, env=environment(**env), capture_output=True, text=True, check=False
    )


def tiny(folder: Path, name: str = "tiny.toml", tail: str = "", **changes: str) -> Path:
    """Write the tiny protocol; a change replaces the value of a key wherever it stands: ``steps="100"``."""
    lines: list[str] = []
    for line in TINY.strip().splitlines():
        key = line.partition(" =")[0]
        lines.append(f"{key} = {changes[key]}" if key in changes else line)
    path = folder / name
    path.write_text("\n".join([*lines, tail]) + "\n", encoding="utf-8")
    return path


def records(folder: Path = Path("runs"), kind: str = "run") -> list[Record]:
    """Every record of a store, none of it damaged."""
    store = Store(folder)
    found = list(store.records(kind))
    assert not store.refused
    return found


def files(folder: Path = Path()) -> dict[str, bytes]:
    """Every file below a folder and its content."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}
