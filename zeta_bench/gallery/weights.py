"""The weight that a query gives to each key, whatever the variant: what its rule makes of unit vectors as values."""

from __future__ import annotations

import torch
from torch import Tensor

from zeta_bench import ops
from zeta_bench.attention import Attention, QKVAttention
from zeta_bench.errors import UsageError
from zeta_bench.zeta import ZetaAttention


@torch.no_grad()
def weights_of(layer: Attention, x: Tensor, valid: Tensor | None, first: int, variant: str) -> Tensor:
    """Weights of the keys from position `first` on, [B, H, N, N − first]; a mean token's are spread over its keys.

    Args:
        layer: a ZETA layer, or one that is a rule over q, k, v and linear in v.
        x: its input [B, N, d_model].
        valid: its mask, bool [B, N] or None.
        first: the first key.
        variant: for the error.

    Raises:
        UsageError: the layer's weights cannot be had in this way.
    """
    B, N = x.shape[:2]
    unit = torch.eye(N, device=x.device)[:, first:].expand(B, layer.spec.n_heads, N, N - first)
    if isinstance(layer, ZetaAttention):
        return _zeta_weights(layer, x, valid, unit)
    if not isinstance(layer, QKVAttention):
        raise UsageError(f"'{variant}' has no weights to draw: it is no rule over q, k, v; compare with another one.")
    q, k, _ = layer.projected(x)
    try:
        found = layer.attend(q, k, unit, valid)
    except Exception as error:  # a rule may raise anything over values of another width
        raise UsageError(
            f"the weights of '{variant}' cannot be read: its rule refuses unit vectors as values "
            f"({type(error).__name__}); compare with another variant."
        ) from None
    return found


def _zeta_weights(layer: ZetaAttention, x: Tensor, valid: Tensor | None, unit: Tensor) -> Tensor:
    q, k = layer.coordinates(x)
    mean = ("prefix" if layer.spec.causal else "all") if layer.config.mean else None
    content = None
    if layer.wide is not None:
        a, b = (part.unflatten(-1, (layer.spec.n_heads, -1)).transpose(1, 2) for part in layer.wide(x).chunk(2, dim=-1))
        content = (a, b)
    return ops.topk_attention(
        q, k, unit, layer.select(q, k, valid), layer.gamma.to(q.dtype), score=layer.config.score, content=content,
        mean=mean, valid=valid, impl="reference",
    )  # fmt: skip
