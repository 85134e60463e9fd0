"""Sliding-window attention (Longformer's window, Beltagy et al. 2020, arXiv 2004.05150, §3.1; eq. 1 of 1706.03762).

    out_i = Σ_{j ∈ W_i} softmax_j(q_i·k_j / √d) v_j

W_i holds `window` positions: causal, the last ones up to and with i; bidirectional, window // 2 before i, i itself, and
the rest after it (so an even window looks one further back than ahead).

Time O(N·w·d) a head and memory O(N·(w + d)): queries go in blocks, and each block meets one strip of keys about twice
as long. LRA's "local attention" baseline is cut into blocks that do not overlap; this one slides. Longformer's global
tokens and dilation are left out.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from zeta_bench.attention import QKVAttention, in_fp32, masked_softmax, permitted
from zeta_bench.settings import Settings

MIN_BLOCK = 16  # smaller blocks waste more on many small products than they save


class LocalConfig(Settings):
    """Settings of sliding-window attention."""

    window: int = Field(32, ge=1, description="keys that a query sees, itself included")


class Local(QKVAttention):
    """Softmax attention over a sliding window."""

    Config = LocalConfig

    @in_fp32
    def attend(self, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None) -> Tensor:
        """Blocks of queries against strips of keys; shapes as in `QKVAttention.attend`."""
        N = q.shape[-2]
        left, right = (min(side, N - 1) for side in self._reach())
        block = min(max(left + right, MIN_BLOCK), N)
        real = torch.ones(1, N, dtype=torch.bool, device=q.device) if valid is None else valid
        offset = torch.arange(block + left + right, device=q.device) - torch.arange(block, device=q.device)[:, None]
        mask = (offset >= 0) & (offset <= left + right) & strips(real[:, None, :, None], block, left, right)
        scores = strips(q, block).mT @ strips(k, block, left, right) / self.spec.d_head**0.5
        weights = F.dropout(masked_softmax(scores, mask), self.spec.dropout, self.training)
        return (weights @ strips(v, block, left, right).mT).flatten(2, 3)[:, :, :N]

    def attend_reference(self, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None) -> Tensor:
        """Full softmax attention under a band; shapes as in `QKVAttention.attend`."""
        N = q.shape[-2]
        left, right = self._reach()
        position = torch.arange(N, device=q.device)
        ahead = position - position[:, None]  # j − i
        mask = permitted(N, causal=False, valid=valid, device=q.device) & (ahead >= -left) & (ahead <= right)
        return masked_softmax(q @ k.mT / self.spec.d_head**0.5, mask) @ v

    def _reach(self) -> tuple[int, int]:
        """How many positions before and after its own a query sees."""
        window = self.config.window
        return (window - 1, 0) if self.spec.causal else (window // 2, window - 1 - window // 2)


def strips(x: Tensor, block: int, left: int = 0, right: int = 0, fill: float = 0) -> Tensor:
    """Cut a sequence into overlapping strips, one for each block of positions.

    Args:
        x: [..., N, d].
        block: positions a block; the last one is filled up.
        left: positions before the block that its strip holds too.
        right: positions after the block that its strip holds too.
        fill: what stands where the sequence has no position.

    Returns:
        [..., n, d, left + block + right], n = ⌈N / block⌉, with d before the positions as the left factor wants it.
    """
    tail = -x.shape[-2] % block
    return F.pad(x, (0, 0, left, right + tail), value=fill).unfold(-2, left + block + right, block)
