"""The same batch statistics in every process, whenever the model is validated or saved."""

import json
import os
import subprocess
import sys

import pytest
import torch
from mmengine.config import Config

from mmwave.checkpoint import read_checkpoint
from mmwave.engine.hooks.sync_buffers import average_buffers
from tests.contracts import ROOT

WORKER = """
import json, sys
import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import EMAHook, Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset

from mmwave.engine.hooks import SyncBuffersHook
from mmwave.engine.process_group import leave_process_group


class Points(Dataset):
    metainfo = {}

    def __len__(self):
        return 12

    def __getitem__(self, index):
        return {'inputs': torch.full((2, 3, 3), float(index) ** 2)}


class Normed(BaseModel):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(2)
        self.linear = nn.Conv2d(2, 1, 1)
        # Constants, whose mean over three processes is not them in float32.
        self.register_buffer('constant', torch.tensor([123.675, 0.1, 1e-7]))
        self.register_buffer('table', torch.arange(5))

    def forward(self, inputs, mode='tensor'):
        y = self.linear(self.norm(torch.stack(list(inputs)))).mean()
        return {'loss': y} if mode == 'loss' else [0] * len(inputs)


class Falling(BaseMetric):
    # Better checkpoints are saved again after their validation, worse ones are not.
    def __init__(self):
        super().__init__()
        self.scores = iter(range(100, 0, -1))

    def process(self, *_):
        self.results.append(0)

    def compute_metrics(self, results):
        return {'score': next(self.scores)}


class Watch(Hook):
    priority = 'LOWEST'

    def __init__(self):
        self.seen = []

    def before_val_iter(self, runner, batch_idx, data_batch=None):
        if batch_idx == 0:
            module = runner.model.module
            self.seen.append({k: v.tolist() for k, v in module.named_buffers()})


def run(folder, by_epoch, ema, mine):
    torch.manual_seed(0)
    watch = Watch()
    hooks = [watch]
    if ema != 'none':
        # The priority of the published recipe, and mmengine's own.
        hooks.append(dict(type='EMAHook', momentum=0.5, update_buffers=ema == 'averaged',
                          priority='ABOVE_NORMAL' if ema == 'averaged' else 'NORMAL'))
    saves = dict(type='CheckpointHook', by_epoch=by_epoch, interval=1 if by_epoch else 2,
                 save_best='score', rule='greater')
    loader = dict(batch_size=2, num_workers=0, dataset=Points())
    length = dict(by_epoch=True, max_epochs=2) if by_epoch else dict(
        by_epoch=False, max_iters=5, val_interval=2)
    runner = Runner(
        model=Normed(),
        work_dir=folder,
        experiment_name=folder,
        train_dataloader=dict(loader, sampler=dict(type='InfiniteSampler', shuffle=False)
                              if not by_epoch else dict(type='DefaultSampler', shuffle=False)),
        val_dataloader=dict(loader, sampler=dict(type='DefaultSampler', shuffle=False)),
        train_cfg=length,
        val_cfg=dict(),
        val_evaluator=Evaluator(Falling()),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=1e-3)),
        cfg=dict(model_wrapper_cfg=dict(type='MMDistributedDataParallel', device_ids=None,
                                        broadcast_buffers=False)),
        default_hooks=dict(checkpoint=saves, **(
            dict(sync_buffers=dict(type='mmwave.SyncBuffersHook')) if mine else {})),
        custom_hooks=hooks,
        launcher='pytorch',
        env_cfg=dict(dist_cfg=dict(backend='gloo'), mp_cfg=dict(mp_start_method='fork')),
        default_scope='mmengine',
    )
    runner.train()
    with open(f'{folder}/rank{torch.distributed.get_rank()}.json', 'w') as file:
        json.dump(watch.seen, file)


torch.set_num_threads(1)
torch.distributed.init_process_group('gloo')
for name, options in json.loads(sys.argv[2]).items():
    run(f'{sys.argv[1]}/{name}', *options)
leave_process_group()
"""


def train(folder, processes, cases):
    """Train the cases in a folder each; they are (by epoch, averaging, with the hook)."""
    script = folder / 'worker.py'
    script.write_text(WORKER)
    launcher = ('-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', str(processes))
    done = subprocess.run(
        [sys.executable, *launcher, str(script), str(folder), json.dumps(cases)],
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def seen(folder, processes=2):
    """Return what each process saw in its buffers at every validation."""
    return [json.loads((folder / f'rank{rank}.json').read_text()) for rank in range(processes)]


CASES = {
    f'{loop}-{ema}': (loop == 'epochs', ema, True)
    for loop in ('epochs', 'iterations')
    # Averaged models with statistics of their own, or with copies of the model's.
    for ema in ('none', 'averaged', 'copied')
}
CONSTANT = torch.tensor([123.675, 0.1, 1e-7]).tolist()


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp('trained')
    train(folder, 2, CASES | {'without': (True, 'none', False)})
    return folder


@pytest.mark.dist
@pytest.mark.parametrize('case', CASES)
def test_what_is_validated_is_the_same_in_all_processes_and_is_saved(trained, case):
    first, second = seen(trained / case)
    by_epoch = CASES[case][0]
    assert len(first) == (2 if by_epoch else 3)
    assert first == second
    assert first[0]['norm.running_mean'] != first[1]['norm.running_mean']
    names = ['epoch_1', 'epoch_2'] if by_epoch else ['iter_2', 'iter_4', 'iter_5']
    best = sorted((trained / case).glob('best_*'))
    assert len(best) == 1
    for validated, name in [*zip(first, names, strict=True), (first[0], best[0].stem)]:
        saved = read_checkpoint(trained / case / f'{name}.pth')['state_dict']
        for buffer, value in validated.items():
            assert saved[buffer].tolist() == value, (name, buffer)
    assert first[-1]['constant'] == CONSTANT
    assert first[-1]['table'] == [0, 1, 2, 3, 4]


@pytest.mark.dist
def test_without_the_hook_every_process_has_its_own(trained):
    """What the test above would not see, were it the same anyway."""
    first, second = seen(trained / 'without')
    assert first[0]['norm.running_mean'] != second[0]['norm.running_mean']


@pytest.mark.dist
@pytest.mark.slow
def test_constants_keep_every_bit_with_three_processes(tmp_path):
    train(tmp_path, 3, {'work': (True, 'averaged', True)})
    found = seen(tmp_path / 'work', 3)
    assert found[0] == found[1] == found[2]
    assert found[0][-1]['constant'] == CONSTANT


def test_one_process_has_nothing_to_average(monkeypatch):
    def reduce(_):
        raise AssertionError

    monkeypatch.setattr('mmwave.engine.hooks.sync_buffers.all_reduce', reduce)
    average_buffers([])
    average_buffers([torch.zeros(0), torch.zeros(2, dtype=torch.complex64)])


def test_means_of_every_kind_of_buffer(monkeypatch):
    """Of two processes, the other of which has zeros everywhere but where it has the same."""
    monkeypatch.setattr('mmwave.engine.hooks.sync_buffers.get_world_size', lambda: 2)
    monkeypatch.setattr('mmwave.engine.hooks.sync_buffers.all_reduce', lambda flat: None)
    values = [torch.full((2, 3), 4.0), torch.tensor(6), torch.tensor([True]), torch.ones(2).half()]
    one = torch.tensor(0.0)
    same = one.expand(4)  # written to, it would raise
    average_buffers([*values, same])
    assert torch.equal(values[0], torch.full((2, 3), 2.0))
    assert values[1] == 3
    assert values[1].dtype is torch.int64
    assert values[2].dtype is torch.bool
    assert torch.equal(values[3], torch.full((2,), 0.5).half())
    assert one._version == 0


def test_every_config_has_the_hook():
    places = ('configs/*/*.py', 'projects/*/configs/*.py')
    paths = [p for place in places for p in ROOT.glob(place) if p.parent.name != '_base_']
    assert len(paths) > 50
    for path in paths:
        hooks = Config.fromfile(path).default_hooks
        assert hooks.sync_buffers.type == 'mmwave.SyncBuffersHook', path
