"""The launchers as a user calls them, bad calls included."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from mmwave.checkpoint import read_checkpoint
from tests.contracts import ROOT

TRAIN = 'tools/dist_train.sh'
CONFIG = 'configs/wavemlp/wavemlp-s_in1k.py'


def call(*command, timeout=120, **environment):
    return subprocess.run(
        [str(c) for c in command],
        cwd=ROOT,
        env={**os.environ, 'PYTHON': sys.executable, 'OMP_NUM_THREADS': '1', **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


@pytest.mark.parametrize(
    ('command', 'message'),
    [
        ([TRAIN], 'usage: tools/dist_train.sh CONFIG GPUS'),
        ([TRAIN, CONFIG], 'usage: tools/dist_train.sh CONFIG GPUS'),
        ([TRAIN, CONFIG, 'two'], "GPUS must be a number of processes, not 'two'"),
        ([TRAIN, CONFIG, '-1'], "GPUS must be a number of processes, not '-1'"),
        ([TRAIN, CONFIG, '0'], '0 processes asked for'),
        ([TRAIN, 'configs/wavemlp/nothing.py', '2'], 'no such config: configs/wavemlp/nothing.py'),
        ([TRAIN, 'README.md', '2'], 'README.md is no config'),
        (
            [TRAIN, CONFIG, '2', '--cfg-options', 'train_dataloader.dataset.data_root=nowhere'],
            "data_root 'nowhere' does not exist",
        ),
        (['tools/dist_test.sh', CONFIG, 'none.pth', '2'], 'no such checkpoint: none.pth'),
        (
            ['tools/dist_test.sh', CONFIG, 'x.pth'],
            'usage: tools/dist_test.sh CONFIG CHECKPOINT GPUS',
        ),
        ([TRAIN, CONFIG, '2', '--resume', ''], "the path of the checkpoint is '': is the shell"),
        (['tools/dist_test.sh', CONFIG, '', '2'], "the path of the checkpoint is '': is the shell"),
        (
            [sys.executable, 'tools/to_deploy.py', CONFIG, '', 'out.pth'],
            'the path of the checkpoint is empty',
        ),
        (
            [sys.executable, 'tools/convert_checkpoint.py', '', 'out.pth'],
            'the path of the file to convert is empty',
        ),
        (
            [sys.executable, 'tools/convert_checkpoint.py', 'README.md', 'configs'],
            'configs must end in .pth or .safetensors',
        ),
        (['tools/slurm_train.sh', 'part', 'job', CONFIG], 'usage: tools/slurm_train.sh PARTITION'),
        (['tools/slurm_test.sh', 'part'], 'usage: tools/slurm_test.sh PARTITION'),
    ],
)
def test_bad_use_ends_in_one_clear_line(command, message):
    start = time.monotonic()
    done = call(*command)
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line.startswith('error:')]
    assert len(lines) == 1
    assert message in lines[0]
    assert 'Traceback' not in done.stderr
    assert time.monotonic() - start < 60


PYTHON_TOOLS = sorted(path.name for path in (ROOT / 'tools').glob('*.py'))
HEAVY = {'cv2', 'matplotlib', 'mmcv', 'mmdet', 'mmengine', 'mmpretrain', 'mmseg', 'numpy', 'torch'}
RUN_AND_LIST = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name='__main__')
except SystemExit as end:
    print(end.code)
print(*sys.modules)
"""
# Everything but a call that is right, which begins the work.
LIGHT_CALLS = [
    *((name, '--help') for name in PYTHON_TOOLS),
    *((name, '--no-such-option') for name in PYTHON_TOOLS),
    ('train.py',),
    ('test.py', CONFIG),
    ('to_deploy.py', CONFIG, 'a.pth'),
    ('convert_checkpoint.py',),
    ('train.py', 'nothing.py'),
    ('test.py', 'README.md', 'a.pth'),
    ('to_deploy.py', 'nothing.py', 'a.pth', 'b.pth'),
    ('train.py', CONFIG, '--cfg-options', 'no-assignment'),
    ('train.py', CONFIG, '--launcher', 'nobody'),
]


@pytest.mark.parametrize('arguments', LIGHT_CALLS, ids=' '.join)
def test_help_and_bad_use_import_nothing_heavy(arguments):
    done = call(sys.executable, '-c', RUN_AND_LIST, f'tools/{arguments[0]}', *arguments[1:])
    assert done.returncode == 0, done.stderr
    *shown, code, modules = done.stdout.splitlines()
    assert not HEAVY & set(modules.split())
    if '--help' in arguments:
        assert code == '0'
        assert shown[0].startswith('usage: ')
    else:
        assert code == '2'
        assert 'error: ' in done.stderr.splitlines()[-1]


@pytest.mark.parametrize('name', PYTHON_TOOLS)
def test_help_is_there_at_once(name):
    def best(*arguments):
        times = []
        for _ in range(5):
            start = time.perf_counter()
            call(sys.executable, *arguments)
            times.append(time.perf_counter() - start)
        return min(times)

    # Beside what Python itself needs, which on a loaded machine is anything.
    bare = best('-c', 'import argparse')
    assert best(f'tools/{name}', '--help') < max(0.5, 4 * bare)


def test_more_processes_than_gpus_is_refused(monkeypatch):
    from mmengine.config import Config

    from mmwave.apis import preflight
    from mmwave.errors import UserError

    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    with pytest.raises(UserError, match=r'8.*2'):
        preflight(Config(dict()), splits=(), num_procs=8)


def fake_srun(folder: Path) -> str:
    """A PATH whose ``srun`` writes down how it was called."""
    script = folder / 'srun'
    script.write_text('#!/bin/sh\nfor word in "$@"; do echo "$word"; done\n')
    script.chmod(0o755)
    return f'{folder}{os.pathsep}{os.environ["PATH"]}'


def test_slurm_asks_for_what_the_user_asked(tmp_path):
    done = call(
        'tools/slurm_train.sh', 'gpu', 'wave', CONFIG, 'out', '--amp',
        PATH=fake_srun(tmp_path), GPUS='16', GPUS_PER_NODE='4', CPUS_PER_TASK='7',
        SRUN_ARGS='--quiet -x node3',
    )  # fmt: skip
    words = done.stdout.splitlines()
    assert words[words.index('-p') + 1] == 'gpu'
    for word in (
        '--ntasks=16',
        '--gres=gpu:4',
        '--ntasks-per-node=4',
        '--cpus-per-task=7',
        '--quiet',
        'node3',
    ):
        assert word in words
    assert words[-6:] == [
        str(ROOT / 'tools/train.py'),
        CONFIG,
        '--work-dir=out',
        '--amp',
        '--launcher',
        'slurm',
    ]
    done = call(
        'tools/slurm_test.sh', 'gpu', 'wave', CONFIG, 'a.pth', PATH=fake_srun(tmp_path), GPUS='2'
    )
    words = done.stdout.splitlines()
    assert '--gres=gpu:2' in words
    assert words[-5:] == [str(ROOT / 'tools/test.py'), CONFIG, 'a.pth', '--launcher', 'slurm']


def test_several_machines(tmp_path):
    """The environment of mmdetection's launchers reaches torchrun."""
    python = tmp_path / 'python'
    python.write_text('#!/bin/sh\ncase "$*" in *--check-only*) exit 0;; esac\necho "$@"\n')
    python.chmod(0o755)
    done = call(
        TRAIN,
        CONFIG,
        '8',
        '--amp',
        PYTHON=str(python),
        NNODES='4',
        NODE_RANK='3',
        MASTER_ADDR='10.0.0.1',
        PORT='1234',
    )
    train = ROOT / 'tools/train.py'
    assert done.stdout.strip() == (
        '-m mmwave.apis.launch --nnodes 4 --nproc-per-node 8 --node-rank 3 '
        f'--master-addr 10.0.0.1 --master-port 1234 '
        f'--rdzv-conf timeout=300 {train} {CONFIG} --amp --launcher pytorch'
    )
    done = call(TRAIN, CONFIG, '8', PYTHON=str(python))
    assert '--nnodes 1 --nproc-per-node 8 --standalone' in done.stdout


COLOURS = """
_base_ = '{leaf}'
model = dict(
    backbone=dict(
        arch=dict(_delete_=True, depths=[1, 1, 1, 1], dims=[8, 16, 16, 32], norm='BN'),
        drop_path_rate=0.0,  # states of random generators are not in mmengine's checkpoints
    ),
    head=dict(in_channels=32, num_classes=2),
    train_cfg=None,
)
data_preprocessor = dict(num_classes=2)
pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=32), dict(type='PackInputs')]
dataset = dict(data_root='{data}', metainfo=dict(classes=['blue', 'red']), pipeline=pipeline)
train_dataloader = dict(batch_size=4, num_workers=0, persistent_workers=False, dataset=dataset)
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dataset)
test_dataloader = val_dataloader
val_evaluator = dict(topk=1)
test_evaluator = val_evaluator
optim_wrapper = dict(optimizer=dict(lr=0.01))
param_scheduler = None
custom_hooks = None
train_cfg = dict(max_epochs=4)
default_hooks = dict(logger=dict(interval=1))
randomness = dict(seed=0)
"""


@pytest.fixture
def colours(tmp_path):
    """A config that trains on two classes of images which differ in colour."""
    rng = np.random.default_rng(0)
    for split, count in (('train', 16), ('val', 8)):
        for label, name in enumerate(('blue', 'red')):
            folder = tmp_path / 'data' / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                image = rng.integers(0, 60, (40, 40, 3), dtype=np.uint8)
                image[..., 2 * label] += 150
                cv2.imwrite(str(folder / f'{name}{i}.png'), image)
    config = tmp_path / 'colours.py'
    config.write_text(
        COLOURS.format(leaf=ROOT / 'configs/wavemlp/wavemlp-t_in1k.py', data=tmp_path / 'data')
    )
    return config


def log_until(done, line):
    """What is on the screen before a line that contains ``line``, standard error counted first."""
    lines = done.stderr.splitlines() + done.stdout.splitlines()
    return lines[: next(i for i, text in enumerate(lines) if line in text)]


def check_start(done, work, config, line='Epoch(train)'):
    """The screen tells what is run before its first step, in few lines; the log file has it all."""
    start = log_until(done, line)
    assert len(start) <= 25, '\n'.join(start)
    text = '\n'.join(start)
    (log,) = work.glob('*/*.log')
    assert f'training {config}\n' in text
    for name in ('model', 'device', 'processes', 'train data', 'val data', 'weights', 'optimizer'):
        assert re.search(rf'^  {name} +\S', text, re.MULTILINE)
    assert re.search(rf'^  log +{log}$', text, re.MULTILINE)
    kept = log.read_text()
    for part in ('Build settings:', 'Config:', 'Hooks will be executed', 'FileClient', *start[-6:]):
        assert part in kept
        assert part in start or part not in text
    for noise in ('FileClient', 'OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'broadcast_buffers'):
        assert noise not in done.stdout + done.stderr


@pytest.fixture(scope='session')
def shapes(tmp_path_factory):
    """A small data set in the form of every task."""
    folder = tmp_path_factory.mktemp('data') / 'shapes'
    sizes = ('--train', 8, '--val', 4, '--size', 64)
    done = call(sys.executable, 'projects/shapes/generate.py', folder, *sizes)
    assert done.returncode == 0, done.stderr
    return folder


DETECTOR = """
_base_ = '{root}/configs/wavemlp/wavemlp-t-dw_mask-rcnn_1x_coco.py'
heads = dict(bbox_head=dict(num_classes=5), mask_head=dict(num_classes=5))
model = dict(backbone=dict(init_cfg=None), roi_head=heads)
classes = dict(classes=('circle', 'ring', 'square', 'star', 'triangle'))
dataset = dict(data_root='{data}/coco/', metainfo=classes)
workers = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(dataset=dataset, **workers)
val_dataloader = dict(dataset=dataset, **workers)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file='{data}/coco/annotations/instances_val2017.json')
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=1, val_interval=9)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=9, save_last=False))
"""
SEGMENTOR = """
_base_ = '{root}/projects/shapes/configs/wavemlp-t-dw_sem-fpn_shapes.py'
dataset = dict(data_root='{data}/ade')
train_dataloader = dict(dataset=dataset)
val_dataloader = dict(dataset=dataset)
test_dataloader = val_dataloader
train_cfg = dict(max_iters=2, val_interval=9)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=9, save_last=False))
"""
STARTS = {
    'detector': (DETECTOR, 'Epoch(train)', 'MaskRCNN, backbone WaveMLP (t-dw), ', 'CocoDataset'),
    'segmentor': (SEGMENTOR, 'Iter(train)', 'EncoderDecoder, backbone WaveMLP (', 'BaseSegDataset'),
}


@pytest.mark.slow
@pytest.mark.parametrize('processes', [1, pytest.param(2, marks=pytest.mark.dist)])
@pytest.mark.parametrize('task', STARTS)
def test_a_start_is_a_few_lines(shapes, tmp_path, task, processes):
    text, line, model, dataset = STARTS[task]
    config, work = tmp_path / 'config.py', tmp_path / 'work'
    config.write_text(text.format(root=ROOT, data=shapes))
    command = (TRAIN, config, 2) if processes == 2 else (sys.executable, 'tools/train.py', config)
    done = call(*command, '--work-dir', work, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    check_start(done, work, config, line)
    assert re.search(rf'model +{re.escape(model)}', done.stdout)
    assert re.search(rf'train data +{dataset}, 8 samples, [56] classes \(', done.stdout)
    assert re.search(rf'val data +{dataset}, 4 samples, [56] classes \(', done.stdout)
    assert re.search(r'weights +from scratch\n', done.stdout)
    assert 'Could not import OneDL' not in done.stdout


NOISY = """
import os
import warnings

from mmengine.hooks import Hook
from mmengine.registry import HOOKS

print('printed at import')
warnings.warn('given everywhere')
if os.environ.get('RANK') == '1':
    warnings.warn('given in the second process')


@HOOKS.register_module()
class NoisyHook(Hook):
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        warnings.warn('given in the first step')
"""


@pytest.mark.dist
def test_each_warning_is_shown_once(colours, tmp_path):
    (tmp_path / 'noisy.py').write_text(NOISY)
    with colours.open('a') as file:
        file.write("custom_imports = dict(imports=['noisy'])\n")
        file.write("custom_hooks = [dict(type='NoisyHook')]\n")
    work = tmp_path / 'work'
    command = (colours, 2, '--work-dir', work, '--cfg-options', 'train_cfg.max_epochs=1')
    path = f'{tmp_path}{os.pathsep}{os.environ.get("PYTHONPATH", "")}'
    done = call(TRAIN, *command, timeout=300, PYTHONPATH=path)
    assert done.returncode == 0, done.stderr[-3000:]
    # Once more by the process that checks the config before the others are started.
    assert done.stderr.count('given everywhere') == 2
    assert done.stderr.count('given in the second process') == 1
    assert re.search('process 1: .*given in the second process', done.stderr)
    assert done.stderr.count('given in the first step') == 1
    assert 'printed at import' not in done.stdout
    (log,) = work.glob('*/*.log')
    for text in (
        'printed at import',
        'UserWarning: given everywhere',
        'UserWarning: given in the second process',
        'UserWarning: given in the first step',
    ):
        assert log.read_text().count(text) == 1


def test_verbose_brings_all_of_it_back(colours, tmp_path):
    command = (sys.executable, 'tools/train.py', colours, '--work-dir', tmp_path / 'work')
    done = call(*command, '--verbose', '--cfg-options', 'train_cfg.max_epochs=1', timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    start = '\n'.join(log_until(done, 'Epoch(train)'))
    for part in ('Build settings:', 'Config:', 'Hooks will be executed', 'FileClient'):
        assert part in start


@pytest.mark.dist
def test_two_processes_train_evaluate_resume_and_test(colours, tmp_path):
    """The path of every run: launcher, gloo, bfloat16, validation, resuming, testing."""
    work = tmp_path / 'work'
    done = call(TRAIN, colours, 2, '--work-dir', work, '--amp', timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    log = done.stdout + done.stderr
    assert 'no GPU here, running on the CPU: AMP -> bfloat16 autocast, DDP over 2 processes' in log
    assert (work / 'epoch_4.pth').is_file()
    check_start(done, work, colours)
    assert re.search(r'batch +4 samples x 2 processes = 8\n', log)

    longer = ('--cfg-options', 'train_cfg.max_epochs=5')
    done = call(TRAIN, colours, 2, '--work-dir', work, '--resume', *longer, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    log = done.stdout + done.stderr
    assert 'Epoch(train) [5][' in log.replace('  ', ' ')
    assert 'Epoch(train) [4][' not in log.replace('  ', ' ')
    path = work / 'epoch_4.pth'
    assert re.search(rf'weights +loaded (\d+) of \1 tensors from the checkpoint {path}\n', log)
    assert re.search(r'length +5 epochs of 4 iterations, goes on after 4\n', log)

    outputs = ('--show-dir', tmp_path / 'shown', '--out', tmp_path / 'out.pkl')
    command = ('tools/dist_test.sh', colours, work / 'epoch_5.pth', 2)
    done = call(*command, '--work-dir', tmp_path / 'test', *outputs, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    start = log_until(done, 'Epoch(test)')
    assert len(start) <= 15
    assert re.search(r'test data +ImageNet, 16 samples, 2 classes \(blue, red\)\n', done.stdout)
    assert re.search(r'weights +loaded (\d+) of \1 tensors from the checkpoint ', done.stdout)
    # Twenty steps: enough to run, not to settle the statistics of batch norms.
    assert re.search(r'Epoch\(test\) \[1/1\] +accuracy/top1: [\d.]+', done.stdout + done.stderr)
    assert len(list((tmp_path / 'shown').rglob('*.png'))) == 16
    assert (tmp_path / 'out.pkl').stat().st_size > 0


@pytest.mark.slow
def test_resumed_equals_uninterrupted(colours, tmp_path):
    """Bit for bit the same after four epochs, or after two and another two."""

    def run(work, *options):
        command = (sys.executable, 'tools/train.py', colours, '--work-dir', tmp_path / work)
        done = call(*command, *options, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]

    run('whole')
    run('parts', '--cfg-options', 'train_cfg.max_epochs=2')
    run('parts', '--resume')
    whole, parts = (read_checkpoint(tmp_path / work / 'epoch_4.pth') for work in ('whole', 'parts'))
    first = read_checkpoint(tmp_path / 'parts/epoch_2.pth')['state_dict']
    assert not torch.equal(first['head.fc.weight'], whole['state_dict']['head.fc.weight'])
    for name, tensor in whole['state_dict'].items():
        assert torch.equal(tensor, parts['state_dict'][name]), name
    moments = [c['optimizer']['state'] for c in (whole, parts)]
    for key, state in moments[0].items():
        assert torch.equal(state['exp_avg_sq'], moments[1][key]['exp_avg_sq'])


def test_errors_of_a_single_process(colours, tmp_path):
    evil = tmp_path / 'evil.pth'
    torch.save({'state_dict': {}, 'x': Path}, evil)
    weights = tmp_path / 'weights.pth'
    torch.save({'state_dict': {'a': torch.ones(1)}}, weights)
    for arguments, message in (
        (['tools/test.py', colours, tmp_path / 'no.pth'], 'no such checkpoint'),
        (['tools/train.py', colours, '--resume', tmp_path / 'no.pth'], 'no such checkpoint'),
        (['tools/test.py', colours, evil], '--trust-checkpoint'),
        (['tools/test.py', colours, evil, '--out', 'scores.csv'], 'written to a .pkl file'),
        (['tools/test.py', colours, weights], '; at least 100% must match'),
        (['tools/train.py', colours, '--resume', weights], 'holds weights only'),
    ):
        done = call(sys.executable, *arguments, '--work-dir', tmp_path / 'work')
        assert done.returncode == 2, done.stderr[-2000:]
        (line,) = [x for x in done.stderr.splitlines() if x.startswith('error:')]
        assert message in line
        assert 'Traceback' not in done.stderr


WITHOUT = """
import runpy, sys
missing, *sys.argv = sys.argv[1:]
class Missing:
    def find_spec(name, path=None, target=None):
        if name == missing:
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)
sys.meta_path.insert(0, Missing)
runpy.run_path(sys.argv[0], run_name='__main__')
"""


@pytest.mark.parametrize(
    ('library', 'command', 'extra'),
    [
        ('mmpretrain', ['to_deploy.py', CONFIG, 'IN.pth', 'OUT.pth'], 'cls'),
    ],
)
def test_a_missing_library_is_named_with_its_extra(library, command, extra, tmp_path):
    torch.save({'state_dict': {'weight': torch.zeros(1)}}, tmp_path / 'in.pth')
    files = {'OUT': str(tmp_path / 'out'), 'IN': str(tmp_path / 'in')}
    tool, *rest = (re.sub('OUT|IN', lambda m: files[m[0]], part) for part in command)
    done = call(sys.executable, '-c', WITHOUT, library, f'tools/{tool}', *rest)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1] == (
        f"error: {library} is not installed: pip install 'mmwave-suite[{extra}]'"
    )
