"""One contender at one length, ready to be repeated: its forward pass, and the gradients asked of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from zeta_bench.efficiency.inputs import generator, normal


@dataclass(frozen=True)
class Work:
    """What is timed.

    Attributes:
        run: the timed part; what it returns is thrown away.
        before: repeated before each run, outside the timed part; None = nothing.
        keeps: what must stay alive as long as the work does, such as the outputs of a captured graph.
    """

    run: Callable[[], object]
    before: Callable[[], object] | None = None
    keeps: object = None


@dataclass
class Step:
    """A contender with its inputs.

    Attributes:
        forward: the whole forward pass, with gradients recorded if they are enabled.
        inputs: what the backward pass gives gradients of; unused ones are passed over.
        prepare: called with True before training steps and with False before inference, as ``nn.Module.train`` is.
    """

    forward: Callable[[], Tensor]
    inputs: tuple[Tensor, ...]
    prepare: Callable[[bool], object] = field(default=lambda training: None)
    _out: Tensor | None = None
    _gradient: Tensor | None = None

    def work(self, mode: str) -> Work:
        """What is timed in a mode.

        forward: inference, nothing kept for gradients. backward: the gradients alone, each time of a forward pass of
        its own that is not timed. both: one forward pass and its gradients, as in a training step.
        """
        self.prepare(mode != "forward")
        if mode == "forward":
            return Work(self.infer)
        return Work(self.train) if mode == "both" else Work(self._backward, before=self._record)

    def infer(self) -> Tensor:
        """The output, without gradients."""
        with torch.no_grad():
            return self.forward()

    def train(self) -> tuple[Tensor | None, ...]:
        """Output and gradients."""
        out = self.forward()
        return out, *self._gradients(out)

    def _record(self) -> None:
        self._out = self.forward()

    def _backward(self) -> tuple[Tensor | None, ...]:
        assert self._out is not None
        return self._gradients(self._out)

    def _gradients(self, out: Tensor) -> tuple[Tensor | None, ...]:
        if self._gradient is None:  # once, at the first call: its shape and dtype are the contender's choice
            self._gradient = normal(tuple(out.shape), out.dtype, generator(out.device))
        return torch.autograd.grad(out, self.inputs, self._gradient, allow_unused=True)
