"""The points of one command, one after the other, told on the terminal as they go."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

from zeta_bench.console import STDOUT, ctrl_c, err, out
from zeta_bench.efficiency.bench import Bench
from zeta_bench.efficiency.contenders import Contender
from zeta_bench.efficiency.workload import length_text
from zeta_bench.errors import ZetaBenchError
from zeta_bench.records import Record, Store
from zeta_bench.registry import label


@dataclass
class Done:
    """What a command has measured.

    Attributes:
        records: those of this command's points, old and new.
        written: how many of them are new.
        left: points that were not reached.
        why: what ended the series early: "" · "deadline" · "stopped".
    """

    records: list[Record] = field(default_factory=list)
    written: int = 0
    left: int = 0
    why: str = ""


def run_bench(
    bench: Bench,
    contenders: Sequence[Contender],
    lengths: Sequence[int],
    store: Store,
    *,
    force: bool,
    deadline: float | None,
) -> Done:
    """Measure what has no record yet, length by length, so that what is done at any moment can be compared.

    Args:
        bench: how.
        contenders: what, in the order of the rows.
        lengths: ascending.
        store: where records go, each as soon as it is there.
        force: measure again what has a record.
        deadline: seconds after which no new point is begun; None = no limit.

    Returns:
        What was done; after a Ctrl-C too.

    Raises:
        ZetaBenchError: the GPU answers no more.
    """
    started, done = time.monotonic(), Done()
    told: set[str] = set()
    points = [(contender, length) for length in lengths for contender in contenders]
    try:
        for number, (contender, length) in enumerate(points, 1):
            done.left = len(points) - number + 1
            if deadline is not None and time.monotonic() - started > deadline:
                done.why = "deadline"
                return done
            if ctrl_c.pressed:
                raise KeyboardInterrupt
            name = f"[{number}/{len(points)}] {label(contender.name, contender.settings)} {length_text(length)}"
            old = store.find(bench.run_id(contender, length), "bench")
            if old is not None and not force and not bench.wants(contender, length, old):
                out(f"{name}: has a record ({old.status}); --force measures it again.")
                bench.remember(old)
                done.records.append(old)
                continue
            if bench.task == "speed" and bench.agreement is None:
                _check_machine(bench, contenders, lengths)
            with STDOUT.status(name) if STDOUT.is_terminal else nullcontext():
                record = bench.measure(contender, length, old)
            store.write(record)
            done.records.append(record)
            done.written += 1
            _tell(name, record, told)
            _require_device(bench, record)
    except KeyboardInterrupt:
        done.why = "stopped"
        return done
    done.left = 0
    return done


def closing(done: Done, store: Store) -> str:
    """One sentence about a series that ended early; "" about one that did not."""
    if not done.why:
        return ""
    cause = "the deadline has come" if done.why == "deadline" else "stopped"
    kept = f"{done.written} new record{'' if done.written == 1 else 's'} kept in {store.root}"
    return f"{cause}: {kept}, {done.left} of the points not measured; the same command goes on with them."


def _check_machine(bench: Bench, contenders: Sequence[Contender], lengths: Sequence[int]) -> None:
    """Time one thing twice, at the middle length: a rival if there is one, since it needs no tuning."""
    length = sorted(lengths)[(len(lengths) - 1) // 2]
    for contender in sorted(contenders, key=lambda each: not each.rival):
        if bench.check(contender, length):
            break
    if bench.agreement is None:
        return
    of, found = bench.agreement
    text = f"{of}: {found.first:.4g} ms and {found.second:.4g} ms, {100 * found.difference:.1f} % apart"
    if found.noisy:
        err(f"this machine is noisy: one thing timed twice, {text}; the records say so.")
    else:
        out(f"A/A check, one thing timed twice: {text}.")


def _tell(name: str, record: Record, told: set[str]) -> None:
    """One line about a point: its figures, and what could not be had; what was `told` before is not repeated."""
    parts = [f"{mode} {figure}" for mode, figure in _figures(record)]
    parts += [f"{stage} {part['ms']:.4g} ms" for stage, part in _stages(record)]
    if record.compile_seconds >= 1:
        parts.append(f"compiled in {record.compile_seconds:.0f} s")
    if record.reason:
        known = f"{record.variant} {record.reason}"
        parts.append(f"{record.status} ({'as above' if known in told else record.reason.rstrip('.')})")
        told.add(known)
    parts += list(dict.fromkeys(each["note"] for each in record.payload["modes"].values() if each.get("note")))
    if why := record.payload.get("no_breakdown"):
        parts.append(f"no stages ({why.rstrip('.')})")
    if record.status == "failed":
        err(f"{name}: {', '.join(parts)}; 'zeta-bench --debug bench …' shows the traceback.")
    else:
        out(f"{name}: {', '.join(parts)}")


def _stages(record: Record) -> list[tuple[str, dict[str, Any]]]:
    """Name and figures of each stage that was timed."""
    return [(f"stage {name}", part) for name, part in record.payload.get("breakdown", {}).items() if "ms" in part]


def _figures(record: Record) -> Iterator[tuple[str, str]]:
    for mode, metrics in record.metrics.items():
        if (ms := metrics.get("ms")) is not None:
            yield mode, f"{ms:.4g} ms"
        elif (peak := metrics.get("peak_bytes")) is not None:
            yield mode, f"{peak / 2**20:.4g} MiB"


def _require_device(bench: Bench, record: Record) -> None:
    """After a failure: does the GPU still answer? A kernel that broke it would make every later contender fail."""
    if record.status != "failed" or not bench.accelerated:
        return
    try:
        torch.zeros(1, device=bench.device).item()
    except RuntimeError:
        raise ZetaBenchError(
            f"the GPU answers no more after {record.variant}; the records so far are kept, and the same command with "
            "--contender for the others goes on."
        ) from None
