"""The model around an attention variant: embedding, blocks, and a head for each kind of task.

    tokens or values → (+ positions) → n × [norm → short convolution → attention → +, norm → MLP → +] → norm → head

(`backbone.prenorm = false` puts each norm behind its sum.)

Everything but the attention is the same for every variant of a protocol, with one seed down to its initial values.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint as recomputed

from zeta_bench.attention import Attention, AttentionSpec, build
from zeta_bench.errors import Unsupported
from zeta_bench.protocol import Backbone
from zeta_bench.registry import Choice
from zeta_bench.task import Shape

Branch = Callable[[Tensor, Tensor | None], Tensor]


class Model(nn.Module):
    """A sequence model for one task's shape.

    Args:
        shape: what the task gives and wants.
        backbone: the protocol's settings.
        choice: the attention variant.
        causal: whether output i may depend on inputs j ≤ i only.

    Attributes:
        recompute: keep only what enters each block for the backward pass.
    """

    def __init__(self, shape: Shape, backbone: Backbone, choice: Choice, *, causal: bool) -> None:
        super().__init__()
        self.shape, self.backbone, self.causal = shape, backbone, causal
        self.recompute = False
        cls = shape.head != "lm" and backbone.pooling == "cls"
        self.cls = nn.Parameter(torch.zeros(backbone.d_model)) if cls else None
        self.embed = Embedding(shape, backbone)
        self.blocks = nn.ModuleList(Block(backbone, causal=causal) for _ in range(backbone.n_layers))
        self.norm = make_norm(backbone) if backbone.prenorm else nn.Identity()
        self.head = make_head(shape, backbone)
        if isinstance(self.head, nn.Linear) and backbone.tie_embeddings and self._tieable():
            self.head.weight = self.embed.table.weight
        for layer, block in enumerate(self.blocks):  # last: whatever a variant draws, the rest starts the same
            block.attention = build(choice, attention_spec(shape, backbone, causal=causal, layer=layer))

    def forward(
        self, inputs: Tensor, valid: Tensor | None = None, where: Tensor | None = None, head: bool = True
    ) -> Tensor:
        """Logits.

        Args:
            inputs: int64 [B, N] or float [B, N, channels]; for "pair" with a 2 after B.
            valid: bool, True = a real token; None = all.
            where: for "lm", bool [B, N]: the positions whose logits are wanted; None = all.
            head: for "lm", False = stop before the head, for whoever applies it in pieces.

        Returns:
            "lm": [M, outputs] at the M wanted positions in row-major order; without the head [B, N, d_model].
            Otherwise [B, outputs].
        """
        if self.shape.head == "pair":
            both = self.hidden(inputs.flatten(0, 1), None if valid is None else valid.flatten(0, 1))
            pooled = self.pool(both, None if valid is None else valid.flatten(0, 1))
            a, b = pooled.unflatten(0, (-1, 2)).unbind(1)
            return self.head(torch.cat((a, b, a - b, a * b), dim=-1))
        hidden = self.hidden(inputs, valid)
        if self.shape.head == "classifier":
            return self.head(self.pool(hidden, valid))
        if not head:
            return hidden
        return self.head(hidden.flatten(0, 1) if where is None else hidden[where])

    def hidden(self, inputs: Tensor, valid: Tensor | None = None) -> Tensor:
        """Output of the last block, normalised: [B, N, d_model]; N + 1 places where there is a CLS token."""
        x = self.embed(inputs)
        if self.cls is not None:
            x, valid = self._insert_cls(x, valid)
        for block in self.blocks:
            x = recomputed(block, x, valid, use_reentrant=False) if self.recompute else block(x, valid)
        return normalise(self.norm, x, valid)

    def pool(self, hidden: Tensor, valid: Tensor | None) -> Tensor:
        """One vector a sequence: [B, N, d_model] → [B, d_model]; the mean is over real tokens."""
        if self.cls is not None:
            return hidden[torch.arange(len(hidden), device=hidden.device), self._cls_place(hidden[:, 1:], valid)]
        if valid is None:
            return hidden.mean(1)
        total = hidden.masked_fill(~valid[..., None], 0.0).sum(1)
        return total / valid.sum(1, keepdim=True).clamp(min=1)

    def compile_blocks(self) -> None:
        """Compile each block at its first call; names of parameters stay."""
        for block in self.blocks:
            block.compile()

    def attentions(self) -> list[Attention]:
        """The attention of each layer."""
        return [block.attention for block in self.blocks]  # type: ignore[misc]

    def parameter_counts(self) -> tuple[int, int]:
        """Trainable parameters, and those outside the embedding (a tied head counts as embedding)."""
        total = sum(p.numel() for p in self.parameters() if p.requires_grad)
        return total, total - sum(p.numel() for p in self.embed.parameters() if p.requires_grad)

    def _tieable(self) -> bool:
        """Whether the head names tokens of the embedding's table."""
        return self.shape.head == "lm" and self.shape.outputs == self.shape.vocab_size

    def _cls_place(self, x: Tensor, valid: Tensor | None) -> Tensor:
        """Place of the CLS token among x [B, N, …], [B]: the first, or in a causal model behind the last real token."""
        N = x.shape[1] if self.causal else 0
        if valid is None or not self.causal:
            return torch.full((len(x),), N, device=x.device)
        return (valid * torch.arange(1, N + 1, device=x.device)).amax(1)

    def _insert_cls(self, x: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Embedded tokens [B, N, d_model] and their mask with the CLS token at its place, [B, N + 1, …]."""
        assert self.cls is not None
        before, after = (0, 1) if self.causal else (1, 0)  # in a causal model it takes the place of padding, or the end
        here = torch.arange(x.shape[1] + 1, device=x.device) == self._cls_place(x, valid)[:, None]
        x = torch.where(here[..., None], self.cls.to(x.dtype), F.pad(x, (0, 0, before, after)))
        return x, None if valid is None else F.pad(valid, (before, after)) | here


def attention_spec(shape: Shape, backbone: Backbone, *, causal: bool, layer: int = 0) -> AttentionSpec:
    """What one attention layer of the model is told. Raises Unsupported for a backbone that the task cannot have."""
    if backbone.norm == "batch" and shape.head == "lm":
        raise Unsupported(
            "backbone.norm = batch lets a token see later ones while it trains, so no language model can have it; use "
            "layer."
        )
    extra = int(shape.head != "lm" and backbone.pooling == "cls")
    return AttentionSpec(
        d_model=backbone.d_model,
        n_heads=backbone.n_heads,
        max_len=shape.max_len + extra,
        causal=causal,
        dropout=backbone.attn_dropout,
        layer=layer,
        rotary=backbone.positions == "rotary",
    )


class Embedding(nn.Module):
    """Tokens or real values, with absolute positions: → [B, N, d_model]. Tables start at N(0, 0.02)."""

    def __init__(self, shape: Shape, backbone: Backbone) -> None:
        super().__init__()
        self.table: nn.Embedding | nn.Linear
        if shape.vocab_size is None:
            self.table = nn.Linear(shape.channels, backbone.d_model)
        else:
            self.table = nn.Embedding(shape.vocab_size, backbone.d_model)
        nn.init.normal_(self.table.weight, std=0.02)
        length = shape.max_len
        self.positions: Tensor | None = None
        if backbone.positions == "learned":
            self.positions = nn.Parameter(torch.randn(length, backbone.d_model) * 0.02)
        elif backbone.positions == "sinusoidal":
            del self.positions  # a buffer takes the name
            self.register_buffer("positions", sinusoid(length, backbone.d_model), persistent=False)
        self.dropout = nn.Dropout(backbone.embed_dropout)

    def forward(self, inputs: Tensor, first: int = 0) -> Tensor:
        """[B, N] or [B, N, channels] → [B, N, d_model]; the first token stands at position `first`."""
        x = self.table(inputs)
        if self.positions is not None:
            x = x + self.positions[first : first + x.shape[1]]
        return self.dropout(x)


class Block(nn.Module):
    """Residual block, with norms in front or behind; the MLP is left out where mlp_ratio is 0.

    `Model` puts the attention in.
    """

    attention: Attention

    def __init__(self, backbone: Backbone, *, causal: bool) -> None:
        super().__init__()
        d = backbone.d_model
        self.prenorm = backbone.prenorm
        self.norm = make_norm(backbone)
        self.conv = ShortConv(d, backbone.short_conv, causal=causal) if backbone.short_conv else None
        self.dropout = nn.Dropout(backbone.dropout)
        width = round(d * backbone.mlp_ratio)
        self.mlp = (
            nn.Sequential(make_norm(backbone), nn.Linear(d, width), nn.GELU(), nn.Linear(width, d)) if width else None
        )

    def forward(self, x: Tensor, valid: Tensor | None) -> Tensor:
        """[B, N, d_model] → [B, N, d_model]."""
        x = self._residual(self.norm, self._mixed, x, valid)
        return x if self.mlp is None else self._residual(self.mlp[0], self._fed, x, valid)

    def extend(self, x: Tensor, past: tuple[Any, Any] = (None, None)) -> tuple[Tensor, tuple[Any, Any]]:
        """Further tokens [B, n, d_model] from what earlier ones left, as `Attention.extend`."""
        kept: list[Any] = [None, None]

        def mixed(x: Tensor, valid: Tensor | None) -> Tensor:
            if self.conv is not None:
                x, kept[0] = self.conv.extend(x, past[0])
            x, kept[1] = self.attention.extend(x, past[1])
            return x

        x = self._residual(self.norm, mixed, x, None)
        return x if self.mlp is None else self._residual(self.mlp[0], self._fed, x, None), (kept[0], kept[1])

    def _residual(self, norm: nn.Module, branch: Branch, x: Tensor, valid: Tensor | None) -> Tensor:
        if self.prenorm:
            return x + self.dropout(branch(normalise(norm, x, valid), valid))
        return normalise(norm, x + self.dropout(branch(x, valid)), valid)

    def _mixed(self, x: Tensor, valid: Tensor | None) -> Tensor:
        if self.conv is not None:
            x = self.conv(x, valid)
        mixed = self.attention(x, valid)
        if valid is not None:  # what an attention returns for padding is its own affair, and may be NaN
            mixed = mixed.masked_fill(~valid[..., None], 0.0)
        return mixed

    def _fed(self, x: Tensor, valid: Tensor | None) -> Tensor:
        assert self.mlp is not None
        return self.mlp[1:](x)


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation of each feature over the real tokens of a batch; padding has no part in its statistics."""

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """[B, N, d_model] → [B, N, d_model]; padded places are 0."""
        if valid is None:
            return super().forward(x.flatten(0, 1)).view_as(x)
        return torch.zeros_like(x).masked_scatter(valid[..., None], super().forward(x[valid]).to(x.dtype))


def make_norm(backbone: Backbone) -> nn.Module:
    """The norm that a backbone asks for."""
    return nn.LayerNorm(backbone.d_model) if backbone.norm == "layer" else BatchNorm(backbone.d_model)


def normalise(norm: nn.Module, x: Tensor, valid: Tensor | None) -> Tensor:
    """[B, N, d_model] → [B, N, d_model]; `valid` for the norms that look beyond a token."""
    return norm(x, valid) if isinstance(norm, BatchNorm) else norm(x)


class ShortConv(nn.Module):
    """Depthwise convolution over `width` tokens: the last ones where causal, else centred. Padding reads as zeros."""

    def __init__(self, d_model: int, width: int, *, causal: bool) -> None:
        super().__init__()
        self.before = width - 1 if causal else width // 2
        self.after = width - 1 - self.before
        self.conv = nn.Conv1d(d_model, d_model, width, groups=d_model)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """[B, N, d_model] → [B, N, d_model]."""
        if valid is not None:
            x = x.masked_fill(~valid[..., None], 0.0)
        return self.conv(F.pad(x.mT, (self.before, self.after))).mT

    def extend(self, x: Tensor, past: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Further tokens [B, n, d_model] of the causal form, with the inputs before them, [B, width − 1, d_model]."""
        before = x.new_zeros(len(x), self.before, x.shape[-1]) if past is None else past
        whole = torch.cat((before, x), dim=1)
        return self.conv(whole.mT).mT, whole[:, len(x[0]) :]


def sinusoid(length: int, d_model: int) -> Tensor:
    """Fixed positions [length, d_model] (Vaswani et al. 2017, §3.5)."""
    frequency = torch.exp(torch.arange(0, d_model, 2) * (-math.log(10_000.0) / d_model))
    angle = torch.arange(length)[:, None] * frequency
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1)[:, :d_model]


def make_head(shape: Shape, backbone: Backbone) -> nn.Module:
    """Last map to logits. "pair" takes [a, b, a − b, a · b], the NLI features that the LRA paper describes."""
    d = backbone.d_model
    if shape.head == "pair":
        return nn.Sequential(nn.Linear(4 * d, d), nn.GELU(), nn.Linear(d, shape.outputs))
    return nn.Linear(d, shape.outputs, bias=shape.head != "lm")
