"""The kernels of `zeta_attention` as operators of torch: `zeta_bench::zeta` and its gradient.

Each operator, here and in `library_topk`, has a fake (shapes and dtypes alone) and an autograd formula, so that
torch.compile sees one node and not the kernels. Kernels are imported when an operator runs: this package works where
Triton is not installed.
"""

from __future__ import annotations

from dataclasses import astuple
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from zeta_bench.ops._tuning import tiles
from zeta_bench.ops.geometry import ROOM, Geometry
from zeta_bench.ops.launch import on_device_of
from zeta_bench.ops.options import Content, Options


def dense(x: Tensor) -> Tensor:
    """X with its last dimension dense, as the kernels want it."""
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def prepared(
    q: Tensor, k: Tensor, v: Tensor, gamma: Tensor, valid: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    """The same as the kernels want them: coordinates and γ dense in fp32, padding dense, values dense in a row."""
    q, k, gamma = (t.to(torch.float32).contiguous() for t in (q, k, gamma))
    return q, k, dense(v), gamma, None if valid is None else valid.contiguous()


def _prepared_content(content: Content | None) -> tuple[Tensor | None, Tensor | None]:
    """Wide queries and keys of one dtype, dense in a row."""
    if content is None:
        return None, None
    dtype = torch.promote_types(content[0].dtype, content[1].dtype)
    return dense(content[0].to(dtype)), dense(content[1].to(dtype))


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gamma: Tensor,
    valid: Tensor | None,
    a: Tensor | None,
    b: Tensor | None,
    options: Options,
) -> tuple[Tensor, ...]:
    """Output, sum of weights (with content its logarithm), mean keys and values, and the tensors of `Index`."""
    from zeta_bench.ops import content_triton, zeta_triton

    with on_device_of(q):
        index = zeta_triton.index(q, k, valid, options, tiles(v.shape[-1]).queries)
        if a is None or b is None:
            found = zeta_triton.forward(q, k, v, gamma, valid, index, options)
        else:
            found = (
                *content_triton.forward(q, k, v, gamma, valid, (a, b), index, options),
                q.new_empty(0),
                v.new_empty(0),
            )
    return (*found, index.order, index.positions, index.planes, index.spans, index.reads, index.picked)


def _attend_backward(
    do: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gamma: Tensor,
    valid: Tensor | None,
    a: Tensor | None,
    b: Tensor | None,
    found: list[Tensor],
    index: list[Tensor],
    options: Options,
) -> tuple[Tensor, ...]:
    """Gradients of q, k, v, gamma, and of a and b (empty without); `found` and `index` are what `_attend` returned."""
    from zeta_bench.ops import content_triton, zeta_triton

    built = zeta_triton.Index(*index)
    out, den, mean_k, mean_v = found
    with on_device_of(q):
        if a is not None and b is not None:
            return content_triton.backward(dense(do), q, k, v, gamma, valid, (a, b), out, den, built, options)
        grads = zeta_triton.backward(dense(do), q, k, v, gamma, valid, out, den, mean_k, mean_v, built, options)
        return (*grads, v.new_empty(0), v.new_empty(0))


@torch.library.custom_op("zeta_bench::zeta", mutates_args=())
def zeta(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gamma: Tensor,
    valid: Tensor | None,
    a: Tensor | None,
    b: Tensor | None,
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
    return _attend(q, k, v, gamma, valid, a, b, options)  # type: ignore[return-value]  # ten of them


@zeta.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, gamma: Tensor, valid: Tensor | None, a: Tensor | None, b: Tensor | None,
    topk: int, causal: bool, chunk: int, bits: int, mean: int, local_window: int, offset: int, deterministic: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    B, H, N, D = q.shape
    R, queries = B * H, tiles(v.shape[-1]).queries
    entries = Geometry(int(N), int(k.shape[2]), offset, chunk, causal).entries
    cells = -(-N // queries)
    ints = q.new_empty(0, dtype=torch.int32)
    return (
        *fake_attention(q, k, v, mean),
        ints.new_empty(R, N),
        ints.new_empty(R, entries),
        q.new_empty(R, D, entries),
        ints.new_empty(2, R, N),
        ints.new_empty(2, R, cells),
        ints.new_empty(R, cells, ROOM),
    )


def fake_attention(q: Tensor, k: Tensor, v: Tensor, mean: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Output, sum of weights, mean keys and values as fakes."""
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
    a: Tensor | None,
    b: Tensor | None,
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
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """`_attend_backward` as an operator."""
    options = Options(topk, causal, chunk, bits, mean, local_window, offset, deterministic)
    return _attend_backward(do, q, k, v, gamma, valid, a, b, found, index, options)  # type: ignore[return-value]


@zeta_backward.register_fake
def _(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, gamma: Tensor, valid: Tensor | None, a: Tensor | None,
    b: Tensor | None, *rest: Any,
) -> tuple[Tensor, ...]:  # fmt: skip
    wide = (v.new_empty(0) if t is None else t.new_empty(t.shape) for t in (a, b))
    return torch.empty_like(q), torch.empty_like(k), v.new_empty(v.shape), torch.empty_like(gamma), *wide


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    q, k, v, gamma, valid, a, b, *ctx.options = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(q, k, v, gamma, valid, a, b, *output)


def _zeta_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.mark_non_differentiable(*output[1:])
    _keep(ctx, inputs, output)


def _zeta_gradient(ctx: Any, do: Tensor | None, *_: Any, run: Any = zeta_backward) -> tuple[Tensor | None, ...]:
    q, k, v, gamma, valid, a, b, *kept = ctx.saved_tensors
    blanks = (None,) * len(ctx.options)
    if do is None:
        return (*(None,) * 7, *blanks)
    dq, dk, dv, dgamma, da, db = run(do, q, k, v, gamma, valid, a, b, kept[:4], kept[4:], *ctx.options)
    wide = (None, None) if a is None else (da, db)
    return (dq, dk, dv, dgamma, None, *wide, *blanks)


zeta.register_autograd(_zeta_gradient, setup_context=_zeta_context)


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
    """Whether these are plain tensors and nobody looks on: torch.compile, fakes and counters need the operator."""
    seen = torch.compiler.is_compiling() or is_in_torch_dispatch_mode()
    return not seen and all(type(t) in (Tensor, torch.nn.Parameter) for t in tensors)


def zeta_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gamma: Tensor,
    valid: Tensor | None,
    options: Options,
    content: Content | None = None,
) -> Tensor:
    """`zeta_bench.ops.zeta_attention` by kernels; arguments as checked there."""
    inputs = (*prepared(q, k, v, gamma, valid), *_prepared_content(content))
    if _eager(q, k, v, gamma, *(content or ())):
        return _Zeta.apply(*inputs, options)
    return zeta(*inputs, *astuple(options))[0]
