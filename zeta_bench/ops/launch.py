"""Launching kernels without asking each time what they were compiled for.

Triton looks at every argument of every launch to find the machine code for it: tens of microseconds for the kernels
here, longer than some of them run. An operator knows that all of it follows from the shapes, strides, dtypes and
alignments of its inputs and from its options; so it makes a key of those, once, and each kernel keeps its code by key.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

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
            self._compiled[key] = self.function[grid](*args, **options)
        else:
            code[(*grid, 1)](*args)


def key_of(options: Hashable, *tensors: Tensor | None) -> Hashable:
    """A key for `Kernel`: everything about the tensors that a launch depends on but where they lie, as one number."""
    whole = (options, *[None if t is None else _layout(t) for t in tensors])
    return _keys.setdefault(whole, len(_keys))


_keys: dict[Hashable, int] = {}


def _layout(t: Tensor) -> Hashable:
    return t.shape, t.stride(), t.dtype, t.device, t.data_ptr() % 16


def blocks(n: int, size: int) -> int:
    """Blocks of `size` that cover n."""
    return -(-n // size)


def power_of_two(n: int) -> int:
    """The smallest power of two that is not below n."""
    return 1 << (n - 1).bit_length()
