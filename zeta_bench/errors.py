"""The errors that a user can mend: one plain sentence each, and the exit code that goes with it."""

from __future__ import annotations


class ZetaBenchError(Exception):
    """A run, an audit or a file failed. The message names what is wrong and the next step; exit code 1."""

    exit_code = 1


class UsageError(ZetaBenchError):
    """The command or the settings cannot mean anything that works; nothing was started. Exit code 2."""

    exit_code = 2


class Unsupported(UsageError):
    """A variant was asked for something that it cannot do, known before any training."""


class DataMissing(ZetaBenchError):
    """A task's data is not at hand. The message holds the command that gets it."""


class RecordError(ZetaBenchError):
    """A record file is damaged, mixed up or of another schema. The message names the file."""
