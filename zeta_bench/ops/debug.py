"""Checks of values, off by default because each one waits for the device: ZETA_BENCH_DEBUG=1, or `set_debug(True)`.

Without them a coordinate that is not finite spreads into the output. A place outside the keys counts as none in the
kernels; in the reference one below −1 does, and one beyond the keys is torch's own error. torch.compile leaves the
checks out: what it compiles cannot wait for a value.
"""

from __future__ import annotations

import os

import torch
from torch import Tensor

_enabled = os.environ.get("ZETA_BENCH_DEBUG", "") not in ("", "0")


def set_debug(on: bool) -> None:
    """Switch the checks on or off for this process."""
    global _enabled
    _enabled = on


def _checking() -> bool:
    return _enabled and not torch.compiler.is_compiling()


def check_coordinates(q: Tensor, k: Tensor) -> None:
    """Raise ValueError if debugging and a coordinate is not finite."""
    for name, x in (("q", q), ("k", k)) if _checking() else ():
        bad = int((~torch.isfinite(x)).sum())
        if bad:
            raise ValueError(f"{name} {tuple(x.shape)} has {bad} coordinates that are not finite.")


def check_index(index: Tensor, S: int) -> None:
    """Raise ValueError if debugging and a place is neither −1 nor that of one of S keys."""
    if _checking() and index.numel() and (int(index.min()) < -1 or int(index.max()) >= S):
        low, high = int(index.min()), int(index.max())
        raise ValueError(f"index {tuple(index.shape)} holds {low} to {high}; places are -1 (none) to {S - 1}.")
