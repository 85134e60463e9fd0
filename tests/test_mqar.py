"""Multi-query associative recall: the generator's semantics, the score and the protocol files."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from zeta_bench.errors import UsageError
from zeta_bench.protocol import find_protocol, points, protocol_files
from zeta_bench.registry import find_task
from zeta_bench.task import IGNORE, Score, select_labelled
from zeta_bench.tasks.mqar import MQAR
from zeta_bench.tasks.mqar.generator import BLOCK, Recipe, Split, draw_block, draw_distinct, draw_slots, slot_law
from zeta_bench.tasks.mqar.meter import MQARMeter, distance_edges
from zeta_bench.tasks.mqar.task import SPLITS

SMALL = {"vocab_size": 64, "seq_len": 32, "pairs": 4, "train_examples": 40, "valid_examples": 30, "test_examples": 20}
PROTOCOLS = ("quick", "small", "matched", "paper", "paper-conv")


def make(**changes: Any) -> MQAR:
    task = MQAR.from_settings({**SMALL, **changes}, "protocol 'x'")
    assert isinstance(task, MQAR)
    return task


def read(task: MQAR, split: Any = "train") -> dict[str, torch.Tensor]:
    examples = task.examples(split)
    return examples.batch(torch.arange(len(examples)))


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    pairs = draw(st.integers(1, 12))
    seq_len = 2 * draw(st.integers(2 * pairs, 40))
    vocab_size = 2 * draw(st.integers(seq_len // 2 + 1, 300))
    return Recipe(vocab_size, seq_len, pairs, draw(st.sampled_from([0.01, 0.5, 1.0, 3.0])), draw(st.booleans()))


def settings_of(recipe: Recipe) -> dict[str, Any]:
    return {key: getattr(recipe, key) for key in ("vocab_size", "seq_len", "pairs", "power_a", "random_filler")}


# The generator


@given(recipe=recipes(), seed=st.integers(0, 2**40))
@settings(max_examples=60, deadline=None)
def test_every_example_follows_the_specification(recipe: Recipe, seed: int) -> None:
    V, k = recipe.vocab_size, recipe.pairs
    batch = read(make(**settings_of(recipe), seed=seed))
    for inputs, labels, distance in zip(batch["inputs"], batch["labels"], batch["distance"], strict=True):
        keys, values = inputs[0 : 2 * k : 2].tolist(), inputs[1 : 2 * k : 2].tolist()
        assert len(set(keys)) == len(set(values)) == k
        assert all(1 <= key < V // 2 for key in keys)
        assert all(V // 2 <= value < V for value in values)
        asked = (labels != IGNORE).nonzero()[:, 0].tolist()
        assert all(place >= 2 * k and place % 2 == 0 for place in asked)
        assert sorted(inputs[asked].tolist()) == sorted(keys), "each key is queried exactly once"
        for place in asked:
            i = keys.index(int(inputs[place]))
            assert labels[place] == values[i]
            assert distance[place] == place - 2 * i
        rest = [place for place in range(2 * k, recipe.seq_len) if place not in asked]
        assert not distance[rest].any()
        assert not distance[: 2 * k].any()
        assert recipe.random_filler or not inputs[rest].any()
        assert 0 <= inputs.min() <= inputs.max() < V


def test_the_batch_has_the_types_of_the_contract() -> None:
    batch = read(make())
    assert {key: (value.dtype, tuple(value.shape)) for key, value in batch.items()} == {
        "inputs": (torch.int64, (40, 32)),
        "labels": (torch.int64, (40, 32)),
        "distance": (torch.int64, (40, 32)),
        "pairs": (torch.int64, (40,)),
    }
    assert all(value.is_contiguous() for value in batch.values())


def test_random_filler_is_uniform_and_moves_nothing_else() -> None:
    plain, filled = (Recipe(64, 32, 4, random_filler=filler) for filler in (False, True))
    (zeros, queries), (inputs, same) = draw_block(plain, 1, "train", 0), draw_block(filled, 1, "train", 0)
    assert (queries == same).all()
    assert (inputs[zeros != 0] == zeros[zeros != 0]).all()
    assert stats.chisquare(np.bincount(inputs[zeros == 0], minlength=64)).pvalue > 1e-3


@pytest.mark.parametrize(
    ("L", "k", "first", "tenth"), [(64, 4, 0.25, 0.38), (256, 16, 0.19, 0.56), (512, 64, 0.17, 0.60)]
)
def test_slot_law_has_the_known_weights(L: int, k: int, first: float, tenth: float) -> None:
    law = slot_law(Recipe(8192, L, k))
    exact = [0.01 * (s + 1) ** (0.01 - 1) for s in range((L - 2 * k) // 2)]
    np.testing.assert_allclose(law, np.array(exact) / sum(exact))
    assert law[0] == pytest.approx(first, abs=0.01)
    assert law[: len(law) // 10].sum() == pytest.approx(tenth, abs=0.01)


@pytest.mark.parametrize("a", [0.01, 1.0])
def test_slots_are_drawn_one_after_another_without_replacement(a: float) -> None:
    recipe, n = Recipe(64, 32, 4, power_a=a), 40_000
    p = slot_law(recipe)
    slots = draw_slots(np.random.default_rng(5), n, recipe.pairs, p)
    assert all(len(set(row)) == recipe.pairs for row in slots[:200].tolist())
    second = np.array([sum(p[t] * p[s] / (1 - p[t]) for t in range(len(p)) if t != s) for s in range(len(p))])
    for column, law in ((0, p), (1, second)):
        assert stats.chisquare(np.bincount(slots[:, column], minlength=len(p)), n * law).pvalue > 1e-3


def test_key_i_is_queried_at_the_slot_drawn_ith() -> None:
    recipe = Recipe(8192, 256, 16)
    law = slot_law(recipe)
    drawn = [draw_block(recipe, 123, "train", index) for index in range(10)]
    queries = np.concatenate([queries for _, queries in drawn])
    assert all((np.take_along_axis(x, q, axis=1) == x[:, 0:32:2]).all() for x, q in drawn)
    counts = np.bincount((queries[:, 0] - 32) // 2, minlength=len(law))
    assert stats.chisquare(counts, len(queries) * law).pvalue > 1e-3


def test_distinct_numbers_are_uniform_over_ordered_choices() -> None:
    drawn = draw_distinct(np.random.default_rng(7), 24_000, 3, 5)
    choices = {choice: place for place, choice in enumerate(itertools.permutations(range(5), 3))}
    counts = np.bincount([choices[tuple(row)] for row in drawn.tolist()], minlength=len(choices))
    assert stats.chisquare(counts).pvalue > 1e-3


# Reproducibility


def test_examples_do_not_depend_on_what_was_read_before_or_on_global_state() -> None:
    torch.manual_seed(0)
    whole = read(make(random_filler=True))
    torch.manual_seed(1)
    examples = make(random_filler=True).examples("train")
    picked = torch.tensor([31, 2, 2, 17])
    examples.batch(torch.tensor([5]))
    part = examples.batch(picked)
    assert all((part[key] == whole[key][picked]).all() for key in whole)


def test_more_examples_begin_with_the_fewer() -> None:
    few, many = make(train_examples=BLOCK + 1), make(train_examples=2 * BLOCK + 7)
    indices = torch.arange(BLOCK + 1)
    assert (few.examples("train").batch(indices)["inputs"] == many.examples("train").batch(indices)["inputs"]).all()


def test_no_example_is_in_two_splits_or_blocks_or_under_two_seeds() -> None:
    recipe = Recipe(8192, 64, 4)
    streams: list[tuple[int, Split, int]] = [
        (1, "train", 0),
        (1, "train", 1),
        (1, "valid", 0),
        (1, "test", 0),
        (2, "train", 0),
    ]
    drawn = [{row.tobytes() for row in draw_block(recipe, seed, split, i)[0]} for seed, split, i in streams]
    assert len(set().union(*drawn)) == len(streams) * BLOCK


def test_slice_examples_come_after_and_leave_the_others_alone() -> None:
    plain, sliced = read(make(), "test"), read(make(slice_pairs=[1, 3]), "test")
    assert sliced["pairs"].tolist() == [4] * 20 + [1] * 20 + [3] * 20
    assert (select_labelled(sliced).sum(1) == sliced["pairs"]).all()
    assert all((sliced[key][:20] == plain[key]).all() for key in plain)
    alone = read(make(pairs=3), "test")
    assert all((sliced[key][40:] == alone[key]).all() for key in alone)
    assert len(make(slice_pairs=[1, 3]).examples("valid")) == 30


def test_digest_changes_with_the_data_and_needs_no_whole_split(monkeypatch: pytest.MonkeyPatch) -> None:
    digest = make().digest()
    assert digest == make().digest()
    assert len(digest) == 16
    others: list[dict[str, Any]] = [
        {"seed": 124},
        {"pairs": 5},
        {"random_filler": True},
        {"train_examples": 41},
        {"slice_pairs": [2]},
    ]
    assert len({digest, *(make(**change).digest() for change in others)}) == 1 + len(others)
    task = make(train_examples=10**9)
    assert task.digest()
    assert task.nbytes() > 10**9
    monkeypatch.setattr("zeta_bench.tasks.mqar.task.VERSION", 99)
    assert make().digest() != digest


def test_nbytes_is_what_the_splits_take() -> None:
    task = make(slice_pairs=[2])
    for split in SPLITS:
        examples = task.examples(split)
        announced = examples.nbytes
        examples.batch(torch.tensor([0]))
        assert announced == sum(array.nbytes for array in examples._drawn)


# The score


def naive_score(logits: torch.Tensor, batch: Mapping[str, torch.Tensor], task: MQAR) -> Score:
    """The same score, example by example and query by query."""
    rows, losses = [], []
    slices: dict[str, dict[str, list[float]]] = {"distance": {}, "pairs": {}}
    edges = (1, *distance_edges(task.data.seq_len))
    answers = iter(logits)
    for labels, distance, pairs in zip(batch["labels"], batch["distance"], batch["pairs"].tolist(), strict=True):
        hits = []
        for label, gap in zip(labels, distance.tolist(), strict=True):
            if label == IGNORE:
                continue
            answer = next(answers)
            hits.append(float(answer.argmax() == label))
            slices["pairs"].setdefault(str(pairs), []).append(hits[-1])
            if pairs == task.data.pairs:
                losses.append(float(F.cross_entropy(answer.double(), label)))
                low, high = next((low, high) for low, high in itertools.pairwise(edges) if low <= gap < high)
                slices["distance"].setdefault(f"{low}–{high - 1}", []).append(hits[-1])
        if pairs == task.data.pairs:
            rows.append(np.mean(hits))
    values = {
        "accuracy": float(np.mean(rows)),
        "loss": float(np.mean(losses)),
        "accuracy_stderr_items": float(stats.sem(rows)),
    }
    parts = {
        name: {key: {"value": float(np.mean(hits)), "count": len(hits)} for key, hits in part.items()}
        for name, part in slices.items()
    }
    return Score(values, parts)


def half_right_logits(batch: Mapping[str, torch.Tensor], V: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    labels = batch["labels"][batch["labels"] != IGNORE]
    logits = torch.randn(len(labels), V, generator=generator)
    helped = torch.rand(len(labels), generator=generator) < 0.5
    logits[helped.nonzero()[:, 0], labels[helped]] += 10.0
    return logits


def score_in_batches(meter: MQARMeter, logits: torch.Tensor, batch: Mapping[str, torch.Tensor], size: int) -> Score:
    counts = select_labelled(dict(batch)).sum(1).split(size)
    parts = zip(*(batch[key].split(size) for key in batch), strict=True)
    for part, some in zip(parts, logits.split([int(count.sum()) for count in counts]), strict=True):
        meter.update(some, dict(zip(batch, part, strict=True)))
    return meter.compute()


@pytest.mark.parametrize("slice_pairs", [[], [1, 3]])
def test_meter_against_a_plain_loop(slice_pairs: list[int]) -> None:
    task = make(seq_len=64, vocab_size=80, slice_pairs=slice_pairs, power_a=1.0)
    batch = read(task, "test")
    logits = half_right_logits(batch, 80)
    found, want = score_in_batches(task.meter(), logits, batch, 7), naive_score(logits, batch, task)
    assert found.values == pytest.approx(want.values, rel=1e-6)
    assert 0.3 < found.values["accuracy"] < 0.8
    assert list(found.slices["distance"]) == ["1–15", "16–31", "32–63"]
    assert found.slices.keys() == want.slices.keys()
    for name, rows in want.slices.items():
        assert found.slices[name].keys() == rows.keys()
        assert all(found.slices[name][key] == pytest.approx(row) for key, row in rows.items())


def test_meters_of_two_devices_add_up() -> None:
    task = make(slice_pairs=[2])
    batch = read(task, "test")
    logits, count = half_right_logits(batch, 64), int((batch["labels"][:13] != IGNORE).sum())
    whole, one, two = task.meter(), task.meter(), task.meter()
    whole.update(logits, batch)
    one.update(logits[:count], {key: value[:13] for key, value in batch.items()})
    two.update(logits[count:], {key: value[13:] for key, value in batch.items()})
    one.merge_state(two)
    assert one.compute() == whole.compute()
    whole.reset()
    whole.update(logits, batch)
    assert one.compute() == whole.compute()


def test_meter_without_enough_examples() -> None:
    task = make(slice_pairs=[2], test_examples=1)
    batch = read(task, "test")
    logits = half_right_logits(batch, 64)
    meter = task.meter()
    meter.update(logits[4:], {key: value[1:] for key, value in batch.items()})
    assert math.isnan(meter.compute().values["accuracy"])
    meter.update(logits[:4], {key: value[:1] for key, value in batch.items()})
    score = meter.compute()
    assert "accuracy_stderr_items" not in score.values
    assert set(score.slices["pairs"]) == {"2", "4"}


def test_chance_and_shape() -> None:
    task = make()
    assert task.chance() == 0.25
    shape = task.shape()
    assert (shape.head, shape.vocab_size, shape.outputs, shape.max_len) == ("lm", 64, 64, 32)


# Settings and protocols


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"seq_len": 31}, "seq_len = 31 must be even"),
        ({"vocab_size": 65}, "vocab_size = 65 must be even"),
        ({"vocab_size": 32}, "above seq_len = 32"),
        ({"pairs": 9}, "at most 8 pairs or a seq_len of at least 36"),
        ({"pairs": 0}, "setting 'pairs'"),
        ({"power_a": 0.0}, "setting 'power_a'"),
        ({"power_a": math.inf}, "setting 'power_a'"),
        ({"slice_pairs": [2, 4]}, "below pairs = 4"),
        ({"slice_pairs": [2, 2]}, "twice"),
        ({"slice_pairs": [0]}, "setting 'slice_pairs.0'"),
        ({"test_examples": 0}, "setting 'test_examples'"),
        ({"random_non_queries": True}, "there is no setting 'random_non_queries'"),
        ({"train_power_a": 0.1}, "did you mean 'power_a'"),
    ],
)
def test_a_mistake_in_the_settings_is_one_plain_sentence(change: dict[str, Any], word: str) -> None:
    with pytest.raises(UsageError) as caught:
        make(**change)
    message = str(caught.value)
    assert message.startswith("protocol 'x', [data]: ")
    assert word in message
    assert "\n" not in message
    assert message.endswith((".", "?"))


def test_a_missing_setting_is_named() -> None:
    with pytest.raises(UsageError, match="setting 'pairs' is missing"):
        MQAR.from_settings({"seq_len": 32}, "protocol 'x'")


def test_every_protocol_file_is_known_here() -> None:
    assert set(protocol_files(find_task("mqar"))) == set(PROTOCOLS)


@pytest.mark.parametrize(
    ("name", "runs"), [("quick", 1), ("small", 1), ("matched", 4 * 2), ("paper", 4**3), ("paper-conv", 4**3)]
)
def test_protocol_loads_and_each_of_its_points_is_valid(name: str, runs: int) -> None:
    protocol = find_protocol("mqar", name)
    assert (protocol.task, protocol.direction, protocol.metric) == ("mqar", "causal", "accuracy")
    found = points(protocol, {})
    assert len(found) == runs
    for point in found:
        task = MQAR.from_settings(point.protocol.data, name)
        epochs = point.protocol.budget.steps * point.protocol.budget.batch_size / len(task.examples("train"))
        assert epochs >= 1
        assert name not in {"paper", "paper-conv"} or epochs == pytest.approx(64, rel=0.005)


def test_only_the_paper_protocol_stands_beside_published_rows_and_chooses_on_test() -> None:
    protocols = {name: find_protocol("mqar", name) for name in PROTOCOLS}
    assert {name: protocol.published for name, protocol in protocols.items() if protocol.published} == {
        "paper": ("MQAR-FIG2",)
    }
    assert {name for name, protocol in protocols.items() if protocol.select.split == "test"} == {"paper", "paper-conv"}


def test_paper_conv_is_paper_with_a_convolution() -> None:
    paper, conv = (find_protocol("mqar", name).model_dump() for name in ("paper", "paper-conv"))
    assert (paper["backbone"].pop("short_conv"), conv["backbone"].pop("short_conv")) == (0, 4)
    for protocol in (paper, conv):
        for key in ("name", "summary", "published"):
            protocol.pop(key)
    assert paper == conv


def test_one_length_of_the_paper_can_be_picked() -> None:
    picked = points(find_protocol("mqar", "paper"), {"data.seq_len": 256, "optim.lr": 2.15e-3, "backbone.d_model": 128})
    (point,) = picked
    assert (point.protocol.data["pairs"], point.protocol.budget.batch_size, point.protocol.budget.steps) == (
        16,
        256,
        25_024,
    )
    assert point.protocol_id == find_protocol("mqar", "paper").id
