"""Launching kernels without asking each time what they were compiled for.

Triton looks at every argument of every launch to find the machine code for it: tens of microseconds for the kernels
here, longer than some of them run. An operator knows that all of it follows from the shapes, strides, dtypes and
alignments of its inputs and from its options; so it makes a key of those, once, and each kernel keeps its code by key.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


class Kernel:
    """A Triton kernel and its machine code by key."""

    def __init__(self, function: Any) -> None:
        self.function = function
        self._compiled: dict[Hashable, Any] = {}

    def __call__(self, key: Hashable, grid: tuple[int, int], *args: Any, **options: Any) -> None:
        """Launch on a grid; `key` must fix dtypes, alignments and whatever else of `args` Triton specialises for."""
        code = self._compiled.get(key)
        if code is None:  # the first time, and always under the interpreter, which compiles nothing
            _bound(self._compiled)
            self._compiled[key] = self.function[grid](*args, **options)
        else:
            code[(*grid, 1)](*args)


def key_of(options: Hashable, *tensors: Tensor | None) -> Hashable:
    """A key for `Kernel`: everything about the tensors that a launch depends on but where they lie, as one number."""
    whole = (options, *[None if t is None else _layout(t) for t in tensors])
    key = _keys.get(whole)
    if key is None:
        _bound(_keys)
        key = _keys[whole] = next(_numbers)
    return key


_keys: dict[Hashable, int] = {}
_numbers = itertools.count()


def _layout(t: Tensor) -> Hashable:
    return t.shape, t.stride(), t.dtype, t.device, t.data_ptr() % 16


def _bound(cache: dict[Any, Any]) -> None:
    """Start again rather than grow for ever: decoding has a new length at every step."""
    if len(cache) >= 4096:
        cache.clear()


def on_device_of(t: Tensor) -> AbstractContextManager[Any]:
    """Triton launches on the current device, wherever the tensors are."""
    if t.is_cuda and t.device.index != torch.cuda.current_device():
        return torch.cuda.device(t.device)
    return nullcontext()


def blocks(n: int, size: int) -> int:
    """Blocks of `size` that cover n."""
    return -(-n // size)


def power_of_two(n: int) -> int:
    """The smallest power of two that is not below n."""
    return 1 << (n - 1).bit_length()
