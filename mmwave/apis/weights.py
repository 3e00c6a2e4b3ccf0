"""The checkpoints that a config and a call name, looked for before anything is built."""

import os
import os.path as osp
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config

from mmwave.engine.checkpoints import Saves, newest_checkpoint, output_folder
from mmwave.errors import UserError, printable_path

from .usage import UsageError


def check_checkpoint(cfg: Config) -> None:
    path = cfg.get('load_from')
    if path is None:
        return
    if not isinstance(path, str) or not path.strip():
        raise UsageError(
            f'the path of the checkpoint is {path!r}: is the shell variable that holds it unset?'
        )
    if '://' not in path and _is_first() and not osp.isfile(osp.expanduser(path)):
        raise UsageError(f'no such checkpoint: {printable_path(path)}')


def check_last_checkpoint(cfg: Config, *, contents: bool) -> None:
    """Check that there is a whole checkpoint to go on from, or none at all.

    Args:
        cfg: says whether a run is to go on.
        contents: read all of the newest one, else only as much as tells a file that was cut.
    """
    if not cfg.get('resume') or cfg.get('load_from') is not None or not _is_first():
        return
    hooks = [*(cfg.get('default_hooks') or {}).values(), *(cfg.get('custom_hooks') or [])]
    saves = [
        Saves(output_folder(hook.get('out_dir'), cfg.work_dir), hook.get('filename_tmpl'))
        for hook in hooks
        if isinstance(hook, Mapping) and str(hook.get('type')).endswith('CheckpointHook')
    ]
    try:
        newest_checkpoint(cfg.work_dir, saves, contents=contents)
    except UserError as error:
        raise UsageError(str(error)) from error


def _is_first() -> bool:
    """Return whether this process looks for files; in the others all processes find out together.

    One that ended here would leave those of other machines waiting for it.
    """
    return os.environ.get('RANK', os.environ.get('NODE_RANK', '0')) == '0'


def check_pretrained(cfg: Config) -> None:
    for key, path in _pretrained(cfg.model, 'model'):
        if '://' not in path and not osp.isfile(path):
            raise UsageError(
                f'no pretrained weights at {path} ({key}): convert the published file to that path '
                'with tools/convert_checkpoint.py, set MMWAVE_CHECKPOINTS to the folder that has '
                'it, or train from scratch with --cfg-options model.backbone.init_cfg=None'
            )


def _pretrained(node: Any, key: str) -> Iterator[tuple[str, str]]:
    """Yield where a model's config names files of weights: (dotted key, path)."""
    if isinstance(node, Mapping):
        if node.get('type') == 'Pretrained' and isinstance(node.get('checkpoint'), str):
            yield f'{key}.checkpoint', node['checkpoint']
        for name, value in node.items():
            yield from _pretrained(value, f'{key}.{name}')
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            yield from _pretrained(value, f'{key}.{index}')
