"""The line about machines that never come; with real ones in tests/faults/test_hangs.py."""

import pytest
import torch

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
