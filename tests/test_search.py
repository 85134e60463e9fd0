"""`zorder_search`, `exact_search` and the codes against their definitions, written once more, query by query."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zeta_bench.ops import exact_search, morton_encode, zorder_search
from zeta_bench.ops.morton import default_bits, morton_ranks, zorder_codes

CPU = torch.device("cpu")


def limit_of(position: int, S: int, causal: bool, chunk: int) -> int:
    """First forbidden key, in Python integers."""
    if not causal:
        return S
    return position + 1 if chunk == 1 else position // chunk * chunk


def define_zorder(q_codes, k_codes, k, causal, chunk, valid, offset):
    """The definition of design.md, one query after the other, in Python."""
    B, H, N = q_codes.shape
    S = k_codes.shape[-1]
    out = np.full((B, H, N, k), -1)
    for b, h, i in np.ndindex(B, H, N):
        limit = limit_of(offset + i, S, causal, chunk)
        keys = [j for j in range(S) if j < limit and (valid is None or valid[b, j])]
        ranked = sorted(keys, key=lambda j: (int(k_codes[b, h, j]), j))
        r = sum(int(k_codes[b, h, j]) <= int(q_codes[b, h, i]) for j in ranked)
        s = min(max(r - k // 2, 0), max(len(ranked) - k, 0))
        taken = ranked[s : s + k]
        out[b, h, i, : len(taken)] = taken
    return torch.from_numpy(out)


@st.composite
def searches(draw):
    """Small searches with many ties, lengths that differ, padding, offsets before and beyond the keys."""
    B, H, N, S = (draw(st.integers(1, n)) for n in (2, 2, 9, 13))
    seed = draw(st.integers(0, 2**32 - 1))
    generator = torch.Generator().manual_seed(seed)
    spread = draw(st.sampled_from([1, 3, 8, 2**30]))
    q = torch.randint(0, spread, (B, H, N), generator=generator)
    k = torch.randint(0, spread, (B, H, S), generator=generator)
    valid = None if draw(st.booleans()) else torch.rand(B, S, generator=generator) < draw(st.floats(0, 1))
    how = {
        "k": draw(st.integers(1, 15)),
        "causal": draw(st.booleans()),
        "chunk": draw(st.integers(1, 5)),
        "valid": valid,
        "offset": draw(st.integers(-3, 16)),
    }
    return q, k, how


@settings(max_examples=300, deadline=None)
@given(searches())
def test_zorder_search_is_its_definition(case):
    q, k, how = case
    found = zorder_search(q, k, **how)
    assert found.dtype == torch.int32
    assert torch.equal(
        found.long(), define_zorder(q, k, how["k"], how["causal"], how["chunk"], how["valid"], how["offset"])
    )


@settings(max_examples=100, deadline=None)
@given(searches(), st.integers(1, 8))
def test_zorder_search_of_real_points(case, d):
    """The same through `morton_encode`, in 1 to 8 dimensions, with points on cell edges."""
    q, k, how = case
    points = [((x % 17).double() / 8 - 1)[..., None].repeat(1, 1, 1, d) * torch.linspace(1, -1, d) for x in (q, k)]
    q_codes, k_codes = (morton_encode(x) for x in points)
    want = define_zorder(q_codes, k_codes, how["k"], how["causal"], how["chunk"], how["valid"], how["offset"])
    assert torch.equal(zorder_search(q_codes, k_codes, **how).long(), want)


@settings(max_examples=150, deadline=None)
@given(searches(), st.integers(1, 3))
def test_exact_search_is_its_definition(case, d):
    q, k, how = case
    q, k = ((x % 5).double()[..., None].repeat(1, 1, 1, d) for x in (q, k))
    topk = how.pop("k")
    found = exact_search(q, k, topk=topk, **how)
    for b, h, i in np.ndindex(*q.shape[:3]):
        limit = limit_of(how["offset"] + i, k.shape[2], how["causal"], how["chunk"])
        keys = [j for j in range(k.shape[2]) if j < limit and (how["valid"] is None or how["valid"][b, j])]
        near = sorted(keys, key=lambda j: (float((q[b, h, i] - k[b, h, j]).square().sum()), -j))[:topk]
        assert found[b, h, i].tolist() == near + [-1] * (topk - len(near))


def test_all_codes_equal_takes_the_newest():
    codes = torch.zeros(1, 1, 20, dtype=torch.int32)
    found = zorder_search(codes, codes, k=4)
    assert found[0, 0, 19].tolist() == [16, 17, 18, 19]
    assert found[0, 0, 1].tolist() == [0, 1, -1, -1]


def naive_morton(cell: list[int], bits: int) -> int:
    code = ""
    for level in range(bits - 1, -1, -1):
        for c in cell:
            code += str(c >> level & 1)
    return int(code, 2)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 8), st.data())
def test_morton_code_of_a_cell(d, data):
    bits = data.draw(st.integers(1, 63 // d))
    top = 2**bits - 1
    cell = data.draw(st.lists(st.integers(0, min(top, 2**40)), min_size=d, max_size=d))
    x = (torch.tensor(cell, dtype=torch.float64) + 0.5) / 2.0**bits * 2 - 1
    if bits > 44:  # a float64 cannot hold the middle of so small a cell; its own cell is then what counts
        cell = [min(max(int(float((v + 1) / 2) * 2.0**bits), 0), top) for v in x]
    code = morton_encode(x, bits=bits)
    assert int(code) == naive_morton(cell, bits)
    assert code.dtype == (torch.int32 if bits * d <= 31 else torch.int64)


def test_morton_edges_and_beyond():
    x = torch.tensor([[-1.0], [1.0], [-7.0], [7.0], [float("inf")], [-float("inf")], [float("nan")], [0.0]])
    assert morton_encode(x, bits=4).tolist() == [0, 15, 0, 15, 15, 0, 0, 8]
    assert morton_encode(x.double(), bits=63).tolist()[1] == 2**63 - 1


@pytest.mark.parametrize(("d", "bits"), [(1, 10), (3, 10), (4, 7), (8, 3), (31, 1), (32, 1), (63, 1)])
def test_default_bits(d, bits):
    assert default_bits(d) == bits


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((3, 0), {}),
        ((2, 3), {"bits": 22}),
        ((2, 3), {"bits": 0}),
        ((2, 64), {}),
        ((2, 3), {"low": 1.0}),
        ((2, 3), {"impl": "cuda"}),
    ],
)
def test_morton_refuses(shape, options):
    with pytest.raises(ValueError, match=r"\w"):
        morton_encode(torch.zeros(shape), **options)


def test_coordinates_are_fp32_under_autocast():
    x = torch.rand(50, 3) * 2 - 1
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(morton_encode(x), morton_encode(x.clone()))
        assert len(morton_encode(x).unique()) > 45


@pytest.mark.parametrize(("d", "bits"), [(2, 3), (3, 10), (5, 12)])
def test_ranks_order_as_codes_do(d, bits):
    q, k = torch.rand(2, 2, 9, d) * 2 - 1, torch.rand(2, 2, 30, d) * 2 - 1
    k[:, :, 20:] = k[:, :, :10]
    ranks = torch.cat(morton_ranks(q, k, bits=bits), dim=-1)
    codes = torch.cat((morton_encode(q, bits=bits), morton_encode(k, bits=bits)), dim=-1)
    for sign in (torch.lt, torch.eq):
        assert torch.equal(
            sign(ranks[..., :, None], ranks[..., None, :]), sign(codes[..., :, None], codes[..., None, :])
        )


def test_codes_wider_than_an_integer():
    """d = 128 (claim C4): nearly equal points stay neighbours, and the order is lexicographic in interleaved bits."""
    k = torch.rand(1, 1, 40, 128) * 2 - 1
    q_codes, k_codes = zorder_codes(k[:, :, :5], k, bits=8)
    assert torch.equal(q_codes, k_codes[..., :5])
    cells = ((k[0, 0] + 1) / 2 * 256).long()
    keys = [naive_morton(cell.tolist(), 8) for cell in cells]
    assert sorted(range(40), key=keys.__getitem__) == k_codes[0, 0].argsort().tolist()


@pytest.mark.parametrize(
    "arguments",
    [
        {"k": 0},
        {"k": 2, "chunk": 0},
        {"k": 2, "valid": torch.ones(1, 4)},
        {"k": 2, "valid": torch.ones(2, 4, dtype=torch.bool)},
        {"k": 2, "impl": "cuda"},
    ],
)
def test_search_refuses(arguments):
    codes = torch.zeros(1, 1, 4, dtype=torch.int32)
    with pytest.raises(ValueError, match=r"\w"):
        zorder_search(codes, codes, **arguments)


def test_search_of_other_shapes_is_refused():
    with pytest.raises(ValueError, match="agree"):
        zorder_search(torch.zeros(1, 2, 4), torch.zeros(1, 1, 4), k=2)
