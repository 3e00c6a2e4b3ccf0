"""The last lines of a run: where everything lies that it wrote, and what to type next."""

import os.path as osp
import shlex
from collections.abc import Iterator

from mmengine.dist import is_main_process
from mmengine.runner import Runner

from mmwave.engine import console
from mmwave.errors import printable_path

_BEST, _SCORE = 'best_ckpt', 'best_score'


def tell_end(runner: Runner, mode: str, *, out: str | None = None, show: str | None = None) -> None:
    """Log in a few lines, on the screen too, what a run that has ended left behind.

    Args:
        runner: after its loop.
        mode: ``'train'`` or ``'test'``.
        out: file of the predictions.
        show: folder of the pictures.
    """
    if not is_main_process():
        return
    lines = list(_checkpoints(runner)) if mode == 'train' else []
    lines.append(('log', printable_path(runner.logger.log_file or runner.work_dir)))
    if mode == 'train':
        lines.append(('curves', printable_path(osp.join(runner.log_dir, 'vis_data'))))
    lines += [(name, printable_path(path)) for name, path in _given(out, show) if path]
    if command := mode == 'train' and _next(runner):
        lines.append(('next', command))
    text = '\n'.join(f'  {name:<12}{value}' for name, value in lines)
    runner.logger.info(f'{mode}ed: what is left\n{text}', extra=console.ON_SCREEN)


def _given(out: str | None, show: str | None) -> Iterator[tuple[str, str | None]]:
    yield 'predictions', out
    yield 'pictures', show


def _checkpoints(runner: Runner) -> Iterator[tuple[str, str]]:
    notes = runner.message_hub.runtime_info
    if last := notes.get('last_ckpt'):
        yield 'last', printable_path(last)
    for name, path in notes.items():
        if name.startswith(_BEST) and path:
            score = notes.get(name.replace(_BEST, _SCORE, 1))
            metric = name.removeprefix(_BEST).lstrip('_') or _metric(runner)
            shown = f'{score:.4g}' if isinstance(score, float | int) else score
            note = f' ({metric} {shown})' if score is not None else ''
            yield 'best', f'{printable_path(path)}{note}'


def _metric(runner: Runner) -> str:
    """Return the metric that the best checkpoint was chosen by, of a hook that has one."""
    names = (getattr(hook, 'key_indicators', None) for hook in runner.hooks)
    return next((found[0] for found in names if found), 'score')


def _next(runner: Runner) -> str:
    """Return the command that evaluates the best checkpoint, else the last one."""
    notes = runner.message_hub.runtime_info
    best = next((path for name, path in notes.items() if name.startswith(_BEST) and path), None)
    checkpoint = best or notes.get('last_ckpt')
    # The copy holds the options of this call; configs from memory have no file.
    config = osp.join(runner.work_dir, osp.basename(runner.cfg.filename or ''))
    if not checkpoint or not osp.isfile(config) or runner.cfg.get('test_dataloader') is None:
        return ''
    return shlex.join(['mmwave', 'test', printable_path(config), printable_path(checkpoint)])
