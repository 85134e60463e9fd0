"""What a bench times and weighs, and how: without a GPU, whose events and graphs are played by stand-ins."""

from __future__ import annotations

import itertools
import sys
from contextlib import contextmanager, nullcontext
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch.nn.attention.flex_attention import create_block_mask

from zeta_bench.efficiency import timing
from zeta_bench.efficiency.bench import Bench, out_of_memory
from zeta_bench.efficiency.contenders import BACKENDS, Eager, Sdpa, Zeta
from zeta_bench.efficiency.flex import FlexWindow, reach, window_mask
from zeta_bench.efficiency.inputs import CENTRES, DISTRIBUTIONS, coordinates, generator
from zeta_bench.efficiency.memory import LiveBytes, peak_bytes
from zeta_bench.efficiency.modules import Module
from zeta_bench.efficiency.setup import make_core
from zeta_bench.efficiency.step import Step, Work
from zeta_bench.efficiency.timing import Clock, CudaClock, agreement
from zeta_bench.efficiency.workload import (
    MODES,
    OPS,
    ModuleWorkload,
    OpWorkload,
    length_text,
    parse_length,
    sorted_lengths,
)
from zeta_bench.errors import Unsupported, UsageError
from zeta_bench.registry import Choice, Variant, find_variant
from zeta_bench.report.benches.curves import fitted_exponent
from zeta_bench.report.benches.figures import CORES

CPU = torch.device("cpu")
SMALL = OpWorkload(dtype="fp32", heads=2, d_v=8, k=4)
QUICK = Clock(budget=0.001, repeats=3)


# Workloads and lengths


@pytest.mark.parametrize(
    ("typed", "length"), [("4096", 4096), ("4k", 4096), ("4K", 4096), ("1M", 2**20), ("1", 1), (" 3k ", 3072)]
)
def test_lengths_are_read_as_people_write_them(typed, length):
    assert parse_length(typed) == length
    assert parse_length(length_text(length)) == length


@pytest.mark.parametrize("typed", ["", "0", "-4", "4kk", "1.5k", "k", "4 k", "1e3", "1k,2k"])
def test_what_is_no_length_is_refused(typed):
    with pytest.raises(UsageError, match="is no length: write 4096, 4k or 1M"):
        parse_length(typed)


def test_lengths_come_once_and_ascending_and_have_a_default():
    assert sorted_lengths(["2k", "64", "2048"], accelerated=False) == (64, 2048)
    assert sorted_lengths([], accelerated=True)[::10] == (1024, 2**20)
    assert sorted_lengths([], accelerated=False)[-1] <= 4096


def test_the_id_stands_for_everything_that_moves_a_figure():
    base = OpWorkload(dtype="bf16")
    assert base.id.startswith("bench-op-causal-bf16@")
    assert OpWorkload(dtype="bf16").id == base.id
    changes = {"heads": 4, "d_k": 2, "chunk": 16, "mean": "prefix", "codes": "walk", "deterministic": True}
    ids = {OpWorkload(dtype="bf16", **{name: value}).id for name, value in changes.items()}
    assert len(ids | {base.id, OpWorkload(dtype="fp32").id, ModuleWorkload(dtype="bf16").id}) == len(changes) + 3


def test_the_words_of_a_workload_ask_for_it_again():
    workload = OpWorkload(dtype="fp16", d_k=2, causal=False, local_window=8, deterministic=True, codes="drift")
    words = ["--bidirectional", "--dtype", "fp16", "--d-k", "2", "--local-window", "8", "--codes", "drift"]
    assert workload.words() == [*words, "--deterministic"]
    assert OpWorkload(dtype="bf16").words() == ["--dtype", "bf16"]


# Inputs


@pytest.mark.parametrize("kind", DISTRIBUTIONS)
def test_coordinates_lie_in_their_range_and_are_the_same_at_every_call(kind):
    q, k = coordinates(kind, (2, 3, 200, 2), generator(CPU))
    for x in (q, k):
        assert (x.shape, x.dtype) == ((2, 3, 200, 2), torch.float32)
        assert float(x.abs().max()) <= 1
    assert torch.equal(q, coordinates(kind, (2, 3, 200, 2), generator(CPU))[0])
    assert torch.equal(q, k) == (kind == "equal")


def test_distributions_are_what_they_say():
    drawn = {kind: coordinates(kind, (1, 1, 2000, 1), generator(CPU))[0].flatten() for kind in DISTRIBUTIONS}
    assert len(drawn["equal"].unique()) == 1
    bins = {kind: len((x * 50).round().unique()) for kind, x in drawn.items()}
    assert bins["clusters"] <= 5 * CENTRES < bins["uniform"]
    line = torch.linspace(-1, 1, 2000)
    assert torch.corrcoef(torch.stack((drawn["drift"], line)))[0, 1] > 0.9
    q, k = coordinates("walk", (1, 1, 2000, 1), generator(CPU))
    assert (q - k).std() < 0.05
    assert q.std() > 0.3


# Contenders


def test_every_name_has_a_contender_a_look_and_a_backend():
    contenders = [make_core(name, SMALL) for name in OPS]
    assert [each.name for each in contenders] == list(OPS)
    assert set(CORES) | {"zeta", "zeta-dot"} == set(OPS)
    assert {each.name for each in contenders if each.rival} == set(BACKENDS)


def test_softmax_contenders_compute_the_same():
    outs = []
    for name in ("eager", "sdpa-math", "sdpa-flash"):
        contender = make_core(name, SMALL)
        with contender.context():
            if not contender.why_not(CPU, "both"):
                outs.append(contender.make(50, CPU).infer())
    assert len(outs) >= 2
    for out in outs[1:]:
        torch.testing.assert_close(out, outs[0])


@pytest.mark.parametrize("name", ["zeta", "zeta-dot", "eager", "sdpa-math"])
@pytest.mark.parametrize("causal", [True, False])
def test_every_mode_runs_and_gives_every_gradient(name, causal):
    contender = make_core(name, OpWorkload(dtype="fp32", heads=2, d_v=8, k=4, causal=causal, mean="prefix"))
    step = contender.make(20, CPU)
    assert step.work("forward").run().requires_grad is False
    out, *gradients = step.work("both").run()
    assert out.shape == (1, 2, 20, 8)
    assert [g.shape for g in gradients] == [x.shape for x in step.inputs]
    work = step.work("backward")
    for _ in range(2):
        work.before()
        again = work.run()
    for got, want in zip(again, gradients, strict=True):
        torch.testing.assert_close(got, want)


def test_a_module_is_timed_with_its_parameters_in_training_and_inference():
    contender = Module(ModuleWorkload(dtype="bf16", heads=2, d_v=8), find_variant("vanilla"))
    step = contender.make(12, CPU)
    assert step.inputs[0].shape == (1, 12, 16)
    assert len(step.inputs) == 3
    out, *gradients = step.work("both").run()
    assert out.dtype == torch.bfloat16
    assert all(g.dtype == torch.float32 for g in gradients)
    assert contender.rival
    assert not Module(ModuleWorkload(dtype="bf16"), find_variant("zeta:k=4")).rival


def test_a_backend_that_cannot_run_says_why():
    told = Sdpa(SMALL, "sdpa-cudnn").why_not(CPU, "both")
    assert told.startswith("torch cannot run this backend here: ")
    assert told.endswith(".")


@pytest.mark.parametrize("N", [1, 100, 128, 129, 500, 1000])
@pytest.mark.parametrize(("window", "causal"), [(1, True), (32, True), (129, True), (32, False), (400, False)])
def test_the_block_mask_is_torchs_own(N, window, causal):
    before, after = reach(window, causal)
    mask = window_mask(N, before, after, CPU)
    own = create_block_mask(mask.mask_mod, None, None, N, N, device="cpu")
    assert torch.equal(mask.to_dense(), own.to_dense())
    assert mask.seq_lengths == own.seq_lengths == (N, N)


def test_the_window_holds_as_many_keys_as_asked_for():
    for window, causal in itertools.product((1, 2, 7, 32), (True, False)):
        assert sum(reach(window, causal)) + 1 == window
    assert FlexWindow(SMALL).why_not(CPU, "backward").startswith("FlexAttention has no backward pass on a CPU")


def test_deterministic_switches_are_set_back():
    contender = Eager(OpWorkload(dtype="fp32", deterministic=True))
    with contender.context():
        assert torch.are_deterministic_algorithms_enabled()
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory


# Time


def test_a_timing_has_its_percentiles_and_its_compilation_apart(monkeypatch):
    calls = []

    def run():
        calls.append(len(calls))

    seconds = iter([5.0, 0.5, 0.25, 0.25])
    clock = Clock(budget=2.0)
    monkeypatch.setattr(clock, "_seconds", lambda work: next(seconds))
    monkeypatch.setattr(clock, "samples", lambda work, count: [float(i) for i in range(1, count + 1)])
    found = clock.time(Work(run))
    assert found.compile_seconds == pytest.approx(4.75)
    assert len(found.samples) == 8  # as many as fit into the budget
    assert found.figures == {"ms": 4.5, "ms_p20": pytest.approx(2.4), "ms_p80": pytest.approx(6.6)}


@pytest.mark.parametrize(("seconds", "count"), [(1e-9, timing.MOST), (100.0, timing.LEAST), (0.01, 50)])
def test_repetitions_fit_the_budget(seconds, count):
    assert Clock()._count(seconds) == count
    assert Clock(repeats=7)._count(seconds) == 7


def test_what_comes_before_is_not_timed():
    log = []
    samples = Clock().samples(Work(lambda: log.append("run"), lambda: log.append("before")), 3)
    assert log == ["before", "run"] * 3
    assert len(samples) == 3


def test_a_noisy_machine_is_flagged():
    assert not agreement([1.0, 1.1, 0.9], [1.02, 1.0, 1.3]).noisy
    found = agreement([1.0] * 5, [1.2] * 5)
    assert found.noisy
    assert found.difference == pytest.approx(0.2)


def test_the_check_times_one_thing_in_turns(monkeypatch):
    clock, drift = Clock(), itertools.count(1)
    monkeypatch.setattr(clock, "samples", lambda work, count: [float(next(drift))] * count)
    found = clock.compare(Work(lambda: None))
    assert (found.first, found.second) == (2.0, 3.0)  # blocks 1 and 3 against 2 and 4


class FakeGraph:
    """A graph whose replays repeat what was captured."""

    def replay(self):
        self.replays = getattr(self, "replays", 0) + 1


@pytest.fixture
def cuda(monkeypatch):
    """Stand-ins for what `CudaClock` calls; `log` is what was done."""
    log: list[str] = []
    state = SimpleNamespace(log=log, fails=None, waits=False, mode="default")

    @contextmanager
    def graph(graph, pool, stream):
        log.append("capture")
        yield
        if state.fails is not None:
            raise state.fails

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            log.append("event")

        def elapsed_time(self, other):
            return 2.0

    def set_mode(mode):
        state.mode = mode

    fakes = {
        "current_device": lambda: 0,
        "current_stream": lambda: None,
        "Stream": lambda: SimpleNamespace(wait_stream=lambda other: None),
        "stream": lambda stream: nullcontext(),
        "get_device_properties": lambda device: SimpleNamespace(L2_cache_size=4),
        "synchronize": lambda: log.append("wait"),
        "empty_cache": lambda: None,
        "Event": Event,
        "graph": graph,
        "CUDAGraph": FakeGraph,
        "graph_pool_handle": lambda: (0, 1),
        "set_sync_debug_mode": set_mode,
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *shape, device=None, **more: empty(*shape, **more))
    return state


def test_a_graph_is_captured_and_its_replays_are_timed(cuda):
    clock = CudaClock(repeats=4)
    with clock.session():
        found = clock.time(Work(lambda: cuda.log.append("run"), lambda: cuda.log.append("before")))
    assert (found.graph, found.note, found.samples) == (True, "", (2.0,) * 4)
    assert cuda.log.count("capture") == 2  # what comes before has a graph of its own
    after = cuda.log[cuda.log.index("capture") :]
    assert (after.count("run"), after.count("before")) == (1, 1), "nothing runs after the capture but replays"
    assert after.count("event") == 8
    assert cuda.mode == "default"


def test_without_a_graph_the_work_itself_is_timed(cuda):
    clock = CudaClock(repeats=2, graph=False)
    found = clock.time(Work(lambda: cuda.log.append("run")))
    assert (found.graph, len(found.samples)) == (False, 2)
    assert cuda.log[-7:] == ["event", "run", "event"] * 2 + ["wait"]
    assert "capture" not in cuda.log


def test_work_that_waits_for_the_gpu_is_timed_without_a_graph(cuda):
    def run():
        if cuda.mode == "error":
            raise RuntimeError("called a synchronizing CUDA operation")

    found = CudaClock(repeats=2).time(Work(run))
    assert (found.graph, found.note) == (False, "timed without a CUDA graph: it makes the CPU wait for the GPU")
    assert "capture" not in cuda.log
    assert cuda.mode == "default"


def test_a_capture_that_breaks_is_told_and_out_of_memory_is_not_hidden(cuda):
    cuda.fails = RuntimeError("operation not permitted when stream is capturing\nmore")
    clock = CudaClock(repeats=2)
    found = clock.time(Work(lambda: None))
    assert not found.graph
    assert found.note == "timed without a CUDA graph: operation not permitted when stream is capturing"
    assert len(clock._broken) == 1
    cuda.fails = torch.OutOfMemoryError("no")
    with pytest.raises(torch.OutOfMemoryError):
        clock.time(Work(lambda: None))


# Memory


def peaks(contender, mode, lengths=(128, 256, 512, 1024)):
    with contender.context():
        return {n: peak_bytes(partial(contender.make, n, CPU), mode, CPU) for n in lengths}


@pytest.mark.parametrize("mode", ["forward", "both"])
def test_the_matrix_of_eager_grows_quadratically_and_flash_linearly(mode):
    assert fitted_exponent(peaks(Eager(SMALL), mode)) == pytest.approx(2.0, abs=0.1)
    flash = Sdpa(SMALL, "sdpa-flash")
    if reason := flash.why_not(CPU, mode):
        pytest.skip(reason)
    assert fitted_exponent(peaks(flash, mode)) == pytest.approx(1.0, abs=0.05)


def test_live_bytes_by_hand():
    with LiveBytes() as live:
        a = torch.zeros(100)  # 400 bytes
        view = a[:50]
        b = a + 1
        assert (live.now, live.peak) == (800, 800)
        del a
        assert live.now == 800, "a view keeps it alive"
        del view
        assert live.now == 400
        del b
    assert (live.now, live.peak) == (0, 800)


def test_inputs_and_gradients_are_counted():
    w = OpWorkload(dtype="fp32", heads=1, d_v=16)
    n = 64 * 16 * 4
    flash = Sdpa(w, "sdpa-flash")
    if reason := flash.why_not(CPU, "both"):
        pytest.skip(reason)
    found = peaks(flash, "both", (64,))[64]
    assert 8 * n <= found <= 9 * n  # q, k, v, out, its gradient and three more


# A bench


def bench(task="speed", modes=MODES, **settings):
    return Bench(task, SMALL, modes, QUICK, **settings)


def failing(error):
    class Fails(Eager):
        def make(self, length, device):
            def forward():
                raise error

            return Step(forward, ())

    return Fails(SMALL)


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "oom", "out of memory on the CPU"),
        (MemoryError(), "oom", "out of memory on the CPU"),
        (RuntimeError("[enforce] DefaultCPUAllocator: can't allocate memory"), "oom", "out of memory on the CPU"),
        (Unsupported("it has no such form."), "unsupported", "it has no such form."),
        (NotImplementedError("no kernel"), "unsupported", "no kernel"),
        (RuntimeError("boom\nmore"), "failed", "RuntimeError: boom"),
    ],
)
def test_whatever_a_contender_raises_is_a_row(error, status, reason):
    record = bench().measure(failing(error), 16)
    assert (record.status, record.reason, record.metrics) == (status, reason, {})
    assert {told["status"] for told in record.payload["modes"].values()} == {status}


def test_one_mode_may_fail_and_the_rest_stay():
    class Half(Eager):
        def bind(self, q, k, v):
            def forward():
                if torch.is_grad_enabled():
                    raise torch.OutOfMemoryError
                return v

            return forward

    record = bench().measure(Half(SMALL), 16)
    assert record.status == "oom"
    assert record.reason == "backward, both: out of memory on the CPU"
    assert list(record.metrics) == ["forward"]


def test_longer_inputs_than_one_that_ran_out_of_memory_are_not_tried():
    here = bench(modes=("both",))
    contender = failing(torch.OutOfMemoryError("no"))
    assert here.measure(contender, 64).reason == "out of memory on the CPU"
    told = here.measure(contender, 128).reason
    assert told == "not tried: larger than a length that ran out of memory (64)"
    assert here.measure(contender, 32).reason == "out of memory on the CPU", "a shorter one is"
    other = bench(modes=("both",))
    other.remember(here.measure(contender, 64))
    assert other.measure(contender, 128).reason.startswith("not tried")


def test_a_record_says_how_it_was_measured():
    record = bench().measure(make_core("eager", SMALL), 32)
    assert (record.kind, record.task, record.status) == ("bench", "speed", "ok")
    assert record.protocol == SMALL.id
    assert record.point == {"length": 32, "graph": False}
    assert set(record.metrics) == set(MODES)
    for figures in record.metrics.values():
        assert 0 < figures["ms_p20"] <= figures["ms"] <= figures["ms_p80"]
    assert record.payload["modes"]["both"]["repeats"] == 3
    assert record.payload["workload"] == SMALL.content
    assert (record.direction, record.precision, record.impl) == ("causal", "fp32", "torch")
    weighed = bench("memory", ("forward", "both")).measure(make_core("eager", SMALL), 32)
    assert weighed.peak_memory_bytes == weighed.metrics["both"]["peak_bytes"] > 0
    assert weighed.run_id != record.run_id


def test_stages_are_timed_beside_the_whole(monkeypatch):
    seen = {}

    def stages(q, k, v, gamma, **options):
        seen.update(options, shape=tuple(q.shape))
        return [("encode", lambda: q.sum()), ("search", lambda: k.sum())]

    monkeypatch.setitem(sys.modules, "zeta_bench.ops.stages", SimpleNamespace(stages=stages))
    here = bench(modes=("forward",), breakdown=True)
    record = here.measure(Zeta(SMALL), 32)
    assert list(record.payload["breakdown"]) == ["encode", "search"]
    assert record.payload["breakdown"]["encode"]["ms"] > 0
    assert (seen["topk"], seen["shape"]) == (4, (1, 2, 32, 3))
    assert not here.wants(Zeta(SMALL), 32, record)
    assert "breakdown" not in here.measure(Eager(SMALL), 32).payload


def test_a_record_is_wanted_until_it_has_every_mode():
    forward, both = bench(modes=("forward",)), bench(modes=("both",))
    contender = Eager(SMALL)
    old = forward.measure(contender, 16)
    assert not forward.wants(contender, 16, old)
    assert both.wants(contender, 16, old)
    assert set(both.measure(contender, 16, old).metrics) == {"forward", "both"}


def test_an_implementation_that_cannot_run_is_unsupported(monkeypatch):
    monkeypatch.setattr("zeta_bench.ops._impl.INTERPRETING", False)
    record = bench(modes=("forward",)).measure(Zeta(SMALL, "triton"), 16)
    assert (record.status, record.impl, record.settings) == ("unsupported", "", {"impl": "triton"})
    assert "impl='triton' cannot run here" in record.reason


def test_a_variant_without_the_direction_is_unsupported():
    choice = Choice("noisy", Variant("toys:Noisy", "toy"))
    contender = Module(ModuleWorkload(dtype="fp32", heads=1, d_v=8, causal=False), choice)
    contender.choice.variant.load().bidirectional_ok = False
    try:
        record = Bench("speed", contender.workload, ("both",), QUICK).measure(contender, 16)
    finally:
        del contender.choice.variant.load().bidirectional_ok
    assert record.status == "unsupported"
    assert "causal only" in record.reason


def test_only_memory_errors_are_out_of_memory():
    assert not out_of_memory(RuntimeError("shape mismatch"))


# Exponents


@pytest.mark.parametrize("power", [0.0, 1.0, 1.5, 2.0])
def test_the_exponent_of_a_power_law_is_found(power):
    assert fitted_exponent({n: 3.0 * n**power for n in (64, 128, 256, 1024)}) == pytest.approx(power)


def test_the_exponent_is_that_of_the_larger_half():
    values = {2**i: 100.0 if i < 14 else 100.0 * 2.0 ** (2 * (i - 14)) for i in range(10, 20)}
    assert fitted_exponent(values) == pytest.approx(2.0, abs=0.25)
    assert fitted_exponent({n: float(max(n, 512)) for n in (128, 256, 512, 1024, 2048, 4096)}) == pytest.approx(1.0)
    assert fitted_exponent({64: 1.0, 128: 1.0, 256: 2.0}) == pytest.approx(1.0)
    assert fitted_exponent({64: 1.0}) is None
    assert fitted_exponent({}) is None
