"""What a page lacks, and the command that makes it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, NamedTuple

from zeta_bench.analysis.request import ANALYSES, SEEDS
from zeta_bench.claims.evidence import protocol_of
from zeta_bench.claims.schema import WORKLOADS
from zeta_bench.efficiency.workload import length_text
from zeta_bench.registry import parse_settings
from zeta_bench.report.fill.asks import AnalysisAsk, BenchAsk, LayersAsk, RunAsk
from zeta_bench.settings import make_settings

if TYPE_CHECKING:
    from zeta_bench.report.fill.known import Known


class Lack(NamedTuple):
    """One figure that is missing, or not whole.

    Attributes:
        why: "no record", or what is wrong with those that there are, such as "2 of 3 seeds".
        command: what makes the rest.
    """

    why: str
    command: str


def command_of(ask: RunAsk | LayersAsk | BenchAsk | AnalysisAsk, known: Known) -> str:
    """What to type for the records of a figure."""
    if isinstance(ask, BenchAsk):
        words = bench_words(ask.task, ask.protocol, ask.graph)
        words += ["-c", ask.variant, "--mode", ask.mode]
        words += [word for length in ask.lengths for word in ("-n", length_text(length))]
        words += ["--breakdown"] if ask.stage != "none" else []
    elif isinstance(ask, AnalysisAsk):
        words = analysis_words(ask.task, ask.protocol)
    else:
        words = run_words(ask)
    return known.command(shlex.join(["zeta-bench", *words]))


def run_words(ask: RunAsk | LayersAsk) -> list[str]:
    """``run mqar --attn zeta --protocol small --seeds 3``, with ``--set`` for what the protocol's name has changed."""
    name, *changes = ask.protocol.split("+")
    protocol = protocol_of(ask.task, name)
    words = ["run", ask.task, "--attn", ask.variant, "--protocol", name]
    seed = ask.seed if isinstance(ask, RunAsk) else None
    words += ["--seed", str(seed)] if seed is not None else ["--seeds", str(protocol.seeds if protocol else 3)]
    for change in (*changes, *(f"{key}={value}" for key, value in ask.at.items())):
        words += ["--set", change]
    return words if isinstance(ask, RunAsk) else [*words, "--diagnose"]


def bench_words(task: str, protocol: str, graph: bool) -> list[str]:
    """``bench speed --dtype bf16 --chunk 16``: a workload as claims name it, as options."""
    head, _, rest = protocol.partition(":")
    workload = make_settings(WORKLOADS[head], parse_settings(rest, protocol), f"protocol '{protocol}'")
    return ["bench", task, *workload.words(), *([] if graph or task == "memory" else ["--no-graph"])]


def analysis_words(task: str, protocol: str) -> list[str]:
    """``analyse locality --shared --seeds 5``, likewise."""
    rest = protocol.partition(":")[2]
    settings = make_settings(ANALYSES[task], parse_settings(rest, protocol), f"protocol '{protocol}'")
    return ["analyse", task, *settings.words(), "--seeds", str(SEEDS)]
