"""Processes that do not read the same checkpoint, and checkpoints of other numbers of processes.

The comparison is :mod:`mmwave.engine.agreement`'s, called by ``AgreementHook``.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys

import pytest
import torch

from mmwave.checkpoint import read_checkpoint
from tests.contracts import ROOT
from tests.faults.launch import train
from tests.faults.tasks import write_task

LENGTH = 4


@pytest.fixture
def config(tmp_path):
    return write_task(tmp_path, length=2, num_images=LENGTH)


def two_nodes(config, folders, *options, seconds=150):
    """Start one process in each folder, which is not shared; return codes and outputs."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    nodes = []
    for rank, folder in enumerate(folders):
        folder.mkdir(exist_ok=True)
        with (folder / 'out.txt').open('wb') as file:
            nodes.append(
                subprocess.Popen(
                    [
                        *(sys.executable, '-m', 'torch.distributed.run', '--nnodes', '2'),
                        *('--nproc-per-node', '1', '--node-rank', str(rank)),
                        *('--master-addr', '127.0.0.1', '--master-port', str(port)),
                        *(ROOT / 'tools/train.py', config, '--work-dir', 'work', *options),
                        *('--launcher', 'pytorch'),
                    ],
                    cwd=folder,
                    env={**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'},
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )
    try:
        codes = [node.wait(seconds) for node in nodes]
    finally:
        for node in nodes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(node.pid, signal.SIGKILL)
    return codes, [(folder / 'out.txt').read_text() for folder in folders]


@pytest.fixture
def nodes(config, tmp_path):
    """A config of three epochs, and the folders of two nodes, one of which has trained two."""
    a, b = tmp_path / 'a', tmp_path / 'b'
    a.mkdir()
    done = train(config, a / 'work')
    assert done.code == 0, done.text[-2000:]
    return config, a, b


SCALE = ('--auto-scale-lr', '--cfg-options', 'train_cfg.max_epochs=3')


@pytest.mark.fault
def test_a_folder_that_is_not_shared_ends_all(nodes):
    """The second node would start anew from random weights."""
    config, a, b = nodes
    codes, texts = two_nodes(config, [a, b], '--resume', *SCALE)
    assert all(codes)
    for text in texts:
        (line,) = [x for x in text.splitlines() if x.startswith('error: ')]
        assert 'work/epoch_2.pth is not on ' in line
        assert f'(in {b})' in line
        assert 'share the folder' in line
    assert not (b / 'work/epoch_3.pth').exists()


@pytest.mark.fault
def test_other_weights_end_all(nodes):
    """Both have a checkpoint of that name, with one number changed in it."""
    config, a, b = nodes
    b.mkdir()
    shutil.copytree(a / 'work', b / 'work')
    content = read_checkpoint(b / 'work/epoch_2.pth')
    content['state_dict']['head.fc.bias'] += 1e-3
    torch.save(content, b / 'work/epoch_2.pth')
    codes, texts = two_nodes(config, [a, b], '--resume', *SCALE)
    assert all(codes)
    for text in texts:
        (line,) = [x for x in text.splitlines() if x.startswith('error: ')]
        assert 'do not start from the same weights: rank 1 on ' in line
        assert 'head.fc.bias' in line


@pytest.mark.fault
def test_a_checkpoint_that_one_cannot_read_ends_all(nodes):
    config, a, b = nodes
    b.mkdir()
    shutil.copytree(a / 'work', b / 'work')
    path = b / 'work/epoch_2.pth'
    path.write_bytes(path.read_bytes()[:-1000])
    codes, texts = two_nodes(config, [a, b], '--resume', *SCALE)
    assert all(codes)
    for text in texts:
        (line,) = [x for x in text.splitlines() if x.startswith('error: ')]
        assert 'epoch_2.pth' in line
    assert 'rank 1 on ' in texts[0]


@pytest.mark.fault
@pytest.mark.parametrize(('before', 'after'), [(2, 1), (1, 2)])
def test_another_number_of_processes(config, tmp_path, before, after):
    """Refused, or with --auto-scale-lr scaled, and the schedule ends with the run."""
    work = tmp_path / 'work'
    assert train(config, work, ranks=before).code == 0
    for name in ('epoch_2.pth', 'last_checkpoint'):
        (work / name).unlink()
    path = str(work / 'epoch_1.pth')
    refused = train(config, work, '--resume', path, ranks=after)
    assert refused.code != 0
    assert f'{before} process' in refused.text
    assert '--auto-scale-lr' in refused.text
    done = train(config, work, '--resume', path, '--auto-scale-lr', ranks=after)
    assert done.code == 0, done.text[-3000:]
    content = read_checkpoint(work / 'epoch_2.pth')
    # Two classes, two images a process.
    assert content['meta']['iter'] == 2 * (LENGTH // after)
    (group,) = content['optimizer']['param_groups'][:1]
    assert group['initial_lr'] == pytest.approx(1e-3 * after / before)
    cosine = content['param_schedulers'][1]
    assert cosine['T_max'] == cosine['_global_step'] == 2 * (LENGTH // after)
