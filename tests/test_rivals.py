"""What each rival written by hand is by its own paper, beyond what `test_baselines` asks of every variant."""

from __future__ import annotations

import math

import pytest
import torch
from test_baselines import D_MODEL, DIRECTION, MAX_LEN, make, paddings, tokens
from torch import Tensor

from zeta_bench.attention import AttentionSpec, build
from zeta_bench.audit import audit
from zeta_bench.baselines import ATTENTION
from zeta_bench.baselines.nystromformer import pseudo_inverse, segment_means
from zeta_bench.baselines.s4d import chunked_convolution, every_pair
from zeta_bench.errors import Unsupported, UsageError
from zeta_bench.optimizer import parameter_groups
from zeta_bench.protocol import find_protocol
from zeta_bench.registry import Choice

BOTH = ("cosformer", "hedgehog", "s4d", "h-transformer-1d")
ENCODERS = ("linformer", "nystromformer", "skyformer")
# Small enough that projections, segments, landmarks and levels are many at the audit's 96 tokens.
TIGHT = [
    ("linformer", {"features": 5, "share": False}),
    ("nystromformer", {"landmarks": 7, "conv": 5, "iterations": 3}),
    ("skyformer", {"landmarks": 6}),
    ("s4d", {"state": 6}),
    ("h-transformer-1d", {"block": 2}),
    ("h-transformer-1d", {"block": 6}),
]


@pytest.mark.parametrize(("name", "kept"), TIGHT, ids=[f"{name}-{kept}" for name, kept in TIGHT])
def test_other_settings_pass_every_audit(name: str, kept: dict[str, object]) -> None:
    findings = audit(Choice(name, ATTENTION[name], kept))
    assert {f.direction for f in findings} == ({"causal", "bidirectional"} if name in BOTH else {"bidirectional"})
    assert [f"{f.id}: {f.detail}" for f in findings if f.status != "pass"] == []


@pytest.mark.parametrize("name", ENCODERS)
def test_what_mixes_the_whole_sequence_has_no_causal_form(name: str) -> None:
    with pytest.raises(Unsupported, match=f"'{name}' has no causal form"):
        build(Choice(name, ATTENTION[name]), AttentionSpec(D_MODEL, 2, MAX_LEN, causal=True))


@pytest.mark.parametrize("name", ["linformer", "cosformer"])
def test_a_sequence_longer_than_max_len_is_refused(name: str) -> None:
    module = make(name, {}, causal=False)
    assert module(tokens(1, MAX_LEN)).isfinite().all()
    with pytest.raises(Unsupported, match=f"{name} is built for at most {MAX_LEN} tokens and got {MAX_LEN + 1}"):
        module(tokens(1, MAX_LEN + 1))


@pytest.mark.parametrize(
    ("name", "setting", "value"),
    [
        ("linformer", "features", "0"),
        ("nystromformer", "landmarks", "0"),
        ("nystromformer", "conv", "-1"),
        ("skyformer", "landmarks", "3"),
        ("skyformer", "ridge", "0"),
        ("s4d", "state", "5"),
        ("h-transformer-1d", "block", "3"),
    ],
)
def test_a_wrong_setting_is_one_sentence(name: str, setting: str, value: str) -> None:
    with pytest.raises(UsageError, match=f"setting '{setting}' = {value} is not valid"):
        make(name, {setting: int(value)}, causal=False)  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("name", "causal"), [(name, False) for name in (*ENCODERS, *BOTH)] + [(name, True) for name in BOTH]
)
def test_memory_does_not_grow_with_the_square_of_the_length(name: str, causal: bool) -> None:
    small = {"linformer": {"features": 16}, "nystromformer": {"landmarks": 16}, "skyformer": {"landmarks": 16}}
    spec = AttentionSpec(D_MODEL, 1, 2048, causal=causal)
    module = build(Choice(name, ATTENTION[name], small.get(name, {})), spec).double()
    weights = {p.data_ptr() for p in module.parameters()}
    sizes = {}
    for N in (512, 2048):
        saved: list[int] = []

        def keep(t: Tensor, saved: list[int] = saved) -> Tensor:
            return saved.append(0 if t.data_ptr() in weights else t.numel()) or t

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            module(tokens(1, N).requires_grad_())
        sizes[N] = sum(saved)
    assert sizes[2048] < 6.0 * sizes[512]  # N·log N, as the causal h-transformer-1d has it, gives 5.3; N² gives 16


@pytest.mark.parametrize(("name", "causal"), [("linformer", False), ("h-transformer-1d", True)])
def test_dropout_acts_in_training_only(name: str, causal: bool) -> None:
    module, x = make(name, {}, causal=causal, dropout=0.5), tokens(2, 40)
    plain = make(name, {}, causal=causal)(x)
    torch.testing.assert_close(module(x), plain)
    module.train()
    runs = module(x.repeat(300, 1, 1)).unflatten(0, (300, 2))
    assert not torch.equal(runs[0], runs[1])
    assert (runs.mean(0) - plain).abs().max() < 0.3 * plain.abs().max()


# Linformer.


def test_linformer_with_an_identity_for_projection_is_softmax_attention() -> None:
    x, padding = tokens(4, MAX_LEN), paddings(MAX_LEN)
    module, full = make("linformer", {"features": str(MAX_LEN)}, causal=False), make("vanilla", {}, causal=False)
    full.load_state_dict({key: t for key, t in module.state_dict().items() if not key.startswith("project")})
    with torch.no_grad():
        module.project_k.copy_(torch.eye(MAX_LEN))
    torch.testing.assert_close(module(x), full(x), rtol=1e-10, atol=1e-10)
    # A padded key is a key of zeros here, with the weight exp(0): the paper's softmax is over mixtures, not keys.
    assert not torch.allclose(module(x, padding)[0], full(x, padding)[0])


@pytest.mark.parametrize(("share", "numbers"), [("true", 1), ("false", 2)])
def test_linformer_projections_are_shared_by_heads_and_if_asked_by_keys_and_values(share: str, numbers: int) -> None:
    module = make("linformer", {"features": "5", "share": share}, causal=False)
    own = sum(p.numel() for p in module.parameters()) - 4 * D_MODEL**2
    assert own == numbers * 5 * MAX_LEN


# cosFormer.


@DIRECTION
def test_cosformer_weighs_like_tokens_by_the_cosine_of_their_distance(causal: bool) -> None:
    module, N = make("cosformer", {}, causal=causal, heads=1), 20
    like, v = torch.ones(1, 1, N, D_MODEL).double(), tokens(1, 1, N)
    for i in (0, 7, 19):
        seen = range(i + 1 if causal else N)
        weights = [math.cos(math.pi / 2 * (i - j) / MAX_LEN) for j in seen]
        expected = sum(w * v[0, 0, j] for w, j in zip(weights, seen, strict=True)) / sum(weights)
        torch.testing.assert_close(module.attend(like, like, v, None)[0, 0, i], expected, rtol=1e-12, atol=1e-12)


# Hedgehog.


@DIRECTION
def test_hedgehog_features_start_as_softmax_of_the_head_and_its_negative(causal: bool) -> None:
    module, x = make("hedgehog", {}, causal=causal, heads=2), torch.randn(3, 2, 5, D_MODEL // 2).double()
    features = module.map_k(x)
    torch.testing.assert_close(features, torch.cat((x.softmax(-1), (-x).softmax(-1)), -1))
    torch.testing.assert_close(module.map_q(x).sum(-1), torch.full((3, 2, 5), 2.0).double())


def test_hedgehog_maps_learn_for_each_head_by_itself() -> None:
    module = make("hedgehog", {}, causal=True, heads=2)
    q, k, v = (torch.randn(1, 2, 9, D_MODEL // 2).double() for _ in range(3))
    module.attend(q, k, v, None)[:, 1].sin().sum().backward()
    for feature_map in (module.map_q, module.map_k):
        assert not feature_map.weight.grad[0].any()
        assert feature_map.weight.grad[1].any()


# Nyströmformer.


def test_nystromformer_with_a_landmark_for_each_token_approaches_softmax_attention() -> None:
    x, valid, errors = tokens(4, 50) / 2, paddings(50), []
    full = make("vanilla", {}, causal=False)
    for iterations in ("4", "8", "16"):
        module = make("nystromformer", {"landmarks": "50", "iterations": iterations}, causal=False)
        full.load_state_dict(module.state_dict())
        errors.append((module(x, valid) - full(x, valid))[valid].square().mean().sqrt().item())
    assert errors[2] < 0.01 * errors[1] < 0.1 * errors[0]


def test_nystromformer_segments_are_of_real_tokens() -> None:
    real = torch.tensor([[True, False, True, True, False, True, True], [False, True, False, False, True, False, False]])
    means = segment_means(real, 3, torch.float64)[:, 0]
    third = [[1 / 2, 0, 1 / 2, 0, 0, 0, 0], [0, 0, 0, 1 / 2, 0, 1 / 2, 0], [0, 0, 0, 0, 0, 0, 1]]
    torch.testing.assert_close(means[0], torch.tensor(third, dtype=torch.float64))
    few = [[0, 1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 0, 0]]
    torch.testing.assert_close(means[1], torch.tensor(few, dtype=torch.float64))


def test_the_iterated_inverse_is_the_inverse() -> None:
    torch.manual_seed(0)
    a = torch.softmax(3 * torch.randn(2, 9, 9).double() + 4 * torch.eye(9).double(), -1)
    torch.testing.assert_close(pseudo_inverse(a, 30), torch.linalg.inv(a), rtol=1e-9, atol=1e-9)


def test_nystromformer_convolution_is_over_the_values_of_a_head() -> None:
    module, v = make("nystromformer", {"conv": "3"}, causal=False), torch.randn(1, 2, 6, 8).double()
    kernel = module.conv.weight[:, 0, :, 0]
    expected = sum(kernel[1, j] * v[0, 1, 3 + j - 1] for j in range(3))
    torch.testing.assert_close(module._convolved(v)[0, 1, 3], expected)


# Skyformer.


def test_skyformer_approaches_kernel_attention() -> None:
    valid, errors = paddings(20)[:3], []
    q, k, v = (torch.randn(3, 2, 20, 8, generator=torch.Generator().manual_seed(s)).double() for s in range(3))
    kernel = torch.exp(-(q[..., :, None, :] - k[..., None, :, :]).square().sum(-1) / (2 * 8**0.5))
    exact = (kernel * valid[:, None, None]) @ v
    for landmarks in ("4", "32", "256"):
        kept = {"landmarks": landmarks, "iterations": "16", "ridge": "0.001"}
        out = make("skyformer", kept, causal=False).attend(q, k, v, valid)
        errors.append((out - exact)[valid.unsqueeze(1).expand(3, 2, 20)].norm().item() / exact.norm().item())
    assert errors[0] > 2 * errors[1] > 20 * errors[2]
    assert errors[2] < 0.01


def test_skyformer_landmarks_are_real_and_other_in_each_layer() -> None:
    one, two = (make("skyformer", {}, causal=False, layer=layer) for layer in (0, 1))
    assert not torch.equal(one.drawn, two.drawn)
    valid = paddings(60)[:3]
    for places in one._places(valid):
        assert valid.gather(1, places[:, 0, :, 0]).all()
        assert len(set(places[1, 0, :, 0].tolist())) > 20


# S4D.


@DIRECTION
def test_s4d_convolution_is_the_recurrence(causal: bool) -> None:
    module, x = make("s4d", {"state": "8"}, causal=causal), tokens(2, 70)
    exponent, gain = module.discrete(torch.float64)
    step = exponent.exp()

    def run(u: Tensor, c: Tensor, *, late: bool) -> Tensor:
        """y token by token: the state takes u in after the output if late."""
        state, out = torch.zeros(2, *step.shape, dtype=step.dtype), []
        for token in u.unbind(1):
            before = state
            state = step * state + token.unsqueeze(-1)
            out.append(2 * (c * (before if late else state)).sum(-1).real)
        return torch.stack(out, 1)

    y = run(x, gain[0], late=False) + module.skip * x
    if not causal:
        y = y + run(x.flip(1), gain[1], late=True).flip(1)
    expected = torch.nn.functional.glu(module.out(torch.nn.functional.gelu(y)), dim=-1)
    torch.testing.assert_close(module(x), expected, rtol=1e-10, atol=1e-10)


def test_s4d_is_the_zero_order_hold_of_its_differential_equation() -> None:
    module = make("s4d", {"state": "4"}, causal=True)
    exponent, gain = module.discrete(torch.float64)
    dt, c = module.log_dt.exp()[3], torch.view_as_complex(module.c.view(D_MODEL, 2, 2))[3]
    for n in range(2):  # h' = A h + u with u held: the exponential of a matrix with u as a second state
        system = torch.tensor([[(exponent[3, n] / dt).item(), 1], [0, 0]], dtype=torch.complex128)
        solved = torch.linalg.matrix_exp(system * dt)
        torch.testing.assert_close(exponent[3, n].exp(), solved[0, 0])
        torch.testing.assert_close(gain[0, 3, n], c[n] * solved[0, 1])


def test_s4d_starts_as_s4d_lin_and_nothing_of_its_kernel_decays() -> None:
    module = make("s4d", {"state": "8"}, causal=True)
    a = module.discrete(torch.float64)[0] / module.log_dt.exp().unsqueeze(-1)
    torch.testing.assert_close(a.real, torch.full_like(a.real, -0.5))
    torch.testing.assert_close(a.imag[3], math.pi * torch.arange(4).double())
    decayed, plain = parameter_groups(module, find_protocol("mqar", "quick").optim)
    assert [p.shape for p in decayed["params"]] == [(2 * D_MODEL, D_MODEL)]
    assert len(plain["params"]) == 5


@pytest.mark.parametrize("chunk", [1, 5, 16, 64])
def test_s4d_chunks_equal_every_pair(chunk: int) -> None:
    module, u = make("s4d", {"state": "6"}, causal=True), tokens(3, 50)
    exponent, gain = module.discrete(torch.float64)
    out = chunked_convolution(u, exponent, gain[0], chunk)
    torch.testing.assert_close(out, every_pair(u, exponent, gain[0]), rtol=1e-11, atol=1e-11)


# H-Transformer-1D.


@DIRECTION
def test_h_transformer_of_two_blocks_is_softmax_attention(causal: bool) -> None:
    module, full = make("h-transformer-1d", {"block": "26"}, causal=causal), make("vanilla", {}, causal=causal)
    full.load_state_dict(module.state_dict())
    x, valid = tokens(4, 50), paddings(50)
    torch.testing.assert_close(module(x, valid)[valid], full(x, valid)[valid], rtol=1e-10, atol=1e-10)


def test_h_transformer_sees_near_tokens_singly_and_far_ones_by_groups() -> None:
    module = make("h-transformer-1d", {"block": "4"}, causal=True, heads=1)
    q, k, v = (torch.randn(1, 1, 64, D_MODEL, generator=torch.Generator().manual_seed(s)).double() for s in range(3))
    last = module.attend(q, k, v, None)[0, 0, -1]

    def swapped(i: int, j: int) -> bool:
        """Whether the last query's output stays when keys i and j are exchanged, their values staying."""
        order = torch.arange(64)
        order[[i, j]] = order[[j, i]]
        return torch.allclose(module.attend(q, k[:, :, order], v, None)[0, 0, -1], last, rtol=1e-10, atol=1e-12)

    # Blocks of 4: level 0 reaches back to 56, level 1 (groups of 2) to 48, level 2 (of 4) to 32, level 3 (of 8) to 0.
    assert not swapped(56, 57)
    assert [swapped(54, 55), swapped(53, 54)] == [True, False]
    assert [swapped(44, 47), swapped(43, 44)] == [True, False]
    assert [swapped(0, 7), swapped(7, 8)] == [True, False]
