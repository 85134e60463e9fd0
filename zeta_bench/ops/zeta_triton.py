"""ZETA's attention by kernels: encode, sort, lists, intervals, plan, tiles; and its gradient.

Nothing here waits for the device, and nothing of size [N, k] is written but the few entries of tiles whose windows are
spread (`zeta_bench.ops.tiles_triton`). Registered as an operator by `zeta_bench.ops.library`.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from zeta_bench.ops import attend_triton, lists_triton, means_triton, search_triton, tiles_triton, weights_triton
from zeta_bench.ops._tuning import Pass, tiles
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


@triton.jit
def _windows(
    COUNTED, REAL, START, END, LOW, HIGH, N, S, offset, window, CAUSAL: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """The `window` keys around, or (CAUSAL) up to, each query's own position, among the valid ones."""
    batch = tl.program_id(1).to(tl.int64)
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    p = tl.minimum(i + offset, S - 1)
    r = tl.load(COUNTED + batch * S + p, mask=(i < N) & (p >= 0), other=0)
    total = r
    if not CAUSAL:
        total = tl.load(COUNTED + batch * S + S - 1) + r * 0
    start = tl.minimum(tl.maximum(r - window // 2, 0), tl.maximum(total - window, 0))
    end = tl.minimum(start + window, total)
    low, high = start, end
    if REAL is not None:
        some = (i < N) & (end > start)
        low = tl.load(REAL + batch * S + start, mask=some, other=0)
        high = tl.load(REAL + batch * S + end - 1, mask=some, other=-1) + 1
    tl.store(START + batch * N + i, start, mask=i < N)
    tl.store(END + batch * N + i, end, mask=i < N)
    tl.store(LOW + batch * N + i, low, mask=i < N)
    tl.store(HIGH + batch * N + i, high, mask=i < N)


WINDOWS = Kernel(_windows)
FORWARD, BACKWARD = Kernel(attend_triton.tile_forward), Kernel(attend_triton.tile_backward)


def near(key: Hashable, count: Tensor, valid: Tensor | None, N: int, o: Options) -> Near:
    """The local windows of N queries over keys counted in `count` [B, S]."""
    B, S = count.shape
    real = None if valid is None else (~valid).to(torch.uint8).sort(dim=-1, stable=True).indices.to(torch.int32)
    start, end, low, high = torch.empty(4, B, N, dtype=torch.int32, device=count.device)
    WINDOWS(key, (blocks(N, 256), B), count, real, start, end, low, high, N, S, o.offset, o.local_window, o.causal, 256)
    return Near(start, end, low, high, real)


def _precision(v: Tensor) -> str:
    return "ieee" if v.dtype == torch.float32 else "tf32"


def _launch(shape: Pass) -> dict[str, int]:
    options = {"num_warps": shape.warps, "num_stages": shape.stages}
    return options if shape.registers is None else options | {"maxnreg": shape.registers}


def _padded(width: int) -> int:
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
    count = means_triton.counted(valid, B, S, q.device) if o.mean or o.local_window else q
    mean_k, mean_v = means_triton.tokens(key, k, v, valid, count, o.mean)
    out = torch.empty(B, H, N, W, dtype=v.dtype, device=q.device)
    den = torch.empty(B, H, N, dtype=torch.float32, device=q.device)
    n = near(key, count, valid, N, o) if o.local_window else None
    total = torch.empty(B, H, N, W, dtype=torch.float32, device=q.device) if n else den
    sizes = (N, S, H, H // v.shape[1], o.offset, o.chunk, ix.positions.shape[1], *v.stride()[:3])
    tail = (shape.queries, shape.forward.step, ROOM, _precision(v))
    grid = (blocks(N, shape.queries), B * H)
    launch = _launch(shape.forward)
    if n:
        real = n.start if n.real is None else n.real
        FORWARD(
            (key, "near"), grid, q, k, v, gamma, n.start, real, n.start, n.end, n.start, n.start, n.start, n.low,
            n.high, q, v, den, total, den, out, *sizes, D, W, _padded(W), o.causal, True, n.real is not None, False, 0,
            *tail, **launch,
        )  # fmt: skip
    low, high = (n.low, n.high) if n else (ix.order, ix.order)
    FORWARD(
        key, grid, q, ix.planes, v, gamma, ix.order, ix.positions, ix.spans[0], ix.spans[1], ix.reads[0], ix.reads[1],
        ix.picked, low, high, mean_k, mean_v, count, total, den, out, *sizes, D, W, _padded(W), o.causal, False, True, n
        is not None, o.mean, *tail, **launch,
    )  # fmt: skip
    return out, den, mean_k, mean_v


def _zeros(
    k: torch.Size, v: torch.Size, kind: torch.dtype, device: torch.device, *, together: bool
) -> tuple[Tensor, Tensor]:
    """Zeros of two shapes, by one launch where they may lie `together`: an operator's results may not."""
    if not together:
        return torch.zeros(k, dtype=kind, device=device), torch.zeros(v, dtype=kind, device=device)
    both = torch.zeros(k.numel() + v.numel(), dtype=kind, device=device)
    return both[: k.numel()].view(k), both[k.numel() :].view(v)


def _scales(do: Tensor, v: Tensor, gamma: Tensor, den: Tensor, H: int) -> Tensor:
    """Factors that bring dV and dK into an int64 without overflow, fp32 [2].

    Of one query |Σ_j w_ij dO| ≤ ‖dO‖, and |∂/∂k_j| ≤ 2 ‖dO‖ ‖v‖ / γ, because x / (x² + γ²) ≤ 1 / (2γ); N queries of the
    heads that share a value head add up. A bit stays free for rounding. A coordinate that is not finite shows in the
    sum of its weights, `den`; it must not turn into an integer unseen.
    """
    norm_do = torch.linalg.vector_norm(do, dim=-1, dtype=torch.float32).amax()
    norm_v = torch.linalg.vector_norm(v, dim=-1, dtype=torch.float32).amax()
    least = gamma.amin().clamp(min=weights_triton.GAMMA_FLOOR.value)
    queries = do.shape[2]
    bounds = torch.stack((norm_do * (queries * H / v.shape[1]), 2 * norm_do * norm_v * queries / least))
    return 2.0**61 / bounds.clamp(min=1e-12) + den.amax() * 0


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
    count = means_triton.counted(valid, B, S, device) if o.mean or o.local_window else q
    n = near(key, count, valid, N, o) if o.local_window else None
    dq = torch.empty_like(q)
    dg = torch.empty(B, H, N, dtype=torch.float32, device=device)
    kind = torch.int64 if fixed else torch.float32
    finishing = o.mean > 0 or fixed or v.dtype != kind
    dk, dv = _zeros(k.shape, v.shape, kind, device, together=finishing)
    scales = _scales(do, v, gamma, den, H) if fixed else None
    mean_dk = torch.empty(B, H, N, D, dtype=torch.float32, device=device) if o.mean else dq
    mean_weight = torch.empty(B, H, N, dtype=torch.float32, device=device) if o.mean else dg
    grads = (dq, dk, dv, dg, mean_dk, mean_weight, scales)
    sizes = (
        N, S, H, H // v.shape[1], o.offset, o.chunk, ix.positions.shape[1], *v.stride()[:3], *do.stride()[:3],
    )  # fmt: skip
    tail = (fixed, shape.queries, shape.backward.step, ROOM, _precision(v))
    grid = (blocks(N, shape.queries), B * H)
    launch = _launch(shape.backward)
    if n:
        real = n.start if n.real is None else n.real
        BACKWARD(
            (key, "near"), grid, q, k, v, gamma, n.start, real, n.start, n.end, n.start, n.start, n.start, n.low,
            n.high, q, v, den, den, out, do, *grads, *sizes, D, W, _padded(W), o.causal, True, n.real is not None,
            False, 0, *tail, **launch,
        )  # fmt: skip
    low, high = (n.low, n.high) if n else (ix.order, ix.order)
    BACKWARD(
        key, grid, q, ix.planes, v, gamma, ix.order, ix.positions, ix.spans[0], ix.spans[1], ix.reads[0], ix.reads[1],
        ix.picked, low, high, mean_k, mean_v, count, den, out, do, *grads, *sizes, D, W, _padded(W), o.causal, False,
        True, n is not None, o.mean, *tail, **launch,
    )  # fmt: skip
    if finishing:
        scale = None if scales is None else scales[:1]
        dv = means_triton.finish((key, "v"), dv, scale, do, mean_weight, valid, count, o.mean, o.offset, v.dtype)
    if o.mean or fixed:
        scale = None if scales is None else scales[1:]
        dk = means_triton.finish((key, "k"), dk, scale, mean_dk, None, valid, count, o.mean, o.offset, torch.float32)
    return dq, dk, dv, dg.sum((0, 2))
