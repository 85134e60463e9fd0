"""Attention with content by kernels: what `zeta_triton` is for Cauchy weights alone, over the same index."""

from __future__ import annotations

from collections.abc import Hashable

import torch
from torch import Tensor

from zeta_bench.ops import content_tiles_triton
from zeta_bench.ops._tuning import content_tiles
from zeta_bench.ops.finish_triton import finish
from zeta_bench.ops.geometry import ROOM
from zeta_bench.ops.launch import Kernel, blocks, key_of
from zeta_bench.ops.means_triton import counted
from zeta_bench.ops.near_triton import Near, windows
from zeta_bench.ops.options import Content, Options
from zeta_bench.ops.zeta_triton import Index, largest_norm, padded, precision, scales, zeros

LOG2_E = 1.4426950408889634

FORWARD, BACKWARD = Kernel(content_tiles_triton.content_forward), Kernel(content_tiles_triton.content_backward)


def forward(
    q: Tensor, k: Tensor, v: Tensor, gamma: Tensor, valid: Tensor | None, content: Content, ix: Index, o: Options
) -> tuple[Tensor, Tensor]:
    """Attention over an index and a local window; arguments as in `zeta_triton.forward`.

    Args:
        q: fp32 [B, H, N, d], dense.
        k: fp32 [B, H, S, d], dense.
        v: [B, Hv, S, dv], last dimension dense.
        gamma: fp32 [H].
        valid: bool [B, S] or None.
        content: [B, H, N, c] and [B, H, S, c] of one dtype, last dimensions dense.
        ix: of `zeta_triton.index`.
        o: options, without a mean token.

    Returns:
        Output [B, H, N, dv] in v's dtype, and log₂ of each query's sum of weights, fp32 [B, H, N].
    """
    B, H, N, _ = q.shape
    out = torch.empty(B, H, N, v.shape[-1], dtype=v.dtype, device=q.device)
    log = torch.empty(B, H, N, dtype=torch.float32, device=q.device)
    shape, key = content_tiles(_row(v, content)), key_of(o, q, k, v, gamma, valid, *content)
    n = _near(key, q, k, valid, o)
    total = torch.empty(out.shape, dtype=torch.float32, device=q.device) if n else log
    top = torch.empty_like(log) if n else log
    grid, wide = (blocks(N, shape.queries), B * H), (q, k, *content, v, gamma)
    rest = (
        total, top, log, out, *_sizes(q, k, v, ix, o), _root(content) * LOG2_E, *_strides(*content, v),
        *_widths(q, v, content), o.causal,
    )  # fmt: skip
    last = (shape.queries, shape.forward.step, ROOM, precision(content[0]), precision(v))
    if n:
        FORWARD(
            (key, "near"), grid, *wide, *n.places, *rest, True, n.real is not None, False, *last,
            **shape.forward.launch,
        )  # fmt: skip
    FORWARD(
        key, grid, q, ix.planes, *wide[2:], *ix.places(n), *rest, False, True, n is not None, *last,
        **shape.forward.launch,
    )  # fmt: skip
    return out, log


def backward(
    do: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gamma: Tensor,
    valid: Tensor | None,
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
    shape, key = content_tiles(_row(v, content)), key_of(o, q, k, v, gamma, valid, a, b, do)
    n = _near(key, q, k, valid, o)
    kind = torch.int64 if o.deterministic else torch.float32
    dq, dg = torch.empty_like(q), torch.empty_like(log)
    da = torch.empty(a.shape, dtype=torch.float32 if n else a.dtype, device=a.device)
    dk, dv = zeros(k.shape, v.shape, kind, q.device, together=o.deterministic or v.dtype != kind)
    db = torch.zeros(b.shape, dtype=kind, device=b.device)
    fixed = _scales(do, v, gamma, log, a) if o.deterministic else None
    grid, wide = (blocks(q.shape[2], shape.queries), q.shape[0] * q.shape[1]), (q, k, a, b, v, gamma)
    rest = (
        log, out, do, dq, dk, da, db, dv, dg, fixed, *_sizes(q, k, v, ix, o), _root(content) * LOG2_E, _root(content),
        *_strides(a, b, v, do), *_widths(q, v, content), o.causal,
    )  # fmt: skip
    last = (o.deterministic, shape.queries, shape.backward.step, ROOM, precision(a), precision(v))
    BACKWARD(
        key, grid, q, ix.planes, *wide[2:], *ix.places(n), *rest, False, True, n is not None, *last,
        **shape.backward.launch,
    )  # fmt: skip
    if n:
        BACKWARD(
            (key, "near"), grid, *wide, *n.places, *rest, True, n.real is not None, False, *last,
            **shape.backward.launch,
        )  # fmt: skip
    dv = dv if dv.dtype == v.dtype else finish((key, "v"), dv, fixed, v.dtype)
    dk = dk if fixed is None else finish((key, "k"), dk, fixed[1:], torch.float32)
    db = db if db.dtype == b.dtype else finish((key, "b"), db, None if fixed is None else fixed[2:], b.dtype)
    return dq, dk, dv, dg.sum((0, 2)), da.to(a.dtype), db


def _near(key: Hashable, q: Tensor, k: Tensor, valid: Tensor | None, o: Options) -> Near | None:
    if not o.local_window:
        return None
    return windows(key, q, k.shape[2], valid, counted(valid), o)


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
