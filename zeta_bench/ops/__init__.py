"""ZETA's operations, usable alone: this package needs nothing but torch.

Each function's reference is its specification: plain torch, in the order of the formulas, right in float64, quadratic
in memory. Notation: B batch, H heads, N queries, S keys, d coordinates a head (the paper's d_K), dv value width.
"""

from __future__ import annotations

from zeta_bench.ops.attention import topk_attention
from zeta_bench.ops.debug import set_debug
from zeta_bench.ops.morton import morton_encode
from zeta_bench.ops.search import exact_search, zorder_search
from zeta_bench.ops.zeta import zeta_attention

__all__ = ["exact_search", "morton_encode", "set_debug", "topk_attention", "zeta_attention", "zorder_search"]
