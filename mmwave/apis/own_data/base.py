"""What a config is for, where it states classes, and which weights it starts from."""

import os
import os.path as osp
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config

from mmwave.apis.config_names import config_files, find_config
from mmwave.apis.usage import UsageError, close_names
from mmwave.checkpoint import read_checkpoint, state_dict_of
from mmwave.engine.data_checks.datasets import bare_type
from mmwave.errors import UserError, printable, printable_path

from .text import Code

TASKS = {'mmdet': 'detector', 'mmseg': 'segmentor', 'mmpretrain': 'classifier'}
_NEEDS = {'coco': 'detector', 'masks': 'segmentor', 'folders': 'classifier'}
# What the names of shipped configs of each task have in their last field.
_DATA = {
    'detector': r'_coco$',
    'segmentor': r'_(ade20k|cityscapes)-\w+$',
    'classifier': r'_in1k[\w-]*$',
}
_CLASSES = Code('len(classes)')
_WRAPS = ('dataset', 'datasets')


@dataclass(frozen=True, kw_only=True)
class Base:
    """A config that another one is written over.

    Attributes:
        path: absolute.
        name: of the file, without suffix.
        cfg: what it states.
        task: ``'detector'``, ``'segmentor'`` or ``'classifier'``.
    """

    path: str
    name: str
    cfg: Config
    task: str

    @property
    def title(self) -> str:
        """What its docstring says before the first mark, its name where it has none."""
        with open(self.path, encoding='utf-8') as file:
            found = re.match(r'[rR]?"""([^"\n]+)', file.read())
        if found is None:
            return self.name
        said = re.split(r'[;:.]\s|[;:.]$| for | from ', found[1])[0].strip()
        return said or self.name


def read_base(name: str, form: str) -> Base:
    """Read a config and check that it is for data of this form.

    Args:
        name: of a shipped config, or a path.
        form: of the data, ``'coco'``, ``'masks'`` or ``'folders'``.

    Raises:
        UsageError: where there is no such config, or it is for another task.
    """
    from mmwave.apis.libraries import check_libraries
    from mmwave.apis.run import load_config

    path = osp.abspath(find_config(name))
    cfg = load_config(path)
    stem = osp.splitext(osp.basename(path))[0]
    task = TASKS.get(cfg.get('default_scope'), '')
    needed = _NEEDS[form]
    if task != needed:
        kind = f'is a {task}' if task else 'states no default_scope of a known task'
        raise UsageError(
            f'{printable(stem)} {kind}, and --{form} is for a {needed}: {_fitting(stem, needed)}'
        )
    check_libraries(cfg)
    for split in ('train', 'val'):
        dataset = (cfg.get(f'{split}_dataloader') or {}).get('dataset') or {}
        if any(key in dataset for key in _WRAPS):
            raise UsageError(
                f'{printable(stem)} wraps its data set ({split}_dataloader.dataset is '
                f'{bare_type(dataset)}): give a config with a plain one'
            )
        if 'pipeline' not in dataset:
            raise UsageError(f'{printable(stem)} has no {split}_dataloader.dataset.pipeline')
    return Base(path=path, name=stem, cfg=cfg, task=task)


def _fitting(stem: str, task: str) -> str:
    """Name shipped configs of a task, those of the same backbone first."""
    names = [name for name in config_files() if re.search(_DATA[task], name)]
    own = [name for name in names if name.startswith(f'{stem.partition("_")[0]}_')]
    if own:
        return f'take {" or ".join(own)}'
    return close_names(stem, names) or f'take one like {" or ".join(names[:2])}'


def class_counts(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that give every head of a model the number of classes.

    Args:
        model: settings of the base.

    Raises:
        UsageError: where none states a number of classes.
    """
    heads = {name: part for name, part in model.items() if name != 'backbone'}
    found = _counts(heads, '_base_.model')
    if not found:
        raise UsageError('the base states no num_classes in its model: nothing tells its head')
    return found


def _counts(node: Mapping[str, Any], path: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in node.items():
        if name == 'num_classes' and isinstance(value, int):
            found[name] = _CLASSES
        elif isinstance(value, Mapping):
            inner = _counts(value, f'{path}.{name}')
            found |= {name: inner} if inner else {}
        elif isinstance(value, list) and any(
            isinstance(item, Mapping) and 'num_classes' in item for item in value
        ):
            # A list is replaced as a whole.
            found[name] = Code(f'[dict(head, num_classes=len(classes)) for head in {path}.{name}]')
    return found


def starting_weights(base: Base, given: str | None) -> tuple[dict[str, Any], list[str]]:
    """Return the settings of what training starts from, and warnings.

    Args:
        base: whose backbone loads them.
        given: the file, ``'none'`` for random weights, None for what the base names.

    Raises:
        UsageError: where the file given cannot be read.
    """
    backbone = base.cfg.model.get('backbone') or {}
    stated = backbone.get('init_cfg')
    if given == 'none':
        start: dict[str, Any] = {'backbone': dict(init_cfg=None)} if stated else {}
        return start | ({'load_from': None} if base.cfg.get('load_from') else {}), []
    if given is not None:
        return _given_weights(base, given)
    if stated and not isinstance(stated, Mapping):
        return {}, []
    path = (stated or {}).get('checkpoint')
    if path is None:
        folder = os.environ.get('MMWAVE_CHECKPOINTS', 'checkpoints')
        path = osp.join(folder, f'{base.name}.pth')
        if not osp.isfile(path):
            return {}, [
                f'training starts from random weights, as there is no {printable_path(path)}: '
                'fine-tuning published ones (--weights FILE) needs far fewer images'
            ]
        return {'backbone': dict(init_cfg=_pretrained(path))}, []
    if '://' in path or osp.isabs(path):
        return {}, []
    if osp.isfile(path):
        return {'backbone': dict(init_cfg=dict(checkpoint=osp.abspath(path)))}, []
    return {}, [
        f'no pretrained weights at {printable_path(path)}, which training needs: convert the '
        'published file to that path (mmwave convert), or give --weights FILE, or --weights none '
        'to train from scratch'
    ]


def _given_weights(base: Base, given: str) -> tuple[dict[str, Any], list[str]]:
    path = osp.abspath(osp.expanduser(given))
    if not osp.isfile(path):
        raise UsageError(f'--weights {printable_path(given)}: no such file')
    try:
        names = state_dict_of(read_checkpoint(path))
    except UserError as error:
        raise UsageError(f'--weights {error}') from error
    heads = ('neck.', 'rpn_head.', 'roi_head.', 'bbox_head.', 'decode_head.')
    if base.task != 'classifier' and any(name.startswith(heads) for name in names):
        # Of a whole model: what depends on the classes is left out where it has another shape.
        return {'backbone': dict(init_cfg=None), 'load_from': path}, []
    return {'backbone': dict(init_cfg=_pretrained(path))}, []


def _pretrained(path: str) -> dict[str, Any]:
    # Of the backbone alone: a head has the classes of its own data.
    return dict(type='Pretrained', checkpoint=osp.abspath(path))
