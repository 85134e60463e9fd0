"""The sequence that is looked at: a user's text, or the first example of the test split."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from zeta_bench.errors import UsageError
from zeta_bench.gallery.source import Source
from zeta_bench.task import Batch, BenchTask

_LONGEST = 4
"""Bytes of a character in UTF-8."""


@dataclass(frozen=True)
class Passage:
    """One sequence.

    Attributes:
        batch: it alone, as a task's examples are.
        tokens: each as text; None where the task's tokens are no text.
        told: what it is, for a caption.
    """

    batch: Batch
    tokens: list[str] | None
    told: str


def held_out(source: Source) -> Passage:
    """The first sequence of the test split."""
    batch = source.task.examples("test").batch(torch.tensor([0]))
    return Passage(batch, _tokens(source.task, batch), "the first sequence of the test split")


def from_file(source: Source, path: Path) -> Passage:
    """A text, as long as the model's sequences are.

    Raises:
        UsageError: it cannot be read, is empty, or the task's tokens are no text.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = "it is no text in UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise UsageError(f"--text {path} cannot be read: {why}; name a plain text file.") from None
    ids = source.task.encode(text)[: source.task.shape().max_len]
    if not ids:
        raise UsageError(f"--text {path} has no token in it; name a file with some text.")
    inputs = torch.tensor(ids)[None]
    if source.model.shape.head == "pair":
        inputs = torch.stack((inputs, inputs), dim=1)
    return Passage({"inputs": inputs}, pieces(source.task, ids), f"the first {len(ids)} tokens of {path.name}")


def pieces(task: BenchTask, ids: list[int]) -> list[str]:
    """What each token adds to the text before it; where a character takes several tokens, the last one has it.

    Raises:
        UsageError: the task's tokens are no text.
    """
    found: list[str] = []
    before: list[int] = []
    held: list[int] = []
    for id in ids:
        held.append(id)
        text = task.decode(before + held)[len(task.decode(before)) :]
        whole = not text.endswith("\N{REPLACEMENT CHARACTER}") or len(held) == _LONGEST
        found.append(text if whole else "")
        before, held = (held, []) if whole else (before, held)
    return found


def _tokens(task: BenchTask, batch: Batch) -> list[str] | None:
    inputs = batch["inputs"]
    if inputs.is_floating_point() or inputs.ndim != 2:
        return None
    try:
        return pieces(task, inputs[0].tolist())
    except UsageError:
        return None
