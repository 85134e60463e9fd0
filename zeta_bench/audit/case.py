"""What every audit starts from: a variant in one direction, its inputs, and the tally of what was compared.

Inputs are small, their seeds fixed, and modules are in float64, where rounding (1e-16) and a defect (1e-8 and more)
cannot be taken for one another. Rounding can still move a coordinate across the edge of a cell, and then a variant
that selects keys by cells changes its output by a lot. Two things keep the audits from flaking on that:

- outputs of the same length come from the same matrix products, whose row i is computed from row i alone in one fixed
  order: what an earlier token yields is the same to the bit, whatever stands after it;
- where the number of rows differs (a prefix, a sequence alone), a product may add in another order and differ by
  1e-16. Inputs are drawn at random, in general position: a coordinate lies within 1e-15 of one of 2^10 edges with
  probability 1e-12. A test holds the distance of ZETA's coordinates from every edge above 1e-9 on these inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from zeta_bench.attention import Attention, AttentionSpec, build
from zeta_bench.registry import Choice

B = 2
N = 96
"""Tokens: more than the default k (32), window (32) and six chunks (16), so that a selection has to leave out keys."""
D_MODEL = 32
N_HEADS = 2
MAX_LEN = 128
LENGTHS = (1, 2, 3, 17, 33, 65)
"""Lengths that are no multiple of any block."""
SEED = 20250124

Forward = Callable[[Tensor, Tensor | None], Tensor]


class Skip(Exception):
    """An audit does not apply; the message says why."""


@dataclass(frozen=True)
class Case:
    """One variant in one direction; everything an audit needs is drawn from here.

    Attributes:
        choice: the variant with its settings.
        causal: the direction.
    """

    choice: Choice
    causal: bool

    def module(self, dtype: torch.dtype = torch.float64, dropout: float = 0.0) -> Attention:
        """The variant in eval mode, the same weights at every call, in `dtype`.

        Every trained parameter is moved by N(0, 0.1²), so that a gate or a projection that starts at zero does not
        hide what is behind it.
        """
        spec = AttentionSpec(D_MODEL, N_HEADS, MAX_LEN, causal=self.causal, dropout=dropout)
        with seeded(SEED), torch.no_grad():
            module = build(self.choice, spec).eval()
            for parameter in module.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.1 * torch.randn_like(parameter))
        return module.to(dtype)


@dataclass
class Tally:
    """Keeps the worst of many comparisons, each measured in units of its own bound.

    Attributes:
        worst: largest difference, of the comparison that stands worst against its bound; bound: of the same.
        failures: a sentence for each comparison or requirement that failed, in order.
        count: comparisons and requirements so far.
        note: something to say besides, whether it passes or not.
    """

    worst: float | None = None
    bound: float | None = None
    failures: list[str] = field(default_factory=list)
    count: int = 0
    note: str = ""

    def close(self, got: Tensor, want: Tensor, bound: float, where: str) -> None:
        """Compare by the largest difference; NaN and infinity are far from everything but themselves."""
        difference = torch.where(got == want, 0.0, (got - want).abs()).nan_to_num(nan=math.inf)
        self.measure(float(difference.max()) if difference.numel() else 0.0, bound, where)

    def measure(self, value: float, bound: float, where: str) -> None:
        """Note a difference that was measured elsewhere."""
        self.count += 1
        if self.worst is None or self.bound is None or _share(value, bound) > _share(self.worst, self.bound):
            self.worst, self.bound = value, bound
        if not value <= bound:
            self.failures.append(f"{where}: differs by {value:.2g}, bound {bound:.2g}")

    def require(self, holds: bool, where: str) -> None:
        """Note a requirement without a measure."""
        self.count += 1
        if not holds:
            self.failures.append(where)


def _share(value: float, bound: float) -> float:
    if bound:
        return value / bound
    return math.inf if value else 0.0


def rounding(*tensors: Tensor) -> float:
    """How far two float64 computations of one thing may be apart, for the largest entry of these tensors.

    A sum of n products is off by at most n·u relative to the sum of their magnitudes (u = 2^-53; Higham, Accuracy and
    Stability of Numerical Algorithms, 2002, §3.1). A mixer is four such sums, one after the other (projection, score,
    mixture, output), none longer than n = N · D_MODEL; both sides may err: 2 · 4 · n · u of the largest magnitude.
    """
    largest = max((float(t.detach().abs().max()) for t in tensors if t.numel()), default=0.0)
    return 8 * N * D_MODEL * 2.0**-53 * max(1.0, largest)


def tokens(length: int = N, batch: int = B, stream: int = 0) -> Tensor:
    """Standard normal inputs [batch, length, D_MODEL], float64; another stream gives others."""
    generator = torch.Generator().manual_seed(SEED + 1 + stream)
    return torch.randn(batch, length, D_MODEL, generator=generator, dtype=torch.float64)


def tail_mask(length: int = N, batch: int = B) -> Tensor:
    """Valid mask with padding at the end: about 1/8, 2/8, … of the tokens; the first token is always real."""
    real = torch.tensor([max(1, length - (b + 1) * length // 8) for b in range(batch)])
    return torch.arange(length) < real[:, None]


def scattered_mask(length: int = N, batch: int = B) -> Tensor:
    """Valid mask with padding anywhere, the first token included; one token in four is padded."""
    generator = torch.Generator().manual_seed(SEED)
    mask = torch.rand(batch, length, generator=generator) > 0.25
    mask[:, 0], mask[:, -1] = False, True
    return mask


def gradients(module: Attention, forward: Forward, x: Tensor, valid: Tensor | None, g: Tensor) -> dict[str, Tensor]:
    """Output "y" and the gradients of Σ g·y by x and every parameter, zeros where unused; y alone if it has none."""
    leaf = x.clone().requires_grad_()
    y = forward(leaf, valid)
    if not y.requires_grad:
        return {"y": y}
    by = {"∂x": leaf} | {f"∂{name}": p for name, p in module.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(y, list(by.values()), g.to(y.dtype), materialize_grads=True)
    return {"y": y.detach(), **dict(zip(by, found, strict=True))}


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """A fixed global seed inside, the caller's random state untouched after."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
