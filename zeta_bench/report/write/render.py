"""Tables written down: Markdown, LaTeX, CSV. Every text in a table is foreign, so each writer escapes it."""

from __future__ import annotations

import re
from collections.abc import Callable

from zeta_bench.report.table import Column, Entry, Table
from zeta_bench.report.text import plain

_LATEX = {
    **{"\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_"},
    **{"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}"},
    **{"|": r"\textbar{}", '"': "''", "±": r"$\pm$", "–": r"\textendash{}", "…": r"\ldots{}", "·": r"$\cdot$"},
    **{"↑": r"$\uparrow$", "↓": r"$\downarrow$", "×": r"$\times$", "†": r"$^\dagger$", "≤": r"$\leq$", "≥": r"$\geq$"},
    **{"γ": r"$\gamma$", "‖": r"$\|$", "√": r"$\surd$", "—": r"\textemdash{}", "’": "'", "→": r"$\to$", "∈": r"$\in$"},
}
_MARKDOWN = re.compile(r"([\\`*_\[\]|~$#])")


def to_markdown(table: Table) -> str:
    """A pipe table as GitHub reads it, with caption and notes."""
    body = markdown_rows(table)
    notes = "\n".join(f"- {escape_markdown(note)}" for note in table.notes)
    return f"**{escape_markdown(table.title)}**\n\n{escape_markdown(table.caption)}\n\n{body}\n\n{notes}\n"


def markdown_rows(table: Table) -> str:
    """The pipe table alone, without caption and notes."""
    rule = ["---:" if column.flush_right else ":---" for column in table.columns]
    lines = [
        [escape_markdown(column.name) for column in table.columns],
        rule,
        *([_md_entry(entry) for entry in row] for row in table.rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def to_latex(table: Table) -> str:
    """A ``table`` float with booktabs rules; needs the packages booktabs and xcolor."""
    columns = "".join("r" if column.flush_right else _tex_left(table, column) for column in table.columns)
    lines = [
        [_tex(column.name) for column in table.columns],
        *([_tex_entry(entry) for entry in row] for row in table.rows),
    ]
    header, *rows = (" & ".join(line) + r" \\" for line in lines)
    notes = " ".join(_tex(note) for note in table.notes)
    return "\n".join(
        [
            r"\begin{table}[t]",
            r"\centering\small",
            rf"\caption{{{_tex(table.title)}. {_tex(table.caption)}}}",
            rf"\label{{tab:{re.sub(r'[^A-Za-z0-9.@+-]', '-', table.name)}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            *(r"\toprule", header, r"\midrule", *rows, r"\bottomrule"),
            r"\end{tabular}",
            rf"\par\smallskip\footnotesize {notes}",
            r"\end{table}",
            "",
        ]
    )


def to_csv(table: Table) -> str:
    """The cells behind the table, one a line, with full precision."""
    return table.frame.to_csv(index=False, lineterminator="\n")


WRITERS: dict[str, Callable[[Table], str]] = {"md": to_markdown, "tex": to_latex, "csv": to_csv}
"""File formats of a table, by suffix."""


def escape_markdown(text: str) -> str:
    """Foreign text as Markdown shows it letter by letter, on one line."""
    text = plain(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKDOWN.sub(r"\\\1", text)


def _md_entry(entry: Entry) -> str:
    return f"**{escape_markdown(entry.text)}**" if entry.bold else escape_markdown(entry.text)


def _tex(text: str) -> str:
    """Text for pdflatex; a letter beyond Latin that it could not set is written as its code point."""
    found = (_LATEX.get(char) or (char if ord(char) < 0x180 else f"U+{ord(char):04X}") for char in plain(text))
    return "".join(found).replace("--", "-{}-")  # two hyphens of an option are not a dash


def _tex_left(table: Table, column: Column) -> str:
    """A column of names is as wide as they are; sentences share the line."""
    texts = [each for each in table.columns if each.kind == "text"]
    return "l" if column.kind != "text" else rf"p{{{0.66 / len(texts):.2f}\linewidth}}"


def _tex_entry(entry: Entry) -> str:
    text = _tex(entry.text)
    if entry.bold:
        return rf"\textbf{{{text}}}"
    return rf"\textcolor{{gray}}{{{text}}}" if entry.faint else text
