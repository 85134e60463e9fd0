"""Everything that pages are filled in from, each read or worked out once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from zeta_bench.claims import Claim, Verdict, evaluate, read_claims
from zeta_bench.claims.evidence import Evidence
from zeta_bench.published import Published, read_published
from zeta_bench.records import Record
from zeta_bench.report.claim_tables import claim_tables
from zeta_bench.report.sources import Source
from zeta_bench.report.table import Table


@dataclass(frozen=True)
class Known:
    """Records of some stores, what they say of the claims, and the numbers of papers.

    Attributes:
        records: each with the label of its store.
        options: what makes a command write where they came from, such as "--records results/records".
    """

    records: Sequence[tuple[str, Record]]
    options: str = ""

    @cached_property
    def evidence(self) -> Evidence:
        """The records, ordered."""
        return Evidence(self.records)

    @cached_property
    def claims(self) -> Mapping[str, tuple[Claim, Verdict]]:
        """Each claim with its verdict, by id."""
        claims = read_claims()
        verdicts = evaluate(claims, self.records)
        return {claim.id: (claim, verdict) for claim, verdict in zip(claims.claim, verdicts, strict=True)}

    @cached_property
    def claim_tables(self) -> Mapping[str, Table]:
        """Both, by name."""
        return {table.name: table for table in claim_tables([verdict for _, verdict in self.claims.values()])}

    @cached_property
    def published(self) -> tuple[Published, ...]:
        """Numbers of papers."""
        return read_published()

    def command(self, text: str) -> str:
        """A command, or several, that write their records where these came from."""
        return " && ".join(f"{each} {self.options}".strip() for each in text.split(" && "))

    def sources(self, kind: str, run_ids: Iterable[str], store: str = "") -> tuple[Source, ...]:
        """The records of a kind with these ids; of one store, or of every one that has them."""
        wanted = dict.fromkeys(run_ids)
        have = {(label, record.run_id) for label, record in self.records if record.kind == kind}
        stores = [store] if store else self.evidence.stores
        return tuple(Source(label, kind, each) for each in wanted for label in stores if (label, each) in have)

    def records_of(self, sources: Iterable[Source]) -> list[Record]:
        """The records behind some sources, in their order."""
        found = {Source(label, record.kind, record.run_id): record for label, record in self.records}
        return [found[source] for source in sources if source in found]
