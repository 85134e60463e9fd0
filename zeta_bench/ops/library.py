"""The kernels as operators of torch: `zeta_bench::zeta`, `zeta_bench::topk` and their gradients.

Each has a fake (shapes and dtypes alone) and an autograd formula, so torch.compile sees one node and not the kernels.
Kernels are imported when an operator runs: this package works where Triton is not installed.
"""

from __future__ import annotations

from dataclasses import astuple
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from zeta_bench.ops._tuning import tiles
from zeta_bench.ops.geometry import ROOM, Geometry
from zeta_bench.ops.launch import on_device_of
from zeta_bench.ops.options import MEANS, Options


def _dense(x: Tensor) -> Tensor:
    """X with its last dimension dense, as the kernels want it."""
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def _prepared(
    q: Tensor, k: Tensor, v: Tensor, gamma: Tensor, valid: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    """The same as the kernels want them: coordinates and γ dense in fp32, padding dense, values dense in a row."""
    q, k, gamma = (t.to(torch.float32).contiguous() for t in (q, k, gamma))
    return q, k, _dense(v), gamma, None if valid is None else valid.contiguous()


def _attend(
    q: Tensor, k: Tensor, v: Tensor, gamma: Tensor, valid: Tensor | None, options: Options
) -> tuple[Tensor, ...]:
    """Output, sum of weights, mean keys and values, and the tensors of `zeta_triton.Index`."""
    from zeta_bench.ops import zeta_triton

    with on_device_of(q):
        index = zeta_triton.index(q, k, valid, options, tiles(v.shape[-1]).queries)
        found = zeta_triton.forward(q, k, v, gamma, valid, index, options)
    return (*found, index.order, index.positions, index.planes, index.spans, index.reads, index.picked)


def _attend_backward(
    do: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gamma: Tensor,
    valid: Tensor | None,
    found: list[Tensor],
    index: list[Tensor],
    options: Options,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v and gamma; `found` and `index` are what `_attend` returned."""
    from zeta_bench.ops import zeta_triton

    built = zeta_triton.Index(*index)
    out, den, mean_k, mean_v = found
    with on_device_of(q):
        return zeta_triton.backward(_dense(do), q, k, v, gamma, valid, out, den, mean_k, mean_v, built, options)


@torch.library.custom_op("zeta_bench::zeta", mutates_args=())
def zeta(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gamma: Tensor,
    valid: Tensor | None,
    topk: int,
    causal: bool,
    chunk: int,
    bits: int,
    mean: int,
    local_window: int,
    offset: int,
    deterministic: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """`_attend` as an operator, whose arguments are numbers: the fields of `Options`, in their order."""
    options = Options(topk, causal, chunk, bits, mean, local_window, offset, deterministic)
    return _attend(q, k, v, gamma, valid, options)  # type: ignore[return-value]  # ten of them


@zeta.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, gamma: Tensor, valid: Tensor | None, topk: int, causal: bool, chunk: int,
    bits: int, mean: int, local_window: int, offset: int, deterministic: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    B, H, N, D = q.shape
    R, queries = B * H, tiles(v.shape[-1]).queries
    entries = Geometry(int(N), int(k.shape[2]), offset, chunk, causal).entries
    cells = -(-N // queries)
    ints = q.new_empty(0, dtype=torch.int32)
    return (
        *_fake_attention(q, k, v, mean),
        ints.new_empty(R, N),
        ints.new_empty(R, entries),
        q.new_empty(R, D, entries),
        ints.new_empty(2, R, N),
        ints.new_empty(2, R, cells),
        ints.new_empty(R, cells, ROOM),
    )


def _fake_attention(q: Tensor, k: Tensor, v: Tensor, mean: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    B, H, N, D = q.shape
    S, W = v.shape[2:]
    shape = {0: None, 1: S, 2: 1}[mean]
    return (
        v.new_empty(B, H, N, W),
        q.new_empty(B, H, N),
        q.new_empty(0) if shape is None else q.new_empty(B, H, shape, D),
        v.new_empty(0) if shape is None else v.new_empty(B, v.shape[1], shape, W),
    )


@torch.library.custom_op("zeta_bench::zeta_backward", mutates_args=())
def zeta_backward(
    do: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gamma: Tensor,
    valid: Tensor | None,
    found: list[Tensor],
    index: list[Tensor],
    topk: int,
    causal: bool,
    chunk: int,
    bits: int,
    mean: int,
    local_window: int,
    offset: int,
    deterministic: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`_attend_backward` as an operator."""
    options = Options(topk, causal, chunk, bits, mean, local_window, offset, deterministic)
    return _attend_backward(do, q, k, v, gamma, valid, found, index, options)


@zeta_backward.register_fake
def _(do: Tensor, q: Tensor, k: Tensor, v: Tensor, gamma: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    return torch.empty_like(q), torch.empty_like(k), v.new_empty(v.shape), torch.empty_like(gamma)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    q, k, v, gamma, valid, *ctx.options = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(q, k, v, gamma, valid, *output)


def _zeta_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.mark_non_differentiable(*output[1:])
    _keep(ctx, inputs, output)


def _zeta_gradient(ctx: Any, do: Tensor | None, *_: Any, run: Any = zeta_backward) -> tuple[Tensor | None, ...]:
    q, k, v, gamma, valid, *kept = ctx.saved_tensors
    blanks = (None,) * (1 + len(ctx.options))
    if do is None:
        return (None, None, None, None, *blanks)
    return (*run(do, q, k, v, gamma, valid, kept[:4], kept[4:], *ctx.options), *blanks)


zeta.register_autograd(_zeta_gradient, setup_context=_zeta_context)


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
    return _fake_attention(q, k, v, mean)


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
        return gather_triton.backward(_dense(do), q, k, v, index, gamma, valid, out, den, mean_k, mean_v, mean, offset)


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


class _Zeta(torch.autograd.Function):
    """`zeta` without the dispatcher, which costs more time than the kernels take on short sequences."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        output = _attend(*inputs)
        _keep(ctx, inputs, output)
        return output[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *do: Tensor) -> tuple[Tensor | None, ...]:
        return _zeta_gradient(ctx, *do, run=_attend_backward)


def _eager(*tensors: Tensor) -> bool:
    """Whether these are plain tensors and nobody traces: torch.compile and fakes need the operator."""
    return not torch.compiler.is_compiling() and all(type(t) in (Tensor, torch.nn.Parameter) for t in tensors)


def zeta_attention(q: Tensor, k: Tensor, v: Tensor, gamma: Tensor, valid: Tensor | None, options: Options) -> Tensor:
    """`zeta_bench.ops.zeta_attention` by kernels; arguments as checked there."""
    inputs = _prepared(q, k, v, gamma, valid)
    if _eager(q, k, v, gamma):
        return _Zeta.apply(*inputs, options)
    return zeta(*inputs, *astuple(options))[0]


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
    q, k, v, gamma, valid = _prepared(q, k, v, gamma, valid)
    return topk(q, k, v, index.contiguous(), gamma, valid, MEANS.index(mean), offset)[0]
