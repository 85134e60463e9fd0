"""The memory that training takes: parameters with what belongs to them, and what a forward pass keeps for backward."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from zeta_bench.execution import Execution
from zeta_bench.plan import Run
from zeta_bench.training import BenchModule

BYTES_A_PARAMETER = 16
"""fp32: the weight, its gradient and Adam's two moments."""


def training_bytes(run: Run, module: BenchModule, execution: Execution | None = None) -> int:
    """Bytes on one device of parameters, gradients, optimiser and saved tensors of what goes through at once.

    What a batch keeps is measured on one and on two sequences and goes on in proportion, so that a large batch need not
    fit. Transient buffers, blocks that are gathered from other devices, the batch itself and the allocator's own losses
    are not in it: a lower bound, and a close one for a model of several layers. An evaluation takes less: its logits
    are made in pieces.
    """
    execution = execution or Execution()
    parameters, _ = module.model.parameter_counts()
    share = execution.world if execution.strategy == "fsdp" else 1
    one, two = (saved_bytes(run, module, batch) for batch in (1, 2))
    more = execution.at_once(run.protocol.budget.batch_size) - 1
    return parameters * BYTES_A_PARAMETER // share + one + (two - one) * more


def saved_bytes(run: Run, module: BenchModule, sequences: int) -> int:
    """Bytes of the different storages that a forward pass and its loss keep for backward, parameters left out."""
    device = next(module.parameters()).device
    examples = run.task.examples("valid")
    indices = torch.arange(sequences) % len(examples)
    batch = {key: value.to(device) for key, value in examples.batch(indices).items()}
    own = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast(device.type, torch.bfloat16, enabled=run.protocol.precision == "bf16"),
    ):
        loss = F.cross_entropy(module.logits(batch).float(), module.labels(batch))
    del loss  # only now: as long as the graph lives, no storage's address is given away again
    return sum(kept.values())
