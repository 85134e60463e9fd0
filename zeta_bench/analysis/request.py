"""What an analysis measures, without torch: settings, whose id is the protocol of the records, and points."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import Field, PositiveInt

from zeta_bench.efficiency.workload import length_text, parse_length
from zeta_bench.errors import UsageError
from zeta_bench.settings import Settings

D_KS = (1, 2, 3, 4, 6, 8, 12, 16, 32, 64, 128)
"""Widths of the space in which ZETA searches; the paper's figure goes to 128."""
SEEDS = 5
DEFAULT, FINE = "default", "fine"
CODES = (DEFAULT, FINE)
"""Bits a coordinate: as the library chooses for d_K, and (locality) one number at every d_K."""


class Analysis(Settings):
    """What both analyses have: everything that fixes the meaning of a figure except d_K, length, points and seed.

    Attributes:
        k: neighbours a query; the paper's 64.
        queries: a sample of so many, or of every key if queries are keys and there are fewer.
        shared: whether queries are keys, so that each finds itself.
    """

    task: ClassVar[str]
    method: ClassVar[int] = 1
    """Raise it when a change of the procedure moves the numbers."""
    lengths: ClassVar[tuple[int, ...]]
    distributions: ClassVar[dict[str, str]]

    k: PositiveInt = 64
    queries: PositiveInt = 256
    shared: bool = False

    @property
    def content(self) -> dict[str, Any]:
        """Everything that the id stands for."""
        return {"task": self.task, "method": self.method, **self.model_dump(mode="json")}

    @property
    def id(self) -> str:
        """Short description and content hash, such as ``analysis-top64@1f2e3d4c``."""
        digest = hashlib.sha256(json.dumps(self.content, sort_keys=True).encode()).hexdigest()[:8]
        return f"analysis-top{self.k}{'-shared' if self.shared else ''}@{digest}"

    def words(self) -> list[str]:
        """The options that ask for these settings, without those that are the default."""
        words: list[str] = []
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if value != field.default:
                words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
        return words


class Locality(Analysis):
    """How many of a query's exact nearest keys its window on the Z-order curve holds (ZETA, claim C4).

    Attributes:
        bits: a coordinate, of the code "fine"; an fp32 coordinate has no more than 24.
    """

    task: ClassVar[str] = "locality"
    lengths: ClassVar[tuple[int, ...]] = (512, 2048, 8192)
    distributions: ClassVar[dict[str, str]] = {
        "uniform": "uniform in [−1, 1]^d_K",
        "tanh-normal": "tanh of a standard normal vector",
    }

    bits: int = Field(default=16, ge=1, le=24)


class Distortion(Analysis):
    """What a random projection to d_K keeps, and what a search on the curve keeps of that (ZETA, claim C10).

    Attributes:
        width: D, of the points before the projection.
    """

    task: ClassVar[str] = "distortion"
    lengths: ClassVar[tuple[int, ...]] = (2048,)
    distributions: ClassVar[dict[str, str]] = {
        "gaussian": "a standard normal vector in D",
        "clusters": "32 Gaussian centres in D and Gaussian noise around them, half of the variance each",
        "subspace": "a standard normal vector in 8 dimensions, mapped linearly to D",
    }

    width: PositiveInt = 512


ANALYSES: dict[str, type[Analysis]] = {each.task: each for each in (Locality, Distortion)}
TASKS = tuple(ANALYSES)


@dataclass(frozen=True)
class Point:
    """What a record is about: keys, their distribution, seed."""

    length: int
    distribution: str
    seed: int

    @property
    def content(self) -> dict[str, Any]:
        """A record's point: everything but the seed, which has a field of its own."""
        return {"length": self.length, "distribution": self.distribution}

    def __str__(self) -> str:
        return f"{self.distribution} {length_text(self.length)}, seed {self.seed}"


def make_points(
    settings: Analysis, lengths: Sequence[str], distributions: Sequence[str], seeds: Sequence[int]
) -> list[Point]:
    """The points that a user typed, in the order in which they are measured; what was left out is the default.

    Raises:
        UsageError: a length that is none or shorter than k, or an unknown distribution.
    """
    sizes = sorted({parse_length(text) for text in lengths}) or list(settings.lengths)
    if sizes[0] < settings.k:
        raise UsageError(f"--length {sizes[0]} has fewer keys than --k {settings.k} neighbours; use a longer one.")
    for name in distributions:
        if name not in settings.distributions:
            close = difflib.get_close_matches(name, settings.distributions, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]}? " if close else ""
            known = ", ".join(settings.distributions)
            raise UsageError(f"unknown distribution '{name}': {hint}{settings.task} has {known}.")
    kinds = [name for name in settings.distributions if not distributions or name in distributions]
    return [Point(length, kind, seed) for length in sizes for kind in kinds for seed in seeds]


def sorted_d_ks(typed: Sequence[int], settings: Analysis) -> tuple[int, ...]:
    """Each d_K once, ascending, or the default. Raises UsageError for one that is no projection."""
    found = tuple(sorted(set(typed))) or D_KS
    if isinstance(settings, Distortion) and found[-1] > settings.width:
        raise UsageError(
            f"--d-k {found[-1]} is more than the {settings.width} dimensions that are projected; use fewer, or a "
            "larger --width."
        )
    return found
