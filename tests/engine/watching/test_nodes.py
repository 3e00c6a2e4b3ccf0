"""The line about machines that never come; with real ones in tests/faults/test_hangs.py."""

import pytest
import torch

from mmwave.engine.exit_codes import UNAVAILABLE
from mmwave.engine.watching import nodes
from mmwave.engine.watching.nodes import missing_nodes, missing_nodes_named

JOINED = 'Timed out after 9 seconds waiting for clients. 1/4 clients joined.'
NO_ANSWER = (
    'The client socket has timed out after 8000ms while trying to connect to (10.0.0.1, 29500).'
)


def test_the_first_machine_counts_the_others():
    line = missing_nodes(JOINED, '10.0.0.1:29500', '4', 8)
    assert line.startswith('1 of 4 machines came to 10.0.0.1:29500 within 8 s')
    assert 'NNODES=4' in line
    assert 'NODE_TIMEOUT=8' in line


def test_another_machine_names_the_address():
    line = missing_nodes(NO_ANSWER, '10.0.0.1:29500', '4', 8)
    assert line.startswith('nothing answered at 10.0.0.1:29500 within 8 s')


@pytest.mark.parametrize('text', ['EADDRINUSE', 'Broken pipe'])
def test_other_errors_stay(text):
    assert missing_nodes(text, 'a', '2', 8) is None
    with (
        pytest.raises(torch.distributed.DistNetworkError, match=text),
        missing_nodes_named('a', '2', 8),
    ):
        raise torch.distributed.DistNetworkError(text)


def test_torchrun_is_called_with_its_arguments(monkeypatch, capsys):
    given = ['--nnodes', '4', '--node-rank', '0', '--master-addr', '10.0.0.1', '--master-port']
    given += ['29500', '--rdzv-conf', 'timeout=8', 'x.py', '--nnodes', '7']

    def run(arguments):
        assert arguments == given
        raise torch.distributed.DistStoreError(JOINED)

    monkeypatch.setattr(nodes.torchrun, 'main', run)
    with pytest.raises(SystemExit) as left:
        nodes.main(given)
    assert left.value.code == UNAVAILABLE
    assert capsys.readouterr().err.startswith('error: 1 of 4 machines came to 10.0.0.1:29500')
