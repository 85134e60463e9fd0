"""How long something takes: warm-up, compilation apart, medians, cold caches, and a check of the machine itself.

On a GPU a repetition is two CUDA events around the work, with the L2 cache overwritten before the first one. With a
graph, the work is captured once into a CUDA graph and its replays are timed, so that what Python and the launches cost
is left out, for every contender alike. On a CPU it is `time.perf_counter`, with caches as the work before left them.
"""

from __future__ import annotations

import contextlib
import gc
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from zeta_bench.efficiency.step import Work

LEAST, MOST = 3, 200
"""Repetitions of a timing, however long one takes and however short."""
WARM_UPS = 3
AGREE = 0.05
"""Two timings of one thing may differ by this share before the machine counts as noisy."""
_L2 = 64 * 2**20
"""Bytes of L2 assumed where torch does not tell."""


@dataclass(frozen=True)
class Timing:
    """Repetitions of one piece of work.

    Attributes:
        samples: milliseconds, in order.
        compile_seconds: how much longer the first call took than a later one: compilation and tuning, as far as the
            caches on this machine's disk did not hold them.
        graph: whether replays of a CUDA graph were timed.
        note: a sentence where it was not done as asked, else "".
    """

    samples: tuple[float, ...]
    compile_seconds: float = 0.0
    graph: bool = False
    note: str = ""

    @property
    def figures(self) -> dict[str, float | None]:
        """Median, 20th and 80th percentile, for a record's metrics."""
        low, median, high = (float(x) for x in np.quantile(self.samples, (0.2, 0.5, 0.8)))
        return {"ms": median, "ms_p20": low, "ms_p80": high}


@dataclass(frozen=True)
class Agreement:
    """The A/A check: one thing timed twice, in turns.

    Attributes:
        first, second: medians, in milliseconds.
        difference: between them, as a share of the smaller one.
        noisy: whether it is more than `AGREE`.
    """

    first: float
    second: float
    difference: float
    noisy: bool

    def content(self) -> dict[str, float]:
        """For a record's payload."""
        return asdict(self)


def agreement(first: Sequence[float], second: Sequence[float]) -> Agreement:
    """Whether two timings of one thing agree, by their medians."""
    a, b = float(np.median(first)), float(np.median(second))
    difference = abs(a - b) / max(min(a, b), 1e-9)
    return Agreement(a, b, difference, difference > AGREE)


@dataclass
class Clock:
    """Times work on a CPU, and says how `CudaClock` differs.

    Attributes:
        budget: seconds of repetitions that a timing aims at.
        repeats: repetitions of every timing; None = as many as the budget allows, `LEAST` to `MOST`.
    """

    budget: float = 0.5
    repeats: int | None = None
    graph = False
    device = torch.device("cpu")
    caches = "caches as they come"

    @contextmanager
    def session(self) -> Iterator[None]:
        """Everything of one contender at one length, its inputs too, is made and timed inside."""
        yield
        gc.collect()

    def time(self, work: Work) -> Timing:
        """Warm up, then time. Whatever the work raises comes through."""
        first = self._seconds(work)
        ready, steady, seconds, note = self._prepared(work)
        samples = self.samples(ready, self._count(seconds))
        return Timing(tuple(samples), max(first - steady, 0.0), ready is not work, note)

    def compare(self, work: Work) -> Agreement:
        """The A/A check of a piece of work: blocks of repetitions go to two timings in turn."""
        self._seconds(work)
        ready, _, seconds, _ = self._prepared(work)
        count = max(self._count(seconds) // 2, LEAST)
        blocks = [self.samples(ready, count) for _ in range(4)]
        return agreement(blocks[0] + blocks[2], blocks[1] + blocks[3])

    def samples(self, work: Work, count: int) -> list[float]:
        """Milliseconds of so many runs."""
        found = []
        for _ in range(count):
            if work.before is not None:
                work.before()
            start = time.perf_counter()
            work.run()
            found.append(1e3 * (time.perf_counter() - start))
        return found

    def synchronise(self) -> None:
        """Wait until the device has done all that it was asked."""

    def _prepared(self, work: Work) -> tuple[Work, float, float, str]:
        """The work, warm, as it is timed; seconds of a run of it before and after; a sentence if it is not as asked."""
        steady = self._warm_up(work)
        return work, steady, steady, ""

    def _seconds(self, work: Work) -> float:
        """Wall time of one run with what comes before it."""
        self.synchronise()
        start = time.perf_counter()
        if work.before is not None:
            work.before()
        work.run()
        self.synchronise()
        return time.perf_counter() - start

    def _warm_up(self, work: Work) -> float:
        """Run a few times, fewer if that is slow; seconds of the quickest."""
        found: list[float] = []
        while not found or (len(found) < WARM_UPS and sum(found) < self.budget):
            found.append(self._seconds(work))
        return min(found)

    def _count(self, seconds: float) -> int:
        return self.repeats or max(LEAST, min(MOST, int(self.budget / max(seconds, 1e-9))))


@dataclass
class CudaClock(Clock):
    """Times work on the current GPU.

    Everything runs on one stream of its own: the autograd engine runs a backward pass on the stream of its forward
    pass, and a capture may only see the stream that it captures.
    """

    graph: bool = True
    caches = "cold L2"

    def __post_init__(self) -> None:
        self.device = torch.device("cuda", torch.cuda.current_device())
        self.stream = torch.cuda.Stream()
        size = getattr(torch.cuda.get_device_properties(self.device), "L2_cache_size", 0) or _L2
        self._broken: list[torch.cuda.CUDAGraph] = []
        self._cold = torch.empty(2 * size, dtype=torch.uint8, device=self.device)

    @contextmanager
    def session(self) -> Iterator[None]:
        """On the clock's own stream; afterwards the memory is given back."""
        self.stream.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(self.stream):
                yield
        finally:
            torch.cuda.synchronize()
            gc.collect()
            torch.cuda.empty_cache()

    def synchronise(self) -> None:
        """Wait for the GPU."""
        torch.cuda.synchronize()

    def samples(self, work: Work, count: int) -> list[float]:
        """Milliseconds between two events around each run; all runs are queued before the first is waited for."""
        events = []
        for _ in range(count):
            if work.before is not None:
                work.before()
            self._cold.zero_()
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            work.run()
            end.record()
            events.append((start, end))
        torch.cuda.synchronize()
        return [start.elapsed_time(end) for start, end in events]

    def _prepared(self, work: Work) -> tuple[Work, float, float, str]:
        """With a graph, if it can be had; work that is slow is not repeated more than it must."""
        if not self.graph:
            return super()._prepared(work)
        once = self._trial(work)
        if once is None:
            steady = self._warm_up(work)
            return work, steady, steady, "timed without a CUDA graph: it makes the CPU wait for the GPU"
        steady = once if once > self.budget else min(once, self._warm_up(work))
        try:
            ready = self._captured(work)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            cause = error.__context__ or error  # leaving a capture that broke raises an error of its own
            return work, steady, steady, f"timed without a CUDA graph: {_first_line(cause)}"
        return ready, steady, steady if once > self.budget else self._warm_up(ready), ""

    def _trial(self, work: Work) -> float | None:
        """Seconds of one run; None if it makes the CPU wait for the GPU, which no capture may contain."""
        self.synchronise()
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch says that this mode does not see everything
            torch.cuda.set_sync_debug_mode("error")
        try:
            if work.before is not None:
                work.before()
            work.run()
        except RuntimeError as error:
            if "synchronizing" not in str(error):
                raise
            return None
        finally:
            torch.cuda.set_sync_debug_mode("default")
        self.synchronise()
        return time.perf_counter() - start

    def _captured(self, work: Work) -> Work:
        """The work as replays of graphs: one for what comes before, one for what is timed, with one pool of memory.

        A replay overwrites what the other graph left free, so both are replayed in the order of their capture.
        """
        pool = torch.cuda.graph_pool_handle()
        before = None if work.before is None else self._capture(work.before, pool)
        run = self._capture(work.run, pool)
        return Work(run.graph.replay, None if before is None else before.graph.replay, keeps=(before, run))

    def _capture(self, run: Callable[[], object], pool: Any) -> _Captured:
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=pool, stream=self.stream):
                return _Captured(graph, run())
        except torch.OutOfMemoryError:
            raise  # such a capture was ended in order
        except Exception:
            # torch leaves its allocator inside a capture that could not be ended, and whatever asks it to free memory
            # later fails; so it is taken out here. It also keeps a pointer to the graph, which must not dangle.
            self._broken.append(graph)
            torch.cuda.synchronize()
            with contextlib.suppress(Exception):
                torch._C._cuda_endAllocateToPool(self.device.index, pool)
                torch._C._cuda_releasePool(self.device.index, pool)
            raise


@dataclass(frozen=True)
class _Captured:
    """A graph and what its capture returned, whose memory it writes to."""

    graph: torch.cuda.CUDAGraph
    out: object


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__
