"""Tile sizes of the kernels: fixed by the width of the values alone, so that no call ever measures anything.

Found on an H100 by `zeta-bench bench` over lengths from 4k to 1M; see docs/kernels.md. A length, a batch or a number of
heads never changes them, so a new one compiles nothing but what its specialisation needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Pass:
    """One kernel's shape: entries read at once, warps, software-pipelining stages, registers a thread (None = any)."""

    step: int
    warps: int
    stages: int
    registers: int | None = None

    @cached_property
    def launch(self) -> dict[str, int]:
        """Triton's launch options."""
        options = {"num_warps": self.warps, "num_stages": self.stages}
        return options if self.registers is None else options | {"maxnreg": self.registers}


@dataclass(frozen=True)
class Tiles:
    """Shapes of the tile kernels over one source; `queries` a tile is common to both passes."""

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


def content_tiles(row: int) -> Tiles:
    """The shapes where weights have content; `row`: bytes of the wider of a row of values and one of content.

    The fewest warps with which 16-bit rows spill no registers on sm_90, by the compiler's own account; not yet timed.
    """
    if row <= 128:
        return Tiles(16, Pass(16, 1, 1), Pass(16, 1, 2))
    if row <= 256:
        return Tiles(16, Pass(16, 2, 1), Pass(16, 2, 2))
    return Tiles(16, Pass(16, 4, 1), Pass(16, 4, 1))


@dataclass(frozen=True)
class NearTiles:
    """Shapes of the passes over the local window, whose queries and keys stand side by side.

    Attributes:
        queries: of a tile of `forward` and of `backward`; keys of a tile of `keys`.
        forward: as in `Tiles`.
        backward: of the pass that gives the queries' gradients where the order of sums must be fixed.
        keys: of the pass that gives all gradients, or the keys' alone; `step` counts queries.
    """

    queries: int
    forward: Pass
    backward: Pass
    keys: Pass


def near_tiles(width: int) -> NearTiles:
    """The shapes of the passes over the local window for values of so many columns."""
    if width <= 64:
        return NearTiles(16, Pass(16, 1, 1), Pass(16, 1, 1), Pass(16, 1, 1, 168))
    if width <= 128:
        return NearTiles(16, Pass(16, 2, 1), Pass(16, 2, 1), Pass(16, 2, 1))
    return NearTiles(16, Pass(16, 4, 1), Pass(16, 4, 2), Pass(16, 4, 1))
