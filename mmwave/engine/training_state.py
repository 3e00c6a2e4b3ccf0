"""The training state in a checkpoint, checked against what a run has built before it is loaded.

mmengine loads a state unchecked and fails late where one does not fit, in a traceback or in
silence. Every check here raises :class:`UserError` with what is wrong.
"""

import inspect
import math
import pickle
from collections import defaultdict
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim import OptimWrapperDict
from mmengine.runner import Runner
from torch import Tensor, nn

from mmwave.checkpoint import brief, check_weights
from mmwave.errors import UserError

HUB_PARTS = ('log_scalars', 'runtime_info', 'resumed_keys')
_MOST = 10**12  # epochs or iterations: what is left of a training in seconds is a date still
_SEEDS = 2**32  # NumPy's
_ANOTHER = 'was it written with another config?'
_SIZES = (2, 3, 2, 3, 2, 3)  # of a parameter that an optimizer is tried on


def check_progress(meta: Any, max_epochs: int | None, max_iters: int | None) -> None:
    """Check the counters, the seed and the data set's description in a checkpoint's ``meta``.

    Args:
        meta: of the checkpoint.
        max_epochs: where the run counts epochs, how many it has.
        max_iters: where it counts iterations, how many it has.
    """
    for name, most in (('epoch', max_epochs), ('iter', max_iters)):
        value = meta.get(name)
        if not is_count(value):
            raise UserError(f'its meta.{name} is {brief(value)}, expected a whole number from 0')
        if most is not None and value > most:
            raise UserError(f'it is at {name} {value}, and the config trains {most}')
    seed = meta.get('seed')
    if seed is not None and (type(seed) is not int or not 0 <= seed < _SEEDS):
        raise UserError(f'its meta.seed is {brief(seed)}, expected a whole number below 2**32')
    try:
        pickle.dumps(meta.get('dataset_meta'))  # how mmengine compares them
    except Exception as error:  # of whatever is in there
        raise UserError(f'its meta.dataset_meta cannot be compared: {brief(str(error))}') from error


def check_hub(hub: Any) -> None:
    """Check the logged scalars and the other information in a checkpoint's ``message_hub``."""
    if not isinstance(hub, dict):
        raise UserError(f'its message_hub is of type {_kind(hub)}, expected a dict')
    for part in HUB_PARTS:
        held = hub.get(part)
        if not isinstance(held, dict):
            raise UserError(f'its message_hub.{part} is of type {_kind(held)}, expected a dict')
        for name in held:
            if not isinstance(name, str) or not name.isprintable():
                raise UserError(f'its message_hub.{part} has the name {brief(name)}')
    for name, history in hub['log_scalars'].items():
        if not isinstance(history, HistoryBuffer) or not _is_history(history):
            raise UserError(f'its message_hub.log_scalars holds no history of numbers as {name!r}')
    for name, value in hub['runtime_info'].items():
        if name.startswith('best_score') and not is_number(value):
            raise UserError(
                f'its message_hub.runtime_info.{name} is {brief(value)}, expected a number'
            )


def check_optimizer(given: Any, wrapper: Any) -> None:
    """Check an optimizer's state against the optimizer that is to take it over.

    Args:
        given: the checkpoint's.
        wrapper: mmengine's, of one optimizer or of several.
    """
    if not isinstance(given, dict):
        raise UserError(f'its optimizer state is of type {_kind(given)}, expected a dict')
    if isinstance(wrapper, OptimWrapperDict):
        strange = [name for name in given if name not in wrapper.optim_wrappers]
        if strange:
            raise UserError(f'its optimizer is of {brief(strange)}, unknown here: {_ANOTHER}')
        for name, state in given.items():
            check_optimizer(state, wrapper.optim_wrappers[name])
        return
    params = _check_groups(given.get('param_groups'), wrapper.optimizer)
    _check_moments(given.get('state'), params, wrapper.optimizer)
    scaler = getattr(wrapper, 'loss_scaler', None)
    if scaler is not None and 'loss_scaler' in given:
        wanted = scaler.state_dict().keys()
        scales = given['loss_scaler']
        if not isinstance(scales, dict) or not all(is_number(scales.get(k)) for k in wanted):
            raise UserError("the state of its optimizer's loss_scaler has no numbers")
    base = given.get('base_param_settings')
    if base is not None and not (isinstance(base, dict) and is_number(base.get('lr'))):
        raise UserError("its optimizer's base_param_settings name no lr")


def check_schedulers(given: Any, schedulers: Any) -> None:
    """Check the states of parameter schedulers against those that are to take them over."""
    if isinstance(schedulers, dict):
        if not isinstance(given, dict) or given.keys() != schedulers.keys():
            raise UserError(f'its param_schedulers are not of {list(schedulers)}: {_ANOTHER}')
        for name, some in schedulers.items():
            check_schedulers(given[name], some)
        return
    if not isinstance(given, list) or len(given) != len(schedulers):
        count = len(given) if isinstance(given, list) else _kind(given)
        raise UserError(f'its param_schedulers are {count}, here are {len(schedulers)}: {_ANOTHER}')
    for index, (state, scheduler) in enumerate(zip(given, schedulers, strict=True)):
        kind = type(scheduler).__name__
        own = scheduler.state_dict()
        if not isinstance(state, dict) or state.keys() != own.keys():
            raise UserError(f'its param_schedulers[{index}] is no state of a {kind}: {_ANOTHER}')
        for name, mine in own.items():
            if not _alike(mine, state[name]):
                raise UserError(
                    f'its param_schedulers[{index}].{name} is {brief(state[name])}, which does '
                    f'not fit a {kind}: {_ANOTHER}'
                )


def check_average(given: Any, weights: Any, averaged: nn.Module) -> None:
    """Check averaged weights against the averaging model that is to take them over.

    Args:
        given: the checkpoint's ``ema_state_dict``.
        weights: its ``state_dict``, which mmengine exchanges them with.
        averaged: the model.
    """
    own = averaged.state_dict()
    if not isinstance(given, dict) or not isinstance(weights, dict) or given.keys() != own.keys():
        raise UserError(f'its ema_state_dict is of another model: {_ANOTHER}')
    for name, tensor in given.items():
        if not isinstance(tensor, Tensor) or tensor.shape != own[name].shape:
            raise UserError(f'its ema_state_dict has another {name}: {_ANOTHER}')
        if name.startswith('module.') and name.removeprefix('module.') not in weights:
            raise UserError(f'its ema_state_dict has {name}, its state_dict has not')


def check_exchange(given: Any, weights: Mapping[str, Tensor]) -> None:
    """Check averaged weights that mmengine exchanges with those of the model, when it is to.

    Args:
        given: a checkpoint's ``ema_state_dict``; ``module.NAME`` is exchanged with ``NAME``.
        weights: of the same checkpoint.
    """
    if not isinstance(given, dict) or not all(isinstance(v, Tensor) for v in given.values()):
        raise UserError(f'its ema_state_dict is of type {_kind(given)}, expected one of tensors')
    check_weights(given)
    for name, tensor in given.items():
        if not name.startswith('module.'):
            continue
        other = weights.get(name.removeprefix('module.'))
        if other is None:
            raise UserError(f'its ema_state_dict has {name}, its state_dict has not')
        if other.shape != tensor.shape or other.dtype.is_floating_point != (
            tensor.dtype.is_floating_point
        ):
            raise UserError(
                f'its ema_state_dict has {name} of {tuple(tensor.shape)} and {tensor.dtype}, its '
                f'state_dict of {tuple(other.shape)} and {other.dtype}'
            )


def averaged_models(runner: Runner) -> list[nn.Module]:
    """Return the models in which hooks store averages of the weights, such as ``EMAHook``'s."""
    models = (getattr(hook, 'ema_model', None) for hook in runner.hooks)
    return [model for model in models if isinstance(model, nn.Module)]


def is_count(value: Any) -> bool:
    """Return whether ``value`` is a number of epochs or iterations."""
    return type(value) is int and 0 <= value <= _MOST


def is_number(value: Any) -> bool:
    """Return whether ``value`` is one real number and not NaN."""
    if isinstance(value, Tensor):
        return value.numel() == 1 and not value.is_complex() and not bool(value.isnan())
    if not isinstance(value, Real) or isinstance(value, bool):
        return False
    try:
        return not math.isnan(value)
    except OverflowError:  # an integer that no float is as large as
        return False


def _is_history(history: HistoryBuffer) -> bool:
    arrays = history.data
    numeric = all(
        isinstance(a, np.ndarray) and a.ndim == 1 and a.dtype.kind in 'iuf' for a in arrays
    )
    # One without values fails when it is logged.
    same = numeric and 0 < len(arrays[0]) == len(arrays[1])
    return same and is_count(history.max_length) and history.max_length > 0


def _check_groups(groups: Any, optimizer: torch.optim.Optimizer) -> dict[Any, Tensor]:
    """Check the settings of parameter groups; return the parameters by the state's ids."""
    own = optimizer.param_groups
    if not isinstance(groups, list) or not all(isinstance(g, dict) for g in groups):
        raise UserError('its optimizer state has no param_groups')
    if len(groups) != len(own):
        raise UserError(
            f'its optimizer has {len(groups)} parameter groups, here are {len(own)}: {_ANOTHER}'
        )
    params: dict[Any, Tensor] = {}
    for index, (group, mine) in enumerate(zip(groups, own, strict=True)):
        ids = group.get('params')
        if not isinstance(ids, list) or not all(map(is_count, ids)):
            raise UserError(f'its optimizer.param_groups[{index}] lists no parameters')
        if len(ids) != len(mine['params']):
            raise UserError(
                f'its optimizer.param_groups[{index}] has {len(ids)} parameters, here are '
                f'{len(mine["params"])}: {_ANOTHER}'
            )
        params.update(zip(ids, mine['params'], strict=True))
        for name, default in optimizer.defaults.items():
            if not _is_setting(default, group.get(name)):
                raise UserError(
                    f'its optimizer.param_groups[{index}].{name} is {brief(group.get(name))}, '
                    f'which does not fit {type(optimizer).__name__}: {_ANOTHER}'
                )
        if reason := _refused(optimizer, group):
            raise UserError(f'its optimizer.param_groups[{index}] is refused: {brief(reason)}')
    if len(params) != sum(len(group['params']) for group in groups):
        raise UserError('its optimizer.param_groups list parameters twice')
    return params


def _is_setting(default: Any, given: Any) -> bool:
    if default is None or isinstance(default, bool):
        return given is None or isinstance(given, bool)
    if isinstance(default, tuple | list):
        same = isinstance(given, tuple | list) and len(given) == len(default)
        return same and all(map(_is_setting, default, given))
    if is_number(default):
        return is_number(given) and math.isfinite(given)
    return type(given) is type(default)


def _refused(optimizer: torch.optim.Optimizer, group: Mapping[str, Any]) -> str:
    """Return why an optimizer refuses the settings of a group, empty where it accepts them."""
    kind = type(optimizer)
    known = inspect.signature(kind).parameters
    settings = {name: group[name] for name in optimizer.defaults if name in known}
    try:
        kind([nn.Parameter(torch.zeros(1))], **settings)
    except ValueError as error:
        return str(error)
    except Exception:  # optimizers of others, built in another way
        return ''
    return ''


def _check_moments(
    state: Any, params: Mapping[Any, Tensor], optimizer: torch.optim.Optimizer
) -> None:
    """Check what an optimizer has accumulated for every parameter."""
    if not isinstance(state, dict):
        raise UserError(f'its optimizer.state is of type {_kind(state)}, expected a dict')
    samples: dict[int, dict[str, Any] | None] = {}
    for key, held in state.items():
        if key not in params or not isinstance(held, dict):
            raise UserError(f'its optimizer.state has the entry {brief(key)}: {_ANOTHER}')
        dims = params[key].dim()
        if dims not in samples:
            samples[dims] = _sample_of(optimizer, dims)
        sample = samples[dims]
        if sample is None or not held:
            continue
        if held.keys() != sample.keys():
            raise UserError(
                f'its optimizer.state[{key}] holds {brief(sorted(map(str, held)))}, '
                f'{type(optimizer).__name__} keeps {sorted(sample)}: {_ANOTHER}'
            )
        for name, mine in sample.items():
            if not _is_moment(mine, held[name], params[key]):
                raise UserError(
                    f'its optimizer.state[{key}].{name} does not fit a parameter of shape '
                    f'{tuple(params[key].shape)}: {_ANOTHER}'
                )


def _sample_of(optimizer: torch.optim.Optimizer, dims: int) -> dict[str, Any] | None:
    """Return what such an optimizer accumulates for a parameter, None where it cannot be tried."""
    param = nn.Parameter(torch.zeros(_SIZES[:dims]))
    param.grad = torch.zeros_like(param)
    kind = type(optimizer)
    try:
        twin = kind.__new__(kind)
        twin.__setstate__(
            {
                'defaults': dict(optimizer.defaults),
                'state': defaultdict(dict),
                'param_groups': [{**optimizer.param_groups[0], 'params': [param]}],
            }
        )
        twin.step()
        return dict(twin.state[param])
    except Exception:  # optimizers of others, which may want a closure or a GPU
        return None


def _is_moment(mine: Any, given: Any, param: Tensor) -> bool:
    if isinstance(mine, Tensor) and mine.shape == _SIZES[: param.dim()]:
        fits = isinstance(given, Tensor) and given.shape == param.shape
        # It is written in place: all of its values must be there.
        shared = fits and any(
            n > 1 and s == 0 for n, s in zip(given.shape, given.stride(), strict=True)
        )
        return fits and not shared and given.is_complex() == param.is_complex()
    if is_number(mine):  # steps, rates and their products
        return is_number(given) and 0 <= float(given) < math.inf
    return isinstance(given, type(mine))


def _alike(mine: Any, given: Any) -> bool:
    """Return whether ``given`` can be what became of a scheduler's attribute."""
    if mine is None:
        return given is None or is_number(given) or isinstance(given, str)
    if isinstance(mine, bool | str):
        return type(given) is type(mine)
    if is_number(mine):
        return is_number(given)
    if isinstance(mine, Sequence):
        same = isinstance(given, list | tuple) and len(given) == len(mine)
        return same and all(map(_alike, mine, given))
    if isinstance(mine, dict) and all(isinstance(key, str) for key in mine):
        same = isinstance(given, dict) and given.keys() == mine.keys()
        return same and all(_alike(mine[key], given[key]) for key in mine)
    if isinstance(mine, dict):  # milestones
        return isinstance(given, dict) and all(map(is_number, (*given, *given.values())))
    return type(given) is type(mine)


def _kind(value: Any) -> str:
    return type(value).__name__
