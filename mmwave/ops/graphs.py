"""What kind of graph is being recorded, if any, for which sizes, and who else looks on."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad


def is_recording() -> bool:
    """Whether a graph of plain operations is being recorded, to be run by others."""
    return torch.compiler.is_exporting() or torch.jit.is_tracing()  # type: ignore


def is_watched() -> bool:
    """Whether a dispatch mode, a transform of ``torch.func`` or forward-mode autograd is on.

    They know torch's own operations: of ours they would miss a derivative, or what is in memory.
    """
    modes = torch._C._len_torch_dispatch_stack()
    return bool(modes) or forward_ad._current_level >= 0 or is_transformed()


def is_transformed() -> bool:
    """Whether a transform of ``torch.func`` is on."""
    return torch._C._functorch.maybe_current_level() is not None


def is_recorded(*tensors: Tensor | None) -> bool:
    """Whether autograd records what is computed of these."""
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def differentiable_gradients(
    reference: Callable[..., Sequence[Tensor]],
    tensors: Sequence[Tensor],
    gradients: Sequence[Tensor | None],
) -> list[Tensor | None]:
    """Gradients of ``tensors`` that have gradients themselves, as ``create_graph=True`` asks for.

    For backward passes of kernels that compute gradients but none of these.

    Args:
        reference: computes what the kernel does, of operations of torch.
        tensors: what it was computed of, attached to the graph that they came from.
        gradients: of the results, attached likewise.
    """
    wanted = [tensor for tensor in tensors if tensor.requires_grad]
    pairs = zip(reference(*tensors), gradients, strict=True)
    outputs, given = zip(*((y, g) for y, g in pairs if g is not None), strict=True)
    found = iter(torch.autograd.grad(outputs, wanted, given, create_graph=True, allow_unused=True))
    return [next(found) if tensor.requires_grad else None for tensor in tensors]


def any_size(*sides: int) -> bool:
    """Whether a graph is being recorded that is to hold for other lengths of ``sides`` too.

    Without any: whether a graph is being recorded. Questions about a length that is left open make
    ``torch.compile`` record one more graph for the other answer, so none is asked where this holds.
    """
    if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        return True
    if not torch.compiler.is_compiling():  # that is so in torch.export as well
        return False
    from torch.fx.experimental.symbolic_shapes import has_static_value

    return len(sides) == 0 or any(not has_static_value(side) for side in sides)


def one_size(side: int) -> int:
    """``side`` as the number that a graph of ``torch.compile`` holds for: others need their own."""
    if not torch.compiler.is_compiling():
        return side
    from torch.fx.experimental.symbolic_shapes import guard_scalar

    return int(guard_scalar(side))


def is_opaque(*sides: int) -> bool:
    """Whether ``torch.compile`` records a graph for any of ``sides``.

    There some of what is computed is one operation that its compiler does not look into:
    inductor (torch 2.13) fails at, or takes minutes over, the sizes and strides in it.
    """
    return any_size(*sides) and not is_recording()


def own_memory(result: Tensor, given: Tensor) -> Tensor:
    """``result`` contiguous, and never in the memory of ``given``, as an operation must give it."""
    result = result.contiguous()
    return result.clone() if result.data_ptr() == given.data_ptr() else result
