"""Two machines, simulated by two network namespaces with a cable between them."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from mmwave.checkpoint import read_checkpoint
from tests.faults.launch import Outcome, Run
from tests.faults.tasks import write_task

pytestmark = pytest.mark.fault
ADDRESSES = ('10.213.7.1', '10.213.7.2')
NOTICED = 15  # seconds, the machine that is left


def ip(*words: str) -> None:
    subprocess.run(['ip', *words], check=True, capture_output=True, text=True)


@pytest.fixture
def nodes() -> Iterator[list[tuple[str, ...]]]:
    """The commands that run another one on either machine."""
    if os.geteuid() != 0 or shutil.which('ip') is None:
        pytest.skip('network namespaces need root and iproute2')
    names = [f'mmwave{os.getpid()}{side}' for side in 'ab']
    cables = [f'mm{os.getpid() % 10**6}{side}' for side in 'ab']
    try:
        for name in names:
            ip('netns', 'add', name)
        ip('link', 'add', cables[0], 'type', 'veth', 'peer', 'name', cables[1])
        for name, cable, address in zip(names, cables, ADDRESSES, strict=True):
            ip('link', 'set', cable, 'netns', name)
            ip('-n', name, 'addr', 'add', f'{address}/24', 'dev', cable)
            ip('-n', name, 'link', 'set', cable, 'up')
            ip('-n', name, 'link', 'set', 'lo', 'up')
    except subprocess.CalledProcessError as error:
        pytest.skip(f'no network namespaces here: {error.stderr.strip()}')
    try:
        yield [
            ('ip', 'netns', 'exec', name, 'env', f'GLOO_SOCKET_IFNAME={cable}')
            for name, cable in zip(names, cables, strict=True)
        ]
    finally:
        for name in names:  # the cable goes with them
            subprocess.run(['ip', 'netns', 'del', name], check=False)


def start(
    nodes: list[tuple[str, ...]], config: Path, work: Path, *options: str, faults: tuple = ({}, {})
) -> list[Run]:
    return [
        Run(
            config,
            work,
            *options,
            prefix=prefix,
            launcher=True,
            fault=fault,
            env={
                'NNODES': '2',
                'NODE_RANK': str(rank),
                'MASTER_ADDR': ADDRESSES[0],
                'PORT': '29541',
            },
        )
        for rank, (prefix, fault) in enumerate(zip(nodes, faults, strict=True))
    ]


def finish(runs: list[Run]) -> list[Outcome]:
    try:
        return [run.wait() for run in runs]
    finally:
        for run in runs:
            run.kill()


def test_a_node_that_is_killed_and_restarted(nodes, tmp_path):
    """Both end with the weights of a run in which nothing happened, everything random on."""
    config = write_task(tmp_path, workers=2)
    undisturbed = finish(start(nodes, config, tmp_path / 'whole'))
    assert [done.code for done in undisturbed] == [0, 0], undisturbed[0].text[-2000:]

    work = tmp_path / 'killed'
    runs = start(nodes, config, work, faults=({}, dict(kind='sleep', iter=8, rank=1)))
    runs[0].wait_for('Epoch(train) [2][2/')
    runs[1].kill()  # launcher and processes, as when the machine is gone
    end = runs[0].wait(NOTICED)
    assert end.code != 0
    assert (work / 'last_checkpoint').exists()
    resumed = finish(start(nodes, config, work, '--resume'))
    assert [done.code for done in resumed] == [0, 0], resumed[0].text[-2000:]
    assert 'epoch_1.pth' in resumed[0].text

    wanted, got = (read_checkpoint(folder / 'epoch_3.pth') for folder in (tmp_path / 'whole', work))
    for state in ('state_dict', 'ema_state_dict'):
        assert wanted[state].keys() == got[state].keys()
        for name, tensor in wanted[state].items():
            assert torch.equal(tensor, got[state][name]), name
