"""Training in less memory: what is cheap is computed again in the backward pass, not kept.

A layer that multiplies by a matrix keeps its input for the gradient of the matrix. Where that input
is a norm's, an activation's or a gate's output, it can be computed again from what came before it,
which is kept anyway. ``lean(product, prepare, x)`` is ``product(prepare(x))`` that keeps ``x``
alone. No gradient is derived by hand: autograd goes through ``prepare`` as it ever does, only
later, so gradients are the same bit for bit. No product is computed twice, unlike by activation
checkpointing, which saves more and costs a whole second forward pass.

Gradients of gradients (``create_graph=True``) go through as well. Transforms of ``torch.func`` and
forward-mode autograd, which take no custom functions of this kind, get the plain operations. So do
modules with hooks: these would run twice, and the first time without a graph.
"""

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from mmwave.ops.graphs import any_size, is_watched

from .norm import batch_statistics_kept

_HOOKS = ('_forward_hooks', '_forward_pre_hooks', '_backward_hooks', '_backward_pre_hooks')


class _Allowed(threading.local):
    """Whether :func:`lean` may save memory, in each thread by itself."""

    lean = True


_allowed = _Allowed()


@contextmanager
def without_lean() -> Iterator[None]:
    """Inside, in this thread, :func:`lean` keeps everything: for code that is itself recomputed."""
    before, _allowed.lean = _allowed.lean, False
    try:
        yield
    finally:
        _allowed.lean = before


def lean(
    product: Callable[..., Any],
    prepare: Callable[..., Tensor] | None,
    *inputs: Tensor,
    modules: Iterable[nn.Module] | None = None,
) -> Any:
    """``product(prepare(*inputs))``, keeping for the backward pass the inputs, not what is between.

    Args:
        product: what is computed once and keeps what ``prepare`` gives, such as a linear layer.
        prepare: cheap and without random numbers; it is called again in the backward pass. It
            may overwrite nothing: its inputs are kept. None: there is nothing to prepare.
        inputs: tensors, the ones that ``prepare`` needs and that are not its parameters.
        modules: those whose parameters ``prepare`` uses. By default ``prepare`` itself, if it is a
            module. Batch norms among them update their statistics once.
    """
    if prepare is None:
        return product(*inputs)
    if modules is None:
        modules = (prepare,) if isinstance(prepare, nn.Module) else ()
    modules = tuple(modules)
    parameters = [p for module in modules for p in module.parameters()]
    needed = torch.is_grad_enabled() and any(t.requires_grad for t in (*inputs, *parameters))
    # A compiler decides for itself what to keep, a traced graph keeps nothing.
    plain = not needed or any_size() or not _allowed.lean or is_watched()
    if plain or not _have_memory(inputs) or _are_hooked(modules):
        return product(prepare(*inputs))
    segment = _Segment(prepare, modules, inputs)
    prepared = _Prepared.apply(segment, *inputs, *parameters)
    segment.storage = prepared.untyped_storage().data_ptr()
    segment.layout = prepared.stride(), prepared.storage_offset()
    with torch.autograd.graph.saved_tensors_hooks(segment.pack, segment.unpack):
        return product(prepared)


def _have_memory(tensors: Iterable[Tensor]) -> bool:
    """Whether tensors can be told apart by their memory, which subclasses may have none of."""
    return all(type(t) in (Tensor, nn.Parameter) and not t.is_meta for t in tensors)


def _are_hooked(modules: Iterable[nn.Module]) -> bool:
    """Whether calling any of the modules, or a part of one, runs more than its forward."""
    return bool(_has_any_global_hook()) or any(
        getattr(part, hooks) for module in modules for part in module.modules() for hooks in _HOOKS
    )


def keep(
    product: Callable[..., Any],
    prepare: Callable[..., Tensor] | None,
    *inputs: Tensor,
    modules: Iterable[nn.Module] | None = None,
) -> Any:
    """What :func:`lean` computes, keeping everything as autograd does."""
    return product(*inputs) if prepare is None else product(prepare(*inputs))


def runner(is_lean: bool) -> Callable[..., Any]:
    """:func:`lean` or :func:`keep`: how a block runs its parts."""
    return lean if is_lean else keep


class _Segment:
    """One call of ``prepare``: how its result is had again, for those who would have kept it."""

    def __init__(
        self, prepare: Callable[..., Tensor], modules: tuple[nn.Module, ...], inputs: tuple
    ) -> None:
        self.prepare, self.modules, self.count = prepare, modules, len(inputs)
        kind = inputs[0].device.type
        self.cast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        self.storage = 0
        self.layout: tuple[tuple[int, ...], int]
        # Weak: the node holds this segment. It lives as long as those who keep what it computes.
        self.node: Callable[[], Any]
        self.again: tuple[tuple[Tensor, ...], Tensor] | None = None

    def run(self, *inputs: Tensor) -> Tensor:
        prepared = self.prepare(*inputs)
        # The product would cast it and keep the cast one.
        narrow = self.cast is not None and prepared.dtype == torch.float32
        return prepared.to(self.cast) if narrow else prepared

    def rerun(self) -> tuple[tuple[Tensor, ...], Tensor]:
        """The inputs, cut off from what came before, and the result with its graph; once."""
        if self.again is None:
            tensors = self.node().saved_tensors
            given = tensors[: self.count]
            inputs = tuple(t.detach().requires_grad_(t.requires_grad) for t in given)
            self.again = (*inputs, *tensors[self.count :]), self.recomputed(inputs)
        return self.again

    def recomputed(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """The result once more, with a graph."""
        with ExitStack() as stack:
            stack.enter_context(torch.enable_grad())
            if self.cast is not None:
                stack.enter_context(torch.autocast(inputs[0].device.type, dtype=self.cast))
            for module in self.modules:
                stack.enter_context(batch_statistics_kept(module))
            return self.run(*inputs)

    def pack(self, tensor: Tensor) -> Any:
        if tensor.untyped_storage().data_ptr() != self.storage:
            return tensor
        return tensor.shape, tensor.stride(), tensor.storage_offset()

    def unpack(self, packed: Any) -> Tensor:
        if isinstance(packed, Tensor):
            return packed
        made = self.rerun()[1].detach()
        strides, offset = self.layout
        if (made.stride(), made.storage_offset()) != self.layout:
            # ``prepare`` laid it otherwise, as it may where gradients are recorded.
            storage = made.new_empty(
                offset + 1 + sum((n - 1) * s for n, s in zip(made.shape, strides, strict=True))
            )
            made = storage.as_strided(made.shape, strides, offset).copy_(made)
        return made.as_strided(*packed)


class _Prepared(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, segment: _Segment, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*tensors)
        ctx.segment, segment.node = segment, weakref.ref(ctx)
        return segment.run(*tensors[: segment.count])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple:
        segment, twice = ctx.segment, torch.is_grad_enabled()
        closed = [True]
        if twice:  # these gradients are to have gradients, of what came before too
            saved = ctx.saved_tensors
            inputs = tuple(_Barrier.apply(closed, t) for t in saved[: segment.count])
            sources = *inputs, *saved[segment.count :]
            prepared = segment.recomputed(inputs)
        else:
            sources, prepared = segment.rerun()
        segment.again = None
        wanted = [t for t in sources if t.requires_grad]
        found = iter(
            torch.autograd.grad(prepared, wanted, gradient, create_graph=twice, allow_unused=True)
        )
        closed.clear()
        return None, *(next(found) if t.requires_grad else None for t in sources)


class _Barrier(torch.autograd.Function):
    """``x``, whose gradient goes no further back while ``closed`` holds something.

    Of the parameters of ``prepare`` some may have made its inputs as well. What reaches them by
    that way is not its to return; gradients of what it returns go back all the way.
    """

    @staticmethod
    def forward(ctx: Any, closed: list[bool], x: Tensor) -> Tensor:
        ctx.closed = closed
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple:
        return None, None if ctx.closed else gradient
