"""What tests look at in graphs of torch.compile, and in the operations that are nodes of them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_map_only


def recorded(
    function: Callable[..., Any], *inputs: Tensor | None, open_axes: tuple[int, ...] = ()
) -> tuple[Any, list[str]]:
    """What ``function`` gives when it is compiled, and the nodes of the one graph of it.

    ``open_axes`` of the first input are marked as of any length.
    """
    nodes: list[str] = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        nodes.extend(str(n.target).removesuffix('.default') for n in graph.graph.nodes)
        return graph.forward

    torch.compiler.reset()
    torch._dynamo.mark_dynamic(inputs[0], open_axes)
    return torch.compile(function, backend=backend, fullgraph=True)(*inputs), nodes


def check_op(op: Any, *arguments: Any) -> None:
    """Hold an operation against what compilers are told of it, the strides of its results too."""
    torch.library.opcheck(op, arguments)
    with FakeTensorMode() as mode:
        told = op(*tree_map_only(Tensor, mode.from_tensor, arguments))
    found = op(*arguments)
    for a, b in zip(*(x if isinstance(x, tuple) else (x,) for x in (told, found)), strict=True):
        assert (a.shape, _steps(a), a.dtype) == (b.shape, _steps(b), b.dtype)


def _steps(x: Tensor) -> list[int]:
    """Strides of the axes on which there is a step to take."""
    return [stride for stride, length in zip(x.stride(), x.shape, strict=True) if length > 1]
