"""Which keys a query attends: a window around its place on the Z-order curve, or the exact nearest neighbours."""

from __future__ import annotations

import torch
from torch import Tensor

from zeta_bench.ops import debug
from zeta_bench.ops._impl import resolve

INTEGERS = (torch.int32, torch.int64, torch.int16, torch.int8, torch.uint8)
"""What codes may be."""

MAX_ROWS = 65535
"""Rows, B · H, that the kernels take: they are the second dimension of a grid."""


def limits(N: int, S: int, *, causal: bool, chunk: int, offset: int, device: torch.device) -> Tensor:
    """First key that each query may not use, int64 [N].

    Query i stands at position p = offset + i. chunk = 1: p + 1; chunk = M: ⌊p / M⌋ · M (ZETA, §3.3: a query sees
    nothing of its own chunk); not causal: S.
    """
    if not causal:
        return torch.full((N,), S, dtype=torch.int64, device=device)
    position = offset + torch.arange(N, device=device)
    limit = position + 1 if chunk == 1 else position.div(chunk, rounding_mode="floor") * chunk
    return limit.clamp(0, S)


def allowed_keys(
    N: int, S: int, *, causal: bool, chunk: int, valid: Tensor | None, offset: int, device: torch.device
) -> Tensor:
    """Which keys each query may use: bool [N, S], or with `valid` [B, 1, N, S]; see `limits`."""
    limit = limits(N, S, causal=causal, chunk=chunk, offset=offset, device=device)
    below = torch.arange(S, device=device) < limit[:, None]
    return below if valid is None else below & valid[:, None, None, :]


def zorder_search(
    q_codes: Tensor,
    k_codes: Tensor,
    *,
    k: int,
    causal: bool = True,
    chunk: int = 1,
    valid: Tensor | None = None,
    offset: int = 0,
    impl: str = "auto",
) -> Tensor:
    """The window of k keys around each query's place among the permitted keys in code order (ZETA, §3.2 and §3.3).

    A key j is permitted if it is valid and below the query's limit (see `limits`). Permitted keys are ranked by
    (code, position); r = how many have a code ≤ the query's; taken are the ranks [s, s + k) with
    s = clamp(r − k // 2, 0, max(permitted − k, 0)). Among equal codes the newest are kept, and if all codes are
    equal the k newest keys are taken.

    Args:
        q_codes: integer [B, H, N].
        k_codes: integer [B, H, S].
        k: keys a query, at least 1.
        causal: see `limits`, as are chunk and offset.
        chunk: 1 = causal to the token; M = only keys of earlier chunks of M.
        valid: bool [B, S], True = a real key; None = all.
        offset: position of query 0.
        impl: "auto", "reference" or "triton".

    Returns:
        int32 [B, H, N, k], ascending in rank; −1, at the end, where there are fewer than k.

    Raises:
        ValueError: naming the argument and its shape or value.
    """
    check_choice("k", k, chunk)
    if q_codes.ndim != 3 or k_codes.ndim != 3 or q_codes.shape[:2] != k_codes.shape[:2]:
        raise ValueError(
            "q_codes [B, H, N] and k_codes [B, H, S] must agree; "
            f"got {tuple(q_codes.shape)} and {tuple(k_codes.shape)}."
        )
    for name, codes in (("q_codes", q_codes), ("k_codes", k_codes)):
        if codes.dtype not in INTEGERS:
            raise ValueError(f"{name} must be integers; it is {codes.dtype} {tuple(codes.shape)}.")
    check_valid(valid, k_codes.shape[0], k_codes.shape[2])
    check_devices(q_codes=q_codes, k_codes=k_codes, valid=valid)
    if resolve(impl, k_codes.device, too_many_rows(k_codes)) == "triton":
        from zeta_bench.ops import search_triton

        return search_triton.zorder_search(q_codes, k_codes, k, causal, chunk, valid, offset)
    N, S = q_codes.shape[-1], k_codes.shape[-1]
    limit = limits(N, S, causal=causal, chunk=chunk, offset=offset, device=k_codes.device)
    codes, order = k_codes.sort(dim=-1, stable=True)  # by (code, position)
    allowed = order[:, :, None, :] < limit[:, None]  # [B, H, N, S]
    if valid is not None:
        allowed &= valid[:, None, :].expand_as(order).gather(-1, order)[:, :, None, :]
    rank = allowed.cumsum(-1, dtype=torch.int32) - 1  # among the permitted, where allowed
    permitted = rank[..., -1:] + 1 if S else rank.new_zeros(*rank.shape[:-1], 1)
    not_above = allowed & (codes[:, :, None, :] <= q_codes[..., None])
    r = not_above.sum(-1, keepdim=True, dtype=torch.int32)
    start = torch.minimum((r - k // 2).clamp(min=0), (permitted - k).clamp(min=0))
    chosen = allowed & (rank >= start) & (rank < start + k)
    slot = torch.where(chosen, rank - start, k).long()  # slot k gathers what is not chosen, and is cut off
    index = order.new_full((*rank.shape[:-1], k + 1), -1)
    return index.scatter_(-1, slot, order[:, :, None, :].expand_as(slot))[..., :k].to(torch.int32)


def exact_search(
    q: Tensor,
    k: Tensor,
    *,
    topk: int,
    causal: bool = True,
    chunk: int = 1,
    valid: Tensor | None = None,
    offset: int = 0,
) -> Tensor:
    """The oracle: each query's nearest permitted keys by squared Euclidean distance; among equals the newest.

    Args:
        q: [B, H, N, d].
        k: [B, H, S, d].
        topk: keys a query, at least 1.
        causal: which keys are permitted, as in `zorder_search`; so are chunk, valid and offset.
        chunk: see causal.
        valid: bool [B, S].
        offset: position of query 0.

    Returns:
        int32 [B, H, N, topk], ascending in distance; −1, at the end, where there are fewer than topk.

    Raises:
        ValueError: naming the argument and its shape or value.
    """
    check_choice("topk", topk, chunk)
    check_points(q, k)
    check_valid(valid, k.shape[0], k.shape[2])
    check_devices(q=q, k=k, valid=valid)
    debug.check_coordinates(q, k)
    N, S = q.shape[-2], k.shape[-2]
    distance = squared_distance(q.detach(), k.detach())
    allowed = allowed_keys(N, S, causal=causal, chunk=chunk, valid=valid, offset=offset, device=k.device)
    distance = distance.masked_fill(~allowed, torch.inf)
    near, place = distance.flip(-1).sort(dim=-1, stable=True)  # flipped, so that of equals the newest comes first
    index = (S - 1 - place).masked_fill(near == torch.inf, -1)[..., :topk]
    return torch.nn.functional.pad(index, (0, topk - index.shape[-1]), value=-1).to(torch.int32)


def squared_distance(q: Tensor, k: Tensor) -> Tensor:
    """‖q_i − k_j‖² [B, H, N, S] of [B, H, N, d] and [B, H, S, d]; by differences: ‖q‖² + ‖k‖² − 2q·k would cancel."""
    total = torch.zeros((), dtype=torch.promote_types(q.dtype, torch.float32), device=q.device)
    for c in range(q.shape[-1]):
        total = total + (q[..., :, None, c] - k[..., None, :, c]).square()
    return total


def with_local_window(
    index: Tensor,
    S: int,
    window: int,
    *,
    causal: bool = True,
    valid: Tensor | None = None,
    offset: int = 0,
) -> Tensor:
    """Append the `window` keys around, or if causal the newest up to, each query's own position; none stands twice.

    Args:
        index: integer [B, H, N, k], of a search.
        S: keys.
        window: keys a query; 0 = the index as it is.
        causal: whether the window ends at the query. It does not look at chunks: the nearest keys are what they hide.
        valid: bool [B, S]; padding is skipped, not counted.
        offset: position of query 0.

    Returns:
        int32 [B, H, N, k + window]; −1 where there is none.
    """
    if not window:
        return index
    B, H, N = index.shape[:3]
    here = (offset + torch.arange(N, device=index.device)).expand(B, H, N)
    keys = torch.arange(S, device=index.device).expand(B, H, S)
    near = zorder_search(here, keys, k=window, causal=causal, valid=valid, offset=offset, impl="reference")
    twice = (index[..., :, None] == near[..., None, :]).any(-1)
    return torch.cat((index.masked_fill(twice, -1), near), dim=-1)


def check_choice(name: str, topk: int, chunk: int) -> None:
    """Raise ValueError for a number of keys a query, called `name`, or a chunk below 1."""
    if topk < 1:
        raise ValueError(f"{name} must be at least 1; got {topk}.")
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1; got {chunk}.")


def check_points(q: Tensor, k: Tensor) -> None:
    """Raise ValueError unless q is [B, H, N, d] and k [B, H, S, d], real numbers, with d at least 1."""
    if q.ndim != 4 or k.ndim != 4 or q.shape[:2] != k.shape[:2] or q.shape[-1] != k.shape[-1] or not q.shape[-1]:
        shapes = f"got {tuple(q.shape)} and {tuple(k.shape)}"
        raise ValueError(f"q [B, H, N, d] and k [B, H, S, d] must agree, with d at least 1; {shapes}.")
    check_floating(q=q, k=k)


def check_floating(**tensors: Tensor) -> None:
    """Raise ValueError, naming the tensor, unless all are of floating point."""
    for name, t in tensors.items():
        if not t.is_floating_point():
            raise ValueError(f"{name} must be floating point; it is {t.dtype} {tuple(t.shape)}.")


def check_valid(valid: Tensor | None, B: int, S: int) -> None:
    """Raise ValueError unless `valid` is bool [B, S] or None."""
    if valid is not None and (valid.dtype != torch.bool or valid.shape != (B, S)):
        raise ValueError(f"valid must be bool {(B, S)}; it is {valid.dtype} {tuple(valid.shape)}.")


def too_many_rows(k: Tensor) -> str:
    """Why the kernels cannot do k [B, H, …], or ""."""
    rows = k.shape[0] * k.shape[1]
    return f"B · H = {rows} and the kernels take {MAX_ROWS}" if rows > MAX_ROWS else ""


def check_devices(**tensors: Tensor | None) -> None:
    """Raise ValueError, naming the tensors, unless all of them, but those that are None, are on one device."""
    device = None
    for t in tensors.values():
        if t is None:
            continue
        if device is None:
            device = t.device
        elif t.device != device:
            where = ", ".join(f"{name} on {t.device}" for name, t in tensors.items() if t is not None)
            raise ValueError(f"all tensors must be on one device; {where}.")
