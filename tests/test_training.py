"""Training: what an interruption leaves, what a resumed run gets, what is selected, and what a run ends as."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import TOYS, FindMark, FirstToken, Toy, Uneven, defect, session_in, start, toy_run, train

from zeta_bench.attention import AttentionSpec
from zeta_bench.backbone import Model
from zeta_bench.callbacks import Checkpoint, StopRequest, checkpoint_step
from zeta_bench.data import BatchStream, BenchDataModule
from zeta_bench.errors import UsageError, ZetaBenchError
from zeta_bench.execution import Execution, make_trainer
from zeta_bench.optimizer import parameter_groups, schedule
from zeta_bench.protocol import Optim
from zeta_bench.records import Record
from zeta_bench.run import Run, execute, make_model
from zeta_bench.training import BenchModule
from zeta_bench.zeta import ZetaAttention

DROPOUT = {"backbone__dropout": 0.2, "backbone__embed_dropout": 0.1, "backbone__attn_dropout": 0.1}
SHORT = {"budget__steps": 30, "budget__eval_every": 10, **DROPOUT}
BEST = {"select": {"split": "test", "step": "best"}, "budget__eval_every": 10}


def go(run: Run, folder: Path, *stops: int, resume: bool = False, **execution: Any) -> tuple[Record, dict]:
    """Run, asking to stop after each of some steps and resuming each time; the record and the last checkpoint."""
    for number, stop in enumerate((*stops, None)):
        session = session_in(folder, execution, keep=True, resume=resume or number > 0)

        def ask(step: int, row: Any, stop: int | None = stop, session: Any = session) -> None:
            session.stop.requested |= step == stop

        record = execute(run, session, ask)
        assert (record.status == "interrupted") == (stop is not None), record.reason
    return record, torch.load(session.checkpoint(run), weights_only=True)


def curve(record: Record) -> list[dict]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in record.curve]


def assert_same(a: tuple[Record, dict], b: tuple[Record, dict]) -> None:
    """Bit for bit, but for the clock."""
    assert curve(a[0]) == curve(b[0])
    assert (a[0].metrics, a[0].slices, a[0].selected_step) == (b[0].metrics, b[0].slices, b[0].selected_step)
    assert a[1]["global_step"] == b[1]["global_step"]
    mine, yours = ([found["state_dict"], found["optimizer_states"][0]["state"]] for _, found in (a, b))
    torch.testing.assert_close(mine, yours, rtol=0, atol=0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Record, dict]:
    """An uninterrupted run with dropout."""
    return go(toy_run(**SHORT), tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("stops", [(3,), (9,), (10,), (16,), (19, 21), (4, 12, 25), (28,)])
def test_an_interrupted_run_ends_as_an_uninterrupted_one(stops, whole, tmp_path):
    assert_same(go(toy_run(**SHORT), tmp_path, *stops), whole)
    assert [row["step"] for row in whole[0].curve] == [10, 20, 30]
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize("stops", [(2,), (5, 14)])
def test_resuming_keeps_to_the_selected_step_and_to_the_bound(stops, tmp_path):
    run = toy_run(FindMark, "reformer", seed=1, budget__steps=60, **DROPOUT, **BEST, budget__stop_above=0.8)
    a, b = go(run, tmp_path / "a"), go(run, tmp_path / "b", *stops)
    assert_same(a, b)
    assert a[0].steps < 60
    assert_same(a, go(run, tmp_path / "b", resume=True))  # the checkpoint of a run that has ended goes no further


def test_an_attention_that_draws_random_numbers_is_evaluated_the_same_again(tmp_path):
    run = toy_run(attn=defect("Noisy"), **SHORT)
    record, state = go(run, tmp_path, 13)
    assert_same((record, state), go(run, tmp_path, resume=True))  # killed before its record was written, say
    module = BenchModule(make_model(run), run.task, run.protocol, ("valid",))
    data = BenchDataModule(run.task, batch_size=32, steps=30, seed=0, eval_splits=("valid",))
    trainer = make_trainer(run, Execution(), [], accelerated=False)
    trainer.fit(module, datamodule=data)
    before = [dict(row) for row in module.curve]
    trainer.validate(module, datamodule=data, verbose=False)
    assert module.curve == before
    assert record.curve[-1]["valid_loss"] == before[-1]["valid_loss"]


def test_a_request_to_stop_at_the_last_step_lets_the_run_finish(whole, tmp_path):
    session = session_in(tmp_path, keep=True)
    record = execute(toy_run(**SHORT), session, lambda step, row: setattr(session.stop, "requested", step >= 29))
    assert (record.status, record.metrics) == ("ok", whole[0].metrics)


def test_a_killed_run_goes_on_from_its_last_checkpoint(whole, tmp_path):
    kill = "lambda step, row: step == 17 and os.kill(os.getpid(), signal.SIGKILL)"
    killed = start(f"execute(toy_run(**{SHORT}), session_in(pathlib.Path({str(tmp_path)!r})), {kill})")
    message = killed.communicate(timeout=120)[1]
    assert killed.returncode == -signal.SIGKILL, message
    (left,) = (path for path in tmp_path.rglob("*") if path.is_file())
    assert checkpoint_step(left, toy_run(**SHORT).protocol) == 10
    session = session_in(tmp_path, keep=True, resume=True)
    record = execute(toy_run(**SHORT), session, lambda step, row: None)
    assert_same((record, torch.load(left, weights_only=True)), whole)


def test_evaluating_more_often_changes_no_weight(whole, tmp_path):
    other = go(toy_run(**{**SHORT, "budget__eval_every": 3}), tmp_path)
    assert all(torch.equal(value, whole[1]["state_dict"][name]) for name, value in other[1]["state_dict"].items())
    assert other[0].metrics == whole[0].metrics


def test_a_failure_while_saving_leaves_the_checkpoint_before_it(tmp_path):
    class FullDisk:
        is_global_zero = True

        def save_checkpoint(self, path: Path) -> None:
            path.write_bytes(b"half of it")
            raise OSError(28, "No space left on device")

    path = tmp_path / "run.ckpt"
    path.write_bytes(b"the one before")
    with pytest.raises(ZetaBenchError, match=r"^cannot write the checkpoint .*run\.ckpt: No space left on device\.$"):
        Checkpoint(path, StopRequest()).save(FullDisk())
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("run.ckpt", b"the one before")]


def test_a_damaged_or_foreign_checkpoint_is_one_sentence_before_any_training(tmp_path):
    run = toy_run(**SHORT)
    go(run, tmp_path)
    (path,), (record,) = (list(tmp_path.rglob(kind)) for kind in ("*.ckpt", "*.json"))
    whole, before = path.read_bytes(), record.read_bytes()
    with pytest.raises(UsageError, match=r"is of another protocol; run again without --resume\.$"):
        checkpoint_step(path, toy_run(optim__lr=1.0).protocol)
    for content in (whole[:-100], whole[: len(whole) // 2], b"", b"junk"):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=r"is damaged \(\w+\); delete it, or run again without --resume\.$"):
            train(run, tmp_path, resume=True)
    torch.save({"state_dict": {}}, path)
    with pytest.raises(UsageError, match="is damaged"):
        checkpoint_step(path, run.protocol)
    assert record.read_bytes() == before


def rates(**settings: Any) -> list[float]:
    factor = schedule(Optim(lr=1.0, **settings), 100)
    return [factor(step) for step in range(100)]


def test_schedules():
    assert rates(schedule="constant") == [1.0] * 100
    assert rates(schedule="constant", warmup=4)[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    cosine = rates(warmup=20)
    assert cosine[19] == cosine[20] == max(cosine) == 1
    assert cosine[60] == pytest.approx(0.5)
    assert 0 < cosine[-1] < 0.001
    linear = rates(schedule="linear", floor=0.2)
    assert linear == pytest.approx([1 - 0.8 * step / 100 for step in range(100)])
    root = rates(schedule="inverse-sqrt", warmup=16)
    assert (root[15], root[16], root[64]) == (1.0, 1.0, 0.5)
    stairs, smooth = rates(schedule_every=25), rates()
    assert stairs == [smooth[step // 25 * 25] for step in range(100)]
    assert all(0.1 <= rate <= 1 for rate in rates(floor=0.1))
    beyond = schedule(Optim(lr=1.0, floor=0.1), 100)
    assert beyond(100) == beyond(170) == pytest.approx(0.1)


def test_the_optimiser_follows_the_schedule(tmp_path):
    _, state = go(toy_run(optim__warmup=40, **SHORT), tmp_path)
    assert state["lr_schedulers"][0]["_last_lr"] == pytest.approx([1e-2 * 31 / 40] * 2)


@pytest.mark.parametrize("attn", ["zeta-token:gamma_per_head=true", "vanilla"])
def test_decay_leaves_vectors_and_scalars_out_unless_it_is_for_all(attn):
    model = make_model(toy_run(FindMark, attn, backbone__short_conv=3, backbone__pooling="cls"))
    names = {id(p): name for name, p in model.named_parameters()}
    decayed, plain = parameter_groups(model, Optim(lr=1.0, weight_decay=0.3))
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.3, 0.0)
    spared = {names[id(p)] for p in plain["params"]}
    assert all(any(part in name for part in ("bias", "norm", "gamma", "mlp.0", "cls")) for name in spared)
    assert {"norm.weight", "blocks.0.norm.bias", "blocks.0.conv.conv.bias", "cls", "head.bias"} <= spared
    assert ("blocks.0.attention.gamma_logit" in spared) == attn.startswith("zeta")
    assert len(decayed["params"]) + len(spared) == len(names)
    everything, nothing = parameter_groups(model, Optim(lr=1.0, decay="all"))
    assert (len(everything["params"]), nothing["params"]) == (len(names), [])


def test_a_parameter_shaped_to_broadcast_over_heads_counts_as_a_vector():
    module = ZetaAttention(AttentionSpec(d_model=8, n_heads=2, max_len=8))
    module.sharpness = torch.nn.Parameter(torch.ones(2, 1, 1))
    assert any(p is module.sharpness for p in parameter_groups(module, Optim(lr=1.0))[1]["params"])


def test_slow_parameters_have_a_learning_rate_of_their_own_under_protocols_that_say_so() -> None:
    run = toy_run(attn="s4d", backbone__n_layers=2)
    model = make_model(run)
    names = ("log_dt", "log_decay", "frequency")
    slow = {id(layer.get_parameter(name)) for layer in model.attentions() for name in names}
    assert len(parameter_groups(model, Optim(lr=1e-2))) == 2
    for decay in ("matrices", "all"):
        *rest, own = parameter_groups(model, Optim(lr=1e-2, slow_lr=1e-3, decay=decay))
        assert {id(p) for p in own["params"]} == slow
        assert (own["lr"], own["weight_decay"]) == (1e-3, 0.0)
        assert not slow & {id(p) for group in rest for p in group["params"]}
        assert sum(len(group["params"]) for group in (*rest, own)) == len(list(model.parameters()))
    assert parameter_groups(model, Optim(lr=1e-4, slow_lr=1e-3))[-1]["lr"] == 1e-4
    assert len(parameter_groups(make_model(toy_run()), Optim(lr=1e-2, slow_lr=1e-3))) == 2


def test_a_loss_that_is_not_a_number_ends_the_run_as_diverged_with_its_curve(tmp_path):
    record = train(toy_run(attn=defect("Breaks"), budget__eval_every=10), tmp_path)
    assert record.status == "diverged"
    batch = BatchStream(512, 32, seed=0, steps=100).at(24)
    examples = ", ".join(map(str, batch[:8].tolist()))
    assert record.reason == (
        f"the loss was nan at step 25, whose batch is the training examples {examples}, …; try a smaller optim.lr or "
        "precision=fp32."
    )
    assert [row["step"] for row in record.curve] == [10, 20]
    assert Record(**record.model_dump()) == record
    assert len(list((tmp_path / "runs").rglob("*.json"))) == 1


def test_a_run_is_stuck_at_chance_below_a_tenth_of_the_way_to_perfect(tmp_path):
    settings = {"budget__steps": 4, "budget__eval_every": 2, "optim__lr": 1e-6}
    free = train(toy_run(data={"chance": 0.0}, **settings), tmp_path)
    reached = max(row["valid_accuracy"] for row in free.curve)
    assert 0.0 < reached < 0.5
    assert free.status == ("ok" if reached >= 0.1 else "stuck-at-chance")
    for chance, status in (((reached - 0.1) / 0.9 - 1e-6, "ok"), ((reached - 0.1) / 0.9 + 1e-6, "stuck-at-chance")):
        assert train(toy_run(data={"chance": chance}, **settings), tmp_path).status == status


@pytest.mark.parametrize("split", ["valid", "test"])
def test_the_best_step_is_reported_with_its_own_figures(split, tmp_path):
    record = train(toy_run(FindMark, budget__eval_every=10, select={"split": split, "step": "best"}), tmp_path)
    figures = [row[f"{split}_accuracy"] for row in record.curve]
    best = record.curve[figures.index(max(figures))]  # the first of several
    assert record.selected_step == best["step"] < 100
    assert record.value == best["test_accuracy"]
    assert record.metrics["valid"]["loss"] == best["valid_loss"]


def test_a_run_stops_once_its_selection_split_is_above_the_bound(tmp_path):
    record = train(toy_run(budget__stop_above=0.9, **BEST), tmp_path)
    figures = [row["test_accuracy"] for row in record.curve]
    assert max(figures[:-1]) <= 0.9 < figures[-1] == record.value
    assert record.steps == record.selected_step == record.curve[-1]["step"] < 100


def test_the_last_step_is_evaluated_whatever_eval_every(tmp_path):
    for every, steps in ((8, [8, 16, 20]), (50, [20])):
        record = train(toy_run(budget__steps=20, budget__eval_every=every), tmp_path)
        assert [row["step"] for row in record.curve] == steps
        assert all("train_loss" in row for row in record.curve)
        assert record.selected_step == 20
        assert record.metrics["valid"]["loss"] == record.curve[-1]["valid_loss"]


def score_again(run: Run, checkpoint: dict) -> dict[str, float]:
    """Accuracy and loss of the test split by the weights of a checkpoint, without Lightning."""
    model: Model = make_model(run).eval()
    model.load_state_dict({k.removeprefix("model."): v for k, v in checkpoint["state_dict"].items()})
    batch, meter = run.task.examples("test").all, run.task.meter()
    with torch.no_grad():
        meter.update(model(batch["inputs"], batch.get("valid"), batch["labels"] >= 0), batch)
    return meter.compute().values


@pytest.mark.parametrize("toy", TOYS)
def test_softmax_attention_learns_every_toy_and_scores_what_its_weights_score(toy: type[Toy], tmp_path):
    run = toy_run(toy)
    record, checkpoint = go(run, tmp_path)
    assert record.value > 0.95 > run.task.chance() + 0.4
    assert record.metrics["test"] == pytest.approx(score_again(run, checkpoint), rel=1e-4)
    assert (record.selected_step, record.parameters > 0, record.flops > 0) == (100, True, True)


@pytest.mark.parametrize(("attn", "toy"), [("zeta-token", FirstToken), ("zeta", FindMark), ("vanilla", FindMark)])
def test_bf16_trains_as_well(attn, toy, tmp_path):
    record, checkpoint = go(toy_run(toy, attn, precision="bf16"), tmp_path)
    assert record.value > 0.9
    assert record.precision == "bf16"
    assert all(value.dtype == torch.float32 for value in checkpoint["state_dict"].values())


@pytest.mark.parametrize("toy", TOYS)
@pytest.mark.parametrize("execution", [{"micro_batch": 5}, {"recompute": True}, {"micro_batch": 32}])
def test_how_a_run_is_computed_does_not_change_what_is_computed(execution, toy, tmp_path):
    """32 sequences a step: a micro-batch of 5 leaves a part of 2, and Uneven-like labels fall unevenly into parts."""
    run = toy_run(toy, budget__steps=20, budget__eval_every=10, optim__grad_clip=0.1)
    plain, state = go(run, tmp_path / "plain")
    other, again = go(run, tmp_path / "other", **execution)
    assert (other.run_id, other.execution) == (plain.run_id, execution)
    for mine, yours in zip(curve(plain), curve(other), strict=True):
        assert yours == pytest.approx(mine, rel=1e-4)
    for name, value in state["state_dict"].items():
        torch.testing.assert_close(again["state_dict"][name], value, rtol=1e-3, atol=1e-4)


def test_labels_that_fall_unevenly_into_parts_weigh_the_same(tmp_path):
    run = toy_run(Uneven, budget__steps=20, budget__eval_every=10)
    plain, _ = go(run, tmp_path / "plain")
    parts, _ = go(run, tmp_path / "parts", micro_batch=3)
    for mine, yours in zip(curve(plain), curve(parts), strict=True):
        assert yours == pytest.approx(mine, rel=1e-4)


def test_what_enters_a_block_is_all_that_is_kept_when_the_rest_is_computed_again():
    run = toy_run(backbone__n_layers=3, backbone__mlp_ratio=8)
    kept = {}
    for recompute in (False, True):
        model = make_model(run)
        model.recompute, sizes = recompute, []

        def pack(x, sizes=sizes):
            sizes.append(x.numel())
            return x

        inputs = run.task.examples("train").batch(torch.arange(32))["inputs"]
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            model(inputs)
        kept[recompute] = sum(sizes)
    assert kept[True] < kept[False] / 4
