"""Linear attention with elu + 1 features (Katharopoulos et al. 2020, arXiv 2006.16236, eq. 7 and 9-12).

    out_i = φ(q_i)ᵀ Σ_j φ(k_j) v_jᵀ / φ(q_i)ᵀ Σ_j φ(k_j),   φ(x) = elu(x) + 1,   over j ≤ i in the causal form

Time O(N·d²) a head, memory O(N·d); the causal form as in `_scan`.

Differs from the authors' code: the denominator is floored instead of having 1e-6 added, so that nothing but an empty
sum is changed by it; the causal form is a chunked scan in torch instead of a CUDA kernel. There are no attention
weights, so `spec.dropout` has no effect.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from zeta_bench.attention import QKVAttention, in_fp32, permitted
from zeta_bench.baselines._scan import causal_linear, full_linear


class Linear(QKVAttention):
    """Linear attention with elu + 1 features; it has no settings."""

    @in_fp32
    def attend(self, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None) -> Tensor:
        """Sums over the keys, without any N × N matrix; shapes as in `QKVAttention.attend`."""
        fk = features(k)
        if valid is not None:
            fk = fk.masked_fill(~valid[:, None, :, None], 0.0)
        rule = causal_linear if self.spec.causal else full_linear
        return rule(features(q), fk, v)

    def attend_reference(self, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None) -> Tensor:
        """Every pair of tokens, then eq. 5; shapes as in `QKVAttention.attend`."""
        mask = permitted(q.shape[-2], causal=self.spec.causal, valid=valid, device=q.device)
        weights = (features(q) @ features(k).mT).masked_fill(~mask, 0.0)
        total = weights.sum(-1, keepdim=True)
        return weights @ v / torch.where(total > 0.0, total, 1.0)


def features(x: Tensor) -> Tensor:
    """elu(x) + 1 of every element, ≥ 0; any shape."""
    return F.elu(x) + 1.0
