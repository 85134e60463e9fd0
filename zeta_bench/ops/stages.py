"""`zeta_attention` taken apart, so that each stage can be timed alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from zeta_bench.ops._impl import resolve
from zeta_bench.ops.attention import topk_attention
from zeta_bench.ops.morton import settle_bits, zorder_codes
from zeta_bench.ops.options import MEANS, Content, Options
from zeta_bench.ops.search import with_local_window, zorder_search
from zeta_bench.ops.zeta import unsupported_fused

Stage = tuple[str, Callable[[], object]]


def stages(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gamma: Tensor,
    *,
    topk: int,
    causal: bool = True,
    chunk: int = 1,
    bits: int | None = None,
    content: Content | None = None,
    mean: str | None = None,
    local_window: int = 0,
    deterministic: bool = False,
    impl: str = "auto",
) -> list[Stage]:
    """The stages of one training step, in order: encode, sort, search, attend, backward.

    Each callable repeats its stage on what the ones before it gave, once, when this was called.

    Args:
        q: [B, H, N, d], as in `zeta_attention`; so are the others.
        k: [B, H, S, d].
        v: [B, Hv, S, dv].
        gamma: [H].
        topk: keys a query.
        causal: see `zeta_attention`.
        chunk: see `zeta_attention`.
        bits: see `zeta_attention`.
        content: see `zeta_attention`.
        mean: see `zeta_attention`.
        local_window: see `zeta_attention`.
        deterministic: see `zeta_attention`.
        impl: "auto", "reference" or "triton".
    """
    width = settle_bits(q.shape[-1], bits)
    o = Options(topk, causal, chunk, width, MEANS.index(mean), local_window, 0, deterministic)
    without = unsupported_fused(q, k, v, width, content, mean=mean is not None)
    make = _kernel_stages if resolve(impl, q.device, without) == "triton" else _reference_stages
    wide = None if content is None else (content[0].detach(), content[1].detach())
    return make(q.detach(), k.detach(), v.detach(), gamma.detach(), wide, o)


def _kernel_stages(q: Tensor, k: Tensor, v: Tensor, gamma: Tensor, content: Content | None, o: Options) -> list[Stage]:
    from zeta_bench.ops import content_triton, lists_triton, zeta_triton
    from zeta_bench.ops._tuning import tiles
    from zeta_bench.ops.launch import key_of

    q, k, gamma = (t.float().contiguous() for t in (q, k, gamma))
    g, queries = zeta_triton.geometry(q, k, o), tiles(v.shape[-1]).queries
    key = key_of(o, q, k)
    codes = lists_triton.encode(key, q, k, g, o.bits)
    ordered = lists_triton.sort(codes)
    index = zeta_triton.search(key, codes, ordered, k, None, o, g, queries)

    def attend() -> tuple[Tensor, ...]:
        if content is None:
            return zeta_triton.forward(q, k, v, gamma, None, index, o)
        return content_triton.forward(q, k, v, gamma, None, content, index, o)

    found = attend()
    do = torch.ones_like(found[0])

    def backward() -> object:
        if content is None:
            return zeta_triton.backward(do, q, k, v, gamma, None, found[0], found[1], found[2], found[3], index, o)
        return content_triton.backward(do, q, k, v, gamma, None, content, found[0], found[1], index, o)

    return [
        ("encode", lambda: lists_triton.encode(key, q, k, g, o.bits)),
        ("sort", lambda: lists_triton.sort(codes)),
        ("search", lambda: zeta_triton.search(key, codes, ordered, k, None, o, g, queries)),
        ("attend", attend),
        ("backward", backward),
    ]


def _reference_stages(
    q: Tensor, k: Tensor, v: Tensor, gamma: Tensor, content: Content | None, o: Options
) -> list[Stage]:
    inputs = [t.clone().requires_grad_() for t in (q, k, v, gamma, *(content or ()))]
    wide = (inputs[4], inputs[5]) if content else None
    codes = zorder_codes(q, k, bits=o.bits)

    def search() -> Tensor:
        index = zorder_search(*codes, k=o.topk, causal=o.causal, chunk=o.chunk, impl="reference")
        return with_local_window(index, k.shape[2], o.local_window, causal=o.causal)

    index = search()

    def attend() -> Tensor:
        return topk_attention(
            inputs[0], inputs[1], inputs[2], index, inputs[3], content=wide, mean=MEANS[o.mean], impl="reference"
        )

    out = attend()
    do = torch.ones_like(out)
    return [
        ("encode", lambda: zorder_codes(q, k, bits=o.bits)),
        ("sort", lambda: codes[1].sort(dim=-1, stable=True)),
        ("search", search),
        ("attend", attend),
        ("backward", lambda: torch.autograd.grad(out, inputs, do, retain_graph=True)),
    ]
