"""Every picture of a checkpoint, in the order in which they are told of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from zeta_bench.attention import Attention
from zeta_bench.backbone import Model
from zeta_bench.errors import UsageError
from zeta_bench.gallery.curve import View, draw_curve
from zeta_bench.gallery.layers import draw_distances, draw_recall
from zeta_bench.gallery.measure import measure
from zeta_bench.gallery.passage import Passage
from zeta_bench.gallery.seen import Seen, inputs_of, look, zeta_layer
from zeta_bench.gallery.source import Source
from zeta_bench.gallery.weights import weights_of
from zeta_bench.gallery.writing import Attended, draw_text
from zeta_bench.report.draw.canvas import Drawing
from zeta_bench.task import IGNORE
from zeta_bench.zeta import ZetaAttention

HEADS = 4
"""Most heads in the picture of a text."""
SHOWN = 560
"""Most tokens in it."""
BEHIND = 16
"""Tokens behind the query that are shown too."""


@dataclass(frozen=True)
class Sitting:
    """What is drawn.

    Attributes:
        source: the checkpoint.
        passage: the sequence that the pictures of one query are of.
        layer: number of the layer.
        head: of it.
        query: position of the query in the passage.
    """

    source: Source
    passage: Passage
    layer: int
    head: int
    query: int

    @property
    def told(self) -> str:
        """Which query of which text, for a caption."""
        return f"layer {self.layer}, query at position {self.query} of {self.passage.told}"


def sit(source: Source, passage: Passage, layer: int | None, head: int, query: int | None) -> Sitting:
    """Settle what is left open: the last layer, the last token that the model is asked about.

    Raises:
        UsageError: the variant has no coordinates; there is no such layer, head or position; the query has no choice.
    """
    layers = list(inputs_of(source.model, passage.batch))
    layer = len(layers) - 1 if layer is None else layer
    _within(layer, len(layers), "--layer", "this model has layers")
    attention, x, valid = layers[layer]
    seen = look(zeta_layer(attention, source.label), x, valid)
    _within(head, attention.spec.n_heads, "--head", "its layers have heads")
    query = _last(passage, seen) if query is None else query
    _within(query, seen.q.shape[2], "--query", "the sequence has positions")
    permitted, taken = int(seen.permitted[0, query]), seen.nearest.shape[-1]
    if permitted <= taken:
        raise UsageError(
            f"the query at position {query} may use {permitted} keys and would take {taken}, so it has no choice to "
            "draw; take a longer text with --text, or a later position with --query."
        )
    return Sitting(source, passage, layer, head, query)


def _last(passage: Passage, seen: Seen) -> int:
    """The last real token; of a language model the last one with a label, where some have none."""
    labels, asked = passage.batch.get("labels"), seen.real[0]
    if labels is not None and labels.shape == seen.real.shape:
        asked = asked & (labels[0] != IGNORE)
    return int((asked if asked.any() else seen.real[0]).nonzero().max())


def draw_all(sitting: Sitting, beside: Source | None) -> Iterator[Drawing]:
    """The pictures, each when it is asked for; that of the text is left out where there is none."""
    source = sitting.source
    yield _curve(sitting)
    if sitting.passage.tokens is not None:
        yield _text(sitting, beside, sitting.passage.tokens)
    layers, count = measure(source.model, source.task.examples("test"), source.label)
    told = f"{layers[0].queries:,} queries with a choice, in {count} sequences of the test split"
    if layers[0].queries:
        title = f"{source.task_name}: recall of the search by layer and head"
        captions = (*source.captions, f"{told}; beside each bar γ, the width of the Cauchy weight")
        yield draw_recall(source.name("recall"), title, captions, layers)
        title = f"{source.task_name}: where the selected keys lie"
        yield draw_distances(source.name("distance"), title, (*source.captions, told), layers)


def _curve(sitting: Sitting) -> Drawing:
    source = sitting.source
    views = [_view(sitting, "trained", source.model), _view(sitting, "untrained", source.untrained)]
    title = f"{source.task_name}: the Z-order curve through the keys of layer {sitting.layer}, head {sitting.head}"
    captions = (*source.captions, f"{sitting.told}; untrained: {source.untrained_told}")
    return draw_curve(source.name("curve"), title, captions, views)


def _view(sitting: Sitting, title: str, model: Model) -> View:
    attention, x, valid = list(inputs_of(model, sitting.passage.batch))[sitting.layer]
    return View(title, look(zeta_layer(attention, sitting.source.label), x, valid), sitting.head, sitting.query)


def _text(sitting: Sitting, beside: Source | None, tokens: list[str]) -> Drawing:
    source, query = sitting.source, sitting.query
    end = min(query + 1 + BEHIND, len(tokens))
    first = max(end - SHOWN, 0)
    columns = [_attended(source, sitting, first, end), *([_attended(beside, sitting, first, end)] if beside else [])]
    run, protocol = source.captions
    captions = (run, *(beside.captions[:1] if beside else ()), protocol, sitting.told + _cut(first, end))
    title = f"{source.task_name}: which tokens of a text a query attends"
    return draw_text(source.name("text"), title, captions, tokens[first:end], query - first, columns)


def _cut(first: int, end: int) -> str:
    return f"; shown are the positions {first} to {end - 1}" if first else ""


def _attended(source: Source, sitting: Sitting, first: int, end: int) -> list[Attended]:
    """Some heads of the layer, that of the curve among them."""
    layers = list(inputs_of(source.model, sitting.passage.batch))
    _within(sitting.layer, len(layers), "--layer", f"'{source.label}' has layers")
    attention, x, valid = layers[sitting.layer]
    weights = weights_of(attention, x, valid, first, source.label)[0, :, sitting.query, : end - first]
    selected = _selected(attention, x, valid, sitting.query)
    start = sitting.head // HEADS * HEADS
    heads = range(len(weights))[start : start + HEADS]
    return [_of_head(source, head, weights[head], selected, first, end) for head in heads]


def _of_head(source: Source, head: int, weights: Tensor, selected: list[list[int]], first: int, end: int) -> Attended:
    told = f"heaviest {float(weights.max()):.3f}"
    keys = [key - first for key in (selected[head] if selected else []) if first <= key < end]
    if selected:
        share = f" with {100 * float(weights[keys].sum()):.1f} %" if first == 0 else ""
        told = f"{len(selected[head])} selected{share}, {told}"
    return Attended(f"{source.choice.name}, head {head}: {told}", weights.clamp(0, 1).tolist(), frozenset(keys))


def _selected(attention: Attention, x: Tensor, valid: Tensor | None, query: int) -> list[list[int]]:
    """The selected keys of each head; an empty list for a variant that selects none."""
    if not isinstance(attention, ZetaAttention):
        return []
    with torch.no_grad():
        index = attention.select(*attention.coordinates(x), valid)[0, :, query]
    return [[int(key) for key in row if key >= 0] for row in index]


def _within(value: int, count: int, option: str, what: str) -> None:
    if not 0 <= value < count:
        raise UsageError(f"{option} {value}: {what} 0 to {count - 1}; choose one of them.")
