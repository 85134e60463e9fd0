"""Neighbours by distance, neighbours on the curve, and how many of them are the same."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from zeta_bench.ops import exact_search, zorder_search
from zeta_bench.ops.morton import zorder_codes

MOST = 2**21
"""Pairs of a query and a key that are held at once."""


def nearest(q: Tensor, k: Tensor, count: int) -> Tensor:
    """The `count` keys nearest to each query, int32 [N, count] of [N, d] and [S, d]."""
    return torch.cat(
        [exact_search(part[None, None], k[None, None], topk=count, causal=False) for part in _parts(q, k)], 2
    )[0, 0]


def window(q: Tensor, k: Tensor, count: int, bits: int | None) -> Tensor:
    """The `count` keys around each query's place on the Z-order curve, as ZETA searches where nothing is masked.

    Args:
        q: [N, d], coordinates in [−1, 1].
        k: [S, d].
        count: keys a query.
        bits: a coordinate, see `zeta_bench.ops.morton_encode`; codes of more than 63 bits are compared as ranks.

    Returns:
        int32 [N, count].
    """
    q_codes, k_codes = (codes[0, 0] for codes in zorder_codes(q[None, None], k[None, None], bits=bits))
    found = [
        zorder_search(part[None, None], k_codes[None, None], k=count, causal=False, impl="reference")
        for part in _parts(q_codes, k_codes)
    ]
    return torch.cat(found, 2)[0, 0]


def overlap(found: Tensor, true: Tensor) -> Tensor:
    """Share of the true neighbours that were found, |A ∩ B| / count, fp32 [N] of two [N, count]."""
    return (true[:, :, None] == found[:, None, :]).any(-1).float().mean(-1)


def _parts(q: Tensor, k: Tensor) -> Iterator[Tensor]:
    yield from q.split(max(1, MOST // len(k)))
