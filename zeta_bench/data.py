"""Batches: which examples come at which step, the same on every machine and after every resume."""

from __future__ import annotations

from collections.abc import Iterator

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from zeta_bench.errors import UsageError
from zeta_bench.task import Batch, BenchTask, Examples, Split


class BatchStream(Sampler[Tensor]):
    """Indices of the examples of each step, a pure function of (seed, step).

    Epoch e is a permutation seeded by (seed, e); its last, partial batch is dropped. So a run that starts at step s
    gets what an uninterrupted run gets from step s on, whatever the number of workers.

    Args:
        size: number of examples.
        batch_size: examples a step, over all devices; at most `size`.
        seed: of the run.
        steps: end of the stream.
        start: first step.
        rank: this device's number; it gets every `world`-th example of each batch.
        world: number of devices.
    """

    def __init__(
        self, size: int, batch_size: int, *, seed: int, steps: int, start: int = 0, rank: int = 0, world: int = 1
    ) -> None:
        if size < batch_size:
            raise UsageError(f"budget.batch_size = {batch_size} is more than the {size} training examples; lower it.")
        if batch_size < world:
            raise UsageError(f"budget.batch_size = {batch_size} leaves some of {world} devices without work; raise it.")
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.steps, self.start, self.rank, self.world = steps, start, rank, world
        self._epoch, self._order = -1, torch.empty(0)

    def __len__(self) -> int:
        return max(self.steps - self.start, 0)

    def __iter__(self) -> Iterator[Tensor]:
        return map(self.at, range(self.start, self.steps))

    def at(self, step: int) -> Tensor:
        """Indices of the examples of one step, int64 [batch_size / world]."""
        per_epoch = self.size // self.batch_size
        epoch, first = step // per_epoch, step % per_epoch * self.batch_size
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._permutation(epoch)
        return self._order[first : first + self.batch_size][self.rank :: self.world]

    def _permutation(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        return torch.randperm(self.size, generator=generator)


class ReadBatches(Dataset[Batch]):
    """Examples as a dataset whose key is a tensor of indices and whose item is a whole batch."""

    def __init__(self, examples: Examples) -> None:
        self.examples = examples

    def __getitem__(self, indices: Tensor) -> Batch:
        return self.examples.batch(indices)


class BenchDataModule(pl.LightningDataModule):
    """Loaders for one run.

    Args:
        task: where the examples come from.
        batch_size: examples a step, over all devices.
        steps: optimiser steps of the whole run.
        seed: of the run; orders the training examples.
        eval_splits: splits scored at each evaluation, in this order.
        workers: loading processes; 0 = the training process.
    """

    def __init__(
        self,
        task: BenchTask,
        *,
        batch_size: int,
        steps: int,
        seed: int,
        eval_splits: tuple[Split, ...],
        workers: int = 0,
    ) -> None:
        super().__init__()
        self.task, self.batch_size, self.steps, self.seed = task, batch_size, steps, seed
        self.eval_splits, self.workers, self.start = eval_splits, workers, 0

    def train_dataloader(self) -> DataLoader[Batch]:
        """Batches from step `start` to the last."""
        return self._loader(self.task.examples("train"), self._stream())

    def indices(self, step: int) -> Tensor:
        """Which training examples this device gets at a step."""
        return self._stream().at(step)

    def _stream(self) -> BatchStream:
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        size = len(self.task.examples("train"))
        return BatchStream(
            size, self.batch_size, seed=self.seed, steps=self.steps, start=self.start, rank=rank, world=world
        )

    def val_dataloader(self) -> list[DataLoader[Batch]]:
        """One loader for each split of `eval_splits`, in the examples' own order."""
        return [self.split_loader(split) for split in self.eval_splits]

    def test_dataloader(self) -> DataLoader[Batch]:
        """The test split, in its own order."""
        return self.split_loader("test")

    def split_loader(self, split: Split) -> DataLoader[Batch]:
        """A split in its own order; of several devices each gets every world-th example, and as many batches as others.

        Where devices wait for each other in each forward pass, one that had a batch more would wait for ever.
        """
        examples = self.task.examples(split)
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        mine = torch.arange(len(examples))[rank::world]
        size = max(self.batch_size // world, 1)
        if world == 1:
            return self._loader(examples, list(mine.split(size)))
        most, least = -(-len(examples) // world), len(examples) // world
        if least == 0:
            raise UsageError(f"the {len(examples)} examples of '{split}' leave some of {world} devices without work.")
        return self._loader(examples, list(mine.tensor_split(min(-(-most // size), least))))

    def _loader(self, examples: Examples, indices: Sampler[Tensor] | list[Tensor]) -> DataLoader[Batch]:
        return DataLoader(
            ReadBatches(examples),
            sampler=indices,
            batch_size=None,  # an item is a batch already
            num_workers=self.workers,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.workers > 0,
        )
