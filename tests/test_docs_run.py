"""Every command of the README and of docs/ is typed, in a folder with mine.py and a few records, and ends well.

As CI can afford it, so not all of them as they stand there (all are parsed as they stand, in test_docs):

- `run` and `sweep` get --dry-run, which plans everything and trains nothing, and one device: they train for minutes to
  days. That training itself works is what other tests are about. Planning a sweep under `matched` takes half a minute,
  so it is planned under `quick`, with one seed.
- `bench` and `analyse` measure one short length once: theirs are minutes.
- `report` writes tables only, of few records, and opens no browser.
- Not run: `audit` of every variant (minutes; test_baselines audits each), `data` that downloads or draws a whole data
  set, `throughput` (its task's data is drawn for minutes), `generate` and `draw` (a checkpoint of the reader's
  own), `report --fill` (it rewrites pages), --install-completion (it changes the reader's shell).

Commands of a plug-in's task are run in test_docs_task.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from commandline import Result, call, tiny
from test_docs import PAGES, SYNOPSIS, commands, short, tree

ROOT = Path(__file__).parents[1]
SHORT = {
    "run": ["--dry-run"],
    "sweep": ["--dry-run"],
    "bench": ["--length", "64", "--mode", "forward"],
    "analyse": ["--length", "128", "--d-k", "2", "--seeds", "1"],
    "report": ["--format", "csv"],
}
"""What is added to make a command short."""

LEFT_OUT = {
    "--length": 1, "-n": 1, "--devices": 1, "--nodes": 1, "--open": 0, "--deadline": 1, "--engine": 1, "--jobs": 1
}  # fmt: skip
"""Options that are taken away, with how many words follow them: what this machine lacks, or what would be long."""

NO_DATA = "not run: data"


def typed() -> dict[str, list[str]]:
    """Commands of the pages as they are run here, by the first that is written so; what comes out alike is run once."""
    found: dict[tuple[str, ...], str] = {}
    for path in PAGES:
        for line, words in commands(path, "zeta-bench"):
            if not SYNOPSIS.search(line) and "--help" not in words and can_run(words):
                found.setdefault(tuple(shortened(words)), " ".join(words))
    return {written: list(words) for words, written in found.items()}


def can_run(words: list[str]) -> bool:
    """Whether a command is typed here; the head of this file says why the others are not."""
    if words[0] in ("draw", "generate", "throughput", "--install-completion", "--debug") or "--fill" in words:
        return False
    if any(re.fullmatch("[A-Z]+", word) for word in words):  # FILE: the form of a command
        return False
    if words[0] == "audit":
        return any(word.endswith(":Mine") for word in words)
    if words[0] == "data":
        return words[1] in ("ls", "verify")
    return "successor" not in words


def shortened(words: list[str]) -> list[str]:
    """A command as it is run here."""
    if "--print-slurm" in words:
        return words
    kept, skip = [], 0
    for word in words:
        if skip:
            skip -= 1
        elif word in LEFT_OUT:
            skip = LEFT_OUT[word]
        else:
            kept.append(word)
    more = list(SHORT.get(words[0], []))
    if words[:2] == ["bench", "speed"]:
        more += ["--repeats", "1", "--budget", "0.001"]
        more += [] if "--attn" in words else ["-c", "zeta", "-c", "eager"]
    if words[0] == "sweep" and "--protocol" not in words:
        more += ["--protocol", "quick", "--seeds", "1"]
    return [*kept, *(word for word in more if word != "--dry-run" or word not in kept)]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reader's folder: mine.py, and the checkout's examples, sweeps and a few of its records."""
    folder = tmp_path_factory.mktemp("desk")
    example = (ROOT / "examples/my_attention.py").read_text(encoding="utf-8")
    (folder / "mine.py").write_text(example.replace("MyAttention", "Mine"), encoding="utf-8")
    shutil.copytree(ROOT / "examples", folder / "examples")
    shutil.copytree(ROOT / "results/sweeps", folder / "results/sweeps")
    few = Path("results/records/run/mqar/small@d7247d8c")
    for variant in ("vanilla", "zeta", "zeta-token"):
        shutil.copytree(ROOT / few / variant, folder / few / variant)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        tiny(folder)
        tiny(folder, "mine.toml")
        words = ("--attn", "./mine.py:Mine", "--attn", "vanilla", "--seeds", "2")
        assert call("run", "mqar", "--protocol", "tiny.toml", *words).code == 0
        shutil.copytree("runs", "runs-of-another")
    return folder


def ends_well(done: Result) -> bool:
    """Exit code 0, or 1 where all that is wrong is a data set that must be fetched first."""
    return done.code == 0 or (done.code == 1 and NO_DATA in done.out + done.err)


@pytest.mark.parametrize("written", typed())
def test_a_command_of_the_pages_runs(written: str, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk)
    monkeypatch.setenv("ZETA_BENCH_CACHE", str(desk / "cache"))
    done = call(*typed()[written])
    assert ends_well(done), f"{written}: exit code {done.code}\n{done.out}\n{done.err}"
    assert "Traceback" not in done.out + done.err


def test_every_page_has_been_looked_at() -> None:
    found = {short(path) for path in PAGES if list(commands(path, "zeta-bench"))}
    assert {"README.md", "docs/commands.md", "docs/run-on-a-cluster.md", "docs/add-an-attention-variant.md"} <= found
    assert len(typed()) > 20


def test_the_page_of_commands_has_every_command() -> None:
    named = {words[0] for _, words in commands(ROOT / "docs/commands.md", "zeta-bench")}
    assert set(tree().commands) <= named


def test_what_is_made_short() -> None:
    assert shortened(["run", "mqar", "--attn", "zeta", "--devices", "8"]) == [
        "run",
        "mqar",
        "--attn",
        "zeta",
        "--dry-run",
    ]
    assert shortened(["sweep", "x", "--protocol", "small"]) == ["sweep", "x", "--protocol", "small", "--dry-run"]
    assert shortened(["sweep", "x.toml", "--print-slurm"]) == ["sweep", "x.toml", "--print-slurm"]
    assert not can_run(["audit"])
    assert can_run(["audit", "./mine.py:Mine"])
