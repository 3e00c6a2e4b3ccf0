"""Functions of ours that a ``TorchFunctionMode`` sees called, as it sees torch's own."""

from collections.abc import Callable
from typing import TypeVar, cast

from torch.overrides import wrap_torch_function

Function = TypeVar('Function', bound=Callable)


def overridable(function: Function) -> Function:
    """Let modes see a call of ``function`` as one; the function is its ``__wrapped__``."""
    return cast(Function, wrap_torch_function(lambda *args, **kwargs: args)(function))
