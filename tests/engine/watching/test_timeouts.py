"""Timeouts of processes and of data loaders, as a run gets them."""

from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config

from mmwave.engine import process_group
from mmwave.engine.cpu import adapt_to_cpu
from mmwave.engine.watching import timeouts
from mmwave.engine.watching.timeouts import (
    SECONDS_AN_IMAGE,
    TIMEOUT,
    Patience,
    saving_patiently,
    settle_timeouts,
    timeout_of,
)
from mmwave.errors import UserError
from tests.contracts import ROOT


@pytest.mark.parametrize('library', ['mmdet', 'mmpretrain', 'mmseg'])
def test_it_stands_in_the_configs(library):
    cfg = Config.fromfile(ROOT / f'configs/_base_/runtime/{library}.py')
    assert cfg.env_cfg.dist_cfg.timeout == TIMEOUT


@pytest.mark.parametrize('given', [{}, {'env_cfg': {}}, {'env_cfg': {'dist_cfg': None}}])
def test_a_config_without_one_gets_it(given):
    cfg = Config(given)
    settle_timeouts(cfg)
    assert cfg.env_cfg.dist_cfg.timeout == TIMEOUT


@pytest.mark.parametrize('value', [0, -1, True, '300', float('nan'), float('inf')])
def test_what_is_no_time_is_refused(value):
    cfg = Config(dict(env_cfg=dict(dist_cfg=dict(timeout=value))))
    with pytest.raises(UserError, match=r'env_cfg\.dist_cfg\.timeout must be a number of seconds'):
        timeout_of(cfg)


def test_loaders_with_workers_get_one():
    cfg = Config(
        dict(
            env_cfg=dict(dist_cfg=dict(timeout=20)),
            train_dataloader=dict(batch_size=4, num_workers=2),
            val_dataloader=dict(batch_size=4, num_workers=0),
            test_dataloader=dict(batch_size=4, num_workers=2, timeout=0),
        )
    )
    settle_timeouts(cfg)
    assert cfg.train_dataloader.timeout == 20
    assert 'timeout' not in cfg.val_dataloader  # torch refuses one
    assert cfg.test_dataloader.timeout == 0
    large = Config(dict(train_dataloader=dict(batch_size=1000, num_workers=1)))
    settle_timeouts(large)
    assert large.train_dataloader.timeout == 1000 * SECONDS_AN_IMAGE > TIMEOUT


def test_it_reaches_the_process_group(monkeypatch):
    calls = []
    monkeypatch.setattr(torch.distributed, 'is_initialized', lambda: False)
    monkeypatch.setattr(torch.distributed, 'get_world_size', lambda: 2)
    monkeypatch.setattr(
        torch.distributed,
        'init_process_group',
        lambda *args, **kwargs: calls.append((args, kwargs)),
    )
    adapt_to_cpu(Config(dict(env_cfg=dict(dist_cfg=dict(timeout=40)))), 'pytorch')
    assert calls == [(('gloo',), dict(timeout=timedelta(seconds=40)))]


@pytest.fixture
def changes(monkeypatch):
    """The timeouts that the group was given, in order."""
    found = []
    monkeypatch.setattr(timeouts, 'set_group_timeout', found.append)
    return found


def test_the_others_are_waited_for_until_the_next_step(changes):
    patience = Patience(10, first_steps=2)
    patience.extend()
    patience.step_done()
    assert changes == [24 * 3600]
    patience.step_done()
    assert changes.pop() == 10
    patience.step_done()
    assert len(changes) == 1
    patience.extend()
    patience.extend()
    assert changes == [24 * 3600] * 2
    patience.step_done()
    assert changes[2:] == [10]


def test_saving_is_waited_for(changes):
    saved = []
    runner = SimpleNamespace(save_checkpoint=saved.append)
    inner = runner.save_checkpoint
    with saving_patiently(runner, Patience(10, 1)):
        runner.save_checkpoint('a')
    assert saved == ['a']
    assert changes == [24 * 3600]
    del inner


def test_a_group_s_timeout_changes(monkeypatch):
    """Of torch's two backends that can; others are left alone."""
    calls = []
    monkeypatch.setattr(torch.distributed, 'is_initialized', lambda: True)
    monkeypatch.setattr(torch.distributed, 'set_timeout', calls.append, raising=False)
    for backend in ('gloo', 'nccl', 'mpi'):
        monkeypatch.setattr(torch.distributed, 'get_backend', lambda backend=backend: backend)
        process_group.set_group_timeout(7)
    assert calls == [timedelta(seconds=7)] * 2
