"""``zeta-bench report --fill PAGE``: numbers and tables of a Markdown page, filled in from records, in place.

A page keeps its prose; what is filled in stands between two comments that no reader sees. The words of a
marker are told in `zeta_bench.report.fill.words`.
"""

from zeta_bench.report.fill.pages import Filled, Filling, Page, fill_pages

__all__ = ["Filled", "Filling", "Page", "fill_pages"]
