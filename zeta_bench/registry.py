"""The catalogue of attention variants and tasks: what there is, by name, without importing any of it.

Every entry comes through the entry-point group ``zeta_bench.plugins``: a module with a dict ``ATTENTION`` and/or
``TASKS``. The suite's own variants and tasks use the same door as a third party's. A variant may also be one file:
``./mine.py:Mine``.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from zeta_bench.errors import UsageError

if TYPE_CHECKING:
    from zeta_bench.attention import Attention
    from zeta_bench.task import BenchTask

GROUP = "zeta_bench.plugins"
BUILTIN = {"zeta": "zeta_bench.presets", "baselines": "zeta_bench.baselines", "tasks": "zeta_bench.tasks"}


@dataclass(frozen=True)
class Variant:
    """One line of a catalogue: where an attention variant is and what it can do.

    Args:
        target: "module:Class" of an `Attention`; imported on first use.
        summary: one line for ``zeta-bench ls``.
        causal: it can serve next-token tasks. Held equal to the class's ``causal_ok`` by a test.
        bidirectional: it can serve tasks without a causal mask. Held equal to ``bidirectional_ok``.
        overrides: settings of its Config that make this name differ from the class's defaults.
        extra: the optional dependency group that it needs, such as "fla".
        defect: one sentence if it is known to fail an audit; printed wherever its numbers are.
        family: what it is drawn as in figures: softmax · zeta · kernel · lsh · local · recurrent · other.
    """

    target: str
    summary: str
    causal: bool = True
    bidirectional: bool = True
    overrides: Mapping[str, Any] = field(default_factory=dict)
    extra: str | None = None
    defect: str | None = None
    family: str = "other"

    def load(self) -> type[Attention]:
        """Import and return the class."""
        return _load_target(self.target, self.extra)


@dataclass(frozen=True)
class Task:
    """One line of a catalogue: where a task is.

    Args:
        target: "module:Class" of a `BenchTask`; imported on first use.
        summary: one line for ``zeta-bench ls``.
        protocols: folder of its protocol files, relative to the module's folder.
    """

    target: str
    summary: str
    protocols: str = "protocols"

    def load(self) -> type[BenchTask]:
        """Import and return the class."""
        return _load_target(self.target, None)

    def protocol_folder(self) -> Path:
        """The folder with this task's ``*.toml`` protocols; finding it imports no torch."""
        module = self.target.partition(":")[0]
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None:
            raise UsageError(f"the task's module {module} is not installed; reinstall the package that offers it.")
        return Path(spec.origin).parent / self.protocols


@dataclass(frozen=True)
class Choice:
    """A variant as a user asked for it: ``zeta:k=16`` is the name "zeta" with the setting k = "16".

    Attributes:
        name: registered name, or "file.Class" for a user's file.
        variant: the catalogue entry.
        settings: settings typed by the user, not yet validated.
        source: the user's file, None for a registered variant.
    """

    name: str
    variant: Variant
    settings: Mapping[str, Any] = field(default_factory=dict)
    source: Path | None = None

    @property
    def label(self) -> str:
        """The name with its settings, as in tables: ``zeta:k=16``."""
        return label(self.name, self.settings)

    def with_settings(self, more: Mapping[str, Any]) -> Choice:
        """The same choice with further settings on top."""
        return Choice(self.name, self.variant, {**self.settings, **more}, self.source)


def label(name: str, settings: Mapping[str, Any]) -> str:
    """``zeta:d_k=2,k=16`` from a name and its settings, in the order of the settings' names."""
    text = ",".join(f"{key}={settings[key]}" for key in sorted(settings))
    return f"{name}:{text}" if text else name


class Catalogue:
    """Variants and tasks of every installed plug-in, each with the module that it came from."""

    def __init__(self) -> None:
        self.variants: dict[str, Variant] = {}
        self.tasks: dict[str, Task] = {}
        self.problems: list[str] = []
        self._origin: dict[tuple[str, str], str] = {}

    def add(self, module: ModuleType) -> None:
        """Take in a plug-in module; a name that is taken already is an error naming both modules."""
        for kind, have in (("ATTENTION", self.variants), ("TASKS", self.tasks)):
            for name, entry in getattr(module, kind, {}).items():
                if name in have:
                    first = self._origin[kind, name]
                    raise UsageError(
                        f"'{name}' is registered twice, by {first} and by {module.__name__}; uninstall one of them."
                    )
                have[name] = entry
                self._origin[kind, name] = module.__name__


@lru_cache(maxsize=1)
def catalogue() -> Catalogue:
    """The catalogue of this installation, read once a process; a third party's broken plug-in is one of `problems`."""
    found = Catalogue()
    for module in BUILTIN.values():
        found.add(importlib.import_module(module))
    for entry in importlib.metadata.entry_points(group=GROUP):
        if entry.value in BUILTIN.values():
            continue
        try:
            module = entry.load()
        except Exception as error:  # whatever a stranger's module raises must not stop the others
            found.problems.append(f"plug-in '{entry.name}' ({entry.value}) does not import: {error}")
            continue
        found.add(module)
    return found


def find_task(name: str) -> Task:
    """The registered task of that name, or an error with the closest names."""
    tasks = catalogue().tasks
    if name not in tasks:
        raise UsageError(unknown("task", name, tasks))
    return tasks[name]


def tasks_of(name: str) -> list[str]:
    """``mqar`` → [mqar]; a family such as ``lra`` → every task ``lra.*``; an error with the closest names otherwise."""
    tasks = catalogue().tasks
    family = [task for task in tasks if task.startswith(f"{name}.")]
    if name not in tasks and not family:
        raise UsageError(unknown("task", name, tasks))
    return [name] if name in tasks else family


def find_variant(text: str) -> Choice:
    """Read what stands behind ``--attn``: ``zeta``, ``zeta:k=16,d_k=2``, ``./mine.py:Mine``, ``./mine.py:Mine:a=8``."""
    if ".py:" in text or text.endswith(".py"):
        return _from_file(text)
    name, _, settings = text.partition(":")
    variants = catalogue().variants
    if name not in variants:
        raise UsageError(unknown("variant", name, variants))
    return Choice(name, variants[name], parse_settings(settings, text))


def parse_settings(text: str, whole: str) -> dict[str, Any]:
    """``k=16,d_k=2`` → {"k": 16, "d_k": 2}. Raises UsageError where an ``=`` is missing."""
    settings: dict[str, Any] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        key, equals, value = part.partition("=")
        if not equals or not key.strip() or not value.strip():
            raise UsageError(
                f"cannot read '{part}' in '{whole}': settings are written key=value, as in zeta:k=16,d_k=2."
            )
        settings[key.strip()] = parse_value(value.strip())
    return settings


def parse_value(text: str) -> Any:
    """A value typed on the command line: int, float, true, false, none, or else the text itself."""
    lower = text.lower()
    if lower in {"true", "false"}:
        return lower == "true"
    if lower in {"none", "null"}:
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def unknown(kind: str, name: str, known: Mapping[str, Any]) -> str:
    """One sentence for a name that is not there, with the closest ones and where to see all."""
    close = difflib.get_close_matches(name.replace("_", "-"), known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    return f"unknown {kind} '{name}': {hint}'zeta-bench ls {kind}s' lists all {len(known)}."


def file_digest(path: Path) -> str:
    """First 12 hex digits of the SHA-256 of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def _from_file(text: str) -> Choice:
    stem, _, rest = text.partition(".py")
    path = Path(stem + ".py").expanduser()
    name, _, settings = rest.lstrip(":").partition(":")
    if not name:
        raise UsageError(f"'{text}' names no class: write {path}:ClassName.")
    if not path.is_file():
        raise UsageError(f"there is no file {path} (asked for by --attn {text}).")
    found = getattr(_import_file(path), name, None)
    from zeta_bench.attention import Attention  # torch; only once a user's file is really there

    if not isinstance(found, type):
        raise UsageError(f"{path} has no class {name}; the class in it must subclass zeta_bench.attention.Attention.")
    if not issubclass(found, Attention):
        raise UsageError(
            f"{name} in {path} is not an Attention; subclass zeta_bench.attention.Attention or QKVAttention."
        )
    summary = (found.__doc__ or "").strip().partition("\n")[0]
    variant = Variant(f"{found.__module__}:{name}", summary, found.causal_ok, found.bidirectional_ok)
    return Choice(f"{path.stem}.{name}", variant, parse_settings(settings, text), path)


def _import_file(path: Path) -> ModuleType:
    name = "zeta_bench_user_" + re.sub(r"\W", "_", str(path.resolve()))
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, KeyboardInterrupt):
            raise
        raise UsageError(f"{path} does not import: {type(error).__name__}: {error}") from error
    return module


def _load_target(target: str, extra: str | None) -> Any:
    module, _, name = target.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError as error:
        if extra is None:
            raise
        raise UsageError(
            f"{target} needs the extra '{extra}' ({error}); install it with: pip install 'zeta-bench[{extra}]'"
        ) from error
