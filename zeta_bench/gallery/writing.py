"""A text as a picture: each token shaded by the weight that one query gives it, the selected ones underlined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zeta_bench.report import text
from zeta_bench.report.draw import style
from zeta_bench.report.draw.canvas import Drawing, finish

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 56
"""Characters of a line."""
_CELL = (0.068, 0.155)
"""Width and height of a character in inches; the letters are as wide at this size."""
_FONT: dict[str, Any] = {"family": "DejaVu Sans Mono", "fontsize": 7.6, "va": "center_baseline", "ha": "left"}
_KEY = 0.6
"""Height of the key of shades, in inches."""
_QUERY = "#0072b2"
_LINE = "#000000"


@dataclass(frozen=True)
class Attended:
    """What one head of one model makes of the text.

    Attributes:
        title: above its panel.
        weights: of every token shown, from 0 to 1.
        selected: which of them are underlined.
    """

    title: str
    weights: list[float]
    selected: frozenset[int]


@dataclass(frozen=True)
class Cell:
    """Where a token stands: its line, its first column and what is written there."""

    line: int
    column: int
    written: str


def lay_out(tokens: Sequence[str], columns: int = COLUMNS) -> list[Cell]:
    """A place for each token, line by line; a line's end is shown, and breaks the line."""
    cells, line, column = [], 0, 0
    for token in tokens:
        written = "".join("↵" if c == "\n" else c if c.isprintable() else "·" for c in token) or "·"
        if column and column + len(written) > columns:
            line, column = line + 1, 0
        cells.append(Cell(line, column, written))
        line, column = (line + 1, 0) if token.endswith("\n") else (line, column + len(written))
    return cells


def draw_text(
    name: str, title: str, captions: tuple[str, ...], tokens: Sequence[str], query: int, columns: list[list[Attended]]
) -> Drawing:
    """A panel for each head; a column of panels for each list.

    Args:
        name: stem of the file.
        title: in one line.
        captions: below it.
        tokens: as text; those behind the query are written in grey.
        query: its place among the tokens.
        columns: of panels, the model's and maybe that of another beside it; of one alone two columns are made.
    """
    from matplotlib.figure import Figure

    if len(columns) == 1 and len(columns[0]) > 1:
        columns = [columns[0][::2], columns[0][1::2]]
    cells = lay_out(tokens)
    top = max((max(each.weights) for column in columns for each in column), default=0.0) or 1.0
    lines, rows = max(cell.line for cell in cells) + 1, max(map(len, columns))
    with style.applied():
        size = ((COLUMNS * _CELL[0] + 0.2) * len(columns), (lines * _CELL[1] + 0.32) * rows + _KEY)
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(rows, len(columns), squeeze=False)
        for axes in panels.flat:
            axes.set_axis_off()
        for number, column in enumerate(columns):
            for axes, each in zip(panels[:, number], column, strict=False):
                _write(axes, cells, each, query, top, lines)
        finish(figure, title, captions, [], [])
        _scale(figure, panels, top)
    return Drawing(name, figure)


def shade(weight: float, top: float) -> tuple[float, float, float, float]:
    """Colour of a weight: white for none, dark for the largest; by its root, since most weights are small."""
    from matplotlib import colormaps

    r, g, b, a = colormaps["Oranges"](0.85 * min(max(weight / top, 0.0), 1.0) ** 0.5)
    return (r, g, b, a) if weight > 0 else (1.0, 1.0, 1.0, 1.0)


def _write(axes: Axes, cells: list[Cell], each: Attended, query: int, top: float, lines: int) -> None:
    from matplotlib.patches import Rectangle

    axes.set(xlim=(-0.2, COLUMNS + 0.2), ylim=(lines, 0))
    axes.set_title(style.escape(text.plain(each.title)), loc="left", pad=3, fontsize=8.5)
    for place, (cell, weight) in enumerate(zip(cells, each.weights, strict=True)):
        width = len(cell.written)
        if weight > 0:
            axes.add_patch(Rectangle((cell.column, cell.line + 0.04), width, 0.92, color=shade(weight, top), lw=0))
        if place in each.selected:
            ends = [cell.column + 0.08, cell.column + width - 0.08]
            axes.plot(ends, [cell.line + 0.93] * 2, color=_LINE, linewidth=0.9, solid_capstyle="butt")
        if place == query:
            frame = Rectangle((cell.column, cell.line + 0.04), width, 0.92, fill=False, edgecolor=_QUERY, linewidth=1.4)
            axes.add_patch(frame)
        dark = (weight / top) ** 0.5 > 0.75
        color = "#b0b0b0" if place > query else "white" if dark else "black"
        axes.text(cell.column, cell.line + 0.55, cell.written, color=color, parse_math=False, **_FONT)


def _scale(figure: Figure, panels: Any, top: float) -> None:
    """A key of shades below the panels."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm

    colors = LinearSegmentedColormap.from_list("weights", [shade(top * (n / 64) ** 2, top) for n in range(65)])
    bar = figure.colorbar(
        ScalarMappable(PowerNorm(0.5, 0.0, top), colors), ax=list(panels.flat), orientation="horizontal",
        fraction=0.03, aspect=60, pad=0.01, shrink=0.5,
        label="weight of a token (square-root scale); underlined: selected; framed: the query",
    )  # fmt: skip
    bar.set_ticks([top * share for share in (0.0, 0.05, 0.25, 0.5, 1.0)])
    bar.ax.xaxis.set_major_formatter(lambda value, _: f"{value:.3f}")
    bar.outline.set_visible(False)
