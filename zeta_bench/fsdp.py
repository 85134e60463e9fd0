"""Fully sharded data parallelism (FSDP): each device keeps its share of weights, gradients and optimiser states.

By torch's `fully_shard`. Lightning's FSDPStrategy starts on no CPU and cannot clip gradients by their norm; its
ModelParallelStrategy does both, but the whole states that it writes number parameters in another order than an
optimiser on one device, so these are put together and taken apart here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytorch_lightning.strategies import ModelParallelStrategy
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_map_only

from zeta_bench.backbone import Model
from zeta_bench.errors import Unsupported


class FullySharded(ModelParallelStrategy):
    """Every device a share of the model; checkpoints are those of one device, so any number of devices reads them.

    Args:
        world: devices that share the model.
    """

    def __init__(self, world: int) -> None:
        super().__init__(data_parallel_size=world, tensor_parallel_size=1, save_distributed_checkpoint=False)

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Lightning hands the optimiser's state to `load_optimizer_state_dict`."""
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The whole weights; all devices must ask together."""
        assert self.model is not None
        return _whole(self.model.state_dict())

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The whole state of the optimiser; all devices must ask together."""
        return _whole(optimizer.state_dict())

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """The checkpoint as it is in the file; the methods below take it apart."""
        found: dict[str, Any] = self.checkpoint_io.load_checkpoint(checkpoint_path, weights_only=weights_only)
        return found

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Take this device's share of the weights."""
        assert self.lightning_module is not None
        own, kept = self.lightning_module.state_dict(), checkpoint["state_dict"]
        self.lightning_module.load_state_dict(
            {name: _share(value, own[name]) for name, value in kept.items()}, strict=strict
        )

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Take this device's share of the optimiser's state."""
        for optimizer, kept in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            numbers = [number for group in kept["param_groups"] for number in group["params"]]
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            shared = {
                number: {name: _share(value, p) for name, value in kept["state"][number].items()}
                for number, p in zip(numbers, parameters, strict=True)
                if number in kept["state"]
            }
            optimizer.load_state_dict({**kept, "state": shared})


def shard(model: Model, mesh: DeviceMesh) -> None:
    """Share out a model, one unit a block and one for the rest; nothing to do where it is shared out already.

    The rest (embedding and head) stays whole from a forward pass to its backward pass, which needs it first.

    Raises:
        Unsupported: a parameter has no dimension to be cut along.
    """
    if isinstance(model, FSDPModule):
        return
    for name, parameter in model.named_parameters():
        if parameter.ndim == 0:
            raise Unsupported(
                f"--strategy fsdp cuts parameters along their first dimension, and '{name}' has none; give it the "
                "shape [1], or use --strategy ddp."
            )
    for block in model.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh, reshard_after_forward=False)


def gather(model: Model) -> None:
    """Let every device hold the whole model from here on, to look at its weights; it trains no more."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_reshard_after_forward(False)
            module.unshard()


def _whole(state: dict[str, Any]) -> dict[str, Any]:
    """A state whose shared tensors are whole, on the CPU, one gathered after the other."""
    found: dict[str, Any] = tree_map_only(DTensor, lambda x: x.full_tensor().cpu(), state)
    return found


def _share(value: Any, like: Tensor) -> Any:
    """This device's share of a whole tensor that belongs to a parameter; numbers such as Adam's step stay whole."""
    if not (isinstance(like, DTensor) and isinstance(value, Tensor) and value.shape == like.shape):
        return value
    whole = value.to(like.device)
    return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None)
