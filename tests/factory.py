"""Synthetic records for tests: every field plausible, none of it measured."""

from __future__ import annotations

import math
from typing import Any

from zeta_bench.records import Record, make_run_id

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def make_record(
    variant: str = "zeta",
    seed: int = 0,
    value: float | None = 0.9,
    *,
    status: str = "ok",
    point: dict[str, Any] | None = None,
    valid: float | None = None,
    settings: dict[str, Any] | None = None,
    steps: int = 4000,
    **fields: Any,
) -> Record:
    """A run's record as `zeta_bench.run` would write it.

    Args:
        variant: its name.
        seed: its seed.
        value: metric on the test split; None for a run that has none.
        status: of the run.
        point: its grid point.
        valid: metric on the validation split; the test figure if left out.
        settings: of the variant, as typed.
        steps: of training.
        fields: any other field of the record.
    """
    point, settings = point or {}, settings or {}
    content: dict[str, Any] = {
        "kind": "run",
        "status": status,
        "reason": "" if status == "ok" else f"synthetic {status}",
        "task": "mqar",
        "protocol": "synthetic@0badcafe",
        "point": point,
        "variant": variant,
        "settings": settings,
        "config": {"k": 32, **settings},
        "seed": seed,
        "metric": "accuracy",
        "chance": 0.0625,
        "steps": steps,
        "selected_step": steps,
        "tokens": steps * 8192,
        "seconds": 60.0 + seed,
        "tokens_per_second": steps * 8192 / (60.0 + seed),
        "parameters": 65536 + 512 * int(point.get("backbone.d_model", 128)),
        "direction": "causal",
        "precision": "fp32",
        "device": "Synthetic 9000",
        "device_class": "Synthetic 9000",
        "versions": {"python": "3.11.0", "torch": "2.13.0"},
        "commit": COMMIT,
        "command": f"zeta-bench run mqar --attn {variant} --seed {seed}",
        "started_at": "2030-01-01T00:00:00+00:00",
        **fields,
    }
    metric = content["metric"]
    content.setdefault("metrics", _metrics(metric, value, valid))
    content.setdefault("curve", make_curve(value, seed, steps, metric) if value is not None else [])
    identity = ("task", "task_version", "protocol", "point", "variant", "variant_version", "config", "seed")
    content.setdefault("run_id", make_run_id(**{k: content.get(k) for k in (*identity, "device_class", "precision")}))
    return Record(**content)


def make_curve(
    final: float, seed: int, steps: int, metric: str = "accuracy", chance: float = 0.0625, slow: float = 1.0
) -> list[dict[str, float]]:
    """A sigmoid from chance to `final`, with a wobble that depends on the seed."""
    rows = []
    for step in range(steps // 40, steps + 1, steps // 40):
        share = 1 / (1 + math.exp(-14 * (step / steps - 0.35 * slow - 0.03 * seed)))
        wobble = 0.01 * math.sin(step / steps * 40 + seed) * share * (1 - share) * 4
        figure = chance + (final - chance) * share + wobble
        rows.append({"step": step, "seconds": step / 50, "train_loss": 5 - 4 * share, f"valid_{metric}": figure})
    return rows


def _metrics(metric: str, value: float | None, valid: float | None) -> dict[str, dict[str, float | None]]:
    if value is None:
        return {}
    valid = value if valid is None else valid
    return {
        "valid": {metric: valid, "loss": 1.0},
        "test": {metric: value, f"{metric}_stderr_items": 0.0025, "loss": 1.0},
    }


def make_bench(
    variant: str = "zeta",
    length: int = 1024,
    ms: float | None = 1.0,
    *,
    task: str = "speed",
    status: str = "ok",
    modes: tuple[str, ...] = ("both",),
    graph: bool = True,
    captured: bool = True,
    stages: dict[str, float] | None = None,
    noisy: bool = False,
    **fields: Any,
) -> Record:
    """A bench's record as `zeta_bench.efficiency` would write it.

    Args:
        variant: the contender.
        length: of the sequence.
        ms: milliseconds (bytes for memory) in every mode; None where there is no figure.
        task: "speed" or "memory".
        status: of every mode.
        modes: that were measured.
        graph: asked for.
        captured: whether it could be had.
        stages: milliseconds by stage.
        noisy: what the A/A check found.
        fields: any other field of the record.
    """

    def figures(value: float) -> dict[str, float | None]:
        return (
            {"ms": value, "ms_p20": 0.99 * value, "ms_p80": 1.01 * value} if task == "speed" else {"peak_bytes": value}
        )

    told = {"status": status, "reason": "" if status == "ok" else f"synthetic {status}", "repeats": 50}
    payload: dict[str, Any] = {
        "modes": {mode: {**told, "graph": captured, "note": ""} for mode in modes},
        "workload": {"level": "op", "method": 1, "batch": 1, "heads": 8, "causal": True, "dtype": "bf16", "k": 32},
        "agreement": {"of": "sdpa-flash at 1k, both", "first": 1.0, "second": 1.1, "difference": 0.1, "noisy": noisy},
        "caches": "cold L2",
    }
    if stages:
        payload["breakdown"] = {
            name: {**figures(value), "repeats": 50, "graph": True} for name, value in stages.items()
        }
    content: dict[str, Any] = {
        "kind": "bench",
        "task": task,
        "protocol": "bench-op-causal-bf16@0badcafe",
        "point": {"length": length, "graph": graph},
        "metric": "",
        "metrics": {} if ms is None else {mode: figures(ms) for mode in modes},
        "curve": [],
        "chance": None,
        "payload": payload,
        **fields,
    }
    return make_record(variant, status=status, **content)
