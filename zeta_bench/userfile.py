"""A variant in a user's own file: ``./mine.py:Mine``, ``./mine.py:Mine:width=8``. No packaging, no registration."""

from __future__ import annotations

import difflib
import importlib.util
import re
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from zeta_bench.errors import UsageError
from zeta_bench.registry import Choice, Variant, parse_settings

if TYPE_CHECKING:
    from zeta_bench.attention import Attention

PATTERN = re.compile(r"(?P<path>.+?\.py)(?:$|:(?P<name>[^:]*):?(?P<settings>.*))")
"""A ``.py`` that ends the text or stands before a colon marks a file."""


def variant_in_file(text: str) -> Choice:
    """Read ``./mine.py:Mine:width=8``. Raises UsageError: no such file, class or syntax, in one sentence."""
    found = PATTERN.fullmatch(text)
    assert found is not None
    path, name = Path(found["path"]).expanduser(), found["name"]
    if not path.is_file():
        raise UsageError(f"there is no file {path} (asked for by --attn {text}); check the path.")
    settings = parse_settings(found["settings"] or "", text)
    cls = _class_in(import_file(path), path, name or "")
    summary = (cls.__doc__ or "").strip().partition("\n")[0]
    variant = Variant(f"{_module_name(path)}:{name}", summary, cls.causal_ok, cls.bidirectional_ok)
    return Choice(f"{path.stem}.{name}", variant, settings, path)


def import_file(path: Path) -> ModuleType:
    """The file as a module, imported once a process; modules beside it can be imported by it."""
    name = _module_name(path)
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if (folder := str(path.resolve().parent)) not in sys.path:
        sys.path.append(folder)
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, KeyboardInterrupt):
            raise
        raise UsageError(f"{path} does not import: {describe(error, path)}; mend it and run again.") from error
    return module


def describe(error: BaseException, path: Path | None = None) -> str:
    """An exception in one line: its type, the first line of its text, and where in the user's file it arose."""
    text = str(error).strip().partition("\n")[0][:300].rstrip(".")
    if isinstance(error, NotImplementedError) and not text:
        text = "a method that the class must write is not there (forward, or attend of a QKVAttention)"
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if path is not None and Path(frame.filename).resolve() == path.resolve()
    ]
    where = f" ({path.name}, line {lines[-1]})" if path is not None and lines else ""
    return ": ".join(filter(None, (type(error).__name__, text))) + where


def _class_in(module: ModuleType, path: Path, name: str) -> type[Attention]:
    """The class of that name, if it is an Attention."""
    from zeta_bench.attention import Attention  # torch; only once a user's file is really there

    found: Any = getattr(module, name, None) if name else None
    if isinstance(found, type) and issubclass(found, Attention):
        return found
    have = [
        key
        for key, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Attention) and value.__module__ == module.__name__
    ]
    contract = "a variant subclasses zeta_bench.attention.Attention or QKVAttention"
    if not name:
        raise UsageError(f"{path} needs the name of a class: write {path}:{have[0] if have else 'ClassName'}.")
    if found is not None:
        raise UsageError(f"{name} in {path} is not an Attention; {contract}.")
    lower = {key.lower(): key for key in have}
    close = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.4)
    raise UsageError(f"{path} has no class {name}; {f'did you mean {lower[close[0]]}?' if close else contract + '.'}")


def _module_name(path: Path) -> str:
    return "zeta_bench_user_" + re.sub(r"\W", "_", str(path.resolve()))
