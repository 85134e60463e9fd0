"""Morton (Z-order) codes: points to integers whose order keeps neighbours close (Morton 1966; ZETA, 2501.14577, §3)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zeta_bench.ops._impl import resolve

MAX_BITS = 63
"""Bits of a non-negative int64."""


def default_bits(d: int) -> int:
    """Bits a coordinate where none are given: min(10, 31 // d), so that codes are int32; 1 where d > 31."""
    return min(10, 31 // d) if d <= 31 else 1


def morton_encode(
    x: Tensor, *, bits: int | None = None, low: float = -1.0, high: float = 1.0, impl: str = "auto"
) -> Tensor:
    """Morton code of each point.

    A coordinate x lies in cell ⌊(x − low) / (high − low) · 2^bits⌋, clamped to [0, 2^bits − 1]. The cells' bits are
    interleaved, most significant first, coordinate 0 first in each group. The range is fixed: it never depends on
    the data, which would let the future move the codes of the past.

    Args:
        x: [..., d], floating point; computed in fp32, or in float64 if x is.
        bits: bits a coordinate, 1 to 63 // d; None = `default_bits`.
        low: lower edge of the first cell.
        high: upper edge of the last cell.
        impl: "auto", "reference" or "triton".

    Returns:
        [...], int32 where bits · d ≤ 31, else int64.

    Raises:
        ValueError: if bits · d > 63, bits < 1, low ≥ high, x is not of floating point or has no coordinates, or impl
            cannot run.
    """
    _check(x, low, high)
    d, width = x.shape[-1], settle_bits(x.shape[-1], bits)
    if width * d > MAX_BITS:
        raise ValueError(
            f"bits={width} in d={d} coordinates (x is {tuple(x.shape)}) make codes of {width * d} bits; "
            f"at most {MAX_BITS} fit: use fewer bits."
        )
    if resolve(impl, x.device, _unsupported(x)) == "triton":
        from zeta_bench.ops import morton_triton

        return morton_triton.encode(x, width, low, high)
    cells = quantise(x, bits=bits, low=low, high=high)
    code = (_interleave(cells, width) * _powers(width * d, x.device)).sum(-1)
    return code.to(torch.int32) if width * d <= 31 else code


def morton_ranks(q: Tensor, k: Tensor, *, bits: int | None = None) -> tuple[Tensor, Tensor]:
    """Codes of any width, as ranks: integers with the order (and the ties) that the full codes of q and k would have.

    For d · bits > 63 (claim C4 goes to d = 128), where no integer holds a code. Cells are compared lexicographically
    in interleaved order. A rank depends on the other points, but the order of two ranks does not, and order is all
    that a search looks at.

    Args:
        q: [B, H, N, d].
        k: [B, H, S, d].
        bits: as in `morton_encode`, without its upper bound.

    Returns:
        int64 [B, H, N] and [B, H, S].
    """
    N, width = q.shape[-2], settle_bits(q.shape[-1], bits)
    rows = _interleave(quantise(torch.cat((q, k), dim=-2), bits=width), width)  # [B, H, N + S, bits · d]
    rank = torch.zeros(rows.shape[:-1], dtype=torch.int64, device=q.device)
    for word in rows.split(32, dim=-1):  # most significant 32 bits first: rank so far, then these, ranked anew
        value = (word * _powers(word.shape[-1], q.device)).sum(-1)
        rank = _dense_rank(rank, value)
    return rank[..., :N], rank[..., N:]


def zorder_codes(q: Tensor, k: Tensor, *, bits: int | None = None) -> tuple[Tensor, Tensor]:
    """Codes that a search may compare: `morton_encode`, or `morton_ranks` where 63 bits are too few."""
    if settle_bits(q.shape[-1], bits) * q.shape[-1] > MAX_BITS:
        return morton_ranks(q, k, bits=bits)
    both = morton_encode(torch.cat((q, k), dim=-2), bits=bits)
    return both[..., : q.shape[-2]], both[..., q.shape[-2] :]


def quantise(x: Tensor, *, bits: int | None = None, low: float = -1.0, high: float = 1.0) -> Tensor:
    """Cell of each coordinate, int64 in x's shape; see `morton_encode`. NaN counts as `low`."""
    _check(x, low, high)
    width = settle_bits(x.shape[-1], bits)
    position = x.detach().to(torch.promote_types(x.dtype, torch.float32))
    span = position.new_full((), high - low)  # a tensor: by a number a GPU divides with the reciprocal, a cell off
    scaled = ((position - low) / span * 2.0**width).nan_to_num(nan=0.0)
    above, below = scaled >= 2.0**width, scaled < 0  # decided before the cast: floats beyond int64 have no integer
    cell = scaled.masked_fill(above | below, 0.0).floor().to(torch.int64)
    return cell.masked_fill(above, 2**width - 1)


def settle_bits(d: int, bits: int | None) -> int:
    """Bits a coordinate of d; None = `default_bits`. Raises ValueError outside 1 to 63."""
    width = default_bits(d) if bits is None else bits
    if not 1 <= width <= MAX_BITS:
        raise ValueError(f"bits must be 1 to {MAX_BITS}; got {width}.")
    return width


def _check(x: Tensor, low: float, high: float) -> None:
    if x.ndim == 0 or x.shape[-1] == 0:
        raise ValueError(f"x must have coordinates in its last dimension; its shape is {tuple(x.shape)}.")
    if not x.is_floating_point():
        raise ValueError(f"x must be floating point; it is {x.dtype} {tuple(x.shape)}.")
    if not low < high or not math.isfinite(high - low):
        raise ValueError(f"low must be below high, both finite; got low={low}, high={high}.")


def _unsupported(x: Tensor) -> str:
    if x.dtype == torch.float64:
        return "x is float64 and the kernel computes in fp32"
    return "" if x.shape[-1] <= 8 else f"x has {x.shape[-1]} coordinates and the kernel takes 8"


def _interleave(cells: Tensor, width: int) -> Tensor:
    """[..., d] cells → [..., width · d] bits, most significant first, coordinate 0 first in each group."""
    shift = torch.arange(width - 1, -1, -1, device=cells.device)
    return ((cells.unsqueeze(-2) >> shift[:, None]) & 1).flatten(-2)


def _powers(n: int, device: torch.device) -> Tensor:
    """2^(n−1), …, 2, 1."""
    return torch.ones(n, dtype=torch.int64, device=device) << torch.arange(n - 1, -1, -1, device=device)


def _dense_rank(major: Tensor, minor: Tensor) -> Tensor:
    """Rank of each (major, minor) pair along the last dimension, equal pairs sharing one."""
    by_minor = minor.argsort(dim=-1, stable=True)
    order = by_minor.gather(-1, major.gather(-1, by_minor).argsort(dim=-1, stable=True))
    first, second = major.gather(-1, order), minor.gather(-1, order)
    rises = (first[..., 1:] != first[..., :-1]) | (second[..., 1:] != second[..., :-1])
    rank = torch.nn.functional.pad(rises.to(torch.int64).cumsum(-1), (1, 0))
    return torch.empty_like(rank).scatter_(-1, order, rank)
