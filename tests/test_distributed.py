"""Two processes compute what one does with twice the batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmwave.models import WaveMLP
from tests.contracts import images, relative_error, total

ARCH = dict(depths=(1, 1, 1, 1), dims=(8, 12, 16, 20), norm='BN')
WORKER = """
import json, sys
import torch
from torch.nn.parallel import DistributedDataParallel

from mmwave.engine.process_group import leave_process_group
from mmwave.models import WaveMLP
from tests.contracts import images, total


def main(rank, path, options):
    torch.manual_seed(0)
    model = WaveMLP(**options).double().train()
    wrapped = DistributedDataParallel(model, broadcast_buffers=False)
    for _ in range(2):  # unused parameters are only reported in the second step
        wrapped.zero_grad()
        total(wrapped(images(4, 3, 64, 64).double()[2 * rank : 2 * rank + 2])).backward()
    if rank == 0:
        torch.save({n: p.grad for n, p in model.named_parameters()}, path)


torch.set_num_threads(1)
torch.distributed.init_process_group('gloo')
main(torch.distributed.get_rank(), sys.argv[1], json.loads(sys.argv[2]))
leave_process_group()
"""


@pytest.mark.dist
@pytest.mark.parametrize(('out_indices', 'with_cp'), [((0, 1, 2, 3), False), ((1, 2), True)])
def test_gradients_of_two_ranks(tmp_path, out_indices, with_cp):
    """For any outputs: every parameter is used, none is waited for in vain."""
    script = tmp_path / 'worker.py'
    script.write_text(WORKER)
    options = dict(arch=ARCH, norm_eval=True, out_indices=out_indices, with_cp=with_cp)
    torchrun = [
        sys.executable,
        '-m',
        'torch.distributed.run',
        '--standalone',
        '--nproc-per-node',
        '2',
    ]
    root = str(Path(__file__).parent.parent)
    done = subprocess.run(
        [*torchrun, str(script), str(tmp_path / 'grads.pth'), json.dumps(options)],
        env={**os.environ, 'PYTHONPATH': root, 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    got = torch.load(tmp_path / 'grads.pth', weights_only=True)

    torch.manual_seed(0)
    model = WaveMLP(**options).double().train()
    x = images(4, 3, 64, 64).double()
    # DDP averages over the ranks, each of which pulls on its own half with the same weights.
    (sum(total(model(half)) for half in (x[:2], x[2:])) / 2).backward()
    wanted = {n: p.grad for n, p in model.named_parameters()}
    assert got.keys() == wanted.keys()
    scale = max(g.abs().max() for g in wanted.values())
    assert scale > 0
    for name, gradient in wanted.items():
        assert ((got[name] - gradient).abs().max() / scale).item() < 1e-13, name
    assert relative_error(got['stem.conv.weight'], wanted['stem.conv.weight']) < 1e-12
