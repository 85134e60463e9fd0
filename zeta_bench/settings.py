"""Settings that people type: pydantic models, and one plain sentence for the first mistake in them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from zeta_bench.errors import UsageError

M = TypeVar("M", bound=BaseModel)


class Settings(BaseModel):
    """Base of everything typed by people: frozen, and a name that it does not have is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def make_settings(model: type[M], values: Mapping[str, Any], owner: str) -> M:
    """Validate `values` as `model`. Raises UsageError: `owner` and one sentence about the first mistake."""
    try:
        return model(**values)
    except ValidationError as error:
        raise UsageError(f"{owner}: {explain(error, model)}") from None


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """One sentence for the first mistake in a pydantic report about `model`."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ").rstrip(".")
    if first["type"] == "extra_forbidden":
        return no_setting(where, _names(model, first["loc"][:-1]))
    if not where:
        return f"{message}."
    if first["type"] == "missing":
        return f"setting '{where}' is missing."
    return f"setting '{where}' = {first['input']!r} is not valid: {message[0].lower()}{message[1:]}."


def no_setting(name: str, known: Iterable[str]) -> str:
    """One sentence for a setting that is not there, with the closest one or all that there are."""
    known = list(known)
    leaf = name.rpartition(".")[2]
    close = difflib.get_close_matches(leaf, known, n=1, cutoff=0.6)
    if close:
        return f"there is no setting '{name}'; did you mean '{close[0]}'?"
    return (
        f"there is no setting '{name}'; there is {', '.join(known)}."
        if known
        else f"there is no setting '{name}', nor any other."
    )


def _names(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """Names of the fields at `path` inside `model`; empty where the path leads into something that is no model."""
    for part in path:
        field = model.model_fields.get(str(part))
        kind = field.annotation if field else None
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            return []
        model = kind
    return list(model.model_fields)
