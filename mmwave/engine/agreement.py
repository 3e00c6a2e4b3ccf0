"""Processes of one run that must agree: on the checkpoint, on its contents, on where they start.

A run over several machines reads config, weights and checkpoint once a process, each from its own
disk. Where these differ, DistributedDataParallel averages the gradients of different models without
a word. Every function here is to be called by all processes of a run together, and raises in all of
them or in none: nobody is left behind in a collective operation.
"""

import hashlib
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import mmengine
import torch
from mmengine.dist import all_gather_object, broadcast_object_list, get_rank, get_world_size
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

import mmwave
from mmwave.engine.model_wrapper import unwrapped
from mmwave.engine.training_state import averaged_models
from mmwave.errors import UserError, printable, printable_path

_T = TypeVar('_T')
_MOST = 4000  # characters of a message of another process


class PeerError(UserError):
    """Another process of the run has failed; the message is its own."""


def from_first(find: Callable[[], _T]) -> _T:
    """Return what ``find`` returns in the first process, which alone calls it.

    Raises:
        UserError: in every process, where the first one's ``find`` raises; there it is its own.
    """
    if get_world_size() == 1:
        return find()
    found: list[Any] = [None, None]
    own: Exception | None = None
    if get_rank() == 0:
        try:
            found[0] = find()
        except Exception as error:  # whatever it is, the others must not wait for this process
            own = error
            found[1] = str(error) if isinstance(error, UserError) else f'{_who()}: {error!r}'
    broadcast_object_list(found)
    if own is not None:
        raise own
    if found[1] is not None:
        raise UserError(found[1])
    return found[0]


@contextmanager
def together() -> Iterator[None]:
    """End every process where one of them fails inside of the block.

    The block must hold no collective operations, in which the others would wait for the one that
    failed.

    Raises:
        PeerError: in those that did not fail; the message names rank, host and reason.
    """
    own: Exception | None = None
    try:
        yield
    except Exception as error:  # whatever it is, the others must not wait for this process
        own = error
    told = None
    if own is not None:
        kind = '' if isinstance(own, UserError) else f'{type(own).__name__}: '
        told = f'{_who()}: {kind}{own}'
    failed = [text for text in _gathered(told) if text is not None]
    if own is not None:
        raise own
    if failed:
        raise PeerError(printable(' '.join(failed[0].split()), _MOST))


def check_file(path: str | None) -> None:
    """Check that every process finds the checkpoint that the first one has found.

    Args:
        path: the same in all processes; an address is left to its backend.

    Raises:
        UserError: naming the hosts that lack it.
    """
    if path is None or '://' in path or get_world_size() == 1:
        return
    missing = [who for who in _gathered(None if os.path.isfile(path) else _where()) if who]
    if missing:
        raise UserError(
            f'{printable_path(path)} is not on {", ".join(dict.fromkeys(missing))}: the processes '
            'of a run must read the same checkpoint, so share the folder between the machines, or '
            'copy the file to the same path on each'
        )


def load_together(runner: Runner) -> None:
    """Have all processes load the same checkpoint, or end together.

    Args:
        runner: not yet trained or tested; what it loads is settled.
    """
    check_file(runner._load_from)
    load = runner.load_or_resume

    def load_or_resume() -> None:
        with together():
            load()

    runner.load_or_resume = load_or_resume


class State(NamedTuple):
    """Where one process is about to start, and who it is.

    Attributes:
        who: rank and host.
        progress: epoch and iteration.
        weights: a digest of all weights.
        config: that of the chosen config's text.
        versions: of the libraries that compute.
    """

    who: str
    progress: tuple[int, int]
    weights: str
    config: str
    versions: str


def check_start(runner: Runner) -> list[str]:
    """Compare where the processes start: epoch, iteration, weights, averaged weights too.

    Reading and hashing takes about a second for a billion bytes of weights, once a run.

    Args:
        runner: whose checkpoint is loaded.

    Returns:
        Warnings: of configs and versions that differ, or why weights were not compared.

    Raises:
        UserError: where epoch, iteration or weights differ.
    """
    if get_world_size() == 1:
        return []
    lines = []
    tensors = _tensors(runner)
    if _is_sharded(runner.model):
        lines.append('every process holds a shard of the model: weights were not compared')
        tensors = {}
    digests = {name: _digest(tensor) for name, tensor in tensors.items()}
    states = _gathered(
        State(
            who=_who(),
            progress=(_count(runner, 'epoch'), _count(runner, 'iter')),
            weights=_hash(repr(sorted(digests.items())).encode()),
            config=_hash(runner.cfg.pretty_text.encode(errors='replace')),
            versions=_versions(),
        )
    )
    _check_progress(states)
    if len({state.weights for state in states}) > 1:
        _refuse_weights(states, _gathered(digests))
    for name, what in (('config', 'another config'), ('versions', 'other versions')):
        others = _others([getattr(state, name) for state in states])
        if others:
            told = f' ({states[others[0]].versions})' if name == 'versions' else ''
            lines.append(
                f'{_named(states, others)} runs {what}{told} than {states[0].who}'
                f'{f" ({states[0].versions})" if told else ""}'
            )
    return lines


def _check_progress(states: Sequence[State]) -> None:
    others = _others([state.progress for state in states])
    if others:
        (epoch, step), (epoch_, step_) = states[0].progress, states[others[0]].progress
        raise UserError(
            f'the processes do not go on from the same point: {states[0].who} from epoch {epoch}, '
            f'iteration {step}, {_named(states, others)} from epoch {epoch_}, iteration {step_}: '
            f'{_CURE}'
        )


def _refuse_weights(states: Sequence[State], digests: Sequence[Mapping[str, str]]) -> None:
    others = _others([state.weights for state in states])
    mine, theirs = digests[0], digests[others[0]]
    names = [name for name in {**mine, **theirs} if mine.get(name) != theirs.get(name)]
    raise UserError(
        f'the processes do not start from the same weights: {_named(states, others)} has others '
        f'than {states[0].who} in {len(names)} of {len(mine)} tensors, first in '
        f'{printable(names[0])}: {_CURE}'
    )


_CURE = (
    'give all machines the same files, in a shared folder or as copies (work folder, load_from, '
    'pretrained weights)'
)


def _others(values: Sequence[Any]) -> list[int]:
    """Return the ranks whose value is not the first one's."""
    return [rank for rank, value in enumerate(values) if value != values[0]]


def _named(states: Sequence[State], ranks: Sequence[int]) -> str:
    named = ', '.join(states[rank].who for rank in ranks[:4])
    return named if len(ranks) <= 4 else f'{named} and {len(ranks) - 4} more'


def _gathered(value: _T) -> list[_T]:
    return all_gather_object(value) if get_world_size() > 1 else [value]


def _who() -> str:
    return f'rank {get_rank()} on {_where()}'


def _where() -> str:
    """Return this machine's name and folder, by which machines without shared folders are told."""
    return f'{printable(platform.node())} (in {printable_path(os.getcwd())})'


def _versions() -> str:
    return (
        f'torch {torch.__version__}, mmengine {mmengine.__version__}, mmwave {mmwave.__version__}'
    )


def _count(runner: Runner, name: str) -> int:
    loop = runner._train_loop
    return getattr(loop, name, 0)  # a test has no train loop


def _tensors(runner: Runner) -> dict[str, Tensor]:
    """Return all that a checkpoint stores of the model, by name; averaged weights too."""
    tensors = dict(unwrapped(runner.model, from_tta=False).state_dict())
    for index, averaged in enumerate(averaged_models(runner)):
        tensors |= {f'average {index}: {k}': v for k, v in averaged.state_dict().items()}
    return {name: value for name, value in tensors.items() if isinstance(value, Tensor)}


def _is_sharded(model: nn.Module) -> bool:
    """Return whether processes hold parts of the weights, as FSDP and DeepSpeed have it."""
    kinds = {kind.__name__ for kind in type(model).__mro__}
    if kinds & {'FullyShardedDataParallel', 'DeepSpeedEngine', 'MMDeepSpeedEngineWrapper'}:
        return True
    return any(isinstance(p, DTensor) for p in model.parameters())


def _digest(tensor: Tensor) -> str:
    values = tensor.detach().cpu().contiguous()
    content = values.reshape(-1).view(torch.uint8).numpy() if values.numel() else b''
    return _hash(content, f'{tensor.dtype} {tuple(tensor.shape)}'.encode())


def _hash(*parts: Any) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:16]
