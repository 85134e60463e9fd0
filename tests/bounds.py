"""Attention over an index in float64, with a bound of what rounding may do to each number of a kernel's answer.

The bound comes from the run itself: every sum is taken again over absolute values, and each rounding on the way costs
its unit of that. `low` is the unit of the values' dtype (weights, means, outputs and dV are rounded to it), `single`
that of fp32 (coordinates, weights, sums; the factor covers a sum's length and a division).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from zeta_bench.ops import morton_encode, zorder_search
from zeta_bench.ops.attention import GAMMA_FLOOR
from zeta_bench.ops.search import with_local_window

NAMES = ("out", "dq", "dk", "dv", "dgamma")
WIDE = ("da", "db")


@dataclass
class Case:
    """Arguments of one call; `index` by the reference's search over the same fp32 coordinates."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    gamma: torch.Tensor
    do: torch.Tensor
    valid: torch.Tensor | None
    settings: dict
    index: torch.Tensor
    content: tuple[torch.Tensor, torch.Tensor] | None = None

    def inputs(self):
        """Fresh leaves: q, k, v, γ, and content where there is some."""
        tensors = (self.q, self.k, self.v, self.gamma, *(self.content or ()))
        return [t.detach().clone().requires_grad_() for t in tensors]

    @property
    def names(self):
        """What `exact` tells of, in the order of an output and the gradients of `inputs`."""
        return NAMES if self.content is None else NAMES + WIDE


def coordinates(kind, B, H, N, d, generator):
    x = torch.rand(B, H, N, d, generator=generator) * 2 - 1
    along = torch.linspace(-1, 1, max(N, 2))[:N, None]
    return {
        "uniform": x,
        "ties": (x * 2).round() / 2,
        "equal": torch.zeros_like(x) + 0.3,
        "drift": 0.2 * x + 0.8 * along,
        "reverse": 0.2 * x - 0.8 * along,
        "edges": x.sign(),
    }[kind]


def make(
    device="cpu", seed=0, B=1, H=2, Hv=None, N=40, S=None, d=3, dv=16, dtype=torch.float32, kind="uniform", pad=False,
    topk=8, causal=True, chunk=1, mean=None, local_window=0, offset=0, bits=None,
    content=0, size=2.0,
):  # fmt: skip
    """`content`: columns of wide queries and keys, 0 = none; `size`: standard deviation of their product's logit."""
    generator = torch.Generator().manual_seed(seed)
    S = N if S is None else S
    q, k = coordinates(kind, B, H, N, d, generator), coordinates(kind, B, H, S, d, generator)
    v = torch.randn(B, Hv or H, S, dv, generator=generator).to(dtype)
    do = torch.randn(B, H, N, dv, generator=generator).to(dtype)
    gamma = torch.rand(H, generator=generator) * 0.6 + 0.05
    valid = torch.rand(B, S, generator=generator) < 0.7 if pad else None
    wide = [(size**0.5 * torch.randn(B, H, n, content, generator=generator)).to(dtype) for n in (N, S)]
    how = {"causal": causal, "valid": valid, "offset": offset}
    codes = (morton_encode(x, bits=bits, impl="reference") for x in (q, k))
    index = zorder_search(*codes, k=topk, chunk=chunk, impl="reference", **how)
    index = with_local_window(index, S, local_window, **how)
    settings = {
        "topk": topk, "causal": causal, "chunk": chunk, "mean": mean, "local_window": local_window, "offset": offset,
        "bits": bits,
    }  # fmt: skip
    to = [None if t is None else t.to(device) for t in (q, k, v, gamma, do, valid)]
    return Case(*to, settings, index.to(device), tuple(t.to(device) for t in wide) if content else None)


def averaging(case):
    """[B, N, S]: the weight of each key in each query's mean token, and which queries have one."""
    N, S = case.q.shape[2], case.k.shape[2]
    p = case.settings["offset"] + torch.arange(N, device=case.q.device)[:, None]
    seen = torch.arange(S, device=case.q.device)[None] <= p
    if case.settings["mean"] == "all":
        seen = torch.ones_like(seen)
    seen = seen[None] & (torch.ones_like(case.q[:, 0, :1, :1]).bool() if case.valid is None else case.valid[:, None])
    return seen.double() / seen.sum(-1, keepdim=True).clamp(min=1), seen.any(-1)


def exact(case):
    """{name: (number, bound)} of the output and of each gradient."""
    leaves = [t.detach().double().requires_grad_() for t in case.inputs()]
    q, k, v, gamma, *wide = leaves
    do, group = case.do.double(), q.shape[1] // v.shape[1]
    N, S = q.shape[2], k.shape[2]
    chosen = torch.zeros(*case.index.shape[:3], S + 1, dtype=torch.bool, device=q.device)
    chosen = chosen.scatter(-1, case.index.long().masked_fill(case.index < 0, S), True)[..., :S]
    x = q[:, :, :, None] - k[:, :, None]
    g2 = gamma.clamp(min=GAMMA_FLOOR).square()[:, None, None]
    w = chosen / (x.square().sum(-1) + g2)
    big = w * _exponentials(wide, chosen)
    values = v.repeat_interleave(group, 1)
    P, has = averaging(case)
    mean_x = q - torch.einsum("bns,bhsd->bhnd", P, k)
    mean_w = (has[:, None] / (mean_x.square().sum(-1) + g2[..., 0])) * (case.settings["mean"] is not None)
    den = (big.sum(-1) + mean_w).clamp(min=1e-300)
    share, mean_share = big / den[..., None], mean_w / den
    out = share @ values + mean_share[..., None] * torch.einsum("bns,bhsd->bhnd", P, values)
    grads = torch.autograd.grad(out, leaves, do)

    with torch.no_grad():
        low, single = torch.finfo(case.v.dtype).eps, (16 + max(N, S)) * torch.finfo(torch.float32).eps
        unit = 3 * low + single
        off = _relative_error_of_shares(wide)
        mean_values = torch.einsum("bns,bhsd->bhnd", P, values.abs())
        slip = single * torch.einsum("bns,bhsd->bhnd", P, k.abs())  # of a mean key's coordinates
        mean_unit = unit + slip.sum(-1) / gamma.clamp(min=GAMMA_FLOOR)[:, None]  # |∂w/∂x| / w = 2|x|w ≤ 1/γ
        big_out = share @ values.abs() + (mean_share * mean_unit / unit)[..., None] * mean_values
        big_delta = (do.abs() * big_out).sum(-1)
        big_dp = do.abs() @ values.abs().mT
        dlog = share * (single * big_dp + unit * big_delta[..., None] + off * (big_dp + 2 * big_delta[..., None]))
        ds = 2 * w * dlog
        big_mean_ds = 2 * mean_share * mean_w * ((do.abs() * mean_values).sum(-1) + big_delta)
        mean_ds = mean_unit * big_mean_ds
        mean_dq = mean_ds[..., None] * mean_x.abs() + big_mean_ds[..., None] * slip
        dq = (ds[..., None] * x.abs()).sum(3) + mean_dq
        dk = (ds[..., None] * x.abs()).sum(2) + torch.einsum("bns,bhnd->bhsd", P, mean_dq)
        mean_dv = (mean_share * mean_unit / unit)[..., None] * do.abs()
        dv = (share * (1 + off / unit)).mT @ do.abs() + torch.einsum("bns,bhnd->bhsd", P, mean_dv)
        dv = dv.unflatten(1, (-1, group)).sum(2)
        dgamma = gamma * (ds.sum((2, 3)) + mean_ds.sum(2)).sum(0)
        least = torch.finfo(case.v.dtype).smallest_normal * low  # half of it is what a subnormal is rounded by
        bounds = [(unit + off) * big_out, dq, dk, unit * dv, dgamma]
        if wide:
            rows = [t.abs() / t.shape[-1] ** 0.5 for t in wide]
            dlog = dlog + 2 * unit * share * (big_dp + big_delta[..., None])  # rounded before the product, and after
            bounds += [dlog @ rows[1], dlog.mT @ rows[0]]
    numbers = (out.detach(), *grads)
    return {name: (n, bound + least) for name, n, bound in zip(case.names, numbers, bounds, strict=True)}


def _exponentials(wide, chosen):
    """exp(a·b/√c) of pairs, less the largest exponent of each query; without content 1."""
    if not wide:
        return 1.0
    logits = (wide[0] @ wide[1].mT / wide[0].shape[-1] ** 0.5).masked_fill(~chosen, -torch.inf)
    return (logits - logits.detach().amax(-1, keepdim=True).nan_to_num(neginf=0.0)).exp()


def _relative_error_of_shares(wide):
    """By how much the roundings of a·b/√c may move a normalised weight, [B, H, N, 1]; without content 0.

    An exponent that is off by e moves its weight by a factor of 1 + e, and the sum of weights by as much again. c
    products of a sum are each at most ‖a‖ ‖b‖; taking an exponential to the base 2 costs a few units of the exponent.
    """
    if not wide:
        return torch.zeros((), dtype=torch.float64)
    a, b = wide
    largest = a.norm(dim=-1, keepdim=True) * b.norm(dim=-1).amax(-1)[..., None, None] / a.shape[-1] ** 0.5
    return 2 * torch.finfo(torch.float32).eps * ((a.shape[-1] + 16) * largest + 64)


def excess(case, outputs):
    """{name: largest error ÷ bound} of (out, dq, dk, dv, dgamma); all must be at most 1. NaN counts as infinite."""
    result = {}
    for (name, (number, bound)), got in zip(exact(case).items(), outputs, strict=True):
        ratio = ((got.double() - number).abs() / bound).nan_to_num(nan=float("inf"))
        result[name] = ratio.max().item() if ratio.numel() else 0.0
    return result
