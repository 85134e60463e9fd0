"""Audits of causality: nothing at or before a position may depend on what comes after it.

A gradient sees a leak only where the future enters differentiably. It is blind to a leak through a detached statistic,
a rounding, a sort or a choice of keys; changing the values is not. Both are run: the gradient covers every magnitude
at once where the function is smooth, the values cover the rest.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from zeta_bench.audit.case import D_MODEL, Case, N, Tally, rounding, tokens

CUTS = (1, 2, 17, 33, 64, N - 1)
"""First token of the future, in the value audit and the gradient audit."""


def causality_value(case: Case) -> Tally:
    """Change the future, look for a change in the past (design.md; protocols.md §6.1, checks 1 and 2).

    Proves, for these inputs: outputs before t do not move when token t alone is changed by 10⁻⁴, 1 or 10³, or set to
    zero; when everything from t on is redrawn, at the usual scale or 10³ times it; when tokens from t on become
    padding; and when the sequence ends at t (max_len stays). Small changes find leaks that saturate, large ones those
    that wait for a maximum, the prefix those that use the length. Cannot see: a leak that opens only at lengths, values
    or settings other than these, nor one below the bound (`rounding` of the largest input or output, about 10⁻¹²).
    """
    module, x, tally = case.module(), tokens(), Tally()
    with torch.no_grad():
        base = module(x)
        tally.require(bool(base.isfinite().all()), "the unchanged output is not finite")
        for cut in CUTS:
            for what, changed, valid in _futures(x, cut):
                y = module(changed, valid)
                tally.close(y[:, :cut], base[:, :cut], rounding(changed, base), f"{what} moves outputs before it")
            prefix = module(x[:, :cut].contiguous())
            tally.close(prefix, base[:, :cut], rounding(x, base), f"the first {cut} tokens alone give other outputs")
    return tally


def causality_gradient(case: Case) -> Tally:
    """∂y_i/∂x_j = 0 for every i < t ≤ j, in float64, through a random combination of all y_i before t, for several t.

    Proves that no differentiable path leads back from the future: a random combination hides a leak with probability
    0. Cannot see a leak through anything without a gradient: a detached maximum, a quantiser's range, a sort, an index.
    """
    module, x, tally = case.module(), tokens().requires_grad_(), Tally()
    weight = tokens(stream=1)
    y = module(x)
    for cut in CUTS:
        g = weight.clone()
        g[:, cut:] = 0.0
        (grad,) = torch.autograd.grad(y, x, g, retain_graph=True, materialize_grads=True)
        future = grad[:, cut:]
        tally.close(future, torch.zeros_like(future), rounding(grad), f"outputs before {cut} have a gradient after it")
    return tally


def _futures(x: Tensor, cut: int) -> Iterator[tuple[str, Tensor, Tensor | None]]:
    """What may stand from `cut` on: what it is called, the changed input, and its valid mask."""
    other = tokens(stream=2)
    step = torch.nn.functional.normalize(other[:, cut], dim=-1) * D_MODEL**0.5
    for size in (1e-4, 1.0, 1e3):
        changed = x.clone()
        changed[:, cut] += size * step
        yield f"adding {size:g} to token {cut}", changed, None
    changed = x.clone()
    changed[:, cut] = 0.0
    yield f"setting token {cut} to zero", changed, None
    for size in (1.0, 1e3):
        yield (
            f"redrawing every token from {cut} on at scale {size:g}",
            torch.cat((x[:, :cut], size * other[:, cut:]), 1),
            None,
        )
    valid = (torch.arange(x.shape[1]) < cut).expand(x.shape[:2]).clone()
    valid[:, -1] = True
    yield f"padding from {cut} on", x, valid
