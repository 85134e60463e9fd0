"""Inputs of a bench: seeded, made on the device, and for ZETA's coordinates in several distributions.

How long a search takes may depend on where the points lie, so `coordinates` offers what a trained model might show and
what is worst: ``uniform``, queries and keys apart; ``clusters``, 16 centres a head and 2 % noise; ``equal``, one point;
``drift``, four fifths of the range move linearly with the position and a fifth is uniform noise; ``walk``, the sine of
a random walk a head that queries and keys share, and 2 % noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

SEED = 20250124
CENTRES = 16
NOISE = 0.02
_DRIFT = 0.8
_WALK = 4 * math.pi
"""How far the walk under the sine has spread at its end (one standard deviation): a few turns."""

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}

Shape = tuple[int, int, int, int]


def generator(device: torch.device) -> torch.Generator:
    """A generator of its own: torch's default one belongs to whoever calls."""
    return torch.Generator(device).manual_seed(SEED)


def normal(shape: tuple[int, ...], dtype: torch.dtype, source: torch.Generator) -> Tensor:
    """Standard normal numbers of that shape on the generator's device."""
    return torch.randn(shape, dtype=dtype, device=source.device, generator=source)


def coordinates(kind: str, shape: Shape, source: torch.Generator) -> tuple[Tensor, Tensor]:
    """Queries and keys of ZETA.

    Args:
        kind: a key of `DISTRIBUTIONS`.
        shape: (B, H, N, d).
        source: generator on the device of the result.

    Returns:
        Two fp32 [B, H, N, d], every coordinate in [−1, 1].
    """
    q, k = DISTRIBUTIONS[kind](shape, source)
    return q.clamp(-1.0, 1.0), k.clamp(-1.0, 1.0)


def _uniform(shape: Shape, source: torch.Generator) -> tuple[Tensor, Tensor]:
    return _flat(shape, source), _flat(shape, source)


def _clusters(shape: Shape, source: torch.Generator) -> tuple[Tensor, Tensor]:
    B, H, N, d = shape
    centres = _flat((B, H, CENTRES, d), source)

    def draw() -> Tensor:
        chosen = torch.randint(CENTRES, (B, H, N, 1), device=source.device, generator=source)
        return centres.gather(2, chosen.expand(shape)) + NOISE * normal(shape, torch.float32, source)

    return draw(), draw()


def _equal(shape: Shape, source: torch.Generator) -> tuple[Tensor, Tensor]:
    return torch.zeros(shape, device=source.device), torch.zeros(shape, device=source.device)


def _drift(shape: Shape, source: torch.Generator) -> tuple[Tensor, Tensor]:
    line = _DRIFT * torch.linspace(-1.0, 1.0, shape[2], device=source.device)[:, None]
    return line + (1 - _DRIFT) * _flat(shape, source), line + (1 - _DRIFT) * _flat(shape, source)


def _walk(shape: Shape, source: torch.Generator) -> tuple[Tensor, Tensor]:
    steps = normal(shape, torch.float32, source) * (_WALK / shape[2] ** 0.5)
    path = steps.cumsum(2).sin()
    return path + NOISE * normal(shape, torch.float32, source), path + NOISE * normal(shape, torch.float32, source)


def _flat(shape: Shape, source: torch.Generator) -> Tensor:
    """Uniform in [−1, 1)."""
    return torch.rand(shape, device=source.device, generator=source) * 2 - 1


DISTRIBUTIONS: dict[str, Callable[[Shape, torch.Generator], tuple[Tensor, Tensor]]] = {
    "uniform": _uniform,
    "clusters": _clusters,
    "equal": _equal,
    "drift": _drift,
    "walk": _walk,
}
