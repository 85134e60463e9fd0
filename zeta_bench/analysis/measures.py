"""One point of an analysis: a row of figures for each d_K and precision of the codes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from zeta_bench.analysis.overlap import nearest, overlap, window
from zeta_bench.analysis.points import draw, generator, normal
from zeta_bench.analysis.request import DEFAULT, FINE, Analysis, Distortion, Locality, Point
from zeta_bench.ops.morton import default_bits

Row = dict[str, Any]


def measure(settings: Analysis, point: Point, d_ks: Sequence[int]) -> list[Row]:
    """Rows of one point: d_k, code (one of `CODES`), bits, and the figures of `locality` or `distortion`."""
    if isinstance(settings, Distortion):
        return list(distortion(settings, point, d_ks))
    assert isinstance(settings, Locality)
    return list(locality(settings, point, d_ks))


def locality(settings: Locality, point: Point, d_ks: Sequence[int]) -> Iterator[Row]:
    """Overlap of the window on the curve with the exact neighbours, of points drawn in d_K dimensions."""
    for d_k in d_ks:
        q, k = _draw(settings, point, d_k)
        true = nearest(q, k, settings.k)
        for code, bits in ((DEFAULT, default_bits(d_k)), (FINE, settings.bits)):
            yield _row(d_k, code, bits, overlap=overlap(window(q, k, settings.k, bits), true))


def distortion(settings: Distortion, point: Point, d_ks: Sequence[int]) -> Iterator[Row]:
    """What a random projection x ↦ P x keeps, P [d_K, D] of N(0, 1 / d_K) (Johnson and Lindenstrauss, 1984).

    Figures of a row, each a mean over queries:
        preservation: share of the true neighbours in D among the exact ones in d_K.
        distortion: |‖P(x − y)‖ / ‖x − y‖ − 1| over queries and keys.
        locality: share of the exact neighbours in d_K in the window on the curve. Codes are those of tanh(u), where
            u is P x scaled to a variance of 1; so what the bound costs is a part of it.
        product: locality · preservation.
        above_chance: the same of both beyond chance, (share − c) / (1 − c) with c = k / S: in few dimensions a
            projection of many keeps hardly more than chance, and a raw product counts chance as merit.
        kept: share of the true neighbours in D in that window: what ZETA would attend.
    """
    x_q, x_k = _draw(settings, point, settings.width)
    true, far, chance = nearest(x_q, x_k, settings.k), _distances(x_q, x_k), settings.k / point.length
    for d_k in d_ks:
        matrix = normal(settings.width, d_k, generator("projection", point, settings.width, d_k)) * d_k**-0.5
        q, k = x_q @ matrix, x_k @ matrix
        near = nearest(q, k, settings.k)
        preserved = overlap(near, true)
        ratio = (_distances(q, k) / far)[far > 0]  # a query that is a key has no distance to itself
        unit = (d_k / settings.width) ** 0.5
        found = window((q * unit).tanh(), (k * unit).tanh(), settings.k, default_bits(d_k))
        local = overlap(found, near)
        yield _row(
            *(d_k, DEFAULT, default_bits(d_k)),
            preservation=preserved,
            distortion=(ratio - 1).abs(),
            locality=local,
            product=local.mean() * preserved.mean(),
            above_chance=_beyond(local, chance) * _beyond(preserved, chance),
            kept=overlap(found, true),
        )


def _draw(settings: Analysis, point: Point, d: int) -> tuple[Tensor, Tensor]:
    source = generator(settings.task, point, d)
    return draw(point.distribution, point.length, settings.queries, d, source, shared=settings.shared)


def _distances(q: Tensor, k: Tensor) -> Tensor:
    return torch.cdist(q, k, compute_mode="donot_use_mm_for_euclid_dist")  # by differences, not by products


def _beyond(shares: Tensor, chance: float) -> Tensor:
    return (shares.mean() - chance) / (1 - chance) if chance < 1 else shares.mean()


def _row(d_k: int, code: str, bits: int, **figures: Tensor) -> Row:
    means = {name: round(float(value.double().mean()), 7) for name, value in figures.items()}
    return {"d_k": d_k, "code": code, "bits": bits, **means}
