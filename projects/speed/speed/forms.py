"""One form of a model, ready to be called, compared and measured."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmwave.inspect.memory import held_bytes, peak_bytes

LAYOUTS = {'NCHW': torch.contiguous_format, 'NHWC': torch.channels_last}
NO_KERNEL = 'deploy, no kernel'
"""Name of the deploy form as it runs where the C++ kernels are not built."""


@dataclass(frozen=True, kw_only=True)
class Label:
    """Which form of which model.

    Attributes:
        role: ``'ours'``; ``'peer'``, the same function by the published operations; ``'other'``, by
            another library; ``'contender'``, another model.
        name: of ours the form, else whose implementation it is.
        layout: memory layout of images and weights, a key of :data:`LAYOUTS`; empty for ours, which
            accepts images in any layout and chooses that of its weights itself.
        compiled: whether it runs under torch.compile.
    """

    role: str
    name: str
    layout: str = ''
    compiled: bool = False

    @property
    def execution(self) -> str:
        return 'compiled' if self.compiled else 'eager'

    def __str__(self) -> str:
        return ' '.join(filter(None, (self.name, self.layout, 'compiled' * self.compiled)))


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of one training step.

    Attributes:
        saved: kept from the forward pass for the backward pass, the outputs included.
        peak: the most that is held at once, the gradients of the parameters included.
    """

    saved: int
    peak: int


class Form:
    """A module and its images, in one dtype and memory layout.

    Args:
        module: maps images to a tuple of maps; changed in place.
        images: (N, C, H, W).
        gradients: of the outputs, for a training step; None for inference.
        dtype: of weights, images and gradients.
        layout: a key of :data:`LAYOUTS`; empty keeps the weights' own.
        levels: which of the standard's outputs the module returns; None: all.
    """

    def __init__(
        self,
        module: nn.Module,
        images: Tensor,
        gradients: Sequence[Tensor] | None,
        dtype: torch.dtype,
        layout: str = '',
        levels: Sequence[int] | None = None,
    ) -> None:
        self.module = module.to(dtype)
        self.images = images.to(dtype)
        self.gradients = gradients and [g.to(dtype) for g in gradients]
        self.levels = levels
        if layout:
            memory = LAYOUTS[layout]
            self.module.to(memory_format=memory)
            self.images = self.images.to(memory_format=memory)
            if self.gradients:
                self.gradients = [g.to(memory_format=memory) for g in self.gradients]
        self.call: Callable[..., Any] = self.module

    def compiled(self, backend: str) -> 'Form':
        """Return the same module and images, called through torch.compile."""
        other = copy.copy(self)
        # One graph for these images, as for any backbone that sees one size.
        other.call = torch.compile(self.module, backend=backend, dynamic=False)
        return other

    def step(self) -> None:
        """Run what is timed: a forward pass, and in training a backward pass."""
        if self.gradients is None:
            with torch.inference_mode():
                self.call(self.images)
        else:
            torch.autograd.backward(self.call(self.images), self.gradients)
            self.module.zero_grad()

    def answer(self) -> dict[str, Tensor]:
        """Return the outputs, and in training the gradients of all parameters as one vector."""
        if self.gradients is None:
            with torch.inference_mode():
                return self._named(self.call(self.images))
        outputs = self.call(self.images)
        torch.autograd.backward(outputs, self.gradients)
        # Sorted by name: the published form defines some in another order.
        parameters = sorted(self.module.named_parameters())
        vector = torch.cat([p.grad.flatten() for _, p in parameters if p.grad is not None])
        self.module.zero_grad()
        return self._named([x.detach() for x in outputs]) | {'gradients': vector}

    def memory(self) -> Memory:
        """Measure one training step; caches are filled by earlier ones."""
        return Memory(
            saved=held_bytes(lambda: self.call(self.images), self.images.device),
            peak=peak_bytes(self.step, self.images.device),
        )

    def _named(self, outputs: Sequence[Tensor]) -> dict[str, Tensor]:
        levels = range(len(outputs)) if self.levels is None else self.levels
        return {f'output {i}': x for i, x in zip(levels, outputs, strict=True)}


def randomise_norms(model: nn.Module) -> None:
    """Draw statistics and parameters of batch norms: fresh ones are close to the identity."""
    generator = torch.Generator().manual_seed(0)
    for norm in (m for m in model.modules() if isinstance(m, _BatchNorm)):
        state = norm.state_dict()
        for name, low, high in (
            ('running_mean', -0.5, 0.5),
            ('running_var', 0.5, 2.0),
            ('weight', 0.5, 1.5),
            ('bias', -0.5, 0.5),
        ):
            state[name].uniform_(low, high, generator=generator)
