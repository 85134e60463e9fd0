"""The sheet that every figure is drawn on: panels, title, provenance and a legend beside the data, never over it.

Figures are made without pyplot, so no backend is chosen and no global setting is left changed for whoever imports us.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zeta_bench.report.style import applied, escape

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 200
MOST_IN_A_ROW = 3
_LINE = 0.165
"""Height of a line of the subtitle, in inches."""
_CHARACTERS = 15
"""Characters of the subtitle to an inch."""
_LABEL = 44
"""Characters of a legend's line."""
_GAP = 0.15
"""Between the panels and the legend, in inches."""


@dataclass(frozen=True)
class Drawing:
    """A figure ready to be saved.

    Attributes:
        name: stem of its files.
        figure: the matplotlib figure.
    """

    name: str
    figure: Figure

    def png(self) -> bytes:
        """The figure in 200 dots an inch."""
        return self._saved("png", {"Software": None})

    def svg(self) -> bytes:
        """The figure as SVG; the same figure always gives the same bytes."""
        return self._saved("svg", {"Date": None, "Creator": None})

    def _saved(self, form: str, metadata: dict[str, None]) -> bytes:
        buffer = io.BytesIO()
        with applied():
            self.figure.savefig(buffer, format=form, dpi=DPI, metadata=metadata)
        return buffer.getvalue()


def make_panels(count: int, x_label: str, y_label: str) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels on common axes; to be called inside ``style.applied()``."""
    from matplotlib.figure import Figure

    columns = 2 if count == 4 else min(count, MOST_IN_A_ROW)
    rows = -(-count // columns)
    width, height = (4.4, 2.9) if count == 1 else (2.3, 1.9)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    panels = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)
    for unused in panels[count:]:
        unused.remove()
    for lowest in panels[max(count - columns, 0) : count]:
        lowest.tick_params(labelbottom=True)  # there may be no panel below
        lowest.set_xlabel(escape(x_label))
    for leftmost in panels[:count:columns]:
        leftmost.set_ylabel(escape(y_label))
    return figure, panels[:count]


def finish(
    figure: Figure, title: str, subtitles: Sequence[str], handles: Sequence[Artist], labels: Sequence[str]
) -> None:
    """Add the legend on the right and title and wrapped subtitles above; the figure grows to fit them."""
    names = [textwrap.fill(escape(label), _LABEL, subsequent_indent="  ") for label in labels]
    legend = figure.legend(handles, names, loc="upper left", borderaxespad=0.0)
    extent = legend.get_window_extent()
    panels, height = figure.get_size_inches()
    width = panels + extent.width / figure.dpi + _GAP
    lines = [line for text in subtitles for line in textwrap.wrap(text, int(width * _CHARACTERS))]
    head = 0.34 + _LINE * len(lines)
    height = head + max(height, extent.height / figure.dpi + 0.1)
    figure.set_size_inches(width, height)
    figure.set_layout_engine("constrained", rect=(0.0, 0.0, panels / width, 1.0 - head / height))
    legend.set_bbox_to_anchor(((panels + _GAP / 2) / width, 1.0 - (head + 0.05) / height))
    left = 0.08 / width
    figure.text(left, 1 - 0.08 / height, escape(title), va="top", ha="left", fontsize=10.5, fontweight="bold")
    for number, line in enumerate(lines):
        top = 1 - (0.31 + _LINE * number) / height
        figure.text(left, top, escape(line), va="top", ha="left", fontsize=8, color="#555555")
