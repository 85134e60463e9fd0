"""`topk_attention` and `zeta_attention`: the definition in float64, derived tolerances, gradients, offsets, padding."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zeta_bench.ops import morton_encode, topk_attention, zeta_attention, zorder_search
from zeta_bench.ops.attention import GAMMA_FLOOR, SCORES


def define(q, k, v, index, gamma, score, mean, valid, offset):
    """Σ w v / Σ w, one query after the other, in float64."""
    B, H, N, _ = q.shape
    q, k, v, gamma = (t.double() for t in (q, k, v, gamma))
    out = torch.zeros(B, H, N, v.shape[-1], dtype=torch.float64)
    for b in range(B):
        for h in range(H):
            values = v[b, h * v.shape[1] // H]
            for i in range(N):
                pairs = [(k[b, h, j], values[j]) for j in index[b, h, i].tolist() if j >= 0]
                last = offset + i if mean == "prefix" else k.shape[2] - 1
                seen = [j for j in range(k.shape[2]) if j <= last and (valid is None or valid[b, j])]
                if mean is not None and seen:
                    pairs.append((k[b, h, seen].mean(0), values[seen].mean(0)))
                weights = [weigh(q[b, h, i], key, gamma[h], score) for key, _ in pairs]
                if pairs:
                    out[b, h, i] = sum(w * value for w, (_, value) in zip(weights, pairs, strict=True)) / sum(weights)
    return out


def weigh(q, k, gamma, score):
    distance = (q - k).norm()
    gamma = gamma.clamp(min=GAMMA_FLOOR)
    return {
        "cauchy": lambda: 1 / (distance**2 + gamma**2),
        "neg-euclid": lambda: torch.exp(-(distance**2) / gamma**2),
        "inv-euclid": lambda: 1 / (distance + gamma),
        "dot": lambda: torch.exp(q @ k / q.shape[-1] ** 0.5),
    }[score]()


def example(seed=0, B=2, H=2, Hv=2, N=7, S=9, d=3, dv=5, topk=4, dtype=torch.float64, offset=2):
    generator = torch.Generator().manual_seed(seed)
    q, k = (torch.rand(B, H, n, d, generator=generator, dtype=torch.float64) * 2 - 1 for n in (N, S))
    v = torch.randn(B, Hv, S, dv, generator=generator, dtype=torch.float64)
    valid = torch.rand(B, S, generator=generator) < 0.7
    gamma = torch.rand(H, generator=generator, dtype=torch.float64) * 0.8 + 0.1
    index = zorder_search(morton_encode(q), morton_encode(k), k=topk, valid=valid, offset=offset)
    return [t.to(dtype) for t in (q, k, v)], index, gamma.to(dtype), valid


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("mean", [None, "prefix", "all"])
@pytest.mark.parametrize("Hv", [1, 2])
def test_topk_attention_is_its_definition(score, mean, Hv):
    (q, k, v), index, gamma, valid = example(Hv=Hv)
    out = topk_attention(q, k, v, index, gamma, score=score, mean=mean, valid=valid, offset=2)
    assert torch.allclose(out, define(q, k, v, index, gamma, score, mean, valid, 2), rtol=1e-10, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([torch.float32, torch.bfloat16, torch.float16]), st.sampled_from(SCORES))
def test_low_precision_within_a_derived_tolerance(seed, dtype, score):
    """Coordinates are fp32, so what dtype costs is rounding v, the weights (of sum 1) and the result: ≤ 4 eps · max|v|.

    fp32 coordinates move a weight by a few eps(fp32) relative to 1 + (d² + γ²)/γ² ≤ 2 + 12/γ² (γ ≥ 0.1): the rest.
    """
    (q, k, v), index, gamma, valid = example(seed)
    coordinates = [t.float() for t in (q, k)]
    low = topk_attention(
        *coordinates, v.to(dtype), index, gamma.float(), score=score, mean="prefix", valid=valid, offset=2
    )
    exact = define(*coordinates, v.to(dtype), index, gamma.float(), score, "prefix", valid, 2)
    scale = v.abs().max()
    bound = 4 * torch.finfo(dtype).eps * scale + 16 * torch.finfo(torch.float32).eps * (2 + 12 / 0.1**2) * scale
    assert low.dtype == dtype
    assert (low.double() - exact).abs().max() <= bound


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("mean", [None, "prefix", "all"])
def test_gradients(score, mean):
    (q, k, v), index, gamma, valid = example(B=1, N=4, S=5, topk=3)
    inputs = [t.requires_grad_() for t in (q, k, v, gamma)]
    assert torch.autograd.gradcheck(
        lambda q, k, v, g: topk_attention(q, k, v, index, g, score=score, mean=mean, valid=valid, offset=2), inputs
    )


def test_inverse_distance_has_a_gradient_where_query_and_key_coincide():
    x = torch.zeros(1, 1, 2, 3, dtype=torch.float64, requires_grad=True)
    index = torch.zeros(1, 1, 2, 1, dtype=torch.int32)
    topk_attention(
        x, x, torch.ones(1, 1, 2, 4, dtype=torch.float64), index, torch.tensor([0.5]).double(), score="inv-euclid"
    ).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("score", SCORES)
def test_empty_rows_give_zeros(score):
    (q, k, v), index, gamma, _ = example()
    out = topk_attention(q, k, v, torch.full_like(index, -1), gamma, score=score)
    assert torch.equal(out, torch.zeros_like(out))
    none = topk_attention(q, k, v, index[..., :0], gamma, score=score)
    assert torch.equal(none, torch.zeros_like(none))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_smallest_gamma_is_finite(dtype):
    x = torch.zeros(1, 1, 4, 3, dtype=dtype)
    index = torch.arange(4).view(1, 1, 1, 4).expand(1, 1, 4, 4)
    out = topk_attention(x, x, torch.ones(1, 1, 4, 2, dtype=dtype), index, torch.zeros(1, dtype=dtype))
    assert torch.equal(out, torch.ones_like(out))


@pytest.mark.parametrize("chunk", [1, 4])
@pytest.mark.parametrize("mean", [None, "prefix"])
def test_decoding_one_by_one_equals_the_parallel_form(chunk, mean):
    """`offset`: one query at a time over a growing cache of keys gives what all queries at once give."""
    generator = torch.Generator().manual_seed(3)
    q, k = (torch.rand(1, 2, 20, 3, generator=generator, dtype=torch.float64) * 2 - 1 for _ in range(2))
    v, gamma = torch.randn(1, 2, 20, 4, generator=generator, dtype=torch.float64), torch.tensor([0.3, 0.6]).double()
    whole = zeta_attention(q, k, v, gamma, topk=5, chunk=chunk, mean=mean)
    steps = [
        zeta_attention(
            q[:, :, i : i + 1], k[:, :, : i + 1], v[:, :, : i + 1], gamma, topk=5, chunk=chunk, mean=mean, offset=i
        )
        for i in range(20)
    ]
    assert torch.allclose(whole, torch.cat(steps, dim=2), rtol=1e-12, atol=1e-13)


def test_zeta_attention_is_its_three_steps():
    (q, k, v), _, gamma, valid = example(N=9, S=9, offset=0)
    index = zorder_search(morton_encode(q, bits=6), morton_encode(k, bits=6), k=4, chunk=2, valid=valid)
    want = topk_attention(q, k, v, index, gamma, mean="prefix", valid=valid)
    got = zeta_attention(q, k, v, gamma, topk=4, chunk=2, bits=6, mean="prefix", valid=valid)
    assert torch.equal(got, want)


def test_gradients_reach_coordinates_and_gamma():
    (q, k, v), _, gamma, _ = example(N=9, S=9)
    inputs = [t.requires_grad_() for t in (q, k, v, gamma)]
    zeta_attention(*inputs, topk=4).square().sum().backward()
    assert all(t.grad is not None and t.grad.abs().sum() > 0 for t in inputs)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"score": "cosine"}, "score"),
        ({"mean": "running"}, "mean"),
        ({"gamma": torch.ones(3)}, "gamma"),
        ({"index": torch.zeros(1, 1, 1, 1)}, "index"),
        ({"v": torch.zeros(2, 3, 9, 5)}, "v must"),
        ({"k": torch.zeros(2, 2, 9, 4)}, "q .* and k"),
        ({"impl": "triton"}, "triton"),
        ({"impl": "fast"}, "impl"),
    ],
)
def test_what_cannot_be_is_refused(change, name):
    (q, k, v), index, gamma, _ = example()
    arguments = {"q": q, "k": k, "v": v, "index": index, "gamma": gamma} | change
    with pytest.raises(ValueError, match=name):
        topk_attention(**arguments)


def test_ops_need_torch_alone():
    """Importing the ops brings in no pydantic, pandas, lightning or triton."""
    code = (
        "import sys, zeta_bench.ops\n"
        "bad = {'pydantic', 'pandas', 'pytorch_lightning', 'typer', 'rich', 'matplotlib'} & set(sys.modules)\n"
        "assert not bad, bad\n"
        "assert not any(m.startswith('zeta_bench.') and not m.startswith('zeta_bench.ops') for m in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
