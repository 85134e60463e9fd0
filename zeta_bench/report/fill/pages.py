"""Pages with what is filled in: all are read and worked out before the first is written."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from zeta_bench.errors import UsageError
from zeta_bench.records import read_all, write_atomically
from zeta_bench.report.fill.asks import make_number
from zeta_bench.report.fill.known import Known
from zeta_bench.report.fill.marks import Mark, read_marks
from zeta_bench.report.fill.numbers import Result, fill_number
from zeta_bench.report.fill.tables import fill_table
from zeta_bench.report.fill.words import Words, name_words, split_words
from zeta_bench.report.sound import sound
from zeta_bench.report.text import plain


@dataclass(frozen=True)
class Filled:
    """One marker of a page with what stands in it now.

    Attributes:
        mark: where.
        result: the text, the records that it was computed from, and what it lacks.
        changed: whether another text stood there.
    """

    mark: Mark
    result: Result
    changed: bool

    @property
    def what(self) -> str:
        """What it asks for, on one line."""
        return " ".join(self.mark.words.split())


@dataclass(frozen=True)
class Page:
    """One page.

    Attributes:
        path: as it was named.
        text: with everything filled in.
        filled: its markers.
    """

    path: Path
    text: str
    filled: tuple[Filled, ...]

    @property
    def changed(self) -> int:
        """How many of its numbers and tables were others before."""
        return sum(each.changed for each in self.filled)


@dataclass(frozen=True)
class Filling:
    """Everything that was filled in.

    Attributes:
        pages: in the order in which they were named.
        refused: a sentence for each record file that was left out.
    """

    pages: tuple[Page, ...]
    refused: tuple[str, ...] = ()

    @property
    def missing(self) -> dict[str, dict[str, list[str]]]:
        """By command what it would add, each with its places: ``docs/findings.md:12``."""
        found: dict[str, dict[str, list[str]]] = {}
        for page in self.pages:
            for each in page.filled:
                for lack in dict.fromkeys(each.result.lacks):
                    what = f"{each.what}: {lack.why}"
                    places = found.setdefault(lack.command, {}).setdefault(what, [])
                    places.append(f"{page.path}:{each.mark.line}")
        return found


def fill_pages(stores: Mapping[str, Path], pages: Sequence[Path], *, write: bool = True) -> Filling:
    """Fill the pages in from the records of some stores, in place, each whole or not at all.

    Args:
        stores: folders of records by their label.
        pages: Markdown files.
        write: False leaves the files as they are.

    Raises:
        UsageError: a page that cannot be read or written, or a marker that is malformed or names what there is not;
            with page and line, and before any page is written.
    """
    texts = {path: _read(path) for path in dict.fromkeys(pages)}
    read, refused = read_all(stores)
    records, damaged = sound(read, stores)
    folder = [shlex.join(["--records", str(root)]) for root in stores.values()]
    known = Known(records, folder[0] if len(folder) == 1 else "")
    done = tuple(_filled(path, text, known) for path, text in texts.items())
    if write:
        for page in done:
            if page.text != texts[page.path]:
                _write(page)
    return Filling(done, (*refused, *damaged))


def _filled(path: Path, text: str, known: Known) -> Page:
    """A page with every marker filled in."""
    names: dict[str, Words] = {}
    parts, filled, end = [], [], 0
    newline = "\r\n" if "\r\n" in text else "\n"
    for mark in read_marks(text, str(path)):
        try:
            result = _result(mark, names, known)
        except UsageError as error:
            raise UsageError(plain(f"{path}:{mark.line}: {error}")) from None
        if result is None:
            continue
        content = f"\n\n{result.text}\n\n".replace("\n", newline) if mark.kind == "table" else result.text
        parts += [text[end : mark.start], content]
        filled.append(Filled(mark, result, content != text[mark.start : mark.end]))
        end = mark.end
    return Page(path, "".join([*parts, text[end:]]), tuple(filled))


def _result(mark: Mark, names: dict[str, Words], known: Known) -> Result | None:
    """What a marker stands for; a let fills nothing in, its name is kept."""
    if mark.kind == "let":
        names.update([name_words(mark.words, names)])
        return None
    words = split_words(mark.words, names)
    return fill_table(words, known) if mark.kind == "table" else fill_number(make_number(words), known)


def _read(path: Path) -> str:
    """The text of a page, letter by letter as it is."""
    try:
        return path.read_bytes().decode()
    except OSError as error:
        reason = "it is a folder" if path.is_dir() else error.strerror
        raise UsageError(f"cannot read the page {path}: {reason}; --fill takes a Markdown file.") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8; --fill takes a Markdown file.") from None


def _write(page: Page) -> None:
    try:
        write_atomically(page.path.resolve(), page.text)  # a link stays one
    except OSError as error:
        raise UsageError(f"cannot write {page.path}: {error.strerror}; make it writable.") from None
