"""What is refused before anything heavy is imported."""

import subprocess
import sys

import pytest

from mmwave.apis import UsageError
from mmwave.apis.predicting.call import FORMS, TASKS, data_file, settle_call

RIGHT = dict(json='lines', thr=0.3, batch=1, overwrite=False)


@pytest.fixture
def picture(tmp_path) -> str:
    (tmp_path / 'a.png').write_bytes(b'x')
    return str(tmp_path / 'a.png')


def test_nothing_heavy_is_imported():
    code = 'import sys, mmwave.apis.predicting.call; print({"numpy", "torch"} & set(sys.modules))'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.stdout == 'set()\n', done.stderr


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        (dict(batch=0), '--batch 0: at least 1'),
        (dict(thr=1.5), r'--thr 1\.5: expected a score from 0 to 1'),
        (dict(thr=-0.1), r'--thr -0\.1'),
        (dict(thr=float('nan')), '--thr nan'),
        (dict(json='xml'), '--json xml: expected lines or coco'),
        (dict(out=''), '--out is empty'),
    ],
)
def test_values(picture, tmp_path, wrong, message):
    with pytest.raises(UsageError, match=message):
        settle_call([picture], **{'out': str(tmp_path / 'out'), **RIGHT, **wrong})


@pytest.mark.parametrize('task', TASKS.values())
@pytest.mark.parametrize('form', FORMS)
def test_results_in_the_way(picture, tmp_path, task, form):
    out = tmp_path / 'out'
    call = dict(out=str(out), **RIGHT)
    out.mkdir()
    (out / 'other.txt').write_text('mine')
    found = settle_call([picture], **call)
    assert found.pictures == (picture,)
    (out / data_file(task, form)).write_text('')
    with pytest.raises(UsageError, match=rf'has results already \({data_file(task, form)}\)'):
        settle_call([picture], **call)
    assert settle_call([picture], **{**call, 'overwrite': True}) == found


@pytest.mark.parametrize('name', ['pictures', 'videos', 'labels', 'images.json'])
def test_folders_in_the_way(picture, tmp_path, name):
    (tmp_path / 'out' / name).mkdir(parents=True)
    with pytest.raises(UsageError, match=rf'\({name}\): name another folder, or replace them'):
        settle_call([picture], out=str(tmp_path / 'out'), **RIGHT)
