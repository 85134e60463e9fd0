"""What the operators multiply, for torch's `FlopCounterMode`: it sees no further than an operator's name.

As its formulas of other attentions: a multiplication and an addition are two, every query counts as having all its
keys, and a backward pass has twice the products of a forward pass. Codes, sorting and means are no products.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.flop_counter import register_flop_formula

from zeta_bench.ops import library, library_topk  # noqa: F401  (the operators are registered when they are imported)

Shape = Sequence[int]


def attention_flops(q: Shape, values: int, keys: int, content: int = 0) -> int:
    """FLOPs of a forward pass: of each query and its keys the distance, the content product, and the weighted sum.

    Args:
        q: [B, H, N, d].
        values: dv, width of a value.
        keys: of a query, the mean token among them.
        content: width of the content queries; 0 = none.
    """
    B, H, N, d = q
    return 2 * B * H * N * keys * (d + content + values)


def _zeta_flops(
    q: Shape, k: Shape, v: Shape, gamma: Shape, valid: Shape | None, a: Shape | None, b: Shape | None, topk: int,
    causal: bool, chunk: int, bits: int, mean: int, local_window: int, *rest: Any, **out: Any,
) -> int:  # fmt: skip
    keys = min(topk + local_window, k[2]) + (mean != 0)
    return attention_flops(q, v[3], keys, a[3] if a else 0)


def _topk_flops(
    q: Shape, k: Shape, v: Shape, index: Shape, gamma: Shape, valid: Shape | None, mean: int, *rest: Any, **out: Any
) -> int:
    return attention_flops(q, v[3], index[3] + (mean != 0))


def _zeta_backward_flops(do: Shape, *forward: Any, **out: Any) -> int:
    inputs, options = forward[:7], forward[9:]  # between them what the forward pass left
    return 2 * _zeta_flops(*inputs, *options)


def _topk_backward_flops(do: Shape, *forward: Any, **out: Any) -> int:
    return 2 * _topk_flops(*forward[:6], *forward[7:])


for operator, formula in (
    ("zeta", _zeta_flops),
    ("zeta_backward", _zeta_backward_flops),
    ("topk", _topk_flops),
    ("topk_backward", _topk_backward_flops),
):
    register_flop_formula(getattr(torch.ops.zeta_bench, operator))(formula)
