"""`ZetaAttention` as a module: what learns, what it selects, what it says of itself, and that it learns to recall."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from toys import train

from zeta_bench import ops
from zeta_bench.attention import AttentionSpec, build
from zeta_bench.diagnostics import examples_to_see
from zeta_bench.errors import UsageError
from zeta_bench.presets import ATTENTION
from zeta_bench.protocol import find_protocol
from zeta_bench.records import Store
from zeta_bench.registry import find_variant
from zeta_bench.run import plan
from zeta_bench.settings import make_settings
from zeta_bench.zeta import ZetaAttention, ZetaConfig

N, H = 40, 2
SEARCHES = ("zorder", "exact", "local", "random", "all", "none")
SCORES = ("cauchy", "neg-euclid", "inv-euclid", "dot")
ROUTES = ("f_q.hidden", "f_q.last", "f_k.hidden", "f_k.last")  # by which the loss reaches the coordinates


def zeta(*, causal: bool = True, layer: int = 0, heads: int = H, seed: int = 0, **config: Any) -> ZetaAttention:
    """A small module in float64, with coordinates spread over the whole range."""
    torch.manual_seed(seed)
    spec = AttentionSpec(d_model=16, n_heads=heads, max_len=64, causal=causal, layer=layer)
    module = ZetaAttention(spec, ZetaConfig(**{"k": 5, "chunk": 1, **config})).double()
    with torch.no_grad():
        for projection in (module.f_q, module.f_k):
            projection.last.weight.mul_(8)
    return module


def inputs(B: int = 3, length: int = N, seed: int = 1) -> torch.Tensor:
    return torch.randn(B, length, 16, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def some_padding(B: int = 3) -> torch.Tensor:
    return torch.arange(N) < torch.tensor([[N], [25], [7]])[:B]


def rows(index: torch.Tensor) -> dict[tuple[int, int, int], list[int]]:
    """Keys of each (sequence, head, query), without the places that hold none."""
    places = itertools.product(*(range(n) for n in index.shape[:3]))
    return {place: [j for j in index[place].tolist() if j >= 0] for place in places}


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("search", SEARCHES)
def test_gradients_reach_what_the_output_depends_on(search, score):
    module = zeta(search=search, score=score, gamma_per_head=True)
    module(inputs())[..., :3].square().sum().backward()
    size = {name: 0.0 if p.grad is None else p.grad.abs().max().item() for name, p in module.named_parameters()}
    assert size["value.weight"] > 0
    assert size["out.weight"] > 0
    choice = search != "none"  # one key alone, the mean token, has the weight 1 whatever its distance
    for route in ROUTES:
        assert (size[f"{route}.weight"] > 1e-9) == choice, route
    assert (module.gamma_logit.grad is not None and module.gamma_logit.grad.abs().min() > 1e-12) == (
        choice and score != "dot"
    )


def test_gradients_reach_the_coordinates_without_search_through_a_window():
    module = zeta(search="none", local_window=4)
    module(inputs()).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 1e-9 for p in module.parameters())


def test_presets_are_their_overrides_and_differ_from_one_another():
    spec = AttentionSpec(d_model=16, n_heads=H, max_len=64)
    outputs = {}
    for name, variant in ATTENTION.items():
        torch.manual_seed(0)
        preset = build(find_variant(name), spec)
        torch.manual_seed(0)
        by_hand = ZetaAttention(spec, ZetaConfig(**variant.overrides))
        assert preset.config == by_hand.config
        x = inputs(length=60).float()
        outputs[name] = preset(x)
        assert torch.equal(outputs[name], by_hand(x))
    for a, b in itertools.combinations(outputs, 2):
        assert not torch.allclose(outputs[a], outputs[b]), (a, b)


def test_the_published_form_is_the_default():
    published = build(find_variant("zeta"), AttentionSpec(d_model=16, n_heads=H, max_len=64)).config
    assert published == ZetaConfig()
    wanted = {"d_k": 3, "k": 32, "chunk": 16, "search": "zorder", "mean": True, "score": "cauchy", "projection": "mlp"}
    assert wanted.items() <= published.model_dump().items()
    assert isinstance(ZetaAttention.version, int)


@pytest.mark.parametrize(("per_head", "count"), [(False, 1), (True, H)])
def test_gamma_starts_where_it_is_set_and_stays_inside_0_and_1(per_head, count):
    module = zeta(gamma_per_head=per_head, gamma_init=0.2)
    assert module.gamma_logit.shape == (count,)
    torch.testing.assert_close(module.gamma, torch.full((H,), 0.2, dtype=torch.float64), rtol=1e-6, atol=0)
    for logit in (-15.0, 15.0):
        torch.nn.init.constant_(module.gamma_logit, logit)
        assert ((module.gamma > 0) & (module.gamma < 1)).all()
        assert module(inputs()).isfinite().all()
    torch.nn.init.constant_(module.gamma_logit, -800.0)  # rounds to 0: the op's floor keeps the weights finite
    assert module(inputs()).isfinite().all()


@pytest.mark.parametrize("projection", ["mlp", "linear"])
def test_autocast_merges_no_codes(projection):
    spec = AttentionSpec(d_model=16, n_heads=H, max_len=4096)
    module, x = ZetaAttention(spec, ZetaConfig(d_k=1, bits=20, projection=projection)), torch.randn(1, 4096, 16)
    with torch.autocast("cpu", torch.bfloat16):
        q, k = module.coordinates(x)
        assert module(x).isfinite().all()
    assert q.dtype == k.dtype == torch.float32
    assert k.abs().max() <= 1
    found, rounded = (len(ops.morton_encode(t, bits=20)[0, 0].unique()) for t in (k, k.bfloat16()))
    assert found > 0.95 * len(ops.morton_encode(module.coordinates(x)[1], bits=20)[0, 0].unique())
    assert rounded < 0.5 * found, "the test would not see merged codes"


def test_coordinates_are_float64_in_float64_and_bounded_either_way():
    for bound in ("tanh", "clip"):
        q, k = zeta(bound=bound).coordinates(inputs() * 10)
        assert q.dtype == k.dtype == torch.float64
        assert q.shape == (3, H, N, 3)
        assert max(q.abs().max(), k.abs().max()) <= 1


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(("causal", "chunk"), [(True, 1), (True, 16), (False, 1)])
@pytest.mark.parametrize("window", [0, 4])
@pytest.mark.parametrize("search", SEARCHES)
def test_select_takes_permitted_keys_and_none_twice(search, window, causal, chunk, padded):
    module, valid = zeta(causal=causal, chunk=chunk, search=search, local_window=window), some_padding()
    q, k = module.coordinates(inputs())
    found = rows(module.select(q, k, valid if padded else None))
    for (b, _, i), keys in found.items():
        assert len(keys) == len(set(keys)), "a key stands twice"
        real = [j for j in range(N) if not padded or valid[b, j]]
        limit = N if not causal else i + 1 if chunk == 1 else i // chunk * chunk
        permitted = {j for j in real if j < limit}
        newest = {j for j in real if j <= i or not causal} if window else set()
        assert set(keys) <= permitted | newest
        want = 0 if search == "none" else min(5, len(permitted))
        assert len(keys) >= max(want, min(window, len(newest)))


def test_a_local_window_is_a_union_with_the_newest_keys():
    plain, hybrid = zeta(), zeta(local_window=6)
    q, k = plain.coordinates(inputs())
    alone, both = rows(plain.select(q, k, None)), rows(hybrid.select(q, k, None))
    for (b, h, i), keys in both.items():
        assert set(keys) == set(alone[b, h, i]) | set(range(max(0, i - 5), i + 1))


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("content", [False, True])
@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize(("causal", "chunk", "window"), [(True, 1, 0), (True, 16, 4), (False, 1, 0)])
@pytest.mark.parametrize("score", SCORES)
def test_every_key_is_what_the_search_finds_with_as_many_keys_as_there_are(
    score, causal, chunk, window, mean, content, padded
):
    how = {"score": score, "chunk": chunk, "local_window": window, "mean": mean, "content": content, "causal": causal}
    every, found = zeta(search="all", **how), zeta(search="exact", k=N, **how)
    every.load_state_dict(found.state_dict())
    x, valid = inputs(), some_padding() if padded else None
    outputs = [module(x, valid) for module in (every, found)]
    torch.testing.assert_close(*outputs)
    for output in outputs:
        output.square().sum().backward()
    for name, p in every.named_parameters():
        torch.testing.assert_close(
            p.grad, found.get_parameter(name).grad, msg=lambda told, name=name: f"{name}: {told}"
        )


def test_random_keys_are_fixed_and_differ_between_layers_and_heads_but_not_with_the_length():
    first, again, deeper = (zeta(search="random", layer=layer) for layer in (0, 0, 1))
    index = [module.select(*module.coordinates(inputs(seed=s)), None) for s, module in enumerate((first, again))]
    assert torch.equal(*index), "the keys depend on the input or on the call"
    assert torch.equal(index[0][0], index[0][1]), "sequences of a batch differ"
    late = slice(20, None)  # where there is a choice
    assert not torch.equal(index[0][:, 0, late], index[0][:, 1, late])
    assert not torch.equal(index[0][:, :, late], deeper.select(*deeper.coordinates(inputs()), None)[:, :, late])
    short = first.select(*first.coordinates(inputs(length=23)), None)
    assert torch.equal(short, index[0][:, :, :23])
    counts = torch.bincount(index[0][0, :, late].flatten().long(), minlength=N)
    assert counts[:20].count_nonzero() > 12, "old keys are hardly ever drawn"


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("chunk", [1, 4])
def test_diagnose_finds_the_recall_that_brute_force_finds(chunk, padded):
    module, x, valid = zeta(chunk=chunk), inputs(), some_padding() if padded else None
    q, k = module.coordinates(x)
    found = rows(module.select(q, k, valid))
    shares: list[list[float]] = [[] for _ in range(H)]
    for (b, h, i), keys in found.items():
        limit = i + 1 if chunk == 1 else i // chunk * chunk
        permitted = [j for j in range(limit) if not padded or valid[b, j]]
        if len(permitted) > 5 and (not padded or valid[b, i]):
            near = sorted(permitted, key=lambda j, b=b, h=h, i=i: ((q[b, h, i] - k[b, h, j]) ** 2).sum().item())[:5]
            shares[h].append(len(set(near) & set(keys)) / 5)
    report = module.diagnose(x, valid)
    assert report["recall"] == pytest.approx([sum(s) / len(s) for s in shares], rel=1e-5)
    assert 0.2 < report["recall"][0] < 1
    assert report["gamma"] == pytest.approx([0.5, 0.5])
    assert all(0.9 < share <= 1 for share in report["distinct_codes"])


def test_diagnose_knows_the_oracle_and_says_nothing_where_there_is_no_choice():
    assert zeta(search="exact").diagnose(inputs())["recall"] == [1.0, 1.0]
    assert zeta(search="none").diagnose(inputs())["recall"] == [0.0, 0.0]
    assert zeta(k=N).diagnose(inputs())["recall"] == [None, None]
    assert zeta(k=7).diagnose(inputs(), some_padding()[2:].expand(3, N))["recall"] == [None, None]


def test_diagnose_counts_queries_without_a_key():
    assert zeta(chunk=16).diagnose(inputs())["empty"] == pytest.approx([16 / N] * H)
    assert zeta(chunk=1).diagnose(inputs())["empty"] == [0.0] * H
    assert zeta(chunk=16, local_window=4).diagnose(inputs())["empty"] == [0.0] * H
    real = some_padding()  # 40, 25 and 7 real queries, of which 16, 16 and 7 see no chunk before their own
    assert zeta(chunk=16).diagnose(inputs(), real)["empty"] == pytest.approx([(16 + 16 + 7) / (40 + 25 + 7)] * H)


MISTAKES = {
    "k": (0, "setting 'k' = 0"),
    "d_k": ("three", "setting 'd_k' = 'three'"),
    "chunk": (-1, "setting 'chunk' = -1"),
    "search": ("nearest", "setting 'search' = 'nearest'"),
    "gamma_init": (1.0, "setting 'gamma_init' = 1.0"),
    "bits": (64, "bits = 64 are more than the 63 of a code"),
    "local_windw": (4, "there is no setting 'local_windw'; did you mean 'local_window'?"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistaken_setting_is_one_sentence(name):
    value, expected = MISTAKES[name]
    with pytest.raises(UsageError) as caught:
        make_settings(ZetaConfig, {name: value}, "variant 'zeta'")
    message = str(caught.value)
    assert message.startswith(f"variant 'zeta': {expected}")
    assert "\n" not in message
    assert message[-1] in ".?"


def test_nothing_to_attend_is_a_mistake():
    with pytest.raises(UsageError, match=r"leaves nothing to attend; switch one of them on\.$"):
        make_settings(ZetaConfig, {"search": "none", "mean": False}, "variant 'zeta'")


def test_zeta_token_leaves_chance_on_easy_recall_and_says_what_its_search_does(tmp_path):
    sets = {"budget.steps": 160, "budget.eval_every": 20, "budget.stop_above": 0.5, "data.train_examples": 20_480}
    sets |= {"data.valid_examples": 300, "data.test_examples": 300}
    (run,) = plan("mqar", find_protocol("mqar", "quick"), [find_variant("zeta-token:k=8")], [0], sets)
    record = train(run, tmp_path, diagnose=True)
    assert record.status == "ok", record.reason
    assert record.value > 0.45 > record.chance + 0.15
    (analysis,) = Store(tmp_path / "runs").records("analysis")
    assert analysis.payload["examples"] == 64
    assert [set(layer) for layer in analysis.payload["layers"]] == [{"recall", "gamma", "distinct_codes", "empty"}] * 2
    for layer in analysis.payload["layers"]:
        assert 8 / 32 < layer["recall"][0] <= 1
        assert layer["empty"] == [0.0]


def test_diagnose_looks_at_fewer_sequences_where_they_are_long():
    assert [examples_to_see(1000, length) for length in (32, 512, 2048, 4096, 2**16)] == [64, 64, 4, 1, 1]
    assert examples_to_see(10, 32) == 10
