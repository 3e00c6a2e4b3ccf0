"""Checkpoints that torch reads in any program, and that other programs of OpenMMLab take."""

import importlib.util
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.hooks import EMAHook, Hook
from mmengine.runner import CheckpointLoader

from mmwave.apis import prepare_training, train
from mmwave.engine.checkpoints.plain import HISTORIES
from mmwave.engine.hooks import PlainCheckpointHook, ResumeCheckHook
from tests.engine.checkpoints.runs import Points, run
from tests.faults.tasks import write_task
from tests.loaders import loader_restored

pytestmark = pytest.mark.usefixtures('own_loader')

# A program of torch alone.
READ = """
import sys, torch
for path in sys.argv[1:]:
    print(*torch.load(path, weights_only=True))
print([name for name in sys.modules if name.startswith('mm') and name != 'mmap'])
"""


class Described(Points):
    metainfo = {'classes': ('a', 'b'), 'palette': np.arange(6).reshape(2, 3)}


class Noting(Hook):
    """Put numbers of NumPy where metrics put them."""

    def __init__(self, value=None):
        self.value = np.float32(0.5) if value is None else value

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        runner.message_hub.update_scalar('train/noted', np.float32(runner.iter))
        runner.message_hub.update_info('noted', self.value)


def described(work, *args, plain=True, hooks=(), **options):
    """A run with an average, whose data set is described by an array."""
    own = [PlainCheckpointHook()] if plain else []
    runner = run(work, *args, hooks=[EMAHook(), Noting(), *own, *hooks], **options)
    runner._train_dataloader['dataset'] = Described()
    return runner


def log_of(work):
    return ''.join(path.read_text() for path in work.rglob('*.log'))


def test_torch_alone_reads_them(tmp_path):
    described(tmp_path, save_best=None, max_keep_ckpts=2).train()
    paths = sorted(tmp_path.glob('*.pth'))
    done = subprocess.run(
        [sys.executable, '-c', READ, *map(str, paths)], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    *parts, modules = done.stdout.splitlines()
    assert modules == '[]'
    assert len(parts) == len(paths) == 2
    for line in parts:
        assert {'state_dict', 'ema_state_dict', 'optimizer', 'message_hub'} <= set(line.split())


def test_without_the_hook_torch_refuses(tmp_path):
    described(tmp_path, 1, plain=False).train()
    with pytest.raises(Exception, match=r'HistoryBuffer|numpy'):
        torch.load(tmp_path / 'epoch_1.pth', weights_only=True)


@pytest.mark.parametrize('before', ['plain', 'stock'])
@pytest.mark.parametrize('now', ['ours', 'stock'])
def test_resuming(tmp_path, before, now):
    """Of either form, by mmengine's Runner and by one that restores the histories."""
    first = described(tmp_path / 'a', 2, plain=before == 'plain')
    first.train()
    path = tmp_path / 'a' / 'epoch_2.pth'
    hooks = [ResumeCheckHook()] if now == 'ours' else []
    second = described(tmp_path / 'b', 3, hooks=hooks, resume=True, load_from=str(path))
    second.train()
    assert second.iter == 6
    whole = described(tmp_path / 'c', 3)
    whole.train()
    contents = [
        torch.load(tmp_path / name / 'epoch_3.pth', weights_only=True) for name in ('b', 'c')
    ]
    for part in ('state_dict', 'ema_state_dict', 'optimizer'):
        torch.testing.assert_close(*(c[part] for c in contents), rtol=0, atol=0)
    noted, all_noted = (c['message_hub'][HISTORIES]['train/noted']['values'] for c in contents)
    lost = now == 'stock' and before == 'plain'
    assert noted.tolist() == all_noted.tolist()[4 if lost else 0 :]
    log = log_of(tmp_path / 'b')
    assert 'message_hub' not in log
    if now == 'ours':
        assert 'dataset metainfo' not in log


def test_what_has_no_plain_form_is_warned_of_once(tmp_path):
    described(tmp_path, 2, hooks=[Noting(Namespace(a=1))]).train()
    (line,) = [x for x in log_of(tmp_path).splitlines() if 'weights_only' in x]
    assert 'message_hub.runtime_info.noted of type argparse.Namespace' in line


def test_an_entry_that_holds_itself_is_written(tmp_path):
    endless = []
    endless.append(endless)

    class Endless(Hook):
        def before_save_checkpoint(self, runner, checkpoint):
            checkpoint['endless'] = endless

    described(tmp_path, 1, hooks=[Endless()]).train()
    assert 'an entry that holds itself' in log_of(tmp_path)
    assert (tmp_path / 'epoch_1.pth').is_file()


def test_hooks_of_the_same_priority_come_first(tmp_path):
    """Those of a config are in front of the tools' own, which RunConfig appends."""

    class Last(Hook):
        priority = 'LOWEST'

        def before_save_checkpoint(self, runner, checkpoint):
            checkpoint['late'] = np.float64(1.0)

    runner = run(tmp_path, 1, hooks=[Last(), PlainCheckpointHook()])
    runner.train()
    assert torch.load(tmp_path / 'epoch_1.pth', weights_only=True)['late'] == 1.0


# -- Programs of others, on the checkpoint of a segmentor --------------------------------------


@pytest.fixture(scope='module')
def segmentor(tmp_path_factory):
    """A config, and the checkpoint of a training with several rates, an average and AMP."""
    folder = tmp_path_factory.mktemp('segmentor')
    config = write_task(folder, 'segmentation', length=1)
    options = {
        'optim_wrapper.paramwise_cfg': dict(custom_keys={'backbone': dict(lr_mult=0.1)}),
        'optim_wrapper.type': 'AmpOptimWrapper',
        'optim_wrapper.dtype': 'bfloat16',
    }
    with loader_restored():
        cfg = prepare_training(str(config), work_dir=str(folder / 'work'), cfg_options=options)
        train(cfg)
    return config, folder / 'work' / 'epoch_1.pth'


@pytest.mark.slow
def test_mmseg_s_inferencer_reads_them_safely(segmentor, capsys, caplog):
    from mmseg.apis import MMSegInferencer

    config, path = segmentor
    content = torch.load(path, weights_only=True)
    assert len({group['lr'] for group in content['optimizer']['param_groups']}) == 2
    assert CheckpointLoader._schemes[''].__name__ == 'load_from_local'
    assert 'mmengine' in CheckpointLoader._schemes[''].__module__
    inferencer = MMSegInferencer(model=str(config), weights=str(path), device='cpu')
    found = inferencer(np.zeros((64, 64, 3), np.uint8), return_datasamples=True)
    assert found.pred_sem_seg.data.shape[-2:] == (64, 64)
    told = capsys.readouterr()
    assert 'safely' not in told.out + told.err + caplog.text


SCRIPTS = {
    'mmdet': 'model_converters/publish_model.py',
    'mmseg': 'misc/publish_model.py',
    'mmpretrain': 'model_converters/publish_model.py',
}


@pytest.mark.slow
@pytest.mark.parametrize('library', SCRIPTS)
def test_stock_scripts_publish_them(segmentor, tmp_path, library):
    """As the scripts call them: mmpretrain's has its options besides."""
    (folder,) = importlib.util.find_spec(library).submodule_search_locations
    path = Path(folder, '.mim/tools', SCRIPTS[library])
    spec = importlib.util.spec_from_file_location(f'publish_of_{library}', path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    options = [Namespace(no_ema=False, dataset_type=None)] if library == 'mmpretrain' else []
    script.process_checkpoint(str(segmentor[1]), str(tmp_path / 'model.pth'), *options)
    deadline = time.monotonic() + 60
    while not (written := list(tmp_path.glob('model*-*.pth'))) and time.monotonic() < deadline:
        time.sleep(0.05)  # mmdet's and mmseg's rename it in a process that they do not wait for
    (file,) = written
    assert 'state_dict' in torch.load(file, weights_only=True)
