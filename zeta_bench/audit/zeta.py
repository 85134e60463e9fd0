"""Audits of ZETA: its codes, the keys it selects, and γ. What is right is written here once more, in Python integers.

The oracle shares nothing with `zeta_bench.ops` but the definition (ZETA, arXiv 2501.14577, §3.2 and §3.3): cells,
interleaving, ranking and window are done number by number, slowly, for one query after the other.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from zeta_bench import ops
from zeta_bench.audit.case import Case, N, Tally, rounding, scattered_mask, tokens
from zeta_bench.ops.morton import default_bits, zorder_codes

if TYPE_CHECKING:
    from zeta_bench.zeta import ZetaAttention

SMALL = 4096
"""Most cells of a lattice that is enumerated whole."""


def codes(case: Case) -> Tally:
    """Codes are one to one with cells, have the bits that they should, and have a range that no sequence changes.

    Proves: on a lattice small enough to be enumerated, in d_k dimensions, each code from 0 to 2^(bits·d) − 1 belongs to
    one cell; with the module's own bits, codes of random points, of the lattice's corners and of points outside the
    range are those of the definition (where bits · d_k > 63, in order); coordinates lie in [−1, 1] for inputs of any
    size, and those of a token stay when every other token is redrawn 10³ times as large. Cannot see: cells between the
    random points, or what the search makes of the codes (that is `limits`).
    """
    module, tally = _module(case), Tally()
    _lattice(module.config.d_k, tally)
    _definition(module.config.d_k, module.config.bits, tally)
    x, others = tokens(), 1e3 * tokens(stream=2)
    keep = scattered_mask()
    others[keep] = x[keep]
    with torch.no_grad():
        for name, mine, moved in zip("qk", module.coordinates(x), module.coordinates(others), strict=True):
            kept = keep[:, None].expand(mine.shape[:3])
            tally.require(bool((moved.abs() <= 1).all()), f"coordinates of {name} leave [−1, 1]")
            tally.close(moved[kept], mine[kept], rounding(mine), f"coordinates of {name} depend on other tokens")
    return tally


def limits(case: Case) -> Tally:
    """Every selected key is below its query's limit, real, and selected once; by Z-order, it is the definition's.

    Proves, for the module's own coordinates and for coordinates with many equal codes, with and without padding: query
    i selects keys below i + 1, or below ⌊i/chunk⌋·chunk, or any where not causal, never a padded one, none twice; and
    with search="zorder" the very keys, in rank order, that the definition gives: the k at the query's place in
    (code, position) order. Cannot see: whether `forward` uses this selection (that is `reference`), other lengths.
    """
    module, tally = _module(case), Tally()
    with torch.no_grad():
        own = module.coordinates(tokens())
        coarse = tuple((c * 2).round() / 2 for c in own)  # five values a coordinate: most codes are shared
        for what, (q, k) in (("", own), (" among equal codes", coarse)):
            for how, valid in (("", None), (" with padding", scattered_mask())):
                _selected(module, q, k, valid, what + how, tally)
    return tally


def gamma(case: Case) -> Tally:
    """γ lies in (0, 1], one a head, at the start and wherever training may carry its parameter.

    Proves it for the initial weights and with every parameter behind γ at −20 and at 20. Cannot see: parameters beyond
    that, where float32 rounds a sigmoid to 0; the op floors γ there.
    """
    module, tally = _module(case, torch.float32), Tally()
    sources = [p for name, p in module.named_parameters() if "gamma" in name]
    with torch.no_grad():
        for where, value in (("at the start", None), ("at parameter −20", -20.0), ("at parameter 20", 20.0)):
            if value is not None:
                for parameter in sources:
                    parameter.fill_(value)
            found = module.gamma
            tally.require(tuple(found.shape) == (module.spec.n_heads,), f"γ has the shape {list(found.shape)}, not [H]")
            tally.require(bool(((found > 0) & (found <= 1)).all()), f"γ {where} is {found.tolist()}, outside (0, 1]")
    return tally


def define_code(point: list[float], bits: int) -> int:
    """Code of one point, by definition: cells of [−1, 1], bits interleaved, most significant and coordinate 0 first."""
    cells = [min(max(math.floor((c + 1) / 2 * 2.0**bits), 0), 2**bits - 1) for c in point]
    code = 0
    for bit in range(bits - 1, -1, -1):
        for cell in cells:
            code = code << 1 | cell >> bit & 1
    return code


def define_window(code: int, keys: list[tuple[int, int]], k: int) -> list[int]:
    """Positions of the k permitted keys, (code, position) each, around a query's code, by definition; −1 where none."""
    ranked = sorted(keys)
    below = sum(key <= code for key, _ in ranked)
    start = min(max(below - k // 2, 0), max(len(ranked) - k, 0))
    window = [position for _, position in ranked[start : start + k]]
    return window + [-1] * (k - len(window))


def _module(case: Case, dtype: torch.dtype = torch.float64) -> ZetaAttention:
    return cast("ZetaAttention", case.module(dtype))


def _lattice(d: int, tally: Tally) -> None:
    """Enumerate every cell of a lattice of at most SMALL cells: a permutation of 0 … cells − 1."""
    bits = int(math.log2(SMALL)) // d
    if not bits:
        tally.note = f"2^{d} cells are too many to be enumerated"
        return
    centres = [(2 * cell + 1) / 2**bits - 1 for cell in range(2**bits)]
    points = torch.tensor(list(itertools.product(centres, repeat=d)), dtype=torch.float64)
    found = ops.morton_encode(points, bits=bits).sort().values.tolist()
    tally.require(found == list(range(2 ** (bits * d))), f"codes of {d} × {bits} bits are not one to one with cells")


def _definition(d: int, bits: int | None, tally: Tally) -> None:
    """Compare the codes of one tensor of points with the definition's; only their order where they are ranks."""
    width = default_bits(d) if bits is None else bits
    inside = tokens(stream=3).flatten()[: 512 * d].view(-1, d).tanh()
    edges = (inside * 2**width).round() / 2**width  # on the edge of a cell, exactly
    outside = 3 * inside.sign()
    points = torch.cat((inside, edges, outside))
    found = zorder_codes(points[None, None], points[None, None], bits=bits)[0].flatten().tolist()
    want = [define_code(point, width) for point in points.tolist()]
    if width * d > 63:
        found, want = _order(found), _order(want)
    wrong = sum(a != b for a, b in zip(found, want, strict=True))
    tally.require(not wrong, f"{wrong} of {len(want)} codes of {d} × {width} bits are not the definition's")


def _order(values: list[int]) -> list[int]:
    place = {value: rank for rank, value in enumerate(sorted(set(values)))}
    return [place[value] for value in values]


def _selected(module: ZetaAttention, q: Tensor, k: Tensor, valid: Tensor | None, how: str, tally: Tally) -> None:
    index = module.select(q, k, valid)
    real = torch.ones(q.shape[0], q.shape[2], dtype=torch.bool) if valid is None else valid
    limit = torch.tensor([_limits(module, i, column) for i in range(q.shape[2]) for column in range(index.shape[-1])])
    below = (index < limit.view(index.shape[2:])) & (index >= -1)
    tally.require(bool(below.all()), f"{int((~below).sum())} keys are not below their limit{how}")
    padded = (index >= 0) & ~_at(real, index)
    tally.require(not bool(padded.any()), f"{int(padded.sum())} padded keys are selected{how}")
    twice = (index[..., :, None] == index[..., None, :]) & (index >= 0)[..., None]
    tally.require(bool((twice.sum(-1) <= 1).all()), f"a key is selected twice{how}")
    if module.config.search == "zorder":
        wrong = _not_the_window(module, q, k, real, index)
        tally.require(not wrong, f"{wrong} queries do not get the window of the definition{how}")


def _limits(module: ZetaAttention, i: int, column: int) -> int:
    """First key that query i may not have in a column: columns from k on are the local window, never chunked."""
    if not module.spec.causal:
        return N
    chunk = module.config.chunk if column < module.config.k else 1
    return i + 1 if chunk == 1 else i // chunk * chunk


def _at(real: Tensor, index: Tensor) -> Tensor:
    return real[:, None, None].expand(*index.shape[:3], -1).gather(-1, index.clamp(0, real.shape[-1] - 1).long())


def _not_the_window(module: ZetaAttention, q: Tensor, k: Tensor, real: Tensor, index: Tensor) -> int:
    """Queries whose first k columns are not the definition's window; keys of the local window may be left out there."""
    config, wrong = module.config, 0
    bits = default_bits(config.d_k) if config.bits is None else config.bits
    for b, h in itertools.product(*map(range, q.shape[:2])):
        key_codes = [define_code(point, bits) for point in k[b, h].tolist()]
        for i, point in enumerate(q[b, h].tolist()):
            keys = [(key_codes[j], j) for j in range(_limits(module, i, 0)) if real[b, j]]
            want = define_window(define_code(point, bits), keys, config.k)
            got, local = index[b, h, i, : config.k].tolist(), set(index[b, h, i, config.k :].tolist())
            wrong += any(a != w and not (a == -1 and w in local) for a, w in zip(got, want, strict=True))
    return wrong
