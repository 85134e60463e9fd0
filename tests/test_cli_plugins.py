"""A user's file on the command line: whatever it does wrong is one sentence, and the other variants still run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from commandline import call, files, records, run, tiny

HEAD = """
import torch
from pydantic import BaseModel
from zeta_bench.attention import Attention, QKVAttention
from zeta_bench.settings import Settings
"""

BROKEN = {
    "def f(:": "does not import: SyntaxError: invalid syntax",
    "import no_such_module": "ModuleNotFoundError: No module named 'no_such_module' (mine.py, line 1)",
    "x = 1\nraise RuntimeError('first\\nsecond')": "RuntimeError: first (mine.py, line 2)",
    "raise SystemExit(3)": "SystemExit: 3",
    "Mine = 3": "Mine in mine.py is not an Attention",
    "def Mine(): ...": "Mine in mine.py is not an Attention",
    "class Mine: ...": "Mine in mine.py is not an Attention; a variant subclasses zeta_bench.attention.Attention",
    "": "mine.py has no class Mine; a variant subclasses",
    HEAD + "class Mini(QKVAttention): ...": "mine.py has no class Mine; did you mean Mini?",
    HEAD + "class Mine(Attention):\n    Config = dict": "the Config of 'mine.Mine' is not a pydantic model",
    HEAD
    + "class Mine(Attention):\n    class Config(Settings):\n        width: int": "setting 'width' is missing; add it",
    HEAD + "class Mine(Attention):\n    class Config(Settings):\n        __init__ = lambda self: 1 / 0": (
        "its settings cannot be made: ZeroDivisionError"
    ),
    HEAD + "class Mine(Attention):\n    class Config(Settings):\n        x: object = object()": "cannot be recorded",
}
"""Content of mine.py and what is said about ``--attn ./mine.py:Mine``."""

CLASSES = """
class Init(QKVAttention):
    def __init__(self, spec, config=None):
        raise RuntimeError("no init")
class Signature(QKVAttention):
    def __init__(self): ...
class Empty(Attention): ...
class Raises(QKVAttention):
    def attend(self, q, k, v, valid):
        raise RuntimeError("first line\\nsecond line")
class InTraining(QKVAttention):
    def attend(self, q, k, v, valid):
        if self.training:
            raise RuntimeError("in training")
        return v
class Leaves(QKVAttention):
    def attend(self, q, k, v, valid):
        raise SystemExit(5)
class Short(Attention):
    def forward(self, x, valid=None):
        return x[:, 1:]
class Narrow(Attention):
    def forward(self, x, valid=None):
        return x[..., :1]
class Pair(Attention):
    def forward(self, x, valid=None):
        return x, None
class NotANumber(QKVAttention):
    def attend(self, q, k, v, valid):
        return v * float("nan")
class Good(QKVAttention):
    class Config(Settings):
        scale: float = 1.0
    def attend(self, q, k, v, valid):
        return v * self.config.scale
class CausalOnly(Good):
    bidirectional_ok = False
class BidirectionalOnly(Good):
    causal_ok = False
"""

FAILURES = {
    "Init": ("failed", "RuntimeError: no init (mine.py, line 9)"),
    "Signature": ("failed", "TypeError: "),
    "Empty": ("failed", "NotImplementedError: a method that the class must write is not there"),
    "Raises": ("failed", "RuntimeError: first line (mine.py, line 15)"),
    "InTraining": ("failed", "RuntimeError: in training (mine.py, line 19)"),
    "Leaves": ("failed", "SystemExit: 5"),
    "Short": ("failed", "Short.forward returned (1, 15, 16) for an input of shape (1, 16, 16)"),
    "Narrow": ("failed", "Narrow.forward returned (1, 16, 1) for an input of shape (1, 16, 16)"),
    "Pair": ("failed", "Pair.forward returned tuple for an input of shape (1, 16, 16)"),
    "NotANumber": ("diverged", "the loss was nan"),
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    tiny(tmp_path)
    return tmp_path


def write(text: str, name: str = "mine.py") -> None:
    Path(name).write_text(text, encoding="utf-8")


@pytest.mark.parametrize("content", BROKEN, ids=BROKEN.values())
def test_a_file_that_is_no_variant(content, here):
    write(content)
    before = files(here)
    assert BROKEN[content] in run("-a", "vanilla", "-a", "./mine.py:Mine").sentence()
    assert files(here) == before


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("./nowhere.py:Mine", "there is no file nowhere.py"),
        (".:Mine", "unknown variant '.'"),
        ("./mine.py", "mine.py needs the name of a class: write mine.py:Init"),
        ("./mine.py:", "mine.py needs the name of a class"),
        ("./mine.py:good", "mine.py has no class good; did you mean Good?"),
        ("./mine.py:Settings", "Settings in mine.py is not an Attention"),
        ("mine:Good", "did you mean the file mine.py:Good?"),
        (
            "./mine.py:Good:scale=wide",
            "variant 'mine.Good': setting 'scale' = 'wide' is not valid: it must be a number",
        ),
        ("./mine.py:Good:scael=2", "there is no setting 'scael'; did you mean 'scale'?"),
        ("./mine.py:BidirectionalOnly", "'mine.BidirectionalOnly' has no causal form"),
    ],
)
def test_what_is_asked_of_a_file(text, sentence, here):
    write(HEAD + CLASSES)
    assert sentence in run("-a", text).sentence()
    assert sentence.split(";")[0] in call("audit", text).err or "causal" in sentence
    assert not (here / "runs").exists()


def test_a_direction_that_a_variant_does_not_have(here):
    write(HEAD + CLASSES)
    tiny(here, "both.toml", direction='"bidirectional"')
    said = call("run", "mqar", "-p", "both.toml", "-a", "./mine.py:CausalOnly")
    assert "'mine.CausalOnly' is causal only, and this protocol is bidirectional" in said.sentence()
    tiny(here, "any.toml", direction='"any"')
    assert call("run", "mqar", "-p", "any.toml", "-a", "./mine.py:CausalOnly").code == 0
    assert [record.direction for record in records()] == ["causal"]


@pytest.mark.parametrize("name", FAILURES)
def test_what_fails_while_it_runs_is_recorded(name):
    write(HEAD + CLASSES)
    status, sentence = FAILURES[name]
    said = run("-a", f"./mine.py:{name}")
    assert sentence in said.sentence(1)
    assert f"mqar mine.{name} seed 0: {status}" in said.err
    (record,) = records()
    assert (record.status, record.variant) == (status, f"mine.{name}")
    assert sentence in record.reason
    assert [path for path in files(Path("runs")) if not path.endswith(".json")] == []


def test_the_other_variants_still_run():
    write(HEAD + CLASSES)
    said = run("-a", "./mine.py:Raises", "-a", "./mine.py:Good:scale=2", "-a", "./mine.py:NotANumber")
    assert said.code == 1
    assert [line.partition(":")[0] for line in said.err.splitlines()] == [
        "[1/3] mqar mine.Raises seed 0",
        "[3/3] mqar mine.NotANumber seed 0",
    ]
    assert {record.variant: record.status for record in records()} == {
        "mine.Raises": "failed",
        "mine.Good": "ok",
        "mine.NotANumber": "diverged",
    }
    assert "mine.Good:scale=2" in said.out
    again = run("-a", "./mine.py:Raises", "-a", "./mine.py:Good:scale=2")
    assert "mine.Good:scale=2 seed 0: has a record (ok)" in again.out
    assert "[1/2] mqar mine.Raises seed 0: failed" in again.err, "a failed run is run again"


def test_a_dry_run_says_what_would_fail():
    write(HEAD + CLASSES)
    for name, sentence in (("Init", "no init"), ("InTraining", "in training"), ("Short", "Short.forward returned")):
        assert sentence in run("-a", f"./mine.py:{name}", "--dry-run").sentence(1)
    assert not Path("runs").exists()


def test_debug_lets_the_traceback_through():
    write(HEAD + CLASSES)
    with pytest.raises(RuntimeError, match="first line"):
        call("--debug", "run", "mqar", "-p", "tiny.toml", "-a", "./mine.py:Raises")
    assert "Raises" in run("-a", "./mine.py:Raises").err


def test_a_required_setting_can_come_from_set():
    body = "    class Config(Settings):\n        width: int\n    attend = lambda self, q, k, v, valid: v"
    write(f"{HEAD}class Mine(QKVAttention):\n{body}")
    assert run("-a", "./mine.py:Mine", "--set", "attn.width=8").code == 0
    assert records()[0].settings == {"width": 8}


def test_a_file_may_import_its_neighbours(here):
    write("SCALE = 2.0", "neighbour_of_mine.py")
    write(HEAD + "from neighbour_of_mine import SCALE\n" + CLASSES)
    assert run("-a", "./mine.py:Good").code == 0


def test_two_files_with_one_name_are_refused(here):
    (here / "b").mkdir()
    for name in ("mine.py", "b/mine.py"):
        write(HEAD + CLASSES, name)
    said = run("-a", "./mine.py:Good", "-a", "./b/mine.py:Good")
    assert "mine.py and b/mine.py would both be 'mine.Good' in records; rename one of them" in said.sentence()
    assert run("-a", "./mine.py:Good", "-a", f"{here}/mine.py:Good").out.count("[1/1]") > 1, "one file, two spellings"


def test_a_folder_with_py_in_its_name(here):
    (here / "my.python").mkdir()
    write(HEAD + CLASSES, "my.python/mine.py")
    assert run("-a", "./my.python/mine.py:Good:scale=2").code == 0
    (record,) = records()
    assert record.command.endswith("--attn my.python/mine.py:Good:scale=2 --protocol tiny.toml --seed 0")


def test_a_failed_repeat_leaves_the_record(here):
    (here / "moody.py").write_text(
        "from pathlib import Path\n"
        "from zeta_bench.attention import QKVAttention\n\n\n"
        "class Moody(QKVAttention):\n"
        "    def attend(self, q, k, v, valid):\n"
        "        if Path('fail').exists() and self.training:\n"
        "            raise RuntimeError('not today')\n"
        "        return v\n",
        encoding="utf-8",
    )
    assert run("-a", "./moody.py:Moody").code == 0
    (kept,) = records()
    (here / "fail").touch()
    assert "not today" in run("-a", "./moody.py:Moody", "--force").sentence(1)
    assert records() == [kept]
