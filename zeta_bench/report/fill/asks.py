"""What markers ask for, checked: fields as in ``results/claims.toml``, and names that there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from zeta_bench.efficiency.workload import parse_length
from zeta_bench.errors import UsageError
from zeta_bench.protocol import Protocol, find_protocol
from zeta_bench.registry import find_variant, parse_value, tasks_of
from zeta_bench.report.fill.words import PATHS, SHOWS, Words
from zeta_bench.schema import wrong_key
from zeta_bench.settings import Settings, make_settings


class RunAsk(Settings):
    """A metric of runs on the test split, over seeds.

    Attributes:
        metric: another one than the protocol's.
        seed: only this one.
        slice: "distance/1–15": a group of the record's slices and its member.
        device: class of the device, where several have it.
        at: keys and values of the protocol's grid.
    """

    task: str
    protocol: str
    variant: str
    metric: str = ""
    seed: NonNegativeInt | None = None
    slice: str = ""
    device: str = ""
    at: dict[str, Any] = Field(default_factory=dict)


class LayersAsk(Settings):
    """What a layer of the trained models does, over seeds; head 0 where nothing else is said."""

    task: str
    protocol: str
    variant: str
    layer: NonNegativeInt
    measure: str
    head: NonNegativeInt = 0
    device: str = ""
    at: dict[str, Any] = Field(default_factory=dict)


class BenchAsk(Settings):
    """Time or memory at one length, or the exponent of N over several; of a stage instead of `mode`, unless "none"."""

    task: Literal["speed", "memory"]
    protocol: str
    variant: str
    mode: Literal["forward", "backward", "both"]
    lengths: tuple[PositiveInt, ...]
    graph: bool = False
    stage: str = "none"
    device: str = ""


class AnalysisAsk(Settings):
    """What an analysis found at one d_K, over seeds."""

    task: Literal["locality", "distortion"]
    protocol: str
    distribution: str
    length: PositiveInt
    d_k: PositiveInt
    measure: str
    code: Literal["default", "fine"] = "default"


class PublishedAsk(Settings):
    """A number of ``results/published.csv``."""

    task: str
    protocol: str
    variant: str
    metric: str = ""
    grid: str = ""


class ClaimAsk(Settings):
    """A claim, or one of its parts, counted from 1."""

    id: str
    part: PositiveInt | None = None


class SweepAsk(Settings):
    """Runs of files in ``results/sweeps``, each counted once; the names are separated by |."""

    name: str
    protocol: str = ""


class Form(Settings):
    """How a figure is written.

    Attributes:
        digits: behind the point.
        form: "more" and "fewer" are how far a ratio lies above or below 1, in percent.
    """

    digits: NonNegativeInt | None = Field(default=None, le=12)
    form: Literal["number", "percent", "more", "fewer"] = "number"


Ask = RunAsk | LayersAsk | BenchAsk | AnalysisAsk | PublishedAsk | ClaimAsk | SweepAsk
MODELS: dict[str, type[Ask]] = {
    "run": RunAsk,
    "bench": BenchAsk,
    "analysis": AnalysisAsk,
    "layers": LayersAsk,
    "published": PublishedAsk,
    "claim": ClaimAsk,
    "sweep": SweepAsk,
}


@dataclass(frozen=True)
class Number:
    """A number's marker, checked.

    Attributes:
        ask: which figure.
        show: one of `SHOWS` of its kind.
        form: how it is written.
        sign: "over", "less" or "".
        other: the figure to compare with.
    """

    ask: Ask
    show: str
    form: Form
    sign: str = ""
    other: Ask | None = None


def make_number(words: Words) -> Number:
    """A marker's words, checked. Raises UsageError without place: one sentence about the first mistake."""
    if words.kind not in PATHS:
        raise UsageError(f"a number's path begins with {' · '.join(PATHS)}, not with '{words.kind}'.")
    keys = dict(words.keys)
    form = make_settings(Form, {name: parse_value(keys.pop(name)) for name in Form.model_fields if name in keys}, "it")
    show = words.bare[-1] if words.bare else SHOWS[words.kind][0]
    if wrong := next((word for word in words.bare if word not in SHOWS[words.kind]), None):
        raise UsageError(f"'{wrong}' cannot be shown of a {words.kind}: there is {', '.join(SHOWS[words.kind])}.")
    ask = make_ask(words.path, keys)
    if not words.sign:
        if show == "p" or form.form in ("more", "fewer"):
            raise UsageError(f"'{'p' if show == 'p' else form.form}' needs a second figure: less variant=… or over ….")
        return Number(ask, show, form)
    wrong_show = show != "mean" if words.sign == "over" else show not in ("mean", "interval", "range", "p", "seeds")
    if not isinstance(ask, RunAsk | BenchAsk | AnalysisAsk | LayersAsk) or wrong_show:
        raise UsageError(f"'{show}' of a {words.kind} cannot be shown with '{words.sign}'.")
    return Number(ask, show, form, words.sign, make_ask(words.path, {**keys, **words.other}))


def make_ask(path: tuple[str, ...], keys: Mapping[str, str]) -> Ask:
    """A path and its keys as what they ask for; keys stand for parts of the path that have their name."""
    kind, *parts = path
    if len(parts) > len(PATHS[kind]):
        raise UsageError(f"'{'/'.join(path)}' has too many parts: it is {kind}/{'/'.join(PATHS[kind]).upper()}.")
    texts = {**dict(zip(PATHS[kind], parts, strict=False)), **keys}
    values: dict[str, Any] = {}
    for key, value in texts.items():
        text = key in PATHS[kind] or MODELS[kind].model_fields.get(key, _NONE).annotation is str
        values[key] = value if text else parse_value(value)
    if "at" in MODELS[kind].model_fields:
        values["at"] = {key: values.pop(key) for key in texts if "." in key}
    for key in {"length", "lengths"} & set(texts):
        found = tuple(parse_length(each) for each in texts[key].split("|"))
        values[key] = found if key == "lengths" else found[0]
    ask = make_settings(MODELS[kind], values, f"'{'/'.join(path)}'")
    if isinstance(ask, RunAsk | LayersAsk):
        check_names(ask.task, ask.protocol, ask.variant)
    return ask


_NONE = Field()


def check_names(task: str, protocol: str, variant: str = "") -> Protocol:
    """The protocol of that name, changes by ``--set`` left out. Raises UsageError for a name that there is not."""
    if task not in (members := tasks_of(task)):
        raise UsageError(f"'{task}' is a family of tasks; name one of {', '.join(members)}.")
    if variant:
        find_variant(variant)
    name, *changes = protocol.split("+")
    for key in (change.partition("=")[0] for change in changes):
        if mistake := wrong_key(key):
            raise UsageError(f"protocol '{protocol}': {mistake}")
    return find_protocol(task, name)
