"""The window of each query as an interval of a list (`zeta_bench.ops.lists_triton`), and the search made of it.

From the query's place in the list a scan goes outwards on both sides until k permitted keys lie between its ends. Where
future keys are dense (positions that drift with the code, equal codes) it jumps over blocks whose smallest position is
not permitted, so that no distribution of codes makes it linear.
"""

from __future__ import annotations

from collections.abc import Hashable

import torch
import triton
import triton.language as tl
from torch import Tensor

from zeta_bench.ops import lists_triton as lists
from zeta_bench.ops.geometry import Geometry
from zeta_bench.ops.launch import Kernel, blocks, on_device_of
from zeta_bench.ops.lists_triton import FAR, LARGE, SMALL, level_of, limit_of

SHAPE = (8, 32, 1)
"""Queries a program, entries scanned at once, warps."""


@triton.jit
def _jump(SUMMARY, address, dry, limit, n, STEP: tl.constexpr, DIRECTION: tl.constexpr):
    """From each address to the nearest of 32 blocks of STEP entries, its own first, that holds a permitted key."""
    s = tl.arange(0, SMALL)
    block = address // STEP
    b = block[:, None] + DIRECTION * s[None, :]
    least = tl.load(SUMMARY + b, mask=dry[:, None] & (b >= 0) & (b < n), other=FAR)
    ahead = tl.min(tl.where(least < limit[:, None], s[None, :], SMALL), 1)
    edge = (block + DIRECTION * ahead) * STEP + (STEP - 1 if DIRECTION < 0 else 0)
    return tl.where(dry & (ahead > 0), edge, address)


@triton.jit
def _scan(
    LIST, NEAREST, FURTHER, start, room, limit, want, tops, DIRECTION: tl.constexpr, STEP: tl.constexpr
):  # fmt: skip
    """Entries from `start` on, in one direction, up to the want-th permitted one: how many of those, how many in all.

    start: address of the first entry looked at; room: entries before the list ends. All are vectors, one a query.
    """
    s = tl.arange(0, STEP)
    found = tl.zeros_like(start)
    width = tl.zeros_like(start)
    gone = tl.zeros_like(start)
    busy = (want > 0) & (room > 0)
    while tl.sum(busy.to(tl.int32), 0) > 0:
        t = gone[:, None] + s[None, :]
        p = tl.load(LIST + start[:, None] + DIRECTION * t, mask=busy[:, None] & (t < room[:, None]), other=FAR)
        hit = p < limit[:, None]
        rank = found[:, None] + tl.cumsum(hit.to(tl.int32), 1)
        counts = hit & (rank <= want[:, None])
        width = tl.maximum(width, tl.max(tl.where(counts, t + 1, 0), 1))
        n = tl.sum(counts.to(tl.int32), 1)
        found += n
        gone += STEP
        busy = busy & (found < want) & (gone < room)
        dry = busy & (n == 0)
        if tl.sum(dry.to(tl.int32), 0) > 0:
            address = start + DIRECTION * gone
            address = _jump(FURTHER, address, dry, limit, tops, LARGE, DIRECTION)
            address = _jump(NEAREST, address, dry, limit, tops * SMALL, SMALL, DIRECTION)
            gone = DIRECTION * (address - start)
            busy = busy & (gone < room)
    return found, width


@triton.jit
def _intervals(
    CODES, ORDER, LIST_CODES, LIST, NEAREST, FURTHER, START, END, PLACES, N, S, offset, chunk, first, levels, entries,
    tops, steps, topk, CAUSAL: tl.constexpr, ORDERED: tl.constexpr, QUERIES: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """Interval [START, END) of the query at each place of the order; empty where no key is permitted."""
    row = tl.program_id(1).to(tl.int64)
    at = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    real = at < N
    i = at
    if ORDERED:
        i = tl.load(ORDER + row * N + at, mask=real, other=0).to(tl.int32)
        tl.store(PLACES + row * N + at, i, mask=real)  # for the kernels after this one, at half of the sort's width
    limit = tl.where(real, limit_of(i, S, offset, chunk, CAUSAL), 0)
    level = level_of(limit, first, levels)
    length = tl.where(limit > 0, tl.minimum(first << level, S), 0)
    base = first * ((1 << level) - 1)
    code = tl.load(CODES + row * N + i, mask=real, other=0)
    LIST_CODES += row * entries
    LIST += row * entries
    NEAREST += row * tops * SMALL
    FURTHER += row * tops
    low = tl.zeros_like(length)
    high = length
    for _ in range(steps):  # low = entries with a code not above the query's
        middle = (low + high) // 2
        open_ = low < high
        below = open_ & (tl.load(LIST_CODES + base + middle, mask=open_, other=0) <= code)
        low = tl.where(below, middle + 1, low)
        high = tl.where(open_ & (below == 0), middle, high)
    place = base + low
    half = tl.zeros_like(low) + topk // 2
    left, left_width = _scan(LIST, NEAREST, FURTHER, place - 1, low, limit, half, tops, -1, STEP)
    right, right_width = _scan(LIST, NEAREST, FURTHER, place, length - low, limit, topk - left, tops, 1, STEP)
    rest = topk - left - right  # the right side had too few: take more on the left, if there are more
    rest = tl.where(left == half, rest, 0)
    room = low - left_width
    if tl.sum((rest > 0).to(tl.int32), 0) > 0:
        _found, more = _scan(LIST, NEAREST, FURTHER, place - left_width - 1, room, limit, rest, tops, -1, STEP)
        left_width += more
    tl.store(START + row * N + at, place - left_width, mask=real)
    tl.store(END + row * N + at, place + right_width, mask=real)


@triton.jit
def _emit(LIST, START, END, INDEX, N, S, offset, chunk, entries, topk, CAUSAL: tl.constexpr, STEP: tl.constexpr):
    """Write the permitted keys of query i's interval, in order, and −1 behind them."""
    i = tl.program_id(0)
    row = tl.program_id(1).to(tl.int64)
    limit = limit_of(i, S, offset, chunk, CAUSAL)
    start = tl.load(START + row * N + i)
    end = tl.load(END + row * N + i)
    out = INDEX + (row * N + i) * topk
    found = 0
    for j in range(start, end, STEP):
        at = j + tl.arange(0, STEP)
        p = tl.load(LIST + row * entries + at, mask=at < end, other=FAR)
        hit = p < limit
        tl.store(out + found + tl.cumsum(hit.to(tl.int32), 0) - 1, p, mask=hit)
        found += tl.sum(hit.to(tl.int32), 0)
    for c in range(found, topk, STEP):
        at = c + tl.arange(0, STEP)
        tl.store(out + at, tl.full([STEP], -1, tl.int32), mask=at < topk)


INTERVALS, EMIT = Kernel(_intervals), Kernel(_emit)


def intervals(
    key: Hashable, codes: Tensor, order: Tensor | None, built: lists.Lists, g: Geometry, topk: int
) -> tuple[Tensor, Tensor]:
    """Each query's window in the lists of its row.

    Args:
        key: as in `launch.Kernel`.
        codes: of the queries, [R, N].
        order: int64 [R, N]: place n of the result belongs to query order[n]; None = to query n.
        built: the lists.
        g: sizes.
        topk: keys a query.

    Returns:
        First and last address + 1, int32 [2, R, N], and `order` as int32 (empty for None).
    """
    R, device = len(codes), codes.device
    spans = torch.empty(2, R, g.N, dtype=torch.int32, device=device)
    places = torch.empty(0 if order is None else R, g.N, dtype=torch.int32, device=device)
    queries, step, warps = SHAPE
    INTERVALS(
        key, (blocks(g.N, queries), R), codes, order, built.codes, built.positions, built.nearest, built.further,
        spans[0], spans[1], places, g.N, g.S, g.offset, g.chunk, g.first, g.levels, g.entries, built.further.shape[1],
        g.S.bit_length(), topk, g.causal, order is not None, queries, step, num_warps=warps,
    )  # fmt: skip
    return spans, places


def zorder_search(
    q_codes: Tensor, k_codes: Tensor, k: int, causal: bool, chunk: int, valid: Tensor | None, offset: int
) -> Tensor:
    """`zeta_bench.ops.zorder_search`, arguments as checked there."""
    B, H, N = q_codes.shape
    g = Geometry(N, k_codes.shape[-1], offset, chunk, causal)
    if N == 0 or g.S == 0:
        return torch.full((B, H, N, k), -1, dtype=torch.int32, device=q_codes.device)
    valid = None if valid is None else valid.contiguous()
    with on_device_of(q_codes):
        return _search(q_codes, k_codes, k, valid, g)


def _search(q_codes: Tensor, k_codes: Tensor, k: int, valid: Tensor | None, g: Geometry) -> Tensor:
    B, H, N = q_codes.shape
    kind = torch.promote_types(q_codes.dtype, k_codes.dtype)
    codes, order = k_codes.flatten(0, 1).to(kind).sort(dim=-1, stable=True)
    key = (q_codes.shape, g, k, kind, q_codes.device, valid is None)
    built = lists.build(key, codes, order, None, valid, g, H)
    spans, _ = intervals(key, q_codes.flatten(0, 1).to(kind).contiguous(), None, built, g, k)
    index = torch.empty(B, H, N, k, dtype=torch.int32, device=q_codes.device)
    grid = (N, B * H)
    EMIT(
        key, grid, built.positions, spans[0], spans[1], index, N, g.S, g.offset, g.chunk, g.entries, k, g.causal, 64,
        num_warps=1,
    )  # fmt: skip
    return index
