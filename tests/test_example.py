"""The example variant keeps its promise: one short file, audited and trained from the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples/my_attention.py"
NAME = f"{EXAMPLE}:MyAttention"


def zeta_bench(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The real command line in a folder of its own, with one torch thread: the tests share the cores."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "zeta_bench", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_it_is_under_40_lines():
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) < 40


def test_it_learns_quick_mqar(tmp_path):
    words = ("--attn", f"{NAME}:sharpness=1.5", "--protocol", "quick")
    done = zeta_bench(tmp_path, "run", "mqar", *words, "--set", "budget.steps=250", "--set", "budget.eval_every=125")
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "runs/run/mqar").glob("*/*/*.json")
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["status"] == "ok"
    assert record["variant"] == "my_attention.MyAttention"
    assert record["settings"] == {"sharpness": 1.5}
    accuracy = record["metrics"]["test"]["accuracy"]
    assert accuracy > 0.9 > 2 * record["chance"], "the example no longer learns what vanilla learns in 250 steps"


def test_its_audit_passes(tmp_path):
    done = zeta_bench(tmp_path, "audit", NAME)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of 1 passed" in done.stdout


def test_a_wrong_setting_is_one_sentence(tmp_path):
    done = zeta_bench(tmp_path, "run", "mqar", "--attn", f"{NAME}:sharpness=0", "--protocol", "quick")
    assert done.returncode == 2
    assert "greater than 0" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "runs").exists()
