"""ZETA (arXiv 2501.14577): attention to the nearest keys on a Z-order curve, as a module for any model.

    x → two-layer MLPs f_q, f_k → coordinates in [−1, 1]^d_k → Morton codes → k keys by code → Cauchy weights → values

What the paper leaves open (chunk, bits, range, hidden width of the MLPs) is a setting, with the default named in
`ZetaConfig`. Cost as published: O(N log N) time, O(N) memory; the reference here is quadratic in memory.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from zeta_bench import attribution, ops
from zeta_bench.attention import Attention, AttentionSpec, permitted
from zeta_bench.ops._impl import resolve
from zeta_bench.ops.morton import MAX_BITS, default_bits
from zeta_bench.ops.options import Content
from zeta_bench.settings import Settings


class ZetaConfig(Settings):
    """Settings of ZETA; the defaults are the published form where the paper gives one.

    Attributes:
        d_k: coordinates a head (paper: 3).
        k: keys a query (paper: 32).
        chunk: a query sees keys of earlier chunks of so many tokens only; 1 = causal to the token. Undisclosed.
            Without meaning in bidirectional tasks.
        search: zorder, as in the paper · exact nearest neighbours (the oracle) · local: the newest keys · random keys ·
            all: every key, in O(N²) · none: the mean token alone.
        local_window: so many newest keys besides, in the same normalisation; each key counts once.
        mean: append the mean token.
        score: weight of a key, see `zeta_bench.ops.topk_attention`.
        content: multiply weights by exp(q·k/√d_head) of a query and a key as wide as the values, which have no part
            in selecting. Not in the paper.
        projection: f_q and f_k: two-layer MLPs with hidden width d_model and GELU (paper: "MLP"), or one linear map.
        bound: how coordinates are kept in [−1, 1]. Undisclosed.
        bits: bits a coordinate; None = min(10, 31 // d_k). Undisclosed.
        gamma_init: γ before training.
        gamma_per_head: one γ a head instead of one a layer.
        impl: implementation of the ops.
    """

    later: ClassVar[tuple[str, ...]] = ("content",)

    d_k: PositiveInt = 3
    k: PositiveInt = 32
    chunk: PositiveInt = 16
    search: Literal["zorder", "exact", "local", "random", "all", "none"] = "zorder"
    local_window: int = Field(default=0, ge=0)
    mean: bool = True
    score: Literal["cauchy", "neg-euclid", "inv-euclid", "dot"] = "cauchy"
    content: bool = False
    projection: Literal["mlp", "linear"] = "mlp"
    bound: Literal["tanh", "clip"] = "tanh"
    bits: PositiveInt | None = None
    gamma_init: float = Field(default=0.5, gt=0.0, lt=1.0)
    gamma_per_head: bool = False
    impl: Literal["auto", "reference", "triton"] = "auto"

    @model_validator(mode="after")
    def _codes_fit(self) -> ZetaConfig:
        bits = default_bits(self.d_k) if self.bits is None else self.bits
        if bits > MAX_BITS:
            raise ValueError(f"bits = {bits} are more than the {MAX_BITS} of a code")
        if self.search == "none" and not self.mean and not self.local_window:
            raise ValueError("search=none with mean=false leaves nothing to attend; switch one of them on")
        return self


class ZetaAttention(Attention):
    """ZETA as a module; see `ZetaConfig` for its settings.

    Example:
        >>> spec = AttentionSpec(d_model=64, n_heads=2, max_len=128)
        >>> ZetaAttention(spec)(torch.randn(1, 128, 64)).shape
        torch.Size([1, 128, 64])
    """

    Config: ClassVar[type[ZetaConfig]] = ZetaConfig

    def __init__(self, spec: AttentionSpec, config: Any = None) -> None:
        super().__init__(spec, config)
        coordinates = spec.n_heads * self.config.d_k
        self.f_q = _Projection(spec.d_model, coordinates, self.config.projection)
        self.f_k = _Projection(spec.d_model, coordinates, self.config.projection)
        self.value = nn.Linear(spec.d_model, spec.d_model, bias=False)
        self.out = nn.Linear(spec.d_model, spec.d_model, bias=False)
        start = torch.logit(torch.tensor(float(self.config.gamma_init)))
        wide = (spec.d_model, 2 * spec.d_model)
        self.wide = nn.Linear(*wide, bias=False) if self.config.content else None
        self.gamma_logit = nn.Parameter(start.repeat(spec.n_heads if self.config.gamma_per_head else 1))

    @property
    def gamma(self) -> Tensor:
        """γ of each head, [H], in (0, 1): the sigmoid of a parameter (ZETA, §3.4)."""
        return self.gamma_logit.sigmoid().expand(self.spec.n_heads)

    @property
    def impl(self) -> str:
        """The implementation that runs where the parameters are, never "auto"."""
        H, device = self.spec.n_heads, self.gamma_logit.device
        q = torch.empty(1, H, 1, self.config.d_k, device="meta")
        v = torch.empty(1, H, 1, self.spec.d_model // H, device="meta")
        content = (v, v) if self.config.content else None
        if self.config.search != "zorder" or self.config.score != "cauchy":
            return resolve(self.config.impl, device, ops.attention.unsupported(q, q, v, self.config.score, content))
        bits = ops.morton.settle_bits(self.config.d_k, self.config.bits)
        why = ops.zeta.unsupported_fused(q, q, v, bits, content, mean=self.config.mean)
        return resolve(self.config.impl, device, why)

    def coordinates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Coordinates of queries and keys, each [B, H, N, d_k] in [−1, 1]; fp32 under any autocast, float64 if x is."""
        return self._bounded(self.f_q(x)), self._bounded(self.f_k(x))

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """[B, N, d_model] → [B, N, d_model]; see `Attention.forward`."""
        q, k = self.coordinates(x)
        v = self._heads(self.value(x))
        return self.out(self._attend(q, k, v, self._content(x), valid).transpose(1, 2).flatten(2))

    def extend(self, x: Tensor, past: Any = None) -> tuple[Tensor, Any]:
        """Further tokens over the coordinates, values and wide keys of all earlier ones; see `Attention.extend`.

        Written for the search and the score as published; with others it raises NotImplementedError.
        """
        if self.config.search != "zorder" or self.config.score != "cauchy":
            raise NotImplementedError
        q, k = self.coordinates(x)
        wide = self._content(x)
        new = (k, self._heads(self.value(x)), *(() if wide is None else wide[1:]))
        every = new if past is None else tuple(torch.cat(pair, dim=2) for pair in zip(past, new, strict=True))
        content = None if wide is None else (wide[0], every[2])
        offset = every[0].shape[2] - x.shape[1]
        out = self._attend(q, every[0], every[1], content, None, offset)
        return self.out(out.transpose(1, 2).flatten(2)), every

    def select(self, q: Tensor, k: Tensor, valid: Tensor | None) -> Tensor:
        """The keys that each query attends besides the mean token.

        Args:
            q: [B, H, N, d_k].
            k: [B, H, N, d_k].
            valid: bool [B, N] or None.

        Returns:
            int32 [B, H, N, k + local_window]; −1 = none. No key stands twice.
        """
        found = self._search(q, k, valid)
        return ops.search.with_local_window(
            found, k.shape[2], self.config.local_window, causal=self.spec.causal, valid=valid
        )

    def reference(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """The output by definition: a softmax of log-weights over all keys and the mean token, −∞ off the selection."""
        q, k = self.coordinates(x)
        v = self._heads(self.value(x))
        N = x.shape[1]
        chosen = attribution.chosen(self.select(q, k, valid))
        wide = self._content(x)
        parts = (k, v) if wide is None else (k, v, wide[1])
        seen = permitted(N, causal=self.spec.causal, valid=valid, device=x.device)
        own = [part.unsqueeze(2).expand(-1, -1, N, -1, -1) for part in parts]  # [B, H, N, S, d]: each query's own keys
        if self.config.mean:
            average = seen.to(v.dtype) / seen.sum(-1, keepdim=True).clamp(min=1)
            own = [torch.cat((each, (average @ part).unsqueeze(3)), 3) for each, part in zip(own, parts, strict=True)]
            chosen = torch.cat((chosen, seen.any(-1, keepdim=True).expand(*chosen.shape[:3], 1)), dim=3)
        logits = self._log_weight(q.unsqueeze(3), own[0])
        if wide is not None:
            logits = logits + (wide[0].unsqueeze(3) * own[2]).sum(-1) / wide[0].shape[-1] ** 0.5
        logits = logits.masked_fill(~chosen, -torch.inf)
        weights = logits.softmax(-1).nan_to_num(0.0)  # a row without any key is zero
        return self.out((weights.unsqueeze(-2) @ own[1]).squeeze(-2).transpose(1, 2).flatten(2))

    @torch.no_grad()
    def diagnose(self, x: Tensor, valid: Tensor | None = None) -> dict[str, Any]:
        """What the search does on an input: a list [H], one entry a head, of each of these.

        - recall: share of the exact k nearest permitted keys that the search found, over queries that had to choose
          (more than k permitted keys); null where no query had to;
        - gamma;
        - distinct_codes: different key codes ÷ keys;
        - empty: share of (real) queries without any key but the mean token.
        """
        q, k = self.coordinates(x)
        real = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if valid is None else valid
        how = {"causal": self.spec.causal, "chunk": self.config.chunk, "valid": valid}
        found = self._search(q, k, valid)
        nearest = ops.exact_search(q, k, topk=self.config.k + 1, **how)
        had_to_choose = (nearest[..., -1] >= 0) & real[:, None]
        nearest = nearest[..., :-1]
        hit = ((nearest[..., :, None] == found[..., None, :]) & (nearest >= 0)[..., None]).any(-1)
        recall = _mean_over(hit.float().mean(-1), had_to_choose)
        _, codes = ops.morton.zorder_codes(q, k, bits=self.config.bits)
        distinct = [_distinct(codes[:, h], real) for h in range(self.spec.n_heads)]
        selected = self.select(q, k, valid)
        empty = _mean_over((selected < 0).all(-1).float(), real[:, None].expand(selected.shape[:3]))
        return {"recall": recall, "gamma": self.gamma.tolist(), "distinct_codes": distinct, "empty": empty}

    def _content(self, x: Tensor) -> Content | None:
        """Wide queries and keys, each [B, H, N, d_head], where the weights have a part of them."""
        if self.wide is None:
            return None
        a, b = self.wide(x).chunk(2, dim=-1)
        return self._heads(a), self._heads(b)

    def _attend(
        self, q: Tensor, k: Tensor, v: Tensor, content: Content | None, valid: Tensor | None, offset: int = 0
    ) -> Tensor:
        config = self.config
        mean = ("prefix" if self.spec.causal else "all") if config.mean else None
        if config.search == "zorder" and config.score == "cauchy":
            return ops.zeta_attention(
                q, k, v, self.gamma.to(q.dtype), topk=config.k, causal=self.spec.causal, chunk=config.chunk,
                bits=config.bits, content=content, mean=mean, local_window=config.local_window, valid=valid,
                offset=offset, impl=config.impl,
            )  # fmt: skip
        index = self.select(q, k, valid)
        if config.search == "all":
            seen = permitted(q.shape[2], causal=self.spec.causal, valid=valid, device=q.device)
            return attribution.attend_all(
                q, k, v, self.gamma, attribution.chosen(index), score=config.score, content=content,
                averaged=seen if config.mean else None,
            )  # fmt: skip
        return ops.topk_attention(
            q, k, v, index, self.gamma.to(q.dtype), score=config.score, content=content, mean=mean, valid=valid,
            impl=config.impl,
        )  # fmt: skip

    def _search(self, q: Tensor, k: Tensor, valid: Tensor | None) -> Tensor:
        how = {"causal": self.spec.causal, "chunk": self.config.chunk, "valid": valid}
        topk = self.config.k
        if self.config.search == "none":
            return torch.empty(*q.shape[:3], 0, dtype=torch.int32, device=q.device)
        if self.config.search == "all":
            return attribution.every_key(q, **how)
        if self.config.search == "exact":
            return ops.exact_search(q, k, topk=topk, **how)
        if self.config.search == "zorder":
            codes = ops.morton.zorder_codes(q, k, bits=self.config.bits)
        elif self.config.search == "local":  # positions as codes: the window around, or before, the query itself
            codes = (attribution.positions(q), attribution.positions(k))
        else:
            codes = (attribution.noise(q, 2 * self.spec.layer), attribution.noise(k, 2 * self.spec.layer + 1))
        return ops.zorder_search(*codes, k=topk, impl=self.config.impl, **how)

    def _bounded(self, x: Tensor) -> Tensor:
        return self._heads(x.tanh() if self.config.bound == "tanh" else x.clamp(-1, 1))

    def _log_weight(self, q: Tensor, k: Tensor) -> Tensor:
        """Logarithm of the unnormalised weight (ZETA, §3.4) of keys [B, H, N, S, d_k] for queries [B, H, N, 1, d_k]."""
        gamma = self.gamma.to(q.dtype).clamp(min=ops.attention.GAMMA_FLOOR)[:, None, None]
        if self.config.score == "dot":
            return (q * k).sum(-1) / q.shape[-1] ** 0.5
        square = (q - k).square().sum(-1)
        if self.config.score == "cauchy":
            return -(square + gamma**2).log()
        return -square / gamma**2 if self.config.score == "neg-euclid" else -(square.sqrt() + gamma).log()

    def _heads(self, x: Tensor) -> Tensor:
        """[B, N, H · d] → [B, H, N, d]."""
        return x.unflatten(-1, (self.spec.n_heads, -1)).transpose(1, 2)


class _Projection(nn.Module):
    """f_q or f_k: [B, N, d_model] → [B, N, coordinates], the last map in fp32 so that autocast does not merge cells."""

    def __init__(self, d_model: int, coordinates: int, kind: str) -> None:
        super().__init__()
        self.hidden = nn.Linear(d_model, d_model) if kind == "mlp" else None
        self.last = nn.Linear(d_model, coordinates)

    def forward(self, x: Tensor) -> Tensor:
        if self.hidden is not None:
            x = F.gelu(self.hidden(x))
        with torch.autocast(x.device.type, enabled=False):
            wide = torch.promote_types(x.dtype, torch.float32)
            return F.linear(x.to(wide), self.last.weight.to(wide), self.last.bias.to(wide))


def _mean_over(x: Tensor, where: Tensor) -> list[float | None]:
    """Mean of x [B, H, N] over the places `where`, for each head; None where there is no place."""
    count = where.sum((0, 2))
    total = x.masked_fill(~where, 0.0).sum((0, 2))
    return [float(t / n) if n else None for t, n in zip(total, count, strict=True)]


def _distinct(codes: Tensor, real: Tensor) -> float:
    """Different codes ÷ keys, averaged over sequences, for codes [B, N]."""
    shares = [len(row[keep].unique()) / max(int(keep.sum()), 1) for row, keep in zip(codes, real, strict=True)]
    return sum(shares) / len(shares)
