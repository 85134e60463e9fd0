"""What stands in for ZETA's search where its parts are told apart: every key, the newest ones, random ones.

With every key, scoring is left alone: quadratic in time and memory, as softmax attention is. Written for attribution,
not for speed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zeta_bench.attention import masked_softmax
from zeta_bench.ops.attention import GAMMA_FLOOR, log_weights_at
from zeta_bench.ops.options import Content
from zeta_bench.ops.search import allowed_keys, squared_distance


def positions(x: Tensor) -> Tensor:
    """Position of each token as its code: int64 [B, H, N] for x [B, H, N, …]."""
    return torch.arange(x.shape[2], device=x.device).expand(x.shape[:3])


def noise(x: Tensor, stream: int) -> Tensor:
    """Pseudo-random code of each (head, position), the same at every call: int64 [B, H, N] (splitmix64's finaliser)."""
    B, H, N = x.shape[:3]
    heads = torch.arange(H, device=x.device)[:, None] << 40  # apart whatever N is: a longer sequence moves no code
    z = torch.arange(N, device=x.device) + heads + (stream + 1) * 0x9E3779B97F4A7C1
    for factor in (-0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15):
        z = (z ^ ((z >> 30) & 0x3FFFFFFFF)) * factor
    return ((z ^ ((z >> 31) & 0x1FFFFFFFF)) >> 2).expand(B, H, N)


def every_key(like: Tensor, *, causal: bool, chunk: int, valid: Tensor | None) -> Tensor:
    """All keys that each query may select, as an index: int32 [B, H, N, N] for like [B, H, N, …]; −1 = none.

    Which keys those are stands at `zeta_bench.ops.zorder_search`.
    """
    N, device = like.shape[2], like.device
    allowed = allowed_keys(N, N, causal=causal, chunk=chunk, valid=valid, offset=0, device=device)
    keys = torch.arange(N, dtype=torch.int32, device=device)
    return torch.where(allowed, keys, -1).expand(*like.shape[:3], N)


def chosen(index: Tensor) -> Tensor:
    """Where an index [B, H, N, k] of N keys has an entry: bool [B, H, N, N]."""
    N = index.shape[2]
    found = torch.zeros(*index.shape[:3], N + 1, dtype=torch.bool, device=index.device)
    return found.scatter(-1, index.long().masked_fill(index < 0, N), True)[..., :N]


def attend_all(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gamma: Tensor,
    allowed: Tensor,
    *,
    score: str,
    content: Content | None = None,
    averaged: Tensor | None = None,
) -> Tensor:
    """Σ_j w_ij v_j / Σ_j w_ij over all allowed keys, weights as in `zeta_bench.ops.topk_attention`.

    Args:
        q: coordinates [B, H, N, d].
        k: [B, H, N, d].
        v: [B, H, N, dv].
        gamma: [H].
        allowed: bool [B, H, N, N].
        score: see `zeta_bench.ops.topk_attention`.
        content: wide queries and keys, each [B, H, N, c], or None.
        averaged: keys of each query's mean token, bool [1 or B, 1, N, N]; None = no mean token.

    Returns:
        [B, H, N, dv] in v's dtype; zeros where there is neither key nor mean token.
    """
    with torch.autocast(q.device.type, enabled=False):
        wide = torch.promote_types(q.dtype, torch.float32)
        gamma = gamma.to(wide).clamp(min=GAMMA_FLOOR)[:, None, None]
        logits = _log_weights(q, k, gamma, score) + _product(content, wide)
        if averaged is None:
            return (masked_softmax(logits, allowed) @ v.to(wide)).to(v.dtype)
        some = averaged.any(-1, keepdim=True).expand(*logits.shape[:3], 1)
        average = averaged.to(wide) / averaged.sum(-1, keepdim=True).clamp(min=1)
        mean_k, mean_v = average @ k.to(wide), average @ v.to(wide)
        of_mean = None if content is None else (content[0].unsqueeze(3), (average @ content[1].to(wide)).unsqueeze(3))
        own = _log_weights(q.unsqueeze(3), mean_k.unsqueeze(3), gamma.unsqueeze(3), score) + _product(of_mean, wide)
        weights = masked_softmax(torch.cat((logits, own.squeeze(3)), dim=-1), torch.cat((allowed, some), dim=-1))
        return (weights[..., :-1] @ v.to(wide) + weights[..., -1:] * mean_v).to(v.dtype)


def _product(content: Content | None, wide: torch.dtype) -> Tensor | float:
    """a_i · b_j / √c of all pairs."""
    return 0.0 if content is None else content[0].to(wide) @ content[1].to(wide).mT / content[0].shape[-1] ** 0.5


def _log_weights(q: Tensor, k: Tensor, gamma: Tensor, score: str) -> Tensor:
    """Logarithms of the weights of all pairs, [..., N, S]."""
    if score == "dot":
        return _product((q, k), gamma.dtype)  # type: ignore[return-value]  # there is content
    return log_weights_at(squared_distance(q.to(gamma.dtype), k.to(gamma.dtype)), gamma, score)
