"""Where a number comes from: versions, commit, device. Nothing here names a machine or a path."""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
import os
import platform
import subprocess
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

import zeta_bench

CODE = ("zeta_bench", "tasks", "baselines", "pyproject.toml")
"""What makes a checkout dirty when it is changed; results and docs do not."""


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Versions of what can move a number."""
    found = {"python": platform.python_version(), "zeta-bench": zeta_bench.__version__, "torch": torch.__version__}
    for name in ("triton", "pytorch-lightning", "numpy"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    found["cuda"] = torch.version.cuda or "absent"
    return found


@lru_cache(maxsize=1)
def commit() -> tuple[str, bool]:
    """Commit of the project's checkout, and whether its code has uncommitted changes; ("", False) for a wheel.

    ZETA_BENCH_COMMIT stands in where there is no .git, as in a copied tree.
    """
    root = Path(zeta_bench.__file__).parent.parent
    if not (root / ".git").exists():
        return os.environ.get("ZETA_BENCH_COMMIT", ""), False
    head = _git(root, "rev-parse", "HEAD")
    return head, bool(_git(root, "status", "--porcelain", "--", *CODE))


def fields(accelerated: bool) -> dict[str, Any]:
    """The fields of a record that say where it was made, and by which code."""
    head, dirty = commit()
    return {
        "device": device_name(accelerated),
        "device_class": device_class(accelerated),
        "versions": versions(),
        "commit": head,
        "dirty": dirty,
    }


def device_class(accelerated: bool) -> str:
    """What tells runs of different devices apart: "cpu", or the accelerator's name."""
    return torch.cuda.get_device_name(0) if accelerated else "cpu"


def device_name(accelerated: bool) -> str:
    """Name of the device as a reader would write it."""
    return device_class(True) if accelerated else (_processor() or platform.machine() or "cpu")


def code_digest(cls: type | Callable[..., Any]) -> str:
    """First 12 hex digits of the SHA-256 of the file that defines a class or function; "" where there is no file."""
    try:
        source = inspect.getsourcefile(cls)
        return hashlib.sha256(Path(source or "").read_bytes()).hexdigest()[:12]
    except (TypeError, OSError):
        return ""


def _processor() -> str:
    """The processor's model, where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=20
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
