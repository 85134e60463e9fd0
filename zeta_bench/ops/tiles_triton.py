"""Which entries of the index a tile of queries looks at.

Queries in (list, code) order have windows next to each other, so a tile of them shares most of its keys. Where the
tile's windows span a short run of a list, the tile reads the run. Where they are spread, full of keys that are not yet
permitted, the entries that at least one query may use are written out first, and the tile reads those. A tile whose
entries do not fit falls back to the run: slow, never wrong.
"""

from __future__ import annotations

from collections.abc import Hashable

import torch
import triton
import triton.language as tl
from torch import Tensor

from zeta_bench.ops.geometry import ROOM, Geometry
from zeta_bench.ops.launch import Kernel, blocks
from zeta_bench.ops.lists_triton import FAR, LARGE, SMALL, Lists, limit_of

SHORT = 8
"""A run is short up to so many entries a query of the tile."""


@triton.jit
def _plan(
    ORDER, LIST, NEAREST, FURTHER, START, END, FROM, COUNT, PICKED, N, S, offset, chunk, entries, tops,
    CAUSAL: tl.constexpr, TILE: tl.constexpr, SHORT: tl.constexpr, ROOM: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """FROM, COUNT of each tile: a run's first address and length; or −1 and how many entries PICKED holds."""
    tile, tiles = tl.program_id(0), tl.num_programs(0)
    row = tl.program_id(1).to(tl.int64)
    at = tile * TILE + tl.arange(0, TILE)
    start = tl.load(START + row * N + at, mask=at < N, other=0)
    end = tl.load(END + row * N + at, mask=at < N, other=0)
    some = end > start
    low = tl.min(tl.where(some, start, FAR), 0)
    high = tl.max(tl.where(some, end, 0), 0)
    low = tl.minimum(low, high)
    first, count = low, high - low
    if count > SHORT * TILE:
        i = tl.load(ORDER + row * N + at, mask=at < N, other=0).to(tl.int32)
        limit = tl.where(some, limit_of(i, S, offset, chunk, CAUSAL), 0)
        newest = tl.max(limit, 0)
        picked = 0
        out = PICKED + (row * tiles + tile) * ROOM
        for top in range(low // LARGE, (high + LARGE - 1) // LARGE):
            if tl.load(FURTHER + row * tops + top) < newest:
                near = tl.load(NEAREST + (row * tops + top) * SMALL + tl.arange(0, SMALL))
                for j in range(
                    tl.maximum(low, top * LARGE) // STEP * STEP, tl.minimum(high, top * LARGE + LARGE), STEP
                ):
                    here = (top * LARGE // SMALL + tl.arange(0, SMALL)) * SMALL
                    least = tl.min(tl.where((here >= j) & (here < j + STEP), near, FAR), 0)
                    if tl.max(((start < j + STEP) & (end > j) & (limit > least)).to(tl.int32), 0) > 0:
                        a = j + tl.arange(0, STEP)
                        p = tl.load(LIST + row * entries + a, mask=a < high, other=FAR)
                        wanted = (a[None, :] >= start[:, None]) & (a[None, :] < end[:, None])
                        wanted = tl.max((wanted & (p[None, :] < limit[:, None])).to(tl.int32), 0)
                        place = picked + tl.cumsum(wanted, 0) - 1
                        tl.store(out + place, a, mask=(wanted > 0) & (place < ROOM))
                        picked += tl.sum(wanted, 0)
        if picked <= ROOM:
            first = -1
            count = picked
    tl.store(FROM + row * tiles + tile, first)
    tl.store(COUNT + row * tiles + tile, count)


PLAN = Kernel(_plan)


def plan(key: Hashable, order: Tensor, built: Lists, spans: Tensor, g: Geometry, tile: int) -> tuple[Tensor, Tensor]:
    """What each tile of `tile` queries reads.

    Args:
        key: as in `launch.Kernel`.
        order: int32 [R, N], queries in (list, code) order.
        built: the lists.
        spans: int32 [2, R, N], the window at each place of the order.
        g: sizes.
        tile: queries a tile.

    Returns:
        int32 [2, R, tiles]: first address, or −1, and number of entries; int32 [R, tiles, ROOM]: the entries
        written out where the first is −1.
    """
    R, tiles = len(order), blocks(g.N, tile)
    reads = torch.empty(2, R, tiles, dtype=torch.int32, device=order.device)
    picked = torch.empty(R, tiles, ROOM, dtype=torch.int32, device=order.device)
    PLAN(
        (key, tile, SHORT, ROOM), (tiles, R), order, built.positions, built.nearest, built.further, spans[0], spans[1],
        reads[0], reads[1], picked, g.N, g.S, g.offset, g.chunk, g.entries, built.further.shape[1], g.causal, tile,
        SHORT, ROOM, 64, num_warps=1,
    )  # fmt: skip
    return reads, picked
