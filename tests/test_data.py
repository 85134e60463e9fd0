"""Which examples come at which step: a function of (seed, step) alone, whatever the start, the workers, the devices."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import SIZES, FindMark, FirstToken, Toy, toy_run, train

from zeta_bench.data import BatchStream, BenchDataModule
from zeta_bench.errors import UsageError

ADVICE = r"budget\.batch_size = 9 .*; (lower|raise) it\.$"


class Place:
    """What a data module asks of its trainer."""

    def __init__(self, rank: int, world: int) -> None:
        self.global_rank, self.world_size = rank, world


def module(toy: type[Toy] = FindMark, **settings) -> BenchDataModule:
    content = {"batch_size": 32, "steps": 20, "seed": 3, "eval_splits": ("valid", "test"), **settings}
    return BenchDataModule(toy(), **content)


def stream(size: int = 50, batch: int = 8, **settings) -> list[list[int]]:
    content = {"seed": 0, "steps": 20, **settings}
    return [indices.tolist() for indices in BatchStream(size, batch, **content)]


def equal(a: list[dict], b: list[dict]) -> bool:
    return len(a) == len(b) and all(
        x.keys() == y.keys() and all(torch.equal(x[key], y[key]) for key in x) for x, y in zip(a, b, strict=True)
    )


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(1, 60),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**31),
    steps=st.integers(0, 40),
    start=st.integers(0, 45),
)
def test_starting_anywhere_gives_what_an_uninterrupted_run_gets(size, share, seed, steps, start):
    batch = max(1, int(size * share))
    whole = stream(size, batch, seed=seed, steps=steps)
    rest = BatchStream(size, batch, seed=seed, steps=steps, start=start)
    assert [indices.tolist() for indices in rest] == whole[start:]
    assert len(rest) == len(whole[start:])
    assert len(whole) == steps


def test_a_stream_ignores_and_leaves_alone_the_global_random_numbers():
    torch.manual_seed(1)
    first, expected = stream(), torch.rand(3)
    torch.manual_seed(1)
    torch.rand(100)
    assert stream() == first
    torch.manual_seed(1)
    stream()
    assert torch.equal(torch.rand(3), expected)


def test_seeds_order_the_examples_differently():
    assert stream(seed=0) != stream(seed=1)


def test_an_epoch_sees_no_example_twice_drops_its_partial_batch_and_the_next_is_shuffled_anew():
    batches = stream(50, 8, steps=18)  # 6 whole batches an epoch, 2 examples left over
    epochs = [[i for indices in batches[e * 6 : e * 6 + 6] for i in indices] for e in range(3)]
    for epoch in epochs:
        assert len(epoch) == len(set(epoch)) == 48
        assert set(epoch) <= set(range(50))
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert len({frozenset(range(50)) - frozenset(epoch) for epoch in epochs}) > 1, "the same examples are left out"


def test_every_example_is_reached_in_time():
    assert {i for indices in stream(50, 8, steps=60) for i in indices} == set(range(50))


@pytest.mark.parametrize("world", [2, 3, 8])
def test_devices_partition_each_batch(world):
    whole = stream(50, 8)
    parts = [stream(50, 8, rank=rank, world=world) for rank in range(world)]
    for step, batch in enumerate(whole):
        shares = [part[step] for part in parts]
        assert sorted(i for share in shares for i in share) == sorted(batch)
        assert all(shares)


@pytest.mark.parametrize(("size", "world"), [(8, 1), (100, 10)])
def test_a_batch_that_cannot_be_had_is_one_sentence(size, world):
    with pytest.raises(UsageError, match=ADVICE):
        BatchStream(size, 9, seed=0, steps=1, world=world)


def test_a_run_with_too_large_a_batch_is_misuse_and_leaves_no_record(tmp_path):
    with pytest.raises(UsageError, match=r"budget\.batch_size = 513 is more than the 512 training examples"):
        train(toy_run(budget__batch_size=513), tmp_path)
    assert not list(tmp_path.rglob("*.json"))


def test_workers_change_no_bit():
    batches = [list(module(steps=6, workers=workers).train_dataloader()) for workers in (0, 2)]
    assert equal(*batches)
    assert len(batches[0]) == 6
    assert batches[0][0]["inputs"].shape == (32, 12)


def test_a_resumed_loader_goes_on_where_the_other_stopped():
    whole, rest = list(module().train_dataloader()), module()
    rest.start = 13
    assert equal(list(rest.train_dataloader()), whole[13:])


@pytest.mark.parametrize("world", [1, 2, 3])
def test_an_evaluation_reads_every_example_once(world):
    for number, split in enumerate(("valid", "test")):
        seen = []
        for rank in range(world):
            data = module(FirstToken)
            data.trainer = Place(rank, world)
            batches = list(data.val_dataloader()[number])
            assert all(len(batch["labels"]) <= 32 for batch in batches)
            seen += [batch["inputs"] for batch in batches]
        rows = torch.cat(seen)
        assert len(rows) == SIZES[split]
        everything = FirstToken().examples(split).all["inputs"]
        assert sorted(rows.tolist()) == sorted(everything.tolist())
        assert world > 1 or torch.equal(rows, everything), "not in the split's own order"


def test_no_device_is_idle_in_an_evaluation_smaller_than_a_batch():
    for rank in range(4):
        data = module(batch_size=400)
        data.trainer = Place(rank, 4)
        assert [len(batch["labels"]) for batch in data.split_loader("valid")] == [25]


def test_the_test_split_is_the_one_that_is_tested():
    rows = torch.cat([batch["inputs"] for batch in module().test_dataloader()])
    assert torch.equal(rows, FindMark().examples("test").all["inputs"])
