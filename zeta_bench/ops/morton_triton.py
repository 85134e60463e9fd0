"""Morton codes on a GPU: one pass over the coordinates."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from zeta_bench.ops.launch import on_device_of

BLOCK = 256


@triton.jit
def interleave(X, rows, mask, low, span, scale, D: tl.constexpr, BITS: tl.constexpr, WIDE: tl.constexpr):
    """Codes of the points X[rows]: int32, or int64 if WIDE. The order of operations is the reference's."""
    kind = tl.int64 if WIDE else tl.int32
    cells = ()
    for c in tl.static_range(D):
        x = tl.load(X + rows * D + c, mask=mask, other=0.0)
        x = tl.div_rn(x - low, span) * scale
        x = tl.where(x == x, x, 0.0)  # NaN counts as low
        inside = (x >= 0.0) & (x < scale)
        cell = tl.where(inside, x, 0.0).to(kind)
        cells = cells + (tl.where(x >= scale, tl.full([1], (1 << BITS) - 1, kind), cell),)
    code = tl.zeros(rows.shape, kind)
    for b in tl.static_range(BITS):
        for c in tl.static_range(D):
            code = (code << 1) | ((cells[c] >> (BITS - 1 - b)) & 1)
    return code


@triton.jit
def _encode(X, OUT, n, low, span, scale, D: tl.constexpr, BITS: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr):
    rows = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    code = interleave(X, rows, rows < n, low, span, scale, D, BITS, WIDE)
    tl.store(OUT + rows, code, mask=rows < n)


def encode(x: Tensor, bits: int, low: float, high: float) -> Tensor:
    """`zeta_bench.ops.morton_encode` of fp32 [..., d]; arguments as checked there."""
    d = x.shape[-1]
    wide = bits * d > 31
    flat = x.detach().to(torch.float32).contiguous()
    out = torch.empty(x.shape[:-1], dtype=torch.int64 if wide else torch.int32, device=x.device)
    n = out.numel()
    if n:
        grid = (triton.cdiv(n, BLOCK),)
        with on_device_of(x):
            _encode[grid](flat, out, n, float(low), float(high - low), 2.0**bits, d, bits, wide, BLOCK)
    return out
