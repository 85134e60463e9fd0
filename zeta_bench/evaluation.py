"""Scoring in pieces: the model sees whole batches, and its logits are made and scored a piece at a time.

Of 32 windows of 1024 tokens and a vocabulary of 50,257 the logits alone are 6.6 GB in fp32.
"""

from __future__ import annotations

from collections.abc import Iterator

from zeta_bench.backbone import Model
from zeta_bench.task import IGNORE, Batch, Meter, select_labelled

LOGITS = 2**26
"""Most logits that a meter gets at once: 256 MiB in fp32, some three times that while a meter works on them.

Less than training keeps of any batch that needs it, and enough rows (1335 of that vocabulary) for a matrix product to
be bound by arithmetic, not by reading the head's weights again for each piece.
"""


def score(meter: Meter, model: Model, batch: Batch) -> None:
    """Show a meter a batch of a split; of a language model in pieces, see `pieces`."""
    if model.shape.head != "lm":
        meter.update(model(batch["inputs"], batch.get("valid")).float(), batch)
        return
    hidden = model(batch["inputs"], batch.get("valid"), None, False)
    for part, rows in pieces(batch, LOGITS // model.shape.outputs, by_position=meter.by_position):
        meter.update(model.head(hidden[rows][select_labelled(part)]).float(), part)


def pieces(batch: Batch, most: int, *, by_position: bool) -> Iterator[tuple[Batch, slice]]:
    """Parts of a language model's batch with at most so many labels each, in order, and which sequences they are.

    A part is of whole sequences. A single one with more labels is cut where `by_position` allows it: the batch has that
    sequence several times then, each time with other labels set to IGNORE; elsewhere it stays one part.
    """
    most = max(most, 1)
    for rows in _runs(select_labelled(batch).sum(1).tolist(), most):
        part = {key: value[rows] for key, value in batch.items()}
        labelled = select_labelled(part)
        if not by_position or int(labelled.sum()) <= most:
            yield part, rows
            continue
        turn = (labelled.flatten().cumsum(0).view_as(labelled) - 1) // most  # which cut a label belongs to
        for number in range(int(turn.max()) + 1):
            yield {**part, "labels": part["labels"].masked_fill(turn != number, IGNORE)}, rows


def _runs(counts: list[int], most: int) -> Iterator[slice]:
    """Consecutive sequences whose counts add up to at most `most`; one that has more stands alone."""
    first, total = 0, 0
    for number, count in enumerate(counts):
        if number > first and total + count > most:
            yield slice(first, number)
            first, total = number, 0
        total += count
    yield slice(first, len(counts))
