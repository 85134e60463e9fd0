"""Recall by layer and head beside chance, and how far from their query the selected keys lie."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from zeta_bench.gallery.measure import LayerFigures
from zeta_bench.report import text
from zeta_bench.report.draw import style
from zeta_bench.report.draw.canvas import Drawing, finish, make_panels

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from torch import Tensor

BAR = "#d55e00"
CHANCE: dict[str, Any] = {"color": "#555555", "linestyle": (0, (4, 3)), "linewidth": 1.1}
_HEADS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e6ab02", "#56b4e9")
"""Colours of heads, of Okabe and Ito's palette."""
_MOST_TICKS = 14
_ROW = 0.3
"""Height of a head's row, in inches."""


def draw_recall(name: str, title: str, captions: tuple[str, ...], layers: list[LayerFigures]) -> Drawing:
    """A panel for each layer, a bar for each head, with its γ; chance is a line."""
    heads = len(layers[0].recall)
    with style.applied():
        size = (3.0, 0.8 + _ROW * heads)
        figure, panels = make_panels(len(layers), "recall of the k nearest keys ↑", "head", size)
        for axes, layer in zip(panels, layers, strict=True):
            _recall(axes, layer)
        panels[0].set_ylim(heads - 0.5, -0.5)  # they share the axis
        finish(figure, title, captions, *_recall_legend(layers[0]))
    return Drawing(name, figure)


def _recall(axes: Axes, layer: LayerFigures) -> None:
    axes.barh(range(len(layer.recall)), [value or 0.0 for value in layer.recall], height=0.62, color=BAR)
    for head, (value, gamma) in enumerate(zip(layer.recall, layer.gamma, strict=True)):
        shown = text.NOTHING if value is None else f"{value:.2f}"
        axes.text((value or 0.0) + 0.02, head, f"{shown}  γ {gamma:.2f}", va="center", fontsize=8)
    if layer.chance is not None:
        axes.axvline(layer.chance, **CHANCE)
    axes.set(xlim=(0.0, 1.28), title=f"layer {layer.number}")
    axes.set_xticks([0.0, 0.25, 0.5, 0.75, 1.0])
    axes.set_yticks(range(0, len(layer.recall), -(-len(layer.recall) // _MOST_TICKS)))
    axes.grid(axis="y", visible=False)


def _recall_legend(layer: LayerFigures) -> tuple[list[Artist], list[str]]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Artist] = [Patch(color=BAR)]
    labels = ["share of the true nearest keys found"]
    if layer.chance is not None:
        handles.append(Line2D([], [], **CHANCE))
        labels.append(f"as many keys drawn at random: {layer.chance:.2f}")
    return handles, labels


def draw_distances(name: str, title: str, captions: tuple[str, ...], layers: list[LayerFigures]) -> Drawing:
    """A panel for each layer, a line for each head: keys selected at a distance ÷ those that chance would select."""
    heads = len(layers[0].recall)
    bins = distance_bins(len(layers[0].uniform))
    with style.applied():
        figure, panels = make_panels(len(layers), "distance of a key, in tokens", "keys, × a random choice", (3.5, 2.6))
        for axes, layer in zip(panels, layers, strict=True):
            _ratios(axes, layer, bins)
        panels[0].set_ylim(0.0, _top(layers, bins))  # they share the axis
        handles: list[Artist] = [*panels[0].lines[1:], panels[0].lines[0]]
        labels = [*(f"head {head}" for head in range(heads)), "as many keys drawn at random"]
        finish(figure, title, captions, handles, labels)
    return Drawing(name, figure)


def distance_bins(length: int) -> list[tuple[int, int]]:
    """Distances below `length` in ranges that double: (0, 0), (1, 1), (2, 3), (4, 7), …, both ends included."""
    powers = [2**power for power in range(max(length - 1, 1).bit_length())]
    return [(0, 0), *((low, min(2 * low, length) - 1) for low in powers if low < length)]


def ratios(counts: Tensor, uniform: Tensor, bins: list[tuple[int, int]]) -> list[float]:
    """Selected keys in each range of distances ÷ those of a random choice; NaN where that has none."""
    sums = [(float(counts[low : high + 1].sum()), float(uniform[low : high + 1].sum())) for low, high in bins]
    return [mine / chance if chance else math.nan for mine, chance in sums]


def _ratios(axes: Axes, layer: LayerFigures, bins: list[tuple[int, int]]) -> None:
    axes.axhline(1.0, **CHANCE)
    for head, row in enumerate(layer.distances):
        axes.plot(range(len(bins)), ratios(row, layer.uniform, bins), **_look(head))
    every = -(-len(bins) // _MOST_TICKS)
    ticks = range(0, len(bins), every)
    names = [f"{low}" if low == high else f"{low}–{high}" for low, high in bins]
    axes.set_xticks(list(ticks), [names[tick] for tick in ticks], rotation=40, ha="right", rotation_mode="anchor")
    axes.set_title(f"layer {layer.number}")


def _top(layers: list[LayerFigures], bins: list[tuple[int, int]]) -> float:
    rows = [ratios(row, layer.uniform, bins) for layer in layers for row in layer.distances]
    return 1.08 * max([1.0, *(value for row in rows for value in row if math.isfinite(value))])


def _look(head: int) -> dict[str, Any]:
    """Of a head's line: markers tell heads of one colour apart."""
    face = {"markersize": 4, "marker": style.MARKERS[head % len(style.MARKERS)]}
    return {**face, "color": _HEADS[head % len(_HEADS)], "linestyle": style.DASHES[head // len(_HEADS) % 4]}
