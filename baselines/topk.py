"""Exact top-k softmax attention (Gupta et al. 2021, arXiv 2106.06899, §2): the oracle that ZETA's search stands in for.

    out_i = Σ_{j ∈ T_i} softmax_j(q_i·k_j / √d) v_j,   T_i = the k permitted keys with the largest q_i·k_j

Future and padded keys are excluded before the selection. Among equal scores the newest keys are taken, as in
`zeta_bench.ops.exact_search`; `torch.topk` alone promises no order among ties.

Time O(N²·d) a head and memory O(N²): nothing is saved, this is the definition. The authors' code goes through the
queries in chunks to save memory; here all are taken at once. Scores are fp32 or better under autocast, since scores
rounded to bf16 tie often.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from zeta_bench.attention import QKVAttention, in_fp32, masked_softmax, permitted
from zeta_bench.settings import Settings


class TopKConfig(Settings):
    """Settings of top-k attention."""

    k: int = Field(32, ge=1, description="keys that a query attends to; all of them where fewer are permitted")


class TopK(QKVAttention):
    """Softmax attention over the k best keys of each query."""

    Config = TopKConfig

    @in_fp32
    def attend(self, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None) -> Tensor:
        """Softmax over the k best permitted keys; shapes as in `QKVAttention.attend`."""
        mask = permitted(q.shape[-2], causal=self.spec.causal, valid=valid, device=q.device)
        scores = (q @ k.mT / self.spec.d_head**0.5).masked_fill(~mask, float("-inf"))
        weights = masked_softmax(scores, best(scores.detach(), self.config.k) & mask)
        return F.dropout(weights, self.spec.dropout, self.training) @ v

    def attend_reference(self, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None) -> Tensor:
        """Sort the keys of every query, keep k, softmax over those; shapes as in `QKVAttention.attend`."""
        mask = permitted(q.shape[-2], causal=self.spec.causal, valid=valid, device=q.device)
        scores = (q @ k.mT / self.spec.d_head**0.5).masked_fill(~mask, float("-inf"))
        newest_first = scores.flip(-1).sort(dim=-1, descending=True, stable=True)
        chosen = scores.shape[-1] - 1 - newest_first.indices[..., : self.config.k]
        keep = torch.zeros_like(scores, dtype=torch.bool).scatter(-1, chosen, True) & mask
        return masked_softmax(scores, keep) @ v


def best(scores: Tensor, k: int) -> Tensor:
    """Where the k largest scores of each row are; of those equal to the k-th, the last ones in the row.

    Args:
        scores: [..., N]; without NaN.
        k: how many; all where the row has fewer.

    Returns:
        bool [..., N], exactly min(k, N) True in each row.
    """
    k = min(k, scores.shape[-1])
    kth = scores.topk(k, dim=-1).values[..., -1:]
    above, ties = scores > kth, scores == kth
    room = k - above.sum(-1, keepdim=True)
    rank = ties.flip(-1).cumsum(-1, dtype=torch.int32).flip(-1)  # 1 for the last of the ties
    return above | (ties & (rank <= room))
