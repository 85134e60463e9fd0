"""The local window: which keys are near each query, and what reaches those keys in the backward pass.

A window's keys stand side by side, as do the queries that use a key. So the gradient of keys and values is gathered:
a program takes some keys and goes through the queries whose windows may hold them. It runs last of all tiles and takes
along what the pass over the index has added up, so that nothing is read twice. On the way it adds up the queries' own
gradients atomically, a few numbers a query; where the order must not matter another pass gathers those.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from zeta_bench.ops._tuning import near_tiles
from zeta_bench.ops.launch import Kernel, blocks
from zeta_bench.ops.lists_triton import columns
from zeta_bench.ops.means_triton import padded
from zeta_bench.ops.options import Options
from zeta_bench.ops.weights_triton import GAMMA_FLOOR, TINY, counted_at, product, reciprocal, square_sum, squared_gamma


@dataclass(frozen=True)
class Near:
    """The local windows [B, N], int32: `start` and `end` among valid keys, `low` and `high` as positions.

    `real`: positions of the valid keys, int32 [B, S], or None where all are.
    """

    start: Tensor
    end: Tensor
    low: Tensor
    high: Tensor
    real: Tensor | None

    @property
    def places(self) -> tuple[Tensor, ...]:
        """What a tile kernel over the windows reads in place of `zeta_triton.Index.places`."""
        real = self.start if self.real is None else self.real
        return (self.start, real, self.start, self.end, self.start, self.start, self.start, self.low, self.high)


@triton.jit
def _window(COUNTED, i, real, S, offset, window, CAUSAL: tl.constexpr):
    """First rank, and last + 1, of the `window` valid keys around, or (CAUSAL) up to, each query's own position."""
    p = tl.minimum(i + offset, S - 1)
    r = counted_at(COUNTED, 0, p, S, real & (p >= 0))
    if CAUSAL:
        return tl.maximum(r - window, 0), r
    else:
        total = counted_at(COUNTED, 0, S - 1, S, S > 0)
        start = tl.minimum(tl.maximum(r - window // 2, 0), tl.maximum(total - window, 0))
        return start, tl.minimum(start + window, total)


@triton.jit
def _windows(
    COUNTED, REAL, START, END, LOW, HIGH, N, S, offset, window, CAUSAL: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """`_window` of every query, and the positions of its first key and after its last."""
    batch = tl.program_id(1).to(tl.int64)
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    if COUNTED is not None:
        COUNTED += batch * S
    start, end = _window(COUNTED, i, i < N, S, offset, window, CAUSAL)
    low, high = start, end
    if REAL is not None:
        some = (i < N) & (end > start)
        low = tl.load(REAL + batch * S + start, mask=some, other=0)
        high = tl.load(REAL + batch * S + end - 1, mask=some, other=-1) + 1
    tl.store(START + batch * N + i, start, mask=i < N)
    tl.store(END + batch * N + i, end, mask=i < N)
    tl.store(LOW + batch * N + i, low, mask=i < N)
    tl.store(HIGH + batch * N + i, high, mask=i < N)


@triton.jit
def _place(REAL, rank, total, N):
    """Position of the valid key of some rank, N beyond the last."""
    if REAL is None:
        return tl.where(rank < total, rank, N)
    else:
        return tl.load(REAL + rank, mask=rank < total, other=N)


@triton.jit
def _users(COUNTED, REAL, first, last, S, N, offset, window, CAUSAL: tl.constexpr):
    """The queries whose windows may hold keys at positions first to last: from the first one to before the second.

    Ranks count valid keys. A window reaches at most `window` ranks to either side of its query.
    """
    total = counted_at(COUNTED, 0, S - 1, S, S > 0)
    newest = counted_at(COUNTED, 0, last, S, S > 0) - 1
    stop = _place(REAL, newest + window, total, N + offset) - offset
    if not CAUSAL:
        stop += 1
    start = first - offset
    if not CAUSAL:
        oldest = counted_at(COUNTED, 0, first, S, S > 0) - 1
        start = _place(REAL, tl.maximum(oldest - window, 0), total, 0) - offset
        start = tl.where(oldest > window, start, 0)
    return tl.maximum(start, 0), tl.minimum(stop, N)


@triton.jit
def _put(P, OUT, x, scale, mask, FIXED: tl.constexpr, LAST: tl.constexpr):
    """OUT = P + x, as `attend_triton.add` counts; LAST: back from fixed point."""
    if FIXED:
        total = tl.load(P, mask=mask, other=0) + (x * scale).to(tl.int64)
        if LAST:
            tl.store(OUT, (total.to(tl.float32) * (1.0 / scale)).to(OUT.dtype.element_ty), mask=mask)
        else:
            tl.store(OUT, total, mask=mask)
    else:
        tl.store(OUT, (tl.load(P, mask=mask, other=0.0) + x).to(OUT.dtype.element_ty), mask=mask)


@triton.jit
def _near_keys(
    Q, K, V, GAMMA, COUNTED, VALID, REAL, DEN, DELTA, DO, ACC_K, ACC_V, SCALES, DQ, DG, DK, DV, N, S, H, G,
    offset, window, v_b, v_h, v_n, o_b, o_h, o_n,
    D: tl.constexpr, W: tl.constexpr, WP: tl.constexpr, CAUSAL: tl.constexpr, FIXED: tl.constexpr, LAST: tl.constexpr,
    TILE: tl.constexpr, STEP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """DK, DV of TILE keys = ACC_K, ACC_V and what comes through the windows. Gradients as in `tile_backward`.

    Unless FIXED, what reaches the queries and γ is added to DQ and DG, by whichever program comes first.
    """
    place = tl.program_id(1).to(tl.int64)
    groups = H // G
    batch, group = place // groups, place % groups
    first = tl.program_id(0) * TILE
    p = first + tl.arange(0, TILE)
    there = p < S
    rank = p
    if COUNTED is not None:
        COUNTED += batch * S
        REAL += batch * S
        there = there & (tl.load(VALID + batch * S + p, mask=there, other=0) != 0)
        rank = tl.load(COUNTED + p, mask=there, other=0) - 1
    start, stop = _users(COUNTED, REAL, first, tl.minimum(first + TILE, S) - 1, S, N, offset, window, CAUSAL)
    scale_v, scale_k = 1.0, 1.0
    if FIXED:
        scale_v, scale_k = tl.load(SCALES), tl.load(SCALES + 1)
    d = tl.arange(0, WP)
    column = d < W
    v = V + batch * v_b + group * v_h + p.to(tl.int64)[:, None] * v_n + d[None, :]
    v = tl.load(v, mask=there[:, None] & column[None, :], other=0.0)
    dv = tl.zeros([TILE, WP], tl.float32)
    for g in range(G):
        head = group * G + g
        row = batch * H + head
        g2 = squared_gamma(GAMMA, head)
        gamma = tl.load(GAMMA + head).to(tl.float32)
        gamma = tl.where(gamma >= GAMMA_FLOOR, gamma, 0.0)
        k = columns(K + row * S * D, p, there, D)
        dk = ()
        for _ in tl.static_range(D):
            dk = dk + (tl.zeros([TILE], tl.float32),)
        for i0 in range(start, stop, STEP):
            i = i0 + tl.arange(0, STEP)
            real = i < stop
            low, high = _window(COUNTED, i, real, S, offset, window, CAUSAL)
            allowed = real[:, None] & there[None, :] & (rank[None, :] >= low[:, None]) & (rank[None, :] < high[:, None])
            q = columns(Q + row * N * D, i, real, D)
            do = DO + batch * o_b + head * o_h + i.to(tl.int64)[:, None] * o_n + d[None, :]
            do = tl.load(do, mask=real[:, None] & column[None, :], other=0.0)
            inverse = 1.0 / tl.maximum(tl.load(DEN + row * N + i, mask=real, other=1.0), TINY)
            delta = tl.load(DELTA + row * N + i, mask=real, other=0.0)
            x = ()
            for c in tl.static_range(D):
                x = x + (q[c][:, None] - k[c][None, :],)
            weight = tl.where(allowed, reciprocal(square_sum(x, D) + g2), 0.0)
            share = weight * inverse[:, None]
            ds = share * (product(do, tl.trans(v), PRECISION) - delta[:, None]) * weight * 2.0
            so_far = ()
            for c in tl.static_range(D):
                part = ds * x[c]
                so_far = so_far + (dk[c] + tl.sum(part, 0),)
                if not FIXED:
                    tl.atomic_add(DQ + (row * N + i) * D + c, -tl.sum(part, 1), mask=real, sem="relaxed")
            dk = so_far
            if not FIXED:
                tl.atomic_add(DG + row * N + i, -tl.sum(ds, 1) * gamma, mask=real, sem="relaxed")
            dv += product(tl.trans(share.to(do.dtype)), do, PRECISION)
        for c in tl.static_range(D):
            at = (row * S + p) * D + c
            _put(ACC_K + at, DK + at, dk[c], scale_k, p < S, FIXED, LAST)
    at = (place * S + p)[:, None] * W + d[None, :]
    _put(ACC_V + at, DV + at, dv, scale_v, (p < S)[:, None] & column[None, :], FIXED, LAST)


WINDOWS, NEAR_KEYS = Kernel(_windows), Kernel(_near_keys)


def windows(key: Hashable, q: Tensor, S: int, valid: Tensor | None, count: Tensor | None, o: Options) -> Near:
    """The local windows of q's queries over S keys; `count` is `means_triton.counted`."""
    B, _, N, _ = q.shape
    real = None if valid is None else (~valid).to(torch.uint8).sort(dim=-1, stable=True).indices.to(torch.int32)
    start, end, low, high = torch.empty(4, B, N, dtype=torch.int32, device=q.device)
    WINDOWS(key, (blocks(N, 256), B), count, real, start, end, low, high, N, S, o.offset, o.local_window, o.causal, 256)
    return Near(start, end, low, high, real)


def gradients(
    key: Hashable,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gamma: Tensor,
    valid: Tensor | None,
    count: Tensor | None,
    n: Near,
    den: Tensor,
    delta: Tensor,
    do: Tensor,
    acc_k: Tensor,
    acc_v: Tensor,
    scales: Tensor | None,
    dq: Tensor,
    dg: Tensor,
    o: Options,
    precision: str,
) -> tuple[Tensor, Tensor]:
    """What has been added up for k and v, with what reaches them through the windows.

    Args:
        key: as in `launch.Kernel`.
        q: fp32 [B, H, N, d], dense.
        k: fp32 [B, H, S, d], dense.
        v: [B, Hv, S, dv], last dimension dense.
        gamma: fp32 [H].
        valid: bool [B, S] or None.
        count: of `means_triton.counted`.
        n: of `windows`.
        den: fp32 [B, H, N], sums of weights.
        delta: fp32 [B, H, N], dO · O.
        do: [B, H, N, dv], last dimension dense.
        acc_k: [B, H, S, d], fp32, or int64 with `scales`.
        acc_v: [B, Hv, S, dv], the same.
        scales: fp32 [2], what acc_v and acc_k were multiplied by, or None.
        dq: fp32 [B, H, N, d]; without `scales` it is added to, as is dg.
        dg: fp32 [B, H, N], each query's share of γ's gradient.
        o: options. With a mean token the result is as acc_k and acc_v are; otherwise fp32 and v's dtype.
        precision: of products in fp32.
    """
    B, H, N, D = q.shape
    S, W = v.shape[2:]
    Hv, last, shape = v.shape[1], not o.mean, near_tiles(W)
    dk = torch.empty_like(k) if last and scales is not None else acc_k
    dv = torch.empty(v.shape, dtype=v.dtype, device=v.device) if last and acc_v.dtype != v.dtype else acc_v
    NEAR_KEYS(
        key, (blocks(S, shape.queries), B * Hv), q, k, v, gamma, count, valid, n.real, den, delta, do,
        acc_k, acc_v, scales, dq, dg, dk, dv, N, S, H, H // Hv, o.offset, o.local_window, *v.stride()[:3],
        *do.stride()[:3], D, W, max(16, padded(W)), o.causal, scales is not None, last, shape.queries, shape.keys.step,
        precision,
        **shape.keys.launch,
    )  # fmt: skip
    return dk, dv
