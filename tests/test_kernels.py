"""The Triton kernels against the reference and its float64 bounds: interpreted on a CPU, compiled on a GPU."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from bounds import coordinates, excess, make
from hypothesis import given, settings
from hypothesis import strategies as st

from zeta_bench.ops import library, library_topk, morton_encode, topk_attention, zeta_attention, zorder_search
from zeta_bench.ops.attention import GAMMA_FLOOR
from zeta_bench.ops.morton import default_bits

pytest.importorskip("triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

CASES = {
    "plain": {},
    "one-token": {"N": 1},
    "one-key-a-query": {"topk": 1, "N": 33},
    "k-beyond-the-keys": {"topk": 100, "B": 2},
    "chunks": {"chunk": 16, "mean": "prefix", "N": 70},
    "uneven-chunks": {"chunk": 7, "N": 45, "offset": 3},
    "bidirectional": {"causal": False, "mean": "all", "pad": True, "B": 2},
    "padding": {"pad": True, "B": 2, "mean": "prefix", "N": 100},
    "cache": {"N": 5, "S": 90, "offset": 85, "mean": "prefix"},
    "queries-before-the-keys": {"N": 30, "S": 20, "offset": -4, "mean": "prefix", "pad": True},
    "queries-beyond-the-keys": {"N": 30, "S": 20, "offset": 15, "mean": "prefix"},
    "window": {"local_window": 6, "chunk": 16},
    "window-padding-mean": {"local_window": 6, "mean": "prefix", "pad": True, "B": 2},
    "window-bidirectional": {"local_window": 5, "mean": "all", "causal": False, "pad": True},
    "grouped-values": {"H": 4, "Hv": 2, "mean": "prefix", "dtype": torch.bfloat16},
    "bf16": {"dtype": torch.bfloat16, "N": 64},
    "fp16-odd-width": {"dtype": torch.float16, "dv": 24, "mean": "prefix"},
    "narrow-values": {"dv": 3},
    "wide-values": {"dv": 80, "N": 20},
    "one-coordinate": {"d": 1},
    "eight-coordinates": {"d": 8, "dtype": torch.bfloat16},
    "wide-codes": {"bits": 21},
    "ties": {"kind": "ties", "mean": "prefix"},
    "equal": {"kind": "equal", "N": 128, "topk": 4},
    "drift": {"kind": "drift", "N": 128},
    "reverse": {"kind": "reverse", "N": 100, "chunk": 4},
    "content": {"content": 16},
    "content-narrow-one-token": {"content": 5, "N": 1},
    "content-k-beyond-the-keys": {"content": 8, "topk": 100, "B": 2},
    "content-chunks": {"content": 20, "chunk": 16, "N": 70},
    "content-bidirectional": {"content": 16, "causal": False, "pad": True, "B": 2},
    "content-cache": {"content": 16, "N": 5, "S": 90, "offset": 85},
    "content-before-the-keys": {"content": 16, "N": 30, "S": 20, "offset": -4, "pad": True},
    "content-grouped-bf16": {"content": 32, "H": 4, "Hv": 2, "dtype": torch.bfloat16},
    "content-fp16-wider-than-values": {"content": 40, "dv": 24, "dtype": torch.float16},
    "content-large": {"content": 16, "size": 60.0},
    "content-ties": {"content": 16, "kind": "ties"},
    "content-drift": {"content": 16, "kind": "drift", "N": 128},
    "content-window": {"content": 16, "local_window": 6, "chunk": 16, "B": 2},
    "content-window-padding": {"content": 16, "local_window": 6, "pad": True, "B": 2, "dtype": torch.bfloat16},
    "content-window-bidirectional": {"content": 16, "local_window": 5, "causal": False, "pad": True},
    "content-window-cache": {"content": 16, "local_window": 7, "N": 5, "S": 90, "offset": 85},
}


def attend(case, q, k, v, gamma, a=None, b=None, impl="triton", **more):
    content = None if a is None else (a, b)
    return zeta_attention(q, k, v, gamma, content=content, valid=case.valid, impl=impl, **case.settings, **more)


def run(case, impl="triton", **more):
    inputs = case.inputs()
    out = attend(case, *inputs, impl=impl, **more)
    return out.detach(), *torch.autograd.grad(out, inputs, case.do)


def assert_close(case, outputs):
    ratios = excess(case, outputs)
    assert max(ratios.values()) <= 1, f"error ÷ derived bound: {ratios}"


@pytest.mark.parametrize("name", CASES)
def test_fused_attention_within_its_derived_bound(name):
    case = make(DEVICE, **CASES[name])
    assert_close(case, run(case))


@pytest.mark.parametrize("name", ["plain", "ties", "padding", "content", "content-chunks"])
def test_the_reference_keeps_the_same_bound(name):
    """The bound is of the arithmetic, not of the kernels; and it is one that a wrong answer breaks."""
    case = make(DEVICE, **CASES[name])
    outputs = run(case, "reference")
    assert_close(case, outputs)
    for n in range(len(outputs)):
        wrong = [t * 1.02 if n == m else t for m, t in enumerate(outputs)]
        assert max(excess(case, wrong).values()) > 1


@pytest.mark.parametrize("kind", ["drift", "equal", "reverse"])
@pytest.mark.parametrize("room", [512, 0])
def test_spread_windows(kind, room, monkeypatch):
    """Tiles that write their entries out, and tiles that have no room for them, give what a run of a list gives."""
    from zeta_bench.ops import tiles_triton

    monkeypatch.setattr(tiles_triton, "SHORT", 0)
    monkeypatch.setattr(tiles_triton, "ROOM", room)
    for beside in ({"mean": "prefix", "local_window": 3}, {"content": 8, "local_window": 3}):
        case = make(DEVICE, kind=kind, N=100, chunk=4, pad=True, **beside)
        assert_close(case, run(case))


@pytest.mark.parametrize("name", ["plain", "grouped-values", "window-padding-mean", "bidirectional", "fp16-odd-width"])
def test_attention_over_an_index_within_its_derived_bound(name):
    case = make(DEVICE, **CASES[name])
    inputs = case.inputs()
    how = {"mean": case.settings["mean"], "valid": case.valid, "offset": case.settings["offset"]}
    out = topk_attention(inputs[0], *inputs[1:3], case.index, inputs[3], impl="triton", **how)
    assert_close(case, (out.detach(), *torch.autograd.grad(out, inputs, case.do)))


@pytest.mark.parametrize("name", CASES)
def test_search_equals_the_reference(name):
    case = make(DEVICE, **{**CASES[name], "local_window": 0})
    codes = [morton_encode(x, bits=case.settings["bits"], impl="reference") for x in (case.q, case.k)]
    how = {key: case.settings[key] for key in ("causal", "chunk", "offset")} | {"valid": case.valid}
    found = zorder_search(*codes, k=case.settings["topk"], impl="triton", **how)
    assert torch.equal(found, case.index)


@pytest.mark.parametrize(("d", "bits"), [(3, 10), (1, 31), (1, 63), (2, 10), (8, 3), (3, 21), (8, 7), (5, 1)])
def test_codes_equal_the_reference_bit_for_bit(d, bits):
    x = torch.randn(300, d, device=DEVICE)
    x[:5, 0] = torch.tensor([float("nan"), float("inf"), -float("inf"), 1.0, -1.0])
    for low, high in ((-1.0, 1.0), (-2.3, 4.1)):
        codes = morton_encode(x, bits=bits, low=low, high=high, impl="triton")
        expected = morton_encode(x, bits=bits, low=low, high=high, impl="reference")
        assert codes.dtype == expected.dtype
        assert torch.equal(codes, expected)


@pytest.mark.parametrize(
    "name", ["plain", "window-padding-mean", "grouped-values", "content", "content-window-padding"]
)
def test_deterministic_gradients_keep_the_bound_and_repeat_bit_for_bit(name):
    case = make(DEVICE, **CASES[name])
    first, second = (run(case, deterministic=True) for _ in range(2))
    assert_close(case, first)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast:RuntimeWarning")  # NaN to int64: the point
def test_deterministic_gradients_do_not_hide_what_is_not_finite():
    case = make(DEVICE, N=20)
    case.do[0, 0, 3, 2] = float("nan")
    assert not run(case, deterministic=True)[3].isfinite().all()


def test_heads_of_a_larger_tensor_need_no_copy():
    """Values and gradients as a module has them, [B, N, H · dv] seen as [B, H, N, dv]."""
    case = make(DEVICE, B=2, N=30)
    expected = run(case)
    case.v, case.do = (t.transpose(1, 2).contiguous().transpose(1, 2) for t in (case.v, case.do))
    assert not case.v.is_contiguous()
    for got, want in zip(run(case), expected, strict=True):
        assert torch.allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:Input #. requires gradient and is not a double:UserWarning")  # eps says why
@pytest.mark.parametrize("beside", [{"mean": "prefix"}, {"content": 4, "size": 0.5}])
def test_gradients_by_finite_differences(beside):
    """With k ≥ N nothing is left to select, so the function is smooth and fp32 differences of 1e-2 mean something."""
    case = make(DEVICE, N=6, H=1, topk=8, dv=3, **beside)
    case.gamma = case.gamma + 0.3
    inputs = case.inputs()
    assert torch.autograd.gradcheck(
        lambda *t: attend(case, *t),
        inputs, eps=1e-2, atol=2e-2, rtol=2e-2, nondet_tol=1e-4, check_undefined_grad=False,
    )  # fmt: skip


@pytest.fixture
def filled():
    """Memory that an operator leaves unwritten reads the same in every run: opcheck compares all outputs."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("name", ["plain", "window-padding-mean", "bidirectional", "content"])
def test_operators_are_what_torch_expects(name, filled):
    case = make(DEVICE, **CASES[name])
    o = case.settings
    mean = [None, "prefix", "all"].index(o["mean"])
    options = (o["topk"], o["causal"], o["chunk"], default_bits(3), mean, o["local_window"], o["offset"], False)
    q, k, v, gamma, *content = case.inputs()
    torch.library.opcheck(library.zeta, (q, k, v, gamma, case.valid, *(content or (None, None)), *options))
    torch.library.opcheck(library_topk.topk, (q, k, v, case.index, gamma, case.valid, mean, o["offset"]))


@pytest.mark.parametrize("beside", [{"mean": "prefix"}, {"content": 8}])
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_as_one_graph(dynamic, beside):
    case = make(DEVICE, N=40, **beside)
    backend = "inductor" if DEVICE == "cuda" else "aot_eager"

    @torch.compile(fullgraph=True, backend=backend, dynamic=dynamic)
    def compiled(q, k, v, *others):
        return attend(case, q, k, v * 2, *others) / 2

    inputs = case.inputs()
    out = compiled(*inputs)
    assert_close(case, (out.detach(), *torch.autograd.grad(out, inputs, case.do)))


@pytest.mark.parametrize("content", [0, 8])
def test_autocast_keeps_coordinates_in_fp32(content):
    case = make(DEVICE, N=50, dtype=torch.bfloat16, content=content)
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        outputs = run(case)
    assert outputs[0].dtype == torch.bfloat16
    assert_close(case, outputs)


@pytest.mark.parametrize("content", [0, 8])
def test_activation_checkpointing_gives_the_same_gradients(content):
    case = make(DEVICE, N=50, content=content)
    inputs = case.inputs()
    out = torch.utils.checkpoint.checkpoint(lambda *t: attend(case, *t), *inputs, use_reentrant=False)
    assert_close(case, (out.detach(), *torch.autograd.grad(out, inputs, case.do)))


def test_a_second_derivative_is_refused():
    case = make(DEVICE, N=10)
    inputs = case.inputs()
    out = zeta_attention(*inputs, impl="triton", **case.settings)
    grads = torch.autograd.grad(out, inputs, case.do, create_graph=True)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(grads[0].sum(), inputs)


def test_one_gamma_floor():
    from zeta_bench.ops import weights_triton

    assert weights_triton.GAMMA_FLOOR.value == GAMMA_FLOOR
    case = make(DEVICE, N=20)
    case.gamma = torch.tensor([0.0, GAMMA_FLOOR / 2], device=DEVICE)
    outputs = run(case)
    assert_close(case, outputs)
    assert torch.equal(outputs[4], torch.zeros_like(outputs[4]))


def widened(t, width):
    return t[..., :1].expand(-1, -1, -1, width)


WIDE = (torch.ones(1, 2, 8, 1, device=DEVICE), torch.ones(1, 2, 8, 1, device=DEVICE))

MISUSE = {
    "float64": ({"q": lambda t: t.double()}, {}, "float64"),
    "nine coordinates": ({"q": lambda t: widened(t, 9), "k": lambda t: widened(t, 9)}, {}, "d=9"),
    "wide values": ({"v": lambda t: widened(t, 300)}, {}, "dv=300"),
    "codes": ({}, {"bits": 30}, "63 bits"),
    "content and a mean token": ({}, {"content": WIDE, "mean": "prefix"}, "where there is no mean token"),
    "float64 content": ({}, {"content": tuple(t.double() for t in WIDE)}, "content is float64"),
    "wide content": ({}, {"content": tuple(t.expand(-1, -1, -1, 300) for t in WIDE)}, "c=300"),
}


@pytest.mark.parametrize("name", MISUSE)
def test_an_explicit_choice_says_what_the_kernels_cannot_do(name):
    change, more, word = MISUSE[name]
    case = make(DEVICE, N=8)
    tensors = {key: change.get(key, lambda t: t)(getattr(case, key)) for key in ("q", "k", "v", "gamma")}
    with pytest.raises(ValueError, match=word):
        zeta_attention(**tensors, impl="triton", **{**case.settings, **more})
    assert zeta_attention(**tensors, **{**case.settings, **more}).isfinite().all()  # auto takes the reference


def test_other_scores_are_the_references():
    case = make(DEVICE, N=8)
    with pytest.raises(ValueError, match="cauchy"):
        topk_attention(case.q, case.k, case.v, case.index, case.gamma, score="dot", impl="triton")


def test_no_gpu_and_no_interpreter_is_said():
    code = (
        "import torch\nfrom zeta_bench.ops import morton_encode\n"
        "try: morton_encode(torch.zeros(2, 3), impl='triton')\nexcept ValueError as error: print(error)"
    )
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    answer = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "the tensors are on cpu and the kernels need a GPU" in answer.stdout


def test_a_place_outside_the_keys_counts_as_none():
    case = make(DEVICE, N=20)
    wild = case.index.clone()
    wild[..., 0] = 10**6
    none = case.index.clone()
    none[..., 0] = -1
    got, want = (topk_attention(case.q, case.k, case.v, index, case.gamma, impl="triton") for index in (wild, none))
    assert torch.equal(got, want)


@pytest.mark.slow
@pytest.mark.parametrize("capability", ["80", "90"])
def test_every_kernel_compiles_for_a_gpu_that_is_not_there(capability, tmp_path):
    """The interpreter takes what the compiler refuses: types, loops, shapes."""
    script = Path(__file__).with_name("compile_kernels.py")
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    answer = subprocess.run(
        [sys.executable, script, capability],
        env={**environment, "TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 0, answer.stderr[-2000:]
    kernels = set(answer.stdout.split())
    wanted = {"_encode", "_write", "_intervals", "_plan", "tile_forward", "tile_backward", "_finish"}
    assert wanted | {"content_forward", "content_backward"} <= kernels


@pytest.mark.gpu
@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10**6), st.integers(1, 3000), st.sampled_from(["uniform", "ties", "equal", "drift", "reverse"]),
    st.sampled_from([torch.float32, torch.bfloat16]), st.sampled_from([1, 3]),
    st.sampled_from([16, 80]), st.integers(1, 128), st.sampled_from([1, 1, 16, 64, 100]), st.booleans(), st.booleans(),
    st.sampled_from([None, "prefix", "all"]), st.sampled_from([0, 0, 7, 32]), st.integers(-5, 40),
    st.sampled_from([0, 0, 16, 64]),
)  # fmt: skip
def test_any_shape_on_a_gpu(seed, N, kind, dtype, d, dv, topk, chunk, causal, pad, mean, window, offset, content):
    mean = None if content else mean
    case = make(
        "cuda", seed, N=N, kind=kind, dtype=dtype, d=d, dv=dv, topk=topk, chunk=chunk, causal=causal, pad=pad,
        mean=mean, local_window=window, offset=offset, H=2, Hv=1 + seed % 2, content=content,
    )  # fmt: skip
    assert_close(case, run(case))
    codes = [morton_encode(x, impl="triton") for x in (case.q, case.k)]
    how = {"causal": causal, "chunk": chunk, "offset": offset, "valid": case.valid}
    found = zorder_search(*codes, k=topk, impl="triton", **how)
    assert torch.equal(found, case.index[..., : found.shape[-1]]) or window


@pytest.mark.gpu
def test_cuda_graphs():
    case = make("cuda", N=500, mean="prefix", local_window=8, dtype=torch.bfloat16)
    inputs = case.inputs()

    def step():
        out = zeta_attention(*inputs, impl="triton", **case.settings)
        return out, *torch.autograd.grad(out, inputs, case.do)

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = step()
    other = make("cuda", N=500, mean="prefix", local_window=8, dtype=torch.bfloat16, seed=1)
    with torch.no_grad():
        for old, new in zip(inputs, (other.q, other.k, other.v, other.gamma), strict=True):
            old.copy_(new)
        case.do.copy_(other.do)
    graph.replay()
    assert_close(other, [t.detach() for t in outputs])


@pytest.mark.gpu
def test_nothing_waits_for_the_device():
    case = make("cuda", N=300, mean="prefix", local_window=8, pad=True)
    run(case)
    torch.cuda.set_sync_debug_mode("error")
    try:
        run(case)
        run(case, deterministic=True)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
def test_memory_grows_no_faster_than_the_length():
    peaks = []
    for N in (16384, 32768):
        case_q = coordinates("uniform", 1, 2, N, 3, torch.Generator().manual_seed(0)).cuda()
        v = torch.randn(1, 2, N, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        zeta_attention(case_q, case_q.clone(), v, torch.tensor([0.3, 0.5], device="cuda")).sum().backward()
        peaks.append(torch.cuda.max_memory_allocated() - before)
        del case_q, v
    assert peaks[1] <= 2.1 * peaks[0]


@pytest.mark.gpu
@pytest.mark.parametrize("kinds", list(itertools.combinations(["uniform", "drift", "equal"], 2)))
def test_long_sequences_equal_their_prefix(kinds):
    """At 20,000 tokens, where no dense reference fits: what a prefix gives alone is what the whole gives there."""
    for kind in kinds:
        case = make("cuda", N=2000, kind=kind, dtype=torch.bfloat16)
        generator = torch.Generator().manual_seed(5)
        more = coordinates(kind, 1, 2, 18000, 3, generator).cuda()
        q, k = (torch.cat((t, more), 2) for t in (case.q, case.k))
        v = torch.cat((case.v, torch.randn(1, 2, 18000, 16, device="cuda").to(case.v.dtype)), 2)
        whole = zeta_attention(q, k, v, case.gamma, impl="triton", **case.settings)[:, :, :2000]
        ratios = excess(case, (whole, *run(case)[1:]))
        assert max(ratios.values()) <= 1, ratios
