"""What a bench measures, without torch: workload, lengths and modes. A workload's id is the protocol of its records."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import NonNegativeInt, PositiveInt

from zeta_bench.errors import UsageError
from zeta_bench.settings import Settings

TASKS = ("speed", "memory")
MODES = ("forward", "backward", "both")
OPS: dict[str, str] = {
    "zeta": "ZETA's operation, index included: codes, sort, search, attend",
    "zeta-dot": "the same with weights that have a part of dot products too; only if named",
    "eager": "softmax attention with its matrix in memory",
    "sdpa-math": "torch's scaled_dot_product_attention, plain backend",
    "sdpa-efficient": "the same, memory-efficient backend",
    "sdpa-flash": "the same, flash backend",
    "sdpa-cudnn": "the same, cuDNN backend",
    "flex-window": "FlexAttention, compiled, a sliding window of k keys",
}
"""Contenders of level op, and what each is."""

DEFAULT_OPS = tuple(name for name in OPS if name != "zeta-dot")
"""What is timed where no contender is named."""

RIVAL_OPS = tuple(name for name in OPS if name.startswith("sdpa-"))
"""The fastest of these, at each length and mode, is what the others are compared with."""

RIVAL_MODULE = "vanilla"
"""The variant that every module is compared with."""

GPU_LENGTHS = tuple(2**power for power in range(10, 21))
CPU_LENGTHS = (256, 512, 1024, 2048)
_UNITS = {"": 1, "k": 2**10, "m": 2**20}


class Workload(Settings):
    """What both levels have: everything that fixes the meaning of a figure except contender, length and graph.

    Attributes:
        batch: sequences, B.
        heads: H.
        d_v: width of a head's values, and of softmax's queries and keys.
        causal: whether output i may use keys j ≤ i only.
        dtype: of values, softmax's queries and keys, and outputs; ZETA's coordinates are fp32 whatever this is.
    """

    level: ClassVar[str]
    method: ClassVar[int] = 1
    """Raise it when a change of the procedure moves the numbers."""

    batch: PositiveInt = 1
    heads: PositiveInt = 8
    d_v: PositiveInt = 64
    causal: bool = True
    dtype: Literal["bf16", "fp16", "fp32"]

    @property
    def direction(self) -> str:
        """As records say it."""
        return "causal" if self.causal else "bidirectional"

    @property
    def content(self) -> dict[str, Any]:
        """Everything that the id stands for."""
        return {"level": self.level, "method": self.method, **self.model_dump(mode="json")}

    @property
    def id(self) -> str:
        """Short description and content hash, such as ``bench-op-causal-bf16@1f2e3d4c``."""
        digest = hashlib.sha256(json.dumps(self.content, sort_keys=True).encode()).hexdigest()[:8]
        return f"bench-{self.level}-{self.direction}-{self.dtype}@{digest}"

    def words(self) -> list[str]:
        """The options that ask for this workload, without those that are the default."""
        words = []
        for name, field in type(self).model_fields.items():
            value, option = getattr(self, name), f"--{name.replace('_', '-')}"
            if name == "causal":
                words += [] if value else ["--bidirectional"]
            elif value is True:
                words.append(option)
            elif value != field.default:
                words += [option, str(value)]
        return words


class OpWorkload(Workload):
    """Level op: the attention core on ready inputs; q, k, v of softmax are [B, H, N, d_v].

    Attributes:
        d_k: ZETA's coordinates a head; its q and k are fp32 [B, H, N, d_k].
        k: keys a query, for ZETA and for the sliding window.
        chunk: as in `zeta_bench.ops.zorder_search`.
        mean: ZETA's mean token.
        local_window: newest keys that ZETA adds to the nearest ones.
        codes: how ZETA's coordinates are distributed, see `zeta_bench.efficiency.inputs`.
        deterministic: gradients that are the same bits at every run.
    """

    level: ClassVar[str] = "op"

    d_k: PositiveInt = 3
    k: PositiveInt = 32
    chunk: PositiveInt = 1
    mean: Literal["none", "prefix", "all"] = "none"
    local_window: NonNegativeInt = 0
    codes: Literal["uniform", "clusters", "equal", "drift", "walk"] = "uniform"
    deterministic: bool = False


class ModuleWorkload(Workload):
    """Level module: a variant from x [B, N, H · d_v] to its output, projections included, in autocast to dtype."""

    level: ClassVar[str] = "module"


def parse_length(text: str) -> int:
    """``4096``, ``4k`` (4096) or ``1M`` (1048576) → tokens. Raises UsageError for anything else."""
    found = re.fullmatch(r"(\d+)([kKmM]?)", text.strip())
    length = int(found[1]) * _UNITS[found[2].lower()] if found else 0
    if length < 1:
        raise UsageError(f"--length {text} is no length: write 4096, 4k or 1M, and --length again for another one.")
    return length


def length_text(length: int) -> str:
    """``1M``, ``4k`` or ``1000``: as short as it can be typed."""
    for unit in ("m", "k"):
        if length >= _UNITS[unit] and length % _UNITS[unit] == 0:
            return f"{length // _UNITS[unit]}{unit.upper() if unit == 'm' else unit}"
    return str(length)


def sorted_lengths(texts: Sequence[str], accelerated: bool) -> tuple[int, ...]:
    """The lengths that a user typed, each once and ascending, or this machine's default."""
    if not texts:
        return GPU_LENGTHS if accelerated else CPU_LENGTHS
    return tuple(sorted({parse_length(text) for text in texts}))
