"""Attention variants with one planted defect each, and two without, to prove that every audit can fail.

Where a defect was seen in the wild, the class says so.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zeta_bench import ops
from zeta_bench.attention import QKVAttention, permitted
from zeta_bench.errors import Unsupported
from zeta_bench.zeta import ZetaAttention


def weighted(scores: Tensor, mask: Tensor, v: Tensor) -> Tensor:
    """Softmax over the mask, in fp32 or better; zeros where a row has nothing."""
    wide = scores.to(torch.promote_types(scores.dtype, torch.float32))
    weights = wide.masked_fill(~mask, -torch.inf).softmax(-1).masked_fill(~mask, 0.0)
    return weights.to(v.dtype) @ v


class Clean(QKVAttention):
    """Softmax attention as it should be."""

    def mask(self, q: Tensor, k: Tensor, valid: Tensor | None) -> Tensor:
        return permitted(q.shape[2], causal=self.spec.causal, valid=valid, device=q.device)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None) -> Tensor:
        return weighted(q @ k.mT / q.shape[-1] ** 0.5, self.mask(q, k, valid), v)

    def attend_reference(self, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None) -> Tensor:
        weights = (q @ k.mT / q.shape[-1] ** 0.5).exp() * permitted(
            q.shape[2], causal=self.spec.causal, valid=valid, device=q.device
        )
        total = weights.sum(-1, keepdim=True)
        return weights @ v / torch.where(total > 0, total, 1.0)


class Coded(Clean):
    """Softmax over the 16 permitted keys whose codes (one coordinate, 2^10 cells) are nearest; as it should be."""

    keys = 16

    def codes(self, x: Tensor) -> Tensor:
        return ((x[..., 0].detach().tanh() + 1) / 2 * 1024).long()

    def mask(self, q: Tensor, k: Tensor, valid: Tensor | None) -> Tensor:
        return self.chosen(self.codes(q), self.codes(k), super().mask(q, k, valid))

    def chosen(self, q: Tensor, k: Tensor, allowed: Tensor) -> Tensor:
        N = q.shape[-1]
        far = (q[..., :, None] - k[..., None, :]).abs() * N + (N - 1 - torch.arange(N))
        order = far.masked_fill(~allowed, 2**40).argsort(-1)[..., : self.keys]
        return torch.zeros(far.shape, dtype=torch.bool).scatter(-1, order, True) & allowed

    attend_reference = Clean.attend


class NoReference(QKVAttention):
    """Right, without a definition."""

    attend = Clean.attend
    mask = Clean.mask


class Unmasked(Clean):
    """A causal layer that sees the future."""

    def mask(self, q: Tensor, k: Tensor, valid: Tensor | None) -> Tensor:
        return permitted(q.shape[2], causal=False, valid=valid, device=q.device)


class DetachedMax(Clean):
    """Inputs divided by the largest of the whole sequence, detached: no gradient tells."""

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        return super().forward(x / x.detach().abs().amax((1, 2), keepdim=True), valid)


class SequenceRange(Coded):
    """The quantiser's range is the sequence's own, so that a later token moves the codes of earlier ones."""

    def codes(self, x: Tensor) -> Tensor:
        low, high = x.detach()[..., 0].aminmax(dim=-1, keepdim=True)
        return ((x.detach()[..., 0] - low) / (high - low).clamp(min=1e-9) * 1023).long()


class GlobalWindow(Coded):
    """One sort of all keys, a window of it, and only then the causal filter: the future takes places in it."""

    def chosen(self, q: Tensor, k: Tensor, allowed: Tensor) -> Tensor:
        everything = torch.ones_like(allowed).expand(*q.shape, q.shape[-1])
        return super().chosen(q, k, everything) & allowed


class SequenceMax(Clean):
    """Features stabilised by a maximum over the sequence, with an additive ε (performer-pytorch fc8b784)."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None) -> Tensor:
        fq, fk = (q - q.amax(-1, keepdim=True)).exp() + 1e-4, (k - k.detach().amax((-1, -2), keepdim=True)).exp() + 1e-4
        weights = (fq @ fk.mT) * self.mask(q, k, valid)
        return weights @ v / weights.sum(-1, keepdim=True).clamp(min=1e-9)


class LengthScaled(Clean):
    """Weights by position ÷ length: right at one length, another function at the next (cosFormer)."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None) -> Tensor:
        angle = torch.arange(q.shape[2], dtype=q.dtype)[:, None] / q.shape[2]
        return super().attend(q * angle.cos(), k * angle.cos(), v, valid)


class WrongReference(Clean):
    """Forgets 1/√d in the definition."""

    def attend_reference(self, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None) -> Tensor:
        return super().attend_reference(q, k * k.shape[-1] ** 0.5, v, valid)


class _HalfGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx, g: Tensor) -> Tensor:
        return g / 2


class WrongBackward(Clean):
    """Right outputs, a backward by hand that is off by a factor."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None) -> Tensor:
        return super().attend(_HalfGradient.apply(q), k, v, valid)


class PaddingLeak(Clean):
    """Takes valid and does not look at it."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None) -> Tensor:
        return super().attend(q, k, v, None)


class PaddingNaN(Clean):
    """A softmax over nothing is NaN, and the next layer reads it."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None) -> Tensor:
        return (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~self.mask(q, k, valid), -torch.inf).softmax(-1) @ v


class BatchStatistics(Clean):
    """Normalises by statistics over the batch."""

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        return super().forward(x / x.detach().square().mean(0, keepdim=True).sqrt(), valid)


class LongestOfBatch(Clean):
    """Depends on the length of the longest sequence in the batch."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None) -> Tensor:
        longest = q.shape[2] if valid is None else int(valid.sum(-1).max())
        return super().attend(q / longest**0.5, k, v, valid)


class AlwaysDropout(Clean):
    """Drops weights in eval mode too."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None) -> Tensor:
        return super().attend(q, k, torch.nn.functional.dropout(v, 0.1, training=True), valid)


class CarriesOver(Clean):
    """Keeps something of the last call."""

    last = 0.0

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        y = super().forward(x + self.last, valid)
        self.last = float(x.detach().mean())
        return y


class InPlace(Clean):
    """Scales the caller's x where it stands."""

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        with torch.no_grad():
            x.data.mul_(0.5)
        return super().forward(x, valid)


class _SpoilsUpstream(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx, g: Tensor) -> Tensor:
        return g.mul_(2).div(2)


class UpstreamInPlace(Clean):
    """Its backward scales the gradient that it was given where it stands."""

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        return _SpoilsUpstream.apply(super().forward(x, valid))


class FailsAtOne(Clean):
    """The unbiased variance of one token is 0 / 0."""

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        variance = (x - x.mean(1, keepdim=True)).square().sum(1, keepdim=True) / (x.shape[1] - 1)
        return super().forward(x / variance.sqrt(), valid)


class BlockOnly(Clean):
    """Wants lengths that are multiples of 16."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None) -> Tensor:
        q.unflatten(2, (-1, 16))
        return super().attend(q, k, v, valid)


class WrongDtype(Clean):
    """Gives float64 whatever it gets."""

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        return super().forward(x, valid).double()


class Overflows(Clean):
    """Scores beyond 65504, the largest number of fp16, before they are scaled back."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None) -> Tensor:
        scores = (100 * q) @ (1000 * k).mT
        return weighted(scores / 1e5, self.mask(q, k, valid), v)


class Cancels(Clean):
    """‖q − k‖² as ‖q‖² + ‖k‖² − 2q·k far from the origin: exact in float64, noise in bf16."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None) -> Tensor:
        q, k = q + 10.0, k + 10.0
        square = q.square().sum(-1)[..., :, None] + k.square().sum(-1)[..., None, :] - 2 * q @ k.mT
        return weighted(-square, self.mask(q, k, valid), v)


class Raises(Clean):
    """Raises whatever it is given."""

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        raise RuntimeError("the planted error\nand its second line")


class NotHere(Clean):
    """Cannot run on this machine, and says so."""

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        raise Unsupported("it needs a GPU; run it on one.")


class CausalOnly(Clean):
    """Declares one direction."""

    bidirectional_ok = False


class ZetaSequenceRange(ZetaAttention):
    """Coordinates stretched to the range of their sequence before they are coded."""

    def coordinates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return tuple(self._stretched(c) for c in super().coordinates(x))

    @staticmethod
    def _stretched(c: Tensor) -> Tensor:
        low, high = c.detach().aminmax(dim=-2, keepdim=True)
        return (c - low) / (high - low).clamp(min=1e-6) * 2 - 1


class ZetaUnbounded(ZetaAttention):
    """Coordinates that nothing keeps in [−1, 1]."""

    def _bounded(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.spec.n_heads, self.config.d_k).transpose(1, 2)


class ZetaLimitOffByOne(ZetaAttention):
    """Queries search as if they stood one position later."""

    def _search(self, q: Tensor, k: Tensor, valid: Tensor | None) -> Tensor:
        codes = ops.morton.zorder_codes(q, k, bits=self.config.bits)
        how = {"causal": self.spec.causal, "chunk": self.config.chunk, "valid": valid}
        return ops.zorder_search(*codes, k=self.config.k, offset=1, **how)


class ZetaSelectsPadding(ZetaAttention):
    """The search forgets the mask."""

    def _search(self, q: Tensor, k: Tensor, valid: Tensor | None) -> Tensor:
        return super()._search(q, k, None)


class ZetaRangeInSearch(ZetaAttention):
    """Only the search sees the stretched coordinates; `coordinates` looks right."""

    def _search(self, q: Tensor, k: Tensor, valid: Tensor | None) -> Tensor:
        return super()._search(*(ZetaSequenceRange._stretched(c) for c in (q, k)), valid)


class ZetaSelectsTwice(ZetaAttention):
    """The local window does not leave out what the search found."""

    def select(self, q: Tensor, k: Tensor, valid: Tensor | None) -> Tensor:
        found = super().select(q, k, valid)
        return torch.cat((found, found[..., :1]), dim=-1)


class ZetaGammaAboveOne(ZetaAttention):
    """γ = 2·sigmoid."""

    @property
    def gamma(self) -> Tensor:
        return 2 * super().gamma


class ZetaGammaNegative(ZetaAttention):
    """γ is the parameter itself."""

    @property
    def gamma(self) -> Tensor:
        return self.gamma_logit.expand(self.spec.n_heads)
