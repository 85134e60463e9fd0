"""Model FLOPs utilisation (MFU): what a step multiplies ÷ what the device could multiply in that time.

As in PaLM (Chowdhery et al. 2022, arXiv 2204.02311, appendix B) what is computed twice to save memory counts once.
Where that takes 6 · parameters · tokens and the attention apart, here the products of a forward pass are counted as
they run and taken three times. For softmax attention both say the same, but for parameters that multiply nothing
(embeddings, norms). What other libraries' kernels multiply is not seen, so of variants that run by them it is a lower
bound; a reference multiplies more than its kernel.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

import zeta_bench.ops.flops  # noqa: F401  (formulas of our kernels are registered when it is imported)

# Dense TFLOPS of bf16 = fp16, of tf32, and of fp32 without tensor cores, from NVIDIA's data sheets. Newer sheets print
# figures with sparsity, which are twice as much; Lightning's own table has those for some GPUs and not for others.
PEAKS: dict[str, tuple[float, float, float]] = {
    # NVIDIA A100 Tensor Core GPU datasheet, 2021; SXM and PCIe alike
    r"NVIDIA A100[- ](SXM4|PCIE|PCIe|80GB PCIe)\b.*": (312.0, 156.0, 19.5),
    # NVIDIA H100 Tensor Core GPU datasheet (SXM, NVL); H100 architecture whitepaper (PCIe)
    r"NVIDIA H100 80GB HBM3": (989.4, 494.7, 66.9),
    r"NVIDIA H100 PCIe": (756.0, 378.0, 51.2),
    r"NVIDIA H100 NVL": (835.5, 417.5, 60.0),
    # NVIDIA H200 Tensor Core GPU datasheet (SXM, NVL)
    r"NVIDIA H200": (989.4, 494.7, 66.9),
    r"NVIDIA H200 NVL": (835.5, 417.5, 60.0),
    # NVIDIA L4 Tensor Core GPU datasheet
    r"NVIDIA L4": (121.0, 60.0, 30.3),
    # NVIDIA Ada GPU architecture whitepaper, appendix A; products added up in fp32
    r"NVIDIA GeForce RTX 4090": (165.2, 82.6, 82.6),
}


def peak_flops(device: str, precision: str) -> float | None:
    """Dense FLOPs a second that a device's data sheet promises; None for one that is not in the table.

    Args:
        device: its name, as torch has it. Parts of a GPU (MIG) and other versions of it have other names.
        precision: "bf16" or "fp32"; fp32 is tf32 where torch has been allowed to take that for products.
    """
    found = next((peaks for pattern, peaks in PEAKS.items() if re.fullmatch(pattern, device)), None)
    if found is None or "MIG" in device:
        return None
    bf16, tf32, fp32 = found
    plain = tf32 if torch.get_float32_matmul_precision() != "highest" else fp32
    return 1e12 * (bf16 if precision == "bf16" else plain)


def utilisation(flops: int, seconds: float, device: str, precision: str, devices: int = 1) -> float | None:
    """MFU of a step, in [0, 1]; None where the device is unknown or nothing was counted or timed.

    Args:
        flops: of a step on all devices, see `zeta_bench.run.step_flops`.
        seconds: of that step.
        device: name of one.
        precision: as in `peak_flops`.
        devices: how many took part.
    """
    peak = peak_flops(device, precision)
    if peak is None or not flops or seconds <= 0:
        return None
    return flops / (seconds * peak * devices)


@contextmanager
def counted_flops() -> Iterator[FlopCounterMode]:
    """Count matrix products, those in our own kernels and in a CPU's softmax attention among them."""
    on_cpu = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _softmax_flops}
    with FlopCounterMode(display=False, custom_mapping=on_cpu) as counter:
        yield counter


def _softmax_flops(q: list[int], k: list[int], v: list[int], *rest: object, **out: object) -> int:
    total: int = sdpa_flop_count(q, k, v)
    return total
