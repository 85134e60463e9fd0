"""How many runs the sweeps of ``results/sweeps`` have, and how many of those have no record yet."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from zeta_bench.claims import find_claims
from zeta_bench.errors import UsageError
from zeta_bench.registry import unknown
from zeta_bench.report.fill.known import Known
from zeta_bench.report.sources import Source
from zeta_bench.sweep.file import read_sweep, requests
from zeta_bench.sweep.grid import plan_grid

ALL = "all"


@dataclass(frozen=True)
class Counted:
    """Runs of some sweeps, each once.

    Attributes:
        runs: how many there are.
        left: how many have no finished record.
        sources: the records of the others.
        command: what runs the rest.
    """

    runs: int
    left: int
    sources: tuple[Source, ...]
    command: str


def count_runs(names: str, protocol: str, known: Known) -> Counted:
    """Count the runs of sweeps.

    Args:
        names: of files in ``results/sweeps``, separated by |, or "all".
        protocol: stands for those of the files; "" = theirs.
        known: the records.

    Raises:
        UsageError: there is no such sweep, or no such protocol.
    """
    files = _files(names)
    done = [(label, record) for label, record in known.records if record.kind == "run" and record.finished]
    devices = sorted({record.device_class for _, record in done}) or ["cpu"]
    planned = [_ids(files, protocol, device) for device in devices]
    wanted = {run_id for ids in planned for run_id in ids}
    found = {record.run_id for _, record in done if record.run_id in wanted}
    have = sum(any(ids[number] in found for ids in planned) for number in range(len(planned[0])))
    sources = known.sources("run", sorted(found))
    option = f" --protocol {protocol}" if protocol else ""
    commands = " && ".join(f"zeta-bench sweep results/sweeps/{path.name}{option}" for path in files)
    return Counted(len(planned[0]), len(planned[0]) - have, sources, known.command(commands))


def _files(names: str) -> list[Path]:
    folder = find_claims().parent / "sweeps"
    have = {path.stem: path for path in sorted(folder.glob("*.toml"))}
    if names == ALL and have:
        return list(have.values())
    for name in names.split("|"):
        if name not in have:
            told = unknown("sweep", name, have).partition("'zeta-bench")[0].strip()
            raise UsageError(f"{told} {folder} has {', '.join(have) or 'none'}.")
    return [have[name] for name in names.split("|")]


def _ids(files: Iterable[Path], protocol: str, device: str) -> list[str]:
    """The ids of all runs on a class of device, each once, in the same order for every device."""
    ids: dict[str, None] = {}
    for path in files:
        asked = list(requests(path, read_sweep(path), protocol=protocol or None))
        ids |= dict.fromkeys(item.job.run_id for item in plan_grid(asked, device, accelerated=True).items)
    return list(ids)
