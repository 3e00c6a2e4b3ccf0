"""The mode that notes how the outputs of cheap functions are made."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .notes import Call, Input, Made, Output, Saved, flat, has_storage, mapped
from .policy import (
    ACTIVATIONS,
    CHEAP,
    CHEAP_OPS,
    COPIES,
    FLOAT32,
    MUL,
    PRODUCTS,
    WITHOUT_GRADIENT,
)


class Recorder(TorchFunctionMode):
    """Notes how the outputs of cheap functions are made, and stores the notes for autograd."""

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[int, Made] = {}
        """By the identity of the storage."""
        self.multiplies = False
        """Whether a multiplication is being called, other than dropout's."""
        self.saved: dict[int, list[Saved]] | None = None
        """What the cheap function that is being called stores: maybe its output, as softmax's."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in CHEAP:
            self.multiplies = function in MUL
            result = self._run(function, args, kwargs)
            self.multiplies = False
            return result
        if function in CHEAP_OPS:
            with self:  # for what is called inside
                result = function.__wrapped__(*args, **kwargs)
            self._note(function, args, kwargs, result)
            return result
        if function in PRODUCTS:
            args = self._cast(args, to_half=True)
            return getattr(function, '__wrapped__', function)(*args, **kwargs)
        if function is F.dropout:
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

    def pack(self, tensor: Tensor) -> Saved:
        """What autograd is to store of a tensor."""
        with torch._C.DisableTorchFunction():
            output = self._output(tensor)
            if output is not None:
                output.call.add_user()
                return Saved(output)
            saved = Saved(Input(tensor))
            if self.saved is not None and has_storage(tensor):
                self.saved.setdefault(identity(tensor), []).append(saved)
            return saved

    def _note(
        self, function: Callable[..., Any], args: tuple, kwargs: Mapping[str, Any], result: Any
    ) -> None:
        """Note how the outputs of a call were made that lie in memory of their own."""
        results = result if isinstance(result, tuple) else (result,)
        if function not in WITHOUT_GRADIENT and not any(
            getattr(r, 'requires_grad', False) for r in results
        ):
            return
        if any(has_storage(a) and a.is_inference() for a in flat(args, kwargs)):
            return  # autograd refuses to store these, and they have no versions
        if function in COPIES and self._is_smaller(results[0], function, args, kwargs):
            return
        for key in [key for key, made in self.made.items() if made.storage.expired()]:
            del self.made[key]  # and with it the inputs of calls that nobody needs
        given = {identity(a) for a in flat(args, kwargs) if has_storage(a)}
        call = None
        for index, tensor in enumerate(results):
            if not has_storage(tensor) or identity(tensor) in given:
                continue
            if call is None:
                call = Call(
                    function.__wrapped__ if function in CHEAP_OPS else function,
                    mapped(self._source, args),
                    {name: mapped(self._source, value) for name, value in kwargs.items()},
                    autocast_of(tensor),
                )
            made = self.made[identity(tensor)] = Made(call, index, tensor)
            for saved in (self.saved or {}).get(identity(tensor), ()):
                saved.source = Output(made, saved.source.tensor)
                call.add_user()

    def _is_smaller(
        self, copy: Tensor, function: Callable[..., Any], args: tuple, kwargs: Mapping[str, Any]
    ) -> bool:
        """Whether a copy takes less memory than what it would be recomputed from.

        As a copy of a view does, or one in half precision, where the whole is not stored anyway;
        and a crop, also of a copy.
        """

        def size(source: Tensor) -> int:
            if self._output(source) is None:
                return source.untyped_storage().nbytes()
            return source.nbytes if function is F.pad else 0

        return any(copy.nbytes < size(a) for a in flat(args, kwargs) if has_storage(a))

    def _cast(self, args: tuple, *, to_half: bool) -> tuple:
        """Cast as autocast is about to, so that the casts' results are recomputed as well."""
        kind, half = autocast_of(args[0]) if args else ('', None)
        if half is None or not (to_half or kind == 'cuda'):
            return args
        before, after = (torch.float32, half)[:: 1 if to_half else -1]

        def cast(arg: Any) -> Any:
            # Stored in half precision it is smaller than the float32 it would be recomputed from.
            known = isinstance(arg, Tensor) and (not to_half or self._output(arg) is not None)
            return self._run(Tensor.to, (arg, after), {}) if known and arg.dtype == before else arg

        return tuple(map(cast, args))

    def _source(self, arg: Any) -> Any:
        if not isinstance(arg, Tensor):
            return arg
        return self._output(arg) or Input(arg)

    def _output(self, tensor: Tensor) -> Output | None:
        """How ``tensor`` can be recomputed; None where it cannot."""
        made = self.made.get(identity(tensor)) if has_storage(tensor) else None
        if made is None or made.version != tensor._version or made.dtype != tensor.dtype:
            return None
        if self.multiplies and made.call.function in ACTIVATIONS:
            return None
        return Output(made, tensor)


def identity(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def autocast_of(tensor: Tensor) -> tuple[str, torch.dtype | None]:
    """Device type, empty where it has no autocast, and the dtype of autocast where it is on."""
    kind = tensor.device.type
    if not torch.amp.is_autocast_available(kind):
        return '', None
    return kind, torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
