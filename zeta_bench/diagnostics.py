"""What the attention layers of a trained model do on real inputs: recall of the search, γ, codes, empty windows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zeta_bench.attention import Attention
from zeta_bench.task import Examples
from zeta_bench.training import BenchModule

EXAMPLES = 64
"""Sequences looked at: enough for a share over thousands of queries, small enough for exact search."""


@torch.no_grad()
def diagnose(module: BenchModule, examples: Examples) -> dict[str, Any]:
    """Figures by layer, ``{"layers": [{"recall": [...], …}, …], "examples": n}``; a layer without any gives {}."""
    model = module.model.eval()
    seen: dict[int, tuple[Tensor, Tensor | None]] = {}

    def keep(layer: Attention, inputs: tuple[Any, ...], output: Tensor) -> None:
        seen[layer.spec.layer] = (inputs[0].float(), inputs[1] if len(inputs) > 1 else None)

    hooks = [attention.register_forward_hook(keep) for attention in model.attentions()]
    count = min(EXAMPLES, len(examples))
    batch = {key: value.to(module.device) for key, value in examples.batch(torch.arange(count)).items()}
    try:
        module.logits(batch)
    finally:
        for hook in hooks:
            hook.remove()
    layers = [attention.diagnose(*seen[attention.spec.layer]) for attention in model.attentions()]
    return {"layers": layers, "examples": count}
