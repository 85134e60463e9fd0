"""What works on this machine: one line a thing, without names of hosts or folders, ready to paste into an issue."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path

from zeta_bench import __version__
from zeta_bench.errors import ZetaBenchError
from zeta_bench.records import PUBLISHED_STORE, USER_STORE, Store
from zeta_bench.registry import Task, catalogue

EXTRAS = {"hf": "transformers", "fla": "fla", "ray": "ray"}


def findings() -> Iterator[tuple[str, str]]:
    """Name and finding of each thing looked at."""
    yield "zeta-bench", __version__
    yield "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    yield "torch", _torch()
    yield "triton", _version("triton", "absent: the kernels cannot run, the reference can")
    yield "GPU", _gpu()
    yield "kernels", _kernels()
    for extra, module in EXTRAS.items():
        have = importlib.util.find_spec(module) is not None
        yield f"extra [{extra}]", "installed" if have else f"not installed (pip install 'zeta-bench[{extra}]')"
    found = catalogue()
    yield "variants", f"{len(found.variants)} registered"
    for problem in found.problems:
        yield "plug-in", problem
    for name, entry in found.tasks.items():
        yield f"task {name}", _task(name, entry)
    for store in (USER_STORE, PUBLISHED_STORE):
        yield f"records {store}", _records(store)
    yield "disk", f"{shutil.disk_usage(Path.cwd()).free / 2**30:.1f} GiB free in the current folder"


def _version(name: str, absent: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return absent


def _torch() -> str:
    import torch

    return f"{torch.__version__}, CUDA {torch.version.cuda or 'absent'}, {torch.get_num_threads()} threads"


def _gpu() -> str:
    import torch

    if not torch.cuda.is_available():
        return "none found: runs take the CPU and the protocol 'quick'"
    names = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return ", ".join(f"{p.name} ({p.total_memory / 2**30:.0f} GiB)" for p in names)


def _kernels() -> str:
    """Which implementation impl="auto" takes, found by running it on a few tokens."""
    import torch

    from zeta_bench.ops import zeta_attention
    from zeta_bench.ops._impl import resolve

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    impl = resolve("auto", device)
    q, v = torch.zeros(1, 1, 4, 3, device=device), torch.ones(1, 1, 4, 16, device=device)
    try:
        right = bool(((zeta_attention(q, q, v, torch.ones(1, device=device)) - 1).abs() < 1e-5).all())
    except Exception as error:  # a driver or a compiler that does not fit raises anything
        return f"{impl}, which does not run: {type(error).__name__}: {error}".partition("\n")[0]
    return f"impl='auto' takes {impl} here" if right else f"{impl}, which gives wrong numbers here"


def _task(name: str, entry: Task) -> str:
    from zeta_bench.plan import load as load_class
    from zeta_bench.protocol import load, protocol_files

    try:
        files = protocol_files(entry)
        cls = load_class(name, entry)
        for path in files.values():
            protocol = load(path)
            cls.from_settings(protocol.data, f"protocol '{protocol.name}'").check()
    except ZetaBenchError as error:
        return str(error)
    except Exception as error:  # a stranger's task may raise anything
        return f"does not work: {type(error).__name__}: {error}".partition("\n")[0]
    return f"ready, protocols {', '.join(files)}" if files else "has no protocols"


def _records(root: Path) -> str:
    store = Store(root)
    count = sum(1 for _ in store.records())
    return f"{count} readable" + (f", {len(store.refused)} refused: {store.refused[0]}" if store.refused else "")
