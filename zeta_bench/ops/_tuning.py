"""Tile sizes of the kernels: fixed by the width of the values alone, so that no call ever measures anything.

Found on an H100 by `zeta-bench bench` over lengths from 4k to 1M; see docs/kernels.md. A length, a batch or a number of
heads never changes them, so a new one compiles nothing but what its specialisation needs.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pass:
    """One kernel's shape: entries read at once, warps, software-pipelining stages, registers a thread (None = any)."""

    step: int
    warps: int
    stages: int
    registers: int | None = None


@dataclass(frozen=True)
class Tiles:
    """Shapes of the tile kernels; `queries` a tile is common to them, because they share a plan."""

    queries: int
    forward: Pass
    backward: Pass


def tiles(width: int) -> Tiles:
    """The shapes for values of so many columns."""
    if width <= 64:
        return Tiles(16, Pass(16, 1, 1, 128), Pass(32, 1, 2))
    if width <= 128:
        return Tiles(16, Pass(16, 2, 1), Pass(32, 2, 2))
    return Tiles(16, Pass(16, 4, 1), Pass(16, 4, 2))
