"""Where a page of Markdown has something filled in: pairs of comments, which no rendered page shows.

``<!--n WORDS-->0.98<!--/n-->`` is a number in a sentence or in a cell of a table; ``<!--table WORDS-->`` and
``<!--/table-->`` stand on lines of their own with a table between them; ``<!--let NAME = WORDS-->`` gives words a name
for what follows on the page. Code, fenced or between backticks, is left alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, cast

from zeta_bench.errors import UsageError

Kind = Literal["n", "table", "let"]
_MARK = re.compile(r"<!--(/?)(n|table|let)\b(.*?)-->", re.DOTALL)
_BEGIN = re.compile(r"<!--/?(?:n|table|let)\b")
_CODE = re.compile(
    r"^[ \t]*(?P<fence>```+|~~~+).*?(?:^[ \t]*(?P=fence)[`~]*[ \t\r]*$|\Z)"
    r"|(?<![`\\])(?P<tick>`+)(?!`)(?:(?!\n[ \t\r]*\n).)+?(?<!`)(?P=tick)(?!`)",
    re.DOTALL | re.MULTILINE,
)
_BLOCK_START = re.compile(r"[\s>]*(?:(?:[-*+]|\d+[.)])\s+)*$")
"""What may stand before a block on its line: nothing, or the mark of a quotation or a list's item."""


@dataclass(frozen=True)
class Mark:
    """One marker of a page.

    Attributes:
        kind: "n", "table" or "let".
        words: what it asks for, as written.
        line: of its beginning, from 1.
        start: where what is filled in begins in the page's text; `end` where it ends.
    """

    kind: Kind
    words: str
    line: int
    start: int
    end: int


def read_marks(text: str, page: str) -> list[Mark]:
    """Every marker of a page, in its order.

    Args:
        text: of the page.
        page: its name, for messages.

    Raises:
        UsageError: one that is not whole or stands where it would break the page; the message has page and line.
    """
    bare = _CODE.sub(lambda code: re.sub(r"[^\n]", " ", code[0]), text)
    found = list(_MARK.finditer(bare))
    begins = {match.start() for match in found}
    for begin in _BEGIN.finditer(bare):
        if begin.start() not in begins:
            raise UsageError(f"{_where(text, begin.start(), page)}: this marker is not closed; end it with -->.")
    return list(_paired(found, text, page))


def _paired(found: list[re.Match[str]], text: str, page: str) -> Iterator[Mark]:
    """Openers with their closers, checked for where they stand."""
    rest = iter(found)
    for match in rest:
        where, kind = _where(text, match.start(), page), cast(Kind, match[2])
        if "<!--" in match[3]:
            raise UsageError(f"{where}: this marker is not closed; end it with -->.")
        if match[1]:
            raise UsageError(f"{where}: <!--/{kind}--> closes nothing; write <!--{kind} …--> before it.")
        _check_place(match, text, where)
        line, start = text.count("\n", 0, match.start()) + 1, match.end()
        if kind == "let":
            yield Mark(kind, match[3].strip(), line, start, start)
            continue
        closer = next(rest, None)
        if closer is None or not closer[1] or closer[2] != kind:
            raise UsageError(f"{where}: <!--{kind} …--> is not followed by <!--/{kind}-->; add that.")
        yield Mark(kind, match[3].strip(), line, start, closer.start())


def _check_place(match: re.Match[str], text: str, where: str) -> None:
    """A comment that begins a line is a block of HTML: wanted for a table, fatal to the sentence of a number."""
    before = text[text.rfind("\n", 0, match.start()) + 1 : match.start()]
    begins = _BLOCK_START.match(before) is not None
    if before.lstrip().startswith("|") and "|" in match[3]:
        raise UsageError(f"{where}: the | in this marker would cut the row of its table; name its words with a let.")
    if match[2] == "n" and begins:
        raise UsageError(
            f"{where}: a number's marker begins its line, which Markdown reads as a block of HTML; "
            "break the line before another word."
        )
    if match[2] != "n" and not (begins and text[match.end() :].partition("\n")[0].strip() == ""):
        raise UsageError(f"{where}: <!--{match[2]} …--> must have a line of its own.")


def _where(text: str, place: int, page: str) -> str:
    return f"{page}:{text.count(chr(10), 0, place) + 1}"
