"""The audit of low precision: finite, and no further from float64 than roundings of that precision explain."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zeta_bench.audit.case import SEED, Case, Forward, Tally, gradients, tail_mask, tokens

STAGES = 6
"""Roundings of one forward, one after the other: inputs and weights, q/k/v, scores, weights, mixture, output."""

DRAWS = 4
"""Random roundings of which the one that moves the output most is the bound."""

KEPT = 0.95
"""Share of the tokens, those with the smallest errors, whose error is compared with the bound."""


def low_precision(case: Case) -> Tally:
    """bf16 and fp16, as the module's dtype and under autocast: finite, and near float64.

    The error is the root mean square over real tokens of what the output differs from y, the output in float64. Its
    bound is measured, not chosen: how far y itself moves, in float64, when every input and weight is changed by a
    random relative amount up to STAGES · u (u = unit roundoff of the dtype), plus STAGES · u · ‖y‖. The reason: a
    forward rounds at STAGES places; each rounding is, relatively, as large as one of the inputs and is passed on by
    what remains of the same function; at worst they add up.

    A variant that selects keys by cells or hashes selects some others after a rounding. Where many do, the moved y has
    as many. Where it is one or two in the whole input, one side may have it and the other not, so the bound is the
    largest of DRAWS, and one token in twenty, those with the largest errors, is left out of the error.

    Finite means every output and gradient, with padding; at eight times the usual scale (a norm's gain) every output,
    while a gradient that grows past fp16 is for a loss scaler. Cannot see: a wrong number at fewer than one token in
    twenty, an overflow that only a longer sequence reaches, a GPU's kernels.
    """
    tally, skipped = Tally(), []
    for dtype in (torch.bfloat16, torch.float16):
        y, bound = _exact(case, dtype)
        for autocast in (False, True):
            how = f"{'autocast' if autocast else 'module'} {str(dtype).removeprefix('torch.')}"
            try:
                _one(case, dtype, autocast, y, bound, how, tally)
            except RuntimeError as error:
                if "not implemented for" not in str(error):
                    raise
                skipped.append(how)
    tally.note = f"not run, for want of an operation on a CPU: {', '.join(skipped)}" if skipped else ""
    return tally


def _exact(case: Case, dtype: torch.dtype) -> tuple[Tensor, float]:
    """The output in float64, and the bound of a dtype's error."""
    x, valid = tokens(), tail_mask()
    y = _outputs(case.module(), x, valid)
    unit, moved = torch.finfo(dtype).eps / 2, 0.0
    generator = torch.Generator().manual_seed(SEED)

    def move(t: Tensor) -> Tensor:
        return t * (1 + STAGES * unit * (2 * torch.rand(t.shape, generator=generator, dtype=t.dtype) - 1))

    for _ in range(DRAWS):
        module = case.module()
        with torch.no_grad():
            for tensor in (*module.parameters(), *module.buffers()):
                if tensor.is_floating_point():
                    tensor.copy_(move(tensor))
        moved = max(moved, _rms((_outputs(module, move(x), valid) - y)[valid]))
    return y, moved + STAGES * unit * _rms(y[valid])


def _one(case: Case, dtype: torch.dtype, autocast: bool, exact: Tensor, bound: float, how: str, tally: Tally) -> None:
    module, valid = case.module(torch.float32 if autocast else dtype), tail_mask()
    x = tokens().to(torch.float32 if autocast else dtype)

    def forward(x: Tensor, valid: Tensor | None) -> Tensor:
        with torch.autocast("cpu", dtype, enabled=autocast):  # around the forward alone: a backward is not run under it
            return module(x, valid)

    for name, value in gradients(module, forward, x, valid, tokens(stream=1) * valid[..., None]).items():
        tally.require(bool(value.isfinite().all()), f"{how}: {name} is not finite")
    large = _outputs(forward, 8 * x, valid)
    tally.require(bool(large.isfinite().all()), f"{how}, inputs eight times as large: the output is not finite")
    y = _outputs(forward, x, valid)
    if not autocast:
        tally.require(y.dtype == dtype, f"{how}: the output's dtype is {y.dtype}")
    errors = (y.double() - exact)[valid].square().mean(-1).sort().values
    tally.measure(_rms(errors[: math.ceil(KEPT * len(errors))].sqrt()), bound, f"{how}: the root mean square error")


def _outputs(forward: Forward, x: Tensor, valid: Tensor) -> Tensor:
    with torch.no_grad():
        return forward(x, valid)


def _rms(x: Tensor) -> float:
    """Root mean square; infinite where anything is not finite."""
    return float(x.double().square().mean().sqrt()) if bool(x.isfinite().all()) else math.inf
