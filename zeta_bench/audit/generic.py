"""Audits of any variant: definition, padding, batch, repetition, lengths, inputs left as they were."""

from __future__ import annotations

import torch
from torch import Tensor

from zeta_bench.attention import Attention, QKVAttention
from zeta_bench.audit.case import (
    LENGTHS,
    Case,
    Skip,
    Tally,
    gradients,
    rounding,
    scattered_mask,
    tail_mask,
    tokens,
)


def reference(case: Case) -> Tally:
    """`forward` and its gradients equal those of `reference`, the variant's own definition, in float64.

    Proves that chunking, fusing or a backward written by hand computes what the definition says, at full and at odd
    lengths, with and without padding. Cannot see an error that both share: projections, or the definition itself.
    Outputs are compared at real tokens. The bound is `rounding` of the largest entry of what is compared; for
    gradients, which sum over tokens of either sign, of the largest entry of all gradients.
    """
    module, tally = case.module(), Tally()
    if not has_reference(module):
        raise Skip("none given")
    for x, valid in [(tokens(), None), (tokens(), scattered_mask()), (tokens(33), tail_mask(33)), (tokens(1), None)]:
        _same_as_reference(module, x, valid, tally)
    return tally


def has_reference(module: Attention) -> bool:
    """Whether the variant overrides `reference`, or `attend_reference` where it is a rule over q, k, v."""
    if isinstance(module, QKVAttention) and type(module).reference is QKVAttention.reference:
        return type(module).attend_reference is not QKVAttention.attend_reference
    return type(module).reference is not Attention.reference


def _same_as_reference(module: Attention, x: Tensor, valid: Tensor | None, tally: Tally) -> None:
    real = torch.ones(x.shape[:2], dtype=torch.bool) if valid is None else valid
    g = tokens(x.shape[1], stream=1) * real[..., None]
    got = gradients(module, module, x, valid, g)
    how = f"{x.shape[1]} tokens" + ("" if valid is None else " with padding")
    want = gradients(module, module.reference, x, valid, g)
    if "∂x" not in want:
        tally.note = "the reference has no gradient, so outputs only"
    bounds = {name: rounding(*(want[n] for n in want if n != "y")) for name in want} | {"y": rounding(want["y"][real])}
    for name in want:
        a, b = (got[name][real], want[name][real]) if name == "y" else (got[name], want[name])
        tally.close(a, b, bounds[name], f"{how}: {name} is not the reference's")


def padding(case: Case) -> Tally:
    """What stands at padded places does not matter, and padding at the end is as if it were not there.

    Proves, for padding at the end and anywhere: outputs at real tokens do not move when padded tokens are set to zero
    or redrawn 10³ times as large; with padding at the end they equal the unpadded sequence's; a mask that is all True
    equals none; and every output is finite, also at padded places and where a causal query has nothing to attend,
    because the next layer reads them (0 · NaN is NaN). Cannot see: padding at lengths other than these, NaN in padding.
    """
    module, x, tally = case.module(), tokens(), Tally()
    with torch.no_grad():
        full = torch.ones(x.shape[:2], dtype=torch.bool)
        y = module(x)
        tally.close(module(x, full), y, rounding(y), "a mask that is all True is not the same as none")
        for name, valid in (("at the end", tail_mask()), ("anywhere", scattered_mask())):
            base = module(x, valid)
            tally.require(bool(base.isfinite().all()), f"padding {name}: the output is not finite everywhere")
            for what, content in (("zeros", 0.0 * x), ("noise of 10³", 1e3 * tokens(stream=2))):
                y = module(torch.where(valid[..., None], x, content), valid)
                tally.close(
                    y[valid], base[valid], rounding(base[valid]), f"{what} in padding {name} changes real outputs"
                )
        base = module(x, tail_mask())
        for b, real in enumerate(tail_mask().sum(-1).tolist()):
            y = module(x[b : b + 1, :real].contiguous())[0]
            tally.close(y, base[b, :real], rounding(y), f"padding at the end: {real} tokens alone give other outputs")
    return tally


def batch_independence(case: Case) -> Tally:
    """The output of a sequence does not depend on its batch.

    Proves that outputs follow when sequences change places, stay when the others are redrawn 10³ times as large, and
    equal those of the sequence alone, padded or not. Cannot see what happens in training mode, or at larger batches.
    """
    module, x, tally = case.module(), tokens(batch=3), Tally()
    order = torch.tensor([2, 0, 1])
    with torch.no_grad():
        for how, valid in (("", None), (" with padding", tail_mask(batch=3))):
            base = module(x, valid)
            moved = module(x[order], None if valid is None else valid[order])
            tally.close(moved, base[order], rounding(base), f"sequences in another order give other outputs{how}")
            for b in range(3):
                others = 1e3 * tokens(batch=3, stream=2)
                others[b] = x[b]
                y = module(others, valid)
                tally.close(y[b], base[b], rounding(base), f"other sequences change the output of sequence {b}{how}")
                alone = module(x[b : b + 1].contiguous(), None if valid is None else valid[b : b + 1])
                tally.close(alone[0], base[b], rounding(base), f"sequence {b} alone gives another output{how}")
    return tally


def determinism(case: Case) -> Tally:
    """In eval mode two calls give the same output and the same gradients to the bit, with another call in between.

    Proves that nothing is drawn at random per call, dropout is off (the layer is built with dropout 0.1), and nothing
    is carried over from one call to the next. Cannot see: an order of additions that varies on a GPU, or with threads.
    """
    module, x, tally = case.module(dropout=0.1), tokens(), Tally()
    g = tokens(stream=1)
    first = gradients(module, module, x, None, g)
    with torch.no_grad():
        module(tokens(33, stream=2), tail_mask(33))
    second = gradients(module, module, x, None, g)
    for name in first:
        tally.close(second[name], first[name], 0.0, f"a second call gives another {name}")
    return tally


def odd_lengths(case: Case) -> Tally:
    """Lengths 1, 2, 3, 17, 33, 65 work, in float32: right shape and dtype, everything finite, with and without padding.

    Proves that no block size is assumed and that the shortest sequences have finite gradients (a distance of 0, a
    variance of one token). Cannot see whether the numbers are right; that is `reference` and `causality-value`.
    """
    module, tally = case.module(torch.float32), Tally()
    for length in LENGTHS:
        x = tokens(length).float()
        for how, valid in (("", None), (" with padding", tail_mask(length))):
            found = gradients(module, module, x, valid, tokens(length, stream=1))
            shape, dtype = tuple(found["y"].shape), found["y"].dtype
            tally.require(shape == tuple(x.shape), f"{length} tokens{how}: the output's shape is {list(shape)}")
            tally.require(dtype == x.dtype, f"{length} tokens{how}: the output's dtype is {dtype}")
            tally.require("∂x" in found, f"{length} tokens{how}: the output has no gradient")
            for name, value in found.items():
                tally.require(bool(value.isfinite().all()), f"{length} tokens{how}: {name} is not finite")
    return tally


def inputs_unchanged(case: Case) -> Tally:
    """Forward and backward leave x, valid, the upstream gradient, parameters and buffers as they were, to the bit.

    Proves that no in-place operation reaches what the caller owns; a residual connection would otherwise add the
    changed x. Cannot see writes that happen in training mode only, which a running statistic may well do.
    """
    module, tally = case.module(), Tally()
    x, valid, g = tokens(), scattered_mask(), tokens(stream=1)
    owned = {"x": x, "valid": valid, "the upstream gradient": g, **module.state_dict(keep_vars=True)}
    before = {name: value.detach().clone() for name, value in owned.items()}
    with torch.no_grad():
        module(x, valid)
    tally.require(torch.equal(x, before["x"]), "x is changed by a forward without gradients")
    given = x.clone().requires_grad_() * 1.0  # no leaf: writing to a leaf is an error, writing to this is not
    module(given, valid).backward(g)
    owned["x"] = given
    for name, value in owned.items():
        tally.require(torch.equal(value.detach(), before[name]), f"{name} is changed by forward and backward")
    return tally
