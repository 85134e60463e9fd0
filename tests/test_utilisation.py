"""FLOPs that are counted, those of our own kernels among them, and what share of a device's peak they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from bounds import make
from factory import make_record
from torch.utils.flop_counter import FlopCounterMode
from toys import FirstToken, toy_run, train

from zeta_bench import utilisation as module
from zeta_bench.ops import zeta_attention
from zeta_bench.records import Record
from zeta_bench.run import make_model, step_flops
from zeta_bench.utilisation import PEAKS, counted_flops, peak_flops, utilisation

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SXM = "NVIDIA H100 80GB HBM3"


@pytest.mark.parametrize(
    ("device", "bf16"),
    [
        ("NVIDIA A100-SXM4-40GB", 312), ("NVIDIA A100-SXM4-80GB", 312), ("NVIDIA A100-PCIE-40GB", 312),
        ("NVIDIA A100 80GB PCIe", 312), (SXM, 989.4), ("NVIDIA H100 PCIe", 756), ("NVIDIA H100 NVL", 835.5),
        ("NVIDIA H200", 989.4), ("NVIDIA H200 NVL", 835.5), ("NVIDIA L4", 121), ("NVIDIA GeForce RTX 4090", 165.2),
    ],
)  # fmt: skip
def test_peaks_are_dense_ones_by_the_names_that_torch_gives(device: str, bf16: float) -> None:
    assert peak_flops(device, "bf16") == pytest.approx(bf16 * 1e12)


@pytest.mark.parametrize(
    "device",
    ["cpu", "", "NVIDIA L40S", "NVIDIA GeForce RTX 4090 D", "NVIDIA H100 80GB HBM3 MIG 3g.40gb", "NVIDIA H20",
     "NVIDIA A100-SXM4-40GB MIG 1g.5gb", "NVIDIA GH200 480GB", "NVIDIA A100X", "AMD Instinct MI300X"],
)  # fmt: skip
def test_a_device_that_is_not_in_the_table_has_no_utilisation(device: str) -> None:
    assert peak_flops(device, "bf16") is None
    assert utilisation(10**12, 1.0, device, "bf16") is None


def test_every_peak_falls_with_precision() -> None:
    for bf16, tf32, fp32 in PEAKS.values():
        assert bf16 >= 2 * tf32 - 1e-9
        assert tf32 >= fp32


def test_fp32_is_tf32_where_torch_may_take_that(monkeypatch: pytest.MonkeyPatch) -> None:
    assert peak_flops(SXM, "fp32") == pytest.approx(66.9e12)
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    assert peak_flops(SXM, "fp32") == pytest.approx(494.7e12)
    assert peak_flops(SXM, "bf16") == pytest.approx(989.4e12)


def test_utilisation_is_flops_by_time_by_peak_and_devices() -> None:
    assert utilisation(989_400_000_000_000, 2.0, SXM, "bf16") == pytest.approx(0.5)
    assert utilisation(989_400_000_000_000, 2.0, SXM, "bf16", devices=4) == pytest.approx(0.125)
    assert utilisation(0, 2.0, SXM, "bf16") is None
    assert utilisation(1, 0.0, SXM, "bf16") is None


def test_a_step_is_counted_as_palm_does_for_softmax_attention() -> None:
    """6 · N · T + 12 · layers · heads · width · N · T, with N the parameters that multiply something."""
    run = toy_run(FirstToken, backbone__n_layers=2)
    model = make_model(run)
    products = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear))
    length, tokens, width = 12, 32 * 12, 16
    assert step_flops(run, model) == 6 * products * tokens + 12 * 2 * width * length * tokens


@pytest.mark.parametrize(
    ("settings", "keys"),
    [({}, 4), ({"mean": "prefix"}, 5), ({"local_window": 3}, 7), ({"topk": 64}, 20)],
)
def test_our_own_kernels_are_counted_forward_and_backward(settings: dict[str, object], keys: int) -> None:
    pytest.importorskip("triton")
    case = make(DEVICE, N=20, d=3, dv=16, H=2, topk=4, mean=None)
    inputs = case.inputs()
    how = {**case.settings, "topk": 4, **settings}
    with counted_flops() as counter:
        out = zeta_attention(*inputs, valid=case.valid, impl="triton", **how)
    forward = 2 * case.q.shape[0] * 2 * 20 * keys * (3 + 16)
    assert counter.get_total_flops() == forward
    with counted_flops() as counter:
        torch.autograd.grad(out, inputs, case.do)
    assert counter.get_total_flops() == 2 * forward


def test_an_eager_call_goes_through_the_operators_where_somebody_counts() -> None:
    pytest.importorskip("triton")
    case = make(DEVICE, N=20, d=3, dv=16, H=2)
    with FlopCounterMode(display=False) as counter:
        zeta_attention(*case.inputs(), valid=case.valid, impl="triton", **case.settings)
    assert counter.get_total_flops() > 0


def test_a_record_has_it_where_the_peak_is_known_and_old_records_read_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = toy_run(budget__steps=4, budget__eval_every=4)
    record = train(run, tmp_path / "unknown")
    assert record.mfu is None
    content = make_record().model_dump()
    del content["mfu"]
    assert Record(**content).mfu is None
    monkeypatch.setitem(module.PEAKS, "cpu", (1e-4, 1e-4, 1e-4))
    known = train(run, tmp_path / "known")
    most, least = (known.flops * known.steps / (known.seconds + slip) / 1e8 for slip in (-0.0005, 0.0005))
    assert least <= known.mfu <= most  # the record rounds its seconds to milliseconds
