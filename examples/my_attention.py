"""A new attention variant in one file: softmax whose sharpness each head learns. Copy it and change `attend`.

zeta-bench audit examples/my_attention.py:MyAttention
zeta-bench run mqar --attn examples/my_attention.py:MyAttention:sharpness=2 --attn vanilla
"""

import math

import torch
from pydantic import Field
from torch import Tensor, nn

from zeta_bench.attention import AttentionSpec, QKVAttention, masked_softmax, permitted
from zeta_bench.settings import Settings


class MyAttention(QKVAttention):
    """out_i = Σ_j softmax_j(s_h q_i·k_j / √d) v_j, with s_h > 0 learned for every head h."""

    class Config(Settings):
        """What can be set: MyAttention:sharpness=2, or --set attn.sharpness=2."""

        sharpness: float = Field(default=1.0, gt=0)  # s_h at the start; 1 is ordinary softmax attention

    def __init__(self, spec: AttentionSpec, config: Config) -> None:
        super().__init__(spec, config)  # makes the projections; leave __init__ out where nothing else is learned
        self.log_s = nn.Parameter(torch.full((spec.n_heads, 1, 1), math.log(config.sharpness)))

    # Change this: the rule itself. q, k, v are [B, H, N, d_head]; valid is bool [B, N], True = a real token, or None.
    def attend(self, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None) -> Tensor:
        """Softmax over the keys that a query may use; one that may use none gets zeros."""
        scores = (q * self.log_s.exp()) @ k.mT / math.sqrt(self.spec.d_head)  # [B, H, N, N]
        mask = permitted(q.shape[-2], causal=self.spec.causal, valid=valid, device=q.device)
        return masked_softmax(scores, mask) @ v
