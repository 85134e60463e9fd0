"""zeta-bench: benchmark and reproduction suite for efficient attention, built around ZETA (arXiv 2501.14577)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Attention", "AttentionSpec", "QKVAttention", "ZetaAttention", "__version__"]

if TYPE_CHECKING:
    from zeta_bench.attention import Attention, AttentionSpec, QKVAttention
    from zeta_bench.zeta import ZetaAttention

_HOME = {
    "Attention": "zeta_bench.attention",
    "AttentionSpec": "zeta_bench.attention",
    "QKVAttention": "zeta_bench.attention",
    "ZetaAttention": "zeta_bench.zeta",
}


def __getattr__(name: str) -> Any:
    """Import torch only when something that needs it is asked for: ``zeta-bench --help`` must answer at once."""
    if name in _HOME:
        from importlib import import_module

        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'zeta_bench' has no attribute {name!r}")
