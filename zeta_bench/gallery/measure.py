"""Recall, γ and distances of the selected keys in every layer and head, over the sequences of a split."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from zeta_bench.backbone import Model
from zeta_bench.diagnostics import examples_to_see
from zeta_bench.gallery.seen import Seen, inputs_of, look, zeta_layer
from zeta_bench.task import Examples


@dataclass(frozen=True)
class LayerFigures:
    """What one layer's search does; lists and first dimensions are over heads.

    Attributes:
        number: of the layer, from 0.
        recall: as `ZetaAttention.diagnose` has it; None where no query had to choose.
        gamma: γ.
        chance: recall of as many keys drawn at random from the permitted ones; None as in recall.
        queries: how many had to choose.
        distances: selected keys of these queries at each distance |query − key|, float64 [H, N].
        uniform: what keys drawn at random from the permitted ones would give, float64 [N], with the sum of one head.
    """

    number: int
    recall: list[float | None]
    gamma: list[float]
    chance: float | None
    queries: int
    distances: Tensor
    uniform: Tensor


def measure(model: Model, examples: Examples, variant: str) -> tuple[list[LayerFigures], int]:
    """Figures of every layer, and over how many sequences.

    Raises:
        UsageError: a layer has no coordinates.
    """
    count = examples_to_see(len(examples), model.shape.max_len)
    found = []
    for layer, x, valid in inputs_of(model, examples.batch(torch.arange(count))):
        zeta = zeta_layer(layer, variant)
        told, seen = zeta.diagnose(x, valid), look(zeta, x, valid)
        taken = seen.nearest.shape[-1]
        share = taken / seen.permitted[seen.choosing].double()
        chance = float(share.mean()) if len(share) else None
        figures = LayerFigures(
            zeta.spec.layer, told["recall"], told["gamma"], chance, len(share), _distances(seen),
            _uniform(seen, zeta.spec.causal, zeta.config.chunk),
        )  # fmt: skip
        found.append(figures)
    return found, count


def _distances(seen: Seen) -> Tensor:
    N = seen.q.shape[2]
    away = (torch.arange(N)[:, None] - seen.selected).abs()
    there = (seen.selected >= 0) & seen.choosing[:, None, :, None]
    heads = zip(away.unbind(1), there.unbind(1), strict=True)
    return torch.stack([a[keep].bincount(minlength=N).double() for a, keep in heads])


def _uniform(seen: Seen, causal: bool, chunk: int) -> Tensor:
    """Each query's selected keys, spread evenly over all that it may use."""
    from zeta_bench.attribution import every_key

    N = seen.q.shape[2]
    valid = None if bool(seen.real.all()) else seen.real
    allowed = every_key(seen.q[:, :1], causal=causal, chunk=chunk, valid=valid)[:, 0] >= 0  # [1 or B, N, N]
    taken = (seen.selected >= 0).sum(-1).double().mean(1)  # [B, N], over heads
    each = torch.where(seen.choosing, taken / seen.permitted.clamp(min=1), 0.0)
    spread = (allowed * each[..., None]).sum(0)
    away = (torch.arange(N)[:, None] - torch.arange(N)).abs()
    return torch.zeros(N, dtype=torch.float64).index_add(0, away.flatten(), spread.flatten())
