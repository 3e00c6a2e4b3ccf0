"""Whether a graph is being traced, for which sizes, and whether autograd or others intercept."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad


def is_exporting() -> bool:
    """Return whether a graph of torch's own operators is being traced, to be run elsewhere."""
    return torch.compiler.is_exporting() or torch.jit.is_tracing()  # type: ignore


def is_counted() -> bool:
    """Return whether operators may be being counted, by a trace of torch.jit or a dispatch mode.

    So count mmengine and fvcore, or torch and ptflops.
    """
    if torch.compiler.is_compiling():
        return False
    return torch.jit.is_tracing() or bool(torch._C._len_torch_dispatch_stack())  # type: ignore


def is_watched() -> bool:
    """Return whether a dispatch mode, a transform of ``torch.func`` or forward-mode AD is active.

    These handle torch's own operators: of ours they would miss a derivative or an allocation.
    """
    modes = torch._C._len_torch_dispatch_stack()
    return bool(modes) or forward_ad._current_level >= 0 or is_transformed()


def is_transformed() -> bool:
    """Return whether a transform of ``torch.func`` is active."""
    return torch._C._functorch.maybe_current_level() is not None


def needs_grad(*tensors: Tensor | None) -> bool:
    """Return whether autograd tracks what is computed from these tensors."""
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def differentiable_gradients(
    reference: Callable[..., Sequence[Tensor]],
    tensors: Sequence[Tensor],
    gradients: Sequence[Tensor | None],
) -> list[Tensor | None]:
    """Return gradients of ``tensors`` that are differentiable, as ``create_graph=True`` requires.

    For backward passes of kernels whose gradients are not differentiable.

    Args:
        reference: computes the kernel's function with torch's operators.
        tensors: its inputs, attached to their autograd graph.
        gradients: gradients of its outputs, attached likewise.
    """
    wanted = [tensor for tensor in tensors if tensor.requires_grad]
    pairs = zip(reference(*tensors), gradients, strict=True)
    outputs, given = zip(*((y, g) for y, g in pairs if g is not None), strict=True)
    found = iter(torch.autograd.grad(outputs, wanted, given, create_graph=True, allow_unused=True))
    return [next(found) if tensor.requires_grad else None for tensor in tensors]


def is_tracing() -> bool:
    """Return whether a graph is being traced, by ``torch.compile``, export or ``torch.jit``."""
    return torch.jit.is_tracing() or torch.compiler.is_compiling()  # type: ignore


def is_dynamic(*sizes: int) -> bool:
    """Return whether any of ``sizes`` is dynamic in the graph being traced.

    Branching on a dynamic size specialises the graph, which ``torch.compile`` then traces again for
    the other case: check this first.
    """
    if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        return True
    if not torch.compiler.is_compiling():  # True in torch.export as well
        return False
    from torch.fx.experimental.symbolic_shapes import has_static_value

    return any(not has_static_value(size) for size in sizes)


def static_size(size: int) -> int:
    """Return ``size`` as a plain number, to which a graph of ``torch.compile`` is specialised."""
    if not torch.compiler.is_compiling():
        return size
    from torch.fx.experimental.symbolic_shapes import guard_scalar

    return int(guard_scalar(size))


def needs_opaque_op(*sizes: int) -> bool:
    """Return whether to wrap a computation on ``sizes`` as a custom op, opaque to the compiler.

    That is so where ``torch.compile`` traces with any of them dynamic: inductor (torch 2.13) fails
    on some computations with dynamic sizes and strides, or takes minutes.
    """
    return is_dynamic(*sizes) and not is_exporting()


def unaliased(result: Tensor, x: Tensor) -> Tensor:
    """Return ``result`` contiguous and sharing no memory with ``x``, as a custom op must."""
    result = result.contiguous()
    return result.clone() if result.data_ptr() == x.data_ptr() else result
