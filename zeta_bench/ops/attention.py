"""Attention over a few keys a query, weighted by a Cauchy kernel or a rival of it (ZETA, arXiv 2501.14577, §3.4)."""

from __future__ import annotations

import torch
from torch import Tensor

from zeta_bench.ops import debug, library_topk
from zeta_bench.ops._impl import resolve
from zeta_bench.ops.options import MEANS, Content
from zeta_bench.ops.search import check_devices, check_floating, check_points, check_valid, too_many_rows

GAMMA_FLOOR = 2.0**-7
"""Smallest γ: 1/γ² = 16384 is still finite in fp16, whose largest number is 65504."""

MAX_WIDTH = 256
"""Columns of values, and of content, that the kernels take."""

SCORES = ("cauchy", "neg-euclid", "inv-euclid", "dot")


def topk_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    index: Tensor,
    gamma: Tensor,
    *,
    score: str = "cauchy",
    content: Content | None = None,
    mean: str | None = None,
    valid: Tensor | None = None,
    offset: int = 0,
    impl: str = "auto",
) -> Tensor:
    """Σ_j w_ij v_j / Σ_j w_ij over the keys of an index, and the mean token.

    Weights by score: "cauchy" 1 / (‖q − k‖² + γ²) · "neg-euclid" exp(−‖q − k‖² / γ²) · "inv-euclid" 1 / (‖q − k‖ + γ)
    · "dot" exp(q · k / √d). With content (ours, not the paper's) a weight is multiplied by exp(a · b / √c), where a and
    b are wide queries and keys that have no part in selecting. Differentiable in q, k, v, γ and content.

    Args:
        q: [B, H, N, d]; coordinates, computed in fp32, or in float64 if they are.
        k: [B, H, S, d].
        v: [B, Hv, S, dv], Hv a divisor of H (grouped value heads).
        index: int32 or int64 [B, H, N, k], positions of keys; −1 = none. A key that stands twice counts twice.
        gamma: [H], floored at `GAMMA_FLOOR`.
        score: see above.
        content: a [B, H, N, c] and b [B, H, S, c], or None; products are in fp32 at least. The mean token's b is the
            mean of b.
        mean: one more key and value, the means of k and of v over the valid j ≤ offset + i ("prefix") or over every
            valid j ("all"); None = no mean token. Where the mean is over nothing there is none.
        valid: bool [B, S], True = a real key; it matters to the mean only.
        offset: position of query 0.
        impl: "auto", "reference" or "triton".

    Returns:
        [B, H, N, dv] in v's dtype; zeros where the index is empty and there is no mean token.

    Raises:
        ValueError: naming the argument and its shape or value.
    """
    check(q, k, v, gamma, mean, valid)
    check_content(q, k, content)
    _check_index(q, index, score)
    debug.check_coordinates(q, k)
    debug.check_index(index, k.shape[2])
    if resolve(impl, q.device, unsupported(q, k, v, score, content)) == "triton":
        return library_topk.topk_attention(q, k, v, index, gamma, mean, valid, offset)
    with torch.autocast(q.device.type, enabled=False):
        values = v.repeat_interleave(q.shape[1] // v.shape[1], dim=1)
        coordinates = torch.promote_types(q.dtype, torch.float32)
        q, k, gamma = q.to(coordinates), k.to(coordinates), gamma.to(coordinates)
        keys, present = _gather(k, index), index >= 0
        logits = None if content is None else _content_logits(*content, index)
        if mean is None:
            return _weighted_sum(_normalised(_weights(q, keys, gamma, present, score, logits)), index, values)
        wide = (k, values) if content is None else (k, values, content[1].to(coordinates))
        average, any_key = _running_mean(torch.cat(wide, dim=-1), mean, valid, q.shape[-2], offset)
        mean_key, mean_value, *mean_content = average.split([x.shape[-1] for x in wide], dim=-1)
        keys = torch.cat((keys, mean_key.unsqueeze(-2)), dim=-2)
        present = torch.cat((present, any_key[..., None].expand(*present.shape[:-1], 1)), dim=-1)
        if content is not None and logits is not None:
            of_mean = (content[0].to(coordinates) * mean_content[0]).sum(-1, keepdim=True)
            logits = torch.cat((logits, of_mean / content[0].shape[-1] ** 0.5), dim=-1)
        weights = _normalised(_weights(q, keys, gamma, present, score, logits))
        out = _weighted_sum(weights[..., :-1], index, values)
        return out + (weights[..., -1:] * mean_value).to(out.dtype)


def check(q: Tensor, k: Tensor, v: Tensor, gamma: Tensor, mean: str | None, valid: Tensor | None) -> None:
    """Raise ValueError, naming the argument and its shape or value, for what no attention can take."""
    if mean not in MEANS:
        raise ValueError(f"mean must be None, 'prefix' or 'all'; got {mean!r}.")
    check_points(q, k)
    if v.ndim != 4 or v.shape[0] != k.shape[0] or v.shape[2] != k.shape[2] or not v.shape[1] or q.shape[1] % v.shape[1]:
        raise ValueError(f"v must be [B, Hv, S, dv] with Hv dividing H; got {tuple(v.shape)} for k {tuple(k.shape)}.")
    if gamma.shape != (q.shape[1],):
        raise ValueError(f"gamma must be [H] = [{q.shape[1]}]; got {tuple(gamma.shape)}.")
    check_floating(v=v, gamma=gamma)
    check_valid(valid, k.shape[0], k.shape[2])
    check_devices(q=q, k=k, v=v, gamma=gamma, valid=valid)


def check_content(q: Tensor, k: Tensor, content: Content | None) -> None:
    """Raise ValueError for wide queries and keys that do not go with the coordinates."""
    if content is None:
        return
    a, b = content
    if a.ndim != 4 or b.ndim != 4 or a.shape[:3] != q.shape[:3] or b.shape[:3] != k.shape[:3]:
        raise ValueError(
            f"content must be [B, H, N, c] and [B, H, S, c]; got {tuple(a.shape)} and {tuple(b.shape)} for q "
            f"{tuple(q.shape)} and k {tuple(k.shape)}."
        )
    if a.shape[-1] != b.shape[-1] or not a.shape[-1]:
        raise ValueError(f"content must have one width for both, at least 1; got {a.shape[-1]} and {b.shape[-1]}.")
    check_floating(content_q=a, content_k=b)
    check_devices(q=q, content_q=a, content_k=b)


def unsupported(q: Tensor, k: Tensor, v: Tensor, score: str = "cauchy", content: Content | None = None) -> str:
    """Why the kernels cannot do this, or ""."""
    if content is not None:
        return "over a given index the kernels weigh without content; zeta_attention's weigh with it"
    return unsupported_values(q, k, v, score)


def unsupported_values(q: Tensor, k: Tensor, v: Tensor, score: str = "cauchy") -> str:
    """Why no kernel can do this, or ""."""
    if score != "cauchy":
        return f"the kernels weigh by score='cauchy', not {score!r}"
    if torch.float64 in (q.dtype, k.dtype, v.dtype):
        return "a tensor is float64 and the kernels compute in fp32"
    if q.shape[-1] > 8:
        return f"q has d={q.shape[-1]} coordinates and the kernels take 8"
    if v.shape[-1] > MAX_WIDTH:
        return f"v has dv={v.shape[-1]} columns and the kernels take {MAX_WIDTH}"
    if not q.numel() or not v.numel():
        return f"there is nothing to attend: q is {tuple(q.shape)}, v {tuple(v.shape)}"
    return too_many_rows(k)


def _check_index(q: Tensor, index: Tensor, score: str) -> None:
    if score not in SCORES:
        raise ValueError(f"score must be one of {', '.join(SCORES)}; got {score!r}.")
    if index.ndim != 4 or index.shape[:3] != q.shape[:3] or index.dtype not in (torch.int32, torch.int64):
        got = f"got {index.dtype} {tuple(index.shape)} for q {tuple(q.shape)}"
        raise ValueError(f"index must be int32 or int64 [B, H, N, k]; {got}.")
    check_devices(q=q, index=index)


def _gather(k: Tensor, index: Tensor) -> Tensor:
    """[B, H, N, k, d]: the key at each place of the index; key 0 where there is none (its weight will be 0)."""
    B, H, N, topk = index.shape
    flat = index.clamp(min=0).long().view(B, H, N * topk, 1).expand(-1, -1, -1, k.shape[-1])
    return k.gather(2, flat).view(B, H, N, topk, k.shape[-1])


def _running_mean(x: Tensor, kind: str, valid: Tensor | None, N: int, offset: int) -> tuple[Tensor, Tensor]:
    """Mean of x [B, H, S, d] for each query, [B, H, N, d], and where there is one, bool [B or 1, 1, N]."""
    S = x.shape[-2]
    real = torch.ones(1, S, dtype=torch.bool, device=x.device) if valid is None else valid
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    wide = wide if valid is None else wide.masked_fill(~real[:, None, :, None], 0.0)
    count = real[:, None, :].cumsum(-1)  # [B, 1, S]
    if kind == "all":
        total, count = wide.sum(-2, keepdim=True), count[..., -1:].expand(-1, -1, N)
    elif offset == 0 and N == S:
        total = wide.cumsum(-2)
    else:
        position = offset + torch.arange(N, device=x.device)
        at = position.clamp(0, S - 1)
        total, count = wide.cumsum(-2)[:, :, at], count[..., at] * (position >= 0)
    return total / count.clamp(min=1)[..., None].to(wide.dtype), count > 0


def _content_logits(a: Tensor, b: Tensor, index: Tensor) -> Tensor:
    """a_i · b_j / √c at the places of an index [B, H, N, k]; any number where it is empty."""
    wide = torch.promote_types(a.dtype, torch.float32)
    every = a.to(wide) @ b.to(wide).mT / a.shape[-1] ** 0.5  # [N, S] takes less than keys of every place, [N, k, c]
    return every.gather(-1, index.clamp(min=0).long())


def _weights(
    q: Tensor, keys: Tensor, gamma: Tensor, present: Tensor, score: str, content: Tensor | None = None
) -> Tensor:
    """Unnormalised weights [B, H, N, k] of keys [B, H, N, k, d]; 0 where none is present."""
    if content is not None or score in ("dot", "neg-euclid"):
        logits = _log_weights(q, keys, gamma, score)
        return _exponential(logits if content is None else logits + content, present)
    gamma = gamma.clamp(min=GAMMA_FLOOR)[:, None, None]
    square = (q.unsqueeze(-2) - keys).square().sum(-1)
    if score == "cauchy":
        weights = 1 / (square + gamma.square())
    else:
        weights = 1 / (_root(square) + gamma)
    return weights.masked_fill(~present, 0.0)


def _log_weights(q: Tensor, keys: Tensor, gamma: Tensor, score: str) -> Tensor:
    """Logarithms of weights, which exponentials of any size can be multiplied to."""
    gamma = gamma.clamp(min=GAMMA_FLOOR)[:, None, None]
    if score == "dot":
        return (q.unsqueeze(-2) * keys).sum(-1) / q.shape[-1] ** 0.5
    return log_weights_at((q.unsqueeze(-2) - keys).square().sum(-1), gamma, score)


def log_weights_at(square: Tensor, gamma: Tensor, score: str) -> Tensor:
    """Logarithms of weights at squared distances, for any score but "dot"; γ floored, of a shape that broadcasts."""
    if score == "neg-euclid":
        return -square / gamma.square()
    if score == "cauchy":
        return -(square + gamma.square()).log()
    return -(_root(square) + gamma).log()


def _root(square: Tensor) -> Tensor:
    """Square root whose gradient at 0 is 0."""
    return torch.where(square > 0, square, 1.0).sqrt() * (square > 0)


def _exponential(logits: Tensor, present: Tensor) -> Tensor:
    """Exponential of logits less their row's largest, which the normalisation cancels; 0 where none is present."""
    logits = logits.masked_fill(~present, -torch.inf)
    largest = logits.detach().amax(-1, keepdim=True) if logits.shape[-1] else logits.new_zeros(())
    return (logits - largest.nan_to_num(neginf=0.0)).exp()


def _normalised(weights: Tensor) -> Tensor:
    total = weights.sum(-1, keepdim=True)
    return weights / torch.where(total > 0, total, 1.0)


def _weighted_sum(weights: Tensor, index: Tensor, v: Tensor) -> Tensor:
    """Σ_j w_ij v_j [B, H, N, dv], as a product with the weights spread over all S keys: no [N, k, dv] in memory."""
    spread = weights.new_zeros(*index.shape[:3], v.shape[-2])
    spread = spread.scatter_add(-1, index.clamp(min=0).long(), weights)
    return spread.to(v.dtype) @ v
