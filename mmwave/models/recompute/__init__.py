"""Selective activation recomputation: store what products need, recompute what is cheap.

Of all that autograd stores for the backward pass, a vision MLP's matrix products need the larger
part, and most of that is the output of a norm, an activation or a gate: cheap to recompute
from tensors that are stored anyway. Inside :func:`selective_recompute` such outputs are not stored.
Whoever needs one in the backward pass gets it recomputed, once for all who need it. The graph stays
the ordinary one, and the same operations run on the same inputs: gradients are equal bit for bit,
and so are gradients of gradients. No product is computed twice, unlike by activation checkpointing,
which saves more memory for a whole second forward pass.

It works from outside: a ``TorchFunctionMode`` sees every call of a function of torch's in Python
and notes how the outputs of cheap ones were made; a hook on saved tensors stores that note in the
output's place. Models need not be written for it.

Source of the idea: Korthikanti et al., Reducing Activation Recomputation in Large Transformer
Models, MLSys 2023, arXiv:2205.05198.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.module import _has_any_global_hook

from mmwave.ops.graphs import is_tracing, is_watched

from .checkpoint import checkpointed
from .notes import Saved
from .recorder import Recorder

__all__ = ['checkpointed', 'is_recomputable', 'selective_recompute']


@contextmanager
def selective_recompute(enabled: bool = True) -> Iterator[None]:
    """Inside, store for the backward pass no output of :data:`CHEAP` and :data:`CHEAP_OPS`.

    It steps aside where others decide what is stored (other hooks on saved tensors, such as those
    of activation checkpointing; a compiler) and where autograd is not the only one to look at
    operations (dispatch modes, ``torch.func``, forward-mode autograd).
    """
    if (
        not enabled
        or not torch.is_grad_enabled()
        or is_tracing()
        or is_watched()
        or _others_decide()
    ):
        yield
        return
    recorder = Recorder()
    try:
        with recorder, torch.autograd.graph.saved_tensors_hooks(recorder.pack, Saved.unpack):
            yield
    finally:
        recorder.made.clear()  # every saved tensor refers to its hooks


def is_recomputable(module: nn.Module) -> bool:
    """Whether what is computed in a module can be recomputed outside it.

    It cannot where modules within it have hooks around their forward. Such hooks may free the
    module's parameters behind it, as those of FSDP and of offloading do: nothing that was computed
    from them can be recomputed on another module's demand. Nor does a compiler need any help.
    """
    if _has_any_global_hook():
        return False
    for part in module.modules():
        if part is not module and (part._forward_hooks or part._forward_pre_hooks):
            return False
        if part._compiled_call_impl is not None or '_orig_mod' in part._modules:
            return False
    return True


def _others_decide() -> bool:
    """Whether hooks on saved tensors are in force, or forbidden."""
    hooks = torch._C._autograd
    return (
        not hooks._saved_tensors_hooks_is_enabled()
        or hooks._top_saved_tensors_default_hooks(True) is not None
    )
