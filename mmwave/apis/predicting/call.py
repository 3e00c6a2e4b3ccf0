"""What can be checked of a call before torch and mmengine are imported."""

from collections.abc import Sequence
from pathlib import Path

from mmwave.apis.usage import UsageError
from mmwave.errors import printable_path

from .inputs import Inputs, find_inputs

TASKS = {'mmdet': 'detection', 'mmpretrain': 'classification', 'mmseg': 'segmentation'}
"""``default_scope`` of a config -> its task."""
FORMS = ('lines', 'coco')
"""Of a detector's data."""


def data_file(task: str, form: str) -> str:
    """Return the name of a task's data file."""
    if task == 'classification':
        return 'predictions.csv'
    return 'predictions.json' if form == 'coco' else 'predictions.jsonl'


def settle_call(
    inputs: Sequence[str], *, out: str, json: str, thr: float, batch: int, overwrite: bool
) -> Inputs:
    """Check a call of :func:`mmwave.apis.predict`, and return the pictures and videos it is about.

    Raises:
        UsageError: where a value is none of those that are accepted, an input stands for nothing,
            or results of an earlier call are in the way.
    """
    if batch < 1:
        raise UsageError(f'--batch {batch}: at least 1 picture is needed')
    if not 0 <= thr <= 1:
        raise UsageError(f'--thr {thr}: expected a score from 0 to 1')
    if json not in FORMS:
        raise UsageError(f'--json {json}: expected {" or ".join(FORMS)}')
    if not out:
        raise UsageError('--out is empty: is the shell variable that holds it unset?')
    folder = Path(out).expanduser()
    found = find_inputs(inputs, out=str(folder))
    data = [data_file(task, form) for task in TASKS.values() for form in FORMS]
    names = dict.fromkeys(['pictures', 'videos', 'labels', *data, 'images.json'])
    there = [name for name in names if (folder / name).exists()]
    if there and not overwrite:
        raise UsageError(
            f'--out {printable_path(out)} has results already ({", ".join(there)}): name another '
            'folder, or replace them with --overwrite'
        )
    return found
