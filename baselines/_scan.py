"""Linear attention as sums over the past, shared by `linear` and `performer`.

Linear attention (arXiv 2006.16236, eq. 5 and 9-12; also the Performer's, arXiv 2009.14794, §2.2) is, with non-negative
features φ of queries and keys,

    out_i = Σ_j (φ(q_i)·φ(k_j)) v_j / Σ_j (φ(q_i)·φ(k_j)),

over j ≤ i in the causal form. The causal form here is quadratic inside chunks of C tokens, and every chunk gets all
earlier ones through their sums Σ φ(k_j) v_jᵀ, handed on in log₂(N/C) steps of doubling. Time O(N·C·(m + d) +
N·m·d·(1 + log(N/C)/C)) a head for m features, memory O(N·(C + m + m·d/C)); up to C tokens are one chunk, the plain
quadratic form.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 256  # one chunk at the length of MQAR, the fewest launches on a GPU; 128 is within 25 % at 2k to 8k tokens
FLOOR = 1e-30  # a sum of weights below it counts as no key at all; its reciprocal, and so every gradient, is finite


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
    """Causal linear attention in chunks.

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
    chunk = min(chunk, N)
    with_one = F.pad(v, (0, 1), value=1.0)  # its last column sums up the weights
    q, k, x = (_cut(t, chunk) for t in (fq, fk, with_one))
    scale = None if log_scale is None else _cut(log_scale.unsqueeze(-1), chunk)
    pairs = q @ k.mT
    weights = pairs.tril() if scale is None else pairs * _fall(scale.mT, scale).tril_()
    out = weights @ x
    if chunk < N:
        out = out + _earlier(q, k, x, q.new_zeros(1, 1, *q.shape[2:4], 1) if scale is None else scale)
    out = out.flatten(2, 3)[:, :, :N]
    return out[..., :-1] / out[..., -1:].clamp_min(FLOOR)


def _cut(x: Tensor, chunk: int) -> Tensor:
    """[B, H, N, d] → [B, H, n, chunk, d], n = ⌈N / chunk⌉, filled up with zeros."""
    tail = -x.shape[2] % chunk
    x = F.pad(x, (0, 0, 0, tail)) if tail else x  # padding by nothing would still copy
    return x.unflatten(2, (-1, chunk))


def _fall(earlier: Tensor, later: Tensor) -> Tensor:
    """exp(earlier − later), at most 1: pairs in the wrong order are masked afterwards and must not overflow before."""
    return (earlier - later).clamp_(max=0.0).exp_()


def _earlier(q: Tensor, k: Tensor, x: Tensor, scale: Tensor) -> Tensor:
    """What all earlier chunks give to each query: [B, H, n, C, m], …, [B, H, n, C, d] → [B, H, n, C, d]."""
    last = scale[..., -1:, :]
    sums = (k * _fall(scale, last)).mT @ x  # [B, H, n, m, d], each in units of its chunk's last scale
    step = 1
    while step < sums.shape[2]:  # each holds `step` chunks; add the ones before those
        moved = sums[:, :, :-step] * _fall(last[:, :, :-step], last[:, :, step:])
        sums = torch.cat((sums[:, :, :step], sums[:, :, step:] + moved), dim=2)
        step *= 2
    out = (q[:, :, 1:] * _fall(last[:, :, :-1], scale[:, :, 1:])) @ sums[:, :, :-1]
    return F.pad(out, (0, 0, 0, 0, 1, 0))
