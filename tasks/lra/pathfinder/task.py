"""Pathfinder as a task: its settings, its splits and its score. Path-X is the same with other settings."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import closing
from functools import cached_property, partial
from itertools import count
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, NonNegativeInt, PositiveInt, model_validator
from torch import Tensor

from zeta_bench.errors import ZetaBenchError
from zeta_bench.settings import Settings
from zeta_bench.store.cache import Arrays
from zeta_bench.store.parallel import in_order
from zeta_bench.store.task import Advance, StoredTask
from zeta_bench.task import Batch, Shape, Split
from zeta_bench.tasks.lra.meter import AccuracyMeter
from zeta_bench.tasks.lra.pathfinder.generator import VERSION, Recipe, draw_block
from zeta_bench.tasks.lra.splits import DEALT, DealtSplit, majority

INTENSITIES = 256
PATIENCE = 100
"""Blocks in a row that may bring no new image before drawing is given up."""

Margin = Annotated[int, Field(ge=1, le=16)]
ContourLength = Annotated[int, Field(ge=2, le=100)]


class PathfinderData(Settings):
    """The ``[data]`` of a protocol; the defaults are those of the Long Range Arena's Pathfinder.

    Attributes:
        side: height and width in pixels.
        border: pixels on every side that target snakes leave free.
        antialias: pixels of the fine grid per pixel.
        margins: pixels kept free around a paddle; each image takes one, uniformly.
        seed_distance: pixels between the first ends of the two target snakes.
        marker_radius: of the two discs, in pixels.
        contour_lengths: paddles of a target snake; each image takes one, uniformly. The arena's easier sets: 6 and 9.
        paddle_length: in pixels.
        paddle_thickness: in pixels.
        continuity: how straight snakes are; from an angle of π / (2 · continuity) on, a turn is impossible.
        distractor_paddles: paddles of all distractors together; each has a third of a target snake's.
        snake_contrast: brightness of distractors, where a marker has 1.
        paddle_contrast: brightness of target snakes ÷ that of distractors.
        train_examples: examples to train on; an epoch.
        valid_examples: examples of the validation split.
        test_examples: examples of the test split.
        seed: of the data; the same for every run of a protocol, whatever the run's own seed.
        values: what a model reads: "tokens", the intensity as one of 256 ids, or "real", a number in [0, 1].
    """

    side: int = Field(default=32, ge=8, le=512)
    border: PositiveInt = 1
    antialias: int = Field(default=2, ge=1, le=8)
    margins: tuple[Margin, ...] = Field(default=(1,), min_length=1)
    seed_distance: PositiveInt = 7
    marker_radius: float = Field(default=1.5, gt=0.0, le=64.0)
    contour_lengths: tuple[ContourLength, ...] = Field(default=(14,), min_length=1)
    paddle_length: int = Field(default=2, ge=1, le=64)
    paddle_thickness: float = Field(default=0.5, gt=0.0, le=16.0)
    continuity: float = Field(default=1.0, gt=0.0, le=10.0)
    distractor_paddles: NonNegativeInt = 20
    snake_contrast: float = Field(default=2.0, gt=0.0)
    paddle_contrast: float = Field(default=0.75, gt=0.0)
    train_examples: PositiveInt = 160_000
    valid_examples: PositiveInt = 20_000
    test_examples: PositiveInt = 20_000
    seed: NonNegativeInt = 123
    values: Literal["tokens", "real"] = "tokens"

    @model_validator(mode="after")
    def _snakes_fit(self) -> Self:
        if not (fine := self.paddle_thickness * self.antialias).is_integer():
            raise ValueError(
                f"paddle_thickness · antialias = {fine:g} is no whole number of fine pixels; change one of the two"
            )
        if self.side <= 4 * self.seed_distance:
            raise ValueError(
                f"a first paddle keeps 2 · seed_distance = {2 * self.seed_distance} pixels from every side, which "
                f"leaves none of side = {self.side}; raise side above {4 * self.seed_distance}"
            )
        if self.seed_distance < (least := max(self.paddle_length, *self.margins) + 2):
            raise ValueError(
                f"with seed_distance = {self.seed_distance} a first paddle could leave the image; it must be at least "
                f"{least}, two pixels more than paddle_length and every margin"
            )
        return self

    @property
    def recipe(self) -> Recipe:
        """Which images are drawn."""
        return Recipe(**{name: getattr(self, name) for name in Recipe.__dataclass_fields__})

    def sizes(self) -> dict[Split, int]:
        """Examples of each split, in the order in which they are drawn."""
        return {"test": self.test_examples, "valid": self.valid_examples, "train": self.train_examples}


class PathfinderExamples(DealtSplit):
    """One split, read from the cache as it is needed; see `DealtSplit`."""

    data: PathfinderData

    def batch(self, indices: Tensor) -> Batch:
        """Examples by their indices, int [B], on the CPU.

        Returns:
            ``inputs``, the pixels row by row: int64 [B, side²], 0 … 255, or with real values float32 [B, side², 1];
            ``labels`` int64 [B], 1 = both markers are on one snake; ``slice_contour_length`` int64 [B]. There is no
            ``valid``: black is a pixel like any other, and none is padding.
        """
        rows = self.first + indices.cpu().numpy()
        images = self._arrays["images"][rows]
        real = self.data.values == "real"
        arrays = {
            "inputs": (images.astype(np.float32) / (INTENSITIES - 1))[..., None] if real else images.astype(np.int64),
            "labels": self._arrays["labels"][rows].astype(np.int64),
            "slice_contour_length": np.searchsorted(groups(self.data), self._arrays["contour_lengths"][rows]),
        }
        return {key: torch.from_numpy(array) for key, array in arrays.items()}

    @cached_property
    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {name: self.entry.array(name) for name in ("images", "labels", "contour_lengths")}


class Pathfinder(StoredTask):
    """Pathfinder of the Long Range Arena (Tay et al., ICLR 2021, arXiv 2011.04006; Linsley et al., 2018)."""

    Data = PathfinderData
    version: ClassVar[int] = 1
    name: ClassVar[str] = "lra.pathfinder"
    data_version: ClassVar[int] = VERSION
    drawn_by: ClassVar[tuple[str, ...]] = ("numpy", "pillow")  # which makes the images small
    published: ClassVar[Mapping[str, str]] = {
        "v1-5486fbda2719": "182c8a1acc0625be",  # the defaults, those of the Long Range Arena
        "v1-62e492759dcf": "9434b19e8e9d43f6",  # the protocol `quick`
    }

    def __init__(self, data: Any) -> None:
        super().__init__(data)
        self._splits = {split: PathfinderExamples(data, split, self.entry) for split in DEALT}

    def identity(self) -> dict[str, Any]:
        """What decides the images; how a model reads them is left out."""
        return {name: value for name, value in super().identity().items() if name != "values"}

    def shape(self) -> Shape:
        """A classifier of two, over the pixels."""
        tokens = INTENSITIES if self.data.values == "tokens" else None
        return Shape(head="classifier", outputs=2, max_len=self.data.side**2, vocab_size=tokens, channels=1)

    def examples(self, split: Split) -> PathfinderExamples:
        """A split; its files are opened when a batch is first read."""
        self.check()
        return self._splits[split]

    def meter(self) -> AccuracyMeter:
        """A fresh meter for one split, with a slice by contour length."""
        return AccuracyMeter({"contour_length": [str(length) for length in groups(self.data)]})

    def chance(self) -> float:
        """Share of the test split's more frequent label, a little above 1 / 2."""
        return majority(self.examples("test").labels)

    def drawing_seconds(self) -> float:
        """Some 1.5 µs a pixel."""
        return 1.5e-6 * float(self.data.side**2 * sum(self.data.sizes().values()))

    def make(self, advance: Advance, processes: int) -> Arrays:
        """Draw distinct images until there are enough; they are dealt out in the order of `DEALT`."""
        wanted, done, barren = sum(self.data.sizes().values()), 0, 0
        images = np.empty((wanted, self.data.side**2), dtype=np.uint8)
        labels, lengths = np.empty(wanted, dtype=np.uint8), np.empty(wanted, dtype=np.uint8)
        seen = set[bytes]()
        with closing(in_order(partial(draw_block, self.data.recipe, self.data.seed), count(), processes)) as blocks:
            while done < wanted:
                block = next(blocks)
                new = _new(block.images, seen)[: wanted - done]
                here = slice(done, done + len(new))
                images[here], labels[here] = block.images[new], block.labels[new]
                lengths[here] = block.contour_lengths[new]
                done, barren = done + len(new), 0 if len(new) else barren + 1
                if barren == PATIENCE:
                    raise ZetaBenchError(
                        f"only {done} of {wanted} distinct images were found with these settings; ask for fewer "
                        "examples, or raise side."
                    )
                advance(done, wanted)
        return {"images": images, "labels": labels, "contour_lengths": lengths}


def groups(data: PathfinderData) -> list[int]:
    """The contour lengths of the slice, in order."""
    return sorted(set(data.contour_lengths))


def _new(images: npt.NDArray[np.uint8], seen: set[bytes]) -> list[int]:
    """Numbers of the images [n, pixels] that have not come before; their digests are added to `seen`."""
    found = []
    for number, image in enumerate(images):
        digest = hashlib.blake2b(image.tobytes(), digest_size=16).digest()
        if digest not in seen:
            seen.add(digest)
            found.append(number)
    return found
