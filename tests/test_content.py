"""Weights with content, ours: a Cauchy weight of coordinates times exp(a·b/√c) of wide queries and keys."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_attention_ops import example, weigh
from torch import Tensor

from zeta_bench.attention import AttentionSpec, build
from zeta_bench.ops import topk_attention, zeta_attention
from zeta_bench.ops.attention import SCORES
from zeta_bench.registry import find_variant
from zeta_bench.zeta import ZetaAttention, ZetaConfig


def drawn(seed: int = 0, width: int = 6, size: float = 2.0, N: int = 7, S: int = 9) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed + 1)
    a, b = (size * torch.randn(2, 2, n, width, generator=generator, dtype=torch.float64) for n in (N, S))
    return a, b


def define(q, k, v, content, index, gamma, score, mean, valid, offset) -> Tensor:
    """Σ w v / Σ w, one query after the other, in float64."""
    a, b = (t.double() for t in content)
    q, k, v, gamma = (t.double() for t in (q, k, v, gamma))
    out = torch.zeros(*q.shape[:3], v.shape[-1], dtype=torch.float64)
    for n in range(q.shape[0]):
        for h in range(q.shape[1]):
            values = v[n, h * v.shape[1] // q.shape[1]]
            for i in range(q.shape[2]):
                places = [[j] for j in index[n, h, i].tolist() if j >= 0]
                last = offset + i if mean == "prefix" else k.shape[2] - 1
                seen = [j for j in range(k.shape[2]) if j <= last and (valid is None or valid[n, j])]
                places += [seen] if mean is not None and seen else []  # the mean token is the mean of these
                weights = [
                    weigh(q[n, h, i], k[n, h, j].mean(0), gamma[h], score)
                    * torch.exp(a[n, h, i] @ b[n, h, j].mean(0) / a.shape[-1] ** 0.5)
                    for j in places
                ]
                if places:
                    total = sum(w * values[j].mean(0) for w, j in zip(weights, places, strict=True))
                    out[n, h, i] = total / sum(weights)
    return out


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("mean", [None, "prefix", "all"])
@pytest.mark.parametrize("Hv", [1, 2])
def test_content_multiplies_weights(score: str, mean: str | None, Hv: int) -> None:
    (q, k, v), index, gamma, valid = example(Hv=Hv)
    content = drawn()
    out = topk_attention(q, k, v, index, gamma, score=score, content=content, mean=mean, valid=valid, offset=2)
    expected = define(q, k, v, content, index, gamma, score, mean, valid, 2)
    assert torch.allclose(out, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("score", SCORES)
def test_content_of_zeros_changes_nothing(score: str) -> None:
    (q, k, v), index, gamma, valid = example()
    zeros = (torch.zeros_like(drawn()[0]), drawn()[1])
    how = {"score": score, "mean": "prefix", "valid": valid, "offset": 2}
    without = topk_attention(q, k, v, index, gamma, **how)
    torch.testing.assert_close(topk_attention(q, k, v, index, gamma, content=zeros, **how), without)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
def test_low_precision_within_a_derived_tolerance(seed: int, dtype: torch.dtype) -> None:
    """As without content, plus the rounding of a·b/√c: c products of fp32, each of at most |a||b|, in every logit.

    A logit that is off by e moves a weight by a factor of 1 + e, up or down, so the output by 2 e · max|v|.
    """
    (q, k, v), index, gamma, valid = example(seed)
    a, b = (t.to(dtype) for t in drawn(seed))
    coordinates = [t.float() for t in (q, k)]
    how = {"score": "cauchy", "mean": "prefix", "valid": valid, "offset": 2}
    low = topk_attention(*coordinates, v.to(dtype), index, gamma.float(), content=(a, b), **how)
    exact = define(*coordinates, v.to(dtype), (a, b), index, gamma.float(), "cauchy", "prefix", valid, 2)
    scale, fp32 = v.abs().max(), torch.finfo(torch.float32).eps
    logit = (a.shape[-1] + 2) * fp32 * a.double().norm(dim=-1).max() * b.double().norm(dim=-1).max()
    bound = 4 * torch.finfo(dtype).eps * scale + (16 * fp32 * (2 + 12 / 0.1**2) + 2 * logit) * scale
    assert low.dtype == dtype
    assert (low.double() - exact).abs().max() <= bound


def test_content_of_any_size_stays_finite() -> None:
    (q, k, v), index, gamma, valid = example()
    a, b = drawn(size=1e4)
    inputs = [t.requires_grad_() for t in (q, k, v, gamma, a, b)]
    out = topk_attention(q, k, v, index, gamma, content=(a, b), mean="prefix", valid=valid, offset=2)
    out.sum().backward()
    assert out.isfinite().all()
    assert all(t.grad is not None and t.grad.isfinite().all() for t in inputs)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("mean", [None, "prefix", "all"])
def test_gradients(score: str, mean: str | None) -> None:
    (q, k, v), index, gamma, valid = example(B=2, N=4, S=5, topk=3)
    a, b = drawn(N=4, S=5, width=3, size=1.0)
    inputs = [t.requires_grad_() for t in (q, k, v, gamma, a, b)]

    def attend(q: Tensor, k: Tensor, v: Tensor, g: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return topk_attention(q, k, v, index, g, score=score, content=(a, b), mean=mean, valid=valid, offset=2)

    assert torch.autograd.gradcheck(attend, inputs)


def test_the_fused_operation_is_its_three_steps_and_decodes_one_by_one() -> None:
    (q, k, v), _, gamma, _ = example(N=9, S=9)
    content = drawn(N=9)
    whole = zeta_attention(q, k, v, gamma, topk=4, content=content, mean="prefix", local_window=2)
    steps = [
        zeta_attention(
            q[:, :, i : i + 1], k[:, :, : i + 1], v[:, :, : i + 1], gamma, topk=4, mean="prefix", offset=i,
            content=(content[0][:, :, i : i + 1], content[1][:, :, : i + 1]), local_window=2,
        )
        for i in range(9)
    ]  # fmt: skip
    assert torch.allclose(whole, torch.cat(steps, dim=2), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ((torch.zeros(2, 2, 6, 4), torch.zeros(2, 2, 9, 4)), r"content must be \[B, H, N, c\]"),
        ((torch.zeros(2, 2, 7, 4), torch.zeros(2, 2, 7, 4)), r"content must be \[B, H, N, c\]"),
        ((torch.zeros(2, 2, 7, 4), torch.zeros(2, 2, 9, 5)), "one width for both, at least 1; got 4 and 5"),
        ((torch.zeros(2, 2, 7, 0), torch.zeros(2, 2, 9, 0)), "at least 1; got 0 and 0"),
        ((torch.zeros(2, 2, 7, 4).int(), torch.zeros(2, 2, 9, 4)), "content_q"),
    ],
)
def test_content_that_cannot_be_is_refused(content: tuple[Tensor, Tensor], told: str) -> None:
    (q, k, v), index, gamma, _ = example()
    with pytest.raises(ValueError, match=told):
        topk_attention(q, k, v, index, gamma, content=content)
    with pytest.raises(ValueError, match=told):
        zeta_attention(q, k, v, gamma, content=content)


def test_an_implementation_that_cannot_do_it_says_so() -> None:
    (q, k, v), index, gamma, _ = example(dtype=torch.float32)
    with pytest.raises(ValueError, match=r"triton.*over a given index the kernels weigh without content"):
        topk_attention(q, k, v, index, gamma, content=tuple(t.float() for t in drawn()), impl="triton")


def test_the_preset_weighs_what_zeta_token_selects() -> None:
    spec = AttentionSpec(d_model=16, n_heads=2, max_len=40)
    torch.manual_seed(0)
    ours, plain = build(find_variant("zeta-dot:k=4"), spec), build(find_variant("zeta-token:k=4,mean=false"), spec)
    assert isinstance(ours, ZetaAttention)
    assert isinstance(plain, ZetaAttention)
    missing, unexpected = plain.load_state_dict(ours.state_dict(), strict=False)
    assert (missing, unexpected) == ([], ["wide.weight"])
    x = torch.randn(2, 40, 16)
    assert torch.equal(ours.select(*ours.coordinates(x), None), plain.select(*plain.coordinates(x), None))
    assert not torch.allclose(ours(x), plain(x))
    assert ours.wide is not None
    torch.nn.init.zeros_(ours.wide.weight)
    torch.testing.assert_close(ours(x), plain(x))


def test_runs_without_it_keep_their_identity() -> None:
    assert "content" not in ZetaConfig().model_dump(mode="json")
    assert ZetaConfig(content=True).model_dump(mode="json")["content"] is True
    assert ZetaConfig.model_validate(ZetaConfig(content=True).model_dump()).content
