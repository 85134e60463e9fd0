"""ZETA as the attention of a Hugging Face model. Copy this file beside yours.

    model = AutoModelForCausalLM.from_pretrained(...)
    maps = use_zeta(model)

ZETA searches in d_k = 3 coordinates in [−1, 1], so each head gets a learned map from its queries and keys (behind
rotary positions, if the model has them) to coordinates. The maps begin at random: the model must be trained or
fine-tuned.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import bidirectional_mask_function, causal_mask_function

from zeta_bench.ops import zeta_attention

OTHER = ("sliding_window", "softcap", "s_aux", "position_bias", "cu_seq_lens_q")
"""What a model may ask of its attention besides, and ZETA does not do."""


class Coordinates(nn.Module):
    """The coordinates of one attention layer's queries and keys, and its γ; what a pretrained layer lacks.

    Args:
        heads: query heads, H.
        width: of a head, D.
        d_k: coordinates a head.
        topk: keys a query.
        local_window: so many newest keys besides.
        mean: append the mean token.
    """

    def __init__(self, heads: int, width: int, *, d_k: int, topk: int, local_window: int, mean: bool) -> None:
        super().__init__()
        start = torch.randn(heads, d_k, width) / width**0.5
        # Alike at the start: a query and a key that point the same way are neighbours, as they are for softmax.
        self.of_query, self.of_key = nn.Parameter(start), nn.Parameter(start.clone())
        self.gamma_logit = nn.Parameter(torch.zeros(heads))
        self.topk, self.local_window, self.mean = topk, local_window, mean

    def forward(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """[B, H, N, D], [B, Hk, S, D], Hk a divisor of H → [B, H, N, d_k], [B, H, S, d_k] in [−1, 1], at least fp32."""
        key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)  # heads that share keys place them apart
        return _place(query, self.of_query), _place(key, self.of_key)


def _place(x: Tensor, weight: Tensor) -> Tensor:
    dtype = torch.promote_types(x.dtype, torch.float32)  # bf16 would merge cells
    with torch.autocast(x.device.type, enabled=False):
        unit = F.rms_norm(x.to(dtype), x.shape[-1:])
        return (unit @ weight.to(dtype).mT).tanh()


def zeta_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    **asked: Any,
) -> tuple[Tensor, None]:
    """The attention function of transformers' interface: [B, H, N, D] and the cached keys → [B, N, H, D].

    Raises ValueError for what ZETA cannot do, instead of leaving it out.
    """
    _refuse(attention_mask, dropout, asked)
    maps = getattr(module, "zeta", None)
    if maps is None:
        raise ValueError(f"{type(module).__name__} has no coordinates for ZETA; call use_zeta(model) first.")
    causal = asked.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    q, k = maps(query, key)
    out = zeta_attention(
        q, k, value, maps.gamma_logit.sigmoid().to(q.dtype), topk=maps.topk, causal=causal,
        mean=("prefix" if causal else "all") if maps.mean else None, local_window=maps.local_window,
        valid=attention_mask, offset=key.shape[2] - query.shape[2] if causal else 0,
    )  # fmt: skip
    return out.transpose(1, 2).contiguous(), None


def _refuse(mask: Tensor | None, dropout: float, asked: dict[str, Any]) -> None:
    if mask is not None and mask.ndim != 2:
        raise ValueError(
            f"ZETA takes a padding mask [B, S], not one of shape {tuple(mask.shape)}; leave it to the model."
        )
    if dropout:
        raise ValueError(f"ZETA has no attention dropout and the model asks for {dropout}; set it to 0 in its config.")
    for name in OTHER:
        if asked.get(name) is not None:
            raise ValueError(f"the model asks for attention with {name}, which ZETA does not have; use another model.")


def zeta_mask(
    *,
    q_length: int,
    kv_length: int,
    q_offset: int = 0,
    mask_function: Any = causal_mask_function,
    attention_mask: Tensor | None = None,
    **_: Any,
) -> Tensor | None:
    """The mask function of transformers' interface: padding as bool [B, S], True = a real key; None = all are real."""
    if mask_function not in (causal_mask_function, bidirectional_mask_function):
        raise ValueError(
            "ZETA masks by order and padding alone, and this model asks for more, such as a sliding window or packed "
            "sequences; set sliding_window to None in its config, or unpack them."
        )
    if mask_function is causal_mask_function and kv_length != int(q_offset) + q_length:
        raise ValueError(
            f"{kv_length} keys for {q_length} queries from position {int(q_offset)}: ZETA takes a cache that grows; "
            "use DynamicCache."
        )
    return None if attention_mask is None else attention_mask[:, -kv_length:].bool()


def use_zeta(
    model: PreTrainedModel,
    *,
    d_k: int = 3,
    topk: int = 32,
    local_window: int = 0,
    mean: bool = True,
    inputs: dict[str, Tensor] | None = None,
) -> nn.ModuleList:
    """Put ZETA in place of a model's attention; before the optimiser is made and before a trained state is loaded.

    Args:
        model: one whose attention goes through transformers' AttentionInterface.
        d_k: coordinates a head.
        topk: keys a query.
        local_window: so many newest keys besides.
        mean: append the mean token.
        inputs: of one forward pass, which finds the layers; a few token ids if left out.

    Returns:
        The new layers, one for each attention; they are parts of the model.
    """
    layers = _attention_layers(model, dict(model.dummy_inputs if inputs is None else inputs))
    if not layers:
        raise ValueError(f"{type(model).__name__} does not call transformers' AttentionInterface; use another model.")
    maps = nn.ModuleList()
    for layer, (heads, width) in layers.items():
        layer.zeta = Coordinates(heads, width, d_k=d_k, topk=topk, local_window=local_window, mean=mean)
        layer.zeta.to(next(layer.parameters()).device)  # in fp32, whatever the model is in
        maps.append(layer.zeta)
    model.set_attn_implementation("zeta")
    return maps


def _attention_layers(model: PreTrainedModel, inputs: dict[str, Any]) -> dict[nn.Module, tuple[int, int]]:
    """The modules that call the interface in a forward pass, each with its number of query heads and their width."""
    found: dict[nn.Module, tuple[int, int]] = {}

    def note(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:
        B, H, N, D = query.shape
        found[module] = (H, D)
        return value.new_zeros(B, N, H, value.shape[-1]), None

    AttentionInterface.register("zeta-find", note)
    training, before = model.training, model.config._attn_implementation
    model.eval().set_attn_implementation("zeta-find")
    try:
        with torch.no_grad():
            model(**{name: x.to(model.device) if isinstance(x, Tensor) else x for name, x in inputs.items()})
    finally:
        model.train(training).set_attn_implementation(before)
    return found


AttentionInterface.register("zeta", zeta_forward)
AttentionMaskInterface.register("zeta", zeta_mask)
