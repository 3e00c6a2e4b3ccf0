"""A run that is asked to leave saves where it stands, and the one that resumes goes on from there.

With real processes: ``tests/faults/test_preemption.py``.
"""

import os
import signal
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from torch import nn

from mmwave.apis import prepare_training, train
from mmwave.checkpoint import read_checkpoint
from mmwave.engine.exit_codes import PREEMPTED
from mmwave.engine.hooks import PreemptionHook, preemption
from mmwave.engine.signals import Notice, Preempted
from mmwave.errors import UserError
from tests.faults.tasks import write_task

pytestmark = pytest.mark.usefixtures('own_loader')
EPOCH = 4  # iterations
LENGTH = {True: 3, False: 3 * EPOCH}


@HOOKS.register_module()
class SignalHook(Hook):
    """Send this process a signal at one of its points, once."""

    point = ('', 0)
    calls: list = []

    def before_train(self, runner):
        self._at('start', runner.iter)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self._at('train', runner.iter)

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self._at('val', batch_idx)

    def after_val_epoch(self, runner, metrics=None):
        self.calls.append(runner.iter)

    def _at(self, *point):
        if point == SignalHook.point:
            SignalHook.point = ('', 0)
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(autouse=True)
def _fresh():
    SignalHook.point, SignalHook.calls = ('', 0), []


def write(folder, by_epoch=True):
    return write_task(
        folder, by_epoch=by_epoch, length=LENGTH[by_epoch], num_images=EPOCH,
        interval=None if by_epoch else EPOCH,
    )  # fmt: skip


def run(config, work, resume=None, **options):
    run.count = getattr(run, 'count', 0) + 1
    options = {
        'experiment_name': f'preempted{run.count}-{work.name}',
        'custom_hooks': [dict(type='EMAHook', momentum=0.1), dict(type='SignalHook')],
        **options,
    }
    cfg = prepare_training(str(config), work_dir=str(work), resume=resume, cfg_options=options)
    return train(cfg)


@pytest.fixture(params=[True, False], ids=['by epoch', 'by iteration'])
def by_epoch(request):
    return request.param


def test_saves_between_two_steps(tmp_path, by_epoch):
    config, work = write(tmp_path, by_epoch), tmp_path / 'work'
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)]
    SignalHook.point = ('train', EPOCH + 1)
    with pytest.raises(Preempted) as left:
        run(config, work, **{'default_hooks.checkpoint.save_optimizer': False})
    assert left.value.code == PREEMPTED
    assert left.value.together
    path = work / f'iter_{EPOCH + 2}.pth'
    assert str(left.value) == (
        f'left at SIGTERM after iteration {EPOCH + 2}: --resume goes on from {path}'
    )
    assert (work / 'last_checkpoint').read_text() == str(path)
    saved = read_checkpoint(path)
    assert saved['meta']['iter'] == EPOCH + 2
    assert saved['meta']['epoch'] == (1 if by_epoch else 0)
    assert saved['optimizer']['state']
    assert str(left.value) in next(work.glob('*/*.log')).read_text()
    assert handlers == [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)]

    runner = run(config, work, 'auto')
    assert runner.iter >= LENGTH[True] * EPOCH
    # It went on, and the later checkpoints took the place of the file.
    assert not path.exists()
    name = 'epoch_3.pth' if by_epoch else f'iter_{3 * EPOCH}.pth'
    assert (work / 'last_checkpoint').read_text() == str(work / name)


def test_a_second_one_takes_the_place_of_the_first(tmp_path):
    config, work = write(tmp_path, by_epoch=False), tmp_path / 'work'
    for step in (1, 2):
        SignalHook.point = ('train', step)
        with pytest.raises(Preempted):
            run(config, work, 'auto')
        assert [p.name for p in work.glob('iter_*.pth')] == [f'iter_{step + 1}.pth']


def test_a_regular_checkpoint_of_the_same_name_remains(tmp_path):
    config, work = write(tmp_path, by_epoch=False), tmp_path / 'work'
    SignalHook.point = ('train', EPOCH - 1)
    options = {'train_cfg.val_begin': 100, 'default_hooks.checkpoint.max_keep_ckpts': 3}
    with pytest.raises(Preempted):
        run(config, work, **options)
    run(config, work, 'auto', **options)
    names = {f'iter_{count * EPOCH}.pth' for count in (1, 2, 3)}
    assert {path.name for path in work.glob('iter_*.pth')} == names


def test_it_takes_no_regular_checkpoint_s_place(tmp_path):
    config, work = write(tmp_path, by_epoch=False), tmp_path / 'work'
    SignalHook.point = ('train', EPOCH + 1)
    with pytest.raises(Preempted):
        run(config, work, **{'default_hooks.checkpoint.max_keep_ckpts': 1})
    names = {f'iter_{EPOCH}.pth', f'iter_{EPOCH + 2}.pth'}
    assert {path.name for path in work.glob('iter_*.pth')} == names


def test_before_the_first_step_nothing_is_saved(tmp_path):
    SignalHook.point = ('start', 0)
    expected = r'left at SIGTERM without saving \(before the first step\): --resume goes on from'
    with pytest.raises(Preempted, match=expected):
        run(write(tmp_path), tmp_path / 'work')
    assert not list((tmp_path / 'work').glob('*.pth'))
    # Several processes agree to leave ahead of their first step.
    saved = PreemptionHook()._save(SimpleNamespace(iter=0), False)
    assert saved == 'before the first step: there is nothing to save, start anew'


def test_a_validation_that_was_left_is_done_again(tmp_path, by_epoch):
    config, work = write(tmp_path, by_epoch), tmp_path / 'work'
    undisturbed = run(config, tmp_path / 'undisturbed')
    whole, SignalHook.calls = SignalHook.calls, []
    assert whole == [EPOCH, 2 * EPOCH, 3 * EPOCH]
    SignalHook.point = ('val', 0)
    with pytest.raises(Preempted, match=f'after iteration {EPOCH}: '):
        run(config, work)
    assert SignalHook.calls == []
    saved = read_checkpoint(work / f'iter_{EPOCH}.pth')
    assert saved['meta']['epoch'] == (1 if by_epoch else 0)
    resumed = run(config, work, 'auto')
    assert SignalHook.calls == whole
    assert resumed.iter == undisturbed.iter


def test_averaged_weights_are_swapped_back(tmp_path):
    """What is saved in a validation is what is saved before it."""
    config = write(tmp_path)
    kept = {}
    for point in (('val', 0), ('train', EPOCH - 1)):
        work = tmp_path / point[0]
        SignalHook.point = point
        options = {} if point[0] == 'val' else {'train_cfg.val_begin': 100}
        with pytest.raises(Preempted):
            run(config, work, **options)
        kept[point[0]] = read_checkpoint(work / f'iter_{EPOCH}.pth')
    for part in ('state_dict', 'ema_state_dict'):
        pair = kept['val'][part], kept['train'][part]
        assert pair[0].keys() == pair[1].keys()
        assert all(torch.equal(pair[0][name], pair[1][name]) for name in pair[0])


def test_the_last_validation_is_done_again(tmp_path):
    config, work = write(tmp_path), tmp_path / 'work'
    SignalHook.point = ('val', 0)
    with pytest.raises(Preempted):
        run(config, work, **{'train_cfg.val_begin': 3})
    run(config, work, 'auto')
    assert SignalHook.calls == [3 * EPOCH]
    assert list(work.glob('best_*.pth'))


def test_accumulated_gradients_are_waited_for(tmp_path):
    config, work = write(tmp_path), tmp_path / 'work'
    SignalHook.point = ('train', 0)
    with pytest.raises(Preempted, match='after iteration 3: '):
        run(config, work, **{'optim_wrapper.accumulative_counts': 3})


def test_nothing_is_saved_twice(tmp_path, monkeypatch):
    """A run that is asked before its first step goes on from where the last one left."""
    config, work = write(tmp_path), tmp_path / 'work'
    SignalHook.point = ('train', 1)
    with pytest.raises(Preempted):
        run(config, work)
    path = work / 'iter_2.pth'
    before = path.stat().st_mtime_ns
    install = Notice.install

    def asked(notice):
        install(notice)
        notice.received = signal.SIGUSR1

    monkeypatch.setattr(Notice, 'install', asked)
    with pytest.raises(Preempted, match=f'left at SIGUSR1 .* goes on from {path}'):
        run(config, work, 'auto')
    assert path.stat().st_mtime_ns == before


def test_a_full_disk_does_not_keep_the_run(tmp_path, monkeypatch):
    from mmengine.runner import Runner

    def full(*_, **__):
        raise OSError(28, 'No space left on device')

    config, work = write(tmp_path), tmp_path / 'work'
    SignalHook.point = ('train', 1)
    monkeypatch.setattr(Runner, 'save_checkpoint', full)
    with pytest.raises(Preempted, match=r'an earlier checkpoint, since saving failed: .*No space'):
        run(config, work)


def test_statistics_differ_from_the_first_epoch_on(monkeypatch):
    """AgreementHook compares the processes before it, and refuses those that differ."""
    monkeypatch.setattr(preemption, 'get_world_size', lambda: 2)
    monkeypatch.setattr(preemption, 'get_rank', lambda: 1)
    norm = nn.BatchNorm1d(2)
    runner = SimpleNamespace(model=norm, hooks=[], train_loop=None, val_loop=None, iter=3)
    hook = PreemptionHook()
    hook._buffers = [[{'running_mean': torch.full((2,), float(rank))}] for rank in range(2)]
    hook.before_train(runner)
    try:
        assert norm.running_mean.tolist() == [0, 0]
        hook.before_train_epoch(runner)
        assert norm.running_mean.tolist() == [1, 1]
    finally:
        hook.after_train(runner)


@pytest.mark.parametrize('settings', [dict(every=0), dict(grace='long')])
def test_wrong_settings(settings):
    with pytest.raises(UserError, match='expected seconds above 0'):
        PreemptionHook(**settings)
