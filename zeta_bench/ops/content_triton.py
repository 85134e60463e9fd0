"""Weights with content, exp(a·b/√c) / (‖q − k‖² + γ²), over the tiles of an index: forward and backward.

As `attend_triton`, but exponentials need their largest exponent subtracted. A tile keeps the largest so far for each
query and shrinks its sums whenever a larger one comes; what it leaves for the backward pass is one number a query, the
logarithm (base 2) of its sum of weights. Keys come through the index alone: there is no mean token and no local window.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from zeta_bench.ops._tuning import content_tiles
from zeta_bench.ops.attend_triton import add, differences, entries_of, tile_of
from zeta_bench.ops.attention import Content
from zeta_bench.ops.finish_triton import finish
from zeta_bench.ops.geometry import ROOM
from zeta_bench.ops.launch import Kernel, blocks, key_of
from zeta_bench.ops.lists_triton import columns
from zeta_bench.ops.options import Options
from zeta_bench.ops.weights_triton import GAMMA_FLOOR, TINY, product, reciprocal, square_sum, squared_gamma
from zeta_bench.ops.zeta_triton import Index, largest_norm, padded, precision, scales, zeros

LOG2_E = 1.4426950408889634

NONE = tl.constexpr(-1e38)
"""Exponent of a query that has no key yet: finite, so that differences of two are numbers."""


@triton.jit
def _rows(X, p, e, x_n, here, WIDTH: tl.constexpr):
    """Rows p of X, [len(p), len(e)], zeros beyond WIDTH and where nothing is `here`."""
    return tl.load(X + p.to(tl.int64)[:, None] * x_n + e[None, :], mask=here[:, None] & (e < WIDTH)[None, :], other=0.0)


@triton.jit
def _content_forward(
    Q, K, A, B, V, GAMMA, ORDER, LIST, START, END, FROM, COUNT, PICKED, LOG, OUT, N, S, H, G, offset, chunk, entries,
    scale, a_b, a_h, a_n, b_b, b_h, b_n, v_b, v_h, v_n,
    D: tl.constexpr, C: tl.constexpr, CP: tl.constexpr, W: tl.constexpr, WP: tl.constexpr, CAUSAL: tl.constexpr,
    TILE: tl.constexpr, STEP: tl.constexpr, ROOM: tl.constexpr, EXACT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Outputs of a tile. scale: log₂ e / √c. LOG: fp32 [R, N]. C, W: widths; CP, WP: powers of two they are padded to.

    EXACT: precision of products of a and b, PRECISION: of those with values, for `tl.dot`.
    """
    tile, tiles = tl.program_id(0), tl.num_programs(0)
    row = tl.program_id(1).to(tl.int64)
    batch, head = row // H, row % H
    i, real, start, end, limit, _, _, first, count = tile_of(
        ORDER, START, END, FROM, COUNT, ORDER, ORDER, tile, tiles, row, batch, N, S, offset, chunk, CAUSAL, False,
        False, TILE,
    )  # fmt: skip
    g2 = squared_gamma(GAMMA, head)
    q = columns(Q + row * N * D, i, real, D)
    d, e = tl.arange(0, WP), tl.arange(0, CP)
    a = _rows(A + batch * a_b + head * a_h, i, e, a_n, real, C)
    B += batch * b_b + head * b_h
    V += batch * v_b + head // G * v_h
    LIST, PICKED, K = LIST + row * entries, PICKED + (row * tiles + tile) * ROOM, K + row * D * entries
    top = tl.full([TILE], NONE, tl.float32)
    den = tl.zeros([TILE], tl.float32)
    total = tl.zeros([TILE, WP], tl.float32)
    for t0 in range(0, count, STEP):
        p, k, allowed = entries_of(
            t0 + tl.arange(0, STEP), count, first, start, end, limit, limit, limit, LIST, PICKED, K, entries, D, False,
            True, False,
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
    total = total / tl.maximum(den, TINY)[:, None]
    out = OUT + (row * N + i)[:, None] * W + d[None, :]
    tl.store(out, total.to(OUT.dtype.element_ty), mask=real[:, None] & (d < W)[None, :])
    tl.store(LOG + row * N + i, top + tl.log2(tl.maximum(den, TINY)), mask=real)


@triton.jit
def _content_backward(
    Q, K, A, B, V, GAMMA, ORDER, LIST, START, END, FROM, COUNT, PICKED, LOG, OUT, DO, DQ, DK, DA, DB, DV, DG, SCALES,
    N, S, H, G, offset, chunk, entries, scale, root, a_b, a_h, a_n, b_b, b_h, b_n, v_b, v_h, v_n, o_b, o_h, o_n,
    D: tl.constexpr, C: tl.constexpr, CP: tl.constexpr, W: tl.constexpr, WP: tl.constexpr, CAUSAL: tl.constexpr,
    FIXED: tl.constexpr, TILE: tl.constexpr, STEP: tl.constexpr, ROOM: tl.constexpr, EXACT: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of a tile, as `attend_triton.tile_backward`. root: 1 / √c. DA: in a's dtype, dense.

    The gradient of the logarithm of a weight is g = share · (dO·v − δ); −2 · g / (‖q − k‖² + γ²) is what differences
    of coordinates are multiplied by, and g / √c what rows of a and b are.
    """
    tile, tiles = tl.program_id(0), tl.num_programs(0)
    row = tl.program_id(1).to(tl.int64)
    batch, head = row // H, row % H
    i, real, start, end, limit, _, _, first, count = tile_of(
        ORDER, START, END, FROM, COUNT, ORDER, ORDER, tile, tiles, row, batch, N, S, offset, chunk, CAUSAL, False,
        False, TILE,
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
    LIST, PICKED, K = LIST + row * entries, PICKED + (row * tiles + tile) * ROOM, K + row * D * entries
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
            t0 + tl.arange(0, STEP), count, first, start, end, limit, limit, limit, LIST, PICKED, K, entries, D, False,
            True, False,
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
    tl.store(DG + row * N + i, tl.where(gamma >= GAMMA_FLOOR, dg * gamma, 0.0), mask=real)
    at = DA + (row * N + i)[:, None] * C + e[None, :]
    tl.store(at, (da * root).to(DA.dtype.element_ty), mask=real[:, None] & (e < C)[None, :])
    for c in tl.static_range(D):
        tl.store(DQ + (row * N + i) * D + c, dq[c], mask=real)


FORWARD, BACKWARD = Kernel(_content_forward), Kernel(_content_backward)


def forward(
    q: Tensor, k: Tensor, v: Tensor, gamma: Tensor, content: Content, ix: Index, o: Options
) -> tuple[Tensor, Tensor]:
    """Attention over an index; arguments as in `zeta_triton.forward`.

    Args:
        q: fp32 [B, H, N, d], dense.
        k: [B, H, S, d], for its shape.
        v: [B, Hv, S, dv], last dimension dense.
        gamma: fp32 [H].
        content: [B, H, N, c] and [B, H, S, c] of one dtype, last dimensions dense.
        ix: of `zeta_triton.index`.
        o: options.

    Returns:
        Output [B, H, N, dv] in v's dtype, and log₂ of each query's sum of weights, fp32 [B, H, N].
    """
    B, H, N, _ = q.shape
    out = torch.empty(B, H, N, v.shape[-1], dtype=v.dtype, device=q.device)
    log = torch.empty(B, H, N, dtype=torch.float32, device=q.device)
    shape = content_tiles(_row(v, content))
    FORWARD(
        key_of(o, q, k, v, gamma, *content), (blocks(N, shape.queries), B * H), *_read(q, v, gamma, content, ix), log,
        out, *_sizes(q, k, v, ix, o), _root(content) * LOG2_E, *_strides(*content, v), *_widths(q, v, content),
        o.causal, shape.queries, shape.forward.step, ROOM, precision(content[0]), precision(v), **shape.forward.launch,
    )  # fmt: skip
    return out, log


def backward(
    do: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gamma: Tensor,
    content: Content,
    out: Tensor,
    log: Tensor,
    ix: Index,
    o: Options,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k (fp32), v (its dtype), gamma (fp32) and content (its dtype) for do [B, H, N, dv].

    The other arguments are those of `forward` and what it returned.
    """
    a, b = content
    shape, key = content_tiles(_row(v, content)), key_of(o, q, k, v, gamma, a, b, do)
    kind = torch.int64 if o.deterministic else torch.float32
    dq, dg = torch.empty_like(q), torch.empty_like(log)
    da = torch.empty(a.shape, dtype=a.dtype, device=a.device)
    dk, dv = zeros(k.shape, v.shape, kind, q.device, together=o.deterministic or v.dtype != kind)
    db = torch.zeros(b.shape, dtype=kind, device=b.device)
    fixed = _scales(do, v, gamma, log, a) if o.deterministic else None
    BACKWARD(
        key, (blocks(q.shape[2], shape.queries), q.shape[0] * q.shape[1]), *_read(q, v, gamma, content, ix), log, out,
        do, dq, dk, da, db, dv, dg, fixed, *_sizes(q, k, v, ix, o), _root(content) * LOG2_E, _root(content),
        *_strides(a, b, v, do), *_widths(q, v, content), o.causal, o.deterministic, shape.queries, shape.backward.step,
        ROOM, precision(a), precision(v), **shape.backward.launch,
    )  # fmt: skip
    dv = dv if dv.dtype == v.dtype else finish((key, "v"), dv, fixed, v.dtype)
    dk = dk if fixed is None else finish((key, "k"), dk, fixed[1:], torch.float32)
    db = db if db.dtype == b.dtype else finish((key, "b"), db, None if fixed is None else fixed[2:], b.dtype)
    return dq, dk, dv, dg.sum((0, 2)), da, db


def _read(q: Tensor, v: Tensor, gamma: Tensor, content: Content, ix: Index) -> tuple[Tensor, ...]:
    lists = (ix.order, ix.positions, ix.spans[0], ix.spans[1], ix.reads[0], ix.reads[1], ix.picked)
    return (q, ix.planes, *content, v, gamma, *lists)


def _sizes(q: Tensor, k: Tensor, v: Tensor, ix: Index, o: Options) -> tuple[int, ...]:
    H, S = k.shape[1:3]
    return (q.shape[2], S, H, H // v.shape[1], o.offset, o.chunk, ix.positions.shape[1])


def _widths(q: Tensor, v: Tensor, content: Content) -> tuple[int, ...]:
    C, W = content[0].shape[-1], v.shape[-1]
    return (q.shape[-1], C, padded(C), W, padded(W))


def _row(v: Tensor, content: Content) -> int:
    """Bytes of the wider row."""
    return max(t.shape[-1] * t.element_size() for t in (v, content[0]))


def _strides(*tensors: Tensor) -> list[int]:
    return [stride for t in tensors for stride in t.stride()[:3]]


def _root(content: Content) -> float:
    return content[0].shape[-1] ** -0.5


def _scales(do: Tensor, v: Tensor, gamma: Tensor, log: Tensor, a: Tensor) -> Tensor:
    """As `zeta_triton.scales`, and a third for dB, fp32 [3]: |g| ≤ 2 ‖dO‖ ‖v‖, since a share is at most 1."""
    bound = 2 * largest_norm(do) * largest_norm(v) * largest_norm(a) * (do.shape[2] * a.shape[-1] ** -0.5)
    return torch.cat((scales(do, v, gamma, log), (2.0**61 / bound.clamp(min=1e-12))[None]))
