"""Records: one JSON file for everything that was measured, and the store that alone reads and writes them.

``<store>/<kind>/<task>/<protocol>/<variant>/<run_id>.json``; everything else sees a pandas frame. A record is written
to a temporary name and renamed, so a crash leaves none or a whole one.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from zeta_bench.errors import RecordError, UsageError

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1
PUBLISHED_STORE = Path("results/records")
USER_STORE = Path("runs")
CHOOSE = "choose another folder with --records"
KINDS = ("run", "bench", "audit", "analysis")

Status = Literal["ok", "stuck-at-chance", "diverged", "oom", "unsupported", "failed", "interrupted"]
FINISHED: frozenset[str] = frozenset({"ok", "stuck-at-chance", "diverged", "oom", "unsupported"})
"""Statuses that a repeat would find again: such a run is not run again unless forced."""


class Record(BaseModel):
    """One measurement with everything that fixes what it means.

    Attributes:
        schema_version: of this format; another one is refused.
        run_id: hash of what identifies the measurement, see `make_run_id`.
        kind: run · bench · audit · analysis.
        reason: one sentence for every status but ok.
        protocol: protocol id (name@hash).
        point: the grid's keys and values at this run.
        variant: registered name, or "file.Class".
        settings: what differs from the registered preset, as the user gave it.
        config: every setting of the variant as it ran.
        metrics: by split, ``{"test": {"accuracy": 0.99, "accuracy_stderr_items": 0.001}}``.
        slices: by split, see `zeta_bench.task.Score`.
        curve: one row an evaluation: step, seconds, train_loss and the validation metrics; null = not a finite number.
        selected_step: the step whose figures `metrics` holds.
        tokens: input tokens trained on.
        seconds: of training, without evaluation and compilation.
        mfu: model FLOPs utilisation while training, in [0, 1], see `zeta_bench.utilisation`; None = not known.
        compile_seconds: of compilation and tuning.
        peak_memory_bytes: on the accelerator; 0 on a CPU.
        flops: of one training step, forward and backward, matrix products only; 0 = not counted.
        impl: implementation that ran.
        direction: "causal" or "bidirectional", as it ran.
        execution: how it was computed where that is not the default, see `zeta_bench.execution.Execution`.
        device: name of the device. `device_class` is "cpu" or that name.
        versions: of python, torch, triton, pytorch-lightning, zeta-bench, cuda.
        commit: of the project's checkout ("" = unknown); dirty: it had uncommitted changes.
        code_digest: of the variant's source file.
        payload: what a bench, audit or analysis found.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA
    run_id: str
    kind: Literal["run", "bench", "audit", "analysis"]
    status: Status
    reason: str = ""
    task: str
    task_version: int = 1
    protocol: str
    point: dict[str, Any] = Field(default_factory=dict)
    variant: str
    variant_version: int = 1
    settings: dict[str, Any] = Field(default_factory=dict)
    config: dict[str, Any] = Field(default_factory=dict)
    seed: int = 0
    metric: str = ""
    higher_is_better: bool = True
    metrics: dict[str, dict[str, float | None]] = Field(default_factory=dict)
    slices: Mapping[str, Mapping[str, Mapping[str, Mapping[str, float | None]]]] = Field(default_factory=dict)
    curve: list[dict[str, float | None]] = Field(default_factory=list)
    chance: float | None = None
    selected_step: int = 0
    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0
    tokens_per_second: float = 0.0
    mfu: float | None = None
    compile_seconds: float = 0.0
    peak_memory_bytes: int = 0
    parameters: int = 0
    parameters_without_embedding: int = 0
    flops: int = 0
    impl: str = "torch"
    direction: str = ""
    precision: str = ""
    device: str = ""
    device_class: str = ""
    devices: int = 1
    execution: dict[str, Any] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    commit: str = ""
    dirty: bool = False
    code_digest: str = ""
    data_digest: str = ""
    command: str = ""
    started_at: str = ""
    payload: dict[str, Any] = Field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether a repeat would find the same."""
        return self.status in FINISHED

    @property
    def value(self) -> float | None:
        """The reported figure: the protocol's metric on the test split."""
        return self.metrics.get("test", {}).get(self.metric)


def is_of(record: Record, tasks: Collection[str] | None) -> bool:
    """Whether a record is of one of some tasks, or of a family of them ("lra" for every "lra.…"); None = any."""
    return tasks is None or any(record.task == task or record.task.startswith(f"{task}.") for task in tasks)


def make_run_id(**identity: Any) -> str:
    """16 hex digits of the SHA-256 of what identifies a measurement; the order of the keys does not matter."""
    text = json.dumps(identity, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass
class Store:
    """A folder of records.

    Attributes:
        root: the folder; need not exist yet.
        refused: a sentence for each file that `records` left out, filled while reading.
    """

    root: Path
    refused: list[str] = field(default_factory=list)

    def path(self, record: Record) -> Path:
        """Where a record belongs."""
        return self.root / record.kind / record.task / record.protocol / record.variant / f"{record.run_id}.json"

    def write(self, record: Record) -> Path:
        """Write a record whole or not at all, replacing the one with its run_id. Raises UsageError if it cannot."""
        path = self.path(record)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, record.model_dump_json(indent=1) + "\n")
        except OSError as error:
            raise UsageError(f"cannot write records to {self.root}: {error.strerror}; {CHOOSE}.") from None
        return path

    def check_writable(self) -> None:
        """Raise UsageError if records cannot be written here; called before anything is trained."""
        require_writable(self.root, "records", CHOOSE)

    def clear_litter(self, age: float = 3600.0) -> None:
        """Remove temporary files of writers that were killed: those that nobody has touched for `age` seconds."""
        for path in self.root.rglob(".*.json.*"):
            with suppress(OSError):  # another process may do the same
                if time.time() - path.stat().st_mtime > age:
                    path.unlink()

    def find(self, run_id: str, kind: str = "run") -> Record | None:
        """The record of that id, or None; a damaged one counts as none."""
        for path in self.root.glob(f"{kind}/*/*/*/{glob.escape(run_id)}.json"):
            try:
                return read_record(path)
            except RecordError as error:
                self.refused.append(str(error))
        return None

    def records(self, kind: str | None = None) -> Iterator[Record]:
        """Every readable record, sorted by path; what cannot be read is told in `refused`."""
        return (record for _, record in self.files(kind))

    def files(self, kind: str | None = None) -> Iterator[tuple[Path, Record]]:
        """As `records`, each with its file."""
        self.refused.clear()
        for name in [kind] if kind else KINDS:
            for path in sorted((self.root / name).rglob("*.json")):
                try:
                    yield path, read_record(path)
                except RecordError as error:
                    self.refused.append(str(error))


def require_writable(folder: Path, what: str, remedy: str) -> None:
    """Make a folder and try it. Raises UsageError if `what` cannot be written there; `remedy` is the next step."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = "it is a file" if folder.is_file() else error.strerror
        raise UsageError(f"cannot write {what} to {folder}: {reason}; {remedy}.") from None


def read_record(path: Path) -> Record:
    """One record. Raises RecordError naming the file and what is wrong with it."""
    if path.is_fifo():  # reading would wait for a writer
        raise RecordError(f"{path}: cannot be read (it is a pipe); remove it.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        json.dumps(content, ensure_ascii=False).encode()  # fails on half a character, which no file can hold
    except OSError as error:
        raise RecordError(f"{path}: cannot be read ({error.strerror}); remove it or mend its permissions.") from None
    except (ValueError, RecursionError):
        raise RecordError(f"{path}: not whole JSON; delete it and run it again.") from None
    if not isinstance(content, dict) or content.get("schema_version") != SCHEMA:
        have = content.get("schema_version") if isinstance(content, dict) else None
        raise RecordError(
            f"{path}: schema version {have!r}, this zeta-bench reads {SCHEMA}; use the version that wrote it."
        )
    try:
        record = Record(**content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RecordError(f"{path}: field '{where}': {first['msg']}; delete it and run it again.") from None
    if path.stem != record.run_id:
        raise RecordError(f"{path}: its run_id is {record.run_id}; the file's name must be the run_id.")
    return record


def read_all(roots: Mapping[str, Path]) -> tuple[list[tuple[str, Record]], list[str]]:
    """Records of several stores, each with its store's label, and a sentence for each file that was left out.

    One run_id with the same content in two stores counts once (the first store's); with different content both are
    left out by name. The published store is the exception: a user's repeat of a published run has its run_id and other
    timings, and both are kept, told apart by their labels.
    """
    found: dict[tuple[str, str, bool], tuple[str, Path, Record]] = {}
    refused: list[str] = []
    clashes: set[tuple[str, str, bool]] = set()
    for label, root in roots.items():
        store = Store(root)
        for path, record in store.files():
            key = (record.kind, record.run_id, root.resolve() == PUBLISHED_STORE.resolve())
            _, first, same = found.setdefault(key, (label, path, record))
            if same != record:
                clashes.add(key)
                refused.append(f"{path}: {first} has the same run_id and other content; delete one of the two.")
        refused += store.refused
    return [(label, record) for key, (label, _, record) in found.items() if key not in clashes], refused


def frame(records: list[tuple[str, Record]]) -> pd.DataFrame:
    """One row a record.

    Columns: the record's scalar fields, `store` (label of its store), `value` (the reported figure), `name` (protocol
    without hash), `grid.<key>` for each key of the protocol's grid, and `record` (the record itself).
    """
    import pandas as pd

    rows = []
    for label, record in records:
        row = record.model_dump(exclude={"curve", "slices", "metrics", "payload", "versions", "point"})
        row |= {"store": label, "value": record.value, "name": record.protocol.partition("@")[0], "record": record}
        row |= {f"grid.{key}": value for key, value in record.point.items()}
        rows.append(row)
    return pd.DataFrame(rows)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file (text as UTF-8) whole or not at all: a temporary name beside it, flushed to disk, then renamed."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
