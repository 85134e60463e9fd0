"""Writing a report's files: whole or not at all, and one sentence where they cannot be written."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zeta_bench.errors import UsageError


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: to a temporary name in the same folder, then renamed."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def writing_to(folder: Path) -> Iterator[Path]:
    """Make a folder to write into. Raises UsageError if it, or a file in it, cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
    except OSError as error:
        raise UsageError(
            f"cannot write the report to {folder}: {error.strerror}; choose another folder with --to."
        ) from None
