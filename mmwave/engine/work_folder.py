"""What lies in a run's own folders, whatever names of files its notes and checkpoints hold."""

import os

from mmwave.errors import UserError, printable, printable_path


def output_folder(out_dir: str | os.PathLike[str] | None, work_dir: str) -> str:
    """Return the folder that mmengine's ``CheckpointHook`` writes to.

    Args:
        out_dir: the hook's, as it is before training begins.
        work_dir: of the run.
    """
    if out_dir is None or out_dir == work_dir:
        return work_dir
    return os.path.join(out_dir, os.path.basename(work_dir.rstrip(os.sep)))


def last_checkpoint(work_dir: str, folders: list[str]) -> str | None:
    """Return the last checkpoint of a run by mmengine's note of it, ``last_checkpoint``.

    The note holds a whole path, which after a folder was copied or moved is that of another run's
    file: the file of that name in the run's own folders counts.

    Args:
        work_dir: of the run, which holds the note.
        folders: that the run writes checkpoints to.

    Returns:
        The path, None where there is no note.

    Raises:
        UserError: where the note names no file of these folders.
    """
    note = os.path.join(work_dir, 'last_checkpoint')
    if not os.path.exists(note):
        return None
    with open(note, encoding='utf-8', errors='replace') as file:
        path = file.read().strip()
    own = list(dict.fromkeys([work_dir, *folders]))
    parent, name = os.path.split(path)
    # The folder that it names first: there may be several that are the run's own.
    own.sort(key=lambda folder: os.path.realpath(folder) != os.path.realpath(parent))
    for folder in own:
        if '\0' not in name and os.path.isfile(os.path.join(folder, name)):
            return os.path.join(folder, name)
    elsewhere = '\0' not in path and os.path.isfile(path)
    where = f' in {" or ".join(map(printable_path, own))}' if elsewhere else ''
    raise UserError(
        f'{printable_path(note)} names {printable(path)!r}, which is no file{where}: give --resume '
        f'PATH, or remove {printable_path(note)} to start anew'
    )
