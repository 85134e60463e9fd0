"""`ops.stages`: what a breakdown times is what `zeta_attention` does."""

from __future__ import annotations

import pytest
import torch
from bounds import make

from zeta_bench.ops import zeta_attention
from zeta_bench.ops._impl import HAS_TRITON
from zeta_bench.ops.stages import stages

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
IMPLS = ["reference", pytest.param("triton", marks=pytest.mark.skipif(not HAS_TRITON, reason="needs triton"))]
NAMES = ["encode", "sort", "search", "attend", "backward"]
CASES = {
    "plain": {},
    "chunks": {"chunk": 8, "mean": "prefix"},
    "window": {"local_window": 4, "mean": "prefix", "dtype": torch.bfloat16},
    "bidirectional": {"causal": False, "mean": "all"},
    "cache": {"N": 4, "S": 20},
}


def prepare(name, impl, **more):
    """A case, its arguments for `zeta_attention` and the stages of it."""
    case = make(DEVICE, **{"N": 20, "topk": 4, **CASES[name]})
    settings = {**case.settings, "impl": impl, **more}
    assert settings.pop("offset") == 0  # what a bench never sets
    return case, settings, stages(case.q, case.k, case.v, case.gamma, **settings)


def tensors(value):
    """Every tensor that a stage gave, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, (tuple, list)):
        return [t for part in value for t in tensors(part)]
    return [t for part in vars(value).values() for t in tensors(part)] if hasattr(value, "__dict__") else []


def same(a, b):
    """Whether two runs of a stage agree: to a rounding, for gradients are added up in any order on a GPU."""
    return torch.allclose(a.double(), b.double(), rtol=1e-4, atol=1e-5) and a.dtype == b.dtype


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("name", CASES)
def test_attend_and_backward_are_the_operation(name, impl):
    case, settings, found = prepare(name, impl)
    assert [stage for stage, _ in found] == NAMES
    inputs = case.inputs()
    out = zeta_attention(*inputs, **settings)
    gradients = torch.autograd.grad(out, inputs, torch.ones_like(out))
    run = dict(found)
    assert same(tensors(run["attend"]())[0], out)
    for got, want in zip(tensors(run["backward"]()), gradients, strict=True):
        assert same(got, want)


@pytest.mark.parametrize("impl", IMPLS)
def test_each_stage_repeats(impl):
    _, _, found = prepare("window", impl)
    for name, stage in reversed(found):  # in any order: none needs the one before it run again
        first, second = ([t.clone() for t in tensors(stage())] for _ in range(2))
        assert first, name
        if (name, impl) != ("search", "triton"):  # its room for picked entries is filled only where a tile needs it
            assert all(same(a, b) for a, b in zip(first, second, strict=True)), name


@pytest.mark.parametrize("impl", IMPLS)
def test_stages_leave_the_inputs_alone(impl):
    case = make(DEVICE, N=20, topk=4)
    inputs = case.inputs()
    before = [t.detach().clone() for t in inputs]
    for _, stage in stages(*inputs, topk=4, impl=impl):
        stage()
    for t, was in zip(inputs, before, strict=True):
        assert torch.equal(t, was)
        assert t.grad is None


@pytest.mark.skipif(not HAS_TRITON, reason="needs triton")
def test_deterministic_gradients_have_their_stage():
    _, _, found = prepare("chunks", "triton", deterministic=True)
    backward = dict(found)["backward"]
    assert all(torch.equal(a, b) for a, b in zip(tensors(backward()), tensors(backward()), strict=True))


@pytest.mark.skipif(not HAS_TRITON, reason="needs triton")
def test_kernels_that_cannot_say_so():
    case = make(DEVICE, N=8)
    with pytest.raises(ValueError, match="float64"):
        stages(case.q.double(), case.k.double(), case.v, case.gamma, topk=4, impl="triton")
    found = stages(case.q.double(), case.k.double(), case.v, case.gamma, topk=4)
    assert [name for name, _ in found] == NAMES
