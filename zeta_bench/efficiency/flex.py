"""FlexAttention (torch.nn.attention.flex_attention) with a sliding window, compiled: the block-sparse rival."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from zeta_bench.efficiency.contenders import Softmax

BLOCK = 128
"""FlexAttention's own block of queries and of keys."""


@dataclass
class FlexWindow(Softmax):
    """Softmax over the k newest keys (bidirectional: over k keys around the query, as the variant `local` does).

    Compiled anew for each length, which counts as compilation. The mask of blocks is made outside the timing: it
    depends on the length alone.
    """

    name: str = field(default="flex-window", init=False)
    _compiled: dict[int, Any] = field(default_factory=dict, init=False, repr=False)

    def bind(self, q: Tensor, k: Tensor, v: Tensor) -> Callable[[], Tensor]:
        """A compiled function of its own for this length."""
        N = q.shape[-2]
        if N not in self._compiled:
            torch.compiler.reset()  # or torch would generalise over lengths and, after a few of them, stop compiling
            self._compiled = {N: torch.compile(flex_attention, dynamic=False)}
        attend = self._compiled[N]
        mask = window_mask(N, *reach(self.workload.k, self.workload.causal), q.device)
        plain = tuple(x.detach() for x in (q, k, v))  # without gradients it also runs on a CPU, which looks at inputs

        def forward() -> Tensor:
            return attend(*((q, k, v) if torch.is_grad_enabled() else plain), block_mask=mask)

        return forward

    def why_not(self, device: torch.device, mode: str) -> str:
        """On a CPU it has a forward pass only."""
        if device.type == "cpu" and mode != "forward":
            return "FlexAttention has no backward pass on a CPU; --mode forward times the rest."
        return ""

    def refused(self, error: Exception) -> bool:
        """What torch cannot compile for these shapes is nothing that broke."""
        return super().refused(error) or type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))


def reach(window: int, causal: bool) -> tuple[int, int]:
    """How many keys before and after its own position a query sees."""
    return (window - 1, 0) if causal else (window // 2, window - 1 - window // 2)


def window_mask(N: int, before: int, after: int, device: torch.device) -> BlockMask:
    """The blocks that a window touches, found without an N × N matrix (`create_block_mask` makes one).

    Args:
        N: queries and keys.
        before: keys before its own position that a query sees.
        after: keys after it.
        device: of the mask.
    """
    blocks = -(-N // BLOCK)
    row = torch.arange(blocks, dtype=torch.int32, device=device)
    first = (row * BLOCK - before).clamp(min=0) // BLOCK
    last = ((row + 1) * BLOCK - 1 + after).clamp(max=N - 1) // BLOCK
    index = (first[:, None] + row) % blocks  # [blocks, blocks]: those in use first, in order

    def permitted(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return (j >= i - before) & (j <= i + after)

    return BlockMask.from_kv_blocks(
        (last - first + 1)[None, None], index[None, None], BLOCK_SIZE=BLOCK, mask_mod=permitted, seq_lengths=(N, N)
    )
