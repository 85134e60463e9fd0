"""Who may import whom, what is needed to import it, and whether the catalogue says what the classes say."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from zeta_bench.attention import Attention, build_config
from zeta_bench.errors import UsageError
from zeta_bench.registry import BUILTIN, GROUP, Choice, Variant, catalogue
from zeta_bench.task import BenchTask

ROOT = Path(__file__).parents[1]
HARNESS = [path for path in sorted((ROOT / "zeta_bench").rglob("*.py")) if path.resolve() == path.absolute()]
FOLDERS = {name: sorted((ROOT / name).rglob("*.py")) for name in ("tasks", "baselines")}
OPS = sorted((ROOT / "zeta_bench/ops").glob("*.py"))
SUITES = ("zeta_bench.tasks", "zeta_bench.baselines")
HEAVY = ["pydantic", "pandas", "pytorch_lightning", "torchmetrics", "typer", "rich", "matplotlib", "seaborn", "scipy"]

BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"{{name}} is blocked", name=name)
sys.meta_path.insert(0, Block())
"""


def short(path: Path) -> str:
    """A path as in messages and test ids."""
    return str(path.relative_to(ROOT))


def module_name(path: Path) -> str:
    """The module that a file of the project is: a file in tasks/ is one in zeta_bench.tasks."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(
        part for part in (parts if parts[0] == "zeta_bench" else ("zeta_bench", *parts)) if part != "__init__"
    )


def imports(path: Path) -> Iterator[str]:
    """Every module that a file names in an import, in full; ``from a import b`` counts as a.b, maybe a module."""
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package.pop()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = [*base, *((node.module or "").split(".") if node.module else [])]
            yield from (".".join([*base, alias.name]) for alias in node.names)


def strings(path: Path) -> Iterator[str]:
    """Every string in a file that could name a module for a later import, such as "zeta_bench.tasks.mqar:MQAR"."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and re.fullmatch(r"[\w.]+(:\w+)?", node.value)
        ):
            yield node.value


def inside(name: str, *packages: str) -> bool:
    """Whether a module is one of the packages or in one."""
    return any(re.match(rf"{re.escape(package)}(\W|$)", name) for package in packages)


def python(code: str, *, blocked: list[str]) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter in which some packages cannot be imported."""
    command = [sys.executable, "-c", BLOCK.format(blocked=set(blocked)) + code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_walk_sees_what_is_there():
    assert {"zeta_bench/cli.py", "zeta_bench/registry.py", "zeta_bench/ops/search.py"} <= set(map(short, HARNESS))
    assert not [path for path in map(short, HARNESS) if inside(path.replace("/", "."), *SUITES)]
    assert "zeta_bench.registry.Variant" in set(imports(ROOT / "baselines/__init__.py"))
    assert "zeta_bench.ops.search.zorder_search" in set(imports(ROOT / "zeta_bench/ops/__init__.py"))


@pytest.mark.parametrize("path", HARNESS, ids=short)
def test_the_harness_knows_no_task_and_no_baseline_by_name(path):
    named = [name for name in (*imports(path), *strings(path)) if inside(name, *SUITES)]
    allowed = sorted(set(BUILTIN.values()) & set(SUITES)) if path.name == "registry.py" else []
    assert sorted(named) == allowed, f"{short(path)} reaches past the registry"


@pytest.mark.parametrize(("folder", "other"), [("tasks", "baselines"), ("baselines", "tasks")])
def test_tasks_and_baselines_do_not_know_each_other(folder, other):
    assert FOLDERS[folder]
    for path in FOLDERS[folder]:
        for name in (*imports(path), *strings(path)):
            assert not inside(name, f"zeta_bench.{other}", other), f"{short(path)} imports {name}"
            assert not inside(name, folder), f"{short(path)}: {folder} is imported as zeta_bench.{folder}"


@pytest.mark.parametrize("path", OPS, ids=short)
def test_ops_imports_torch_and_itself_only(path):
    allowed = {"torch", *sys.stdlib_module_names, *(["triton"] if path.name.endswith("_triton.py") else [])}
    for name in imports(path):
        assert inside(name, "zeta_bench.ops") or name.partition(".")[0] in allowed, f"{short(path)} imports {name}"


def test_ops_works_with_torch_alone():
    done = python(
        "import torch\n"
        "from zeta_bench.ops import *\n"
        "import zeta_bench.ops\n"
        "q = torch.rand(1, 1, 5, 2) * 2 - 1\n"
        "codes = morton_encode(q)\n"
        "index = zorder_search(codes, codes, k=2)\n"
        "assert exact_search(q, q, topk=2).shape == index.shape == (1, 1, 5, 2)\n"
        "assert topk_attention(q, q, q, index, torch.ones(1)).shape == q.shape\n"
        "assert zeta_attention(q, q, q, torch.ones(1), topk=2).shape == q.shape\n"
        "set_debug(False)\n"
        "assert len(zeta_bench.ops.__all__) == 6\n",
        blocked=[*HEAVY, "tabulate", "triton"],
    )
    assert done.returncode == 0, done.stderr


def test_everything_but_the_kernels_works_without_triton():
    done = python(
        "import importlib, pkgutil, zeta_bench\n"
        "for found in pkgutil.walk_packages(zeta_bench.__path__, 'zeta_bench.'):\n"
        "    if not found.name.endswith('_triton'):\n"
        "        importlib.import_module(found.name)\n"
        "        print(found.name)\n"
        "sys.argv[1:] = ['ls']\n"
        "from zeta_bench.cli import main\n"
        "main()\n",
        blocked=["triton"],
    )
    assert done.returncode == 0, done.stderr
    for name in (
        "zeta_bench.zeta",
        "zeta_bench.tasks.mqar.task",
        "zeta_bench.baselines.vanilla",
        "zeta-token",
        "quick",
    ):
        assert name in done.stdout


@pytest.mark.parametrize(("name", "variant"), catalogue().variants.items(), ids=list(catalogue().variants))
def test_a_variant_is_what_the_catalogue_says(name: str, variant: Variant):
    try:
        cls = variant.load()
    except UsageError as error:  # raised only where an extra is named and absent; any other ImportError fails here
        pytest.skip(str(error))
    assert issubclass(cls, Attention)
    assert (variant.causal, variant.bidirectional) == (cls.causal_ok, cls.bidirectional_ok)
    config = build_config(Choice(name, variant)).model_dump()
    assert {key: config[key] for key in variant.overrides} == dict(variant.overrides)


@pytest.mark.parametrize(("name", "task"), catalogue().tasks.items(), ids=list(catalogue().tasks))
def test_a_task_is_what_the_catalogue_says(name, task):
    assert issubclass(task.load(), BenchTask)
    assert list(task.protocol_folder().glob("*.toml")), f"{name} has no protocol"


def test_the_entry_points_are_the_builtin_ones():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"][GROUP] == BUILTIN


def test_no_file_names_a_path_of_the_machine_it_was_written_on():
    listing = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
    done = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    forbidden = re.compile(r"(?<![\w.])/(work|root|home/\w+)/")
    found = []
    for path in (ROOT / name for name in done.stdout.split("\0") if name):
        if path.is_symlink() or not path.is_file():
            continue
        lines = path.read_text(encoding="utf-8", errors="ignore").splitlines()
        found += [f"{short(path)}:{number}" for number, line in enumerate(lines, 1) if forbidden.search(line)]
    assert not found
