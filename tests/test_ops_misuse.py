"""What `zeta_bench.ops` cannot take: one ValueError that names the argument and its shape, dtype, device or value."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from bounds import make

from zeta_bench.ops import exact_search, morton_encode, set_debug, topk_attention, zeta_attention, zorder_search
from zeta_bench.ops._impl import HAS_TRITON

B, H, N, S, D, W, K = 2, 4, 5, 7, 3, 6, 4
IMPLS = ["reference", pytest.param("triton", marks=pytest.mark.skipif(not HAS_TRITON, reason="needs triton"))]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def arguments(function):
    """A call of the function that works."""
    q, k = torch.zeros(B, H, N, D, device=DEVICE), torch.zeros(B, H, S, D, device=DEVICE)
    codes = {"q_codes": q[..., 0].int(), "k_codes": k[..., 0].int()}
    attention = {"q": q, "k": k, "v": torch.zeros(B, 2, S, W, device=DEVICE), "gamma": torch.ones(H, device=DEVICE)}
    return {
        morton_encode: {"x": q},
        zorder_search: {**codes, "k": K},
        exact_search: {"q": q, "k": k, "topk": K},
        topk_attention: {**attention, "index": torch.zeros(B, H, N, K, dtype=torch.int32, device=DEVICE)},
        zeta_attention: {**attention, "topk": K},
    }[function]


def zeros(*shape, dtype=torch.float32):
    return lambda _: torch.zeros(*shape, dtype=dtype, device=DEVICE)


def meta(t):
    return t.to("meta")


def bool_on(device, *shape):
    return lambda _: torch.ones(*shape, dtype=torch.bool, device=device)


# What is changed: name of the argument, its new value (a function makes it of the one that works), and what the
# message has to hold, each of them.
TOKENS = [
    ("chunk", 0, ["chunk", "0"]),
    ("chunk", -3, ["chunk", "-3"]),
    ("valid", zeros(B, S), ["valid", "torch.float32", f"({B}, {S})"]),
    ("valid", zeros(B, S, dtype=torch.uint8), ["valid", "torch.uint8"]),
    ("valid", bool_on(DEVICE, B, N), ["valid", f"({B}, {S})", f"({B}, {N})"]),
    ("valid", bool_on(DEVICE, S), ["valid", f"({S},)"]),
    ("valid", bool_on(DEVICE, B, H, S), ["valid", f"({B}, {H}, {S})"]),
    ("valid", bool_on("meta", B, S), ["valid on meta", f"on {DEVICE}"]),
]
POINTS = [
    ("q", zeros(B, H, N), ["q [B, H, N, d]", f"({B}, {H}, {N})"]),
    ("q", zeros(()), ["q [B, H, N, d]", "()"]),
    ("k", zeros(B, H, S), ["k [B, H, S, d]", f"({B}, {H}, {S})"]),
    ("k", zeros(B, H, S, D + 1), ["k [B, H, S, d]", f"({B}, {H}, {S}, {D + 1})"]),
    ("k", zeros(B, H + 1, S, D), ["k [B, H, S, d]", f"({B}, {H + 1}, {S}, {D})"]),
    ("k", zeros(B + 1, H, S, D), ["k [B, H, S, d]", f"({B + 1}, {H}, {S}, {D})"]),
    ("q", zeros(B, H, N, D, dtype=torch.int64), ["q", "floating", "torch.int64", f"({B}, {H}, {N}, {D})"]),
    ("k", zeros(B, H, S, D, dtype=torch.complex64), ["k", "floating", "torch.complex64"]),
    ("q", meta, ["q on meta", f"k on {DEVICE}"]),
    ("k", meta, ["k on meta", f"q on {DEVICE}"]),
]
ATTENTION = [
    *POINTS,
    *TOKENS[2:],
    ("v", zeros(B, S, W), ["v", "[B, Hv, S, dv]", f"({B}, {S}, {W})"]),
    ("v", zeros(B, 3, S, W), ["v", "Hv", f"({B}, 3, {S}, {W})"]),
    ("v", zeros(B, 0, S, W), ["v", "Hv", f"({B}, 0, {S}, {W})"]),
    ("v", zeros(B, H, N, W), ["v", f"({B}, {H}, {N}, {W})", f"({B}, {H}, {S}, {D})"]),
    ("v", zeros(B + 1, H, S, W), ["v", f"({B + 1}, {H}, {S}, {W})"]),
    ("v", zeros(B, H, S, W, dtype=torch.int32), ["v", "floating", "torch.int32", f"({B}, {H}, {S}, {W})"]),
    ("v", meta, ["v on meta", f"q on {DEVICE}"]),
    ("gamma", zeros(()), ["gamma", f"[{H}]", "()"]),
    ("gamma", zeros(1), ["gamma", f"[{H}]", "(1,)"]),
    ("gamma", zeros(H, 1), ["gamma", f"[{H}]", f"({H}, 1)"]),
    ("gamma", zeros(H, dtype=torch.int64), ["gamma", "floating", "torch.int64"]),
    ("gamma", meta, ["gamma on meta", f"q on {DEVICE}"]),
    ("mean", "suffix", ["mean", "'suffix'", "prefix"]),
    ("mean", True, ["mean", "True"]),
]
IMPL = [("impl", "cuda", ["impl", "'cuda'", "reference"]), ("impl", None, ["impl", "None"])]
BITS = [("bits", 0, ["bits", "0"]), ("bits", -1, ["bits", "-1"]), ("bits", 64, ["bits", "64"])]
WRONG = {
    morton_encode: [
        *IMPL,
        *BITS,
        ("x", zeros(()), ["x", "()"]),
        ("x", zeros(5, 0), ["x", "(5, 0)"]),
        ("x", zeros(5, 3, dtype=torch.int64), ["x", "floating", "torch.int64", "(5, 3)"]),
        ("x", zeros(5, 64), ["bits=1", "d=64", "(5, 64)", "64 bits"]),
        ("bits", 22, ["bits=22", f"d={D}", f"({B}, {H}, {N}, {D})", "66 bits"]),
        ("low", 1.0, ["low", "1.0"]),
        ("high", -2.0, ["high", "-2.0"]),
        ("low", float("nan"), ["low", "nan"]),
        ("high", float("inf"), ["high", "inf"]),
    ],
    zorder_search: [
        *IMPL,
        *TOKENS,
        ("k", 0, ["k must", "0"]),
        ("k", -1, ["k must", "-1"]),
        ("q_codes", zeros(H, N, dtype=torch.int32), ["q_codes", f"({H}, {N})"]),
        ("k_codes", zeros(B, H, S, 1, dtype=torch.int32), ["k_codes", f"({B}, {H}, {S}, 1)"]),
        ("k_codes", zeros(B, 1, S, dtype=torch.int32), ["k_codes", f"({B}, 1, {S})"]),
        ("q_codes", zeros(B, H, N), ["q_codes", "integers", "torch.float32"]),
        ("k_codes", zeros(B, H, S, dtype=torch.bool), ["k_codes", "integers", "torch.bool"]),
        ("q_codes", meta, ["q_codes on meta", f"k_codes on {DEVICE}"]),
    ],
    exact_search: [*TOKENS, *POINTS, ("topk", 0, ["topk", "0"])],
    topk_attention: [
        *IMPL,
        *ATTENTION,
        ("score", "softmax", ["score", "'softmax'", "cauchy"]),
        ("index", zeros(B, H, N, K), ["index", "torch.float32", f"({B}, {H}, {N}, {K})"]),
        ("index", zeros(B, H, N, K, dtype=torch.bool), ["index", "torch.bool"]),
        ("index", zeros(B, H, N, K, dtype=torch.int8), ["index", "torch.int8"]),
        ("index", zeros(B, H, N, dtype=torch.int32), ["index", f"({B}, {H}, {N})"]),
        ("index", zeros(B, H, S, K, dtype=torch.int32), ["index", f"({B}, {H}, {S}, {K})", f"({B}, {H}, {N}, {D})"]),
        ("index", zeros(B, 1, N, K, dtype=torch.int32), ["index", f"({B}, 1, {N}, {K})"]),
        ("index", meta, ["index on meta", f"q on {DEVICE}"]),
    ],
    zeta_attention: [
        *IMPL,
        *TOKENS[:2],
        *ATTENTION,
        *BITS,
        ("topk", 0, ["topk", "0"]),
        ("topk", -2, ["topk", "-2"]),
        ("local_window", -1, ["local_window", "-1"]),
    ],
}


@pytest.mark.parametrize("function", WRONG, ids=lambda f: f.__name__)
def test_the_arguments_that_the_others_start_from_work(function):
    function(**arguments(function))


@pytest.mark.parametrize(
    ("function", "name", "value", "words"),
    [
        pytest.param(function, *case, id=f"{function.__name__}-{case[0]}-{n}")
        for function, cases in WRONG.items()
        for n, case in enumerate(cases)
    ],
)
def test_misuse_is_named(function, name, value, words):
    call = arguments(function)
    call[name] = value(call.get(name)) if callable(value) else value
    with pytest.raises(ValueError, match=r"\.$") as error:
        function(**call)
    message = str(error.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


@pytest.mark.parametrize("N", [1, 5])
def test_points_without_coordinates(N):
    x = torch.zeros(1, 1, N, 0, device=DEVICE)
    v, gamma = torch.zeros(1, 1, N, 2, device=DEVICE), torch.ones(1, device=DEVICE)
    index = torch.zeros(1, 1, N, 1, dtype=torch.int32, device=DEVICE)
    for call in (
        lambda: exact_search(x, x, topk=2),
        lambda: zeta_attention(x, x, v, gamma),
        lambda: topk_attention(x, x, v, index, gamma),
    ):
        with pytest.raises(ValueError, match=rf"q \[B, H, N, d\].*\(1, 1, {N}, 0\)"):
            call()


@pytest.mark.parametrize("shape", [(0, 2, 5), (2, 0, 5), (2, 2, 0)])
def test_empty_tensors_give_empty_ones(shape):
    """An empty batch is no mistake, and the kernels leave it to the reference."""
    q, v = torch.zeros(*shape, 3, device=DEVICE), torch.zeros(*shape, 4, device=DEVICE)
    gamma = torch.ones(shape[1], device=DEVICE)
    if not shape[1]:
        with pytest.raises(ValueError, match="v must"):
            zeta_attention(q, q, v, gamma)
        return
    assert zeta_attention(q, q, v, gamma).shape == v.shape
    if HAS_TRITON:
        with pytest.raises(ValueError, match=r"nothing to attend: q is \("):
            zeta_attention(q, q, v, gamma, impl="triton")


@pytest.mark.skipif(not HAS_TRITON, reason="needs triton")
def test_more_rows_than_a_grid_has():
    codes = torch.zeros(2**15, 2, 1, dtype=torch.int32, device=DEVICE)
    with pytest.raises(ValueError, match="B · H = 65536 and the kernels take 65535"):
        zorder_search(codes, codes, k=1, impl="triton")
    x, gamma = torch.zeros(2**15, 2, 1, 1, device=DEVICE), torch.ones(2, device=DEVICE)
    with pytest.raises(ValueError, match="B · H = 65536 and the kernels take 65535"):
        zeta_attention(x, x, x, gamma, impl="triton")
    assert zeta_attention(x, x, x, gamma, topk=1).shape == x.shape


# Layouts that are no mistake: a kernel that took one for dense would read other numbers, or beyond the tensor.


def both(function, *tensors, **settings):
    """By the kernels and by the reference: what the function gives, and its gradients if it has any."""
    for impl in ("triton", "reference"):
        out = function(*tensors, impl=impl, **settings)
        out = out if isinstance(out, tuple) else (out,)
        inputs = [t for t in tensors if t.requires_grad]
        yield (*out, *(torch.autograd.grad(out[0], inputs, torch.ones_like(out[0])) if inputs else ()))


def assert_equal(pair):
    got, want = pair
    for a, b in zip(got, want, strict=True):
        assert torch.allclose(a.float(), b.float(), rtol=1e-4, atol=1e-4)


def strided(t, dim):
    """The same numbers, every second one along a dimension of a larger tensor whose others are wrong."""
    wide = torch.stack((t, ~t if t.dtype == torch.bool else t + 7), dim=dim + 1).flatten(dim, dim + 1)
    return wide[(slice(None),) * dim + (slice(None, None, 2),)]


@pytest.mark.skipif(not HAS_TRITON, reason="needs triton")
@pytest.mark.parametrize("mean", [None, "prefix"])
@pytest.mark.parametrize("which", ["strided", "expanded"])
@pytest.mark.parametrize("name", ["valid", "gamma"])
def test_layouts_of_small_arguments(name, which, mean):
    case = make(DEVICE, B=2, N=20, pad=True, mean=mean)
    valid, gamma = case.valid, case.gamma
    if which == "strided":
        valid, gamma = strided(valid, 1) if name == "valid" else valid, strided(gamma, 0) if name == "gamma" else gamma
    elif name == "valid":
        valid = valid[:1].expand(2, -1)
    else:
        gamma = gamma[:1].expand(2)
    tensors = [t.requires_grad_() for t in (case.q, case.k, case.v)]
    how = {"valid": valid, "mean": mean}
    assert_equal(both(zeta_attention, *tensors, gamma, topk=8, **how))
    assert_equal(both(lambda *t, impl: topk_attention(*t, case.index, gamma, impl=impl, **how), *tensors))
    codes = [morton_encode(t, impl="reference") for t in (case.q, case.k)]
    assert_equal(both(zorder_search, *codes, k=8, valid=valid))


@pytest.mark.skipif(not HAS_TRITON, reason="needs triton")
@pytest.mark.parametrize("name", ["q", "k", "v"])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_layouts_of_large_arguments(name, dim):
    case = make(DEVICE, B=2, N=20, dv=4, mean="prefix")
    setattr(case, name, strided(getattr(case, name), dim))
    tensors = [t.detach().requires_grad_() for t in (case.q, case.k, case.v)]
    assert_equal(both(zeta_attention, *tensors, case.gamma, topk=8, mean="prefix"))


# Debug mode.


@pytest.fixture
def checks():
    """Switch debug mode on and off; it is as it was afterwards."""
    from zeta_bench.ops import debug

    before = debug._enabled
    yield set_debug
    set_debug(before)


def poisoned(name, number):
    case = make(DEVICE, N=20)
    getattr(case, name)[0, 1, 3, 2] = number
    return case


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("name", ["q", "k"])
@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_coordinates_that_are_not_finite(checks, impl, name, number):
    case = poisoned(name, number)
    calls = [
        lambda: zeta_attention(case.q, case.k, case.v, case.gamma, topk=4, impl=impl),
        lambda: topk_attention(case.q, case.k, case.v, case.index, case.gamma, impl=impl),
        lambda: exact_search(case.q, case.k, topk=4),
    ]
    checks(True)
    for call in calls:
        with pytest.raises(ValueError, match=rf"^{name} \(1, 2, 20, 3\) has 1 coordinates that are not finite\.$"):
            call()
    checks(False)
    for call in calls:
        call()


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("place", [-2, 20, 10**6])
def test_places_outside_the_keys(checks, impl, place):
    case = make(DEVICE, N=20)
    case.index.clamp_(min=0)[0, 1, 3, 2] = place
    low, high = case.index.min(), case.index.max()
    checks(True)
    with pytest.raises(ValueError, match=rf"^index \(1, 2, 20, 8\) holds {low} to {high}; places are -1 .* to 19\.$"):
        topk_attention(case.q, case.k, case.v, case.index, case.gamma, impl=impl)
    checks(False)
    if impl == "triton" or place < 0:  # beyond the keys the reference ends in torch's own error, on a GPU in an assert
        out = topk_attention(case.q, case.k, case.v, case.index, case.gamma, impl=impl)
        case.index[0, 1, 3, 2] = -1
        assert torch.equal(out, topk_attention(case.q, case.k, case.v, case.index, case.gamma, impl=impl))


@pytest.mark.parametrize("impl", IMPLS)
def test_what_is_right_passes_the_checks(checks, impl):
    checks(True)
    case = make(DEVICE, N=20)
    zeta_attention(case.q, case.k, case.v, case.gamma, topk=4, impl=impl)
    topk_attention(case.q, case.k, case.v, case.index, case.gamma, impl=impl)
    topk_attention(case.q, case.k, case.v, case.index[..., :0], case.gamma, impl="reference")


@pytest.mark.skipif(not HAS_TRITON, reason="needs triton")
def test_debug_mode_does_not_break_what_is_compiled(checks):
    checks(True)
    case = make(DEVICE, N=20)
    attend = torch.compile(
        lambda *t: zeta_attention(*t, topk=4, impl="triton"), fullgraph=True, backend="eager", dynamic=False
    )
    assert attend(case.q, case.k, case.v, case.gamma).isfinite().all()


@pytest.mark.parametrize(("value", "raises"), [("1", True), ("yes", True), ("0", False), ("", False), (None, False)])
def test_the_environment_variable(value, raises):
    code = (
        "import torch\nfrom zeta_bench.ops import zeta_attention\n"
        "q = torch.full((1, 1, 4, 3), float('nan'))\n"
        "try:\n    zeta_attention(q, q, q, torch.ones(1), impl='reference')\n    print('nothing')\n"
        "except ValueError as error:\n    print(error)\n"
    )
    environment = {name: text for name, text in os.environ.items() if name != "ZETA_BENCH_DEBUG"}
    environment |= {} if value is None else {"ZETA_BENCH_DEBUG": value}
    answer = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    expected = "q (1, 1, 4, 3) has 12 coordinates that are not finite." if raises else "nothing"
    assert answer.stdout.strip() == expected
