"""Scoring in pieces: each label once, in order, whole sequences where they fit; the score as it would be at once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from toys import FindMark, FirstToken, Toy, Uneven, toy_run, train

from zeta_bench import evaluation
from zeta_bench.evaluation import pieces, score
from zeta_bench.run import make_model
from zeta_bench.task import IGNORE, Batch, select_labelled
from zeta_bench.tasks.mqar.task import MQAR
from zeta_bench.tasks.wikitext.meter import Documents, PerplexityMeter


def labelled(*counts: int, length: int = 6) -> Batch:
    """A batch whose sequences have so many labels at their ends, numbered through, and their own number beside."""
    labels = torch.full((len(counts), length), IGNORE)
    number = 0
    for row, count in enumerate(counts):
        labels[row, length - count :] = torch.arange(number, number + count)
        number += count
    return {"labels": labels, "row": torch.arange(len(counts))}


@pytest.mark.parametrize("by_position", [False, True])
@pytest.mark.parametrize("most", [0, 1, 4, 6, 7, 100])
@pytest.mark.parametrize("counts", [(6, 6, 6), (1, 5, 2, 6, 0, 3), (0, 0), (4,)])
def test_every_label_comes_once_and_in_order(counts: tuple[int, ...], most: int, by_position: bool) -> None:
    batch, seen, rows = labelled(*counts), [], []
    for part, where in pieces(batch, most, by_position=by_position):
        assert part["row"].tolist() == list(range(len(counts)))[where]
        found = part["labels"][select_labelled(part)].tolist()
        seen += found
        rows += part["row"].tolist()
        assert len(found) <= max(most, 1) or (not by_position and len(part["row"]) == 1)
    assert seen == list(range(sum(counts)))
    assert by_position or rows == list(range(len(counts))), "a sequence came twice"


def test_a_perplexity_in_pieces_is_the_one_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    run = toy_run(Uneven)
    model = make_model(run).eval()
    batch = run.task.examples("valid").batch(torch.arange(100))
    batch["documents"] = torch.zeros_like(batch["labels"])
    scores = []
    for most in (2**26, 16 * 40, 16 * 5):  # at once; several sequences; parts of one
        monkeypatch.setattr(evaluation, "LOGITS", most)
        meter = PerplexityMeter(Documents([2000], [1000], [9000], own=1), 12)
        with torch.no_grad():
            score(meter, model, batch)
        scores.append(meter.compute())
    assert scores[1] == scores[0], "to the last bit, as long as a product has some rows"
    assert scores[2].values == pytest.approx(scores[0].values, rel=1e-6), "products of 5 rows have other kernels"
    counts = [{bin: found["count"] for bin, found in each.slices["context"].items()} for each in scores]
    assert counts[2] == counts[0]
    assert scores[0].values["loss"] > 1


@pytest.mark.parametrize("toy", [FirstToken, FindMark, Uneven])
def test_a_run_scored_in_pieces_is_the_same_run(
    toy: type[Toy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = toy_run(toy, budget__steps=10, budget__eval_every=5)
    whole = train(run, tmp_path / "whole")
    monkeypatch.setattr(evaluation, "LOGITS", 16 * 30)
    parts = train(run, tmp_path / "parts")
    assert parts.slices == whole.slices
    for split, values in whole.metrics.items():  # this toy's sum of losses is taken in another order
        assert parts.metrics[split] == pytest.approx(values, rel=1e-12)
    assert [row["train_loss"] for row in parts.curve] == [row["train_loss"] for row in whole.curve]


def test_no_meter_gets_more_logits_than_that(monkeypatch: pytest.MonkeyPatch) -> None:
    most = 16 * 30
    monkeypatch.setattr(evaluation, "LOGITS", most)
    run = toy_run(FirstToken)
    meter, sizes = run.task.meter(), []
    update = meter.update
    monkeypatch.setattr(meter, "update", lambda logits, batch: (sizes.append(logits.numel()), update(logits, batch)))
    with torch.no_grad():
        score(meter, make_model(run), run.task.examples("valid").batch(torch.arange(32)))
    assert sum(sizes) == 32 * 12 * 16
    assert 0 < max(sizes) <= most


def test_sequences_stay_whole_for_a_meter_that_counts_them(monkeypatch: pytest.MonkeyPatch) -> None:
    data = {"seq_len": 64, "pairs": 4, "vocab_size": 128, "train_examples": 8, "valid_examples": 8, "test_examples": 8}
    task = MQAR.from_settings(data, "test")
    batch = task.examples("valid").batch(torch.arange(8))
    meter = task.meter()
    assert not meter.by_position
    for part, _ in pieces(batch, 1, by_position=meter.by_position):
        logits = torch.nn.functional.one_hot(part["labels"][select_labelled(part)], task.shape().outputs).float()
        meter.update(logits, part)
    assert meter.compute().values["accuracy"] == 1.0
    assert int(meter.examples) == 8  # type: ignore[arg-type]
