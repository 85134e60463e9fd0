"""The checkpoint that is drawn: its model, the same model before training, and what every caption says of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from zeta_bench.backbone import Model
from zeta_bench.protocol import Protocol
from zeta_bench.records import Record, Store
from zeta_bench.registry import Choice, find_variant
from zeta_bench.report import text
from zeta_bench.task import BenchTask
from zeta_bench.trained import load_trained


@dataclass(frozen=True)
class Source:
    """A trained model and where it comes from.

    Attributes:
        path: of the checkpoint; its stem is the run's id.
        model: with the checkpoint's weights, in evaluation mode.
        task: that it was trained on.
        task_name: as registered.
        protocol: as it ran.
        choice: the variant with its settings.
        steps: of training.
        record: of the run, if it was found.
    """

    path: Path
    model: Model
    task: BenchTask
    task_name: str
    protocol: Protocol
    choice: Choice
    steps: int
    record: Record | None

    @property
    def label(self) -> str:
        """The variant as tables name it, such as ``zeta-token:k=8``."""
        return text.plain(self.choice.label)

    @property
    def seed(self) -> int | None:
        """Of the run, where its record tells."""
        return None if self.record is None else self.record.seed

    @property
    def captions(self) -> tuple[str, str]:
        """Where the numbers come from, and what the protocol says of itself."""
        return text.plain(" · ".join([self.task_name, self._protocol_id, *self._run])), text.plain(
            self.protocol.summary
        )

    @property
    def _stem(self) -> str:
        """The beginning of a run's id; the whole stem of a file that is called otherwise."""
        stem = self.path.stem
        return stem[:8] if re.fullmatch("[0-9a-f]{16}", stem) else stem

    def name(self, what: str) -> str:
        """Stem of a picture's file."""
        return text.safe_stem(f"{self.task_name}-{self.choice.name}-{self._stem}-{what}")

    @cached_property
    def untrained(self) -> Model:
        """The model at step 0: initialised by the run's seed, or by 0 where that is not known."""
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(self.seed or 0)
            return Model(self.task.shape(), self.protocol.backbone, self.choice, causal=self.model.causal).eval()

    @property
    def untrained_told(self) -> str:
        """What `untrained` is, for a caption."""
        return "the same model at step 0" if self.record is not None else "the same model with fresh weights (seed 0)"

    @property
    def _protocol_id(self) -> str:
        return f"protocol {self.protocol.id if self.record is None else self.record.protocol}"

    @property
    def _run(self) -> list[str]:
        steps = f"{self.steps} steps"
        if self.record is None:
            return [self.label, steps, f"checkpoint {self.path.name}, without its record: seed and commit unknown"]
        metric, run = self.record.metric, self.record
        score = run.metrics.get("test", {}).get(metric)
        told = [] if score is None else [f"test {metric} {score:.4g}"]
        return [self.label, f"seed {run.seed}", steps, *told, f"run {run.run_id}", f"commit {text.commit(run)}"]


def open_source(path: Path, records: Path) -> Source:
    """A checkpoint, with its record if the store `records` has it. Raises as `load_trained`."""
    model, task = load_trained(path)
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    origin = state["zeta_bench"]["origin"]
    protocol, choice = Protocol(**origin["protocol"]), find_variant(origin["variant"])
    record = Store(records).find(path.stem)
    if record is not None and not _is_of(record, origin["task"], protocol, choice):
        record = None  # the file was renamed
    return Source(path, model.eval(), task, origin["task"], protocol, choice, int(state["global_step"]), record)


def _is_of(record: Record, task: str, protocol: Protocol, choice: Choice) -> bool:
    names = (record.task, record.protocol.rpartition("@")[0], record.variant)
    return names == (task, protocol.name, choice.name)
