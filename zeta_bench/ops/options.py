"""The settings of `zeta_attention`, checked once and passed on whole."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

Content = tuple[Tensor, Tensor]
"""Wide queries [B, H, N, c] and keys [B, H, S, c] of `content`."""

MEANS = (None, "prefix", "all")
"""Mean tokens; the kernels know them by their place here."""


@dataclass(frozen=True)
class Options:
    """Settings of `zeta_bench.ops.zeta_attention`, with `bits` settled and `mean` as its place in `MEANS`."""

    topk: int
    causal: bool
    chunk: int
    bits: int
    mean: int
    local_window: int
    offset: int
    deterministic: bool
