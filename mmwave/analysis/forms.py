"""One form of a model, ready to be called, compared and measured."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .memory import peak_bytes, saved_bytes

LAYOUTS = {'NCHW': torch.contiguous_format, 'NHWC': torch.channels_last}


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of one training step.

    Attributes:
        saved: kept from the forward pass for the backward pass; parameters do not count.
        peak: most that is held at once, the gradients of the parameters included.
    """

    saved: int
    peak: int


class Form:
    """A module and its images, in one dtype and memory layout.

    Args:
        module: maps images to a tuple of maps; it is changed in place.
        images: (N, C, H, W).
        gradients: of the outputs, for a training step; None for inference.
        dtype: floating-point type of everything.
        layout: a key of :data:`LAYOUTS`.
    """

    def __init__(
        self,
        module: nn.Module,
        images: Tensor,
        gradients: list[Tensor] | None,
        dtype: torch.dtype,
        layout: str = 'NCHW',
    ) -> None:
        memory = LAYOUTS[layout]
        self.module = module.to(dtype).to(memory_format=memory)  # type: ignore[call-overload]
        self.images = images.to(dtype, memory_format=memory)
        self.gradients = gradients and [g.to(dtype, memory_format=memory) for g in gradients]

    def step(self) -> None:
        """What is timed: a forward pass, and in training a backward pass from given gradients."""
        if self.gradients is None:
            with torch.inference_mode():
                self.module(self.images)
        else:
            torch.autograd.backward(self.module(self.images), self.gradients)
            self.module.zero_grad()

    def answer(self) -> dict[str, Tensor]:
        """The outputs, and in training the gradients of all parameters as one vector."""
        if self.gradients is None:
            with torch.inference_mode():
                return {f'output {i}': x for i, x in enumerate(self.module(self.images))}
        outputs = self.module(self.images)
        torch.autograd.backward(outputs, self.gradients)
        # By name: the published form holds some in another order.
        parameters = sorted(self.module.named_parameters())
        vector = torch.cat([p.grad.flatten() for _, p in parameters if p.grad is not None])
        self.module.zero_grad()
        return {f'output {i}': x.detach() for i, x in enumerate(outputs)} | {'gradients': vector}

    def memory(self) -> Memory:
        """Of one training step, caches filled by earlier ones."""
        tensors = [*self.module.parameters(), *self.module.buffers()]
        return Memory(
            saved=saved_bytes(lambda: self.module(self.images), apart_from=tensors),
            peak=peak_bytes(self.step, self.images.device),
        )
