"""Which implementation runs. An explicit choice never falls back: it runs, or raises and says why."""

from __future__ import annotations

IMPLS = ("auto", "reference", "triton")


def resolve(impl: str) -> str:
    """The implementation behind `impl`. Raises ValueError for an unknown one and for one that cannot run here."""
    if impl not in IMPLS:
        raise ValueError(f"impl must be one of {', '.join(IMPLS)}; got {impl!r}.")
    if impl == "triton":
        raise ValueError(
            "impl='triton' is not available in this version, which has the reference only; use impl='auto'."
        )
    return "reference"
