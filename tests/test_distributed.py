"""Two processes compute what one does with twice the batch, sharded or not."""

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
SHARDED = """
import sys
import torch
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from mmwave.engine.process_group import leave_process_group
from tests.contracts import build, images, total
from tests.families import TINY


def shard(model, kind):
    if kind == 'ddp':
        return DistributedDataParallel(model, broadcast_buffers=False)
    for block in (block for stage in model.stages for block in stage):
        if kind == 'layers':
            for layer in reversed(list(block.modules())):  # inner ones first
                if any(True for _ in layer.parameters(recurse=False)) and layer is not block:
                    fully_shard(layer)
        fully_shard(block)
    return fully_shard(model)


def trained(name, kind, rank, **options):
    drop = {'token_drop_rate': 0.0} if name == 'EAMLP' else {}
    model = build(name, TINY[name], norm_eval=True, **drop, **options).double().train()
    wrapped = shard(model, kind)
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    for _ in range(2):
        optimizer.zero_grad()
        total(wrapped(images(4, 3, 36, 40).double()[2 * rank : 2 * rank + 2])).backward()
        optimizer.step()
    return [p.full_tensor() if hasattr(p, 'full_tensor') else p for p in model.parameters()]


torch.set_num_threads(1)
torch.distributed.init_process_group('gloo')
rank = torch.distributed.get_rank()
differ = []
for name in TINY:
    wanted = trained(name, 'ddp', rank)
    for kind in ('blocks', 'layers'):
        for options in ({}, {'with_cp': True}):
            got = trained(name, kind, rank, **options)
            if not all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True)):
                differ.append(f'{name} {kind} {options}')
if rank == 0:
    open(sys.argv[1], 'w').write(repr(differ))
leave_process_group()
"""


def on_two_ranks(folder: Path, code: str, *arguments: str) -> None:
    script = folder / 'worker.py'
    script.write_text(code)
    torchrun = ['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2']
    root = str(Path(__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, *torchrun, str(script), *arguments],
        env={**os.environ, 'PYTHONPATH': root, 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.dist
def test_sharded_training_is_ddp(tmp_path):
    """FSDP2 works by hooks on modules: shards of blocks, and of every layer by itself."""
    on_two_ranks(tmp_path, SHARDED, str(tmp_path / 'differ'))
    assert (tmp_path / 'differ').read_text() == '[]'


@pytest.mark.dist
@pytest.mark.parametrize(('out_indices', 'with_cp'), [((0, 1, 2, 3), False), ((1, 2), True)])
def test_gradients_of_two_ranks(tmp_path, out_indices, with_cp):
    """For any outputs: every parameter is used, none is waited for in vain."""
    options = dict(arch=ARCH, norm_eval=True, out_indices=out_indices, with_cp=with_cp)
    on_two_ranks(tmp_path, WORKER, str(tmp_path / 'grads.pth'), json.dumps(options))
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
