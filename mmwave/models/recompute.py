"""Selective activation recomputation: store what products need, recompute what is cheap.

Of all that autograd stores for the backward pass, a vision MLP's matrix products need the larger
part, and most of that is the output of a norm, an activation or a gate: cheap to compute once more
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

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.modules.module import _has_any_global_hook
from torch.overrides import TorchFunctionMode

from mmwave.ops import patches, phase_mix
from mmwave.ops.graphs import is_tracing, is_watched

# batch_norm_elemt ends torch.nn.SyncBatchNorm's forward: what the ranks exchanged is its input.
_NORMS = 'batch_norm batch_norm_elemt group_norm layer_norm rms_norm'
_ACTIVATIONS = """
    celu clamp elu gelu hardsigmoid hardswish hardtanh leaky_relu logsigmoid mish prelu relu relu6
    selu sigmoid silu softmax softplus softsign tanh
"""
_ARITHMETIC = 'addcmul cos div mul reciprocal sin to'
_COPIES = 'cat clone contiguous flatten pad reshape'
_FLOAT32 = 'group_norm layer_norm reciprocal rms_norm softmax softplus'
_PRODUCTS = 'baddbmm bmm conv2d linear matmul __matmul__'


def _functions(names: str) -> frozenset[Callable[..., Any]]:
    """Torch's functions and methods of these names, under every name that a mode sees them by."""
    spaces = (torch, Tensor, F, torch._C._nn)
    return frozenset(
        getattr(space, name) for name in names.split() for space in spaces if hasattr(space, name)
    )


CHEAP = _functions(f'{_NORMS} {_ACTIVATIONS} {_ARITHMETIC} {_COPIES}')
"""Functions whose outputs are recomputed: without random numbers and quick beside a product.

Sums are none of them: a block's shortcut is stored, so that no recomputation reaches beyond it.
"""
CHEAP_OPS = frozenset({patches, phase_mix})
"""Likewise of :mod:`mmwave.ops`. What they store themselves may be recomputed as well."""
PRODUCTS = _functions(_PRODUCTS)
"""Functions that autocast casts to half precision: products, that is."""
FLOAT32 = _functions(_FLOAT32)
"""Of :data:`CHEAP`, those that autocast runs in float32 on a CUDA device."""


@contextmanager
def selective_recompute(enabled: bool = True) -> Iterator[None]:
    """Inside, store for the backward pass no output of :data:`CHEAP` and :data:`CHEAP_OPS`.

    It steps aside where others decide what is stored (other hooks on saved tensors, such as those
    of activation checkpointing; a compiler) and where autograd is not the only one to look at
    operations (dispatch modes, ``torch.func``, forward-mode autograd).
    """
    if not enabled or not torch.is_grad_enabled() or is_tracing() or is_watched() or _has_hooks():
        yield
        return
    recorder = _Recorder()
    try:
        with recorder, torch.autograd.graph.saved_tensors_hooks(recorder.pack, _Saved.unpack):
            yield
    finally:
        recorder.made.clear()  # every saved tensor refers to its hooks


def has_hooks_inside(module: nn.Module) -> bool:
    """Whether a module within ``module`` has hooks around its forward, or all modules have.

    Such hooks may free the module's parameters behind its forward, as those of FSDP and of
    offloading do: nothing that was computed of them can be recomputed on another module's demand.
    """
    return bool(_has_any_global_hook()) or any(
        part._forward_hooks or part._forward_pre_hooks
        for part in module.modules()
        if part is not module
    )


def _has_hooks() -> bool:
    """Whether hooks on saved tensors are in force."""
    return torch._C._autograd._top_saved_tensors_default_hooks(True) is not None


class _Call:
    """A call of a cheap function, to be repeated in the backward pass.

    Its arguments are stored as they are; those that are outputs of cheap calls, as such.
    """

    __slots__ = ('args', 'autocast', 'function', 'kwargs', 'requested', 'results', 'users')

    def __init__(
        self,
        function: Callable[..., Any],
        args: tuple,
        kwargs: Mapping[str, Any],
        autocast: tuple[str, torch.dtype] | None,
    ) -> None:
        self.function, self.args, self.kwargs, self.autocast = function, args, kwargs, autocast
        # Saved tensors and calls that need an output, and those that got it in this backward pass.
        self.users = self.requested = 0
        self.results: tuple[Tensor, ...] | None = None

    def add_user(self) -> None:
        """Count one more that needs an output."""
        self.users += 1
        if self.users == 1:
            for arg in _flat(self.args, self.kwargs):
                if isinstance(arg, _Output):
                    arg.call.add_user()

    def output(self, index: int) -> Tensor:
        """Return an output, without a graph; results are cached until every user has theirs."""
        if self.results is None:
            results = self._repeat()
            self.results = results if isinstance(results, tuple) else (results,)
        result = self.results[index]
        self.requested += 1
        if self.requested >= self.users:
            self.results, self.requested = None, 0
        return result

    def _repeat(self) -> Any:
        cast = self.autocast
        context = nullcontext() if cast is None else torch.autocast(cast[0], dtype=cast[1])
        with torch.no_grad(), context:
            args = _mapped(_value_of, self.args)
            kwargs = {name: _mapped(_value_of, value) for name, value in self.kwargs.items()}
            return self.function(*args, **kwargs)


class _Input:
    """A tensor that a call was given, with its version."""

    __slots__ = ('tensor', 'version')

    def __init__(self, tensor: Tensor) -> None:
        self.tensor, self.version = tensor.detach(), tensor._version

    def value(self) -> Tensor:
        """Return the tensor.

        Raises:
            RuntimeError: where it was modified in place, as by autograd.
        """
        if self.tensor._version != self.version:
            raise RuntimeError(
                'one of the variables needed for gradient computation has been modified by an '
                f'inplace operation: a tensor of shape {tuple(self.tensor.shape)} is at version '
                f'{self.tensor._version}; expected version {self.version} instead'
            )
        return self.tensor


class _Made:
    """That a storage holds output number ``index`` of a call."""

    __slots__ = ('call', 'dtype', 'index', 'layout', 'storage', 'version')

    def __init__(self, call: _Call, index: int, tensor: Tensor) -> None:
        self.call, self.index, self.dtype, self.version = call, index, tensor.dtype, tensor._version
        self.layout = tensor.shape, tensor.stride(), tensor.storage_offset()
        # Keeps the storage's identity, not its memory: no later one is taken for it.
        self.storage = StorageWeakRef(tensor.untyped_storage())


class _Output:
    """An output of a call, or a view of it."""

    __slots__ = ('call', 'made', 'view')

    def __init__(self, made: _Made, tensor: Tensor) -> None:
        self.made, self.call = made, made.call
        self.view = tensor.shape, tensor.stride(), tensor.storage_offset()

    def value(self) -> Tensor:
        """Recompute it, in the memory layout it had."""
        made = self.call.output(self.made.index)
        shape, strides, offset = self.made.layout
        if (made.stride(), made.storage_offset()) != (strides, offset):
            # A function may choose its output's layout by whether autograd is on.
            length = offset + 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
            made = made.new_empty(length).as_strided(shape, strides, offset).copy_(made)
        return made.as_strided(*self.view)


class _Saved:
    """What autograd stores of a tensor: itself, or how it is recomputed."""

    __slots__ = ('source',)

    def __init__(self, source: Tensor | _Output) -> None:
        self.source = source

    def unpack(self) -> Tensor:
        """Return the tensor."""
        return self.source if isinstance(self.source, Tensor) else self.source.value()


class _Recorder(TorchFunctionMode):
    """Notes how the outputs of cheap functions are made, and stores the notes for autograd."""

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[int, _Made] = {}
        """By the identity of the storage."""
        self.saved: dict[int, list[_Saved]] | None = None
        """What the cheap function that is being called stores: maybe its output, as softmax's."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in CHEAP:
            return self._run(function, args, kwargs)
        if function in CHEAP_OPS:
            with self:  # for what is called inside
                result = function.__wrapped__(*args, **kwargs)
            self._note(function, args, kwargs, result)
            return result
        if function in PRODUCTS:
            args = self._cast(args, to_half=True)
        elif function is F.dropout:
            return self._dropout(*args, **kwargs)
        return function(*args, **kwargs)

    def _run(self, function: Callable[..., Any], args: tuple, kwargs: Mapping[str, Any]) -> Any:
        """Call a cheap function and note it."""
        if function in FLOAT32:
            args = self._cast(args, to_half=False)
        self.saved = {}
        result = function(*args, **kwargs)
        if function is F.batch_norm and (args[5] if len(args) > 5 else kwargs.get('training')):
            args = args[0], None, None, *args[3:]  # its statistics are updated once
        # A crop is smaller than what it would be recomputed of: it is stored.
        if function is not F.pad or result.numel() >= args[0].numel():
            self._note(function, args, kwargs, result)
        self.saved = None
        return result

    def _dropout(
        self, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        """Dropout as a product with noise: the noise is stored, the product recomputed."""
        # CUDA's kernel scales half precision by a factor in float32, which noise would round.
        rounded = x.device.type != 'cpu' and x.dtype in (torch.float16, torch.bfloat16)
        if not training or inplace or p == 0.0 or rounded:
            return F.dropout(x, p, training, inplace)
        noise = F.dropout(torch.ones_like(x), p)  # draws the numbers that x would
        return self._run(Tensor.mul, (x, noise), {})

    def pack(self, tensor: Tensor) -> _Saved:
        """What autograd is to store of a tensor."""
        with torch._C.DisableTorchFunction():
            output = self._output(tensor)
            if output is not None:
                output.call.add_user()
                return _Saved(output)
            saved = _Saved(tensor)
            if self.saved is not None and _has_storage(tensor):
                self.saved.setdefault(_identity(tensor), []).append(saved)
            return saved

    def _note(
        self, function: Callable[..., Any], args: tuple, kwargs: Mapping[str, Any], result: Any
    ) -> None:
        """Note how the outputs of a call were made that lie in memory of their own."""
        results = result if isinstance(result, tuple) else (result,)
        # Autograd is off inside the forward of a torch.autograd.Function, whose outputs need it.
        # Nor do patches of an image, which the norm behind them stores for its own gradient.
        noted = function in CHEAP_OPS or not torch.is_grad_enabled()
        if not noted and not any(getattr(r, 'requires_grad', False) for r in results):
            return
        for key in [key for key, made in self.made.items() if made.storage.expired()]:
            del self.made[key]  # and with it the inputs of calls that nobody needs
        given = {_identity(a) for a in _flat(args, kwargs) if _has_storage(a)}
        call = None
        for index, tensor in enumerate(results):
            if not _has_storage(tensor) or _identity(tensor) in given:
                continue
            if call is None:
                call = _Call(
                    getattr(function, '__wrapped__', function)
                    if function in CHEAP_OPS
                    else function,
                    _mapped(self._source, args),
                    {name: _mapped(self._source, value) for name, value in kwargs.items()},
                    _autocast(tensor),
                )
            made = self.made[_identity(tensor)] = _Made(call, index, tensor)
            for saved in (self.saved or {}).get(_identity(tensor), ()):
                saved.source = _Output(made, saved.source)
                call.add_user()

    def _cast(self, args: tuple, *, to_half: bool) -> tuple:
        """Cast as autocast is about to, so that the casts' results are recomputed as well."""
        autocast = _autocast(args[0]) if args else None
        if autocast is None or not (to_half or autocast[0] == 'cuda'):
            return args
        before, after = (torch.float32, autocast[1])[:: 1 if to_half else -1]

        def cast(arg: Any) -> Any:
            # Stored in half precision takes less than the float32 that it would be recomputed of.
            known = isinstance(arg, Tensor) and (not to_half or self._output(arg) is not None)
            return self._run(Tensor.to, (arg, after), {}) if known and arg.dtype == before else arg

        return tuple(map(cast, args))

    def _source(self, arg: Any) -> Any:
        if not isinstance(arg, Tensor):
            return arg
        return self._output(arg) or _Input(arg)

    def _output(self, tensor: Tensor) -> _Output | None:
        """How ``tensor`` can be recomputed; None where it cannot."""
        made = self.made.get(_identity(tensor)) if _has_storage(tensor) else None
        if made is None or made.version != tensor._version or made.dtype != tensor.dtype:
            return None
        return _Output(made, tensor)


def _has_storage(tensor: Any) -> bool:
    """Whether a tensor can be recognised by its storage, which some kinds do not have."""
    plain = type(tensor) in (Tensor, nn.Parameter)
    return plain and tensor.layout is torch.strided and not tensor.is_meta


def _identity(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _autocast(tensor: Tensor) -> tuple[str, torch.dtype] | None:
    """Device type and dtype of autocast, where it is on."""
    kind = tensor.device.type
    if not torch.amp.is_autocast_available(kind) or not torch.is_autocast_enabled(kind):
        return None
    return kind, torch.get_autocast_dtype(kind)


def _value_of(arg: Any) -> Any:
    return arg.value() if isinstance(arg, _Input | _Output) else arg


def _mapped(function: Callable[[Any], Any], arg: Any) -> Any:
    """Map ``arg``, or what it holds where it is a sequence, as tensors to concatenate are."""
    if isinstance(arg, tuple | list):
        return tuple(_mapped(function, part) for part in arg)
    return function(arg)


def _flat(args: tuple, kwargs: Mapping[str, Any]) -> Iterator[Any]:
    """Arguments one by one, those in sequences too."""
    for arg in (*args, *kwargs.values()):
        yield from arg if isinstance(arg, tuple | list) else (arg,)
