"""The records that claims are decided on, ordered as reports order them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from zeta_bench.errors import UsageError
from zeta_bench.protocol import Protocol, find_protocol
from zeta_bench.records import Record, frame
from zeta_bench.registry import Choice, catalogue, parse_settings
from zeta_bench.registry import label as label_of
from zeta_bench.report.analyses.series import AnalysisSet, analysis_sets
from zeta_bench.report.benches.curves import BenchSet, bench_sets
from zeta_bench.report.runs.selection import Comparison, compare


@dataclass(frozen=True)
class Evidence:
    """Records, each with the label of its store."""

    records: Sequence[tuple[str, Record]]

    @cached_property
    def comparisons(self) -> tuple[Comparison, ...]:
        """Cells of runs. Settings that repeat the default are left out: such a run is a seed of the plain variant."""
        runs = [(store, self.bare(record)) for store, record in self.records if record.kind == "run"]
        return compare(frame(runs)) if runs else ()

    @cached_property
    def benches(self) -> tuple[BenchSet, ...]:
        """Curves of benches."""
        return bench_sets(self.records)

    @cached_property
    def analyses(self) -> tuple[AnalysisSet, ...]:
        """Series of analyses."""
        return analysis_sets(self.records)

    @cached_property
    def stores(self) -> list[str]:
        """Labels in the order in which stores were given."""
        return list(dict.fromkeys(store for store, _ in self.records))

    def label(self, text: str) -> str:
        """``zeta:k=16,d_k=3`` → ``zeta:k=16``: a variant as its cells are called."""
        name, _, settings = text.partition(":")
        return label_of(name, self._changed(name, parse_settings(settings, text)))

    def bare(self, record: Record) -> Record:
        """The record without settings that repeat the default."""
        if not record.settings:
            return record
        return record.model_copy(update={"settings": self._changed(record.variant, record.settings)})

    def _changed(self, variant: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The settings that are not the variant's own defaults."""
        default = self.defaults(variant) if settings else {}
        return {key: value for key, value in settings.items() if key not in default or default[key] != value}

    def defaults(self, variant: str) -> Mapping[str, Any]:
        """Every setting of a variant as registered: from a record without settings, or else from its class."""
        if variant not in self._known:
            self._known[variant] = _class_defaults(variant)
        return self._known[variant]

    @cached_property
    def _known(self) -> dict[str, Mapping[str, Any]]:
        plain = (record for _, record in self.records if record.kind == "run" and not record.settings)
        newest_last = sorted(plain, key=lambda record: record.variant_version)
        return {record.variant: record.config for record in newest_last}


def _class_defaults(variant: str) -> Mapping[str, Any]:
    """Of a registered variant, from its class, which imports torch; of another one nothing is known."""
    registered = catalogue().variants.get(variant)
    if registered is None:
        return {}
    from zeta_bench.attention import build_config

    try:
        return build_config(Choice(variant, registered)).model_dump()
    except (UsageError, ImportError):  # an extra that is not installed
        return {}


def protocol_of(task: str, name: str) -> Protocol | None:
    """The protocol's file, or None for a task or a protocol that is not in this installation."""
    try:
        return find_protocol(task, name)
    except (UsageError, ModuleNotFoundError):
        return None
