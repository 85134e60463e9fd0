"""From a request to a bench that can start: device, workload, contenders."""

from __future__ import annotations

from collections.abc import Sequence

from zeta_bench.efficiency.bench import Bench
from zeta_bench.efficiency.contenders import Contender, Eager, Sdpa, Zeta, ZetaDot
from zeta_bench.efficiency.flex import FlexWindow
from zeta_bench.efficiency.modules import Module
from zeta_bench.efficiency.request import Request
from zeta_bench.efficiency.timing import Clock, CudaClock
from zeta_bench.efficiency.workload import DEFAULT_OPS, OPS, ModuleWorkload, OpWorkload, Workload
from zeta_bench.errors import UsageError
from zeta_bench.plan import distinct
from zeta_bench.registry import Choice
from zeta_bench.settings import make_settings

NOT_ON_CPU = (
    "flex-window is left out: compiling it for a CPU takes half a minute a length, and it has no backward pass there; "
    "--contender flex-window times its forward pass."
)


def make_bench(
    request: Request, choices: Sequence[Choice], *, accelerated: bool, debug: bool
) -> tuple[Bench, list[Contender], list[str]]:
    """The bench, its contenders, and what the user should know of both.

    Raises:
        UsageError: a setting that cannot be, or a graph where there is no GPU.
    """
    if request.graph and not accelerated:
        raise UsageError("--graph: there is no GPU here, and only a GPU has CUDA graphs; leave it out.")
    model = OpWorkload if request.level == "op" else ModuleWorkload
    settings = {"dtype": "bf16" if accelerated else "fp32", **request.settings}
    workload: Workload = make_settings(model, settings, "bench")
    more = {} if request.budget is None else {"budget": request.budget}
    clock = (
        CudaClock(repeats=request.repeats, graph=request.graph is not False, **more)
        if accelerated
        else Clock(repeats=request.repeats, **more)
    )
    bench = Bench(request.task, workload, request.wanted_modes, clock, request.breakdown, debug=debug)
    if isinstance(workload, OpWorkload):
        contenders, notes = _cores(request, workload, accelerated)
    else:
        assert isinstance(workload, ModuleWorkload)
        kept, notes = distinct(choices, {})
        contenders = [Module(workload, choice) for choice in kept]
    return bench, contenders, notes


def _cores(request: Request, workload: OpWorkload, accelerated: bool) -> tuple[list[Contender], list[str]]:
    names = [name for name in OPS if name in (request.contenders or DEFAULT_OPS)]
    if accelerated or request.contenders:
        return [make_core(name, workload, request.impl or "auto") for name in names], []
    names.remove("flex-window")
    return [make_core(name, workload, request.impl or "auto") for name in names], [NOT_ON_CPU]


def make_core(name: str, workload: OpWorkload, impl: str = "auto") -> Contender:
    """A contender of level op by its name, a key of `OPS`."""
    if name in ("zeta", "zeta-dot"):
        return (Zeta if name == "zeta" else ZetaDot)(workload, impl)
    if name == "eager":
        return Eager(workload)
    return FlexWindow(workload) if name == "flex-window" else Sdpa(workload, name)
