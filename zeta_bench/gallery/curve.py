"""The Z-order curve through the keys of one head, trained and untrained, with one query's window and its neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch

from zeta_bench.gallery.seen import Neighbours, Seen
from zeta_bench.report.draw import style
from zeta_bench.report.draw.canvas import Drawing, finish

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import Locator

HIT: dict[str, Any] = {"marker": "o", "color": "#0072b2"}
MISSED: dict[str, Any] = {"marker": "^", "color": "#d55e00"}
FALSE: dict[str, Any] = {"marker": "X", "color": "#e6ab02"}
"""Keys of the query: told apart by shape as well as by colour."""
KIND = (("found, and a true neighbour", HIT), ("a true neighbour, missed", MISSED), ("found instead of one", FALSE))
QUERY: dict[str, Any] = {"marker": "*", "color": "#cc1177", "markersize": 13, "markeredgecolor": "white"}
OTHER = "#c4c4c4"
CURVE: dict[str, Any] = {"color": "#9a9a9a", "linewidth": 0.45, "zorder": 1}
POSITION = "viridis"
_SIZE = (2.65, 2.5)
"""Of a panel, in inches."""
WHOLE = 2.0
"""Range of a coordinate."""
_SMALL = 1.0
"""Keys and a query that fill less of it are magnified."""


@dataclass(frozen=True)
class View:
    """One head's keys as one query sees them.

    Attributes:
        title: above its row.
        seen: what the layer does.
        head: of it.
        query: position of the query, in the first sequence.
    """

    title: str
    seen: Seen
    head: int
    query: int

    @property
    def order(self) -> list[int]:
        """Positions of the keys that the query may use, along the curve: by (code, position)."""
        codes = self.seen.codes[0, self.head].tolist()
        keys = self.seen.permitted_keys(0, self.query)
        return sorted(keys, key=lambda key: (codes[key], key))

    @property
    def neighbours(self) -> Neighbours:
        """Of the query."""
        return self.seen.neighbours(0, self.head, self.query)

    @property
    def span(self) -> float:
        """How much of each coordinate's range is drawn: the whole, or what keys and query fill if that is little."""
        points = torch.cat((self.seen.k[0, self.head, self.order], self.seen.q[0, self.head, self.query, None]))
        filled = float((points.amax(0) - points.amin(0)).max())
        return filled if 0.0 < filled < _SMALL else WHOLE

    @property
    def heading(self) -> str:
        """The title, and how much the projections are magnified."""
        return self.title if self.span == WHOLE else f"{self.title}, magnified {WHOLE / self.span:.1f} ×"

    def distances(self, keys: list[int]) -> list[float]:
        """From the query to keys, in coordinates."""
        q, k = self.seen.q[0, self.head, self.query], self.seen.k[0, self.head, keys]
        return [float(d) for d in (k - q).norm(dim=-1)]


def draw_curve(name: str, title: str, captions: tuple[str, ...], views: list[View]) -> Drawing:
    """A row for each view: the keys in pairs of coordinates, and beside them unrolled along the curve."""
    from matplotlib.figure import Figure

    pairs = _pairs(views[0].seen.q.shape[-1])
    with style.applied():
        size = (_SIZE[0] * (len(pairs) + 1), _SIZE[1] * len(views))
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(len(views), len(pairs) + 1, squeeze=False)
        for row, view in zip(panels, views, strict=True):
            for axes, pair in zip(row, pairs, strict=False):
                _project(axes, view, pair)
            _unroll(row[-1], view)
            row[0].set_title(style.escape(view.heading), loc="left")
            row[-1].set_title(_told(view), loc="left")
        _color_bar(figure, panels, views)
        finish(figure, title, captions, *_legend(views[0]))
    return Drawing(name, figure)


def _told(view: View) -> str:
    found = view.neighbours
    return f"{len(found.hits)} of {len(found.hits) + len(found.missed)} neighbours found"


def _pairs(d: int) -> list[tuple[int, ...]]:
    """Coordinates of each projection; (0,) is the only one against the position."""
    return [(0,)] if d == 1 else [(0, axis) for axis in islice(range(1, d), 2)]


def _project(axes: Axes, view: View, pair: tuple[int, ...]) -> None:
    """Keys in two coordinates, joined along the curve."""
    keys, star = _places(view, pair)
    xs, ys = _columns([*keys.values(), star])
    axes.set(xlabel=f"coordinate {pair[0] + 1}", xlim=_around(xs, view.span))
    axes.xaxis.set_major_locator(_ticks(view))
    if len(pair) == 1:
        axes.set_ylabel("position")
    else:
        axes.set(ylabel=f"coordinate {pair[1] + 1}", ylim=_around(ys, view.span))
        axes.yaxis.set_major_locator(_ticks(view))
    _mark(axes, view, keys)
    axes.plot(*_columns([star]), linestyle="none", zorder=4, **QUERY)


def _ticks(view: View) -> Locator:
    from matplotlib.ticker import MaxNLocator, MultipleLocator

    return MultipleLocator(0.5) if view.span == WHOLE else MaxNLocator(4)


def _places(view: View, pair: tuple[int, ...]) -> tuple[dict[int, tuple[float, float]], tuple[float, float]]:
    """Where keys and query stand in a projection."""
    points, star = view.seen.k[0, view.head], view.seen.q[0, view.head, view.query]
    if len(pair) == 1:
        return {key: (float(points[key, 0]), float(key)) for key in view.order}, (float(star[0]), float(view.query))
    x, y = pair
    return {key: (float(points[key, x]), float(points[key, y])) for key in view.order}, (float(star[x]), float(star[y]))


def _around(values: list[float], span: float) -> tuple[float, float]:
    """The whole range of a coordinate, or so much of it around some values."""
    middle = 0.0 if span == WHOLE else (min(values) + max(values)) / 2
    return middle - 0.55 * span, middle + 0.55 * span


def _mark(axes: Axes, view: View, places: dict[int, tuple[float, float]]) -> None:
    """The curve, its keys by position, and a ring around those that are selected or should be."""
    xs, ys = _columns([places[key] for key in view.order])
    axes.plot(xs, ys, **CURVE)
    axes.scatter(xs, ys, c=view.order, cmap=POSITION, vmin=0, vmax=view.query, s=9, linewidths=0, zorder=2)
    for keys, look in _kinds(view):
        ring: dict[str, Any] = {"markerfacecolor": "none", "markersize": 6, "markeredgewidth": 1.0}
        xs, ys = _columns([places[key] for key in keys])
        axes.plot(xs, ys, linestyle="none", marker=look["marker"], markeredgecolor=look["color"], zorder=3, **ring)


def _unroll(axes: Axes, view: View) -> None:
    """Distance to the query against the place on the curve: the window is a band, the true neighbours lie lowest."""
    order = view.order
    rank = {key: number for number, key in enumerate(order)}
    near = view.neighbours
    others = [key for key in order if key not in {*near.hits, *near.missed, *near.false}]
    axes.plot([rank[key] for key in others], view.distances(others), "o", color=OTHER, markersize=3, zorder=2)
    for keys, look in _kinds(view):
        axes.plot([rank[key] for key in keys], view.distances(keys), linestyle="none", markersize=5, zorder=3,
                  markeredgecolor="white", markeredgewidth=0.4, **look)  # fmt: skip
    taken = [rank[key] for key in (*near.hits, *near.false)]
    if taken and max(taken) - min(taken) < len(taken):  # a search by other codes takes no window of this curve
        axes.axvspan(min(taken) - 0.5, max(taken) + 0.5, color="#0072b2", alpha=0.1, linewidth=0, zorder=0)
    farthest = max(view.distances([*near.hits, *near.missed]), default=0.0)
    axes.axhline(farthest, color="#555555", linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
    axes.set(xlabel="place on the curve, by code", ylabel="distance to the query", ylim=(0.0, None))


def _kinds(view: View) -> list[tuple[list[int], dict[str, Any]]]:
    near = view.neighbours
    return list(zip((near.hits, near.missed, near.false), (HIT, MISSED, FALSE), strict=True))


def _columns(points: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _color_bar(figure: Figure, panels: Any, views: list[View]) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    scale = ScalarMappable(Normalize(0, views[0].query), POSITION)
    bar = figure.colorbar(scale, ax=list(panels.flat), label="position", aspect=40, pad=0.03)
    bar.outline.set_visible(False)


def _legend(view: View) -> tuple[list[Artist], list[str]]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    marks: list[Artist] = [Line2D([], [], linestyle="none", markersize=7, **look) for _, look in KIND]
    k = view.seen.nearest.shape[-1]
    rest: list[tuple[Artist, str]] = [
        (Line2D([], [], linestyle="none", **QUERY), f"the query, at position {view.query}"),
        (Line2D([], [], **{**CURVE, "linewidth": 1.2}), "the curve: keys in the order of their codes"),
        (Patch(facecolor="#0072b2", alpha=0.15), f"its window: {k} keys of the curve"),
        (Line2D([], [], color="#555555", linestyle=(0, (4, 3)), linewidth=0.8), f"how far the {k} nearest keys reach"),
        (Line2D([], [], linestyle="none", marker="o", color=OTHER, markersize=4), "other keys that it may use"),
    ]
    return [*marks, *(mark for mark, _ in rest)], [*(told for told, _ in KIND), *(told for _, told in rest)]
