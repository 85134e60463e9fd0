"""Weights with content, exp(a·b/√c) / (‖q − k‖² + γ²), over the tiles of an index: forward and backward.

As `attend_triton`, but exponentials need their largest exponent subtracted. A tile keeps the largest so far for each
query and shrinks its sums whenever a larger one comes; what it leaves for the backward pass is one number a query, the
logarithm (base 2) of its sum of weights. A pass over the local window goes first and hands sums and largest exponents
on. There is no mean token.
"""

from __future__ import annotations

import triton
import triton.language as tl

from zeta_bench.ops.attend_triton import add, differences, entries_of, sources_of, tile_of
from zeta_bench.ops.lists_triton import columns
from zeta_bench.ops.weights_triton import GAMMA_FLOOR, TINY, product, reciprocal, square_sum, squared_gamma

NONE = tl.constexpr(-1e38)
"""Exponent of a query that has no key yet: finite, so that differences of two are numbers."""


@triton.jit
def _rows(X, p, e, x_n, here, WIDTH: tl.constexpr):
    """Rows p of X, [len(p), len(e)], zeros beyond WIDTH and where nothing is `here`."""
    return tl.load(X + p.to(tl.int64)[:, None] * x_n + e[None, :], mask=here[:, None] & (e < WIDTH)[None, :], other=0.0)


@triton.jit
def content_forward(
    Q, K, A, B, V, GAMMA, ORDER, LIST, START, END, FROM, COUNT, PICKED, NEAR_LOW, NEAR_HIGH, SUM, TOP, LOG, OUT, N, S,
    H, G, offset, chunk, entries, scale, a_b, a_h, a_n, b_b, b_h, b_n, v_b, v_h, v_n,
    D: tl.constexpr, C: tl.constexpr, CP: tl.constexpr, W: tl.constexpr, WP: tl.constexpr, CAUSAL: tl.constexpr,
    LOCAL: tl.constexpr, LISTED: tl.constexpr, WINDOW: tl.constexpr, TILE: tl.constexpr, STEP: tl.constexpr,
    ROOM: tl.constexpr, EXACT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Outputs of a tile; or, LOCAL, SUM, TOP and (in LOG) the sum of weights over its local windows.

    scale: log₂ e / √c. SUM: fp32 [R, N, W]; TOP, LOG: fp32 [R, N]. C, W: widths of content and values; CP, WP: the
    powers of two they are padded to. EXACT: precision of products of a and b for `tl.dot`, PRECISION: of those with
    values.
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
    d, e = tl.arange(0, WP), tl.arange(0, CP)
    a = _rows(A + batch * a_b + head * a_h, i, e, a_n, real, C)
    B += batch * b_b + head * b_h
    V += batch * v_b + head // G * v_h
    LIST, PICKED, K = sources_of(LIST, PICKED, K, tile, tiles, row, batch, S, entries, D, LOCAL, ROOM)
    out = (row * N + i)[:, None] * W + d[None, :]
    both = real[:, None] & (d < W)[None, :]
    if WINDOW and not LOCAL:
        top = tl.load(TOP + row * N + i, mask=real, other=NONE)
        den = tl.load(LOG + row * N + i, mask=real, other=0.0)
        total = tl.load(SUM + out, mask=both, other=0.0)
    else:
        top = tl.full([TILE], NONE, tl.float32)
        den = tl.zeros([TILE], tl.float32)
        total = tl.zeros([TILE, WP], tl.float32)
    for t0 in range(0, count, STEP):
        p, k, allowed = entries_of(
            t0 + tl.arange(0, STEP), count, first, start, end, limit, near_low, near_high, LIST, PICKED, K, entries, D,
            LOCAL, LISTED, WINDOW and not CAUSAL,
        )  # fmt: skip
        everywhere = p >= 0
        b = _rows(B, p, e, b_n, everywhere, C)
        v = _rows(V, p, d, v_n, everywhere, W)
        s = tl.where(allowed, product(a, tl.trans(b), EXACT) * scale, NONE)
        higher = tl.maximum(top, tl.max(s, 1))
        shrink = tl.exp2(top - higher)
        weight = reciprocal(square_sum(differences(q, k, D), D) + g2)
        weight = tl.where(allowed, tl.exp2(s - higher[:, None]) * weight, 0.0)
        den = den * shrink + tl.sum(weight, 1)
        total = total * shrink[:, None] + product(weight.to(v.dtype), v, PRECISION)
        top = higher
    if LOCAL:
        tl.store(SUM + out, total, mask=both)
        tl.store(TOP + row * N + i, top, mask=real)
        tl.store(LOG + row * N + i, den, mask=real)
    else:
        total = total / tl.maximum(den, TINY)[:, None]
        tl.store(OUT + out, total.to(OUT.dtype.element_ty), mask=both)
        tl.store(LOG + row * N + i, top + tl.log2(tl.maximum(den, TINY)), mask=real)


@triton.jit
def content_backward(
    Q, K, A, B, V, GAMMA, ORDER, LIST, START, END, FROM, COUNT, PICKED, NEAR_LOW, NEAR_HIGH, LOG, OUT, DO, DQ, DK, DA,
    DB, DV, DG, SCALES, N, S, H, G, offset, chunk, entries, scale, root, a_b, a_h, a_n, b_b, b_h, b_n, v_b, v_h, v_n,
    o_b, o_h, o_n,
    D: tl.constexpr, C: tl.constexpr, CP: tl.constexpr, W: tl.constexpr, WP: tl.constexpr, CAUSAL: tl.constexpr,
    LOCAL: tl.constexpr, LISTED: tl.constexpr, WINDOW: tl.constexpr, FIXED: tl.constexpr, TILE: tl.constexpr,
    STEP: tl.constexpr, ROOM: tl.constexpr, EXACT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of a tile, as `attend_triton.tile_backward`; LOCAL: added to what the pass over the index has left.

    root: 1 / √c. The gradient of the logarithm of a weight is g = share · (dO·v − δ); −2 · g / (‖q − k‖² + γ²) is what
    differences of coordinates are multiplied by, and g / √c what rows of a and b are.
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
    d, e = tl.arange(0, WP), tl.arange(0, CP)
    a = _rows(A + batch * a_b + head * a_h, i, e, a_n, real, C)
    do = _rows(DO + batch * o_b + head * o_h, i, d, o_n, real, W)
    o = _rows(OUT + row * N * W, i, d, W, real, W)
    delta = tl.sum(do.to(tl.float32) * o.to(tl.float32), 1)
    log = tl.load(LOG + row * N + i, mask=real, other=0.0)
    B += batch * b_b + head * b_h
    V += batch * v_b + head // G * v_h
    DK += row * S * D
    DB += row * S * C
    DV += (batch * (H // G) + head // G) * S * W
    LIST, PICKED, K = sources_of(LIST, PICKED, K, tile, tiles, row, batch, S, entries, D, LOCAL, ROOM)
    scale_v, scale_k, scale_b = 1.0, 1.0, 1.0
    if FIXED:
        scale_v, scale_k, scale_b = tl.load(SCALES), tl.load(SCALES + 1), tl.load(SCALES + 2)
    dg = tl.zeros([TILE], tl.float32)
    da = tl.zeros([TILE, CP], tl.float32)
    dq = ()
    for _ in tl.static_range(D):
        dq = dq + (tl.zeros([TILE], tl.float32),)
    for t0 in range(0, count, STEP):
        p, k, allowed = entries_of(
            t0 + tl.arange(0, STEP), count, first, start, end, limit, near_low, near_high, LIST, PICKED, K, entries, D,
            LOCAL, LISTED, WINDOW and not CAUSAL,
        )  # fmt: skip
        everywhere = p >= 0
        b = _rows(B, p, e, b_n, everywhere, C)
        v = _rows(V, p, d, v_n, everywhere, W)
        x = differences(q, k, D)
        weight = reciprocal(square_sum(x, D) + g2)
        s = tl.where(allowed, product(a, tl.trans(b), EXACT) * scale - log[:, None], 0.0)  # exp2 of others may be ∞
        share = tl.where(allowed, tl.exp2(s) * weight, 0.0)
        g = share * (product(do, tl.trans(v), PRECISION) - delta[:, None])
        ds = g * weight * -2.0
        dg += tl.sum(ds, 1)
        used = tl.max(allowed.to(tl.int32), 0) > 0
        so_far = ()
        for c in tl.static_range(D):
            part = ds * x[c]
            so_far = so_far + (dq[c] + tl.sum(part, 1),)
            add(DK + p * D + c, -tl.sum(part, 0), used, scale_k, FIXED)
        dq = so_far
        dv = product(tl.trans(share.to(do.dtype)), do, PRECISION)
        add(DV + p.to(tl.int64)[:, None] * W + d[None, :], dv, used[:, None] & (d < W)[None, :], scale_v, FIXED)
        g = g.to(a.dtype)
        da += product(g, b, EXACT)
        db = product(tl.trans(g), a, EXACT) * root
        add(DB + p.to(tl.int64)[:, None] * C + e[None, :], db, used[:, None] & (e < C)[None, :], scale_b, FIXED)
    gamma = tl.load(GAMMA + head).to(tl.float32)
    at = row * N + i
    wide = DA + at[:, None] * C + e[None, :]
    columns_of_a = real[:, None] & (e < C)[None, :]
    dg = tl.where(gamma >= GAMMA_FLOOR, dg * gamma, 0.0)  # ∂γ²/∂γ = 2γ, and dg holds the 2
    da *= root
    if LOCAL:
        dg += tl.load(DG + at, mask=real, other=0.0)
        da += tl.load(wide, mask=columns_of_a, other=0.0)
    tl.store(DG + at, dg, mask=real)
    tl.store(wide, da.to(DA.dtype.element_ty), mask=columns_of_a)
    for c in tl.static_range(D):
        if LOCAL:
            tl.store(DQ + at * D + c, dq[c] + tl.load(DQ + at * D + c, mask=real, other=0.0), mask=real)
        else:
            tl.store(DQ + at * D + c, dq[c], mask=real)
