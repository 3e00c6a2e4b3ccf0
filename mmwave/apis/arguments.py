"""What the classes that a config names accept, asked of their constructors without building them.

A misspelt ``type`` or argument would end a run with the libraries' traceback, after the model was
built. Only places of a config are looked at whose settings go to a constructor as they are: norms,
initializers and the like, which functions of the libraries take apart first, are left alone.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, Unpack, get_args, get_origin

from mmwave.errors import printable

from .usage import PreflightError

if TYPE_CHECKING:
    from mmengine.config import Config

_NO_ARGUMENTS = frozenset(('type', '_scope_', '_delete_'))
# Settings beside the arguments, which mmengine takes out before it builds.
_BESIDE = {
    'HOOKS': {'priority'},
    'LOOPS': {'by_epoch'},
    'OPTIM_WRAPPERS': {'constructor', 'optimizer', 'paramwise_cfg'},
    'PARAM_SCHEDULERS': {'convert_to_iter_based'},
}
# Parts of a model that are built from their settings as they are.
_MODEL_PART = re.compile(r'backbone|neck|(\w+_)?head|data_preprocessor|loss(_\w+)?|\w+_extractor')
_TASK_PART = re.compile(r'anchor_generator|assigner|bbox_coder|prior_generator')
_NESTED_TRANSFORMS = ('Compose', 'KeyMapper', 'RandomApply', 'RandomChoice', 'TestTimeAug')
_KINDS = ('cfg', 'dataloader', 'evaluator')
_LOOPS = {'train': 'EpochBasedTrainLoop', 'val': 'ValLoop', 'test': 'TestLoop'}
_SPLIT_OF = {f'{split}_{kind}': split for split in _LOOPS for kind in _KINDS}
_SPLIT_OF |= dict.fromkeys(('optim_wrapper', 'param_scheduler'), 'train')


class Part(NamedTuple):
    """Settings of one object.

    Attributes:
        key: where they are, as dotted key.
        settings: with or without ``type``.
        registry: name of mmengine's registry that the type is looked up in.
        scope: of the type.
        default: the type where the settings name none; None: they are no part without one.
    """

    key: str
    settings: Mapping[str, Any]
    registry: str
    scope: str
    default: str | None = None

    def kind(self) -> Any:
        """Return the class, or None where no such class is registered."""
        kind = self.settings.get('type', self.default)
        return _registered(kind, self.registry, self.scope) if isinstance(kind, str) else kind

    def accepted(self) -> frozenset[str] | None:
        """Return the names of all settings that are accepted, None where any may be."""
        kind = self.kind()
        names = arguments(kind) if callable(kind) else None
        return None if names is None else names | _NO_ARGUMENTS | _BESIDE.get(self.registry, set())


def check_arguments(cfg: Config, splits: Sequence[str] = tuple(_LOOPS)) -> None:
    """Check every ``type`` and argument of the parts of a config that are known.

    Args:
        cfg: a config of mmpretrain, mmdet or mmseg form.
        splits: those whose data will be used, of ``'train'``, ``'val'`` and ``'test'``; what the
            others alone need is not built.

    Raises:
        PreflightError: where a type is not registered, or does not accept an argument. The nearest
            names are told.
    """
    unused = {split for split in _LOOPS if split not in splits}
    for part in parts(cfg):
        if _SPLIT_OF.get(part.key.partition('.')[0]) in unused:
            continue
        kind = part.settings.get('type', part.default)
        if part.kind() is None:
            names = _names(part.registry, part.scope)
            raise PreflightError(
                f'{part.key}.type: {printable(kind)!r} is not registered in scope {part.scope!r}'
                f'{did_you_mean(str(kind), names)}; classes of your own need custom_imports'
            )
        accepted = part.accepted()
        for name in part.settings if accepted is not None else ():
            if name not in accepted:
                raise PreflightError(no_such_setting(part, name, accepted, inherited=True))
    hooks = cfg.get('default_hooks')
    for name, settings in hooks.items() if isinstance(hooks, Mapping) else ():
        if isinstance(settings, Mapping) and 'type' not in settings:
            near = did_you_mean(name, set(hooks) - {name}, 'default_hooks.')
            raise PreflightError(f'default_hooks.{printable(name)} has no type{near}')


def no_such_setting(
    part: Part, name: str, accepted: frozenset[str], *, inherited: bool = False
) -> str:
    """Return one line on an argument that a class does not accept.

    Args:
        part: whose type it is.
        name: of the argument.
        accepted: all that are accepted.
        inherited: it may be left of another type that the config's own has replaced.
    """
    kind = getattr(part.kind(), '__name__', part.kind())
    near = did_you_mean(name, accepted - _NO_ARGUMENTS, f'{part.key}.')
    shown = near or f'; it has {", ".join(sorted(accepted - _NO_ARGUMENTS))}'
    if inherited and not near:
        shown += '; what is left of another type goes with _delete_=True beside type'
    return f'{part.key}.{printable(name)}: no such setting of {kind}{shown}'


def did_you_mean(name: str, names: Any, prefix: str = '') -> str:
    """Return the question after the nearest of ``names``, empty where none is near."""
    by_lower = {known.lower(): known for known in sorted(names)}
    near = get_close_matches(name.lower(), by_lower, n=1, cutoff=0.7)
    return f'; did you mean {prefix}{by_lower[near[0]]}?' if near else ''


@cache
def arguments(kind: Callable[..., Any]) -> frozenset[str] | None:
    """Return the names of the keyword arguments of a class or function, None where any may be.

    ``**kwargs`` are followed to the constructor of the base class where they are handed on to it
    untouched.
    """
    found: set[str] = set()
    for function in _constructors(kind):
        if function is object.__init__:
            break
        try:
            parameters = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):
            return None
        found |= {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        rest = next((p for p in parameters if p.kind is p.VAR_KEYWORD), None)
        if rest is None:
            break
        if get_origin(rest.annotation) is Unpack:
            (settings,) = get_args(rest.annotation)
            found |= settings.__required_keys__ | settings.__optional_keys__
            break
        if not _hands_on(function, rest.name):
            return None
    return frozenset(found - {'self'})


def accepts_text(kind: Any, name: str) -> bool | None:
    """Return whether an argument is annotated as one that may be a text, None without any."""
    for function in _constructors(kind) if callable(kind) else ():
        try:
            parameter = inspect.signature(function).parameters.get(name)
        except (TypeError, ValueError):
            return None
        if parameter is not None and parameter.annotation is not parameter.empty:
            written = inspect.formatannotation(parameter.annotation)
            return re.search(r'\b(str|Any|Literal|Path\w*)\b', written) is not None
    return None


def _constructors(kind: Callable[..., Any]) -> list[Callable[..., Any]]:
    if not inspect.isclass(kind):
        return [kind]
    return [vars(base)['__init__'] for base in kind.__mro__ if '__init__' in vars(base)]


def _hands_on(function: Callable[..., Any], rest: str) -> bool:
    """Return whether a constructor does nothing with ``**rest`` but give it to ``super()``."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, SyntaxError, TypeError):
        return False
    owner = function.__qualname__.rpartition('.')[0].rpartition('.')[2]
    uses = [n for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id == rest]
    handed = [
        keyword
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and _is_super_init(call.func, owner)
        for keyword in call.keywords
        if keyword.arg is None and keyword.value in uses
    ]
    return len(uses) == len(handed) == 1


def _is_super_init(function: ast.expr, owner: str) -> bool:
    """Return whether an expression is ``super().__init__`` in class ``owner``.

    ``super(Other, self)`` leaves out bases.
    """
    match function:
        case ast.Attribute(attr='__init__', value=ast.Call(func=ast.Name(id='super'), args=args)):
            return not args or (isinstance(args[0], ast.Name) and args[0].id == owner)
    return False


def _registry(name: str, scope: str) -> Any:
    import_module('mmengine.runner')  # registers what mmengine has
    registry = getattr(import_module('mmengine.registry'), name)
    with suppress(ImportError):  # a scope of the user's own
        import_module(f'{scope}.registry')
    return registry.children.get(scope, registry)


def _registered(name: str, registry: str, scope: str) -> Any:
    try:
        return _registry(registry, scope).get(name)
    except (ImportError, RuntimeError):
        return None


def _names(registry: str, scope: str) -> set[str]:
    node, names = _registry(registry, scope), set()
    while node is not None:
        names |= set(node.module_dict)
        node = node.parent
    return names


def parts(cfg: Config) -> Iterator[Part]:
    """Yield the settings of every object whose constructor is known to receive them as they are."""
    scope = cfg.get('default_scope') or 'mmengine'
    yield from _model(cfg.get('model'), 'model', scope)
    for split in _LOOPS:
        yield from _loader(cfg.get(f'{split}_dataloader'), f'{split}_dataloader', scope)
        evaluator = cfg.get(f'{split}_evaluator')
        if not (isinstance(evaluator, Mapping) and 'metrics' in evaluator):  # an Evaluator itself
            yield from _typed(evaluator, f'{split}_evaluator', 'METRICS', scope)
        settings = cfg.get(f'{split}_cfg')
        if isinstance(settings, Mapping):
            loop = _LOOPS[split] if settings.get('by_epoch', True) else 'IterBasedTrainLoop'
            yield Part(f'{split}_cfg', settings, 'LOOPS', scope, loop)
    wrapper = cfg.get('optim_wrapper')
    if isinstance(wrapper, Mapping) and 'optimizer' in wrapper:
        yield Part('optim_wrapper', wrapper, 'OPTIM_WRAPPERS', scope, 'OptimWrapper')
        yield from _typed(wrapper['optimizer'], 'optim_wrapper.optimizer', 'OPTIMIZERS', scope)
    yield from _typed(cfg.get('param_scheduler'), 'param_scheduler', 'PARAM_SCHEDULERS', scope)
    hooks = cfg.get('default_hooks')
    for name in hooks if isinstance(hooks, Mapping) else ():
        yield from _typed(hooks[name], f'default_hooks.{name}', 'HOOKS', scope)
    yield from _typed(cfg.get('custom_hooks'), 'custom_hooks', 'HOOKS', scope)
    for part in _typed(cfg.get('visualizer'), 'visualizer', 'VISUALIZERS', scope):
        yield part
        backends = part.settings.get('vis_backends')
        yield from _typed(backends, 'visualizer.vis_backends', 'VISBACKENDS', part.scope)


def _typed(node: Any, key: str, registry: str, scope: str) -> Iterator[Part]:
    """Yield settings that name a type, or each of a list of such."""
    if isinstance(node, list | tuple):
        for index, item in enumerate(node):
            yield from _typed(item, f'{key}.{index}', registry, scope)
    elif isinstance(node, Mapping) and node.get('type') is not None:
        yield Part(key, node, registry, node.get('_scope_') or scope)


def _model(node: Any, key: str, scope: str) -> Iterator[Part]:
    for part in _typed(node, key, 'MODELS', scope):
        yield part
        for name, value in part.settings.items():
            if _MODEL_PART.fullmatch(name):
                yield from _model(value, f'{part.key}.{name}', part.scope)
            elif _TASK_PART.fullmatch(name):
                yield from _typed(value, f'{part.key}.{name}', 'TASK_UTILS', part.scope)


def _loader(node: Any, key: str, scope: str) -> Iterator[Part]:
    if isinstance(node, Mapping):
        yield from _dataset(node.get('dataset'), f'{key}.dataset', scope)
        for name in ('sampler', 'batch_sampler'):
            yield from _typed(node.get(name), f'{key}.{name}', 'DATA_SAMPLERS', scope)


def _dataset(node: Any, key: str, scope: str) -> Iterator[Part]:
    for part in _typed(node, key, 'DATASETS', scope):
        yield part
        for name in ('dataset', 'datasets'):
            yield from _dataset(part.settings.get(name), f'{part.key}.{name}', part.scope)
        yield from _transforms(part.settings.get('pipeline'), f'{part.key}.pipeline', part.scope)


def _transforms(node: Any, key: str, scope: str) -> Iterator[Part]:
    for part in _typed(node, key, 'TRANSFORMS', scope):
        yield part
        if part.settings.get('type') in _NESTED_TRANSFORMS:
            inner = part.settings.get('transforms')
            yield from _transforms(inner, f'{part.key}.transforms', part.scope)
