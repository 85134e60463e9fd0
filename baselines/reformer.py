"""LSH attention (Kitaev et al. 2020, arXiv 2001.04451, eq. 2-6), in a form that does not leak the future.

    out_i = Σ_{j ∈ P_i} softmax_j(q_i·k_j) v_j,   k_j = q_j / ‖q_j‖,   P_i = ∪_r P_i^r

Queries and keys share one projection. In each round r a token falls into the bucket h_r(q) = argmax [q R_r; −q R_r]
(angular LSH) with a fixed random matrix R_r, and P_i^r are its `neighbours` nearest in position within its own bucket:
causal, those before i; bidirectional, half before and half after. A token attends to itself only where no round gives
it another. The same key found in several rounds counts once (eq. 6 and its N_ij).

Time O(R·N·(log N + w·d)) a head with R rounds and w neighbours, memory O(R·N·(w + d)).

Differs from the authors' code (trax), where tokens sorted by bucket are cut into chunks of fixed length and a query
sees its own chunk and the one before. Where the cuts fall depends on every token, the future included, so that which
*past* keys a query sees tells about the future. Here a key's place is counted back from the query within the bucket,
which later tokens cannot move; padded tokens have a bucket of their own and take no place. Further: the rotations are
drawn once from the layer's number instead of at every step, and there is no reversible layer and no chunked MLP. One
projection fewer than the other variants: 3·d_model² weights instead of 4.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from zeta_bench.attention import Attention, AttentionSpec, Rule, in_fp32, masked_softmax, rotate
from zeta_bench.baselines.local import MIN_BLOCK, strips
from zeta_bench.settings import Settings


class ReformerConfig(Settings):
    """Settings of LSH attention."""

    rounds: int = Field(4, ge=1, description="independent hashes; a key is found if one of them finds it")
    buckets: int = Field(0, ge=0, description="buckets a round; 0: so many that one holds `neighbours` of max_len")
    neighbours: int = Field(32, ge=1, description="keys of its own bucket that a query sees in each round")


class Reformer(Attention):
    """LSH attention with shared queries and keys."""

    Config = ReformerConfig
    rotary_ok = True
    rotations: Tensor

    def __init__(self, spec: AttentionSpec, config: Any = None) -> None:
        super().__init__(spec, config)
        self.qk = nn.Linear(spec.d_model, spec.d_model, bias=False)
        self.v = nn.Linear(spec.d_model, spec.d_model, bias=False)
        self.out = nn.Linear(spec.d_model, spec.d_model, bias=False)
        self.buckets = self.config.buckets or 2 * max(1, round(spec.max_len / self.config.neighbours / 2))
        shape = (spec.n_heads, self.config.rounds, spec.d_head, (self.buckets + 1) // 2)
        generator = torch.Generator().manual_seed(spec.layer)
        self.register_buffer("rotations", torch.randn(shape, generator=generator, device="cpu"))

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """[B, N, d_model] → [B, N, d_model]; see `Attention.forward`."""
        return self._mix(x, valid, self.attend)

    def reference(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """The output by definition; see `Attention.reference`."""
        return self._mix(x, valid, self.attend_reference)

    @in_fp32
    def attend(self, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None) -> Tensor:
        """LSH attention of q, k, v [B, H, N, d_head], k being q at unit length; valid and result as in `Attention`."""
        left, right = self._reach(q.shape[-2])
        order, rank, place = self._sort(self._hash(q, valid), left)
        out, log_weight = self._rounds(q, k, v, order, place, left, right)
        out = out.take_along_dim(rank.unsqueeze(-1), dim=3)  # back in the order of positions: [B, H, R, N, d]
        log_weight = log_weight.take_along_dim(rank, dim=3)
        found = log_weight > float("-inf")
        share = masked_softmax(log_weight.movedim(2, -1), found.movedim(2, -1)).movedim(-1, 2)
        return torch.where(found.any(2).unsqueeze(-1), (share.unsqueeze(-1) * out).sum(2), v)

    def attend_reference(self, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None) -> Tensor:
        """P_i by counting within the bucket, one pair of tokens after another; arguments as in `attend`."""
        N = q.shape[-2]
        left, right = self._reach(N)
        bucket = self._hash(q, valid)
        together = bucket.unsqueeze(-1) == bucket.unsqueeze(-2)  # [B, H, R, N, N]
        count = together.cumsum(-1)  # at (i, j): tokens of i's bucket at positions up to j
        back = count.diagonal(dim1=-2, dim2=-1).unsqueeze(-1) - count
        other = ~torch.eye(N, dtype=torch.bool, device=q.device)
        mask = (together & (back <= left) & (back >= -right) & other).any(2)
        mask = mask | (~other & ~mask.any(-1, keepdim=True))  # itself where it is alone
        return masked_softmax(q @ k.mT, mask) @ v

    def _mix(self, x: Tensor, valid: Tensor | None, rule: Rule) -> Tensor:
        if valid is not None:  # a padded token sees other padded ones, so all of them are zero from here on
            x = x.masked_fill(~valid.unsqueeze(-1), 0.0)
        q, v = (layer(x).unflatten(-1, (self.spec.n_heads, -1)).transpose(1, 2) for layer in (self.qk, self.v))
        if self.spec.rotary:
            q = rotate(q)
        wide = q.to(torch.promote_types(q.dtype, torch.float32))  # fp16 has no number as small as normalize's eps
        return self.out(rule(q, F.normalize(wide, dim=-1), v, valid).transpose(1, 2).flatten(2))

    def _reach(self, N: int) -> tuple[int, int]:
        """How many tokens of its bucket a query sees before and after itself."""
        most = self.config.neighbours
        left, right = (most, 0) if self.spec.causal else (most - most // 2, most // 2)
        return min(left, N), min(right, N)

    @torch.no_grad()
    def _hash(self, q: Tensor, valid: Tensor | None) -> Tensor:
        """The bucket of every token in every round: [B, H, N, d_head] → [B, H, R, N]; padded ones have the last."""
        turned = torch.einsum("bhnd,hrdm->bhrnm", q, self.rotations.to(q.dtype))
        bucket = torch.cat((turned, -turned), dim=-1)[..., : self.buckets].argmax(-1)
        return bucket if valid is None else bucket.masked_fill(~valid[:, None, None], self.buckets)

    @staticmethod
    def _sort(bucket: Tensor, left: int) -> tuple[Tensor, Tensor, Tensor]:
        """Sort the tokens of every round by (bucket, position).

        Returns:
            order, rank, place, each [B, H, R, N]: the token at a rank; the rank of a token; and numbers whose
            difference is the distance within the bucket, and more than `left` between buckets.
        """
        N = bucket.shape[-1]
        position = torch.arange(N, device=bucket.device)
        order = (bucket * N + position).argsort(-1)
        rank = torch.empty_like(order).scatter_(-1, order, position.expand_as(order))
        return order, rank, bucket * (N + left) + rank

    def _rounds(
        self, q: Tensor, k: Tensor, v: Tensor, order: Tensor, place: Tensor, left: int, right: int
    ) -> tuple[Tensor, Tensor]:
        """Attention of each round by itself, in its sorted order.

        Returns:
            [B, H, R, N, d] and the logarithm of each query's sum of weights [B, H, R, N], −inf where it saw no key.
        """
        N = q.shape[-2]
        block = min(max(left + right, MIN_BLOCK), N)
        queries, keys, values = (t.unsqueeze(2).take_along_dim(order.unsqueeze(-1), dim=3) for t in (q, k, v))
        times, mask = self._times(order, place, block, left, right)
        scores = strips(queries, block).mT @ strips(keys, block, left, right)
        scores = (scores - times.to(scores.dtype).log()).masked_fill(~mask, float("-inf"))
        weights = F.dropout(masked_softmax(scores, mask), self.spec.dropout, self.training)
        out = weights @ strips(values, block, left, right).mT
        return out.flatten(3, 4)[..., :N, :], scores.logsumexp(-1).flatten(3, 4)[..., :N]

    @staticmethod
    def _times(order: Tensor, place: Tensor, block: int, left: int, right: int) -> tuple[Tensor, Tensor]:
        """In how many rounds a pair is neighbours (at least 1), and whether in this one: [B, H, R, n, block, strip]."""
        nowhere = -(2**62)
        times = torch.zeros((), dtype=torch.int16, device=order.device)
        own: list[Tensor] = []
        for r in range(order.shape[2]):
            sorted_ = place[:, :, r : r + 1].take_along_dim(order, dim=3).unsqueeze(-1)
            query, key = strips(sorted_, block, fill=nowhere // 2).mT, strips(sorted_, block, left, right, nowhere)
            back = query - key
            near = (back <= left) & (back >= -right) & (back != 0)
            times = times + near
            own.append(near[:, :, r])
        return times.clamp(min=1), torch.stack(own, dim=2)
