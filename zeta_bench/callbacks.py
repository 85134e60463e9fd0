"""What watches over a run: checkpoints that are whole, a Ctrl-C that loses nothing, and progress."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch

from zeta_bench.errors import UsageError, ZetaBenchError
from zeta_bench.protocol import Protocol
from zeta_bench.training import BenchModule

STOP_CHECK_EVERY = 10
"""Steps between looks at a request to stop where several devices must agree: each look waits for all of them."""


class Interrupted(ZetaBenchError):
    """The user asked to stop; the checkpoint is written."""


class Checkpoint(pl.Callback):
    """Writes the run's state after each evaluation and when the user asks to stop, whole or not at all."""

    def __init__(self, path: Path, stop: StopRequest) -> None:
        self.path, self.stop = path, stop

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save after an evaluation, and leave if the user has asked to stop."""
        if trainer.state.fn == "fit":
            self.save(trainer)
            if self._asked(trainer):
                raise Interrupted(f"stopped at step {trainer.global_step}")

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save and leave once the user has asked to stop: between two steps, never inside one.

        A step with an evaluation gets that first, so that the curve of the resumed run has no gap.
        """
        if trainer.world_size > 1 and trainer.global_step % STOP_CHECK_EVERY:
            return
        if trainer.global_step % trainer.val_check_interval and self._asked(trainer):
            self.save(trainer)
            raise Interrupted(f"stopped at step {trainer.global_step}")

    def save(self, trainer: pl.Trainer) -> None:
        """Write to a temporary name, then rename. Raises ZetaBenchError if the folder cannot be written."""
        partial = self.path.with_suffix(".partial")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            trainer.save_checkpoint(partial)
            if trainer.is_global_zero:
                partial.replace(self.path)
        except OSError as error:
            raise ZetaBenchError(f"cannot write the checkpoint {self.path}: {error.strerror or error}.") from None
        finally:
            if trainer.is_global_zero:
                partial.unlink(missing_ok=True)
        if trainer.world_size > 1:  # a process that leaves ends the others, perhaps before the state has its name
            trainer.strategy.barrier()

    def _asked(self, trainer: pl.Trainer) -> bool:
        """Whether to stop here: not after the last step, and with several devices all of them at one step."""
        if trainer.global_step >= trainer.max_steps:
            return False
        return trainer.strategy.reduce_boolean_decision(self.stop.requested, all=False)


class StopRequest:
    """Turns the first Ctrl-C into a request, so that a step in progress ends whole; a second one interrupts at once."""

    def __init__(self) -> None:
        self.requested = False
        self._previous: Any = None

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, *exc: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True


class Watch(pl.Callback):
    """Tells a listener about progress: (step, last curve row or None) after each step."""

    def __init__(self, listener: Callable[[int, dict[str, float] | None], None]) -> None:
        self.listener = listener

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After a step."""
        self.listener(trainer.global_step, None)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """After an evaluation, when the module has added its row."""
        if isinstance(pl_module, BenchModule) and pl_module.curve:
            self.listener(trainer.global_step, pl_module.curve[-1])


def checkpoint_step(path: Path, protocol: Protocol) -> int:
    """Step at which a checkpoint was written. Raises UsageError if it is damaged or of another protocol."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        step, digest = int(state["global_step"]), state["zeta_bench"]["protocol"]
    except Exception as error:  # a damaged file makes torch raise nearly anything
        raise UsageError(
            f"the checkpoint {path} is damaged ({type(error).__name__}); delete it, or run again without --resume."
        ) from None
    if digest != protocol.digest:
        raise UsageError(f"the checkpoint {path} is of another protocol; run again without --resume.")
    return step


def checkpoint_devices(path: Path) -> int:
    """How many devices wrote a checkpoint that `checkpoint_step` has found whole; 1 if it does not say."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    return int(state["zeta_bench"].get("devices", 1))
