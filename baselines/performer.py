"""FAVOR+ (Choromanski et al. 2021, arXiv 2009.14794): softmax attention estimated by positive random features.

    exp(q·k) = E_ω[φ_ω(q) φ_ω(k)],   φ_ω(x) = exp(ω·x − ‖x‖²/2),   ω ~ N(0, I)          (eq. 5 with Lemma 1)

with m rows ω, orthogonal within each block of d (§2.4), q and k divided by d^¼, and then linear attention over the
features (§2.2). Time O(N·m·d) a head, memory O(N·m); the causal form as in `_scan`.

The stabiliser. Features are divided by their largest value, or they overflow. For a query any factor cancels. For keys
the authors' code takes one maximum over the sequence and then adds 1e-4 to each feature; it cancels but for that term
and for underflow, through which every output depends on future keys, and on what stands in the padding. Here the
factor of key j is the largest value among the keys up to j (of all real keys in the bidirectional form), it is undone
exactly in `_scan`, and nothing is added to the features, as in Lemma 1. A query gets zeros where every one of its
weights underflows: queries and keys of lengths far beyond those of training.

Other deviations: the features are drawn once, from the layer's number, are saved with the weights and never redrawn;
LRA's configurations use the ReLU kernel, this is the softmax one. There are no attention weights, so `spec.dropout` has
no effect.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from zeta_bench.attention import AttentionSpec, QKVAttention, in_fp32, permitted
from zeta_bench.baselines._scan import causal_linear, full_linear
from zeta_bench.settings import Settings


class PerformerConfig(Settings):
    """Settings of the Performer.

    The default of 256 features is the paper's; its theory asks for the order of d·ln d (266 at d_head = 64).
    """

    features: int = Field(256, ge=1, description="random features m; the error falls as 1/√m")


class Performer(QKVAttention):
    """Softmax attention estimated by positive orthogonal random features."""

    Config = PerformerConfig
    omega: Tensor

    def __init__(self, spec: AttentionSpec, config: Any = None) -> None:
        super().__init__(spec, config)
        omega = orthogonal_gaussian(self.config.features, spec.d_head, seed=spec.layer)
        self.register_buffer("omega", omega.to(torch.get_default_dtype()))

    @in_fp32
    def attend(self, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None) -> Tensor:
        """Linear attention over the stabilised features; shapes as in `QKVAttention.attend`."""
        if valid is not None:  # a huge padded key would overflow before it is masked
            k = k.masked_fill(~valid[:, None, :, None], 0.0)
        omega = self.omega.to(q.dtype).T * q.shape[-1] ** -0.25
        log_q = q @ omega  # without −‖q‖²/2, which cancels
        log_k = k @ omega - k.square().sum(-1, keepdim=True) * (0.5 * q.shape[-1] ** -0.5)
        if valid is not None:
            log_k = log_k.masked_fill(~valid[:, None, :, None], float("-inf"))
        scale = log_k.detach().amax(-1)
        scale = scale.cummax(-1).values if self.spec.causal else scale.amax(-1, keepdim=True)
        scale = scale.clamp_min(torch.finfo(scale.dtype).min)  # before the first real key it is −inf
        fq = (log_q - log_q.detach().amax(-1, keepdim=True)).exp()
        fk = (log_k - scale.unsqueeze(-1)).exp()
        return causal_linear(fq, fk, v, scale) if self.spec.causal else full_linear(fq, fk, v)

    def attend_reference(self, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None) -> Tensor:
        """The features as they stand in Lemma 1, every pair of tokens; shapes as in `QKVAttention.attend`."""
        mask = permitted(q.shape[-2], causal=self.spec.causal, valid=valid, device=q.device)
        weights = (self._features(q) @ self._features(k).mT).masked_fill(~mask, 0.0)
        total = weights.sum(-1, keepdim=True)
        return weights @ v / torch.where(total > 0.0, total, 1.0)

    def _features(self, x: Tensor) -> Tensor:
        """exp(ω·x − ‖x‖²/2) for x divided by d^¼: [B, H, N, d] → [B, H, N, m]."""
        x = x / self.spec.d_head**0.25
        return (x @ self.omega.to(x.dtype).T - x.square().sum(-1, keepdim=True) / 2).exp()


def orthogonal_gaussian(rows: int, d: int, *, seed: int) -> Tensor:
    """Gaussian vectors, orthogonal within each block of d of them: float64 [rows, d], the same for the same seed.

    Each row by itself is N(0, I): a uniform direction times the length of an independent Gaussian vector.
    """
    generator = torch.Generator().manual_seed(seed)
    blocks = -(-rows // d)
    gaussian = torch.randn(2, blocks, d, d, generator=generator, dtype=torch.float64, device="cpu")
    q, r = torch.linalg.qr(gaussian[0])
    q = q * r.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)  # uniform over rotations, not LAPACK's choice of signs
    return (q.mT * gaussian[1].norm(dim=-1, keepdim=True)).reshape(-1, d)[:rows]
