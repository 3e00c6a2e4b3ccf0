"""The hook in runs of this process, and what it makes of them."""

import threading
from collections import namedtuple
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.registry import HOOKS

from mmwave.apis import prepare_training, train
from mmwave.engine.hooks import WatchHook
from mmwave.engine.watching import hook as module
from mmwave.engine.watching import timeouts
from mmwave.engine.watching.beats import Beats
from mmwave.engine.watching.ending import UnavailableError
from mmwave.engine.watching.watch import Watch
from mmwave.errors import UserError
from tests.engine.watching.test_beats import Store
from tests.tiny_run import write_run

pytestmark = pytest.mark.usefixtures('own_loader')


def run(folder, **options):
    cfg = prepare_training(
        str(write_run(folder)), work_dir=str(folder / 'work'), cfg_options=options
    )
    return train(cfg)


def log_of(runner):
    with open(runner.logger.log_file) as file:
        return file.read()


def watching_threads():
    return [thread for thread in threading.enumerate() if thread.name == 'mmwave-watch']


def test_a_run_is_watched_to_its_end(tmp_path, monkeypatch):
    seen = []

    class Witness(Hook):
        def after_train_iter(self, *args, **kwargs):
            seen.append((len(watching_threads()), hook()._watch.doing))

    def hook():
        return next(h for h in made if isinstance(h, WatchHook))

    made = []
    init = WatchHook.__init__

    def noted(self, *args, **more):
        made.append(self)
        init(self, *args, **more)

    monkeypatch.setattr(WatchHook, '__init__', noted)
    with monkeypatch.context() as patch:
        patch.setitem(HOOKS.module_dict, 'Witness', Witness)
        runner = run(tmp_path, custom_hooks=[dict(type='Witness', priority='LOWEST')])
    assert [count for count, _ in seen] == [1] * 4
    assert 'step 4' in seen[-1][1]
    assert not watching_threads()
    assert 'save_checkpoint' not in runner.__dict__
    # What our tools add is not written down; the timeout stands in the config.
    text = (tmp_path / 'work/tiny.py').read_text()
    assert 'WatchHook' not in text
    assert 'timeout=300' in text.replace(' ', '')


@pytest.mark.parametrize('workers', [0, 1])
def test_loaders_with_workers_get_the_timeout(tmp_path, workers):
    runner = run(tmp_path, **{'train_dataloader.num_workers': workers})
    assert runner.train_dataloader.timeout == (300 if workers else 0)
    assert runner.val_dataloader.timeout == 0
    assert '\n    timeout=' not in (tmp_path / 'work/tiny.py').read_text()


def test_an_error_of_a_loader_is_one_line(tmp_path, monkeypatch):
    class Late(Hook):
        def after_train_iter(self, *args, **kwargs):
            raise RuntimeError('DataLoader timed out after 300 seconds')

    with monkeypatch.context() as patch:
        patch.setitem(HOOKS.module_dict, 'Late', Late)
        with pytest.raises(UnavailableError, match='no batch came within 300 s'):
            run(tmp_path, custom_hooks=[dict(type='Late')])
    assert not watching_threads()
    (log,) = (tmp_path / 'work').glob('*/*.log')
    assert 'no batch came within 300 s' in log.read_text()


def test_other_errors_stay(tmp_path, monkeypatch):
    class Failing(Hook):
        def after_train_iter(self, *args, **kwargs):
            raise RuntimeError('something else')

    with monkeypatch.context() as patch:
        patch.setitem(HOOKS.module_dict, 'Failing', Failing)
        with pytest.raises(RuntimeError, match='something else') as caught:
            run(tmp_path, custom_hooks=[dict(type='Failing')])
    assert type(caught.value) is RuntimeError
    assert not watching_threads()


@pytest.mark.parametrize('share', [0, 1.5, True, -1])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(UserError, match='slow_share must be above 0 and at most 1'):
        WatchHook(slow_share=share)


Loader = namedtuple('Loader', 'num_workers')


def steps(hook, number, loading, total=1.0, workers=2):
    """Have a runner make steps of which loading takes so many seconds; return the warnings."""
    said = []
    scalars = {name: HistoryBuffer() for name in ('train/data_time', 'train/time')}
    runner = SimpleNamespace(
        iter=0,
        message_hub=SimpleNamespace(log_scalars=scalars),
        logger=SimpleNamespace(warning=said.append),
        train_dataloader=Loader(workers),
    )
    for _ in range(number):
        scalars['train/data_time'].update(loading)
        scalars['train/time'].update(total)
        hook.after_train_iter(runner, 0)
    return said


def test_a_slow_loader_is_told_once():
    hook = WatchHook()
    assert steps(hook, 119, loading=0.4) == []
    (line,) = steps(hook, 1000, loading=0.4)
    assert line.startswith('40% of the time of the last 100 steps went by waiting for data: raise ')
    assert 'train_dataloader.num_workers=2' in line
    assert steps(hook, 1000, loading=0.4) == []


def test_a_fast_loader_is_not_told():
    assert steps(WatchHook(), 1000, loading=0.29) == []
    assert steps(WatchHook(slow_share=0.5), 1000, loading=0.45) == []
    assert len(steps(WatchHook(), 1000, loading=0.31, workers=0)) == 1


def test_the_first_process_speaks_for_all(monkeypatch):
    hook, store = WatchHook(), Store()
    Beats(store, 1, 2).send(share=0.6)
    beats = Beats(store, 0, 2)
    beats.look(0)
    hook._watch = Watch(100, beats, logger=None, end=None)
    (line,) = steps(hook, 120, loading=0.1)
    assert line.startswith('60% of the time of the last 100 steps went by waiting for data in proc')
    other = WatchHook()
    monkeypatch.setattr(module, 'get_rank', lambda: 1)
    assert steps(other, 120, loading=0.9) == []


def test_processes_are_waited_for_longer_between_steps(tmp_path, monkeypatch):
    """Around a validation, a checkpoint and the first step of an epoch."""
    changes, at = [], []
    monkeypatch.setattr(timeouts, 'set_group_timeout', changes.append)

    class Witness(Hook):
        def before_train_iter(self, *args, **kwargs):
            at.append(changes[-1])

        def before_val_epoch(self, *args, **kwargs):
            at.append(f'val {changes[-1]}')

    with monkeypatch.context() as patch:
        patch.setitem(HOOKS.module_dict, 'Witness', Witness)
        run(
            tmp_path,
            custom_hooks=[dict(type='Witness', priority='LOWEST')],
            **{
                'train_cfg.max_epochs': 2,
                'env_cfg.dist_cfg.timeout': 50,
                'default_hooks.checkpoint.by_epoch': False,
                'default_hooks.checkpoint.interval': 2,
            },
        )
    day = 24 * 3600
    # The third step of four follows a checkpoint.
    epoch = [day, 50, day, 50, f'val {day}']
    assert at == epoch * 2
    assert changes[-1] == 50


def test_the_timeout_of_a_compiled_model_is_short_later():
    model = torch.nn.Sequential(torch.nn.Linear(1, 1))
    assert not module._is_compiled(model)
    model[0].compile()
    assert module._is_compiled(model)
