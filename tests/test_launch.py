"""A key of `launch.Kernel` stands for one machine code: whatever Triton specialises for must be in it.

Under the interpreter nothing is compiled, so this compares what Triton would have compiled for.
"""

from __future__ import annotations

import inspect

import pytest
import torch
from bounds import make

from zeta_bench.ops import morton_encode, topk_attention, zeta_attention, zorder_search

pytest.importorskip("triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def special(value, constant):
    """What Triton looks at in an argument."""
    if constant or value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, torch.Tensor):
        return value.dtype, value.data_ptr() % 16 == 0
    if isinstance(value, int):
        return value == 1, value % 16 == 0, value >= 2**31
    return type(value)


@pytest.fixture
def seen(monkeypatch):
    """{(kernel, key): what it was compiled for}; a launch that code compiled for other arguments would serve fails."""
    from zeta_bench.ops import launch

    found, launched = {}, launch.Kernel.__call__

    def call(self, key, grid, *args, **options):
        names = inspect.signature(self.function.fn).parameters.values()
        got = {
            p.name: special(value, "constexpr" in str(p.annotation)) for p, value in zip(names, args, strict=True)
        } | options
        first = found.setdefault((self.function.fn.__name__, key), got)
        differ = {name: (first[name], got[name]) for name in got if first[name] != got[name]}
        assert not differ, f"{self.function.fn.__name__} runs code compiled for other arguments: {differ}"
        launched(self, key, grid, *args, **options)

    monkeypatch.setattr(launch.Kernel, "__call__", call)
    return found


def step(case, **more):
    inputs = case.inputs()
    out = zeta_attention(*inputs, valid=case.valid, impl="triton", **{**case.settings, **more})
    torch.autograd.grad(out, inputs, case.do)


def gather(case):
    inputs = case.inputs()
    how = {"mean": case.settings["mean"], "valid": case.valid, "impl": "triton"}
    out = topk_attention(*inputs[:3], case.index, inputs[3], **how)
    torch.autograd.grad(out, inputs, case.do)


@pytest.mark.parametrize("mean", [None, "prefix", "all"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("function", [step, gather, lambda case: step(case, deterministic=True)])
def test_values_as_wide_as_the_coordinates(seen, function, dtype, mean):
    function(make(DEVICE, N=20, d=3, dv=3, H=2, Hv=1, dtype=dtype, mean=mean))
    assert seen


@pytest.mark.parametrize("settings", [{}, {"local_window": 4}, {"pad": True, "mean": "prefix"}])
def test_one_after_the_other_with_the_same_coordinates(seen, settings):
    """Widths of different tiles, dtypes, numbers of value heads, lengths."""
    for more in (
        {"dv": 16},
        {"dv": 200},
        {"dv": 16, "dtype": torch.bfloat16},
        {"dv": 16, "Hv": 1},
        {"N": 32, "dv": 16},
    ):
        for function in (step, gather):
            function(make(DEVICE, **{"N": 20, **settings, **more}))


def test_layouts_and_alignments(seen):
    for shift in (0, 1):
        case = make(DEVICE, N=20, dv=16, mean="prefix")
        for name in ("q", "k", "v", "gamma", "do"):
            t = getattr(case, name)
            flat = torch.empty(t.numel() + 1, dtype=t.dtype, device=t.device)
            setattr(case, name, flat[shift : shift + t.numel()].view(t.shape).copy_(t))
        inputs = [t.requires_grad_() for t in (case.q, case.k, case.v, case.gamma)]
        out = zeta_attention(*inputs, impl="triton", **case.settings)
        torch.autograd.grad(out, inputs, case.do)
        out = topk_attention(*inputs[:3], case.index, inputs[3], mean="prefix", impl="triton")
        torch.autograd.grad(out, inputs, case.do)


def test_searches(seen):
    case = make(DEVICE, N=20)
    for bits in (10, 21):
        codes = [morton_encode(t, bits=bits, impl="triton") for t in (case.q, case.k)]
        for how in (
            {},
            {"valid": torch.ones(1, 20, dtype=torch.bool, device=DEVICE)},
            {"chunk": 16},
            {"causal": False},
        ):
            for k in (1, 8, 16):
                zorder_search(*codes, k=k, impl="triton", **how)
                zorder_search(codes[0][..., :7], codes[1], k=k, impl="triton", **how)
