"""The catalogue of baselines: one line a variant, one file a variant."""

from __future__ import annotations

from zeta_bench.registry import Variant

ATTENTION = {
    "vanilla": Variant("zeta_bench.baselines.vanilla:Vanilla", "softmax attention (torch SDPA)", family="softmax"),
    "topk": Variant(
        "zeta_bench.baselines.topk:TopK", "exact dot-product top-k softmax: what ZETA makes faster", family="softmax"
    ),
    "linear": Variant("zeta_bench.baselines.linear:Linear", "linear attention, elu + 1 features", family="kernel"),
    "performer": Variant("zeta_bench.baselines.performer:Performer", "FAVOR+ random features", family="kernel"),
    "reformer": Variant(
        "zeta_bench.baselines.reformer:Reformer", "LSH attention, causal without leaking", family="lsh"
    ),
    "local": Variant("zeta_bench.baselines.local:Local", "sliding window", family="local"),
}
