"""Sizes of the kernels' index, known without Triton."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

FIRST = 64
"""Keys in the shortest list: below that, scanning past what is not permitted is cheaper than another list."""

ROOM = 512
"""Entries that a tile may write out."""


@dataclass(frozen=True)
class Geometry:
    """Sizes of an index; see `zeta_bench.ops.lists_triton`.

    Attributes:
        N: queries.
        S: keys.
        offset: position of query 0.
        chunk: as in `zorder_search`.
        causal: whether keys are hidden.
    """

    N: int
    S: int
    offset: int
    chunk: int
    causal: bool

    @cached_property
    def first(self) -> int:
        """Keys in list 0: all of them where there is nothing to hide."""
        return min(FIRST, self.S) if self.causal else self.S

    @cached_property
    def levels(self) -> int:
        """How many lists a row has: the last one holds every key."""
        return max(0, (-(-self.S // self.first) - 1).bit_length()) + 1

    @cached_property
    def entries(self) -> int:
        """Entries of a row, all lists together."""
        return self.first * (2 ** (self.levels - 1) - 1) + self.S
