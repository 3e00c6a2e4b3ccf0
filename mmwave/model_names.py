"""The shipped models by name in the libraries' own functions, which know their own models alone.

With mmwave imported, mmpretrain's ``get_model('wavemlp-t_in1k')`` and ``list_models()`` find our
classifiers, and mmdet's and mmseg's inferencers our detectors and segmentors. A finder waits for
the modules that look names up; nothing is imported for it, and nothing read before a look-up.
"""

import re
import sys
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_LIBRARIES = ('mmpretrain', 'mmdet', 'mmseg')
_RUNTIME = re.compile(r'_base_/runtime/(\w+)\.py')


def models_of(library: str) -> Iterator[dict[str, Any]]:
    """Yield the shipped models of a library as mmengine reads them from its metafiles.

    Args:
        library: ``'mmpretrain'``, ``'mmdet'`` or ``'mmseg'``.

    Yields:
        ``Name``, ``Config``, a path, and ``Weights``, None: none are published with mmwave.
    """
    from mmwave.apis.config_names import config_files

    for name, path in config_files().items():
        if _RUNTIME.findall(path.read_text(encoding='utf-8')) == [library]:
            yield {'Name': name, 'Config': str(path), 'Weights': None}


def _extend_hub(module: ModuleType) -> None:
    """Register our classifiers where mmpretrain registers its own models: at the first look-up."""
    hub = module.ModelHub
    theirs = getattr(hub, '_register_mmpretrain_models', None)
    if theirs is None or hasattr(theirs, 'with_mmwave'):
        return

    def register() -> None:
        theirs()
        ours = {model['Name']: model['Config'] for model in models_of('mmpretrain')}
        if not ours or hub.has(next(iter(ours))):
            return
        from mmwave.apis.config_names import configs_folder

        index = configs_folder().parent / 'model-index.yml'
        for model in module.load(str(index)).models:
            if model.name in ours:
                model.config = ours[model.name]
                hub._models_dict[model.name.lower()] = model

    register.with_mmwave = True
    hub._register_mmpretrain_models = staticmethod(register)


def _extend_inferencers(module: ModuleType) -> None:
    """Add our models to those of the library whose metafiles mmengine's inferencer reads."""
    base = module.BaseInferencer
    theirs = getattr(base, '_get_models_from_metafile', None)
    if theirs is None or hasattr(theirs, 'with_mmwave'):
        return

    def models(dir: str) -> Iterator[dict[str, Any]]:
        for library in _LIBRARIES:
            if library in sys.modules and base._get_repo_or_mim_dir(library) == dir:
                yield from models_of(library)
        yield from theirs(dir)

    models.with_mmwave = True
    base._get_models_from_metafile = staticmethod(models)


_EXTENDED: dict[str, Callable[[ModuleType], None]] = {
    'mmengine.infer.infer': _extend_inferencers,
    'mmpretrain.apis.model': _extend_hub,
}


class _Finder:
    """Find what Python's own finder does, and extend it once it has been executed."""

    names_models = True

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        extend = _EXTENDED.get(name)
        spec = PathFinder.find_spec(name, path, target) if extend else None
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_extend(module: ModuleType) -> None:
            execute(module)
            extend(module)

        spec.loader.exec_module = execute_and_extend
        return spec


for _name, _extend in _EXTENDED.items():
    if _name in sys.modules:
        _extend(sys.modules[_name])
# A module that is reloaded has another class of the same name.
if not any(hasattr(finder, 'names_models') for finder in sys.meta_path):
    sys.meta_path.insert(0, _Finder())
