"""Cauchy attention of tiles of queries over the entries that the tile looks at: forward and backward.

A Cauchy weight needs no largest logit subtracted, so numerator and denominator of several sources add up: a pass over
the local window leaves its sums for the pass over the index, which adds the mean token and divides. Weights and
distances are fp32; products with the values run in the values' dtype with fp32 sums. A tile adds its share of dK and
dV to memory atomically: in fp32, or as fixed-point integers, whose sum does not depend on the order (`deterministic`).
What reaches keys through the window or the mean token is added later (`near_triton`, `finish_triton`).
"""

from __future__ import annotations

import triton
import triton.language as tl

from zeta_bench.ops.lists_triton import FAR, columns, limit_of
from zeta_bench.ops.weights_triton import (
    GAMMA_FLOOR,
    TINY,
    mean_token,
    product,
    reciprocal,
    square_sum,
    squared_gamma,
)


@triton.jit
def differences(q, k, D: tl.constexpr):
    """q_i − k_j in each coordinate, a tuple of [TILE, STEP]."""
    out = ()
    for c in tl.static_range(D):
        out = out + (q[c][:, None] - k[c][None, :],)
    return out


@triton.jit
def entries_of(
    t, stop, first, start, end, limit, near_low, near_high, LIST, PICKED, K, entries, D: tl.constexpr,
    LOCAL: tl.constexpr, LISTED: tl.constexpr, BESIDE: tl.constexpr,
):  # fmt: skip
    """The keys at places t of what a tile reads, their coordinates, and which query may use which: bool [TILE, STEP].

    K: the planes of the lists, or, LOCAL, the keys themselves.
    """
    here = t < stop
    j = tl.where(first < 0, tl.load(PICKED + t, mask=here & (first < 0), other=0), first + t)
    p = j
    if LISTED:
        p = tl.load(LIST + j, mask=here, other=0)
    allowed = here[None, :] & (j[None, :] >= start[:, None]) & (j[None, :] < end[:, None])
    if not LOCAL:
        allowed = allowed & (p[None, :] < limit[:, None])
        if BESIDE:
            allowed = allowed & ((p[None, :] < near_low[:, None]) | (p[None, :] >= near_high[:, None]))
    p = tl.where(here & (p != FAR), p, 0)  # an address inside the keys for those that nobody may use
    if LOCAL:
        k = columns(K, p, here, D)
    else:
        k = ()
        for c in tl.static_range(D):
            k = k + (tl.load(K + c * entries + j, mask=here, other=0.0),)
    return p, k, allowed


@triton.jit
def sources_of(
    LIST, PICKED, K, tile, tiles, row, batch, S, entries, D: tl.constexpr, LOCAL: tl.constexpr, ROOM: tl.constexpr
):  # fmt: skip
    """Where the tile's row of each begins: LIST, PICKED and K as `entries_of` wants them."""
    if LOCAL:
        return LIST + batch * S, PICKED, K + row * S * D
    else:
        return LIST + row * entries, PICKED + (row * tiles + tile) * ROOM, K + row * D * entries


@triton.jit
def tile_of(
    ORDER, START, END, FROM, COUNT, NEAR_LOW, NEAR_HIGH, tile, tiles, row, batch, N, S, offset, chunk,
    CAUSAL: tl.constexpr, LOCAL: tl.constexpr, WINDOW: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Queries of a tile and what they read: i, real, start, end, limit, the local window, first, count."""
    at = tile * TILE + tl.arange(0, TILE)
    real = at < N
    if LOCAL:
        i = at
        start = tl.load(START + batch * N + at, mask=real, other=0)
        end = tl.load(END + batch * N + at, mask=real, other=0)
        some = end > start
        high = tl.max(tl.where(some, end, 0), 0)
        first = tl.minimum(tl.min(tl.where(some, start, FAR), 0), high)
        count = high - first
    else:
        i = tl.load(ORDER + row * N + at, mask=real, other=0).to(tl.int32)
        start = tl.load(START + row * N + at, mask=real, other=0)
        end = tl.load(END + row * N + at, mask=real, other=0)
        first = tl.load(FROM + row * tiles + tile)
        count = tl.load(COUNT + row * tiles + tile)
    limit = limit_of(i, S, offset, chunk, CAUSAL)
    near_low, near_high = limit, limit
    if WINDOW:
        near_low = tl.load(NEAR_LOW + batch * N + i, mask=real, other=0)
        if CAUSAL:  # nothing that the query may use comes after its window
            limit = tl.minimum(limit, near_low)
        else:
            near_high = tl.load(NEAR_HIGH + batch * N + i, mask=real, other=0)
    return i, real, start, end, limit, near_low, near_high, first, count


@triton.jit
def tile_forward(
    Q, K, V, GAMMA, ORDER, LIST, START, END, FROM, COUNT, PICKED, NEAR_LOW, NEAR_HIGH, MEAN_K, MEAN_V, COUNTED, SUM,
    DEN, OUT, N, S, H, G, offset, chunk, entries, v_b, v_h, v_n,
    D: tl.constexpr, W: tl.constexpr, WP: tl.constexpr, CAUSAL: tl.constexpr, LOCAL: tl.constexpr,
    LISTED: tl.constexpr, WINDOW: tl.constexpr, MEAN: tl.constexpr, TILE: tl.constexpr, STEP: tl.constexpr,
    ROOM: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Outputs of a tile; or, LOCAL, the sums over its local windows, which the pass over the index starts from.

    G: heads that share a value head. W: width of the values, WP the power of two it is padded to.
    MEAN: 0 none, 1 prefix, 2 all. SUM: fp32 [R, N, W]; DEN: fp32 [R, N].
    """
    tile, tiles = tl.program_id(0), tl.num_programs(0)
    row = tl.program_id(1).to(tl.int64)
    batch, head = row // H, row % H
    i, real, start, end, limit, near_low, near_high, first, count = tile_of(
        ORDER, START, END, FROM, COUNT, NEAR_LOW, NEAR_HIGH, tile, tiles, row, batch, N, S, offset, chunk, CAUSAL,
        LOCAL, WINDOW, TILE,
    )  # fmt: skip
    g2 = squared_gamma(GAMMA, head)
    q = columns(Q + row * N * D, i, real, D)
    d = tl.arange(0, WP)
    column = d < W
    V += batch * v_b + head // G * v_h
    LIST, PICKED, K = sources_of(LIST, PICKED, K, tile, tiles, row, batch, S, entries, D, LOCAL, ROOM)
    out = (row * N + i)[:, None] * W + d[None, :]
    if WINDOW and not LOCAL:
        total = tl.load(SUM + out, mask=real[:, None] & column[None, :], other=0.0)
        den = tl.load(DEN + row * N + i, mask=real, other=0.0)
    else:
        total = tl.zeros([TILE, WP], tl.float32)
        den = tl.zeros([TILE], tl.float32)
    if MEAN > 0 and not LOCAL:
        _, share, value = mean_token(
            q, MEAN_K, MEAN_V, COUNTED, i, real, row, S, H, G, offset, g2, d, D, W, MEAN
        )  # fmt: skip
        total += share[:, None] * value
        den += share
    for t0 in range(0, count, STEP):
        p, k, allowed = entries_of(
            t0 + tl.arange(0, STEP), count, first, start, end, limit, near_low, near_high, LIST, PICKED, K, entries, D,
            LOCAL, LISTED, WINDOW and not CAUSAL,
        )  # fmt: skip
        v = tl.load(V + p.to(tl.int64)[:, None] * v_n + d[None, :], mask=column[None, :], other=0.0)
        weight = tl.where(allowed, reciprocal(square_sum(differences(q, k, D), D) + g2), 0.0)
        den += tl.sum(weight, 1)
        total += product(weight.to(v.dtype), v, PRECISION)
    if LOCAL:
        tl.store(SUM + out, total, mask=real[:, None] & column[None, :])
    else:
        total = total / tl.maximum(den, TINY)[:, None]
        tl.store(OUT + out, total.to(OUT.dtype.element_ty), mask=real[:, None] & column[None, :])
    tl.store(DEN + row * N + i, den, mask=real)


@triton.jit
def add(P, x, mask, scale, FIXED: tl.constexpr):
    """Add to memory, whoever else does: fp32, or x · scale rounded to an int64."""
    if FIXED:
        tl.atomic_add(P, (x * scale).to(tl.int64), mask=mask, sem="relaxed")
    else:
        tl.atomic_add(P, x, mask=mask, sem="relaxed")


@triton.jit
def tile_backward(
    Q, K, V, GAMMA, ORDER, LIST, START, END, FROM, COUNT, PICKED, NEAR_LOW, NEAR_HIGH, DEN, DELTA, OUT, DO, DQ, DK, DV,
    DG, SCALES, N, S, H, G, offset, chunk, entries, v_b, v_h, v_n, o_b, o_h, o_n,
    D: tl.constexpr, W: tl.constexpr, WP: tl.constexpr, CAUSAL: tl.constexpr, LOCAL: tl.constexpr,
    LISTED: tl.constexpr, WINDOW: tl.constexpr, FIXED: tl.constexpr, TILE: tl.constexpr, STEP: tl.constexpr,
    ROOM: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of a tile, with δ = dO·O and the share of a weight in the sum of weights.

    ∂/∂(q − k)² = −weight · share · (dO·v − δ) of each pair; `ds` is twice that, a factor of every gradient below.
    LOCAL: of the queries and γ alone, added to what the pass over the index has left in DQ and DG.
    DG: each query's share of γ's gradient, fp32 [R, N]. DELTA: δ for the passes that come after, fp32 [R, N], or None.
    """
    tile, tiles = tl.program_id(0), tl.num_programs(0)
    row = tl.program_id(1).to(tl.int64)
    batch, head = row // H, row % H
    i, real, start, end, limit, near_low, near_high, first, count = tile_of(
        ORDER, START, END, FROM, COUNT, NEAR_LOW, NEAR_HIGH, tile, tiles, row, batch, N, S, offset, chunk, CAUSAL,
        LOCAL, WINDOW, TILE,
    )  # fmt: skip
    g2 = squared_gamma(GAMMA, head)
    q = columns(Q + row * N * D, i, real, D)
    d = tl.arange(0, WP)
    column = d < W
    both = real[:, None] & column[None, :]
    do = tl.load(DO + batch * o_b + head * o_h + i.to(tl.int64)[:, None] * o_n + d[None, :], mask=both, other=0.0)
    if LOCAL:
        delta = tl.load(DELTA + row * N + i, mask=real, other=0.0)
    else:
        o = tl.load(OUT + (row * N + i)[:, None] * W + d[None, :], mask=both, other=0.0)
        delta = tl.sum(do.to(tl.float32) * o.to(tl.float32), 1)
        if DELTA is not None:
            tl.store(DELTA + row * N + i, delta, mask=real)
    inverse = 1.0 / tl.maximum(tl.load(DEN + row * N + i, mask=real, other=1.0), TINY)
    V += batch * v_b + head // G * v_h
    DK += row * S * D
    DV += (batch * (H // G) + head // G) * S * W
    LIST, PICKED, K = sources_of(LIST, PICKED, K, tile, tiles, row, batch, S, entries, D, LOCAL, ROOM)
    scale_v, scale_k = 1.0, 1.0
    if FIXED:
        scale_v, scale_k = tl.load(SCALES), tl.load(SCALES + 1)
    dg = tl.zeros([TILE], tl.float32)
    dq = ()
    for _ in tl.static_range(D):
        dq = dq + (tl.zeros([TILE], tl.float32),)
    for t0 in range(0, count, STEP):
        p, k, allowed = entries_of(
            t0 + tl.arange(0, STEP), count, first, start, end, limit, near_low, near_high, LIST, PICKED, K, entries, D,
            LOCAL, LISTED, WINDOW and not CAUSAL,
        )  # fmt: skip
        v = tl.load(V + p.to(tl.int64)[:, None] * v_n + d[None, :], mask=column[None, :], other=0.0)
        x = differences(q, k, D)
        weight = tl.where(allowed, reciprocal(square_sum(x, D) + g2), 0.0)
        share = weight * inverse[:, None]
        dp = product(do, tl.trans(v), PRECISION)
        ds = share * (dp - delta[:, None]) * weight * -2.0
        dg += tl.sum(ds, 1)
        used = tl.max(allowed.to(tl.int32), 0) > 0
        so_far = ()
        for c in tl.static_range(D):
            part = ds * x[c]
            so_far = so_far + (dq[c] + tl.sum(part, 1),)
            if not LOCAL:
                add(DK + p * D + c, -tl.sum(part, 0), used, scale_k, FIXED)
        dq = so_far
        if not LOCAL:
            dv = product(tl.trans(share.to(do.dtype)), do, PRECISION)
            add(DV + p.to(tl.int64)[:, None] * W + d[None, :], dv, used[:, None] & column[None, :], scale_v, FIXED)
    gamma = tl.load(GAMMA + head).to(tl.float32)
    dg = tl.where(gamma >= GAMMA_FLOOR, dg * gamma, 0.0)  # ∂γ²/∂γ = 2γ, and dg holds the 2
    if LOCAL:
        dg += tl.load(DG + row * N + i, mask=real, other=0.0)
    tl.store(DG + row * N + i, dg, mask=real)
    for c in tl.static_range(D):
        at = DQ + (row * N + i) * D + c
        if LOCAL:
            tl.store(at, dq[c] + tl.load(at, mask=real, other=0.0), mask=real)
        else:
            tl.store(at, dq[c], mask=real)
