"""The index as sorted prefixes: for the first M, 2M, 4M, … keys, their positions in code order.

A query that may use the keys below its limit looks into the shortest list that covers them: more than half of its
entries are permitted, so a scan from the query's place on the curve outwards is short, and exact for every limit, to
the token or to the chunk. All lists of a row (batch · head) lie one after the other, list l from M (2^l − 1), and an
address counts from the row's start. Entries: 2S a row. Sorting is torch's; three kernels make the lists of it.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from zeta_bench.ops.geometry import Geometry
from zeta_bench.ops.launch import Kernel, blocks
from zeta_bench.ops.morton_triton import interleave

FAR = tl.constexpr(0x7FFFFFFF)
"""Position of an entry that no query may use."""

LEVEL_SHIFT = tl.constexpr(26)
"""A query's sort key: its list in the bits from here, the first 26 bits of its code below."""

BLOCK = 1024
SMALL, LARGE = tl.constexpr(32), tl.constexpr(1024)
"""Entries that share one smallest position in the two summaries; LARGE is SMALL², and BLOCK of the summary kernel."""


@triton.jit
def limit_of(i, S, offset, chunk, CAUSAL: tl.constexpr):
    """First key that query i may not use; see `zeta_bench.ops.search.limits`."""
    if CAUSAL:
        p = i + offset
        t = tl.where(chunk == 1, p + 1, p // chunk * chunk)  # // truncates, but a negative limit is 0 anyway
        return tl.minimum(tl.maximum(t, 0), S)
    else:
        return tl.zeros_like(i) + S


@triton.jit
def level_of(limit, first, levels):
    """The shortest list that holds every key below the limit."""
    level = tl.zeros_like(limit)
    for one in range(levels - 1):
        level += (limit > (first << one)).to(tl.int32)
    return level


@triton.jit
def columns(P, rows, mask, D: tl.constexpr):
    """The D coordinates of the points P[rows], a tuple of vectors."""
    out = ()
    for c in tl.static_range(D):
        out = out + (tl.load(P + rows * D + c, mask=mask, other=0.0),)
    return out


@triton.jit
def _encode(
    Q, K, KEYS, QUERIES, CODES, N, S, offset, chunk, first, levels, scale,
    D: tl.constexpr, BITS: tl.constexpr, WIDE: tl.constexpr, CAUSAL: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(1).to(tl.int64)
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    key = interleave(K + row * S * D, at, at < S, -1.0, 2.0, scale, D, BITS, WIDE)
    tl.store(KEYS + row * S + at, key, mask=at < S)
    code = interleave(Q + row * N * D, at, at < N, -1.0, 2.0, scale, D, BITS, WIDE)
    tl.store(CODES + row * N + at, code, mask=at < N)
    level = level_of(limit_of(at, S, offset, chunk, CAUSAL), first, levels)
    drop: tl.constexpr = max(0, BITS * D - 26)
    tl.store(QUERIES + row * N + at, (level << LEVEL_SHIFT) | (code >> drop).to(tl.int32), mask=at < N)


@triton.jit
def _position(ORDER, VALID, row, at, S, H, HAS_VALID: tl.constexpr):
    """Positions of sorted keys at places `at`; FAR for padding and beyond the end."""
    p = tl.load(ORDER + row * S + at, mask=at < S, other=FAR).to(tl.int32)
    if HAS_VALID:
        real = tl.load(VALID + (row // H) * S + p, mask=at < S, other=0)
        p = tl.where(real != 0, p, FAR)
    return p


@triton.jit
def _count(ORDER, VALID, COUNTS, S, H, first, levels, HAS_VALID: tl.constexpr, BLOCK: tl.constexpr):
    """How many keys of each block of sorted keys belong to each list."""
    block, blocks = tl.program_id(0), tl.num_programs(0)
    row = tl.program_id(1).to(tl.int64)
    p = _position(ORDER, VALID, row, block * BLOCK + tl.arange(0, BLOCK), S, H, HAS_VALID)
    for level in range(levels):
        belongs = (p < tl.minimum(first << level, S)).to(tl.int32)
        tl.store(COUNTS + (row * levels + level) * blocks + block, tl.sum(belongs, 0))


@triton.jit
def _write(
    SORTED, ORDER, VALID, COUNTS, LIST_CODES, LIST, K, PLANES, S, H, first, levels, entries,
    D: tl.constexpr, HAS_VALID: tl.constexpr, BLOCK: tl.constexpr, SCAN: tl.constexpr,
):  # fmt: skip
    """Write each key into every list that holds it, behind those that come before it in code order.

    Its D coordinates go along, each into a plane of its own, so that a tile reads them in a row. D = 0: none.
    """
    block, blocks = tl.program_id(0), tl.num_programs(0)
    row = tl.program_id(1).to(tl.int64)
    at = block * BLOCK + tl.arange(0, BLOCK)
    p = _position(ORDER, VALID, row, at, S, H, HAS_VALID)
    code = tl.load(SORTED + row * S + at, mask=at < S, other=0)
    point = columns(K + row * S * D, p, p != FAR, D)
    for level in range(levels):
        before = tl.zeros([SCAN], tl.int32)
        for b in range(0, block, SCAN):
            o = b + tl.arange(0, SCAN)
            before += tl.load(COUNTS + (row * levels + level) * blocks + o, mask=o < block, other=0)
        belongs = p < tl.minimum(first << level, S)
        place = first * ((1 << level) - 1) + tl.sum(before, 0) + tl.cumsum(belongs.to(tl.int32), 0) - 1
        tl.store(LIST_CODES + row * entries + place, code, mask=belongs)
        tl.store(LIST + row * entries + place, p, mask=belongs)
        for c in tl.static_range(D):
            tl.store(PLANES + (row * D + c) * entries + place, point[c], mask=belongs)


@triton.jit
def _summarise(LIST, NEAREST, FURTHER, entries, BLOCK: tl.constexpr):
    """The smallest position in every SMALL and in every LARGE entries."""
    block, blocks = tl.program_id(0), tl.num_programs(0)
    row = tl.program_id(1).to(tl.int64)
    at = block * LARGE + tl.arange(0, LARGE)
    p = tl.load(LIST + row * entries + at, mask=at < entries, other=FAR)
    least = tl.min(tl.reshape(p, [SMALL, SMALL]), 1)
    tl.store(NEAREST + (row * blocks + block) * SMALL + tl.arange(0, SMALL), least)
    tl.store(FURTHER + row * blocks + block, tl.min(least, 0))


ENCODE, COUNT, WRITE, SUMMARISE = Kernel(_encode), Kernel(_count), Kernel(_write), Kernel(_summarise)


@dataclass(frozen=True)
class Lists:
    """The lists of all rows; see the module.

    Attributes:
        codes: [R, entries] codes in list order.
        positions: int32 [R, entries].
        planes: fp32 [R, d, entries], the keys' coordinates.
        nearest: int32 [R, ⌈entries / 1024⌉ · 32], the smallest position of each 32 entries.
        further: int32 [R, ⌈entries / 1024⌉], the same of each 1024.
    """

    codes: Tensor
    positions: Tensor
    planes: Tensor
    nearest: Tensor
    further: Tensor


@dataclass(frozen=True)
class Encoded:
    """Codes of all rows, R = B · H.

    Attributes:
        keys: int32 or int64 [R, S].
        queries: codes [R, N].
        sort_keys: int32 [R, N], (list, code) of each query: their order groups queries with neighbouring keys.
        both: int32 [2R, N], the keys and then the sort keys, where they lie in one tensor; else None.
    """

    keys: Tensor
    queries: Tensor
    sort_keys: Tensor
    both: Tensor | None


def encode(key: Hashable, q: Tensor, k: Tensor, g: Geometry, bits: int) -> Encoded:
    """Codes of fp32 q [B, H, N, d] and k [B, H, S, d], both contiguous and in [−1, 1]; `key` as in `launch.Kernel`."""
    R, d = q.shape[0] * q.shape[1], q.shape[-1]
    wide = bits * d > 31
    kind = torch.int64 if wide else torch.int32
    queries = torch.empty(R, g.N, dtype=kind, device=q.device)
    both = None
    if g.N == g.S and not wide:  # one sort for both
        both = torch.empty(2 * R, g.N, dtype=torch.int32, device=q.device)
        keys, sort_keys = both[:R], both[R:]
    else:
        keys = torch.empty(R, g.S, dtype=kind, device=q.device)
        sort_keys = torch.empty(R, g.N, dtype=torch.int32, device=q.device)
    block = 256
    ENCODE(
        key, (blocks(max(g.N, g.S), block), R), q, k, keys, sort_keys, queries, g.N, g.S, g.offset, g.chunk, g.first,
        g.levels, 2.0**bits, d, bits, wide, g.causal, block,
    )  # fmt: skip
    return Encoded(keys, queries, sort_keys, both)


def sort(encoded: Encoded) -> tuple[Tensor, Tensor, Tensor]:
    """Sorted key codes [R, S], the positions they come from int64 [R, S], and the queries in (list, code) order.

    The last is int64 [R, N]. Stable: of equal codes the older comes first.
    """
    if encoded.both is not None:
        R = len(encoded.keys)
        values, order = encoded.both.sort(dim=-1, stable=True)
        return values[:R], order[:R], order[R:]
    values, order = encoded.keys.sort(dim=-1, stable=True)
    return values, order, encoded.sort_keys.sort(dim=-1, stable=True).indices


def build(
    key: Hashable, codes: Tensor, order: Tensor, k: Tensor | None, valid: Tensor | None, g: Geometry, H: int
) -> Lists:
    """The lists of sorted codes [R, S] with the positions they come from.

    Args:
        key: as in `launch.Kernel`.
        codes: [R, S], ascending in each row.
        order: int64 [R, S].
        k: the keys' coordinates, fp32 [B, H, S, d], dense; None = leave them out.
        valid: bool [B, S] or None.
        g: sizes.
        H: heads; row r belongs to sequence r // H.
    """
    R, device = len(codes), codes.device
    parts, tops = blocks(g.S, BLOCK), blocks(g.entries, LARGE.value)
    counts = torch.empty(R, g.levels, parts, dtype=torch.int32, device=device)
    list_codes = torch.empty(R, g.entries, dtype=codes.dtype, device=device)
    positions = torch.empty(R, g.entries, dtype=torch.int32, device=device)
    d = 0 if k is None else k.shape[-1]
    planes = torch.empty(R, d, g.entries, dtype=torch.float32, device=device)
    if valid is not None:  # padding leaves places free at the end of each list
        list_codes.fill_(torch.iinfo(codes.dtype).max)
        positions.fill_(FAR.value)
        planes.zero_()
    has = valid is not None
    mask = valid if has else order
    if parts > 1:  # the first block of a row has none before it
        COUNT(key, (parts, R), order, mask, counts, g.S, H, g.first, g.levels, has, BLOCK)
    WRITE(
        key, (parts, R), codes, order, mask, counts, list_codes, positions, order if k is None else k, planes, g.S, H,
        g.first, g.levels, g.entries, d, has, BLOCK, 256,
    )  # fmt: skip
    nearest = torch.empty(R, tops * SMALL.value, dtype=torch.int32, device=device)
    further = torch.empty(R, tops, dtype=torch.int32, device=device)
    SUMMARISE(key, (tops, R), positions, nearest, further, g.entries, LARGE.value)
    return Lists(list_codes, positions, planes, nearest, further)
