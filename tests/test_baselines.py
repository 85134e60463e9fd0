"""Every baseline against its own definition, and what all of them promise about causality, padding and precision."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from zeta_bench.attention import Attention, AttentionSpec, build, masked_softmax, permitted
from zeta_bench.baselines import ATTENTION
from zeta_bench.baselines._scan import causal_linear, full_linear
from zeta_bench.baselines.performer import orthogonal_gaussian
from zeta_bench.baselines.topk import best
from zeta_bench.errors import UsageError
from zeta_bench.registry import Choice

D_MODEL, MAX_LEN = 16, 128
LENGTHS = (1, 2, 17, 33, 64, 100)
NAMES = [name for name, variant in ATTENTION.items() if variant.extra is None and variant.defect is None]
# With settings small enough that windows, neighbourhoods and selections are full at N = 100.
TIGHT = {
    "topk": {"k": "3"},
    "performer": {"features": "20"},
    "local": {"window": "5"},
    "reformer": {"rounds": "3", "buckets": "5", "neighbours": "4"},
}
CASES = [pytest.param(name, {}, id=name) for name in NAMES]
CASES += [pytest.param(name, kept, id=f"{name}-tight") for name, kept in TIGHT.items() if name in NAMES]
DIRECTION = pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """On tensors this small a second thread costs more than it gives, above all on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make(name: str, kept: dict[str, str], *, causal: bool, heads: int = 2, layer: int = 0, **spec: object) -> Attention:
    variant = ATTENTION[name]
    if not (variant.causal if causal else variant.bidirectional):
        pytest.skip(f"{name} has no such form")
    torch.manual_seed(0)
    full = AttentionSpec(D_MODEL, heads, MAX_LEN, causal=causal, layer=layer, **spec)  # type: ignore[arg-type]
    return build(Choice(name, variant, kept), full).double().eval()


def tokens(*shape: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(*shape, D_MODEL, generator=generator, dtype=torch.float64)


def paddings(N: int) -> Tensor:
    """bool [4, N]: holes anywhere, padding before, padding behind, nothing but padding."""
    valid = torch.rand(4, N, generator=torch.Generator().manual_seed(N)) < 0.7
    valid[1] = torch.arange(N) >= N // 3
    valid[2] = torch.arange(N) < (2 * N + 2) // 3
    valid[3] = False
    return valid


@pytest.mark.parametrize("name", ATTENTION)
def test_catalogue_flags_equal_the_class(name: str) -> None:
    variant = ATTENTION[name]
    try:
        cls = variant.load()
    except UsageError as error:
        pytest.skip(str(error))
    assert (variant.causal, variant.bidirectional) == (cls.causal_ok, cls.bidirectional_ok)
    assert variant.summary
    assert variant.summary[-1] != "."


@DIRECTION
@pytest.mark.parametrize(("name", "kept"), CASES)
@pytest.mark.parametrize("heads", [1, 4])
def test_forward_equals_the_reference(name: str, kept: dict[str, str], causal: bool, heads: int) -> None:
    module = make(name, kept, causal=causal, heads=heads, layer=heads)
    for N in LENGTHS:
        x, padding = tokens(4, N), paddings(N)
        for valid in (None, padding):
            out, expected = module(x, valid), module.reference(x, valid)
            real = torch.ones(4, N, dtype=torch.bool) if valid is None else valid
            torch.testing.assert_close(out[real], expected[real], rtol=1e-10, atol=1e-10)
            assert out.isfinite().all(), f"N={N}"


@DIRECTION
@pytest.mark.parametrize(("name", "kept"), CASES)
def test_gradients_equal_those_of_the_reference(name: str, kept: dict[str, str], causal: bool) -> None:
    module, valid = make(name, kept, causal=causal), paddings(40)
    grads = []
    for rule in (module.forward, module.reference):
        x = tokens(4, 40).requires_grad_()
        out = rule(x, valid).masked_fill(~valid.unsqueeze(-1), 0.0)
        grads.append(torch.autograd.grad(out.sin().sum(), [x, *module.parameters()]))
    for mine, expected in zip(*grads, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("scale", [1.0, 1e3])
@pytest.mark.parametrize(("name", "kept"), CASES)
def test_future_tokens_change_nothing(name: str, kept: dict[str, str], scale: float) -> None:
    module, x = make(name, kept, causal=True), tokens(2, 100)
    before = module(x)
    for t in (0, 1, 16, 31, 50, 98):
        changed = x.clone()
        changed[:, t + 1 :] = scale * tokens(2, 99 - t, seed=t)
        torch.testing.assert_close(module(changed)[:, : t + 1], before[:, : t + 1], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("name", "kept"), CASES)
def test_one_future_token_changes_nothing_and_has_no_gradient(name: str, kept: dict[str, str]) -> None:
    module, x = make(name, kept, causal=True), tokens(1, 48).requires_grad_()
    before = module(x)
    for j in (1, 7, 20, 47):
        changed = x.detach().clone()
        changed[:, j] *= -3.0
        torch.testing.assert_close(module(changed)[:, :j], before[:, :j], rtol=0, atol=1e-12)
        (grad,) = torch.autograd.grad(before[:, j - 1].sin().sum(), x, retain_graph=True)
        assert not grad[:, j:].any()
        assert grad[:, j - 1].any()


@pytest.mark.parametrize(("name", "kept"), CASES)
def test_a_prefix_gives_the_prefix_of_the_output(name: str, kept: dict[str, str]) -> None:
    module, x = make(name, kept, causal=True), tokens(2, 100)
    whole = module(x)
    for t in (1, 2, 15, 33, 64, 99):
        torch.testing.assert_close(module(x[:, :t]), whole[:, :t], rtol=0, atol=1e-12)


@DIRECTION
@pytest.mark.parametrize(("name", "kept"), CASES)
def test_padding_is_never_read(name: str, kept: dict[str, str], causal: bool) -> None:
    module, x, valid = make(name, kept, causal=causal), tokens(4, 60), paddings(60)
    before = module(x, valid)[valid]
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-4)):
        for filler in (0.0, -7.0, 1e30):
            filled = x.masked_fill(~valid.unsqueeze(-1), filler).to(dtype)
            out = copy.deepcopy(module).to(dtype)(filled, valid)[valid]
            torch.testing.assert_close(out.double(), before, rtol=0, atol=tolerance)


@DIRECTION
@pytest.mark.parametrize(("name", "kept"), CASES)
def test_more_padding_at_the_end_changes_nothing(name: str, kept: dict[str, str], causal: bool) -> None:
    module, x = make(name, kept, causal=causal), tokens(2, 50)
    valid = torch.ones(2, 50, dtype=torch.bool)
    longer = module(F.pad(x, (0, 0, 0, 27), value=1.0), F.pad(valid, (0, 27)))
    torch.testing.assert_close(longer[:, :50], module(x), rtol=0, atol=1e-12)
    torch.testing.assert_close(module(x, valid), module(x), rtol=0, atol=1e-12)


@DIRECTION
@pytest.mark.parametrize(("name", "kept"), CASES)
def test_queries_without_any_key_give_zeros(name: str, kept: dict[str, str], causal: bool) -> None:
    module, x = make(name, kept, causal=causal).requires_grad_(), tokens(2, 20).requires_grad_()
    valid = torch.zeros(2, 20, dtype=torch.bool)
    valid[0, 8:] = True
    out = module(x, valid)
    assert not out[1].any()
    if causal:
        assert not out[0, :8].any()
    (grad,) = torch.autograd.grad(out.sum(), x)
    assert grad.isfinite().all()


@DIRECTION
@pytest.mark.parametrize(("name", "kept"), CASES)
def test_sequences_of_a_batch_do_not_meet(name: str, kept: dict[str, str], causal: bool) -> None:
    module, x, valid = make(name, kept, causal=causal), tokens(4, 37), paddings(37)
    together = module(x, valid)
    for b in range(4):
        torch.testing.assert_close(module(x[b : b + 1], valid[b : b + 1])[0], together[b], rtol=0, atol=1e-12)


@DIRECTION
@pytest.mark.parametrize(("name", "kept"), CASES)
def test_repeatable_and_leaves_its_inputs_alone(name: str, kept: dict[str, str], causal: bool) -> None:
    x, valid = tokens(2, 40), paddings(40)[:2]
    kept_x, kept_valid = x.clone(), valid.clone()
    first = make(name, kept, causal=causal)
    again = make(name, kept, causal=causal)  # the fixed random plans come from the layer's number alone
    assert torch.equal(first(x, valid), first(x, valid))
    assert torch.equal(first(x, valid), again(x, valid))
    assert torch.equal(x, kept_x)
    assert torch.equal(valid, kept_valid)


@DIRECTION
@pytest.mark.parametrize(("name", "kept"), CASES)
def test_low_precision_stays_near_float64(name: str, kept: dict[str, str], causal: bool) -> None:
    module, valid = make(name, kept, causal=causal), paddings(64)
    x, single = tokens(4, 64), copy.deepcopy(module).float()
    expected, out = module(x, valid)[valid], single(x.float(), valid)[valid]
    assert out.dtype == torch.float32
    torch.testing.assert_close(out.double(), expected, rtol=0, atol=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = single(x.float(), valid)[valid]
    # Rounding to bf16 before a hash or a selection moves a few tokens for good, so the middle of the errors counts.
    error = (rough.double() - expected).abs() / expected.std()
    assert error.median() < 0.02
    assert rough.isfinite().all()


@pytest.mark.parametrize("name", ["vanilla", "topk", "local", "reformer"])
def test_dropout_acts_in_training_only(name: str) -> None:
    module, x = make(name, {}, causal=True, dropout=0.5), tokens(2, 30)
    plain = make(name, {}, causal=True)(x)
    torch.testing.assert_close(module(x), plain)
    module.train()
    runs = module(x.repeat(300, 1, 1)).unflatten(0, (300, 2))
    assert not torch.equal(runs[0], runs[1])
    assert (runs.mean(0) - plain).abs().max() < 0.3 * plain.abs().max()


@pytest.mark.parametrize(("name", "kept"), CASES)
def test_rotary_positions(name: str, kept: dict[str, str]) -> None:
    if not ATTENTION[name].load().rotary_ok:
        pytest.skip(f"{name} has no rotary form")
    module, x = make(name, kept, causal=True, rotary=True), tokens(2, 50)
    torch.testing.assert_close(module(x), module.reference(x), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(module(x[:, :21]), module(x)[:, :21], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "kept"),
    [("topk", {"k": "0"}), ("performer", {"features": "0"}), ("local", {"window": "0"}), ("reformer", {"rounds": "x"})],
)
def test_a_wrong_setting_is_one_sentence(name: str, kept: dict[str, str]) -> None:
    (setting,) = kept
    with pytest.raises(UsageError, match=setting):
        make(name, kept, causal=True)


# The shared scan.


@pytest.mark.parametrize("chunk", [1, 7, 16, 64])
def test_chunked_scan_equals_every_pair(chunk: int) -> None:
    torch.manual_seed(0)
    fq, fk, v = torch.rand(2, 2, 50, 6).double(), torch.rand(2, 2, 50, 6).double(), torch.randn(2, 2, 50, 3).double()
    scale = (40 * torch.randn(2, 2, 50).double()).cummax(-1).values
    for log_scale in (None, scale):
        rise = 0.0 if log_scale is None else log_scale.unsqueeze(-2) - log_scale.unsqueeze(-1)
        weights = ((fq @ fk.mT) * torch.as_tensor(rise).exp()).tril()
        expected = weights @ v / weights.sum(-1, keepdim=True)
        torch.testing.assert_close(causal_linear(fq, fk, v, log_scale, chunk), expected, rtol=1e-11, atol=1e-11)


def test_linear_attention_without_a_key_is_zero() -> None:
    fq, none, v = torch.ones(1, 1, 5, 2), torch.zeros(1, 1, 5, 2), torch.ones(1, 1, 5, 3)
    assert not causal_linear(fq, none, v, chunk=2).any()
    assert not full_linear(fq, none, v).any()


@pytest.mark.parametrize("name", ["linear", "performer"])
def test_causal_across_chunks_of_the_scan(name: str) -> None:
    module, x = make(name, {}, causal=True, heads=1), tokens(1, 300)
    out = module(x)
    torch.testing.assert_close(out, module.reference(x), rtol=1e-10, atol=1e-10)
    for t in (100, 129, 256):
        torch.testing.assert_close(module(x[:, :t]), out[:, :t], rtol=0, atol=1e-12)


# Each method's own.


def test_vanilla_takes_flash_attention_where_nothing_is_padded(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    sdpa = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *a, **k: asked.append(k) or sdpa(*a, **k))
    make("vanilla", {}, causal=True)(tokens(2, 9))
    assert asked == [{"dropout_p": 0.0, "is_causal": True}]


@given(row=st.lists(st.sampled_from([-1.0, 0.0, 1.0, float("-inf")]), min_size=1, max_size=12), k=st.integers(1, 14))
@settings(max_examples=200, deadline=None)
def test_topk_breaks_ties_towards_the_newest(row: list[float], k: int) -> None:
    by_rule = sorted(range(len(row)), key=lambda j: (row[j], j), reverse=True)[:k]
    assert best(torch.tensor(row), k).nonzero().flatten().tolist() == sorted(by_rule)


@DIRECTION
@pytest.mark.parametrize(("name", "kept"), [("topk", {"k": "50"}), ("local", {"window": "200"})])
def test_reaching_every_key_equals_vanilla(name: str, kept: dict[str, str], causal: bool) -> None:
    x, valid = tokens(4, 50), paddings(50)
    module, full = make(name, kept, causal=causal), make("vanilla", {}, causal=causal)
    full.load_state_dict(module.state_dict())
    torch.testing.assert_close(module(x, valid), full(x, valid), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("causal", "window", "sees"), [(True, 3, {8, 9, 10}), (False, 3, {9, 10, 11})])
def test_local_window_is_where_it_says(causal: bool, window: int, sees: set[int]) -> None:
    module, x = make("local", {"window": str(window)}, causal=causal), tokens(1, 30).requires_grad_()
    (grad,) = torch.autograd.grad(module(x)[0, 10].sum(), x)
    assert set(grad[0].any(-1).nonzero().flatten().tolist()) == sees


@DIRECTION
@pytest.mark.parametrize("name", ["linear", "performer", "local", "reformer"])
def test_memory_does_not_grow_with_the_square_of_the_length(name: str, causal: bool) -> None:
    module = make(name, TIGHT.get(name, {}), causal=causal, heads=1)
    sizes = {}
    for N in (512, 2048):
        saved: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=saved: s.append(t.numel()) or t, lambda t: t):
            module(tokens(1, N).requires_grad_())
        sizes[N] = sum(saved)
    assert sizes[2048] < 5.0 * sizes[512]


def test_performer_error_falls_with_the_number_of_features() -> None:
    x = tokens(2, 60) / 4
    errors = []
    for m in (16, 256, 4096):
        squared = []
        for layer in range(4):
            module = make("performer", {"features": str(m)}, causal=False, layer=layer)
            full = make("vanilla", {}, causal=False)
            full.load_state_dict({key: t for key, t in module.state_dict().items() if key != "omega"})
            squared.append((module(x) - full(x)).square().mean() / full(x).square().mean())
        errors.append(torch.stack(squared).mean().sqrt().item())
    assert errors[2] < 0.02
    assert 2.0 < errors[0] / errors[1] < 8.0  # 1/√m says 4
    assert 2.0 < errors[1] / errors[2] < 8.0


def test_performer_features_are_orthogonal_gaussian_and_saved() -> None:
    omega = orthogonal_gaussian(40, 8, seed=3)
    product = omega[:8] @ omega[:8].T
    torch.testing.assert_close(product, product.diagonal().diag(), rtol=0, atol=1e-12)
    many = orthogonal_gaussian(20_000, 4, seed=0)
    torch.testing.assert_close(many.mean(0), torch.zeros(4).double(), rtol=0, atol=0.03)
    torch.testing.assert_close(many.T @ many / 20_000, torch.eye(4).double(), rtol=0, atol=0.05)
    one, two = (make("performer", {}, causal=True, layer=layer) for layer in (0, 1))
    assert not torch.equal(one.state_dict()["omega"], two.state_dict()["omega"])


@DIRECTION
def test_performer_survives_keys_of_any_size(causal: bool) -> None:
    module = make("performer", {}, causal=causal).float()
    x = tokens(1, 64).float() * torch.logspace(-3, 3, 64).view(1, 64, 1)
    for order in (x, x.flip(1)):
        order = order.clone().requires_grad_()
        out = module(order)
        (grad,) = torch.autograd.grad(out.sum(), order)
        assert out.isfinite().all()
        assert grad.isfinite().all()


def test_performer_long_keys_are_not_drowned_by_a_short_future_one() -> None:
    # Features of long keys are tiny; one stabiliser for the whole sequence would round them to zero.
    module = make("performer", {}, causal=True, heads=1)
    q, k, v = (tokens(1, 1, 20, seed=seed) for seed in (1, 2, 3))
    k[:, :, :10] *= 20.0
    for dtype in (torch.float32, torch.float64):
        q, k, v = q.to(dtype), k.to(dtype), v.to(dtype)
        before = module.attend(q[:, :, :10], k[:, :, :10], v[:, :, :10], None)
        assert before.abs().amax(-1).gt(0.1).all()
        torch.testing.assert_close(module.attend(q, k, v, None)[:, :, :10], before, rtol=1e-6, atol=0)


@DIRECTION
@pytest.mark.parametrize("rounds", ["1", "3"])
def test_reformer_with_one_bucket_is_full_shared_attention(causal: bool, rounds: str) -> None:
    kept = {"rounds": rounds, "buckets": "1", "neighbours": "1000"}
    module, x, valid = make("reformer", kept, causal=causal), tokens(4, 40), paddings(40)
    q, v = (layer(x).unflatten(-1, (2, 8)).transpose(1, 2) for layer in (module.qk, module.v))
    itself = torch.eye(40, dtype=torch.bool)
    mask = permitted(40, causal=causal, valid=valid, device=x.device) & ~itself
    mask = mask | (itself & ~mask.any(-1, keepdim=True))
    out = masked_softmax(q @ (q / q.norm(dim=-1, keepdim=True)).mT, mask) @ v
    expected = module.out(out.transpose(1, 2).flatten(2))
    torch.testing.assert_close(module(x, valid)[valid], expected[valid], rtol=1e-10, atol=1e-10)


def test_reformer_puts_like_tokens_together() -> None:
    module = make("reformer", {"rounds": "1", "buckets": "8", "neighbours": "4"}, causal=True, heads=1)
    kinds = tokens(3)
    x = kinds[torch.arange(30) % 3].unsqueeze(0)
    q = module.qk(x).view(1, 1, 30, D_MODEL)
    bucket = module._hash(q, None)[0, 0, 0]
    assert all(len(set(bucket[kind::3].tolist())) == 1 for kind in range(3))


def test_reformer_alone_attends_to_itself() -> None:
    module, x = make("reformer", {}, causal=True), tokens(2, 1)
    torch.testing.assert_close(module(x), module.out(module.v(x)))
