"""What the attention layers of a trained model do on real inputs: recall of the search, γ, codes, empty windows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zeta_bench.attention import Attention
from zeta_bench.task import Examples
from zeta_bench.training import BenchModule

EXAMPLES = 64
"""Most sequences looked at: enough for a share over thousands of queries."""

PAIRS = 2**24
"""Most pairs of a query and a key looked at in a head: exact search holds them all in memory."""


@torch.no_grad()
def diagnose(module: BenchModule, examples: Examples) -> dict[str, Any]:
    """Figures by layer, ``{"layers": [{"recall": [...], …}, …], "examples": n}``; a layer without any gives {}."""
    model = module.model.eval()
    seen: dict[int, tuple[Tensor, Tensor | None]] = {}

    def keep(layer: Attention, inputs: tuple[Any, ...], output: Tensor) -> None:
        seen[layer.spec.layer] = (inputs[0].float(), inputs[1] if len(inputs) > 1 else None)

    hooks = [attention.register_forward_hook(keep) for attention in model.attentions()]
    count = examples_to_see(len(examples), model.shape.max_len)
    batch = {key: value.to(module.device) for key, value in examples.batch(torch.arange(count)).items()}
    try:
        module.logits(batch)
    finally:
        for hook in hooks:
            hook.remove()
    layers = [attention.diagnose(*seen[attention.spec.layer]) for attention in model.attentions()]
    return {"layers": layers, "examples": count}


def examples_to_see(have: int, length: int) -> int:
    """How many sequences to look at: fewer where they are long, so that a run does not end out of memory here."""
    return min(EXAMPLES, have, max(PAIRS // length**2, 1))
