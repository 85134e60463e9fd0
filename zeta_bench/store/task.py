"""A task whose data is made once and kept in the cache."""

from __future__ import annotations

import hashlib
import json
import math
import shlex
from abc import abstractmethod
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any, ClassVar

from zeta_bench.errors import DataMissing, ZetaBenchError
from zeta_bench.store.cache import Arrays, Entry, Manifest, content_digest, make_key, save
from zeta_bench.task import BenchTask

Advance = Callable[[int, int], None]
"""Called with how much is done and how much there is."""


class StoredTask(BenchTask):
    """A task that reads its examples from the cache; every setting of its ``[data]`` needs a default.

    Class attributes:
        name: registered name.
        data_version: raise it when a change moves the data that the same settings give.
        published: data digest by key, for the settings whose numbers are published. Data that comes out otherwise is
            refused: under the same protocol id it would give other numbers.
        verb: what ``zeta-bench data`` does to get it.
        drawn_by: packages whose versions decide what is drawn.
    """

    name: ClassVar[str]
    data_version: ClassVar[int] = 1
    published: ClassVar[Mapping[str, str]] = {}
    verb: ClassVar[str] = "generate"
    drawn_by: ClassVar[tuple[str, ...]] = ("numpy",)

    @abstractmethod
    def make(self, advance: Advance, processes: int) -> Arrays:
        """Make the data: arrays by name, the same for the same settings whatever the number of processes."""

    def identity(self) -> dict[str, Any]:
        """What decides the content of the data; settings that only choose among it may be left out."""
        return dict(self.data.model_dump(mode="json"))

    @property
    def entry(self) -> Entry:
        """Where the data is, or would be."""
        return Entry(self.name, make_key(self.data_version, self.identity()))

    def drawing_seconds(self) -> float:
        """About how long one core takes to make the data; infinite where it is not said, and a run never makes it."""
        return math.inf

    def generate(self, advance: Advance, processes: int = 1) -> Manifest:
        """Make the data and put it in the cache. Raises ZetaBenchError, and leaves the cache alone, if that fails."""
        return self.keep(self.make(advance, processes))

    def keep(self, arrays: Arrays, source: str = "") -> Manifest:
        """Put data in the cache; `source`: what it was read from. Raises ZetaBenchError if it is not the published."""
        entry = self.entry
        expected = self.published.get(entry.key)
        if expected is not None and (found := content_digest(arrays)) != expected:
            raise ZetaBenchError(
                f"the data made for {self.name} has the digest {found}, that of published numbers is {expected}: "
                f"{self.why_other()}. Nothing was kept."
            )
        return save(entry, self.data_version, self.identity(), arrays, source)

    def why_other(self) -> str:
        """Why data may come out other than it was published, and what to do, as the end of a sentence."""
        here = " or ".join(f"{name} {version(name)}" for name in self.drawn_by)
        return f"{here} draws other numbers; install the one that constraints.txt names"

    def check(self) -> None:
        """Raise DataMissing if the data is not in the cache, or a file of it is missing, cut off or changed."""
        if not self.entry.exists():
            raise DataMissing(f"get it with: {self.remedy()}")
        try:
            self.entry.check_files()
        except ZetaBenchError as error:
            raise DataMissing(f"{error}; make it again with: {self.remedy('--force')}") from None

    def digest(self) -> str:
        """Digest of the content, as it was found when the data was made, and of settings that choose among it."""
        self.check()
        content, settings = self.entry.manifest().digest, self.data.model_dump(mode="json")
        if choice := {key: value for key, value in settings.items() if key not in self.identity()}:
            return hashlib.sha256(json.dumps([content, choice], sort_keys=True).encode()).hexdigest()[:16]
        return content

    def nbytes(self) -> int:
        """Bytes of the files, all of which may come to lie in memory."""
        self.check()
        return self.entry.manifest().nbytes

    def remedy(self, *more: str) -> str:
        """The command that gets this data; `more`: further words of it."""
        words = ["zeta-bench", "data", self.verb, self.name]
        named = [] if self.entry.key in self.published else self.changes()
        return shlex.join([*words, *named, *more])

    def changes(self) -> list[str]:
        """``--set data.K=V`` for each setting that decides the data and is not the default."""
        options, identity = [], self.identity()
        for name, field in type(self.data).model_fields.items():
            if name in identity and (value := getattr(self.data, name)) != field.default:
                text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
                options += ["--set", f"data.{name}={text}"]
        return options
