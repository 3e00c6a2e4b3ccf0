"""Settings of a config replaced by options, each checked against the config before it is merged.

mmengine merges whatever it is given: a misspelt key makes a new setting that nothing reads, and a
variable of the config file is replaced after its value went into the settings.
"""

from __future__ import annotations

import copy
import inspect
import logging
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import cached_property, lru_cache
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.utils import import_modules_from_strings

from mmwave.errors import printable

from .arguments import Part, accepts_text, did_you_mean, no_such_setting, parts
from .imports import missing_module
from .usage import UsageError
from .values import Typed, read

_MISSING = object()
# What the libraries and we read of a config beside the arguments of mmengine's Runner.
_READ_BESIDE = (
    *('activation_checkpointing', 'compile', 'custom_imports', 'data_check'),
    *('efficient_conv_bn_eval', 'find_unused_parameters', 'model_wrapper_cfg', 'sync_bn'),
    *('tta_model', 'tta_pipeline'),
)
_SECTIONS = {
    'auto_scale_lr': ('base_batch_size', 'enable'),
    'env_cfg': ('cudnn_benchmark', 'dist_cfg', 'mp_cfg', 'resource_limit'),
    'randomness': ('deterministic', 'diff_rank_seed', 'seed'),
}
_LOADER = re.compile(r'(train|val|test)_dataloader')
_LOADER_BESIDE = ('batch_sampler', 'dataset', 'disable_subprocess_warning', 'num_batch_per_epoch')
# Arguments that are a text at times, which the libraries do not always annotate.
_TEXT_FOR_NUMBER = ('add_extra_convs', 'arch', 'fp16', 'loss_scale')
_TEXT_FOR_DICT = ('data_prefix', 'loss_scale')
_FREE = ('custom_keys',)  # dicts whose keys are not names of settings
_MOST = 5


def merge(cfg: Config, options: Mapping[str, Any]) -> None:
    """Replace settings of a config.

    Args:
        cfg: changed in place.
        options: dotted keys and values; a :class:`Typed` one is read in the light of the value that
            it replaces.

    Raises:
        UsageError: where neither the config nor the class there has such a key (the nearest is
            told), an index is past the end of its list, a value cannot replace one of its type, or
            a variable of the config file is set, whose value the settings hold already.
    """
    present = {key: _present(cfg, key, options) for key in options}
    values = {
        key: _replacing(_value(key, value, present[key]), present[key])
        for key, value in options.items()
    }
    merged = Config(copy.deepcopy(cfg._cfg_dict))
    try:
        merged.merge_from_dict(copy.deepcopy(values))
    except (AttributeError, KeyError, TypeError) as error:
        raise UsageError(f'--cfg-options do not fit together: {printable(error)}') from error
    context = _Context(cfg, merged)
    for key, value in values.items():
        if _replaced(key, options):
            continue
        for name, inner, old in _settings(key, value, present[key]):
            context.check_key(name)
            if old is not _MISSING:
                context.check_type(name, inner, old)
    _check_variables(cfg, merged, values)
    cfg.merge_from_dict(values)
    if any(key.partition('.')[0] == 'custom_imports' for key in values):
        _import(cfg)


def unused_settings(cfg: Config) -> list[str]:
    """Return a line for each setting of a config file that is nearly one that a run reads."""
    lines = []
    known = top_level() - {'tta_pipeline'}  # near 'test_pipeline', a variable of most configs
    for name in cfg:
        near = get_close_matches(name, known, n=1, cutoff=0.85)
        if name in top_level() or not near or near[0] in cfg or any(_holders(cfg, name)):
            continue
        lines.append(f'{name}: nothing reads this setting; did you mean {near[0]}?')
    return lines


@lru_cache(maxsize=1)
def top_level() -> frozenset[str]:
    """Return the names of the settings at the top of a config that a run reads."""
    from mmengine.runner import Runner

    names = set(inspect.signature(Runner.__init__).parameters) - {'self', 'cfg'}
    return frozenset(names.union(_READ_BESIDE))


def _replaced(key: str, options: Mapping[str, Any]) -> bool:
    """Return whether other options replace what a key leads through."""
    names = key.split('.')
    above = ['.'.join(names[:depth]) for depth in range(1, len(names))]
    return names[-1] == '_delete_' or any(
        holder in options or options.get(f'{holder}._delete_') for holder in above
    )


def _replacing(value: Any, present: Any) -> Any:
    """Return a value that mmengine puts in place of None or a list, where it is a dict."""
    if not isinstance(value, Mapping) or present is _MISSING or '_delete_' in value:
        return value
    if isinstance(present, Mapping):
        return {name: _replacing(v, present.get(name, _MISSING)) for name, v in value.items()}
    if isinstance(present, list) and all(str(name).isdigit() for name in value):
        return value  # some entries of the list
    return {**value, '_delete_': True}


def _settings(key: str, value: Any, present: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield what is set: dotted key, value and present one; of a dict that is merged each key."""
    if isinstance(value, Mapping) and isinstance(present, Mapping) and '_delete_' not in value:
        for name, inner in value.items():
            yield from _settings(f'{key}.{name}', inner, present.get(name, _MISSING))
    else:
        yield key, value, present


def _import(cfg: Config) -> None:
    try:
        import_modules_from_strings(**cfg.custom_imports)
    except ImportError as error:
        raise missing_module(cfg.filename or '', error) from error
    except TypeError as error:
        raise UsageError(f'custom_imports: {printable(error)}') from error


def _value(key: str, value: Any, present: Any) -> Any:
    if not isinstance(value, Typed):
        return value
    value = read(str(value), key, None if present is _MISSING else present)
    if isinstance(value, float) and type(present) is int and value.is_integer():
        return int(value)
    return value


def _present(cfg: Config, key: str, options: Mapping[str, Any]) -> Any:
    """Return the value at a dotted key, ``_MISSING`` where there is none.

    Raises:
        UsageError: where the key leads past a list's end or through what has no settings.
    """
    node: Any = cfg._cfg_dict
    names = key.split('.')
    for depth, name in enumerate(names):
        here = printable('.'.join(names[:depth]))
        if isinstance(node, Mapping):
            if name not in node:
                return _MISSING
            node = node[name]
        elif _replaced(key, options):
            return _MISSING
        elif isinstance(node, list):
            if not name.isdigit() or int(name) >= len(node):
                accepted = f'an index from 0 to {len(node) - 1}' if node else 'the whole list'
                raise UsageError(
                    f'{printable(key)}: {here} is a list of {len(node)}, which has no '
                    f'{printable(name)!r}: accepted is {accepted}'
                )
            node = node[int(name)]
        else:
            raise UsageError(
                f'{printable(key)}: {here} is {printable(repr(node))}, of which no part can be '
                f'set: give all of {here}'
            )
    return node


class _Context:
    """A config before and after options are merged, and the objects that its settings are of."""

    def __init__(self, before: Config, after: Config) -> None:
        self.before = before
        self.after = after

    @cached_property
    def parts(self) -> dict[str, Part]:
        return {part.key: part for part in parts(self.after)}

    def check_key(self, key: str) -> None:
        """Raise :class:`UsageError` where nothing reads a setting; warn where it is unlikely."""
        node: Any = self.before._cfg_dict
        names = key.split('.')
        for depth, name in enumerate(names):
            if isinstance(node, Mapping) and name not in node:
                self._check_new('.'.join(names[:depth]), name, node)
                return
            node = node[int(name) if isinstance(node, list) else name]

    def _check_new(self, holder: str, name: str, siblings: Mapping[str, Any]) -> None:
        """Check a name that a holder does not have yet, by what the holder accepts."""
        if holder == '':
            if name not in top_level():
                near = did_you_mean(name, {*top_level(), *siblings})
                raise UsageError(
                    f'{printable(name)}: no such setting{near or self._elsewhere(name)}'
                )
            return
        part = self.parts.get(holder)
        accepted = part.accepted() if part is not None else _section(holder)
        if accepted is not None and name not in accepted:
            if part is not None:
                raise UsageError(no_such_setting(part, name, accepted))
            near = did_you_mean(name, accepted, f'{holder}.')
            shown = near or f'; {holder} has {", ".join(sorted(accepted))}'
            raise UsageError(f'{holder}.{printable(name)}: no such setting{shown}')
        if accepted is None and holder.rpartition('.')[2] not in _FREE:
            near = get_close_matches(name, siblings, n=1, cutoff=0.85)
            if near:
                _warn(
                    f'{holder}.{printable(name)} is a new setting; did you mean {holder}.{near[0]}?'
                )

    def _elsewhere(self, name: str) -> str:
        """Return a remark on the settings of this name further down."""
        found = [key for key, _ in _leaves(self.before._cfg_dict) if key.endswith(f'.{name}')]
        found = [key for key in found if key.partition('.')[0] in top_level()]
        if not found:
            return f'; the config has {", ".join(sorted(set(self.before) & top_level()))}'
        return f'; did you mean {_some(found)}?'

    def check_type(self, key: str, value: Any, present: Any) -> None:
        """Raise :class:`UsageError` where a value cannot serve in place of the present one."""
        holder, _, name = key.rpartition('.')
        shown = f'{printable(key)}={printable(value)}'
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if isinstance(present, Mapping):
            refused = is_number or isinstance(value, str)
            if refused and name not in _TEXT_FOR_DICT and not self._may_be_text(holder, name):
                raise UsageError(
                    f'{shown}: expected a dict as {_brief(present)}, got {_kind(value)}; single '
                    f'settings are {key}.NAME=VALUE'
                )
        elif isinstance(present, int | float) and isinstance(value, str):
            if name not in _TEXT_FOR_NUMBER and not self._may_be_text(holder, name):
                raise UsageError(
                    f'{shown}: expected {_kind(present)} as {present!r}, got the text {value!r}'
                )
        elif isinstance(present, list | tuple) and _opens_bracket(value):
            raise UsageError(f'{shown}: the brackets of this list do not match')

    def _may_be_text(self, holder: str, name: str) -> bool:
        part = self.parts.get(holder)
        return part is not None and bool(accepts_text(part.kind(), name))


def _opens_bracket(value: Any) -> bool:
    return isinstance(value, str) and value.lstrip().startswith(('[', '(', '{'))


def _section(holder: str) -> frozenset[str] | None:
    """Return the settings of a part of a config without a class of its own; None: not known."""
    if _LOADER.fullmatch(holder):
        from torch.utils.data import DataLoader

        names = set(inspect.signature(DataLoader.__init__).parameters) - {'self'}
        return frozenset(names.union(_LOADER_BESIDE))
    return frozenset(_SECTIONS[holder]) if holder in _SECTIONS else None


def _check_variables(cfg: Config, merged: Config, values: Mapping[str, Any]) -> None:
    """Check that options do not set what the config file alone reads, and has read."""
    for key in values:
        name, _, rest = key.partition('.')
        if name in top_level() or merged[name] == cfg[name]:
            continue
        sure, maybe = _holders(cfg, name)
        left = [holder for holder in sure if not _is_given(holder, values)]
        if left:
            inner = [f'{holder}.{rest}' if rest else holder for holder in left]
            raise UsageError(
                f'{printable(key)} has no effect: {name} is a variable of the config file, whose '
                f'settings have got its value already; set {_some(inner)} instead'
            )
        if not sure:
            equal = [holder for holder in maybe if not _is_given(holder, values)]
            also = f'; {_some(equal)} had the same value and keep it' if equal else ''
            _warn(f'{printable(key)}: no part of a run is known to read {name}{also}')


def _holders(cfg: Config, name: str) -> tuple[list[str], list[str]]:
    """Return the settings that got their value from a variable of the config file.

    Returns:
        Those that surely did, by their name, or by a value that does not recur by chance (a path, a
        pipeline), and those that may have, by an equal number or word.
    """
    value = cfg[name]
    equal = []
    for key, other in _leaves({k: cfg[k] for k in cfg if k in top_level()}):
        is_below = isinstance(value, str) and '/' in value and str(other).startswith(value)
        if type(other) is type(value) and (other == value or is_below):
            equal.append(key)
    same_name = [key for key in equal if key.rpartition('.')[2] == name]
    if same_name or value is None or isinstance(value, bool):
        return same_name, []
    telling = '/' in value if isinstance(value, str) else isinstance(value, list | Mapping)
    return (equal, []) if telling and len(value) > 1 else ([], equal)


def _is_given(key: str, values: Mapping[str, Any]) -> bool:
    names = key.split('.')
    above = {'.'.join(names[:depth]) for depth in range(1, len(names) + 1)}
    return any(given in above or given.startswith(f'{key}.') for given in values)


def _leaves(node: Any, key: str = '') -> Iterator[tuple[str, Any]]:
    """Yield every setting below a node, dicts and lists themselves before what is in them."""
    items: Any = ()
    if isinstance(node, Mapping):
        items = node.items()
    elif isinstance(node, list | tuple):
        items = enumerate(node)
    for name, value in items:
        below = f'{key}.{name}' if key else str(name)
        yield below, value
        yield from _leaves(value, below)


def _some(keys: list[str]) -> str:
    more = f' and {len(keys) - _MOST} more' if len(keys) > _MOST else ''
    return ', '.join(keys[:_MOST]) + more


def _kind(value: Any) -> str:
    kinds = {'str': 'a text', 'int': 'a number', 'float': 'a number', 'bool': 'True or False'}
    return kinds.get(type(value).__name__, f'a {type(value).__name__}')


def _brief(settings: Mapping[str, Any]) -> str:
    return printable(dict(settings), 60)


def _warn(line: str) -> None:
    print_log(line, logger='current', level=logging.WARNING)
