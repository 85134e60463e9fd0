"""The optimiser of a protocol: AdamW, which parameters decay, and the schedule of its learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from zeta_bench.attention import Attention
from zeta_bench.protocol import Optim, Protocol


def make_optimizer(model: nn.Module, protocol: Protocol, device: torch.device) -> tuple[torch.optim.AdamW, LambdaLR]:
    """AdamW on `device` and its schedule, which moves once a step, as the protocol says."""
    optim = protocol.optim
    optimizer = torch.optim.AdamW(
        parameter_groups(model, optim), lr=optim.lr, betas=optim.betas, eps=optim.eps, fused=device.type == "cuda"
    )
    return optimizer, LambdaLR(optimizer, schedule(optim, protocol.budget.steps))


def parameter_groups(model: nn.Module, optim: Optim) -> list[dict[str, Any]]:
    """Parameters with and without weight decay, and those with a learning rate of their own.

    Vectors and scalars go without decay, unless the protocol decays all. With ``optim.slow_lr`` those that a variant
    calls slow are a third group.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    slow = [p for p in _slow_parameters(model) if p.requires_grad] if optim.slow_lr is not None else []
    rest = [p for p in trained if not any(p is each for each in slow)]
    decayed = [p for p in rest if _dimensions(p) >= 2 or optim.decay == "all"]
    plain = [p for p in rest if _dimensions(p) < 2 and optim.decay != "all"]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": optim.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    if slow:
        groups.append({"params": slow, "weight_decay": 0.0, "lr": min(optim.lr, optim.slow_lr or optim.lr)})
    return groups


def _slow_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Those that the attentions of a model call slow, once each."""
    attentions = [module for module in model.modules() if isinstance(module, Attention)]
    found = {id(p): p for each in attentions for name in each.slow for p in (each.get_parameter(name),)}
    return list(found.values())


def _dimensions(parameter: nn.Parameter) -> int:
    """How many dimensions are more than 1 wide; by the shape, since a shared-out parameter has no cheap views."""
    return sum(size != 1 for size in parameter.shape)


def schedule(optim: Optim, steps: int) -> Callable[[int], float]:
    """Learning rate ÷ peak at each step: linear warm-up, then the protocol's shape down to `floor`."""

    def factor(step: int) -> float:
        step = step // optim.schedule_every * optim.schedule_every
        if step < optim.warmup:
            return (step + 1) / optim.warmup
        if optim.schedule == "constant":
            return 1.0
        if optim.schedule == "inverse-sqrt":
            return math.sqrt(max(optim.warmup, 1) / max(step, 1))
        progress = (step - optim.warmup) / max(steps - optim.warmup, 1)
        shape = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))) if optim.schedule == "cosine" else 1 - progress
        return optim.floor + (1 - optim.floor) * max(shape, 0.0)

    return factor
