"""``zeta-bench throughput``: both sides train the same model on the same batches, and the table says what was timed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from commandline import call, records
from commandline import tiny as write_tiny
from toys import FindMark, FirstToken, Higher, Loudest, Toy, Uneven, defect, session_in, toy_run

from zeta_bench.backbone import Model
from zeta_bench.plan import Run
from zeta_bench.records import Record, Store
from zeta_bench.report import make_report, read_report
from zeta_bench.report.throughput import build_throughput_table, share
from zeta_bench.throughput import sides
from zeta_bench.throughput.learned import Learned, learn
from zeta_bench.throughput.series import Procedure, measure, run_throughput, told

QUICK = Procedure(steps=2, rounds=2)


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_tiny(tmp_path)
    return tmp_path


@pytest.mark.parametrize("toy", [FirstToken, FindMark, Loudest, Higher])
def test_both_sides_train_the_same_model_on_the_same_batches(
    toy: type[Toy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, float]] = []
    forward = Model.forward

    def watched(self: Model, inputs: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        logits = forward(self, inputs, *rest)
        seen.append((self.training, float(logits.detach().double().sum())))
        return logits

    monkeypatch.setattr(Model, "forward", watched)
    monkeypatch.setattr(sides, "WARM_UP", 3)
    run, steps = toy_run(toy, optim__grad_clip=0.5), 4
    assert sides.suite(run, session_in(tmp_path), steps) > 0
    suite = seen.copy()
    seen.clear()
    assert sides.bare(run, session_in(tmp_path), steps) > 0
    assert len(suite) == 3 + steps, "an evaluation was timed"
    assert all(training for training, _ in suite)
    assert [value for _, value in seen] == pytest.approx([value for _, value in suite], rel=1e-5, abs=1e-5)


def test_the_record_says_what_was_timed_and_how_to_repeat_it(tmp_path: Path) -> None:
    record = measure(toy_run(), session_in(tmp_path), QUICK)
    assert (record.kind, record.task, record.point) == ("bench", "throughput", {"task": "FirstToken"})
    assert list(record.metrics) == ["suite", "bare", "reading"]
    for figures in record.metrics.values():
        low, ms, high = (figures[name] or 0.0 for name in ("ms_low", "ms", "ms_high"))
        assert 0 < low <= ms <= high
    assert record.command == ("zeta-bench throughput FirstToken --attn vanilla --protocol toy --steps 2 --rounds 2")


def test_what_has_a_record_is_not_measured_again(tmp_path: Path) -> None:
    session = session_in(tmp_path)
    (first,) = run_throughput([toy_run()], session, QUICK, session.store, force=False)
    (again,) = run_throughput([toy_run()], session, QUICK, session.store, force=False)
    (forced,) = run_throughput([toy_run()], session, QUICK, session.store, force=True)
    assert again == first
    other = Procedure(QUICK.steps + 1, QUICK.rounds)
    (anew,) = run_throughput([toy_run()], session, other, session.store, force=False)
    assert anew.payload["steps"] == 3, "the record was of another number of steps"
    assert forced.metrics != first.metrics
    assert forced.run_id == first.run_id


def test_a_variant_that_raises_is_a_record_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(run: Run, *_: object) -> float:
        if run.seed == 1:
            raise RuntimeError("boom")
        return 0.1

    monkeypatch.setitem(sides.SIDES, "suite", broken)
    session = session_in(tmp_path)
    session.debug = False
    bad, good = run_throughput([toy_run(seed=1), toy_run()], session, QUICK, Store(tmp_path / "runs"), force=False)
    assert (bad.status, bad.reason, bad.metrics) == ("failed", "RuntimeError: boom", {})
    assert good.status == "ok"


def test_out_of_memory_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> float:
        raise torch.OutOfMemoryError

    monkeypatch.setitem(sides.SIDES, "bare", full)
    learned = {"suite": Learned(0.5, 100.0), "bare": Learned(None, 110.0)}
    with_ends = measure(toy_run(), session_in(tmp_path), QUICK, learned)
    ends = build_throughput_table([("runs", with_ends)])
    assert ends is not None
    assert [entry.text for entry in ends.rows[0][-2:]] == ["accuracy 0.5, 100 tokens/s", "accuracy –, 110 tokens/s"]
    record = measure(toy_run(), session_in(tmp_path), QUICK)
    assert (record.status, record.metrics) == ("oom", {})
    table = build_throughput_table([("runs", record)])
    assert table is not None
    assert [entry.text for entry in table.rows[0][-6:]] == ["–", "–", "oom", "–", "–", "–"]


def made(suite: float, bare: float, variant: str = "vanilla") -> Record:
    figures = {
        side: {"ms": ms, "ms_low": ms, "ms_high": 2 * ms}
        for side, ms in (("suite", suite), ("bare", bare), ("reading", 0.25))
    }
    return Record(
        run_id=variant,
        kind="bench",
        status="ok",
        task="throughput",
        protocol="small@0badcafe",
        point={"task": "mqar"},
        variant=variant,
        metrics=figures,  # type: ignore[arg-type]
        device="Synthetic 9000",
        commit="0123456789",
        payload={"steps": 50, "rounds": 3},
    )


def test_the_table_has_the_share_of_the_bare_loops_rate() -> None:
    both = [("runs", made(20.0, 18.0)), ("runs", made(8.0, 8.0, "zeta"))]
    table = build_throughput_table(both)
    assert table is not None
    assert [column.name for column in table.columns][:3] == ["task", "protocol", "variant"]
    assert [[entry.text for entry in row[2:]] for row in table.rows] == [
        ["vanilla", "20.0 (20.0–40.0)", "18.0 (18.0–36.0)", "90 %", "0.250 (0.250–0.500)", "–", "–"],
        ["zeta", "8.00 (8.00–16.0)", "8.00 (8.00–16.0)", "100 %", "0.250 (0.250–0.500)", "–", "–"],
    ]
    assert share(both[0][1]) == pytest.approx(0.9)
    assert table.caption == "Synthetic 9000 · commit 0123456 · from runs"
    assert [view.name for view in make_report(both).view_tables] == ["throughput"]


def at_length(length: int, variant: str = "vanilla", ppl: float | None = None) -> Record:
    """A measurement of today, with 2**15 tokens a step."""
    old, ends = made(20.0, 18.0, variant), {}
    if ppl is not None:
        ends = {side: {"ppl_token": ppl + add, "tokens_per_second": 41234.0} for side, add in SCORED}
    payload = {**old.payload, "length": length, "batch_size": 2**15 // length, "tokens": 2**15, "scored": "ppl_token"}
    metrics = {side: values | ends.get(side, {}) for side, values in old.metrics.items()}
    return old.model_copy(
        update={"run_id": f"{variant}{length}", "payload": payload, "mfu": 0.312, "metrics": metrics,
                "protocol": f"small+data.seq_len={length}@0badcafe"}
    )  # fmt: skip


SCORED = (("suite", 0.0), ("bare", 0.0125))


def test_lengths_stand_in_their_order_with_tokens_a_second() -> None:
    table = build_throughput_table([("runs", at_length(length)) for length in (16384, 1024, 4096)])
    assert table is not None
    assert [column.name for column in table.columns] == [
        "task", "protocol", "length", "variant",
        "run, ms/step", "bare, ms/step", "share", "read, ms", "tokens/s", "MFU",
    ]  # fmt: skip
    assert [row[2].text for row in table.rows] == ["1024", "4096", "16384"]
    assert {(row[-2].text, row[-1].text) for row in table.rows} == {("1.64M", "31.2 %")}


def test_what_both_sides_scored_stands_beside_where_they_were_trained_to_the_end() -> None:
    table = build_throughput_table([("runs", at_length(1024, ppl=21.5)), ("runs", made(8.0, 8.0, "zeta"))])
    assert table is not None
    assert [column.name for column in table.columns][-2:] == ["run, to the end", "bare, to the end"]
    ends = {row[-4 - 5].text: [entry.text for entry in row[-2:]] for row in table.rows}
    told = ["ppl_token 21.5, 41.2k tokens/s", "ppl_token 21.5125, 41.2k tokens/s"]
    assert sorted(ends.values()) == sorted([told, ["–", "–"]])
    assert any("to the end: the score on the test split" in note for note in table.notes)


@pytest.mark.parametrize("toy", [Uneven, FindMark])
def test_a_bare_loop_learns_what_the_run_learns(toy: type[Toy], tmp_path: Path) -> None:
    """Without dropout the same but for rounding; of the step that the run selected, whichever that is."""
    run = toy_run(
        toy, budget__steps=60, budget__eval_every=20, optim__grad_clip=0.5, select={"split": "test", "step": "best"}
    )
    session = session_in(tmp_path)
    (record,) = run_throughput([run], session, Procedure(2, 1, to_the_end=True), session.store, force=False)
    suite, bare = record.metrics["suite"], record.metrics["bare"]
    of_run = session.store.find(run.run_id(session.device_class))
    assert of_run is not None
    assert suite["accuracy"] == of_run.value > 0.3
    assert bare["accuracy"] == pytest.approx(suite["accuracy"], abs=0.01)
    assert min(suite["tokens_per_second"] or 0, bare["tokens_per_second"] or 0, bare["ms"] or 0) > 0
    assert record.command.endswith("--steps 2 --rounds 1 --to-the-end")
    assert told(record).startswith("accuracy ")
    (again,) = run_throughput([run], session, Procedure(2, 1), session.store, force=False)
    assert again == record, "it has what was asked for, and more"


def test_a_record_of_several_devices_is_not_compared_with_a_loop_on_one(tmp_path: Path) -> None:
    run, session = toy_run(budget__steps=10, budget__eval_every=5), session_in(tmp_path)
    alone = learn(run, session, "toy", force=False)["suite"]
    record = session.store.find(run.run_id("cpu"))
    assert record is not None
    session.store.write(record.model_copy(update={"tokens_per_second": 1.0}))
    assert learn(run, session, "toy", force=False)["suite"].tokens_per_second == 1.0
    for other in ({"devices": 2}, {"execution": {"compile": True}}):
        session.store.write(record.model_copy(update={"tokens_per_second": 1.0, **other}))
        again = learn(run, session, "toy", force=False)["suite"]
        assert again.value == alone.value
        assert again.tokens_per_second > 1.0


def test_a_run_that_fails_is_told_and_the_rest_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = toy_run(attn=defect("Breaks"), budget__steps=60, budget__eval_every=20)
    session = session_in(tmp_path)
    (record,) = run_throughput([run], session, Procedure(2, 1, to_the_end=True), session.store, force=False)
    assert "diverged after" in capsys.readouterr().err
    assert "accuracy" not in record.metrics["suite"]
    assert (record.metrics["bare"]["ms"] or 0) > 0


def test_a_damaged_record_is_named_and_the_rest_is_reported(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(made(20.0, 18.0))
    bad = made(1.0, 1.0, "zeta")
    store.write(bad)
    content = json.loads(store.path(bad).read_text())
    del content["payload"]["steps"]
    store.path(bad).write_text(json.dumps(content))
    report = read_report({"runs": tmp_path}, tasks={"throughput"})
    assert [len(table.rows) for table in report.view_tables] == [1]
    assert str(store.path(bad)) in report.refused[0]


def test_the_command_measures_records_and_prints(tiny: Path) -> None:
    command = ("throughput", "mqar", "--attn", "vanilla", "-p", "tiny.toml", "--steps", "2", "--rounds", "1")
    result = call(*command)
    assert result.code == 0, result.err
    assert "of its rate" in result.out
    assert "share" in result.out
    (record,) = records(kind="bench")
    assert record.task == "throughput"
    assert "has a record (ok)" in call(*command).out
    assert "share" in call("report", "--task", "throughput").out


def test_several_lengths_have_as_many_tokens_a_step(tiny: Path) -> None:
    result = call(
        *("throughput", "mqar", "--attn", "vanilla", "-p", "tiny.toml", "--steps", "2", "--rounds", "1"),
        *("-n", "16", "-n", "8"),
    )
    assert result.code == 0, result.err
    found = sorted(records(kind="bench"), key=lambda record: record.payload["length"])
    assert [record.payload["length"] for record in found] == [8, 16]
    assert len({record.payload["tokens"] for record in found}) == 1
    assert "--set data.seq_len=8" in found[0].command
    assert found[1].protocol.startswith("tiny@"), "the protocol has that length"
    assert "length" in result.out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("mqar",), "name at least one variant"),
        (("mqra", "-a", "vanilla"), "did you mean mqar?"),
        (("mqar", "-a", "vanila"), "did you mean vanilla?"),
        (("mqar", "-a", "vanilla", "-p", "tiny.tml"), "tiny.tml"),
        (("mqar", "-a", "vanilla", "--set", "optim.rl=1"), "optim.rl"),
        (("mqar", "-a", "vanilla", "--steps", "0"), "--steps"),
        (("mqar", "-a", "vanilla", "-p", "tiny.toml", "--length", "4x"), "4x"),
        (("mqar", "-a", "vanilla", "-p", "tiny.toml", "--length", "1M"), "a step of this protocol has"),
        (("mqar", "-a", "vanilla", "-p", "tiny.toml", "-n", "8", "--set", "data.seq_len=24"), "leave one out"),
    ],
)
def test_what_is_mistyped_is_one_sentence(tiny: Path, words: tuple[str, ...], told: str) -> None:
    result = call("throughput", *words)
    assert told in result.sentence(2)
    assert not (tiny / "runs").exists()
