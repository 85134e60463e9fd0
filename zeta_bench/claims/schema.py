"""The fields of ``results/claims.toml``: claims, their parts, and the quantities that a part compares.

A part names its kind of records, a protocol and a rule. Its quantities are tables in ``of`` and ``than``; what all of
them share stands once, in ``where``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from zeta_bench.analysis.request import ANALYSES
from zeta_bench.efficiency.workload import ModuleWorkload, OpWorkload, length_text
from zeta_bench.errors import UsageError
from zeta_bench.registry import parse_settings
from zeta_bench.settings import Settings, make_settings

Text = Annotated[str, Field(min_length=1)]
RuleName = Literal["at-least", "at-most", "above", "greater", "within", "spread-at-most", "largest-among"]
EACH = ("at-least", "at-most", "above", "greater", "within")
"""Rules that are asked of each quantity in ``of``, with the one at its place in ``than`` or the only one there."""
WORKLOADS: dict[str, type[OpWorkload | ModuleWorkload]] = {"op": OpWorkload, "module": ModuleWorkload}


class RunQuantity(Settings):
    """A metric on the test split, over seeds.

    Attributes:
        name: how sentences call it.
        task: its task; of several the mean over them, seed by seed.
        variant: label, as behind ``--attn``.
        metric: of the protocol; a record with another one does not count.
        at: keys and values of the protocol's grid.
    """

    kind: Literal["run"]
    name: Text
    task: tuple[str, ...] = Field(min_length=1)
    variant: Text
    metric: Text
    at: dict[str, Any] = Field(default_factory=dict)


class BenchQuantity(Settings):
    """Time or memory of a contender.

    Attributes:
        name: how sentences call it.
        task: "speed" or "memory".
        variant: the contender.
        mode: of the bench.
        lengths: of one length the figure there; of several the exponent of N that fits all of them.
        graph: replays of a CUDA graph; memory has none.
        stage: of ZETA's stages this one, instead of what `mode` says.
    """

    kind: Literal["bench"]
    name: Text
    task: Literal["speed", "memory"]
    variant: Text
    mode: Literal["forward", "backward", "both"]
    lengths: tuple[PositiveInt, ...] = Field(min_length=1)
    graph: bool = False
    stage: str = ""


class AnalysisQuantity(Settings):
    """What an analysis found at one d_K, over seeds.

    Attributes:
        name: how sentences call it.
        task: "locality" or "distortion".
        distribution: of the points.
        length: keys.
        d_k: dimensions.
        measure: the figure's key in a record's rows.
        code: bits a coordinate: "default" or "fine".
        protocol: another one than the part's, "" = that.
    """

    kind: Literal["analysis"]
    name: Text
    task: Literal["locality", "distortion"]
    distribution: Text
    length: PositiveInt
    d_k: PositiveInt
    measure: Text
    code: Literal["default", "fine"] = "default"
    protocol: str = ""


Quantity = Annotated[RunQuantity | BenchQuantity | AnalysisQuantity, Field(discriminator="kind")]


class Row(Settings):
    """A number of ``results/published.csv`` by what identifies it there."""

    task: Text
    protocol: Text
    variant: Text
    grid: str = ""


class Part(Settings):
    """One comparison and the rule that decides it.

    Attributes:
        text: what is compared, in words.
        kind: of the records.
        protocol: that decides. Of runs a name; of benches a workload such as ``op:dtype=bf16,chunk=16``; of analyses
            settings such as ``analysis:shared=true``.
        preview: a reduced one; where only that has run, its figures are told and decide nothing.
        rule: see `zeta_bench.claims.rules`; "greater" is paired over seeds.
        where: what all quantities share.
        of: what the rule is about.
        than: what it is compared with; of "largest-among" all others.
        factor: on `than`, for at-least and at-most.
        bound: a constant instead of `than`; the limit of spread-at-most.
        low: of within.
        high: of within.
        any: one quantity of `of` is enough, instead of each.
        seeds: so many decide, where a protocol's file does not say it.
        command: makes the records.
        published: the paper's figures, as text.
        rows: the same, where ``results/published.csv`` has them.
    """

    text: Text
    kind: Literal["run", "bench", "analysis"]
    protocol: Text
    preview: str = ""
    rule: RuleName
    where: dict[str, Any] = Field(default_factory=dict)
    of: tuple[Quantity, ...] = Field(min_length=1)
    than: tuple[Quantity, ...] = ()
    factor: PositiveFloat = 1.0
    bound: float | None = None
    low: float | None = None
    high: float | None = None
    any: bool = False
    seeds: PositiveInt = 3
    command: Annotated[str, Field(pattern=r"^zeta-bench \S+")]
    published: str = ""
    rows: tuple[Row, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _quantities_are_whole(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        where, kind = values.get("where", {}), values.get("kind")
        made = {
            side: [_whole(where, each, kind) for each in _listed(values[side])]
            for side in ("of", "than")
            if side in values
        }
        return {**values, **made}

    @model_validator(mode="after")
    def _rule_has_what_it_needs(self) -> Self:
        needs, there = NEEDS[self.rule], {name for name in OPTIONS if getattr(self, name) not in (None, ())}
        if there not in needs:
            told = " or ".join(" and ".join(sorted(each)) or "nothing" for each in needs)
            raise ValueError(
                f"rule {self.rule} takes {told} besides of, not {' and '.join(sorted(there)) or 'nothing'}"
            )
        if self.than and self.rule in EACH and len(self.than) not in (1, len(self.of)):
            raise ValueError(
                f"of has {len(self.of)} quantities and than {len(self.than)}; give one each, or one for all"
            )
        if self.rule == "spread-at-most" and len(self.of) < 2:
            raise ValueError("a spread needs two quantities in of")
        if self.rule == "greater" and self.kind == "bench":
            raise ValueError("rule greater is paired over seeds, which a bench has not; use above")
        return self

    @model_validator(mode="after")
    def _protocols_can_be_read(self) -> Self:
        own = [each.protocol for each in self.of + self.than if isinstance(each, AnalysisQuantity)]
        for name in {self.protocol, self.preview, *own} - {""} if self.kind != "run" else ():
            try:
                protocol_id(self.of[0].task, name)
            except UsageError as error:
                raise ValueError(str(error)) from None
        return self


OPTIONS = ("than", "bound", "low", "high")
NEEDS: dict[str, tuple[set[str], ...]] = {
    "at-least": ({"than"}, {"bound"}),
    "at-most": ({"than"}, {"bound"}),
    "above": ({"than"},),
    "greater": ({"than"},),
    "within": ({"low", "high"},),
    "spread-at-most": ({"bound"},),
    "largest-among": ({"than"},),
}
"""What each rule is given besides ``of``: one of these sets."""


class Claim(Settings):
    """A claim of the paper.

    Attributes:
        id: "C1".
        title: in a few words.
        statement: what the paper says.
        published: its figures.
        source: where they were read.
        part: what is compared; named in the singular because each is a ``[[claim.part]]`` of the file.
    """

    id: Annotated[str, Field(pattern=r"^C[1-9]\d*$")]
    title: Text
    statement: Text
    published: Text
    source: Text
    part: tuple[Part, ...] = Field(min_length=1)


class Claims(Settings):
    """All of them, in the file's order."""

    claim: tuple[Claim, ...] = Field(min_length=1)


def protocol_id(task: str | tuple[str, ...], protocol: str) -> str:
    """The id in records of ``op:dtype=bf16,chunk=16`` or ``analysis:shared=true``. Raises UsageError if it is none."""
    head, _, rest = protocol.partition(":")
    known = {**WORKLOADS, **({"analysis": ANALYSES[str(task)]} if task in ANALYSES else {})}
    if head not in known:
        heads = ", ".join(f"{each}:" for each in known)
        raise UsageError(f"cannot read protocol '{protocol}': it begins with one of {heads}.")
    return make_settings(known[head], parse_settings(rest, protocol), f"protocol '{protocol}'").id


def _and(names: set[str]) -> str:
    return " and ".join(sorted(names))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _whole(where: Any, own: Any, kind: Any) -> Any:
    """A quantity with what it shares with the others, and with a name of what is its own."""
    if not isinstance(own, Mapping) or not isinstance(where, Mapping):
        return own
    merged = {"name": name_of(own), "kind": kind, **where, **own}
    if isinstance(where.get("at"), Mapping) and isinstance(own.get("at"), Mapping):
        merged["at"] = {**where["at"], **own["at"]}
    if kind == "run" and isinstance(merged.get("task"), str):
        merged["task"] = [merged["task"]]
    return merged


def name_of(settings: Mapping[str, Any]) -> str:
    """``zeta at d_model=256``, ``d_K=3 N=512`` or ``uniform``: a quantity, or what quantities share."""
    at, lengths = settings.get("at", {}), settings.get("lengths", [])
    told = [f"{str(key).rpartition('.')[2]}={value}" for key, value in at.items()] if isinstance(at, Mapping) else []
    told += [f"d_K={settings['d_k']}"] if "d_k" in settings else []
    numbers = [n for n in (settings.get("length"), *(lengths if isinstance(lengths, list) else [])) if type(n) is int]
    told += ["N=" + "–".join(dict.fromkeys(length_text(n) for n in (min(numbers), max(numbers))))] if numbers else []
    who = ", ".join(str(settings[key]) for key in ("variant", "distribution") if key in settings)
    return " at ".join(part for part in (who, " ".join(told)) if part) or "it"
