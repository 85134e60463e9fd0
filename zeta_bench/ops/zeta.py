"""ZETA's attention as one operation (arXiv 2501.14577, §3)."""

from __future__ import annotations

import torch
from torch import Tensor

from zeta_bench.ops import debug, library
from zeta_bench.ops._impl import resolve
from zeta_bench.ops.attention import MAX_WIDTH, check, check_content, topk_attention, unsupported_values
from zeta_bench.ops.morton import MAX_BITS, settle_bits, zorder_codes
from zeta_bench.ops.options import MEANS, Content, Options
from zeta_bench.ops.search import check_choice, with_local_window, zorder_search


def zeta_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gamma: Tensor,
    *,
    topk: int = 32,
    causal: bool = True,
    chunk: int = 1,
    bits: int | None = None,
    content: Content | None = None,
    mean: str | None = None,
    valid: Tensor | None = None,
    local_window: int = 0,
    offset: int = 0,
    deterministic: bool = False,
    impl: str = "auto",
) -> Tensor:
    """ZETA's attention as one operation: Morton codes, Z-order search, Cauchy weights (ZETA, §3).

    Args:
        q: [B, H, N, d], in [−1, 1].
        k: [B, H, S, d], in [−1, 1].
        v: [B, Hv, S, dv].
        gamma: [H].
        topk: keys a query.
        causal: as in `zorder_search`, like chunk, valid and offset.
        chunk: as in `zorder_search`.
        bits: as in `morton_encode`; where bits · d > 63 the reference ranks cells lexicographically.
        content: as in `topk_attention`; by kernels where there is no mean token.
        mean: as in `topk_attention`.
        valid: bool [B, S], True = a real key.
        local_window: so many keys around, or if causal the newest up to, the query's own position besides, chunk or
            not, in the same normalisation; a key that the search finds too counts once. 0 = none.
        offset: position of query 0.
        deterministic: gradients bit-identical from run to run: the kernels then add them up in fixed point, which
            takes 64 bits a number and some more time. The reference is so on a CPU; on a GPU it raises.
        impl: "auto", "reference" or "triton". The kernels take d ≤ 8, dv and c ≤ 256, bits · d ≤ 63, not
            float64.

    Returns:
        [B, H, N, dv] in v's dtype. Differentiable once in q, k, v, γ and content; the search itself has no gradient.

    Raises:
        ValueError: naming the argument and its shape or value.
    """
    check(q, k, v, gamma, mean, valid)
    check_content(q, k, content)
    check_choice("topk", topk, chunk)
    if local_window < 0:
        raise ValueError(f"local_window must be at least 0; got {local_window}.")
    width = settle_bits(q.shape[-1], bits)
    debug.check_coordinates(q, k)
    if resolve(impl, q.device, unsupported_fused(q, k, v, width, content, mean=mean is not None)) == "triton":
        options = Options(topk, causal, chunk, width, MEANS.index(mean), local_window, offset, deterministic)
        return library.zeta_attention(q, k, v, gamma, valid, options, content)
    if deterministic and q.is_cuda:
        raise ValueError("the reference adds up gradients in any order on a GPU; deterministic=True needs the kernels.")
    q_codes, k_codes = zorder_codes(q, k, bits=bits)
    index = zorder_search(
        q_codes, k_codes, k=topk, causal=causal, chunk=chunk, valid=valid, offset=offset, impl="reference"
    )
    index = with_local_window(index, k.shape[2], local_window, causal=causal, valid=valid, offset=offset)
    return topk_attention(
        q, k, v, index, gamma, content=content, mean=mean, valid=valid, offset=offset, impl="reference"
    )


def unsupported_fused(
    q: Tensor, k: Tensor, v: Tensor, bits: int, content: Content | None = None, *, mean: bool = False
) -> str:
    """Why the kernels cannot do this, or ""; `mean`: with a mean token."""
    if bits * q.shape[-1] > MAX_BITS:
        return f"bits={bits} in d={q.shape[-1]} coordinates make codes of more than {MAX_BITS} bits"
    if content is not None and mean:
        return "the kernels weigh with content where there is no mean token"
    if content is not None and torch.float64 in (content[0].dtype, content[1].dtype):
        return "content is float64 and the kernels compute in fp32"
    if content is not None and content[0].shape[-1] > MAX_WIDTH:
        return f"content has c={content[0].shape[-1]} columns and the kernels take {MAX_WIDTH}"
    return unsupported_values(q, k, v)
