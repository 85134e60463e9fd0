"""Several devices: processes of a CPU that talk by gloo, on one machine or on two that this one stands for."""

from __future__ import annotations

import math
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import FirstToken, Uneven, session_in, start, toy_run, train

from zeta_bench.data import BenchDataModule
from zeta_bench.errors import UsageError
from zeta_bench.execution import Execution
from zeta_bench.footprint import BYTES_A_PARAMETER, training_bytes
from zeta_bench.records import Record
from zeta_bench.run import Run, execute, make_model
from zeta_bench.training import BenchModule

SETTINGS = {"budget__steps": 20, "budget__eval_every": 8, "optim__grad_clip": 0.1, "backbone__n_layers": 2}
RUN = f"toy_run(Uneven, **{SETTINGS})"
"""Labels are spread unevenly over the batch, so that a mean of the devices' means would be another loss."""
FSDP: dict[str, Any] = {"devices": 2, "strategy": "fsdp"}


def planned() -> Run:
    """`RUN` in this process."""
    return toy_run(Uneven, **SETTINGS)


def on_two(folder: Path, execution: dict[str, Any], listener: str = "lambda step, row: None", **session: Any) -> Record:
    """The record of `RUN` on two devices; both processes get the same session, and only the first may write."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "CUDA_VISIBLE_DEVICES": ""}
    more = "".join(f", {name}={value!r}" for name, value in session.items())
    both = []
    for rank in range(2):
        where = {"NODE_RANK": str(rank)} if "nodes" in execution else {"NODE_RANK": "0", "LOCAL_RANK": str(rank)}
        mine = f"session = session_in(pathlib.Path({str(folder / f'rank{rank}')!r}), {execution}, keep=True{more}); "
        both.append(start(f"{mine}execute({RUN}, session, {listener})", **place, **where))
    errors = [process.communicate(timeout=180)[1].decode() for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    assert not list((folder / "rank1").rglob("*.json")), "only the first process writes"
    (path,) = (folder / "rank0" / "runs" / "run").rglob("*.json")
    return Record.model_validate_json(path.read_text())


def kept(folder: Path) -> dict[str, Any]:
    """The only checkpoint of a folder."""
    (path,) = (folder / "checkpoints").iterdir()
    state: dict[str, Any] = torch.load(path, weights_only=True)
    return state


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> tuple[Record, dict[str, Any]]:
    """The run on one device, and its state at the end."""
    folder = tmp_path_factory.mktemp("one")
    record = train(planned(), folder, keep=True)
    return record, kept(folder)


def assert_the_same(record: Record, state: dict[str, Any], one: tuple[Record, dict[str, Any]]) -> None:
    """But for rounding: the curve, the figures, the weights and the optimiser's state, number by number."""
    assert (record.tokens, record.slices) == (one[0].tokens, one[0].slices)
    for mine, yours in zip(one[0].curve, record.curve, strict=True):
        assert {**yours, "seconds": 0} == pytest.approx({**mine, "seconds": 0}, rel=1e-4)
    for name, value in one[1]["state_dict"].items():
        torch.testing.assert_close(state["state_dict"][name], value, rtol=1e-3, atol=1e-4)
    mine, yours = (found["optimizer_states"][0] for found in (one[1], state))
    assert mine["param_groups"] == yours["param_groups"]
    torch.testing.assert_close(yours["state"], mine["state"], rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize(
    "execution",
    [
        pytest.param({"devices": 2}, id="ddp"),
        pytest.param({"devices": 2, "micro_batch": 5}, id="ddp-micro", marks=pytest.mark.slow),
        pytest.param({"nodes": 2}, id="two-nodes"),
        pytest.param(FSDP, id="fsdp"),
        pytest.param({**FSDP, "micro_batch": 5, "recompute": True}, id="fsdp-micro"),
    ],
)
def test_two_devices_do_what_one_does(
    execution: dict[str, Any], one: tuple[Record, dict[str, Any]], tmp_path: Path
) -> None:
    record = on_two(tmp_path, execution)
    state = kept(tmp_path / "rank0")
    assert_the_same(record, state, one)
    assert (record.status, record.devices) == (one[0].status, 2)
    assert record.execution == {name: value for name, value in execution.items() if name not in ("devices", "nodes")}
    assert state["zeta_bench"]["loss_count"] == 0 == math.floor(state["zeta_bench"]["loss_sum"])
    assert state["zeta_bench"]["devices"] == 2


def test_a_state_shared_out_is_taken_up_by_one_device(one: tuple[Record, dict[str, Any]], tmp_path: Path) -> None:
    ask = "lambda step, row: setattr(session.stop, 'requested', session.stop.requested or step == 9)"
    stopped = on_two(tmp_path, FSDP, ask)
    assert (stopped.status, stopped.steps) == ("interrupted", 10)
    session = session_in(tmp_path / "rank0", resume=True, keep=True)
    assert session.moved(planned()).startswith("the state is of 2 devices and goes on with 1 device: with the same ba")
    assert session_in(tmp_path / "rank0", FSDP, resume=True).moved(planned()) == ""
    record = execute(planned(), session, lambda step, row: None)
    assert_the_same(record, kept(tmp_path / "rank0"), one)


def test_a_state_of_one_device_is_shared_out(one: tuple[Record, dict[str, Any]], tmp_path: Path) -> None:
    for rank in range(2):
        session = session_in(tmp_path / f"rank{rank}")
        execute(planned(), session, lambda step, row, asked=session.stop: setattr(asked, "requested", step >= 9))
    for path in (tmp_path / "rank1" / "runs").rglob("*.json"):
        path.unlink()
    record = on_two(tmp_path, FSDP, resume=True)
    assert_the_same(record, kept(tmp_path / "rank0"), one)


def test_what_several_devices_cannot_do_is_one_sentence_before_any_training() -> None:
    with pytest.raises(UsageError, match=r"^--strategy fsdp shares a model out among several devices; add --devices N"):
        Execution(strategy="fsdp").check(accelerated=False)
    three = Execution(devices=3, strategy="fsdp")
    with pytest.raises(UsageError, match=r"batch_size = 32 cannot be dealt out to 3 devices evenly; take a number"):
        three.check_run(toy_run())
    three.check_run(toy_run(budget__batch_size=33))


def test_the_memory_of_a_device_is_of_what_goes_through_it_at_once() -> None:
    run = toy_run(budget__batch_size=32)
    module = BenchModule(make_model(run), run.task, run.protocol, ("valid",))
    weights = sum(p.numel() for p in module.parameters()) * BYTES_A_PARAMETER
    whole = training_bytes(run, module)
    for execution in (Execution(devices=4), Execution(micro_batch=8), Execution(devices=2, micro_batch=8)):
        assert execution.at_once(32) == 8
        assert training_bytes(run, module, execution) - weights == pytest.approx((whole - weights) / 4, rel=0.1)
    shared = training_bytes(run, module, Execution(devices=4, strategy="fsdp"))
    assert training_bytes(run, module, Execution(devices=4)) - shared == pytest.approx(0.75 * weights, abs=4)
    assert Execution(devices=3).at_once(32) == 11
    assert Execution(micro_batch=64).at_once(32) == 32


@pytest.mark.parametrize(("batch", "world"), [(32, 3), (4, 3), (3, 3), (64, 7), (2, 2)])
def test_every_device_has_as_many_batches_of_a_split(batch: int, world: int) -> None:
    """Where devices wait for each other in each forward pass, one with a batch more would wait for ever."""

    class Trainer:
        world_size = world

    seen, counts = [], set()
    for rank in range(world):
        data = BenchDataModule(FirstToken(), batch_size=batch, steps=1, seed=0, eval_splits=("valid",))
        data.trainer = Trainer()  # type: ignore[assignment]
        data.trainer.global_rank = rank  # type: ignore[misc, union-attr]
        parts = list(data.split_loader("valid").sampler)
        assert all(0 < len(part) <= max(batch // world, 1) + 1 for part in parts)
        counts.add(len(parts))
        seen += torch.cat(parts).tolist()
    assert len(counts) == 1
    assert sorted(seen) == list(range(100))
