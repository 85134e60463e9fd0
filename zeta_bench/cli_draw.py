"""The command ``zeta-bench draw``: its options, and in which order its parts are called."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zeta_bench.console import ctrl_c, err, out
from zeta_bench.errors import UsageError
from zeta_bench.records import USER_STORE

if TYPE_CHECKING:
    from zeta_bench.gallery.source import Source

GALLERY = USER_STORE / "gallery"


def draw(
    checkpoint: Annotated[Path, typer.Argument(help="runs/checkpoints/ID.ckpt of ZETA", metavar="CHECKPOINT")],
    text: Annotated[
        Path | None, typer.Option(help="Look at this text; without it at a sequence of the test split.", metavar="FILE")
    ] = None,
    beside: Annotated[
        Path | None, typer.Option(help="Another variant's checkpoint, for the picture of a text.", metavar="CHECKPOINT")
    ] = None,
    layer: Annotated[int | None, typer.Option(help="Of the curve and the text; the last one if left out.")] = None,
    head: Annotated[int, typer.Option(help="Of the curve.")] = 0,
    query: Annotated[int | None, typer.Option(help="Position of the query; the last that counts if left out.")] = None,
    records: Annotated[
        Path, typer.Option("--records", help="Where the run's record is, for the captions.", metavar="DIR")
    ] = USER_STORE,
    to: Annotated[Path, typer.Option("--to", help="Where the pictures are written.", metavar="DIR")] = GALLERY,
) -> None:
    """Draw what a trained ZETA does: its curve, its keys on a text, its recall, how far it looks."""
    from zeta_bench.gallery.passage import from_file, held_out
    from zeta_bench.gallery.pictures import draw_all, sit
    from zeta_bench.gallery.source import open_source
    from zeta_bench.records import require_writable, write_atomically

    source = open_source(checkpoint, records)
    other = None if beside is None else open_source(beside, records)
    if other is not None:
        _check_beside(source, other)
    passage = held_out(source) if text is None else from_file(source, text)
    sitting = sit(source, passage, layer, head, query)
    for each in filter(None, (source, other)):
        if each.record is None:
            err(f"no folder named by --records has the record of {each.path.name}: its seed and commit are not told.")
    if passage.tokens is None:
        err(f"the tokens of {source.task_name} are no text, so there is no picture of a text.")
    ctrl_c.begin()
    require_writable(to, "pictures", "choose another folder with --to")
    for drawing in draw_all(sitting, other):
        path = to / f"{drawing.name}.png"
        write_atomically(path, drawing.png())
        out(str(path))


def _check_beside(source: Source, other: Source) -> None:
    """Raise UsageError if two models do not read the same tokens."""
    mine, its = ((each.task_name, each.protocol.data) for each in (source, other))
    if mine != its:
        raise UsageError(
            f"--beside {other.path} was trained on other data ({other.task_name}, {other.protocol.id}); take a "
            "checkpoint of the same task and protocol."
        )
