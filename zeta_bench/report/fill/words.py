"""The words of a marker. Nothing in them is run: they name records, and how a figure is written.

    run/TASK/PROTOCOL/VARIANT [metric= seed= slice=GROUP/NAME device= GRID.KEY=]       of the test split
    bench/speed|memory/WORKLOAD/CONTENDER mode= lengths=8k [graph=true stage=]         ms or MiB; of 8k|1M the exponent
    analysis/locality|distortion/SETTINGS distribution= length= d_k= measure= [code=]
    layers/TASK/PROTOCOL/VARIANT layer= measure= [head=]                               of models run with --diagnose
    published/TASK/PROTOCOL/VARIANT [metric= grid=]                                    a paper's, from published.csv
    claim/C1 [part=2]
    sweep/NAME|NAME [protocol=]                       runs of results/sweeps (all: of every file), or how many are left

Protocols, workloads and settings are written as in ``results/claims.toml``. Behind them one word says what is shown
(see `SHOWS`), ``digits=`` and ``form=number|percent|more|fewer`` how. ``over KEY=VALUE`` shows the ratio to the same
with something else in its place, ``less KEY=VALUE`` the difference, seed by seed.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from zeta_bench.errors import UsageError

PATHS: dict[str, tuple[str, ...]] = {
    "run": ("task", "protocol", "variant"),
    "bench": ("task", "protocol", "variant"),
    "analysis": ("task", "protocol"),
    "layers": ("task", "protocol", "variant"),
    "published": ("task", "protocol", "variant"),
    "claim": ("id",),
    "sweep": ("name",),
}
"""What the parts of a path are, by what it begins with."""
CLAIMS = "claims"
"""The path of the table of all claims."""
FIGURES = ("mean", "interval", "range", "least", "most", "seeds", "p")
"""The mean, as 0.98 ± 0.01, the interval's ends, the least and the greatest of the seeds, their number, p of less."""
SHOWS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("run", "bench", "analysis", "layers"), FIGURES),
    "published": ("value",),
    "claim": ("status", "title", "statement", "published", "measured", "why"),
    "sweep": ("runs", "left"),
}
"""What can be shown; the first is shown if nothing is said."""
SIGNS = ("over", "less")
HOW = ("digits", "form")
"""Keys of how a figure is written; they may stand anywhere."""
_NAME = re.compile(r"[A-Za-z][\w-]*$")


@dataclass(frozen=True)
class Words:
    """What a marker asks for, not yet checked against what there is.

    Attributes:
        path: its first word, in parts.
        keys: every key=value.
        bare: the other words, in their order.
        sign: "over", "less" or "".
        other: the keys behind the sign.
    """

    path: tuple[str, ...]
    keys: Mapping[str, str] = field(default_factory=dict)
    bare: tuple[str, ...] = ()
    sign: str = ""
    other: Mapping[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """What the path begins with."""
        return self.path[0]


def split_words(text: str, names: Mapping[str, Words]) -> Words:
    """The words of a marker; a name of the page stands for the words that it was given.

    Raises:
        UsageError: without place; quotation marks that are not closed, a key that is given twice, no path.
    """
    try:
        head, *rest = shlex.split(text)
    except ValueError:
        told = "names nothing; write what it shows" if not text.strip() else "has an open quotation mark; close it"
        raise UsageError(f"this marker {told}, such as <!--n run/mqar/small/zeta-->.") from None
    found = names.get(head) or Words(tuple(head.split("/")))
    if head not in names and "/" not in head and head not in (*PATHS, CLAIMS):
        have = f"; this page has {', '.join(names)}" if names else ""
        raise UsageError(f"'{head}' is neither a path such as run/mqar/small/zeta nor a name{have}.")
    given: set[str] = set()
    for word in rest:
        found = _with_word(found, word, given)
    if found.sign and not found.other:
        raise UsageError(f"'{found.sign}' needs what to compare with, such as {found.sign} variant=vanilla.")
    return found


def _with_word(found: Words, word: str, given: set[str]) -> Words:
    if word in SIGNS:
        if found.sign:
            raise UsageError(f"'{found.sign}' stands there already; one comparison is all that a marker shows.")
        return replace(found, sign=word)
    key, equals, value = word.partition("=")
    if not equals:
        return replace(found, bare=(*found.bare, word))
    place = f"{found.sign} {key}"
    if not key or not value or place in given:
        told = "is given twice" if place in given else "is not whole; write key=value"
        raise UsageError(f"'{word}' {told}.")
    given.add(place)
    if found.sign and key not in HOW:
        return replace(found, other={**found.other, key: value})
    return replace(found, keys={**found.keys, key: value})


def name_words(text: str, names: Mapping[str, Words]) -> tuple[str, Words]:
    """``NAME = WORDS`` of a let. Raises UsageError without place if it is not that, or the name is taken."""
    name, equals, words = (part.strip() for part in text.partition("="))
    if not equals or not _NAME.match(name):
        raise UsageError("a let is written <!--let NAME = WORDS-->, its name of letters, digits, - and _.")
    if name in names or name in (*PATHS, CLAIMS):
        raise UsageError(f"the name '{name}' is taken; choose another one.")
    return name, split_words(words, names)
