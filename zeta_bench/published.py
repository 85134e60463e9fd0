"""Numbers as papers print them: the only reader of ``results/published.csv``.

They were measured by others under protocols of their own, so they never enter a mean, a ranking or a figure of ours. A
protocol names the published protocols that it may stand beside (`zeta_bench.schema.Protocol.published`).
"""

from __future__ import annotations

import csv
import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from zeta_bench.errors import RecordError, UsageError
from zeta_bench.registry import parse_settings

if TYPE_CHECKING:
    import pandas as pd

HERE = Path(__file__).resolve().parent
PLACES = (HERE / "results/published.csv", HERE.parent / "results/published.csv")
"""Where the file is: in an installed wheel, and in a checkout."""
UNKNOWN = "unknown"

Text = Annotated[str, Field(min_length=1)]


class Published(BaseModel):
    """One number of a paper; a column of the file is a field here, in this order.

    Attributes:
        task: our name of it, or the one that it would have here.
        grid: where on a grid it stands: ``data.seq_len=64, backbone.d_model=128``, or "".
        protocol: short id of the published protocol.
        protocol_is: what that protocol is; the same in each of its rows.
        variant: as the paper calls it.
        ours: the registered variant of that method, or "". How the two differ is told by protocol and note.
        value: in `unit`.
        better: which way is better.
        paper: authors, year and short title.
        link: "arXiv:…", a URL, or "unknown".
        place: table or figure of the paper, or "unknown".
        read_from: what was read to get it.
        verified: "yes" if it was seen in the paper itself or in its authors' repository.
        hardware: of a time or a memory, "" otherwise.
        note: what else must be known to read it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    task: Annotated[str, Field(pattern=r"^[a-z0-9]+(\.[a-z0-9]+)*$")]
    grid: str
    protocol: Annotated[str, Field(pattern=r"^[A-Z0-9]+(-[A-Z0-9]+)*$")]
    protocol_is: Text
    variant: Text
    ours: str
    metric: Text
    value: float
    unit: Literal["fraction", "percent", "ppl", "ms", "MB"]
    better: Literal["higher", "lower"]
    paper: Text
    link: Annotated[str, Field(pattern=r"^(arXiv:\d{4}\.\d{4,5}|https?://\S+|unknown)$")]
    place: Text
    read_from: Text
    verified: Literal["yes", "second-hand"]
    hardware: str
    note: str

    @field_validator("grid")
    @classmethod
    def _grid_is_readable(cls, text: str) -> str:
        try:
            parse_settings(text, text)
        except UsageError as error:
            raise ValueError(str(error).rstrip(".")) from None
        return text

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.unit in ("ms", "MB") and not self.hardware:
            raise ValueError(f"a number in {self.unit} needs its hardware, or '{UNKNOWN}'")
        return self

    @cached_property
    def point(self) -> dict[str, Any]:
        """The grid's keys and values."""
        return parse_settings(self.grid, self.grid)

    @property
    def figure(self) -> float:
        """The value as our records hold it: a percentage as a fraction."""
        return round(self.value / 100, 10) if self.unit == "percent" else self.value

    @property
    def source(self) -> str:
        """``Arora et al. 2024 (Zoology), arXiv:2312.04927, Figure 2``."""
        return ", ".join(part for part in (self.paper, self.link, self.place) if part != UNKNOWN)

    @property
    def order(self) -> tuple[Any, ...]:
        """Sorts rows; numbers of a grid by size."""
        point = tuple((key, str(type(value)), value) for key, value in self.point.items())
        return self.task, self.protocol, self.variant, point, self.metric


COLUMNS = tuple(Published.model_fields)


def find_published() -> Path:
    """The file of this installation. Raises UsageError where there is none."""
    for path in PLACES:
        if path.is_file():
            return path
    raise UsageError(f"{PLACES[0]} is missing; reinstall zeta-bench, which brings it along.")


def read_published(path: Path | None = None) -> tuple[Published, ...]:
    """Every number, in the file's order.

    Args:
        path: of the file; that of this installation if left out.

    Raises:
        UsageError: there is no such file.
        RecordError: it is malformed; the message names file and line.
    """
    path = path or find_published()
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(_rows(csv.reader(file, strict=True), path))
    except UnicodeDecodeError as error:
        raise RecordError(f"{path}: not UTF-8 ({error.reason}); save it as UTF-8.") from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}; reinstall zeta-bench.") from None
    _check_together(rows, path)
    return tuple(row for _, row in rows)


def frame(rows: Iterable[Published]) -> pd.DataFrame:
    """One row a number: the file's columns, and `figure` (the value as our records hold it)."""
    import pandas as pd

    return pd.DataFrame([{**row.model_dump(), "figure": row.figure} for row in rows], columns=[*COLUMNS, "figure"])


def of_task(rows: Sequence[Published], task: str) -> tuple[Published, ...]:
    """Those of a task, or of a family ("lra" for every "lra.…"). Raises UsageError if there are none."""
    found = tuple(row for row in rows if row.task == task or row.task.startswith(f"{task}."))
    if found:
        return found
    have = sorted({name for row in rows for name in (row.task, row.task.partition(".")[0])})
    close = difflib.get_close_matches(task.lower().replace("_", "."), have, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}" if close else f"there are some of {', '.join(have)}"
    raise UsageError(f"there are no published numbers of task '{task}': {hint}{'?' if close else '.'}")


def _rows(reader: Any, path: Path) -> Iterator[tuple[int, Published]]:
    """Each row with the line that it ends on."""
    try:
        if tuple(next(reader, ())) != COLUMNS:
            raise RecordError(f"{path}:1: the columns must be {', '.join(COLUMNS)}; mend the first line.")
        for cells in reader:
            yield reader.line_num, _row(cells, f"{path}:{reader.line_num}")
    except csv.Error as error:
        raise RecordError(f"{path}:{reader.line_num}: not CSV: {error}; mend that line.") from None


def _row(cells: list[str], where: str) -> Published:
    if len(cells) != len(COLUMNS):
        raise RecordError(f"{where}: it has {len(cells)} cells, not {len(COLUMNS)}; mend that line.")
    try:
        return Published(**dict(zip(COLUMNS, cells, strict=True)))  # type: ignore[arg-type]  # pydantic reads the text
    except ValidationError as error:
        first = error.errors()[0]
        what = first["msg"].removeprefix("Value error, ").rstrip(".")
        column = f"column '{first['loc'][0]}' = {first['input']!r}: " if first["loc"] else ""
        raise RecordError(f"{where}: {column}{what[:1].lower()}{what[1:]}; mend that line.") from None


def _check_together(rows: Iterable[tuple[int, Published]], path: Path) -> None:
    """What no row can show alone: one meaning a protocol, and one number a place."""
    meanings: dict[str, str] = {}
    seen: dict[tuple[Any, ...], int] = {}
    for line, row in rows:
        if meanings.setdefault(row.protocol, row.protocol_is) != row.protocol_is:
            raise RecordError(f"{path}:{line}: protocol {row.protocol} is described in two ways; make them one.")
        for name in {row.variant, f"our {row.ours}" if row.ours else row.variant}:
            key = (row.task, row.protocol, row.grid, row.metric, name)
            first = seen.setdefault(key, line)
            if first != line:
                raise RecordError(f"{path}:{line}: line {first} has a number of {name} there already; leave one out.")


def beside(
    rows: Iterable[Published], task: str, metric: str, protocols: Sequence[str], variant: str, point: Mapping[str, Any]
) -> dict[str, Published]:
    """The number that may stand beside a variant of ours at a point of a grid, by published protocol.

    Args:
        rows: all numbers.
        task: name of the task.
        metric: name of the metric.
        protocols: ids of published protocols that our protocol names.
        variant: a registered variant without further settings.
        point: our grid point; a number holds where it has each of the number's own values.
    """
    held = set(protocols)
    return {
        row.protocol: row
        for row in rows
        if (row.task, row.metric, row.ours) == (task, metric, variant)
        and row.protocol in held
        and all(point.get(key) == value for key, value in row.point.items())
    }
