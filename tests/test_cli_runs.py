"""`run` from its first line to its table: what it says, what it keeps, and what a Ctrl-C leaves behind."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest
from commandline import call, files, records, run, tiny

from zeta_bench.console import STDERR, STDOUT

SIGNALS = """
import os, signal
from zeta_bench.attention import QKVAttention
from zeta_bench.settings import Settings


class Interrupts(QKVAttention):
    class Config(Settings):
        step: int = 4
        times: int = 1
        where: str = "step"

    def __init__(self, spec, config=None):
        super().__init__(spec, config)
        self.steps = 0
        if config.where == "start":
            self.press()

    def press(self):
        if not os.path.exists("pressed"):
            open("pressed", "w").close()
            for _ in range(self.config.times):
                signal.raise_signal(signal.SIGINT)

    def attend(self, q, k, v, valid):
        self.steps += self.training
        if self.config.where == ("step" if self.training else "evaluation") and self.steps == self.config.step:
            self.press()
        return v
"""
"""A variant during which Ctrl-C is pressed, the first time that it runs in a folder."""

GRID = """
[[grid]]
keys = ["backbone.d_model", "backbone.n_heads"]
values = [[8, 1], [16, 2]]
[[grid]]
keys = ["optim.lr"]
values = [[1e-3], [1e-2]]
"""

A = "./signals.py:Interrupts"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    tiny(tmp_path)
    (tmp_path / "signals.py").write_text(SIGNALS, encoding="utf-8")
    return tmp_path


def states() -> list[str]:
    """What lies in the folder of checkpoints."""
    return sorted(path.name for path in Path("runs/checkpoints").glob("*"))


def test_the_first_line_says_which_protocol_and_why(here):
    assert run("-a", "zeta").out.startswith("protocol tiny@")
    assert " from tiny.toml: a few steps for tests\n" in run("-a", "zeta").out
    said = call("run", "mqar", "-a", "vanilla", "--dry-run").out.splitlines()
    assert said[0].startswith("protocol quick@")
    assert "the default without a GPU (--protocol chooses another)" in said[0]
    assert call("run", "mqar", "-a", "vanilla", "-p", "small", "--dry-run").out.startswith("protocol small@")


def test_a_run_is_recorded_and_not_run_again():
    first = run("-a", "vanilla", "--seeds", "2")
    assert (first.code, first.err) == (0, "")
    kept = sorted(records(), key=lambda record: record.seed)
    assert [(record.status, record.seed, record.steps) for record in kept] == [("ok", 0, 6), ("ok", 1, 6)]
    assert states() == []
    again = run("-a", "vanilla", "--seed", "1")
    assert "[1/1] mqar vanilla seed 1: has a record (ok); --force runs it again." in again.out
    assert sorted(records(), key=lambda record: record.seed) == kept
    assert run("-a", "vanilla", "--seed", "1", "--force").code == 0
    new = {record.seed: record for record in records()}
    assert new[0] == kept[0]
    assert new[1].started_at >= kept[1].started_at
    assert new[1].metrics == kept[1].metrics, "one seed, one result"


def test_its_command_repeats_it(here):
    words = ["-a", "zeta:k=4", "--seed", "3", "--set", "optim.betas=[0.8, 0.9]", "--set", "attn.chunk=2"]
    assert run(*words).code == 0
    (record,) = records()
    again = call(*shlex.split(record.command)[1:])
    assert "seed 3: has a record (ok)" in again.out


def test_a_variant_named_twice_runs_once():
    said = run("-a", "zeta", "-a", "zeta:k=32", "-a", "vanilla", "-a", "zeta", "--dry-run")
    assert "--attn zeta:k=32 is zeta again and runs once." in said.out
    assert "--attn zeta is named twice and runs once." in said.out
    assert "2 runs, 2 without a record" in said.out


def test_a_dry_run_writes_nothing(here):
    tiny(here, "grid.toml", tail=GRID)
    before = files(here)
    said = call("run", "mqar", "-p", "grid.toml", "-a", "vanilla", "-a", "zeta", "--seeds", "3", "--dry-run")
    assert (said.code, said.err) == (0, "")
    assert files(here) == before
    assert not (here / "runs").exists()
    for word in ("parameters", "FLOPs", "data", "time", "d_model=8", "d_model=16", "Nothing was run. 24 runs"):
        assert word in said.out
    assert run("-a", "zeta").code == 0
    assert "1 run, 0 without a record" in run("-a", "zeta", "--dry-run").out


def test_only_the_protocols_that_ran_are_printed(here):
    tiny(here, "other.toml", steps="4")
    assert run("-a", "vanilla").code == 0
    said = call("run", "mqar", "-p", "other.toml", "-a", "vanilla").out
    assert "protocol other@" in said
    assert "tiny@" not in said
    assert "figure: runs/report/figures/mqar-other@" in said
    everything = call("report").out
    assert "protocol other@" in everything
    assert "protocol tiny@" in everything


def test_figures_of_a_protocol_with_an_odd_name(here):
    tiny(here, "an [odd] name.toml")
    said = call("run", "mqar", "-p", "an [odd] name.toml", "-a", "vanilla")
    assert said.code == 0
    assert "protocol an [odd] name@" in said.out
    assert "figure: " in said.out


def test_other_records_and_damaged_ones_do_not_matter(here):
    assert run("-a", "vanilla").code == 0
    (path,) = Path("runs/run").rglob("*.json")
    for name, text in {"cut": path.read_text()[:100], "new": '{"schema_version": 99}', "list": "[]"}.items():
        path.with_name(f"{name}.json").write_text(text, encoding="utf-8")
    before = files(Path("runs/run"))
    said = run("-a", "vanilla:", "-a", "linear")
    assert said.code == 0
    assert {line.partition(":")[0] for line in said.err.splitlines()} == {"left out"}
    after = files(Path("runs/run"))
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 1
    path.write_text("{", encoding="utf-8")
    assert "6 steps in" in run("-a", "vanilla").out, "a damaged record counts as none"
    assert json.loads(path.read_text(encoding="utf-8"))["status"] == "ok"


def test_an_edited_file_is_noticed():
    head = "from zeta_bench.attention import QKVAttention\n"
    good = f"{head}class Mine(QKVAttention):\n    attend = lambda self, q, k, v, valid: v\n"
    Path("mine.py").write_text(good, encoding="utf-8")
    assert run("-a", "./mine.py:Mine").code == 0
    assert run("-a", "./mine.py:Mine").err == ""
    Path("mine.py").write_text(good + "# edited\n", encoding="utf-8")
    assert "mine.py has changed since that record was written; add --force" in run("-a", "./mine.py:Mine").sentence(0)
    assert run("-a", "./mine.py:Mine", "--force").err == ""
    assert run("-a", "./mine.py:Mine").err == ""


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_in_training_keeps_the_state_and_resume_finishes(times):
    said = run("-a", f"{A}:times={times}", "-a", "vanilla")
    sentence = said.sentence(1)
    assert f"go on with: zeta-bench run mqar --protocol tiny.toml -a {A}:times={times} -a vanilla --resume" in sentence
    assert "stopped at step 4" in sentence if times == 1 else "stopped by the user" in sentence
    (record,) = records()
    assert (record.status, record.variant) == ("interrupted", "signals.Interrupts")
    assert len(states()) == 1
    assert states()[0].endswith(".ckpt"), "nothing half-written"
    after = run("-a", f"{A}:times={times}", "-a", "vanilla", "--resume")
    assert (after.code, after.err) == (0, "")
    assert [(record.status, record.steps) for record in records()] == [("ok", 6), ("ok", 6)]
    assert states() == []


def test_an_interrupted_run_can_start_anew():
    assert run("-a", A).code == 1
    said = run("-a", A)
    assert "starts anew; --resume goes on from the state that a stopped run left" in said.out
    assert [record.status for record in records()] == ["ok"]
    assert states() == []


def test_ctrl_c_before_the_first_step():
    said = run("-a", f"{A}:where=start")
    assert "stopped before a state was kept; start again with: zeta-bench run mqar" in said.sentence(1)
    assert states() == []
    assert run("-a", f"{A}:where=start", "--resume").code == 0
    assert [record.status for record in records()] == ["ok"]


def test_ctrl_c_in_an_evaluation():
    said = run("-a", f"{A}:where=evaluation,step=3")
    assert "stopped at step 3" in said.sentence(1)
    assert run("-a", f"{A}:where=evaluation,step=3", "--resume").code == 0
    assert [(record.status, record.steps) for record in records()] == [("ok", 6)]


def test_ctrl_c_in_a_repeat_leaves_the_record(here):
    (here / "pressed").touch()
    assert run("-a", A).code == 0
    (kept,) = records()
    (here / "pressed").unlink()
    said = run("-a", A, "--force").sentence(1)
    assert said.endswith(f"go on with: zeta-bench run mqar --protocol tiny.toml -a {A} --resume")
    assert records() == [kept]
    assert "has a record (ok)" in run("-a", A).out
    resumed = run("-a", A, "--resume")
    assert resumed.code == 0
    assert "6 steps in" in resumed.out
    assert [record.status for record in records()] == ["ok"]
    assert states() == []
    assert "has a record (ok)" in run("-a", A, "--resume").out


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"junk" * 9])
def test_a_damaged_checkpoint_is_named_before_anything_runs(damage):
    assert run("-a", A).code == 1
    (state,) = Path("runs/checkpoints").iterdir()
    state.write_bytes(damage(state.read_bytes()))
    before = files(Path("runs"))
    said = run("-a", "vanilla", "-a", A, "--resume")
    assert f"the checkpoint {state} is damaged" in said.sentence()
    assert "run again without --resume" in said.err
    assert files(Path("runs")) == before
    assert run("-a", A).code == 0


def test_a_checkpoint_of_another_protocol(here):
    tiny(here, "other.toml", lr="2e-3")
    assert run("-a", A).code == 1
    (state,) = Path("runs/checkpoints").iterdir()
    (here / "pressed").unlink()
    assert call("run", "mqar", "-p", "other.toml", "-a", A).code == 1
    (other,) = set(Path("runs/checkpoints").iterdir()) - {state}
    other.replace(state)
    assert f"the checkpoint {state} is of another protocol" in run("-a", A, "--resume").sentence()


def test_a_checkpoint_of_code_that_has_changed(monkeypatch):
    assert run("-a", A).code == 1
    for name in [name for name in sys.modules if name.startswith("zeta_bench_user_")]:
        monkeypatch.delitem(sys.modules, name)  # as in a new process
    wider = SIGNALS.replace("self.steps = 0", "self.steps, self.more = 0, type(self.out)(3, 3)")
    Path("signals.py").write_text(wider, encoding="utf-8")
    assert "does not fit the model, whose code must have changed" in run("-a", A, "--resume").sentence()
    assert [record.status for record in records()] == ["interrupted"]
    assert run("-a", A).code == 0


def test_resume_without_a_checkpoint_just_starts():
    assert run("-a", "vanilla", "--resume").code == 0
    assert [record.status for record in records()] == ["ok"]


def test_left_overs_of_a_killed_process_do_not_matter():
    assert run("-a", A).code == 1
    (state,) = Path("runs/checkpoints").iterdir()
    (record,) = Path("runs/run").rglob("*.json")
    state.with_suffix(".partial").write_bytes(b"half")
    record.with_name(f".{record.name}.abc").write_text("{", encoding="utf-8")
    record.unlink()
    assert run("-a", A, "--resume").code == 0
    assert [record.status for record in records()] == ["ok"]
    assert states() == []


def test_a_kept_checkpoint_is_no_unfinished_run():
    assert run("-a", "vanilla", "--keep-checkpoints").code == 0
    assert len(states()) == 1
    assert "has a record (ok)" in run("-a", "vanilla", "--resume").out
    assert "starts anew" not in run("-a", "vanilla", "--force").out


def test_states_are_where_the_help_says_wherever_the_records_go():
    assert run("-a", "vanilla", "--keep-checkpoints", "--records", "elsewhere/records").code == 0
    assert len(states()) == 1
    assert [path.name for path in Path("elsewhere").iterdir()] == ["records"]
    assert "states are in runs/checkpoints" in " ".join(call("run", "--help").out.split())


def test_the_consoles_are_left_as_they_were():
    assert not STDOUT.quiet
    assert not STDERR.quiet
