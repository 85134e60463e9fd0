"""The command ``zeta-bench analyse``: its options, and in which order its parts are called."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from zeta_bench.console import ctrl_c, err, out
from zeta_bench.errors import UsageError
from zeta_bench.records import USER_STORE

REPORT = USER_STORE / "report"


class What(StrEnum):
    """What ``analyse`` can measure."""

    locality = "locality"
    distortion = "distortion"


def _count(help: str, least: int = 1) -> Any:
    return typer.Option(help=help, min=least, show_default=False)


def analyse(
    what: Annotated[What, typer.Argument(help="locality · distortion")],
    length: Annotated[
        list[str] | None,
        typer.Option("--length", "-n", help="Keys: 2048 or 2k; repeat it. [512, 2k, 8k; distortion: 2k]", metavar="N"),
    ] = None,
    d_k: Annotated[
        list[int] | None,
        typer.Option("--d-k", help="Dimensions of the search; repeat it. [1 … 128]", min=1, metavar="D"),
    ] = None,
    distribution: Annotated[
        list[str] | None,
        typer.Option(
            "--distribution",
            help="Of the points: uniform · tanh-normal; distortion: gaussian · clusters · subspace. [all]",
            metavar="X",
        ),
    ] = None,
    seed: Annotated[int | None, _count("Only this seed.", least=0)] = None,
    seeds: Annotated[int | None, _count("So many, 0, 1, …. [5]")] = None,
    k: Annotated[int | None, _count("Neighbours a query. [64]")] = None,
    queries: Annotated[int | None, _count("Queries a seed. [256]")] = None,
    bits: Annotated[int | None, _count("A coordinate, of locality's rows beside the library's choice. [16]")] = None,
    shared: Annotated[bool, typer.Option("--shared", help="Queries are keys.")] = False,
    width: Annotated[int | None, _count("Dimensions before the projection of distortion. [512]")] = None,
    records: Annotated[Path, typer.Option("--records", help="Folder of the records.", metavar="DIR")] = USER_STORE,
    force: Annotated[bool, typer.Option("--force", help="Measure again what has a record.")] = False,
) -> None:
    """Measure how many true neighbours the Z-order curve and a projection keep, over d_K; nothing is trained."""
    from zeta_bench.analysis.request import ANALYSES, SEEDS, make_points, sorted_d_ks
    from zeta_bench.settings import make_settings

    if seed is not None and seeds is not None:
        raise UsageError(
            "--seed and --seeds exclude each other: --seed 3 is one seed, --seeds 3 are the seeds 0, 1 and 2."
        )
    if width is not None and what is What.locality:
        raise UsageError("--width belongs to 'analyse distortion'; locality draws its points in d_K dimensions.")
    if bits is not None and what is What.distortion:
        raise UsageError("--bits belongs to 'analyse locality'; distortion has the library's own codes alone.")
    typed = {"k": k, "queries": queries, "bits": bits, "shared": shared or None, "width": width}
    values = {name: value for name, value in typed.items() if value is not None}
    settings = make_settings(ANALYSES[what], values, "analyse")
    wanted = [seed] if seed is not None else list(range(seeds or SEEDS))
    points = make_points(settings, length or (), distribution or (), wanted)
    d_ks = sorted_d_ks(d_k or (), settings)

    from zeta_bench.analysis.series import run_analysis
    from zeta_bench.efficiency.series import closing
    from zeta_bench.records import Store

    store = Store(records)
    out(f"{what}, {settings.id} on cpu")
    ctrl_c.begin()
    store.check_writable()
    done = run_analysis(settings, points, d_ks, store, force=force)
    if done.why:
        err(closing(done, store))
        raise typer.Exit(1)
    _print_results(settings.task, settings.id, store)


def _print_results(task: str, protocol: str, store: Any) -> None:
    """The table and the figures of this analysis, from every record of it in the store."""
    from zeta_bench.console import print_report
    from zeta_bench.report import write_report

    report = write_report({str(store.root): store.root}, REPORT, tasks={task})
    print_report(report, only={(task, protocol)})
