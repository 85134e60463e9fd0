"""ZETA's attention by kernels: encode, sort, lists, intervals, plan, tiles; and its gradient.

Nothing here waits for the device, and nothing of size [N, k] is written but the few entries of tiles whose windows are
spread (`zeta_bench.ops.tiles_triton`). Registered as an operator by `zeta_bench.ops.library`.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from zeta_bench.ops import (
    attend_triton,
    finish_triton,
    lists_triton,
    means_triton,
    near_triton,
    search_triton,
    tiles_triton,
    weights_triton,
)
from zeta_bench.ops._tuning import near_tiles, tiles
from zeta_bench.ops.geometry import ROOM, Geometry
from zeta_bench.ops.launch import Kernel, blocks, key_of, power_of_two
from zeta_bench.ops.options import Options


@dataclass(frozen=True)
class Index:
    """What the tile kernels read besides the tensors.

    Attributes:
        order: int32 [R, N], the query at each place of the (list, code) order.
        positions: int32 [R, entries], the keys of the lists.
        planes: fp32 [R, d, entries], their coordinates.
        spans: int32 [2, R, N], first and last address + 1 of each place's window.
        reads: int32 [2, R, tiles], first address (or −1) and number of entries a tile reads.
        picked: int32 [R, tiles, …], those entries where the first is −1.
    """

    order: Tensor
    positions: Tensor
    planes: Tensor
    spans: Tensor
    reads: Tensor
    picked: Tensor

    def places(self, n: near_triton.Near | None) -> tuple[Tensor, ...]:
        """What a tile kernel over the index reads, in its order; `n`: the local windows, whose keys it leaves out."""
        low, high = (n.low, n.high) if n else (self.order, self.order)
        return (self.order, self.positions, *self.spans.unbind(), *self.reads.unbind(), self.picked, low, high)


def geometry(q: Tensor, k: Tensor, o: Options) -> Geometry:
    """Sizes of the index for q [B, H, N, d] and k [B, H, S, d]."""
    return _geometry(q.shape[2], k.shape[2], o.offset, o.chunk, o.causal)


_geometry = lru_cache(maxsize=64)(Geometry)


def index(q: Tensor, k: Tensor, valid: Tensor | None, o: Options, queries: int) -> Index:
    """The index of fp32 q [B, H, N, d] and k [B, H, S, d], both dense, in tiles of `queries`."""
    g, key = geometry(q, k, o), key_of(o, q, k, valid)
    encoded = lists_triton.encode(key, q, k, g, o.bits)
    return search(key, encoded, lists_triton.sort(encoded), k, valid, o, g, queries)


def search(
    key: Hashable,
    encoded: lists_triton.Encoded,
    ordered: tuple[Tensor, Tensor, Tensor],
    k: Tensor,
    valid: Tensor | None,
    o: Options,
    g: Geometry,
    queries: int,
) -> Index:
    """Lists, intervals and plan of codes that `lists_triton.sort` has ordered."""
    codes, positions, order = ordered
    built = lists_triton.build(key, codes, positions, k, valid, g, k.shape[1])
    spans, places = search_triton.intervals(key, encoded.queries, order, built, g, o.topk)
    reads, picked = tiles_triton.plan(key, places, built, spans, g, queries)
    return Index(places, built.positions, built.planes, spans, reads, picked)


FORWARD, BACKWARD = Kernel(attend_triton.tile_forward), Kernel(attend_triton.tile_backward)


def precision(v: Tensor) -> str:
    """Of products of tensors such as v, for `tl.dot`."""
    return "ieee" if v.dtype == torch.float32 else "tf32"


def padded(width: int) -> int:
    """The width that `tl.dot` takes for it."""
    return max(16, power_of_two(width))


def forward(
    q: Tensor, k: Tensor, v: Tensor, gamma: Tensor, valid: Tensor | None, ix: Index, o: Options
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Attention over an index.

    Args:
        q: fp32 [B, H, N, d], dense.
        k: fp32 [B, H, S, d], dense.
        v: [B, Hv, S, dv], last dimension dense.
        gamma: fp32 [H].
        valid: bool [B, S] or None.
        ix: of `index`.
        o: options.

    Returns:
        Output [B, H, N, dv] in v's dtype, sum of weights fp32 [B, H, N], and the mean tokens' keys and values
        ([B, H, S or 1, d], [B, Hv, S or 1, dv]; empty without a mean token).
    """
    B, H, N, D = q.shape
    S, W = v.shape[2:]
    shape, key = tiles(W), key_of(o, q, k, v, gamma, valid)
    count = means_triton.counted(valid) if o.mean or o.local_window else None
    mean_k, mean_v = means_triton.tokens(key, k, v, valid, count, o.mean)
    out = torch.empty(B, H, N, W, dtype=v.dtype, device=q.device)
    den = torch.empty(B, H, N, dtype=torch.float32, device=q.device)
    n = near_triton.windows(key, q, S, valid, count, o) if o.local_window else None
    total = torch.empty(B, H, N, W, dtype=torch.float32, device=q.device) if n else den
    sizes = (N, S, H, H // v.shape[1], o.offset, o.chunk, ix.positions.shape[1], *v.stride()[:3])
    if n:
        close = near_tiles(W)
        FORWARD(
            (key, "near"), (blocks(N, close.queries), B * H), q, k, v, gamma, *n.places, q, v, None, total,
            den, out, *sizes, D, W, padded(W), o.causal, True, n.real is not None, False, 0, close.queries,
            close.forward.step, ROOM, precision(v), **close.forward.launch,
        )  # fmt: skip
    FORWARD(
        key, (blocks(N, shape.queries), B * H), q, ix.planes, v, gamma, *ix.places(n), mean_k, mean_v, count,
        total, den, out, *sizes, D, W, padded(W), o.causal, False, True, n is not None, o.mean, shape.queries,
        shape.forward.step, ROOM, precision(v), **shape.forward.launch,
    )  # fmt: skip
    return out, den, mean_k, mean_v


def zeros(
    k: torch.Size, v: torch.Size, kind: torch.dtype, device: torch.device, *, together: bool
) -> tuple[Tensor, Tensor]:
    """Zeros of two shapes, by one launch where they may lie `together`: an operator's results may not."""
    if not together:
        return torch.zeros(k, dtype=kind, device=device), torch.zeros(v, dtype=kind, device=device)
    both = torch.zeros(k.numel() + v.numel(), dtype=kind, device=device)
    return both[: k.numel()].view(k), both[k.numel() :].view(v)


def scales(do: Tensor, v: Tensor, gamma: Tensor, den: Tensor) -> Tensor:
    """Factors that bring dV and dK into an int64 without overflow, fp32 [2].

    Of one query |Σ_j w_ij dO| ≤ ‖dO‖, and |∂/∂k_j| ≤ 2 ‖dO‖ ‖v‖ / γ, because x / (x² + γ²) ≤ 1 / (2γ); N queries of the
    heads that share a value head add up. A bit stays free for rounding. A coordinate that is not finite shows in the
    sum of its weights, `den`; it must not turn into an integer unseen.
    """
    norm_do, norm_v = largest_norm(do), largest_norm(v)
    least = gamma.amin().clamp(min=weights_triton.GAMMA_FLOOR.value)
    H, queries = do.shape[1:3]
    bounds = torch.stack((norm_do * (queries * H / v.shape[1]), 2 * norm_do * norm_v * queries / least))
    return 2.0**61 / bounds.clamp(min=1e-12) + den.amax() * 0


def largest_norm(x: Tensor) -> Tensor:
    """The largest norm of a row of x, fp32; on the device."""
    return torch.linalg.vector_norm(x, dim=-1, dtype=torch.float32).amax()


def backward(
    do: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gamma: Tensor,
    valid: Tensor | None,
    out: Tensor,
    den: Tensor,
    mean_k: Tensor,
    mean_v: Tensor,
    ix: Index,
    o: Options,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k (fp32), v (its dtype) and gamma (fp32) for do [B, H, N, dv], last dimension dense.

    The other arguments are those of `forward` and what it returned.
    """
    B, H, N, D = q.shape
    S, W = v.shape[2:]
    shape, key = tiles(W), key_of(o, q, k, v, gamma, valid, do)
    device, fixed = q.device, o.deterministic
    count = means_triton.counted(valid) if o.mean or o.local_window else None
    n = near_triton.windows(key, q, S, valid, count, o) if o.local_window else None
    dq, dg = torch.empty_like(q), torch.empty_like(den)
    delta = torch.empty_like(den) if o.mean or n else None
    kind = torch.int64 if fixed else torch.float32
    dk, dv = zeros(k.shape, v.shape, kind, device, together=o.mean > 0 or fixed or v.dtype != kind)
    factors = scales(do, v, gamma, den) if fixed else None
    grads = (den, delta, out, do, dq, dk, dv, dg, factors)
    sizes = (
        N, S, H, H // v.shape[1], o.offset, o.chunk, ix.positions.shape[1], *v.stride()[:3], *do.stride()[:3],
    )  # fmt: skip
    BACKWARD(
        key, (blocks(N, shape.queries), B * H), q, ix.planes, v, gamma, *ix.places(n), *grads, *sizes, D, W,
        padded(W), o.causal, False, True, n is not None, fixed, shape.queries, shape.backward.step, ROOM, precision(v),
        **shape.backward.launch,
    )  # fmt: skip
    if n and fixed:
        close = near_tiles(W)
        BACKWARD(
            (key, "near"), (blocks(N, close.queries), B * H), q, k, v, gamma, *n.places, *grads, *sizes, D,
            W, padded(W), o.causal, True, n.real is not None, False, fixed, close.queries, close.backward.step, ROOM,
            precision(v), **close.backward.launch,
        )  # fmt: skip
    if n and delta is not None:
        dk, dv = near_triton.gradients(
            key, q, k, v, gamma, valid, count, n, den, delta, do, dk, dv, factors, dq, dg, o, precision(v)
        )
    if o.mean and delta is not None:
        dk, dv = finish_triton.finish_means(
            key, dk, dv, factors, do, q, gamma, den, delta, mean_k, mean_v, valid, count, dq, dg, o.mean, o.offset
        )
    elif not n:
        dv = dv if dv.dtype == v.dtype else finish_triton.finish((key, "v"), dv, factors, v.dtype)
        dk = dk if factors is None else finish_triton.finish((key, "k"), dk, factors[1:], torch.float32)
    return dq, dk, dv, dg.sum((0, 2))
