"""What a bench times. Each contender makes its own inputs from the workload, so that each has the same task."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from zeta_bench import ops, provenance
from zeta_bench.efficiency.inputs import DTYPES, coordinates, generator, normal
from zeta_bench.efficiency.step import Step
from zeta_bench.efficiency.workload import RIVAL_OPS, OpWorkload
from zeta_bench.errors import Unsupported
from zeta_bench.ops._impl import resolve
from zeta_bench.ops.morton import settle_bits
from zeta_bench.ops.options import Content
from zeta_bench.ops.zeta import unsupported_fused

GAMMA = 0.5
"""ZETA's γ in every head: what training starts from."""


class Contender:
    """Something to be timed.

    Attributes:
        name: in records and tables.
        settings: what a user typed to change it; part of the record's id, like config and version.
        config: every setting.
        version: raise it when a change moves its numbers.
        source: the user's file that it is from, if it is.
    """

    name: str
    version: int = 1
    source: Path | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """What differs from the default."""
        return {}

    @property
    def config(self) -> dict[str, Any]:
        """Every setting of its own; the rest is the workload's."""
        return {}

    @property
    def words(self) -> list[str]:
        """The options that ask for it."""
        return ["--contender", self.name]

    @property
    def rival(self) -> bool:
        """Whether the others are compared with it."""
        return self.name in RIVAL_OPS

    @property
    def code_digest(self) -> str:
        """Of the file that defines it."""
        return provenance.code_digest(type(self))

    def impl(self, device: torch.device) -> str:
        """The implementation that runs."""
        return "torch"

    def make(self, length: int, device: torch.device) -> Step:
        """Inputs and forward pass for a length."""
        raise NotImplementedError

    def why_not(self, device: torch.device, mode: str) -> str:
        """One sentence if it cannot do a mode on this machine at any length, else ""."""
        return ""

    def refused(self, error: Exception) -> bool:
        """Whether an error says that this cannot be had here, rather than that something broke."""
        return isinstance(error, (Unsupported, NotImplementedError))

    def context(self) -> AbstractContextManager[Any]:
        """Entered around everything that is timed."""
        return contextlib.nullcontext()


@dataclass
class Zeta(Contender):
    """`zeta_bench.ops.zeta_attention`: everything from coordinates to output."""

    workload: OpWorkload
    requested: str = "auto"
    name: str = field(default="zeta", init=False)
    weighs: ClassVar[bool] = False
    """Whether weights have a part exp(a·b/√d_v) of wide queries and keys."""

    @property
    def settings(self) -> dict[str, Any]:
        """The implementation, if it was asked for."""
        return {} if self.requested == "auto" else {"impl": self.requested}

    @property
    def words(self) -> list[str]:
        """With the implementation."""
        return [*super().words, *(["--impl", self.requested] if self.settings else [])]

    @property
    def code_digest(self) -> str:
        """Of the file with the operation's entry point."""
        return provenance.code_digest(ops.zeta_attention)

    def impl(self, device: torch.device) -> str:
        """The implementation that runs, never "auto": what the operation itself asks."""
        w = self.workload
        q, v = torch.empty(1, 1, 1, w.d_k, device="meta"), torch.empty(1, 1, 1, w.d_v, device="meta")
        content = (v, v) if self.weighs else None
        why = unsupported_fused(q, q, v, settle_bits(w.d_k, None), content, mean=w.mean != "none")
        return resolve(self.requested, device, why)

    def make(self, length: int, device: torch.device) -> Step:
        """q, k: fp32 [B, H, N, d_k]; v [B, H, N, d_v]; gamma [H]; content like v: gradients of all."""
        inputs = self.inputs(length, device)
        arguments, content = self.arguments(), self.content(inputs)
        return Step(lambda: ops.zeta_attention(*inputs[:4], content=content, **arguments), inputs)

    @staticmethod
    def content(inputs: tuple[Tensor, ...]) -> Content | None:
        """What of the inputs are wide queries and keys."""
        return (inputs[4], inputs[5]) if len(inputs) > 4 else None

    def inputs(self, length: int, device: torch.device) -> tuple[Tensor, ...]:
        """q, k, v, gamma, and wide queries and keys if it weighs by them, each with gradients."""
        w, source = self.workload, generator(device)
        q, k = coordinates(w.codes, (w.batch, w.heads, length, w.d_k), source)
        wide = [
            normal((w.batch, w.heads, length, w.d_v), DTYPES[w.dtype], source) for _ in range(3 if self.weighs else 1)
        ]
        gamma = torch.full((w.heads,), GAMMA, device=device)
        return tuple(t.requires_grad_() for t in (q, k, wide[0], gamma, *wide[1:]))

    def arguments(self) -> dict[str, Any]:
        """Keywords of the operation and of its stages."""
        w = self.workload
        return {
            "topk": w.k,
            "causal": w.causal,
            "chunk": w.chunk,
            "mean": None if w.mean == "none" else w.mean,
            "deterministic": w.deterministic,
            "local_window": w.local_window,
            "impl": self.requested,
        }

    def stages(self, length: int, device: torch.device) -> list[tuple[str, Callable[[], object]]]:
        """Name and work of each stage, on inputs prepared once."""
        from zeta_bench.ops.stages import stages

        inputs = self.inputs(length, device)
        return stages(*inputs[:4], content=self.content(inputs), **self.arguments())

    def refused(self, error: Exception) -> bool:
        """The operations raise ValueError for what they cannot do."""
        return super().refused(error) or isinstance(error, ValueError)


@dataclass
class ZetaDot(Zeta):
    """The same with content: what `zeta-dot` does."""

    name: str = field(default="zeta-dot", init=False)
    weighs: ClassVar[bool] = True


@dataclass
class Softmax(Contender):
    """Softmax attention on q, k, v [B, H, N, d_v]; a subclass says how."""

    workload: OpWorkload

    def make(self, length: int, device: torch.device) -> Step:
        """q, k, v in the workload's dtype: gradients of all three."""
        w, source = self.workload, generator(device)
        shape = (w.batch, w.heads, length, w.d_v)
        q, k, v = (normal(shape, DTYPES[w.dtype], source).requires_grad_() for _ in range(3))
        return Step(self.bind(q, k, v), (q, k, v))

    def bind(self, q: Tensor, k: Tensor, v: Tensor) -> Callable[[], Tensor]:
        """The forward pass on these tensors; what depends on their shape alone is made here, outside the timing."""
        raise NotImplementedError

    @contextlib.contextmanager
    def context(self) -> Iterator[None]:
        """Deterministic gradients, if the workload wants them."""
        with deterministic() if self.workload.deterministic else contextlib.nullcontext():
            yield


@dataclass
class Eager(Softmax):
    """softmax(q·kᵀ / √d)·v as it is written, the matrix in memory."""

    name: str = field(default="eager", init=False)

    def bind(self, q: Tensor, k: Tensor, v: Tensor) -> Callable[[], Tensor]:
        """The causal mask, bool [N, N], is made once."""
        N, scale = q.shape[-2], q.shape[-1] ** -0.5
        future = torch.ones(N, N, dtype=torch.bool, device=q.device).triu(1) if self.workload.causal else None

        def forward() -> Tensor:
            scores = (q * scale) @ k.mT
            if future is not None:
                scores = scores.masked_fill(future, -torch.inf)
            return scores.softmax(-1) @ v

        return forward


BACKENDS: Mapping[str, SDPBackend] = {
    "sdpa-math": SDPBackend.MATH,
    "sdpa-efficient": SDPBackend.EFFICIENT_ATTENTION,
    "sdpa-flash": SDPBackend.FLASH_ATTENTION,
    "sdpa-cudnn": SDPBackend.CUDNN_ATTENTION,
}


@dataclass
class Sdpa(Softmax):
    """One backend of torch's scaled_dot_product_attention."""

    name: str

    def bind(self, q: Tensor, k: Tensor, v: Tensor) -> Callable[[], Tensor]:
        """The call alone: the backend is chosen in `context`, not in each step."""
        causal = self.workload.causal
        return lambda: F.scaled_dot_product_attention(q, k, v, is_causal=causal)

    @contextlib.contextmanager
    def context(self) -> Iterator[None]:
        """Only this backend."""
        with super().context(), sdpa_kernel(BACKENDS[self.name]):
            yield

    def refused(self, error: Exception) -> bool:
        """What a backend cannot do at some length only."""
        signs = ("No available kernel", "No viable backend", "cuDNN")
        return super().refused(error) or any(sign in str(error) for sign in signs)

    def why_not(self, device: torch.device, mode: str) -> str:
        """What torch says against the backend, tried on a short input."""
        try:
            with warnings.catch_warnings(record=True) as told, self.context():
                warnings.simplefilter("always")
                self.make(128, device).train()
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            return f"torch cannot run this backend here: {_reason([str(each.message) for each in told], error)}"
        return ""


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    """Take torch's deterministic algorithms where it has them, without filling fresh memory, which only costs time."""
    switches: Any = torch.utils.deterministic
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    filled, switches.fill_uninitialized_memory = switches.fill_uninitialized_memory, False
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*determinis.*")  # torch names what stays without an order
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        switches.fill_uninitialized_memory = filled


def _reason(warned: list[str], error: Exception) -> str:
    """What torch warned about the backend that was asked for, passing over what it says of the others."""
    lines = [text.partition("(Triggered")[0].partition("\n")[0].strip() for text in (*warned, str(error))]
    return next(line for line in lines if "not used because" not in line and "disabled" not in line).rstrip(".") + "."
