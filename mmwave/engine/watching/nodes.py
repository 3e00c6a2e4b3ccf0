"""A line about machines that never come."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from mmwave.engine.exit_codes import UNAVAILABLE

_JOINED = re.compile(r'(\d+)/(\d+) clients joined')


@contextmanager
def missing_nodes_named(address: str, nodes: str, seconds: float) -> Iterator[None]:
    """End in one line where machines do not find each other, with ``UNAVAILABLE``.

    Args:
        address: of the first machine, with the port.
        nodes: how many there are.
        seconds: that torchrun waits.
    """
    try:
        yield
    except (torch.distributed.DistStoreError, torch.distributed.DistNetworkError) as error:
        line = missing_nodes(str(error), address, nodes, seconds)
        if line is None:
            raise
        print(f'error: {line}', file=sys.stderr, flush=True)
        sys.exit(UNAVAILABLE)


def missing_nodes(text: str, address: str, nodes: str, seconds: float) -> str | None:
    """Return the line for torch's error at a meeting of machines; None for other errors."""
    longer = f'NODE_TIMEOUT={seconds:g} (seconds) can be raised'
    joined = _JOINED.search(text)
    if joined is not None:
        return (
            f'{joined[1]} of {joined[2]} machines came to {address} within {seconds:g} s: start '
            f'the same command on each, with NNODES={nodes}, this MASTER_ADDR and PORT and a '
            f'NODE_RANK of its own from 0; {longer}'
        )
    if 'timed out' in text and 'connect' in text:
        return (
            f'nothing answered at {address} within {seconds:g} s: the first machine (NODE_RANK=0) '
            f'has not started, or MASTER_ADDR, PORT or a firewall is wrong; {longer}'
        )
    return None
