"""The checkpoints in a run's own folders, whatever files its notes and checkpoints name."""

import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from mmwave.checkpoint import Progress, damage_of, progress_of
from mmwave.engine.agreement import from_first
from mmwave.errors import UserError, printable, printable_path

TEMPLATES = ('epoch_{}.pth', 'iter_{}.pth')
"""mmengine's names of checkpoints."""

_MOST_NAMES = 4  # that are listed


class Saves(NamedTuple):
    """Where a run writes checkpoints.

    Attributes:
        folder: of :func:`output_folder`.
        template: of their names, with ``{}`` for the number of epochs or iterations.
    """

    folder: str
    template: str | None = None


class Found(NamedTuple):
    """What :func:`newest_checkpoint` found.

    Attributes:
        path: of the newest whole checkpoint, None where there is no checkpoint at all.
        skipped: a line for each newer one, with the reason.
    """

    path: str | None
    skipped: tuple[str, ...] = ()


def output_folder(out_dir: str | os.PathLike[str] | None, work_dir: str) -> str:
    """Return the folder that mmengine's ``CheckpointHook`` writes to.

    Args:
        out_dir: the hook's, as it is before training begins.
        work_dir: of the run.
    """
    if out_dir is None or out_dir == work_dir:
        return work_dir
    return os.path.join(out_dir, os.path.basename(work_dir.rstrip(os.sep)))


def find_for_run(runner: Runner) -> None:
    """Have a run that is to go on from its last checkpoint do so from the newest whole one.

    mmengine would from whatever is noted. The first process looks and tells the others. A run that
    starts anew warns of the checkpoints that it is going to replace.

    Args:
        runner: before it loads anything.

    Raises:
        UserError: in every process, where there are checkpoints and none is whole.
    """
    hooks = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook)]
    saves = [Saves(output_folder(h.out_dir, runner.work_dir), h.filename_tmpl) for h in hooks]
    if not runner._resume:
        if is_main_process():
            _warn_of_others(runner, saves)
        return
    if runner._load_from is not None:
        return

    def look() -> Found:
        found = newest_checkpoint(runner.work_dir, saves)
        return found._replace(path=_inside(found.path, runner.work_dir))

    found = from_first(look)
    if is_main_process():
        for line in found.skipped:
            runner.logger.warning(line)
        if found.path is None:
            runner.logger.warning(
                f'there is no checkpoint in {printable_path(runner.work_dir)} to go on from: the '
                'training starts anew'
            )
    path = found.path and os.path.join(runner.work_dir, found.path)
    runner._load_from, runner._resume = path, path is not None


def _inside(path: str | None, folder: str) -> str | None:
    """Return a path in ``folder`` relative to it: machines may have it in different places."""
    if path is None:
        return path
    inside = os.path.relpath(path, folder)
    return path if inside.startswith(os.pardir) else inside


def newest_checkpoint(work_dir: str, saves: Sequence[Saves], *, contents: bool = True) -> Found:
    """Return the newest whole checkpoint of a run.

    The newest is the one of the most iterations, by its name and, among names of epochs and of
    iterations, by what it notes. mmengine's note of the last one, ``last_checkpoint``, need not be
    there; where it is, checkpoints of more iterations that were written before the one it names are
    of an earlier training in the same folder. The note holds a path, which after a folder was
    copied or moved is that of another run's file: the file of that name in the run's own folders
    counts.

    Args:
        work_dir: of the run, which holds the note.
        saves: where the run writes checkpoints.
        contents: read whole files, else only as much as tells one that was cut.

    Raises:
        UserError: where there are checkpoints and none is whole, or there are none but the note
            names one.
    """
    folders = list(dict.fromkeys([work_dir, *(place.folder for place in saves)]))
    note = os.path.join(work_dir, 'last_checkpoint')
    text = _text_of(note)
    noted = _own_file(text, folders)
    templates = [*TEMPLATES, *(place.template for place in saves if place.template)]
    paths = list(_newest_first(folders, list(dict.fromkeys(templates)), noted))
    if not paths and text:
        elsewhere = '\0' not in text and os.path.isfile(text)
        where = f' in {" or ".join(map(printable_path, folders))}' if elsewhere else ''
        raise UserError(
            f'{printable_path(note)} names {printable(text)!r}, which is no file{where}: give '
            f'--resume PATH, or remove {printable_path(note)} to start anew'
        )
    skipped = []
    for path in paths:
        reason = damage_of(path, contents=contents) or _of_an_earlier_run(path, noted, paths)
        if not reason:
            return Found(path, tuple(skipped))
        skipped.append(f'{printable_path(path)} is not resumed from: {printable(reason, 1000)}')
    if paths:
        raise UserError(
            f'no checkpoint in {" or ".join(map(printable_path, folders))} is whole: '
            f'{"; ".join(skipped[:_MOST_NAMES])}. Give --resume PATH, or another --work-dir to '
            'start anew'
        )
    return Found(None)


def _text_of(note: str) -> str:
    try:
        with open(note, encoding='utf-8', errors='replace') as file:
            return file.read().strip()
    except OSError:
        return ''


def _own_file(path: str, folders: Iterable[str]) -> str | None:
    """Return the file of the name of ``path`` in one of ``folders``, in its own one first."""
    parent, name = os.path.split(path)
    if not name or '\0' in path:
        return None
    own = sorted(folders, key=lambda f: os.path.realpath(f) != os.path.realpath(parent))
    paths = (os.path.join(folder, name) for folder in own)
    return next((path for path in paths if os.path.isfile(path)), None)


def _newest_first(
    folders: Sequence[str], templates: Sequence[str], noted: str | None
) -> Iterator[str]:
    """Yield checkpoints; among those of one template by number, else by what they note."""
    groups = [_numbered(folders, template, noted) for template in templates]
    if noted is not None and not any(noted in group for group in groups):
        groups.append([noted])
    while groups := [group for group in groups if group]:
        # One that cannot be read comes first, to be told.
        if len(groups) > 1:  # of the same iteration, the one that was written last
            groups.sort(key=lambda g: (_iterations(g[0]), noted in g[:1]), reverse=True)
        yield groups[0].pop(0)


def _iterations(path: str) -> float:
    progress = progress_of(path)
    return math.inf if progress is None else progress.iterations


def _numbered(folders: Sequence[str], template: str, noted: str | None) -> list[str]:
    """Return the files whose names are made of ``template``, by descending number."""
    lead, _, rest = template.partition('{')
    pattern = re.compile(rf'{re.escape(lead)}(\d+){re.escape(rest.partition("}")[2])}')
    found = []
    for folder in folders:
        try:
            names = os.listdir(folder)
        except OSError:
            continue
        for name in names:
            match = pattern.fullmatch(name)
            path = os.path.join(folder, name)
            if match and template.format(int(match[1])) == name and os.path.isfile(path):
                found.append((int(match[1]), path == noted, path))
    return [path for *_, path in sorted(found, reverse=True)]


def _of_an_earlier_run(path: str, noted: str | None, paths: Sequence[str]) -> str:
    """Return a reason where ``path`` is newer than the noted one by its number alone."""
    if noted is None or path == noted or paths.index(path) > paths.index(noted):
        return ''
    mine, last = progress_of(path), progress_of(noted)
    if mine is None or last is None or not _is_before(mine, last) or damage_of(noted):
        return ''
    return (
        f'it was written before {printable(os.path.basename(noted))}, which last_checkpoint names: '
        'it is of an earlier training'
    )


def _is_before(one: Progress, other: Progress) -> bool:
    return bool(one.time) and bool(other.time) and one.time < other.time


def _warn_of_others(runner: Runner, saves: Sequence[Saves]) -> None:
    for folder, template in dict.fromkeys(saves):
        names = [os.path.basename(path) for path in _numbered([folder], template or '', None)]
        if names:
            some = ', '.join(map(printable, reversed(names[:_MOST_NAMES])))
            runner.logger.warning(
                f'{printable_path(folder)} holds {len(names)} checkpoints of an earlier training '
                f'({some}{", ..." if len(names) > _MOST_NAMES else ""}): this one starts anew and '
                'replaces those of the same names. --resume goes on from the newest, another '
                '--work-dir keeps them'
            )
