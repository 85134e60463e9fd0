"""Whatever is typed wrongly is one sentence that names it and the next step, exit code 2, and nothing is written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from commandline import call, files, run, tiny

from zeta_bench import cli

MISTAKES = {
    "an unknown task": (["run", "mqr", "-a", "zeta"], "unknown task 'mqr': did you mean mqar?"),
    "an unknown variant": (["run", "mqar", "-a", "vanila"], "unknown variant 'vanila': did you mean vanilla?"),
    "an underscore": (["run", "mqar", "-a", "zeta_token"], "'zeta_token': did you mean zeta-token? '"),
    "a name like nothing": (["run", "mqar", "-a", "xyzzy"], "unknown variant 'xyzzy': 'zeta-bench ls variants'"),
    "an empty name": (["run", "mqar", "-a", ""], "unknown variant ''"),
    "no variant": (["run", "mqar"], "name at least one variant: --attn zeta-token"),
    "an unknown protocol": (
        ["run", "mqar", "-a", "zeta", "-p", "quik"],
        "unknown protocol 'quik': did you mean quick?",
    ),
    "a protocol with _": (["run", "mqar", "-a", "zeta", "-p", "paper_conv"], "did you mean paper-conv? '"),
    "a protocol file without .toml": (["run", "mqar", "-a", "zeta", "-p", "tiny"], "write --protocol tiny.toml"),
    "no such protocol file": (["run", "mqar", "-a", "zeta", "-p", "no.toml"], "cannot read the protocol no.toml"),
    "an unknown command": (["rn"], "No such command 'rn'"),
    "a misspelt command": (["audits"], "Did you mean 'audit'? 'zeta-bench"),
    "an unknown option": (["run", "mqar", "--atn", "zeta"], "--atn"),
    "a missing argument": (["run"], "Missing argument"),
    "nothing to list": (["ls", "variant"], "'variant' is not one of 'variants', 'tasks'"),
    "an audit of nothing": (["audit", "vanila"], "did you mean vanilla?"),
    "a setting in an audit": (["audit", "zeta:kk=3"], "there is no setting 'kk'; did you mean 'k'?"),
    "a format": (["report", "--format", "docx"], "no format 'docx'; there is md, tex, csv, html"),
    "a report of no task": (["report", "--task", "mqr"], "unknown task 'mqr': did you mean mqar?"),
    "a report of no folder": (["report", "--records", "nowhere"], "there is no folder nowhere"),
    "records of no folder": (["ls", "records", "--records", "nowhere"], "there is no folder nowhere"),
}

SETTINGS = {
    "attn.kk=3": "variant 'zeta': there is no setting 'attn.kk'; did you mean 'attn.k'?",
    "attn.k=abc": "setting 'k' = 'abc' is not valid: it must be a whole number",
    "attn.k=0": "setting 'k' = 0 is not valid: it must be greater than 0",
    "attn.k=1.5": "'k' = 1.5 is not valid: it must be a whole number",
    "attn.search=nearest": "it must be 'zorder', 'exact', 'local', 'random', 'all' or 'none'",
    "attn.mean=3": "it must be true or false",
    "attn.": "cannot read --set attn.: it is written key=value",
    "attn.k": "cannot read --set attn.k: it is written key=value, as in --set attn.k=16",
    "attn.k=": "cannot read --set attn.k=",
    "=3": "cannot read --set =3",
    "optim.lr=fast": "setting 'optim.lr' = 'fast' is not valid: it must be a number",
    "optim.lr=-1": "'optim.lr' = -1 is not valid: it must be greater than 0",
    "optim.lr=nan": "it must be a finite number",
    "optim.lr=inf": "it must be a finite number",
    "optim.betas=3": "it must be a list",
    "optim.lrr=3": "there is no setting 'optim.lrr'; did you mean 'optim.lr'?",
    "optim.lr.x=3": "there is no setting 'optim.lr.x'",
    "lr=3": "there is no setting 'lr'; did you mean 'optim.lr'?",
    "optim=3": "there is no setting 'optim'",
    "steps.budget=3": "there is backbone.…, optim.…",
    "budget.steps=0": "'budget.steps' = 0 is not valid: it must be greater than 0",
    "budget.batch_size=65": "budget.batch_size = 65 is more than the 64 training examples; lower it",
    "backbone.n_heads=3": "d_model = 16 is not divisible by n_heads = 3; change one of them",
    "backbone.d_model=-4": "must be greater than 0",
    "precision=fp8": "it must be 'fp32' or 'bf16'",
    "data.pairs=999": "pairs = 999 does not fit into seq_len = 16",
    "data.pears=2": "there is no setting 'pears'; did you mean 'pairs'?",
    "data.pairs.x=2": "there is no setting 'data.pairs.x'",
    "data.pairs=two": "'pairs' = 'two' is not valid: it must be a whole number",
}

FILES = {
    "it is not TOML": ("task = [", "is not valid TOML"),
    "it is not text": (b"\xff\xfe\x00", "is not valid TOML"),
    "a field is misspelt": (
        {"stepz": "6", "steps": None},
        "there is no setting 'budget.stepz'; did you mean 'budget.steps'?",
    ),
    "a field is missing": ({"summary": None}, "setting 'summary' is missing; add it"),
    "a field is of another type": ({"lr": '"x"'}, "setting 'optim.lr' = 'x' is not valid: it must be a number"),
    "a number is no whole one": ({"steps": "6.5"}, "it must be a whole number"),
    "it is of another task": ({"task": '"lra.text"'}, "is a protocol of task 'lra.text', not of 'mqar'"),
    "its name is a path": ({"name": '"../x"', "task": '"mqar"'}, "it must be a name without /"),
    "its metric is another task's": (
        {"metric": '"perplexity"'},
        "task 'mqar' has no metric 'perplexity'; it has accuracy",
    ),
    "its grid moves nothing": ({"grid": '[{keys = ["optim.x"], values = [[1]]}]'}, "a grid cannot move 'optim.x'"),
    "its grid moves data that is not": ({"grid": '[{keys = ["data.x"], values = [[1]]}]'}, "there is no setting 'x'"),
    "its grid is flat": ({"grid": '[{keys = ["optim.lr"], values = [1]}]'}, "it must be a list"),
    "its grid is empty": ({"grid": '[{keys = ["optim.lr"], values = []}]'}, "grid.0.values"),
    "its grid has long rows": ({"grid": '[{keys = ["optim.lr"], values = [[1, 2]]}]'}, "each row of values needs 1"),
    "its grid has a value that cannot be": ({"grid": '[{keys = ["optim.lr"], values = [["x"]]}]'}, "must be a number"),
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    tiny(tmp_path)
    yield tmp_path
    cli.DEBUG = False


@pytest.mark.parametrize(("words", "sentence"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_sentence_and_leaves_nothing(words, sentence, here):
    before = files(here)
    assert sentence in call(*words).sentence()
    assert files(here) == before
    assert not Path("runs").exists()


@pytest.mark.parametrize("text", SETTINGS)
def test_a_wrong_setting_is_one_sentence_and_leaves_nothing(text):
    assert SETTINGS[text] in run("-a", "zeta", "--set", text).sentence()
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["-a", "zeta:k"], "cannot read 'k' in 'zeta:k'"),
        (["-a", "zeta:k=2,k=3"], "sets k twice"),
        (["-a", "zeta:k=x"], "it must be a whole number"),
        (["-a", "zeta", "--set", "attn.k=2", "--set", "attn.k=3"], "--set attn.k is given twice"),
        (["-a", "zeta", "-a", "vanilla", "--set", "attn.k=2"], "variant 'vanilla': there is no setting 'attn.k'"),
        (["-a", "zeta", "--seed", "-1"], "--seed"),
        (["-a", "zeta", "--seed", "one"], "--seed"),
        (["-a", "zeta", "--seeds", "0"], "--seeds"),
        (["-a", "zeta", "--seed", "1", "--seeds", "2"], "--seed and --seeds exclude each other"),
        (["-a", "vanilla", "--set", "backbone.positions=rotary", "--set", "backbone.n_heads=16"], "even d_model"),
        (["-a", "zeta", "--set", "backbone.positions=rotary"], "'zeta' has no rotary form"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_that_do_not_go_together(words, sentence):
    assert sentence in run(*words).sentence()
    assert not Path("runs").exists()


def test_devices_that_are_not_there(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setattr("zeta_bench.execution.cores", lambda: 2)
    assert "--devices 7: this machine has 2 cores; ask for at most" in run("-a", "zeta", "--devices", "7").sentence()
    assert "start the command by srun" in run("-a", "zeta", "--nodes", "2").sentence()
    assert not Path("runs").exists()


@pytest.mark.parametrize(("change", "sentence"), FILES.values(), ids=FILES)
def test_a_protocol_file_with_a_mistake(change, sentence, here):
    if isinstance(change, dict):
        lines = tiny(here).read_text(encoding="utf-8").splitlines()
        new = {key: value for key, value in change.items() if value is not None}
        kept = [line for line in lines if line.partition(" =")[0] not in change]
        at = kept.index("[budget]") + 1 if "stepz" in new or "steps" in new else 0
        if "lr" in new:
            at = kept.index("[optim]") + 1
        change = "\n".join([*kept[:at], *(f"{key} = {value}" for key, value in new.items()), *kept[at:]])
    (here / "tiny.toml").write_bytes(change if isinstance(change, bytes) else change.encode())
    assert sentence in run("-a", "vanilla").sentence()
    assert not [name for name in files(here) if name.endswith(".json")]


def test_a_folder_is_no_protocol(here):
    (here / "folder.toml").mkdir()
    assert "cannot read the protocol folder.toml" in call("run", "mqar", "-a", "zeta", "-p", "folder.toml").sentence()


@pytest.mark.parametrize("folder", ["taken", "taken/below", "/proc/zeta-bench"])
def test_records_that_cannot_be_written(folder, here):
    if folder.startswith("/proc") and not Path("/proc/self").exists():
        pytest.skip("no /proc here")
    Path("taken").write_text("a file", encoding="utf-8")
    before = files(here)
    said = run("-a", "vanilla", "--records", folder)
    assert f"cannot write records to {folder}" in said.sentence()
    assert "--records" in said.err
    assert "[1/1]" not in said.out, "nothing is trained before"
    assert f"cannot write records to {folder}" in call("audit", "vanilla", "--records", folder).sentence()
    assert files(here) == before


def test_checkpoints_that_cannot_be_written(here):
    (here / "runs").mkdir()
    (here / "runs/checkpoints").write_text("a file", encoding="utf-8")
    assert "cannot write checkpoints to runs/checkpoints: it is a file" in run("-a", "vanilla").sentence()
    assert list(files(here / "runs")) == ["checkpoints"]


def test_a_report_that_cannot_be_written(here):
    assert run("-a", "vanilla").code == 0
    Path("taken").write_text("a file", encoding="utf-8")
    assert "cannot write the report to taken" in call("report", "--to", "taken").sentence()


def test_what_nobody_thought_of_is_one_sentence_too(monkeypatch):
    monkeypatch.setattr("zeta_bench.listing.rows", lambda *_: 1 / 0)
    assert "this is a defect: ZeroDivisionError: division by zero; please report" in call("ls").sentence(1)
    with pytest.raises(ZeroDivisionError):
        call("--debug", "ls")


def test_what_the_system_refuses_is_one_sentence(monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("zeta_bench.listing.rows", full)
    assert "the system refused: [Errno 28] No space left on device" in call("ls").sentence(1)


def test_debug_shows_where_a_mistake_was_found():
    with pytest.raises(Exception, match="unknown task 'mqr'"):
        call("--debug", "run", "mqr", "-a", "zeta")
    assert "No such option" in call("--debug", "run", "--bogus").sentence()


def test_no_command_shows_the_help():
    said = call()
    assert said.code == 2
    assert "Commands:" in said.out
    assert not said.err


def test_help_and_version():
    for words in (["--help"], ["run", "--help"], ["audit", "--help"], ["ls", "--help"]):
        said = call(*words)
        assert (said.code, said.err) == (0, "")
        assert "Usage:" in said.out
    assert call("--version").out.strip() == cli.__version__


@pytest.mark.parametrize("words", [("--records", ""), ("--records=",), ("--to", ""), ("--to=",)])
def test_a_folder_that_is_nothing(words, here):
    told = call("report", *words).sentence()
    assert told == f"{words[0].rstrip('=')} is given nothing; name a folder, '.' for the one you are in."


def test_what_would_change_a_batch_norm_is_refused(monkeypatch, here):
    monkeypatch.setattr("zeta_bench.execution.cores", lambda: 2)
    words = ("run", "lra.listops", "-p", "s4", "-a", "vanilla")
    monkeypatch.setattr("zeta_bench.tasks.lra.listops.task.ListOps.check", lambda self: None)
    monkeypatch.setattr("zeta_bench.plan.check_runs", lambda runs: None)
    for option in (("--micro-batch", "2"), ("--devices", "2")):
        told = call(*words, *option).sentence()
        assert told.startswith(f"{option[0]} would change what is computed: protocol 's4' has backbone.norm = batch")
    assert not Path("runs").exists()
