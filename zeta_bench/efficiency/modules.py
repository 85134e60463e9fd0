"""Registered variants, and users' files, as contenders of level module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zeta_bench import provenance
from zeta_bench.attention import AttentionSpec, build, build_config, check_fit
from zeta_bench.efficiency.contenders import Contender
from zeta_bench.efficiency.inputs import DTYPES, SEED, generator, normal
from zeta_bench.efficiency.step import Step
from zeta_bench.efficiency.workload import RIVAL_MODULE, ModuleWorkload
from zeta_bench.errors import Unsupported
from zeta_bench.plan import check_variant
from zeta_bench.registry import Choice


@dataclass
class Module(Contender):
    """A variant as `build` makes it, in training (both, backward) or evaluation (forward), inside autocast."""

    workload: ModuleWorkload
    choice: Choice

    def __post_init__(self) -> None:
        self.name, self.source = self.choice.name, self.choice.source
        self.class_ = check_variant(self.choice)
        self.version = self.class_.version

    @property
    def settings(self) -> dict[str, Any]:
        """As typed behind the variant's name."""
        return dict(self.choice.settings)

    @property
    def config(self) -> dict[str, Any]:
        """The variant's Config."""
        return build_config(self.choice).model_dump(mode="json")

    @property
    def words(self) -> list[str]:
        """The variant."""
        return ["--attn", self.choice.typed]

    @property
    def rival(self) -> bool:
        """Whether it is softmax attention as registered."""
        return self.choice.label == RIVAL_MODULE

    @property
    def code_digest(self) -> str:
        """Of the variant's file."""
        return provenance.code_digest(self.class_)

    def impl(self, device: torch.device) -> str:
        """As the variant says."""
        return self._build(1).to(device).impl

    def make(self, length: int, device: torch.device) -> Step:
        """x: fp32 [B, N, d_model]; gradients of x and of every parameter."""
        w = self.workload
        module, x = (
            self._build(length).to(device),
            normal((w.batch, length, w.heads * w.d_v), torch.float32, generator(device)),
        )
        parameters = tuple(p for p in module.parameters() if p.requires_grad)
        dtype = DTYPES[w.dtype]

        def forward() -> Tensor:  # no cache of cast weights: a captured graph could not refill it
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32, cache_enabled=False):
                return module(x)

        return Step(forward, (x.requires_grad_(), *parameters), module.train)

    def why_not(self, device: torch.device, mode: str) -> str:
        """What the variant declares that it cannot."""
        try:
            check_fit(self.choice, causal=self.workload.causal)
        except Unsupported as error:
            return str(error)
        return ""

    def refused(self, error: Exception) -> bool:
        """A forward or attend that is not written is the user's mistake."""
        return isinstance(error, Unsupported)

    def _build(self, length: int) -> Any:
        w = self.workload
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            return build(self.choice, AttentionSpec(w.heads * w.d_v, w.heads, length, causal=w.causal))
