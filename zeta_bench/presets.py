"""The catalogue of ZETA itself: the published form, and the forms that tell what each part of it contributes."""

from __future__ import annotations

from zeta_bench.registry import Variant

_ZETA = "zeta_bench.zeta:ZetaAttention"

ATTENTION = {
    "zeta": Variant(_ZETA, "ZETA as published: chunks of 16, Z-order window of 32, mean token"),
    "zeta-token": Variant(_ZETA, "ZETA, causal to the token instead of to the chunk", overrides={"chunk": 1}),
    "zeta-oracle": Variant(
        _ZETA,
        "zeta-token with exact nearest neighbours: what the Z-order costs",
        overrides={"chunk": 1, "search": "exact"},
    ),
    "zeta-mean": Variant(_ZETA, "the mean token alone, no search", overrides={"chunk": 1, "search": "none"}),
    "zeta-local": Variant(
        _ZETA, "the 32 newest keys instead of the nearest", overrides={"chunk": 1, "search": "local"}
    ),
    "zeta-random": Variant(_ZETA, "32 random permitted keys", overrides={"chunk": 1, "search": "random"}),
    "zeta-hybrid": Variant(
        _ZETA,
        "zeta-token and a local window of 32 in one normalisation (ours)",
        overrides={"chunk": 1, "local_window": 32},
    ),
}
