"""What several baselines share: arithmetic in fp32 or better, the masked softmax, and linear attention as sums.

Linear attention (arXiv 2006.16236, eq. 5 and 9-12; also the Performer's, arXiv 2009.14794, §2.2) is, with non-negative
features φ of queries and keys,

    out_i = Σ_j (φ(q_i)·φ(k_j)) v_j / Σ_j (φ(q_i)·φ(k_j)),

over j ≤ i in the causal form. The causal form here goes from chunk to chunk: quadratic inside a chunk, and all earlier
chunks through two running sums. Time O(N·(C·(m + d) + m·d)) a head, memory O(N·(C + m)), for m features and chunks of
C; a sequence of at most C tokens is one chunk, the plain quadratic form.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

CHUNK = 128  # of 64, 128 and 256 the quickest forward and backward on two CPU cores at N = 256 and 2048
FLOOR = 1e-30  # a sum of weights below it counts as no key at all; its reciprocal, and so every gradient, is finite


def in_fp32(rule: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Make a rule `attend(self, q, k, v, valid)` compute in fp32 or better, whatever the autocast or q's dtype."""

    @functools.wraps(rule)
    def wrapped(self: Any, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None) -> Tensor:
        dtype = torch.promote_types(q.dtype, torch.float32)
        with torch.autocast(q.device.type, enabled=False):
            return rule(self, q.to(dtype), k.to(dtype), v.to(dtype), valid).to(q.dtype)

    return wrapped


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last dimension where `mask` is True, zero elsewhere; a row without any True is all zeros.

    Args:
        scores: [..., N, S].
        mask: bool, broadcasts to scores.

    Returns:
        [..., N, S].
    """
    weights = torch.softmax(scores.masked_fill(~mask, float("-inf")), dim=-1)
    return weights.masked_fill(~mask, 0.0)  # for the rows without any True, where softmax says NaN


def full_linear(fq: Tensor, fk: Tensor, v: Tensor) -> Tensor:
    """Bidirectional linear attention.

    Args:
        fq: [B, H, N, m], features of the queries, ≥ 0.
        fk: [B, H, N, m], features of the keys, ≥ 0; zero for a key that must not count.
        v: [B, H, N, d].

    Returns:
        [B, H, N, d]; zeros where no key counts.
    """
    total = fq @ fk.sum(-2).unsqueeze(-1)
    return fq @ (fk.mT @ v) / total.clamp_min(FLOOR)


def causal_linear(fq: Tensor, fk: Tensor, v: Tensor, log_scale: Tensor | None = None, chunk: int = CHUNK) -> Tensor:
    """Causal linear attention, chunk by chunk.

    Args:
        fq: [B, H, N, m], features of the queries, ≥ 0.
        fk: [B, H, N, m], features of the keys, ≥ 0; zero for a key that must not count.
        v: [B, H, N, d].
        log_scale: [B, H, N] without gradient, never falling along N: the true features of key j are
            fk_j·exp(log_scale_j). None: they are fk_j.
        chunk: tokens a chunk; changes the cost and the rounding alone.

    Returns:
        [B, H, N, d]; zeros where no key counts.
    """
    N = fq.shape[-2]
    scale = fq.new_zeros(1, 1, N) if log_scale is None else log_scale
    before, sums, parts = scale[..., :1], None, []
    for start in range(0, N, chunk):
        q, k, x, c = (t.narrow(2, start, min(chunk, N - start)) for t in (fq, fk, v, scale))
        weights = (q @ k.mT) * _fall(c.unsqueeze(-2), c.unsqueeze(-1)).tril_()
        numerator, total = weights @ x, weights.sum(-1, keepdim=True)
        if sums is not None:  # the earlier chunks
            q = q * _fall(before, c).unsqueeze(-1)
            numerator, total = numerator + q @ sums[0], total + q @ sums[1]
        parts.append(numerator / total.clamp_min(FLOOR))
        if start + chunk < N:
            sums, before = _carry(sums, k, x, c, before), c[..., -1:]
    return torch.cat(parts, dim=-2)


def _fall(earlier: Tensor, later: Tensor) -> Tensor:
    """exp(earlier − later), at most 1: pairs in the wrong order are masked later and must not overflow before."""
    return (earlier - later).clamp_(max=0.0).exp_()


def _carry(
    sums: tuple[Tensor, Tensor] | None, k: Tensor, x: Tensor, c: Tensor, before: Tensor
) -> tuple[Tensor, Tensor]:
    """Σ φ(k_j) v_jᵀ [B, H, m, d] and Σ φ(k_j) [B, H, m, 1] with one more chunk, in units of its last scale."""
    last = c[..., -1:]
    k = k * _fall(c, last).unsqueeze(-1)
    state, total = k.mT @ x, k.sum(-2).unsqueeze(-1)
    if sums is None:
        return state, total
    fall = _fall(before, last).unsqueeze(-1)
    return sums[0] * fall + state, sums[1] * fall + total
