"""The kernels of `topk_attention` as operators of torch: `zeta_bench::topk` and its gradient; see `library`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zeta_bench.ops.launch import on_device_of
from zeta_bench.ops.library import dense, fake_attention, prepared
from zeta_bench.ops.options import MEANS


@torch.library.custom_op("zeta_bench::topk", mutates_args=())
def topk(
    q: Tensor, k: Tensor, v: Tensor, index: Tensor, gamma: Tensor, valid: Tensor | None, mean: int, offset: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Output, sum of weights, mean keys and values."""
    from zeta_bench.ops import gather_triton

    with on_device_of(q):
        return gather_triton.forward(q, k, v, index, gamma, valid, mean, offset)


@topk.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, index: Tensor, gamma: Tensor, valid: Tensor | None, mean: int, offset: int
) -> tuple[Tensor, ...]:
    return fake_attention(q, k, v, mean)


@torch.library.custom_op("zeta_bench::topk_backward", mutates_args=())
def topk_backward(
    do: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    index: Tensor,
    gamma: Tensor,
    valid: Tensor | None,
    found: list[Tensor],
    mean: int,
    offset: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v and gamma; `found` is what `topk` returned."""
    from zeta_bench.ops import gather_triton

    out, den, mean_k, mean_v = found
    with on_device_of(q):
        return gather_triton.backward(dense(do), q, k, v, index, gamma, valid, out, den, mean_k, mean_v, mean, offset)


@topk_backward.register_fake
def _(do: Tensor, q: Tensor, k: Tensor, v: Tensor, index: Tensor, gamma: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    return torch.empty_like(q), torch.empty_like(k), v.new_empty(v.shape), torch.empty_like(gamma)


def _topk_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    q, k, v, index, gamma, valid, *ctx.options = inputs
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(q, k, v, index, gamma, valid, *output)


def _topk_gradient(ctx: Any, do: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    q, k, v, index, gamma, valid, *kept = ctx.saved_tensors
    if do is None:
        return (None,) * 8
    dq, dk, dv, dgamma = topk_backward(do, q, k, v, index, gamma, valid, kept, *ctx.options)
    return dq, dk, dv, None, dgamma, None, None, None


topk.register_autograd(_topk_gradient, setup_context=_topk_context)


def topk_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    index: Tensor,
    gamma: Tensor,
    mean: str | None,
    valid: Tensor | None,
    offset: int,
) -> Tensor:
    """`zeta_bench.ops.topk_attention` by kernels; arguments as checked there."""
    q, k, v, gamma, valid = prepared(q, k, v, gamma, valid)
    return topk(q, k, v, index.contiguous(), gamma, valid, MEANS.index(mean), offset)[0]
