"""What a user asked a bench for, checked before torch is imported."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from zeta_bench.efficiency.workload import MODES, OPS, RIVAL_MODULE, OpWorkload, Workload, parse_length
from zeta_bench.errors import UsageError
from zeta_bench.registry import Choice, find_variants


@dataclass(frozen=True)
class Request:
    """The options of ``zeta-bench bench`` as they were typed.

    Attributes:
        task: "speed" or "memory".
        attn: variants; naming one makes the level "module".
        contenders: of level op; empty = the default.
        lengths: such as "4k"; empty = the default.
        modes: empty = all.
        graph: None = on a GPU.
        impl: of ZETA's operation.
        breakdown: also time ZETA's stages.
        repeats: of each timing; None = as many as fit.
        budget: seconds of each timing; None = the default.
        settings: fields of the workload, those that were typed.
    """

    task: str
    attn: Sequence[str] = ()
    contenders: Sequence[str] = ()
    lengths: Sequence[str] = ()
    modes: Sequence[str] = ()
    graph: bool | None = None
    impl: str | None = None
    breakdown: bool = False
    repeats: int | None = None
    budget: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def level(self) -> str:
        """What is measured: "op" or "module"."""
        return "module" if self.attn else "op"

    @property
    def wanted_modes(self) -> tuple[str, ...]:
        """The modes in their order. The peak of a backward pass is that of both, so memory has no mode for it."""
        known = MODES if self.task == "speed" else tuple(mode for mode in MODES if mode != "backward")
        return tuple(mode for mode in known if not self.modes or mode in self.modes)

    def check(self) -> list[Choice]:
        """The variants that were named, with softmax beside them. Raises UsageError for what cannot be meant."""
        for text in self.lengths:
            parse_length(text)
        if self.attn and self.contenders:
            raise UsageError(
                "--attn times whole modules and --contender cores; they are never compared: leave one out."
            )
        if self.task == "memory":
            self._check_memory()
        if self.level == "op":
            self._check_op()
            return []
        self._check_module()
        choices = find_variants(self.attn)
        named = any(choice.label == RIVAL_MODULE for choice in choices)
        return choices if named else [*find_variants([RIVAL_MODULE]), *choices]

    def _check_op(self) -> None:
        for name in self.contenders:
            if name not in OPS:
                close = difflib.get_close_matches(name, OPS, n=1, cutoff=0.5)
                hint = f"did you mean {close[0]}? " if close else ""
                raise UsageError(f"unknown contender '{name}': {hint}there is {', '.join(OPS)}; --attn takes variants.")
        if self.contenders and not {"zeta", "zeta-dot"} & {*self.contenders} and (self.breakdown or self.impl):
            option = "--breakdown" if self.breakdown else "--impl"
            raise UsageError(f"{option} is about zeta, which is not among the contenders; add --contender zeta.")

    def _check_module(self) -> None:
        own = [name for name in OpWorkload.model_fields if name not in Workload.model_fields]
        for name in own:
            if name in self.settings:
                option, variant = f"--{name.replace('_', '-')}", self.attn[0].partition(":")[0]
                hint = f" (a variant's own settings go behind its name: --attn {variant}:k=16)" if name == "k" else ""
                raise UsageError(f"{option} belongs to the operations, not to --attn; leave it out{hint}.")
        for option, given in (("--impl", self.impl), ("--breakdown", self.breakdown)):
            if given:
                raise UsageError(f"{option} belongs to the operation 'zeta', not to --attn; leave it out.")

    def _check_memory(self) -> None:
        for option, given in (
            ("--graph", self.graph is not None),
            ("--breakdown", self.breakdown),
            ("--repeats", self.repeats),
            ("--budget", self.budget),
        ):
            if given:
                raise UsageError(f"{option} belongs to 'bench speed'; memory is measured once, without a graph.")
        if "backward" in self.modes:
            raise UsageError("--mode backward has no peak of its own; --mode both is a forward and a backward pass.")
