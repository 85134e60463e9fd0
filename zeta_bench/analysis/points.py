"""Points to search among: seeded, on the CPU, the same whatever else is measured beside them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor

CENTRES = 32
INTRINSIC = 8
"""Dimensions of the subspace."""


def generator(*identity: object) -> torch.Generator:
    """A generator of its own for each identity, so that no draw depends on what was drawn for another."""
    digest = hashlib.sha256(repr(identity).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:6], "big"))


def draw(
    kind: str, keys: int, queries: int, d: int, source: torch.Generator, *, shared: bool = False
) -> tuple[Tensor, Tensor]:
    """Queries and keys, independent points of one distribution.

    Args:
        kind: a key of `DISTRIBUTIONS`.
        keys: S.
        queries: N.
        d: coordinates.
        source: generator.
        shared: queries are N different keys, or all of them if N is larger.

    Returns:
        fp32 [N, d] and [S, d].
    """
    if shared:
        k = DISTRIBUTIONS[kind](keys, d, source)
        return k[torch.randperm(keys, generator=source)[:queries]], k
    both = DISTRIBUTIONS[kind](keys + queries, d, source)  # one call: queries share the keys' centres and subspace
    return both[keys:], both[:keys]


def normal(n: int, d: int, source: torch.Generator) -> Tensor:
    """Standard normal [n, d]."""
    return torch.randn(n, d, generator=source)


def _uniform(n: int, d: int, source: torch.Generator) -> Tensor:
    return torch.rand(n, d, generator=source) * 2 - 1


def _tanh_normal(n: int, d: int, source: torch.Generator) -> Tensor:
    return normal(n, d, source).tanh()


def _clusters(n: int, d: int, source: torch.Generator) -> Tensor:
    centres = normal(CENTRES, d, source)
    chosen = torch.randint(CENTRES, (n,), generator=source)
    return (centres[chosen] + normal(n, d, source)) * 0.5**0.5


def _subspace(n: int, d: int, source: torch.Generator) -> Tensor:
    basis = normal(INTRINSIC, d, source) * INTRINSIC**-0.5
    return normal(n, INTRINSIC, source) @ basis


DISTRIBUTIONS: dict[str, Callable[[int, int, torch.Generator], Tensor]] = {
    "uniform": _uniform,
    "tanh-normal": _tanh_normal,
    "gaussian": normal,
    "clusters": _clusters,
    "subspace": _subspace,
}
"""Those of an analysis of projections have a variance of 1 a coordinate."""
