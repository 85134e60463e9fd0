"""From a point (contender, length) to its record of kind bench, whatever comes of it."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import torch

from zeta_bench import provenance
from zeta_bench.console import ctrl_c
from zeta_bench.efficiency.contenders import Contender, Zeta
from zeta_bench.efficiency.memory import RULE, peak_bytes
from zeta_bench.efficiency.step import Work
from zeta_bench.efficiency.timing import Agreement, Clock
from zeta_bench.efficiency.workload import MODES, Workload, length_text
from zeta_bench.errors import ZetaBenchError
from zeta_bench.records import Record, Status, make_run_id
from zeta_bench.registry import label
from zeta_bench.userfile import describe

WORST: tuple[Status, ...] = ("ok", "unsupported", "oom", "failed")
"""Statuses of modes, from the best: a record has the worst of its own."""


@dataclass
class Found:
    """What came of one mode of one point."""

    status: Status = "ok"
    reason: str = ""
    metrics: dict[str, float | None] = field(default_factory=dict)
    compile_seconds: float = 0.0
    told: dict[str, Any] = field(default_factory=dict)


@dataclass
class Bench:
    """What the points of one command share.

    Attributes:
        task: "speed" or "memory".
        workload: what fixes the meaning of every figure.
        modes: a selection of `MODES`, in their order.
        clock: takes times, and knows the device and whether there are graphs.
        breakdown: also time ZETA's stages.
        agreement: the A/A check of this session, once it was made.
        debug: let errors through with their traceback.
    """

    task: str
    workload: Workload
    modes: tuple[str, ...]
    clock: Clock
    breakdown: bool = False
    agreement: tuple[str, Agreement] | None = None
    debug: bool = False
    full: dict[tuple[str, str], int] = field(default_factory=dict)
    """By contender and mode, the smallest length that ran out of memory."""

    @property
    def device(self) -> torch.device:
        """Where everything runs."""
        return self.clock.device

    @property
    def accelerated(self) -> bool:
        """Whether that is a GPU."""
        return self.device.type == "cuda"

    @property
    def graph(self) -> bool:
        """Whether replays of CUDA graphs are timed."""
        return self.clock.graph and self.task == "speed"

    def point(self, length: int) -> dict[str, Any]:
        """A record's point."""
        return {"length": length, "graph": self.graph}

    def run_id(self, contender: Contender, length: int) -> str:
        """Hash of what identifies a measurement; the modes are not in it, so one record holds them all."""
        return make_run_id(
            kind="bench",
            task=self.task,
            protocol=self.workload.id,
            point=self.point(length),
            variant=contender.name,
            settings=contender.settings,
            config=contender.config,
            variant_version=contender.version,
            device=provenance.device_class(self.accelerated),
        )

    def wants(self, contender: Contender, length: int, old: Record) -> bool:
        """Whether a record lacks something that is asked for."""
        if not old.finished:
            return True
        parts = self.breakdown and isinstance(contender, Zeta) and old.status == "ok" and "breakdown" not in old.payload
        return parts or not set(self.modes) <= set(old.payload["modes"])

    def measure(self, contender: Contender, length: int, old: Record | None = None) -> Record:
        """Every mode of one point; one that cannot be had is told in the record.

        Args:
            contender: what is measured.
            length: tokens.
            old: a record to replace; what it has is measured again, so that all is of one session.
        """
        started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
        asked = {*self.modes, *(old.payload["modes"] if old else ())}
        found = {mode: self._mode(contender, length, mode) for mode in MODES if mode in asked}
        payload = {"modes": {mode: _told(each) for mode, each in found.items()}, **self._session()}
        apart = self.breakdown or (old is not None and "breakdown" in old.payload)
        if apart and isinstance(contender, Zeta) and any(each.status == "ok" for each in found.values()):
            payload |= self._stages(contender, length)
        return self._record(contender, length, found, payload, started, time.perf_counter() - clock)

    def remember(self, record: Record) -> None:
        """Note where a contender ran out of memory: longer inputs need not be tried."""
        for mode, told in record.payload["modes"].items():
            if told["status"] == "oom":
                key = (label(record.variant, record.settings), mode)
                self.full[key] = min(record.point["length"], self.full.get(key, record.point["length"]))

    def check(self, contender: Contender, length: int) -> bool:
        """Make the A/A check with a contender; False if it cannot be timed there."""
        mode = "both" if "both" in self.modes else self.modes[0]
        if contender.why_not(self.device, mode):
            return False

        def compare() -> Agreement:
            return self.clock.compare(contender.make(length, self.device).work(mode))

        agreement = self._guarded(contender, compare)
        if isinstance(agreement, Found):
            return False
        name = label(contender.name, contender.settings)
        self.agreement = (f"{name} at {length_text(length)}, {mode}", agreement)
        return True

    def _mode(self, contender: Contender, length: int, mode: str) -> Found:
        smallest = self.full.get((label(contender.name, contender.settings), mode))
        if smallest is not None and length > smallest:
            return Found("oom", f"not tried: larger than a length that ran out of memory ({length_text(smallest)})")
        if reason := contender.why_not(self.device, mode):
            return Found("unsupported", reason)
        measure = self._time if self.task == "speed" else self._weigh
        found: Found = self._guarded(contender, lambda: measure(contender, length, mode))
        if found.status == "oom":
            self.full[label(contender.name, contender.settings), mode] = length
        return found

    def _guarded(self, contender: Contender, measure: Callable[[], Any]) -> Any:
        """What `measure` returns, or what its failure means: a contender may raise anything."""
        session: AbstractContextManager[Any] = self.clock.session() if self.task == "speed" else nullcontext()
        try:
            with session, contender.context():
                return measure()
        except Exception as error:
            if ctrl_c.pressed:  # raised inside an import or a compiler it may come out as anything
                raise KeyboardInterrupt from error
            if out_of_memory(error):
                return Found("oom", f"out of memory on the {'GPU' if self.accelerated else 'CPU'}")
            if contender.refused(error):
                return Found("unsupported", _sentence(error))
            if self.debug:
                raise
            return Found("failed", describe(error, contender.source))

    def _time(self, contender: Contender, length: int, mode: str) -> Found:
        timing = self.clock.time(contender.make(length, self.device).work(mode))
        told = {"repeats": len(timing.samples), "graph": timing.graph, "note": timing.note}
        return Found(metrics=timing.figures, compile_seconds=timing.compile_seconds, told=told)

    def _weigh(self, contender: Contender, length: int, mode: str) -> Found:
        peak = peak_bytes(lambda: contender.make(length, self.device), mode, self.device)
        return Found(metrics={"peak_bytes": float(peak)})

    def _stages(self, contender: Zeta, length: int) -> dict[str, Any]:
        """For the payload: each stage's figures by its name, or why there are none."""

        def measure() -> dict[str, Any]:
            found = {}
            for name, run in contender.stages(length, self.device):
                timing = self.clock.time(Work(run))
                found[name] = {**timing.figures, "repeats": len(timing.samples), "graph": timing.graph}
            return found

        found = self._guarded(contender, measure)
        return {"no_breakdown": found.reason} if isinstance(found, Found) else {"breakdown": found}

    def _session(self) -> dict[str, Any]:
        """What a record says about how it was measured."""
        shared = {"workload": self.workload.content}
        if self.task == "memory":
            return {**shared, "rule": RULE[self.device.type]}
        aa = {} if self.agreement is None else {"of": self.agreement[0], **self.agreement[1].content()}
        return {**shared, "agreement": aa, "caches": self.clock.caches, "threads": torch.get_num_threads()}

    def _record(
        self,
        contender: Contender,
        length: int,
        found: dict[str, Found],
        payload: dict[str, Any],
        started: str,
        seconds: float,
    ) -> Record:
        status = max((each.status for each in found.values()), key=WORST.index)
        peaks = [each.metrics.get("peak_bytes") or 0.0 for each in found.values()]
        return Record(
            run_id=self.run_id(contender, length),
            kind="bench",
            status=status,
            reason=_reasons(found),
            task=self.task,
            protocol=self.workload.id,
            point=self.point(length),
            variant=contender.name,
            variant_version=contender.version,
            settings=contender.settings,
            config=contender.config,
            higher_is_better=False,
            metrics={mode: each.metrics for mode, each in found.items() if each.metrics},
            seconds=round(seconds, 3),
            compile_seconds=round(sum(each.compile_seconds for each in found.values()), 3),
            peak_memory_bytes=int(max(peaks)),
            impl=self._impl(contender),
            direction=self.workload.direction,
            precision=self.workload.dtype,
            code_digest=contender.code_digest,
            command=self.command(contender, length, tuple(found)),
            started_at=started,
            payload=payload,
            **provenance.fields(self.accelerated),
        )

    def command(self, contender: Contender, length: int, modes: tuple[str, ...]) -> str:
        """The command that repeats one point."""
        words = ["zeta-bench", "bench", self.task, *contender.words, "--length", length_text(length)]
        for mode in modes:
            words += ["--mode", mode]
        if self.task == "speed" and self.accelerated:
            words.append("--graph" if self.graph else "--no-graph")
        words += ["--breakdown"] if self.breakdown and isinstance(contender, Zeta) else []
        return shlex.join([*words, *self.workload.words()])

    def _impl(self, contender: Contender) -> str:
        try:
            return contender.impl(self.device)
        except (ValueError, ZetaBenchError):  # it was refused, and the record's reason says why
            return ""


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory ran out; outside of torch's GPU allocator that is a plain RuntimeError."""
    signs = ("DefaultCPUAllocator", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(sign in str(error) for sign in signs)


def _told(found: Found) -> dict[str, Any]:
    return {"status": found.status, "reason": found.reason, **found.told}


def _reasons(found: dict[str, Found]) -> str:
    """``forward, backward: out of memory on the GPU``: each reason once, with its modes unless all share it."""
    by_reason: dict[str, list[str]] = {}
    for mode, each in found.items():
        if each.reason:
            by_reason.setdefault(each.reason, []).append(mode)
    return "; ".join(
        reason if len(modes) == len(found) else f"{', '.join(modes)}: {reason}" for reason, modes in by_reason.items()
    )


def _sentence(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300] or type(error).__name__
