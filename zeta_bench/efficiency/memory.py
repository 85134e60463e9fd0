"""How much memory a step needs at its peak, its inputs, outputs and gradients included.

What is counted: the tensors that stand when the work begins (q, k, v, a mask, a module's parameters), and everything
allocated from there to the end. What is not: what making those inputs took, and what an earlier call left for good
(compiled kernels, the workspaces of libraries), which a call before the measured one has fetched.

On a GPU it is what torch's allocator says, every workspace included. A CPU has no such count: there the storages of all
tensors are followed as torch's operations make and drop them, which leaves out what one operation uses inside.
"""

from __future__ import annotations

import functools
import gc
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from zeta_bench.efficiency.step import Step

RULE = {
    "cuda": "torch.cuda.max_memory_allocated, less what was allocated before the inputs",
    "cpu": "storages of live tensors, without the workspace inside an operation",
}
"""By device: what the figure is, for the record."""


def peak_bytes(make: Callable[[], Step], mode: str, device: torch.device) -> int:
    """Bytes at the peak of one step with its inputs.

    Args:
        make: makes the inputs and the step.
        mode: "forward" (inference) or "both" (forward and backward).
        device: where it runs.
    """
    measure = _cuda_peak if device.type == "cuda" else _cpu_peak
    _once(make(), mode)
    return measure(make, mode)


def _once(step: Step, mode: str) -> None:
    step.work(mode).run()


def _cuda_peak(make: Callable[[], Step], mode: str) -> int:
    torch.cuda.synchronize()
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    step = make()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    _once(step, mode)
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def _cpu_peak(make: Callable[[], Step], mode: str) -> int:
    gc.collect()
    with LiveBytes() as live:
        step = make()
        live.peak = live.now
        _once(step, mode)
    return live.peak


class LiveBytes(TorchDispatchMode):
    """Follows the storages of the tensors that operations return.

    Attributes:
        now: bytes that live.
        peak: the most that lived at once; may be set back.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._sizes: dict[int, tuple[weakref.ref[Any], int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self._see(leaf.untyped_storage())
        return out

    def _see(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if size and key not in self._sizes:
            self._sizes[key] = weakref.ref(storage, functools.partial(self._forget, key)), size
            self.now += size
            self.peak = max(self.peak, self.now)

    def _forget(self, key: int, _: Any) -> None:
        self.now -= self._sizes.pop(key)[1]
