"""A sweep's file: what it asks for, what it is told when it is wrong, and how its runs are shared out."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from itertools import product
from pathlib import Path

import pytest
from commandline import call, files, tiny

from zeta_bench.claims import read_claims
from zeta_bench.errors import DataMissing, UsageError, ZetaBenchError
from zeta_bench.plan import plan_task
from zeta_bench.records import Store
from zeta_bench.registry import find_variants
from zeta_bench.run import Session
from zeta_bench.sweep.file import Request, read_sweep, requests
from zeta_bench.sweep.grid import Grid, plan_grid, shard
from zeta_bench.sweep.job import Planner
from zeta_bench.sweep.names import check_names
from zeta_bench.sweep.options import parse_seconds, parse_shard
from zeta_bench.tasks.mqar import MQAR

ROOT = Path(__file__).parents[1]
SWEEPS = sorted((ROOT / "results/sweeps").glob("*.toml"))
BASE = 'task = "mqar"\nprotocol = "./tiny.toml"\nattn = ["vanilla", "zeta"]\n'
GRID = """
[[grid]]
keys = ["backbone.d_model", "backbone.n_heads"]
values = [[8, 1], [16, 2]]
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    tiny(tmp_path)
    return tmp_path


def asked(text: str, **options: object) -> list[Request]:
    """The requests of a file with that text."""
    Path("s.toml").write_text(text, encoding="utf-8")
    return list(requests(Path("s.toml"), read_sweep(Path("s.toml")), **options))  # type: ignore[arg-type]


def planned(text: str, **options: object) -> Grid:
    """The runs of a file with that text."""
    return plan_grid(asked(text, **options), "cpu", accelerated=False)


def names(grid: Grid) -> list[str]:
    return [item.job.name for item in grid.items]


def test_a_list_is_an_axis_and_a_scalar_holds_for_all():
    found = planned(BASE.replace('"vanilla", ', "") + 'seeds = [4, 0]\n[set]\n"attn.k" = [2, 4]\nattn.chunk = 2\n')
    assert names(found) == [f"mqar zeta:chunk=2,k={k} seed {seed}" for k, seed in product((2, 4), (4, 0))]


def test_values_are_read_as_behind_set():
    (request,) = asked(BASE + '[set]\n"attn.bits" = "none"\n"optim.betas" = [[0.8, 0.9]]\n"attn.mean" = false\n')
    assert request.sets == {"attn.bits": None, "optim.betas": [0.8, 0.9], "attn.mean": False}


def test_parts_take_from_above_what_they_leave_out():
    text = (
        BASE + 'seeds = 2\n[set]\n"attn.k" = 4\n[[part]]\nattn = "zeta"\n[[part]]\nattn = ["zeta-token"]\nseeds = 1\n'
    )
    assert names(planned(text + '[part.set]\n"attn.d_k" = [1, 2]\n')) == [
        "mqar zeta:k=4 seed 0",
        "mqar zeta:k=4 seed 1",
        "mqar zeta-token:d_k=1,k=4 seed 0",
        "mqar zeta-token:d_k=2,k=4 seed 0",
    ]


def test_a_run_named_twice_runs_once_and_is_diagnosed_if_either_says_so():
    text = BASE + "[[part]]\n[[part]]\nattn = ['zeta:k=32', 'linear']\ndiagnose = true\n"
    found = planned(text)
    assert found.repeated == 1
    assert [(item.job.number, item.run.choice.name, item.job.diagnose) for item in found.items] == [
        (1, "vanilla", False),
        (2, "zeta", True),
        (3, "linear", True),
    ]


def test_run_ids_are_those_of_run(here):
    tiny(here, "grid.toml", tail=GRID)
    grid = planned(
        'task="mqar"\nprotocol="grid.toml"\nattn=["zeta:d_k=2"]\nseeds=2\n[set]\n"attn.k"=4\n"optim.lr"=0.01\n'
    )
    sets = {"attn.k": 4, "optim.lr": 0.01}
    runs = plan_task("mqar", "grid.toml", find_variants(["zeta:d_k=2"]), [0, 1], sets, accelerated=False)
    assert [item.job.run_id for item in grid.items] == [run.run_id("cpu") for run in runs]
    assert len(runs) == 4


def test_a_job_is_planned_again_as_the_same_run(here):
    tiny(here, "grid.toml", tail=GRID)
    grid = planned('task="mqar"\nprotocol="grid.toml"\nattn=["zeta:d_k=2"]\n[set]\n"attn.k"=4\n"budget.steps"=8\n')
    session, planner = Session(Store(here / "runs"), here / "states", accelerated=False), Planner()
    again = [planner.run(item.job, session) for item in grid.items]
    assert [run.command for run in again] == [item.run.command for item in grid.items]
    assert again[0].task is again[1].task, "runs with the same data share it"
    tiny(here, "grid.toml", tail=GRID, lr="2e-3")
    with pytest.raises(ZetaBenchError, match="is another run here, on cpu: a file has changed"):
        planner.run(grid.items[0].job, session)


def test_picks_choose_points_and_change_no_protocol(here):
    tiny(here, "grid.toml", tail=GRID)
    pick = '[pick]\n"backbone.d_model" = 16\n'
    text = 'task="mqar"\nprotocol=["grid.toml", "tiny.toml"]\nattn="vanilla"\n' + pick
    assert names(planned(text)) == [
        "mqar vanilla seed 0 backbone.d_model=16 backbone.n_heads=2",
        "mqar vanilla seed 0",
    ]
    with pytest.raises(UsageError, match=r"has no backbone\.d_model = 12; it has 8, 16"):
        planned(text.replace("16", "12"))
    with pytest.raises(UsageError, match=r"there is no setting 'backbone\.dmodel'"):
        planned(text.replace("d_model", "dmodel"))


def test_options_stand_for_what_the_file_says():
    grid = planned(BASE + "seeds = 3\n", protocol="quick", seeds=1)
    assert {item.run.protocol.name for item in grid.items} == {"quick"}
    assert len(grid.items) == 2


def test_without_a_protocol_it_is_the_machines_default():
    request = asked(BASE.replace('protocol = "./tiny.toml"\n', ""))
    assert {item.run.protocol.name for item in plan_grid(request, "cpu", accelerated=False).items} == {"quick"}
    assert {item.run.protocol.name for item in plan_grid(request, "H", accelerated=True).items} == {"small"}


def test_files_lie_beside_the_sweep(here):
    (here / "sub").mkdir()
    tiny(here / "sub", "near.toml")
    shutil.copy(ROOT / "examples/my_attention.py", here / "sub/mine.py")
    text = 'task = "mqar"\nprotocol = "near.toml"\nattn = ["./mine.py:MyAttention:sharpness=2"]\n'
    (here / "sub/s.toml").write_text(text, encoding="utf-8")
    found = list(requests(Path("sub/s.toml"), read_sweep(Path("sub/s.toml"))))
    check_names(found)
    (item,) = plan_grid(found, "cpu", accelerated=False).items
    assert "--attn sub/mine.py:MyAttention:sharpness=2 --protocol sub/near.toml" in item.run.command


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (BASE + "atn = 1", "s.toml: there is no setting 'atn'; did you mean 'attn'?"),
        (BASE + "[[part]]\nseds = 1", "s.toml, part 1: there is no setting 'seds'; did you mean 'seeds'?"),
        (BASE + "[part]\nseeds = 1", "[part] must be written [[part]]"),
        (BASE + "seeds = 0", "setting 'seeds' = 0 is not valid: it must be a number of seeds"),
        (BASE + "seeds = true", "setting 'seeds' = True is not valid: it must be a number of seeds"),
        (BASE + "seeds = [1, -1]", "it must be a number of seeds"),
        (BASE + "diagnose = 3.5", "setting 'diagnose' = 3.5 is not valid: it must be true or false"),
        (BASE + "set = 3", 'it must be a table, such as [set], and below it "attn.k" = [16, 32]'),
        (BASE + '[set]\n"attn.k" = []', "'attn.k' has no value"),
        (BASE + '[set]\n"attn.k" = 1\nattn.k = 2', "'attn.k' stands there twice"),
        (BASE + '[set]\n"attn.k" = 2020-01-01', "'attn.k' = 2020-01-01 cannot be set"),
        (BASE.replace('["vanilla", "zeta"]', "[]"), "setting 'attn' = [] is not valid: it is empty"),
        (BASE.replace('["vanilla", "zeta"]', "[3]"), "setting 'attn.0' = 3 is not valid: it must be text"),
        ('task = "mqar"', "s.toml: setting 'attn' is missing; add it, such as attn = \"zeta-token\"."),
        ('attn = "zeta"', "s.toml: setting 'task' is missing; add it"),
        (BASE.replace("mqar", "mqr"), "s.toml: unknown task 'mqr': did you mean mqar?"),
        (BASE.replace('"zeta"', '"zta"'), "s.toml: unknown variant 'zta': did you mean zeta"),
        (BASE.replace('"zeta"', '"no.py:Mine"'), "there is no file no.py"),
        (BASE.replace("./tiny.toml", "smal"), "s.toml: unknown protocol 'smal': did you mean small?"),
        (BASE + '[set]\n"attn.k" = 4', "s.toml: variant 'vanilla': there is no setting 'attn.k'"),
        (BASE + '[set]\n"optim.lrr" = 4', "did you mean 'optim.lr'?"),
        (BASE + '[set]\n"budget.batch_size" = 10000', "more than the 64 training examples; lower it"),
        ("task = ", "s.toml is not valid TOML"),
    ],
)
def test_a_mistake_is_one_sentence_before_anything_starts(here, text, sentence):
    (here / "s.toml").write_text(text, encoding="utf-8")
    before = files(here)
    assert sentence in call("sweep", "s.toml").sentence()
    assert files(here) == before


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["none.toml"], "cannot read the sweep none.toml: No such file or directory; give a .toml file."),
        (["s.toml", "--shard", "3/2"], "--shard 3/2 is no part of a sweep; write 1/8"),
        (["s.toml", "--shard", "0/2"], "--shard 0/2 is no part"),
        (["s.toml", "--shard", "two"], "--shard two is no part"),
        (["s.toml", "--deadline", "soon"], "--deadline soon is no span of time; write 9m, 540, 90s or 2h."),
        (["s.toml", "--deadline", "0"], "--deadline 0 is no span of time"),
        (["s.toml", "--jobs", "0"], "zeta-bench sweep --help"),
        (["s.toml", "--engine", "slurm"], "zeta-bench sweep --help"),
        (["s.toml", "--shrd", "1/2"], "--shard"),
    ],
)
def test_a_mistyped_command_is_one_sentence(here, words, sentence):
    (here / "s.toml").write_text(BASE, encoding="utf-8")
    assert sentence in call("sweep", *words).sentence()
    assert not (here / "runs").exists()


@pytest.mark.parametrize(("text", "seconds"), [("9m", 540), ("540", 540), ("90s", 90), ("2h", 7200), (" 1.5 m ", 90)])
def test_spans_of_time(text, seconds):
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("parts", [1, 2, 3, 5, 40])
def test_shards_are_disjoint_and_make_the_whole(parts):
    grid = planned(BASE + "seeds = 9\n")
    found = [shard(grid.items, *parse_shard(f"{part}/{parts}")) for part in range(1, parts + 1)]
    together = sorted(item.job.run_id for each in found for item in each)
    assert together == sorted(item.job.run_id for item in grid.items)
    assert max(map(len, found)) - min(map(len, found)) <= 1, "as many runs in each, give or take one"
    assert [item.job.number for item in found[0]] == list(range(1, len(found[0]) + 1))


def test_missing_data_moves_no_run_to_another_shard(monkeypatch):
    text = BASE.replace('"./tiny.toml"', '["./tiny.toml", "quick"]')
    whole = shard(planned(text).items, 1, 3)

    def check(self: MQAR) -> None:
        if self.data.seq_len == 16:
            raise DataMissing("fetch it with: zeta-bench data fetch mqar")

    monkeypatch.setattr(MQAR, "check", check)
    grid = planned(text)
    assert [item.job.run_id for item in shard(grid.items, 1, 3)] == [item.job.run_id for item in whole]
    assert grid.missing == ["mqar: not run: data. fetch it with: zeta-bench data fetch mqar"]
    assert [bool(item.missing) for item in grid.items] == [True, True, False, False]


def test_a_script_for_slurm_runs_the_same_sweep(here):
    (here / "odd name;.toml").write_text(BASE + "seeds = 2\n", encoding="utf-8")
    said = call("sweep", "odd name;.toml", "--print-slurm", "--jobs", "2", "-p", "tiny.toml", "--records", "a b")
    assert (said.code, said.err) == (0, "")
    assert "#SBATCH --array=1-4\n" in said.out
    assert "#SBATCH --job-name=zeta-bench-odd-name\n" in said.out
    last = said.out.splitlines()[-1]
    assert shlex.split(last) == [
        *["exec", "zeta-bench", "sweep", "odd name;.toml", "--jobs", "2", "--protocol", "tiny.toml"],
        *["--records", "a b", "--shard", "$SLURM_ARRAY_TASK_ID/4"],
    ]
    assert '"$SLURM_ARRAY_TASK_ID/4"' in last, "the shell fills in the number"
    assert subprocess.run(["bash", "-n"], input=said.out, text=True, check=False).returncode == 0
    assert not (here / "runs").exists()
    assert "--array=1-3\n" in call("sweep", "odd name;.toml", "--print-slurm", "--shard", "1/3").out


def test_the_projects_sweeps_are_there():
    mqar = {"c1-width", "c2-dk", "c3-score", "c9-k", "attribution", "ablations"}
    assert {path.stem for path in SWEEPS} == mqar | {"c5-lra", "c6-wikitext", "attribution-wikitext"}


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_a_sweep_of_the_project_plans_and_says_what_it_costs(path):
    told = re.findall(r"\b(\d+)(?: runs)?\s+(?:#\s+)?under `([\w-]+)`", path.read_text(encoding="utf-8"))
    own = read_sweep(path).protocol[0]
    assert {own, "small"} <= {name for _, name in told}, "the comment on cost"
    sizes = {}
    for protocol in {own, "small", "quick", *(name for _, name in told)}:
        found = list(requests(path, read_sweep(path), protocol=protocol))
        check_names(found)
        grid = plan_grid(found, "cpu", accelerated=False)
        assert not grid.repeated
        assert not grid.impossible
        ids = {(item.run.task_name, item.run.point.protocol_id) for item in grid.items}
        tasks = {task for task, _ in ids}
        if path.stem != "attribution-wikitext":  # its heads and convolution are of the protocol
            assert len(ids) == len(tasks), "one protocol a task, so that all can stand in one table"
            assert not any("+" in name for _, name in ids)
        sizes[protocol] = len(grid.items)
    assert {name: int(count) for count, name in told} == {name: sizes[name] for _, name in told}


def test_the_sweep_of_the_arena_makes_what_its_claim_compares():
    claim = next(each for each in read_claims().claim if each.id == "C5")
    wanted = {(task, each.variant) for part in claim.part for each in (*part.of, *part.than) for task in each.task}
    path = ROOT / "results/sweeps/c5-lra.toml"
    grid = plan_grid(list(requests(path, read_sweep(path))), "cpu", accelerated=False)
    assert wanted <= {(item.run.task_name, item.run.choice.label) for item in grid.items}
    assert {part.protocol for part in claim.part} == {item.run.protocol.name for item in grid.items}


def test_the_sweep_of_wikitext_makes_what_its_claim_compares():
    claim = next(each for each in read_claims().claim if each.id == "C6")
    wanted = {each.variant for part in claim.part for each in (*part.of, *part.than)}
    path = ROOT / "results/sweeps/c6-wikitext.toml"
    for protocol in {name for part in claim.part for name in (part.protocol, part.preview)}:
        grid = plan_grid(list(requests(path, read_sweep(path), protocol=protocol)), "cpu", accelerated=False)
        assert wanted <= {item.run.choice.label for item in grid.items}
