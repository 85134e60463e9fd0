"""The command ``zeta-bench bench``: its options, and in which order its parts are called."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from zeta_bench.console import ctrl_c, err, out
from zeta_bench.listing import completion
from zeta_bench.records import USER_STORE

REPORT = USER_STORE / "report"


class What(StrEnum):
    """What ``bench`` can measure."""

    speed = "speed"
    memory = "memory"


class Mode(StrEnum):
    """What is repeated."""

    forward = "forward"
    backward = "backward"
    both = "both"


class Dtype(StrEnum):
    """Of values and outputs."""

    bf16 = "bf16"
    fp16 = "fp16"
    fp32 = "fp32"


class Mean(StrEnum):
    """ZETA's mean token."""

    none = "none"
    prefix = "prefix"
    all = "all"


class Codes(StrEnum):
    """How ZETA's coordinates are distributed."""

    uniform = "uniform"
    clusters = "clusters"
    equal = "equal"
    drift = "drift"
    walk = "walk"


class Impl(StrEnum):
    """Implementations of ZETA's operation."""

    auto = "auto"
    reference = "reference"
    triton = "triton"


def _count(help: str, least: int = 1) -> Any:
    return typer.Option(help=help, min=least, show_default=False)


def bench(
    context: typer.Context,
    what: Annotated[What, typer.Argument(help="speed · memory")],
    attn: Annotated[
        list[str] | None,
        typer.Option(
            "--attn",
            "-a",
            help="Time this variant's whole module, vanilla beside it; without it, the cores of the operations.",
            metavar="A",
            autocompletion=completion("variants"),
        ),
    ] = None,
    contender: Annotated[
        list[str] | None,
        typer.Option(
            "--contender",
            "-c",
            help="Only this core: zeta · zeta-dot · eager · sdpa-math · sdpa-efficient · sdpa-flash · sdpa-cudnn · "
            "flex-window.",
            metavar="C",
        ),
    ] = None,
    length: Annotated[
        list[str] | None,
        typer.Option("--length", "-n", help="4096, 4k or 1M; repeat it. [1k … 1M; on a CPU 256 … 2k]", metavar="N"),
    ] = None,
    mode: Annotated[list[Mode] | None, typer.Option("--mode", help="Repeat it; all if left out.")] = None,
    graph: Annotated[
        bool | None,
        typer.Option("--graph/--no-graph", help="Time replays of a CUDA graph. [graph on a GPU]", show_default=False),
    ] = None,
    batch: Annotated[int | None, _count("Sequences. [1]")] = None,
    heads: Annotated[int | None, _count("Heads. [8]")] = None,
    d_v: Annotated[int | None, _count("Width of a head. [64]")] = None,
    d_k: Annotated[int | None, _count("ZETA's coordinates a head. [3]")] = None,
    k: Annotated[int | None, _count("Keys a query, of zeta and flex-window. [32]")] = None,
    chunk: Annotated[int | None, _count("ZETA's chunk. [1]")] = None,
    local_window: Annotated[int | None, _count("ZETA's local window. [0]", least=0)] = None,
    mean: Annotated[Mean | None, typer.Option(help="ZETA's mean token. [none]", show_default=False)] = None,
    codes: Annotated[
        Codes | None, typer.Option(help="Distribution of ZETA's coordinates. [uniform]", show_default=False)
    ] = None,
    causal: Annotated[bool, typer.Option("--causal/--bidirectional", help="Direction.")] = True,
    dtype: Annotated[
        Dtype | None, typer.Option(help="Of values and outputs. [bf16; on a CPU fp32]", show_default=False)
    ] = None,
    deterministic: Annotated[bool, typer.Option("--deterministic", help="Gradients without a random order.")] = False,
    impl: Annotated[Impl | None, typer.Option(help="Of zeta. [auto]", show_default=False)] = None,
    breakdown: Annotated[bool, typer.Option("--breakdown", help="Also time zeta's stages.")] = False,
    repeats: Annotated[int | None, _count("Repetitions of a timing. [3 to 200, as the budget allows]")] = None,
    budget: Annotated[
        float | None, typer.Option(help="Seconds of repetitions a timing. [0.5]", min=0.001, show_default=False)
    ] = None,
    deadline: Annotated[
        float | None, typer.Option(help="Begin no new point after so many seconds.", min=0, metavar="SECONDS")
    ] = None,
    records: Annotated[Path, typer.Option("--records", help="Folder of the records.", metavar="DIR")] = USER_STORE,
    force: Annotated[bool, typer.Option("--force", help="Measure again what has a record.")] = False,
) -> None:
    """Time attention, or weigh its memory, over lengths: medians, fitted exponents, a table and plots."""
    from zeta_bench.efficiency.request import Request

    typed = {
        "batch": batch, "heads": heads, "d_v": d_v, "d_k": d_k, "k": k, "chunk": chunk, "local_window": local_window,
        "mean": mean, "codes": codes, "dtype": dtype, "deterministic": deterministic or None,
        "causal": None if causal else False,
    }  # fmt: skip
    settings = {name: value for name, value in typed.items() if value is not None}
    request = Request(
        what, attn or (), contender or (), length or (), mode or (), graph, impl, breakdown, repeats, budget, settings
    )
    choices = request.check()
    import torch

    from zeta_bench.efficiency.series import closing, run_bench
    from zeta_bench.efficiency.setup import make_bench
    from zeta_bench.efficiency.workload import sorted_lengths
    from zeta_bench.records import Store

    accelerated, debug = torch.cuda.is_available(), bool(context.parent and context.parent.params.get("debug"))
    plan, contenders, notes = make_bench(request, choices, accelerated=accelerated, debug=debug)
    store = Store(records)
    for note in (f"{what}, {plan.workload.id} on {plan.device.type}", *notes):
        out(note)
    ctrl_c.begin()
    store.check_writable()
    lengths = sorted_lengths(length or (), accelerated)
    done = run_bench(plan, contenders, lengths, store, force=force, deadline=deadline)
    if sentence := closing(done, store):
        err(sentence)
    if done.why != "stopped":
        _print_results(plan, done.records, store)
    nothing = not done.why and not any(record.metrics for record in done.records)
    if nothing:
        err("nothing could be measured; the lines above say why.")
    if nothing or done.why == "stopped" or any(record.status == "failed" for record in done.records):
        raise typer.Exit(1)


def _print_results(plan: Any, done: Any, store: Any) -> None:
    """The table and the figures of this bench, from every record of it in the store."""
    from zeta_bench.console import print_report
    from zeta_bench.report import write_report

    if any(record.metrics for record in done):
        report = write_report({str(store.root): store.root}, REPORT, tasks={plan.task})
        print_report(report, only={(plan.task, plan.workload.id)})
