"""Decides claims: each part by its rule, on the records at hand, and on nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from zeta_bench.claims import wording
from zeta_bench.claims.decide import SO_FAR, Decision, Reading, decide
from zeta_bench.claims.evidence import Evidence
from zeta_bench.claims.quantities import Found, Measured, Place, find
from zeta_bench.claims.rules import Outcome
from zeta_bench.claims.schema import Claim, Claims, Part
from zeta_bench.claims.verdict import PartVerdict, Status, Verdict, overall
from zeta_bench.records import Record

STATUS: dict[Outcome, Status] = {"holds": "reproduced", "fails": "not reproduced", "open": "inconclusive"}
REDUCED = {"run": "reduced budget", "bench": "workload", "analysis": "analysis"}


def evaluate(claims: Claims, records: Sequence[tuple[str, Record]]) -> tuple[Verdict, ...]:
    """The verdict on each claim.

    Args:
        claims: as `zeta_bench.claims.read_claims` reads them.
        records: every record at hand, with the label of its store.
    """
    evidence = Evidence(records)
    return tuple(_verdict(claim, evidence) for claim in claims.claim)


def _verdict(claim: Claim, evidence: Evidence) -> Verdict:
    parts = tuple(_part(part, evidence) for part in claim.part)
    status = overall([part.status for part in parts])
    why = _summary(status, parts) if len(parts) > 1 else parts[0].why
    return Verdict(claim.id, claim.title, claim.statement, claim.published, claim.source, status, why, parts)


def _summary(status: Status, parts: Sequence[PartVerdict]) -> str:
    """Which parts made the status, and why."""
    decisive = [part for part in parts if part.status == status]
    count = f"{len(decisive)} of {len(parts)} parts" if len(decisive) < len(parts) else f"all {len(parts)} parts"
    if status == "reproduced":
        return f"{count} hold"
    if status == "not run":
        return f"{count} lack records, made by: {wording.listed((part.command for part in decisive), '; ')}"
    if status == "not reproduced":
        return f"{count} fail: {wording.listed((part.text for part in decisive), '; ')}"
    reasons: dict[str, list[str]] = {}
    for part in decisive:
        reasons.setdefault(part.why, []).append(part.text)
    if len(reasons) == 1:
        return f"{count}: {decisive[0].why}"
    told = (f"{why} ({wording.listed(texts)})" for why, texts in reasons.items())
    return f"{count}: {wording.listed(told, '; ')}"


def _part(part: Part, evidence: Evidence) -> PartVerdict:
    readings = _readings(part, part.protocol, evidence)
    whole = [each for each in readings if each.whole]
    if whole:
        return _decided(part, [decide(part, each) for each in whole])
    preview = [each for each in _readings(part, part.preview, evidence) if each.whole] if part.preview else []
    if preview and not readings:
        return _previewed(part, decide(part, max(preview, key=lambda each: each.seeds)))
    return _not_run(part, max(readings, key=lambda each: len(each.measured)) if readings else None)


def _readings(part: Part, protocol: str, evidence: Evidence) -> list[Reading]:
    """One for each place where any of the quantities was measured, in the order of the stores."""
    preview = protocol != part.protocol
    of, than = (
        [find(each, protocol, evidence, seeds=part.seeds, preview=preview) for each in side]
        for side in (part.of, part.than)
    )
    places = {place for found in (*of, *than) for place in found}
    ordered = sorted(places, key=lambda place: (evidence.stores.index(place.store), place.device))
    return [Reading(place, _at(of, place), _at(than, place)) for place in ordered]


def _at(found: Sequence[Found], place: Place) -> tuple[Measured | None, ...]:
    return tuple(each.get(place) for each in found)


def _decided(part: Part, decisions: Sequence[Decision]) -> PartVerdict:
    """Places with enough figures must agree; where there is none, the one with most seeds is told."""
    sound = [each for each in decisions if each.sound]
    chosen = sound[0] if sound else max(decisions, key=lambda each: each.reading.seeds)
    if not sound:
        return _told(part, "inconclusive", chosen, chosen.why, part.command if chosen.lacks else "")
    if len({each.outcome for each in sound}) == 1:
        return _told(part, STATUS[chosen.outcome], chosen, chosen.why)
    split = (f"{wording.place_text(each.reading.place)}: the rule {SO_FAR[each.outcome]}" for each in sound)
    return _told(part, "inconclusive", chosen, f"places disagree; {'; '.join(split)}")


def _previewed(part: Part, decision: Decision) -> PartVerdict:
    """Only a reduced protocol has run: what it says is told, and decides nothing."""
    reading = decision.reading
    count = "" if part.kind == "bench" else f" ({reading.count})"
    instead = next((f" at {each.instead}" for each in reading.measured if each.instead), "")
    says = reading.trouble or f"the rule {SO_FAR[decision.outcome]}"
    why = f"only the {REDUCED[part.kind]} {part.preview} has run{count}: there{instead} {says}"
    return _told(part, "inconclusive", decision, why, part.command, f"under {part.preview}: ")


def _told(part: Part, status: Status, decision: Decision, why: str, command: str = "", before: str = "") -> PartVerdict:
    return _with(part, status, why, decision.reading, before + decision.measured, command)


def _not_run(part: Part, reading: Reading | None) -> PartVerdict:
    have = reading.measured if reading else []
    names = [quantity.name for quantity in (*part.of, *part.than)]
    missing = wording.listed(name for name in names if name not in {each.name for each in have})
    place = f" for {wording.place_text(reading.place)}" if reading else ""
    why = f"no record of {missing} under {part.protocol}{place} ({wording.context(part)})"
    return _with(part, "not run", why, reading, wording.measured_text(have, []), part.command)


def _with(part: Part, status: Status, why: str, reading: Reading | None, measured: str, command: str) -> PartVerdict:
    have = reading.measured if reading else []
    ids = ", ".join(dict.fromkeys(each.protocol for each in have)) or part.protocol
    return PartVerdict(
        text=part.text,
        rule=wording.rule_text(part),
        status=status,
        why=why,
        measured=measured,
        published=part.published,
        protocol=f"{ids} · {wording.place_text(reading.place)}" if reading else ids,
        seeds=wording.seeds_of(have),
        run_ids=tuple(dict.fromkeys(run_id for each in have for run_id in each.run_ids)),
        command=command,
    )
