"""Which implementation runs. An explicit choice never falls back: it runs, or raises and says why."""

from __future__ import annotations

import importlib.util
import os

import torch

IMPLS = ("auto", "reference", "triton")


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):  # somebody put a stand-in, or None, where the package would be
        return False


HAS_TRITON = _installed("triton")
INTERPRETING = os.environ.get("TRITON_INTERPRET") == "1"
"""Triton reads the variable when it sees a kernel; so it must be set before this package is imported."""


def resolve(impl: str, device: torch.device, unsupported: str = "") -> str:
    """The implementation behind `impl`: "reference" or "triton".

    Args:
        impl: "auto", "reference" or "triton". "auto" takes the kernels on a GPU, where they can do what is asked.
        device: of the tensors.
        unsupported: why the kernels cannot do what is asked; "" = they can.

    Raises:
        ValueError: for an unknown name, and for "triton" where it cannot run.
    """
    if impl not in IMPLS:
        raise ValueError(f"impl must be one of {', '.join(IMPLS)}; got {impl!r}.")
    if impl == "reference":
        return impl
    if not HAS_TRITON:
        unsupported = "triton is not installed (pip install triton)"
    elif device.type != "cuda" and not (INTERPRETING and impl == "triton"):
        unsupported = (
            f"the tensors are on {device.type} and the kernels need a GPU (or TRITON_INTERPRET=1, to try them)"
        )
    if impl == "auto":
        return "reference" if unsupported else "triton"
    if unsupported:
        raise ValueError(f"impl='triton' cannot run here: {unsupported}; use impl='auto' or impl='reference'.")
    return impl
