"""The example of a task, examples/my_task: installed as a package it is found, listed and trained; 100 lines in all."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from zeta_bench.task import IGNORE

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples/my_task"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the example, as docs/add-a-task.md says but beside this environment."""
    folder = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--target", str(folder)]
    subprocess.run([*pip, *offline, str(EXAMPLE)], check=True, cwd=folder, capture_output=True)
    return folder


def zeta_bench(installed: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The real command line where the example is installed."""
    found = os.pathsep.join(filter(None, (str(installed), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": found}
    command = [sys.executable, "-m", "zeta_bench", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_it_is_listed(installed: Path, tmp_path: Path) -> None:
    done = zeta_bench(installed, tmp_path, "ls", "--json")
    assert done.returncode == 0, done.stderr
    listed = json.loads(done.stdout)
    assert "successor" in [each["name"] for each in listed["tasks"]]
    assert ("successor", "quick") in [(each["task"], each["name"]) for each in listed["protocols"]]


def test_its_catalogue_imports_no_torch(installed: Path, tmp_path: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(installed)!r}); import my_task; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_variant_learns_it(installed: Path, tmp_path: Path) -> None:
    words = ("--set", "budget.steps=200", "--set", "data.tokens=8", "--set", "data.train_examples=6400")
    done = zeta_bench(installed, tmp_path, "run", "successor", "--attn", "vanilla", "--protocol", "quick", *words)
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "runs/run/successor").glob("*/*/*.json")
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["status"] == "ok"
    assert record["chance"] == pytest.approx(1 / 7)
    assert record["metrics"]["test"]["accuracy"] > 0.8


def test_a_setting_that_it_does_not_have_is_one_sentence(installed: Path, tmp_path: Path) -> None:
    done = zeta_bench(installed, tmp_path, "run", "successor", "--attn", "vanilla", "--set", "data.token=8")
    assert done.returncode == 2
    assert "did you mean 'tokens'?" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_its_labels_are_what_followed_the_first_time() -> None:
    spec = importlib.util.spec_from_file_location("my_task_example", EXAMPLE / "my_task/task.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    n = 8
    batch = module.Drawn(module.SuccessorData(tokens=n, test_examples=20), "test").batch(torch.arange(20))
    assert batch["inputs"].shape == batch["labels"].shape == (20, 2 * n - 1)
    for tokens, labels in zip(batch["inputs"].tolist(), batch["labels"].tolist(), strict=True):
        assert labels[:n] == [IGNORE] * n
        assert labels[n:] == [tokens[tokens.index(asked) + 1] for asked in tokens[n:]]


def test_it_is_as_short_as_the_page_says() -> None:
    lines = [line for path in EXAMPLE.rglob("*.py") for line in path.read_text(encoding="utf-8").splitlines()]
    code = [line for line in lines if line.strip()]
    assert len(code) <= 100
