"""Running means of keys and values (the mean token), their gradient, and the last step of every gradient.

A mean over a prefix is a scan: sums of blocks, a scan of those, a scan inside each block. Its gradient is the same scan
from the end. Sums are fp32 in a fixed order.
"""

from __future__ import annotations

from collections.abc import Hashable

import torch
import triton
import triton.language as tl
from torch import Tensor

from zeta_bench.ops.launch import Kernel, blocks, power_of_two

BLOCK = 128
PREFIX, ALL = 1, 2


@triton.jit
def _keys(X, VALID, batch, group, s, d, x_b, x_h, x_n, W, S):
    """Rows s of one head of the keys or values, fp32; 0 for padding."""
    inside = s < S
    if VALID is not None:
        inside = inside & (tl.load(VALID + batch * S + s, mask=inside, other=0) != 0)
    x = X + batch * x_b + group * x_h + s.to(tl.int64)[:, None] * x_n + d[None, :]
    return tl.load(x, mask=inside[:, None] & (d < W)[None, :], other=0.0).to(tl.float32)


@triton.jit
def _arrivals(X, WEIGHT, batch, group, s, d, x_b, x_h, x_n, W, N, H, G, offset):
    """Gradient of the means at positions s, from the queries of the group's heads that stand there, fp32."""
    i = s - offset
    inside = (i >= 0) & (i < N)
    mask = inside[:, None] & (d < W)[None, :]
    total = tl.zeros([s.shape[0], d.shape[0]], tl.float32)
    for g in range(G):
        head = group * G + g
        x = X + batch * x_b + head * x_h + i.to(tl.int64)[:, None] * x_n + d[None, :]
        part = tl.load(x, mask=mask, other=0.0).to(tl.float32)
        if WEIGHT is not None:
            part *= tl.load(WEIGHT + (batch * H + head) * N + i, mask=inside, other=0.0)[:, None]
        total += part
    return total


@triton.jit
def _shares(COUNTED, batch, s, S, PREFIX: tl.constexpr):
    """1 / (how many keys the mean at s is over)."""
    place = tl.minimum(tl.maximum(s, 0), S - 1) if PREFIX else s * 0 + S - 1
    return 1.0 / tl.maximum(tl.load(COUNTED + batch * S + place), 1).to(tl.float32)


@triton.jit
def _key_sums(X, VALID, SUMS, x_b, x_h, x_n, W, S, groups, WP: tl.constexpr, BLOCK: tl.constexpr):
    """Sum of each block of keys."""
    block, blocks = tl.program_id(0), tl.num_programs(0)
    row = tl.program_id(1).to(tl.int64)
    s, d = block * BLOCK + tl.arange(0, BLOCK), tl.arange(0, WP)
    x = _keys(X, VALID, row // groups, row % groups, s, d, x_b, x_h, x_n, W, S)
    tl.store(SUMS + (row * blocks + block) * W + d, tl.sum(x, 0), mask=d < W)


@triton.jit
def _arrival_sums(
    X, WEIGHT, COUNTED, SUMS, x_b, x_h, x_n, W, N, S, H, G, groups, offset,
    WP: tl.constexpr, PREFIX: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Sum of what arrives at each block of positions."""
    block, blocks = tl.program_id(0), tl.num_programs(0)
    row = tl.program_id(1).to(tl.int64)
    batch = row // groups
    s, d = block * BLOCK + tl.arange(0, BLOCK), tl.arange(0, WP)
    x = _arrivals(X, WEIGHT, batch, row % groups, s, d, x_b, x_h, x_n, W, N, H, G, offset)
    x *= _shares(COUNTED, batch, s, S, PREFIX)[:, None]
    tl.store(SUMS + (row * blocks + block) * W + d, tl.sum(x, 0), mask=d < W)


@triton.jit
def _scan_sums(SUMS, blocks, W, WP: tl.constexpr, REVERSE: tl.constexpr, STEP: tl.constexpr):
    """Replace each block's sum by the sum of those before it; REVERSE: after it."""
    row = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * WP + tl.arange(0, WP)
    before = tl.zeros([WP], tl.float32)
    for b0 in range(0, blocks, STEP):
        b = b0 + tl.arange(0, STEP)
        at = SUMS + (row * blocks + (blocks - 1 - b if REVERSE else b))[:, None] * W + d[None, :]
        mask = (b < blocks)[:, None] & (d < W)[None, :]
        x = tl.load(at, mask=mask, other=0.0)
        tl.store(at, before[None, :] + tl.cumsum(x, 0) - x, mask=mask)
        before += tl.sum(x, 0)


@triton.jit
def _prefix_means(
    X, VALID, COUNTED, SUMS, OUT, x_b, x_h, x_n, W, S, groups, WP: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Mean over the valid keys up to each key."""
    block, blocks = tl.program_id(0), tl.num_programs(0)
    row = tl.program_id(1).to(tl.int64)
    batch, group = row // groups, row % groups
    s, d = block * BLOCK + tl.arange(0, BLOCK), tl.arange(0, WP)
    x = _keys(X, VALID, batch, group, s, d, x_b, x_h, x_n, W, S)
    before = tl.load(SUMS + (row * blocks + block) * W + d, mask=d < W, other=0.0)
    mean = (before[None, :] + tl.cumsum(x, 0)) * _shares(COUNTED, batch, s, S, True)[:, None]
    mask = (s < S)[:, None] & (d < W)[None, :]
    tl.store(OUT + (row * S + s)[:, None] * W + d[None, :], mean.to(OUT.dtype.element_ty), mask=mask)


@triton.jit
def _finish(
    ACC, SCALE, X, WEIGHT, VALID, COUNTED, SUMS, OUT, x_b, x_h, x_n, W, N, S, H, G, groups, offset, blocks,
    WP: tl.constexpr, MEAN: tl.constexpr, FIXED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """OUT = ACC, back from fixed point if FIXED, and what reaches key s through the means that it is part of."""
    block = tl.program_id(0)
    row = tl.program_id(1).to(tl.int64)
    batch, group = row // groups, row % groups
    s, d = block * BLOCK + tl.arange(0, BLOCK), tl.arange(0, WP)
    mask = (s < S)[:, None] & (d < W)[None, :]
    at = (row * S + s)[:, None] * W + d[None, :]
    grad = tl.load(ACC + at, mask=mask, other=0).to(tl.float32)
    if FIXED:
        grad = grad * (1.0 / tl.load(SCALE))
    if MEAN > 0:
        later = tl.load(SUMS + (row * blocks + (block if MEAN == 1 else 0)) * W + d, mask=d < W, other=0.0)
        means = later[None, :] + tl.zeros([BLOCK, WP], tl.float32)
        if MEAN == 1:
            x = _arrivals(X, WEIGHT, batch, group, s, d, x_b, x_h, x_n, W, N, H, G, offset)
            means += tl.cumsum(x * _shares(COUNTED, batch, s, S, True)[:, None], 0, reverse=True)
        if VALID is not None:
            real = tl.load(VALID + batch * S + s, mask=s < S, other=0) != 0
            means = tl.where(real[:, None], means, 0.0)
        grad += means
    tl.store(OUT + at, grad.to(OUT.dtype.element_ty), mask=mask)


def _padded(W: int) -> int:
    return max(power_of_two(W), 2)


KEY_SUMS, ARRIVAL_SUMS, SCAN_SUMS = Kernel(_key_sums), Kernel(_arrival_sums), Kernel(_scan_sums)
PREFIX_MEANS, FINISH = Kernel(_prefix_means), Kernel(_finish)


def _scan(key: Hashable, sums: Tensor, *, reverse: bool) -> None:
    rows, parts, W = sums.shape
    part = min(_padded(W), 16)
    SCAN_SUMS((key, W), (rows, blocks(W, part)), sums, parts, W, part, reverse, 256)


def counted(valid: Tensor | None, B: int, S: int, device: torch.device) -> Tensor:
    """How many valid keys there are up to each, int32 [B, S]."""
    if valid is None:
        return torch.arange(1, S + 1, dtype=torch.int32, device=device).repeat(B, 1)
    return valid.cumsum(-1, dtype=torch.int32)


def tokens(
    key: Hashable, k: Tensor, v: Tensor, valid: Tensor | None, count: Tensor, kind: int
) -> tuple[Tensor, Tensor]:
    """Keys and values of the mean tokens, `means` of both; empty for kind 0, no mean token."""
    if not kind:
        return k.new_empty(0), v.new_empty(0)
    return means((key, "k"), k, valid, count, kind), means((key, "v"), v, valid, count, kind)


def means(key: Hashable, x: Tensor, valid: Tensor | None, counted: Tensor, kind: int) -> Tensor:
    """Mean of x over the valid keys up to each one (PREFIX), or over all of them (ALL).

    Args:
        key: as in `launch.Kernel`.
        x: [B, Hx, S, W], last dimension dense.
        valid: bool [B, S] or None.
        counted: int32 [B, S], how many valid keys there are up to each.
        kind: PREFIX or ALL.

    Returns:
        [B, Hx, S, W] or [B, Hx, 1, W] in x's dtype; 0 where there is none.
    """
    B, Hx, S, W = x.shape
    parts, wp = blocks(S, BLOCK), _padded(W)
    sums = torch.empty(B * Hx, parts, W, dtype=torch.float32, device=x.device)
    where = (*x.stride()[:3], W, S, Hx)
    KEY_SUMS((key, W), (parts, B * Hx), x, valid, sums, *where, wp, BLOCK)
    if kind == ALL:
        return (sums.sum(1).view(B, Hx, W) / counted[:, -1].clamp(min=1)[:, None, None]).unsqueeze(2).to(x.dtype)
    _scan(key, sums, reverse=False)
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    PREFIX_MEANS((key, W), (parts, B * Hx), x, valid, counted, sums, out, *where, wp, BLOCK)
    return out


def finish(
    key: Hashable,
    acc: Tensor,
    scale: Tensor | None,
    grad: Tensor,
    weight: Tensor | None,
    valid: Tensor | None,
    counted: Tensor,
    kind: int,
    offset: int,
    dtype: torch.dtype,
) -> Tensor:
    """The gradient of keys or values from what the tiles added up and from the mean tokens.

    Args:
        key: as in `launch.Kernel`.
        acc: [B, Hx, S, W], fp32, or int64 with `scale`.
        scale: fp32 [1], what `acc` was multiplied with; None = nothing.
        grad: [B, H, N, W], gradient of each query's mean before `weight`; H a multiple of Hx.
        weight: fp32 [B, H, N] or None = 1.
        valid: bool [B, S] or None.
        counted: as in `means`.
        kind: 0 = no mean token, PREFIX or ALL.
        offset: position of query 0.
        dtype: of the result, [B, Hx, S, W].
    """
    B, Hx, S, W = acc.shape
    H, N = grad.shape[1:3]
    wp, sums, parts = _padded(W), acc, 0
    shift = offset if kind == PREFIX else 0
    where = (*grad.stride()[:3], W, N, S, H, H // Hx, Hx, shift)
    if kind:
        parts = blocks(max(S, shift + N), BLOCK) if kind == PREFIX else blocks(N, BLOCK)
        sums = torch.empty(B * Hx, parts, W, dtype=torch.float32, device=acc.device)
        ARRIVAL_SUMS((key, W), (parts, B * Hx), grad, weight, counted, sums, *where, wp, kind == PREFIX, BLOCK)
    if kind == PREFIX:
        _scan(key, sums, reverse=True)
    elif kind == ALL:
        sums, parts = sums.sum(1, keepdim=True), 1
    out = torch.empty(acc.shape, dtype=dtype, device=acc.device)
    FINISH(
        (key, W, dtype),
        (blocks(S, BLOCK), B * Hx),
        acc,
        scale,
        grad,
        weight,
        valid,
        counted,
        sums,
        out,
        *where,
        parts,
        wp,
        kind,
        scale is not None,
        BLOCK,
    )
    return out
