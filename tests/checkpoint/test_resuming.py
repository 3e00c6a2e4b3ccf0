"""What mmengine reads through its checkpoint loader, and a run that goes on from a checkpoint."""

import http.server
import os
import threading

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.runner import CheckpointLoader, Runner, load_checkpoint
from mmengine.runner import checkpoint as mm_checkpoint
from torch import nn
from torch.utils.data import Dataset

from mmwave.checkpoint import UntrustedCheckpointError, read_checkpoint, register_safe_loader

from .files import Calls


@pytest.fixture
def marker(tmp_path):
    return tmp_path / 'payload_ran'


def payload(marker):
    return Calls(os.system, f'touch {marker}')


@pytest.fixture
def website(tmp_path, monkeypatch):
    """A folder, and the address it is served at."""
    folder = tmp_path / 'site'
    folder.mkdir()
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args):
            """Quiet."""

    with http.server.HTTPServer(('127.0.0.1', 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f'http://127.0.0.1:{server.server_port}'
        server.shutdown()


def test_mmengine_refuses_a_payload_that_it_would_run(tmp_path, marker, own_loader):
    path = tmp_path / 'evil.pth'
    weights = {'layer.weight': torch.ones(1)}
    torch.save({'state_dict': weights, 'x': payload(marker)}, path)
    register_safe_loader()
    with pytest.raises(UntrustedCheckpointError, match=r'posix\.system'):
        load_checkpoint(nn.Linear(1, 1), str(path))
    assert not marker.exists()
    register_safe_loader(trust=True)
    load_checkpoint(nn.Linear(1, 1), str(path))
    assert marker.exists()


def test_mmengine_reads_downloads_safely(website, marker, own_loader, monkeypatch):
    folder, address = website
    torch.save({'x': payload(marker)}, folder / 'evil.pth')
    torch.save({'a': torch.ones(2)}, folder / 'good.pth')
    register_safe_loader()
    with pytest.raises(UntrustedCheckpointError, match=r'posix\.system'):
        CheckpointLoader.load_checkpoint(f'{address}/evil.pth')
    good = CheckpointLoader.load_checkpoint(f'{address}/good.pth?version=1')
    assert torch.equal(good['a'], torch.ones(2))
    zoo = {'evil': f'{address}/evil.pth'}
    monkeypatch.setattr(mm_checkpoint, 'get_torchvision_models', lambda: zoo)
    with pytest.raises(UntrustedCheckpointError, match=r'posix\.system'):
        CheckpointLoader.load_checkpoint('torchvision://evil')
    assert not marker.exists()


@pytest.mark.parametrize('path', ['s3://b/x.pth', 'petrel://b/x.pth', 'c:s3://x', 'pavi://x'])
def test_mmengine_reads_no_object_stores(own_loader, path):
    register_safe_loader()
    with pytest.raises(ValueError, match='cannot be read safely'):
        CheckpointLoader.load_checkpoint(path)


class Points(Dataset):
    METAINFO = {'classes': ('a', 'b'), 'palette': np.arange(6).reshape(2, 3)}
    metainfo = METAINFO

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return {'inputs': torch.ones(3)}  # all alike: a resumed run sees what a whole one sees


class Regression(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, inputs, mode='tensor'):
        return {'loss': self.layer(torch.stack(list(inputs))).square().mean()}


def runner(work_dir, name, iterations, **kwargs):
    torch.manual_seed(0)
    return Runner(
        model=Regression(),
        work_dir=str(work_dir / name),
        experiment_name=name,
        train_dataloader={
            'batch_size': 2,
            'dataset': Points(),
            'sampler': {'type': 'InfiniteSampler', 'shuffle': False},
            'num_workers': 0,
        },
        train_cfg={'by_epoch': False, 'max_iters': iterations},
        optim_wrapper={'optimizer': {'type': 'AdamW', 'lr': 1e-3}},
        param_scheduler={'type': 'LinearLR', 'by_epoch': False, 'start_factor': 0.5, 'end': 9},
        default_hooks={
            'checkpoint': {'type': 'CheckpointHook', 'by_epoch': False, 'interval': 1},
            'logger': {'type': 'LoggerHook', 'interval': 1},
        },
        custom_hooks=[EMAHook(momentum=0.5)],
        randomness={'seed': 1},
        env_cfg={'mp_cfg': {'mp_start_method': 'fork'}},
        default_scope='mmengine',
        **kwargs,
    )


def test_a_checkpoint_of_mmengines_runner_resumes(tmp_path, marker, own_loader):
    register_safe_loader()
    runner(tmp_path, 'first', 2).train()
    path = tmp_path / 'first' / 'iter_2.pth'
    saved = read_checkpoint(path)
    assert type(saved['message_hub']['log_scalars']['train/loss']) is HistoryBuffer
    assert set(saved) >= {'state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers'}

    # mmengine runs the text of this entry when resuming.
    text = f'import pathlib\npathlib.Path({str(marker)!r}).touch()\ngpu_ids = None\n'
    Config.fromstring(text, '.py')
    assert marker.exists()
    marker.unlink()
    saved['meta']['config'] = text
    torch.save(saved, path)

    second = runner(tmp_path, 'second', 3, resume=True, load_from=str(path))
    second.train()
    assert not marker.exists()
    assert second.iter == 3
    losses = second.message_hub.get_scalar('train/loss').data[0]
    assert len(losses) == 3
    np.testing.assert_array_equal(
        losses[:2], saved['message_hub']['log_scalars']['train/loss'].data[0]
    )
    runner(tmp_path, 'whole', 3).train()
    resumed = read_checkpoint(tmp_path / 'second' / 'iter_3.pth')
    whole = read_checkpoint(tmp_path / 'whole' / 'iter_3.pth')
    assert resumed['param_schedulers'] == whole['param_schedulers']
    for part in ('state_dict', 'ema_state_dict', 'optimizer'):
        torch.testing.assert_close(resumed[part], whole[part], rtol=0, atol=0)
