"""What ZETA's layers do with given sequences: coordinates, keys found, true neighbours, and where both lie."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zeta_bench import ops
from zeta_bench.attention import Attention
from zeta_bench.backbone import Model
from zeta_bench.errors import UsageError
from zeta_bench.ops.morton import zorder_codes
from zeta_bench.ops.search import limits
from zeta_bench.task import Batch
from zeta_bench.zeta import ZetaAttention


@dataclass(frozen=True)
class Neighbours:
    """Keys of one query, by position.

    Attributes:
        hits: true neighbours that the search found.
        missed: true neighbours that it did not find.
        false: keys that it took instead.
    """

    hits: list[int]
    missed: list[int]
    false: list[int]


@dataclass(frozen=True)
class Seen:
    """What one layer sees of B sequences, in H heads.

    Attributes:
        q: coordinates of queries, [B, H, N, d].
        k: coordinates of keys, [B, H, N, d].
        codes: of the keys on the Z-order curve, int64 [B, H, N].
        found: the keys of the search, int32 [B, H, N, k]; −1 = none.
        nearest: the k nearest permitted keys, int32 [B, H, N, k]; −1 = none.
        selected: what is attended, the local window included, int32 [B, H, N, k + window]; −1 = none.
        limits: the first key that each query may not use, int64 [N].
        permitted: how many keys each query may use, int64 [B, N].
        real: tokens that are no padding, bool [B, N].
    """

    q: Tensor
    k: Tensor
    codes: Tensor
    found: Tensor
    nearest: Tensor
    selected: Tensor
    limits: Tensor
    permitted: Tensor
    real: Tensor

    @property
    def choosing(self) -> Tensor:
        """Queries that have to choose, with more permitted keys than they take: bool [B, N]."""
        return self.real & (self.permitted > self.nearest.shape[-1])

    def permitted_keys(self, row: int, query: int) -> list[int]:
        """Positions of the keys that one query of one sequence may use."""
        keys: list[int] = self.real[row, : self.limits[query]].nonzero().flatten().tolist()
        return keys

    def neighbours(self, row: int, head: int, query: int) -> Neighbours:
        """The keys of one query of one sequence, found against true."""
        found = {int(key) for key in self.found[row, head, query] if key >= 0}
        true = {int(key) for key in self.nearest[row, head, query] if key >= 0}
        return Neighbours(sorted(found & true), sorted(true - found), sorted(found - true))


@torch.no_grad()
def look(layer: ZetaAttention, x: Tensor, valid: Tensor | None = None) -> Seen:
    """What a layer does with an input x [B, N, d_model] and its mask [B, N]."""
    B, N = x.shape[:2]
    config = layer.config
    real = torch.ones(B, N, dtype=torch.bool, device=x.device) if valid is None else valid
    how: dict[str, Any] = {"causal": layer.spec.causal, "chunk": config.chunk}
    q, k = layer.coordinates(x)
    selected = layer.select(q, k, valid)
    found = selected[..., : selected.shape[-1] - config.local_window]
    limit = limits(N, N, **how, offset=0, device=x.device)
    before = torch.cat((torch.zeros_like(real[:, :1], dtype=torch.int64), real.cumsum(1)), dim=1)
    return Seen(
        q=q,
        k=k,
        codes=zorder_codes(q, k, bits=config.bits)[1],
        found=found,
        nearest=ops.exact_search(q, k, topk=config.k, **how, valid=valid),
        selected=selected,
        limits=limit,
        permitted=before[:, limit],
        real=real,
    )


@torch.no_grad()
def inputs_of(model: Model, batch: Batch) -> Iterator[tuple[Attention, Tensor, Tensor | None]]:
    """Every attention layer with the input and the mask that it gets when a batch goes through the model."""
    seen: dict[int, tuple[Tensor, Tensor | None]] = {}

    def keep(layer: Attention, inputs: tuple[Any, ...], output: Tensor) -> None:
        seen[layer.spec.layer] = (inputs[0].float(), inputs[1] if len(inputs) > 1 else None)

    layers = model.eval().attentions()
    with ExitStack() as stack:
        for layer in layers:
            stack.callback(layer.register_forward_hook(keep).remove)
        _pass(model, batch)
    return ((layer, *seen[layer.spec.layer]) for layer in layers)


def _pass(model: Model, batch: Batch) -> None:
    """Through all layers, without a language model's logits, which take more memory than all else."""
    run = model.hidden if model.shape.head == "lm" else model
    run(batch["inputs"], batch.get("valid"))


def zeta_layer(layer: Attention, variant: str) -> ZetaAttention:
    """The layer, if it has coordinates and selects keys by them. Raises UsageError where it does not."""
    if not isinstance(layer, ZetaAttention):
        raise UsageError(
            f"'{variant}' has no coordinates to draw; take a checkpoint of a ZETA variant, such as zeta-token, and "
            "this one behind --beside."
        )
    if layer.config.search in ("none", "all"):
        raise UsageError(
            f"'{variant}' searches for no keys (search={layer.config.search}), so there is nothing to draw; take a "
            "variant that does, such as zeta-token."
        )
    return layer
