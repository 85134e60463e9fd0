"""The wheel holds everything that runs and nothing else, and works in an empty folder without the checkout."""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

import zeta_bench
from zeta_bench.registry import BUILTIN, GROUP

ROOT = Path(__file__).parents[1]
SHIPPED = ("published.csv", "claims.toml")

GUARD = f"""# Take the checkout off the path, where an editable installation put it.
import sys
sys.path[:] = [path for path in sys.path if path != {str(ROOT)!r}]
"""


def call(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    """Run a command and return its stdout; its whole output is the message if it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def environment(**more: str) -> dict[str, str]:
    """This process's environment without what would lead Python to the checkout."""
    return {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME"}} | more


def project_files() -> list[Path]:
    """Every file of the project that git tracks or would track, relative to its root."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    names = call("git", "ls-files", "-co", "--exclude-standard", "-z", cwd=ROOT).split("\0")
    return [Path(name) for name in names if name and os.path.lexists(ROOT / name)]


@pytest.fixture(scope="session")
def dist(tmp_path_factory) -> Path:
    """A folder with the sdist, the wheel built from it, and in tree/ the wheel built from the tree."""
    folder = tmp_path_factory.mktemp("package")
    for name in project_files():
        (folder / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / "copy" / name, follow_symlinks=False)
    build = (sys.executable, "-m", "build", "--no-isolation")
    call(*build, "--outdir", folder, cwd=folder / "copy")
    call(*build, "--wheel", "--outdir", folder / "tree", cwd=folder / "copy")
    return folder


@pytest.fixture(scope="session")
def wheel(dist) -> Path:
    """The wheel, as a release would have it: built from the sdist."""
    (path,) = dist.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def installed(wheel, tmp_path_factory) -> Path:
    """A folder that holds the installed wheel and nothing else."""
    target = tmp_path_factory.mktemp("site")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-deps", "--no-index")
    call(*pip, "--target", target, wheel, cwd=target)
    return target


def contents(path: Path) -> dict[str, bytes]:
    """Name → content of every file in a wheel."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def few_steps() -> list[str]:
    """Options for a run that takes a second."""
    values = ("budget.steps=2", "budget.eval_every=2", "data.valid_examples=64", "data.test_examples=64")
    return ["--protocol", "quick", *(word for value in values for word in ("--set", value))]


def finished(folder: Path) -> list[str]:
    """Variants with a finished run in a folder."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("runs/run/*/*/*/*.json"))]
    assert {record["status"] for record in records} <= {"ok", "stuck-at-chance"}
    return sorted(record["variant"] for record in records)


def test_the_wheel_holds_what_runs_and_nothing_else(wheel):
    names = set(contents(wheel))
    for source in (path for path in project_files() if path.name not in SHIPPED):
        inside = source.parts[0] in {"zeta_bench", "tasks", "baselines"} and not (ROOT / source).is_symlink()
        target = source if source.parts[0] == "zeta_bench" else Path("zeta_bench") / source
        assert (target.as_posix() in names) == inside, f"{source} {'is missing' if inside else 'does not belong there'}"
    some = {"tasks/mqar/protocols/quick.toml", "tasks/mqar/protocols/paper.toml", "baselines/vanilla.py", "py.typed"}
    assert {f"zeta_bench/{name}" for name in some} <= names
    assert {name.partition("/")[0] for name in names} == {
        "zeta_bench",
        f"zeta_bench-{zeta_bench.__version__}.dist-info",
    }


@pytest.mark.parametrize("name", SHIPPED)
def test_published_numbers_and_claims_travel_in_the_wheel(wheel, name):
    source = ROOT / "results" / name
    if not source.exists():
        pytest.skip(f"results/{name} does not exist yet")
    held = [content for path, content in contents(wheel).items() if path.endswith(f"/{name}")]
    assert held == [source.read_bytes()]


def test_the_wheels_metadata(wheel):
    held = contents(wheel)
    info = f"zeta_bench-{zeta_bench.__version__}.dist-info"
    assert held[f"{info}/licenses/LICENSE"] == (ROOT / "LICENSE").read_bytes()
    entries = configparser.ConfigParser()
    entries.read_string(held[f"{info}/entry_points.txt"].decode())
    assert dict(entries[GROUP]) == BUILTIN
    assert dict(entries["console_scripts"]) == {"zeta-bench": "zeta_bench.__main__:main"}
    metadata = held[f"{info}/METADATA"].decode()
    assert "Requires-Python: >=3.11" in metadata
    needs = [line for line in metadata.splitlines() if line.startswith("Requires-Dist:") and "extra ==" not in line]
    assert not [line for line in needs if re.search(r"\b(triton|transformers|flash|ray)\b", line)]


def test_a_wheel_from_the_sdist_is_the_wheel_from_the_tree(dist, wheel):
    (direct,) = (dist / "tree").glob("*.whl")
    assert contents(direct) == contents(wheel)


def test_the_sdist_holds_the_project_without_results(dist):
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "LICENSE", "README.md", "Makefile", "constraints.txt", "tasks/mqar/task.py"} <= names
    assert {"tests/test_packaging.py", "examples/my_attention.py"} <= names
    assert not [name for name in names if name.startswith(("results/records", "runs", "zeta_bench/tasks"))]


def test_the_installed_wheel_runs_in_an_empty_folder(installed, tmp_path):
    (installed / "sitecustomize.py").write_text(GUARD, encoding="utf-8")
    env = environment(PYTHONPATH=str(installed), OMP_NUM_THREADS="1")
    where = "import zeta_bench.tasks, zeta_bench.baselines as b; print(zeta_bench.__file__, b.__file__, sep='\\n')"
    for line in call(sys.executable, "-c", where, cwd=tmp_path, env=env).splitlines():
        assert Path(line).is_relative_to(installed)
    top = "import importlib.util as u; print(u.find_spec('tasks'), u.find_spec('baselines'))"
    assert call(sys.executable, "-c", top, cwd=tmp_path, env=env).split() == ["None", "None"]

    command = (sys.executable, "-m", "zeta_bench")
    listed = json.loads(call(*command, "ls", "--json", cwd=tmp_path, env=env))
    assert {"zeta-token", "vanilla"} <= {row["name"] for row in listed["variants"]}
    assert "mqar" in json.dumps(listed["tasks"])
    assert "quick" in json.dumps(listed["protocols"])
    call(*command, "run", "mqar", "--attn", "vanilla", *few_steps(), cwd=tmp_path, env=env)
    assert finished(tmp_path) == ["vanilla"]


@pytest.mark.slow
def test_a_new_environment_installs_it_and_learns_quick_mqar(wheel, tmp_path):
    """Needs the package index or a warm cache: torch and everything else is installed anew."""
    place, work = tmp_path / "environment", tmp_path / "empty"
    venv.create(place, with_pip=True)
    work.mkdir()
    pip = (place / "bin/python", "-m", "pip", "--disable-pip-version-check", "install", "-q")
    call(*pip, "-c", ROOT / "constraints.txt", wheel, cwd=work, env=environment())
    command = place / "bin/zeta-bench"
    assert "zeta-token" in call(command, "ls", cwd=work, env=environment())
    attn = ("--attn", "vanilla", "--attn", "zeta-token:k=8")
    call(command, "run", "mqar", "--protocol", "quick", *attn, cwd=work, env=environment())
    assert finished(work) == ["vanilla", "zeta-token"]
    for path in work.glob("runs/run/*/*/*/*.json"):
        assert json.loads(path.read_text(encoding="utf-8"))["metrics"]["test"]["accuracy"] > 0.9
    assert "ready" in call(command, "doctor", cwd=work, env=environment())


def test_the_version_is_the_same_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    cited = re.search(r"^version: ['\"]?([\w.]+)", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    logged = re.search(r"^## \[([\d.]+)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert cited
    assert logged
    assert {project["version"], cited[1], logged[1]} == {zeta_bench.__version__}
    assert project["license"] == "Apache-2.0"
