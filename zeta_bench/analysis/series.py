"""The points of one command, one after the other: measured, recorded, and told on the terminal."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import UTC, datetime

from zeta_bench import provenance
from zeta_bench.analysis.measures import Row, measure
from zeta_bench.analysis.request import CODES, Analysis, Point
from zeta_bench.console import STDOUT, ctrl_c, out
from zeta_bench.efficiency.series import Done
from zeta_bench.ops import zorder_search
from zeta_bench.records import Record, Store, make_run_id

VARIANT = "zorder"
TOLD = {"locality": "overlap", "distortion": "product"}
"""The figure that a line on the terminal shows."""


def run_analysis(
    settings: Analysis, points: Sequence[Point], d_ks: Sequence[int], store: Store, *, force: bool
) -> Done:
    """Measure what has no record yet.

    Args:
        settings: what fixes the meaning of every figure.
        points: what is measured; a record each.
        d_ks: ascending. A record that lacks one is made anew, with those that it has.
        store: where records go, each as soon as it is there.
        force: measure again what has a record.

    Returns:
        What was done; after a Ctrl-C too.
    """
    done = Done()
    try:
        for number, point in enumerate(points, 1):
            done.left = len(points) - number + 1
            if ctrl_c.pressed:
                raise KeyboardInterrupt
            name = f"[{number}/{len(points)}] {point}"
            old = store.find(run_id(settings, point), "analysis")
            have = {row["d_k"] for row in old.payload["rows"]} if old is not None else set()
            if old is not None and not force and set(d_ks) <= have:
                out(f"{name}: has a record ({old.status}); --force measures it again.")
                done.records.append(old)
                continue
            with STDOUT.status(name) if STDOUT.is_terminal else nullcontext():
                record = make_record(settings, point, sorted(have | set(d_ks)))
            store.write(record)
            done.records.append(record)
            done.written += 1
            out(f"{name}: {_told(record)} in {record.seconds:.1f} s")
    except KeyboardInterrupt:
        done.why = "stopped"
        return done
    done.left = 0
    return done


def run_id(settings: Analysis, point: Point) -> str:
    """Hash of what identifies a measurement; d_K is not in it, so one record holds them all."""
    return make_run_id(
        kind="analysis",
        task=settings.task,
        protocol=settings.id,
        point=point.content,
        variant=VARIANT,
        seed=point.seed,
        device=provenance.device_class(False),
    )


def make_record(settings: Analysis, point: Point, d_ks: Sequence[int]) -> Record:
    """Measure one point; always on the CPU, by the references, which are the specification."""
    started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
    rows = measure(settings, point, d_ks)
    return Record(
        run_id=run_id(settings, point),
        kind="analysis",
        status="ok",
        task=settings.task,
        protocol=settings.id,
        point=point.content,
        variant=VARIANT,
        config=settings.model_dump(mode="json"),
        seed=point.seed,
        chance=settings.k / point.length,
        seconds=round(time.perf_counter() - clock, 3),
        impl="reference",
        direction="bidirectional",
        precision="fp32",
        code_digest=provenance.code_digest(zorder_search),
        command=command(settings, point, d_ks),
        started_at=started,
        payload={"settings": settings.content, "rows": rows},
        **provenance.fields(False),
    )


def command(settings: Analysis, point: Point, d_ks: Sequence[int]) -> str:
    """The command that repeats one point."""
    words = ["zeta-bench", "analyse", settings.task, "--length", str(point.length)]
    words += ["--distribution", point.distribution, "--seed", str(point.seed)]
    for d_k in d_ks:
        words += ["--d-k", str(d_k)]
    return shlex.join([*words, *settings.words()])


def _told(record: Record) -> str:
    """``overlap 0.95 at d_K 1 … 0.16 at d_K 128``, with the library's bits."""
    name = TOLD[record.task]
    rows: list[Row] = [row for row in record.payload["rows"] if row["code"] == CODES[0]]
    ends = rows if len(rows) == 1 else (rows[0], rows[-1])
    return f"{name} " + " … ".join(f"{row[name]:.3f} at d_K {row['d_k']}" for row in ends)
