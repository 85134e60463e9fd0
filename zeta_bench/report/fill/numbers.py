"""A number's marker, filled in: the text, the records that it was computed from, and what it lacks."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace

from zeta_bench.claims import Claim, PartVerdict, Verdict, wording
from zeta_bench.claims.file import UNITS
from zeta_bench.errors import UsageError
from zeta_bench.published import Published
from zeta_bench.registry import parse_settings, unknown
from zeta_bench.report.benches.tables import UNITS as BENCH_UNITS
from zeta_bench.report.benches.tables import exponent_text, figure_text
from zeta_bench.report.fill.asks import ClaimAsk, Form, Number, PublishedAsk, SweepAsk
from zeta_bench.report.fill.known import Known
from zeta_bench.report.fill.lacks import Lack
from zeta_bench.report.fill.values import Value, value_of
from zeta_bench.report.runs.pairs import student
from zeta_bench.report.sources import Source
from zeta_bench.report.write.render import escape_markdown

NOT_RUN = "not run"
NO_VALUE = "no value"
PART_SHOWS: dict[str, Callable[[PartVerdict], str]] = {
    "status": lambda part: part.status,
    "title": lambda part: part.text,
    "statement": lambda part: part.rule,
    "published": lambda part: part.published,
    "measured": lambda part: part.measured,
    "why": lambda part: part.why,
}


@dataclass(frozen=True)
class Result:
    """What stands in a page now.

    Attributes:
        text: Markdown.
        sources: every record that it depends on.
        lacks: what is missing for it.
    """

    text: str
    sources: tuple[Source, ...] = ()
    lacks: tuple[Lack, ...] = ()


def fill_number(number: Number, known: Known) -> Result:
    """The text of a number. Raises UsageError without place for a name that there is not."""
    if isinstance(number.ask, ClaimAsk):
        return _claim(number.ask, number.show, known)
    if isinstance(number.ask, SweepAsk):
        return _sweep(number.ask, number.show, known)
    if isinstance(number.ask, PublishedAsk):
        return Result(escape_markdown(_published(number.ask, known)))
    sides = [value_of(ask, known) for ask in (number.ask, number.other) if ask is not None]
    value = sides[0] if number.other is None else _compared(sides[0], sides[1], number.sign)
    if value.mean is None and number.show != "seeds":
        ran = all(side.sources for side in sides)
        return Result(NO_VALUE if ran else NOT_RUN, value.sources, value.lacks)
    return Result(_written(value, number), value.sources, value.lacks)


def _compared(one: Value, other: Value, sign: str) -> Value:
    """The ratio of two figures, or their difference: over shared seeds with Student's interval where there are some."""
    sources = tuple(dict.fromkeys((*one.sources, *other.sources)))
    lacks = tuple(dict.fromkeys((*one.lacks, *other.lacks)))
    if one.mean is None or other.mean is None:
        return Value(sources=sources, lacks=lacks)
    if sign == "over":
        ratio = one.mean / other.mean if other.mean else None
        return Value("ratio", ratio, sources=sources, lacks=lacks)
    left, right = one.values or {}, other.values or {}
    values = {seed: left[seed] - right[seed] for seed in sorted(left.keys() & right.keys())}
    if not values:
        return Value(sources=sources, lacks=(*lacks, Lack("no seed that both have", "")))
    mean = statistics.fmean(values.values())
    found = student(list(values.values()))
    low, high = found[:2] if found else (mean, mean)
    return Value(f"Δ{one.unit}", mean, low, high, values, sources, lacks)


def _written(value: Value, number: Number) -> str:
    def write(figure: float) -> str:
        return figure_of(figure, value.unit, number.form)

    mean, values = value.mean or 0.0, value.values or {}
    if number.show == "seeds":
        return str(len(values))
    if number.show == "p":
        found = student(list(values.values()))
        return "–" if found is None else f"{found[2]:.2g}"
    if number.show in ("least", "most"):
        return write((min if number.show == "least" else max)(values.values(), default=mean))
    spread = value.low < value.high and not math.isclose(value.low, value.high)  # a mean may be rounded
    ends = f"{write(value.low)} to {write(value.high)}" if spread else write(mean)
    if number.show == "range" or not spread:
        return ends
    if number.show == "mean":
        return write(mean)
    reach = replace(value, unit=value.unit.removeprefix("Δ"))
    told = figure_of(max(mean - value.low, value.high - mean), reach.unit, number.form)
    return f"{write(mean)} ({ends})" if value.unit != reach.unit else f"{write(mean)} ± {told}"


def figure_of(figure: float, unit: str, form: Form) -> str:
    """A figure with the digits that suit its unit, or those that were asked for; bytes as MiB."""
    if form.form != "number":
        share = {"percent": figure, "more": figure - 1, "fewer": 1 - figure}[form.form]
        return f"{100 * share:.{form.digits or 0}f} %"
    plus = "+" if unit.startswith("Δ") and figure >= 0 else "-" if figure < 0 else ""
    unit, size = unit.removeprefix("Δ"), abs(figure) / (BENCH_UNITS["memory"][1] if unit.endswith("bytes") else 1.0)
    if form.digits is not None:
        return f"{plus}{size:.{form.digits}f}"
    if unit == "exponent":
        return f"{plus}{exponent_text(size)}"
    return f"{plus}{figure_text(size) if unit in ('ms', 'bytes', 'ratio') else wording.number(size, unit)}"


def _sweep(ask: SweepAsk, show: str, known: Known) -> Result:
    """How many runs a sweep has, or how many of them have no record on any device."""
    from zeta_bench.report.fill.sweeps import count_runs

    counted = count_runs(ask.name, ask.protocol, known)
    if show == "runs":
        return Result(str(counted.runs))
    lacks = (Lack(f"{counted.left} of {counted.runs} runs", counted.command),) if counted.left else ()
    return Result(str(counted.left), counted.sources, lacks)


# What others print, and what the rules say


def _published(ask: PublishedAsk, known: Known) -> str:
    """``64.52 %``."""
    grid = parse_settings(ask.grid, ask.grid)
    names = (ask.task, ask.protocol, ask.variant)
    found = [row for row in known.published if (row.task, row.protocol, row.variant) == names and row.point == grid]
    found = [row for row in found if ask.metric in ("", row.metric)]
    if len(found) == 1:
        return _with_unit(found[0])
    if found:
        raise UsageError(f"published.csv has several; say which: metric={found[0].metric}.")
    have = {"/".join((row.task, row.protocol, row.variant)) for row in known.published}
    told = unknown("published number", "/".join(names), have)
    raise UsageError(told.partition("'zeta-bench")[0] + f"'zeta-bench ls published --task {ask.task}' lists them.")


def _with_unit(row: Published) -> str:
    return f"{row.value:.10g}{UNITS[row.unit]}"


def _claim(ask: ClaimAsk, show: str, known: Known) -> Result:
    if ask.id not in known.claims:
        raise UsageError(f"there is no claim {ask.id}; there is {', '.join(known.claims)}.")
    claim, verdict = known.claims[ask.id]
    if ask.part is not None and ask.part > len(verdict.parts):
        raise UsageError(f"claim {ask.id} has {len(verdict.parts)} parts; there is no part {ask.part}.")
    sources, lacks = behind(claim, verdict, known, ask.part)
    told = getattr(verdict, show, "") if ask.part is None else PART_SHOWS[show](verdict.parts[ask.part - 1])
    if ask.part is None and show == "measured":
        raise UsageError(f"'measured' is of one part of {ask.id}: add part=1.")
    return Result(escape_markdown(told) or "–", *((sources, lacks) if show in ("status", "measured", "why") else ()))


def behind(
    claim: Claim, verdict: Verdict, known: Known, part: int | None = None
) -> tuple[tuple[Source, ...], tuple[Lack, ...]]:
    """The records behind a verdict, or behind that of one part, and what it waits for."""
    sources: dict[Source, None] = {}
    lacks: dict[Lack, None] = {}
    for number, (asked, found) in enumerate(zip(claim.part, verdict.parts, strict=True), 1):
        if part in (None, number):
            sources |= dict.fromkeys(known.sources(asked.kind, found.run_ids))
            if found.command:
                why = "no record that decides" if found.status == "inconclusive" else found.status
                lacks[Lack(f"{claim.id}: {why}", known.command(found.command))] = None
    return tuple(sources), tuple(lacks)
