"""A run whose checkpoints cannot be written, or are written where others lie."""

import errno
import os
import subprocess
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import CheckpointHook as MMEngineHook
from mmengine.hooks import EMAHook, Hook
from mmengine.registry import HOOKS
from mmengine.runner import find_latest_checkpoint

from mmwave.checkpoint import damage_of, read_checkpoint
from mmwave.engine.checkpoints import CheckpointHook, use_our_hook
from mmwave.engine.checkpoints.hook import MOST_FAILURES
from mmwave.engine.log_files import outlive_log_files
from mmwave.errors import UserError

from .runs import Rising, failing, run

pytestmark = pytest.mark.usefixtures('own_loader')


def names(work: Path) -> list[str]:
    """Return the files of a run, without logs."""
    return sorted(p.name for p in work.iterdir() if p.is_file() and p.suffix != '.py')


def log_of(work: Path) -> str:
    return ''.join(path.read_text() for path in work.rglob('*.log'))


def last(work: Path) -> str:
    return (work / 'last_checkpoint').read_text()


@pytest.mark.parametrize('by_epoch', [True, False])
@pytest.mark.parametrize('keep', [1, 2, -1])
def test_what_is_written_is_what_mmengine_writes(tmp_path, by_epoch, keep):
    """The same files with the same content, those of an average and the best one too."""
    for kind in ('CheckpointHook', 'mmwave.CheckpointHook'):
        Rising.score = 0.0
        options = dict(max_keep_ckpts=keep, save_best=['acc', 'mAP'], rule='greater')
        published = dict(published_keys=['state_dict'])
        hooks = [EMAHook(momentum=0.5)]
        run(tmp_path / kind, by_epoch=by_epoch, val=True, hooks=hooks, type=kind, **options,
            **published).train()  # fmt: skip
    stock, ours = tmp_path / 'CheckpointHook', tmp_path / 'mmwave.CheckpointHook'
    plain = [name for name in names(stock) if '-' not in name]
    assert [name for name in names(ours) if '-' not in name] == plain
    assert len(names(ours)) == len(names(stock)) > len(plain)  # published under their hashes
    for name in plain:
        if name == 'last_checkpoint':
            assert os.path.basename(last(ours)) == os.path.basename(last(stock))
            continue
        one, other = read_checkpoint(stock / name), read_checkpoint(ours / name)
        assert one.keys() == other.keys()
        for part in one.keys() - {'meta', 'message_hub'}:
            torch.testing.assert_close(other[part], one[part], rtol=0, atol=0)
        told = [c['message_hub']['runtime_info'] for c in (one, other)]
        for key in ('best_score_acc', 'best_ckpt_acc', 'keep_ckpt_ids', 'last_ckpt'):
            values = [str(info.get(key)).rpartition('/')[2] for info in told]
            assert values[0] == values[1], (name, key)


def test_mmengines_own_reader_finds_the_last_one(tmp_path):
    run(tmp_path).train()
    assert find_latest_checkpoint(str(tmp_path)) == str(tmp_path / 'epoch_3.pth')


@pytest.mark.parametrize(
    ('number', 'reason'),
    [
        (errno.ENOSPC, 'No space left on device'),
        (errno.EDQUOT, 'Disk quota exceeded'),
        (errno.EIO, 'Input/output error'),
        (errno.EROFS, 'Read-only file system'),
    ],
)
def test_a_full_disk_costs_one_checkpoint(tmp_path, number, reason):
    """The one before is kept and noted, no part of the new one stays, training goes on."""
    with failing('epoch_2.pth', number=number):
        run(tmp_path, max_keep_ckpts=1).train()
    assert names(tmp_path) == ['epoch_3.pth', 'last_checkpoint']
    (line,) = [x for x in log_of(tmp_path).splitlines() if 'ERROR' in x]
    needed = f'{reason} ('
    assert f'{tmp_path / "epoch_2.pth"} cannot be written: {needed}' in line
    assert 'bytes are needed' in line
    assert 'are free' in line
    assert f'{tmp_path / "epoch_1.pth"} is the last one; training goes on' in line


@pytest.mark.parametrize('keep', [1, 3])
@pytest.mark.parametrize('by_epoch', [True, False])
def test_nothing_is_lost_where_the_last_one_cannot_be_written(tmp_path, keep, by_epoch):
    template = 'epoch_{}.pth' if by_epoch else 'iter_{}.pth'
    steps = (1, 2, 3) if by_epoch else (2, 4, 6)
    files = [template.format(step) for step in steps]
    with failing(files[-1]), pytest.raises(UserError, match='the training is over') as told:
        run(tmp_path, by_epoch=by_epoch, max_keep_ckpts=keep).train()
    assert str(told.value).isprintable()
    assert files[-1] in str(told.value)
    kept = files[-2:-1] if keep == 1 else files[:-1]
    assert names(tmp_path) == [*kept, 'last_checkpoint']
    assert last(tmp_path).endswith(files[-2])
    content = read_checkpoint(tmp_path / files[-2])
    assert content['message_hub']['runtime_info']['last_ckpt'].endswith(files[-2])


def test_three_in_a_row_end_a_run(tmp_path):
    """Not three in all; what was written last is named."""
    failed = ['epoch_2.pth', 'epoch_4.pth', 'epoch_5.pth', 'epoch_6.pth']
    trained = run(tmp_path, epochs=9, max_keep_ckpts=1)
    with failing(*failed), pytest.raises(UserError, match='third checkpoint in a row') as told:
        trained.train()
    assert str(told.value).isprintable()
    assert f'{tmp_path / "epoch_3.pth"} is the last one' in str(told.value)
    assert trained.epoch == 5  # of the sixth
    assert names(tmp_path) == ['epoch_3.pth', 'last_checkpoint']
    assert MOST_FAILURES == 3


def test_one_that_is_not_noted_replaces_none(tmp_path):
    """Both stay until the next one is whole and noted."""
    seen = []

    class Look(Hook):
        priority = 'LOWEST'

        def after_train_epoch(self, runner):
            seen.append(names(tmp_path))

    with failing('last_checkpoint'), pytest.raises(UserError, match='the training is over'):
        run(tmp_path, epochs=1, max_keep_ckpts=1).train()
    (tmp_path / 'epoch_1.pth').unlink()

    class Note(Hook):
        """Has the note of the second epoch fail."""

        def before_train_epoch(self, runner):
            if runner.epoch == 1:
                self.full = failing('last_checkpoint')
                self.full.__enter__()

        def after_run(self, runner):
            self.full.__exit__(None, None, None)

    run(tmp_path, max_keep_ckpts=1, hooks=[Note(), Look()]).train()
    assert seen == [
        ['epoch_1.pth', 'last_checkpoint'],
        ['epoch_1.pth', 'epoch_2.pth', 'last_checkpoint'],
        ['epoch_3.pth', 'last_checkpoint'],
    ]


def test_the_best_one_goes_when_there_is_a_better_one(tmp_path):
    """Its file cannot be written once: the former stays, and is named by what is resumed from."""
    Rising.score = 0.0
    trained = run(tmp_path, epochs=2, val=True, save_best='acc', max_keep_ckpts=1)
    with failing('best_acc_epoch_2.pth'), pytest.raises(UserError, match='is over') as told:
        trained.train()
    assert 'best acc of 2' in str(told.value)
    assert names(tmp_path) == ['best_acc_epoch_1.pth', 'epoch_2.pth', 'last_checkpoint']
    info = read_checkpoint(tmp_path / 'epoch_2.pth')['message_hub']['runtime_info']
    assert info['best_ckpt'] == str(tmp_path / 'best_acc_epoch_1.pth')
    assert info['best_score'] == 1.0


def test_the_rewriting_after_a_new_best_fails(tmp_path):
    """What was written before is whole and names the former best one, which is still there."""
    Rising.score = 0.0

    class Rewriting(Hook):
        def before_val(self, runner):
            if runner.epoch == 2:
                self.full = failing('epoch_2.pth')
                self.full.__enter__()

        def after_run(self, runner):
            self.full.__exit__(None, None, None)

    with pytest.raises(UserError, match='the training is over'):
        run(tmp_path, 2, val=True, save_best='acc', max_keep_ckpts=1, hooks=[Rewriting()]).train()
    assert names(tmp_path) == [
        *('best_acc_epoch_1.pth', 'best_acc_epoch_2.pth', 'epoch_2.pth', 'last_checkpoint')
    ]
    info = read_checkpoint(tmp_path / 'epoch_2.pth')['message_hub']['runtime_info']
    assert info['best_ckpt'] == str(tmp_path / 'best_acc_epoch_1.pth')


def test_one_of_several_best_ones_fails(tmp_path):
    Rising.score = 0.0
    with failing('best_acc_epoch_2.pth'):
        options = dict(save_best=['acc', 'mAP'], rule=['greater', 'less'], max_keep_ckpts=1)
        run(tmp_path, 3, val=True, **options).train()
    found = [name for name in names(tmp_path) if 'best' in name]
    assert found == ['best_acc_epoch_3.pth', 'best_mAP_epoch_3.pth']


def test_what_a_killed_run_left_is_removed(tmp_path):
    tmp_path.joinpath('.epoch_7.pth.0123456789abcdef.part').write_text('torn')
    tmp_path.joinpath('.epoch_7.pth.part').write_text('of somebody else')
    run(tmp_path, 1).train()
    assert [name for name in names(tmp_path) if 'part' in name] == ['.epoch_7.pth.part']


def test_a_run_that_loses_its_folder_makes_it_anew(tmp_path):
    class Remove(Hook):
        def before_train_epoch(self, runner):
            if runner.epoch == 1:
                for path in (tmp_path / 'work').glob('*.pth'):
                    path.unlink()
                (tmp_path / 'work' / 'last_checkpoint').unlink()
                (tmp_path / 'work').rename(tmp_path / 'gone')

    trained = run(tmp_path / 'work', 2, hooks=[Remove()], max_keep_ckpts=1)
    outlive_log_files(trained)
    trained.train()
    assert names(tmp_path / 'work') == ['epoch_2.pth', 'last_checkpoint']


def test_errors_of_others_are_theirs(tmp_path):
    class Bug(Hook):
        def before_save_checkpoint(self, runner, checkpoint):
            raise KeyError('of somebody')

    with pytest.raises(KeyError, match='of somebody'):
        run(tmp_path, hooks=[Bug()]).train()


@pytest.mark.skipif(os.name != 'posix' or os.geteuid() != 0, reason='only root may mount a disk')
@pytest.mark.parametrize('keep', [1, 3])
def test_a_real_disk_that_is_full(tmp_path, keep):
    disk = tmp_path / 'disk'
    disk.mkdir()
    mounted = subprocess.run(
        ['mount', '-t', 'tmpfs', '-o', 'size=256k', 'tmpfs', str(disk)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip('no disk can be mounted here')
    try:

        class Fill(Hook):
            def before_train_epoch(self, runner):
                if runner.epoch == 2:
                    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
                    (disk / 'others').write_bytes(b'0' * (free - 4096))

        trained = run(disk / 'work', 9, hooks=[Fill()], max_keep_ckpts=keep)
        outlive_log_files(trained)
        with pytest.raises(UserError, match=r'No space left on device.* third checkpoint in a row'):
            trained.train()
        kept = ['epoch_2.pth'] if keep == 1 else ['epoch_1.pth', 'epoch_2.pth']
        assert [n for n in names(disk / 'work') if n.startswith('.') or n.endswith('pth')] == kept
        assert not damage_of(disk / 'work' / 'epoch_2.pth')
    finally:
        subprocess.run(['umount', '--lazy', str(disk)], check=True)


# -- Which hook a run gets ---------------------------------------------------------------------


@HOOKS.register_module(force=True)
class SavesOfSomebody(MMEngineHook):
    """A subclass of a user's."""


def test_mmengines_hook_becomes_ours_and_no_other(tmp_path):
    custom = [
        dict(type='CheckpointHook', interval=5),
        dict(type=MMEngineHook),
        dict(type='SavesOfSomebody'),
        dict(type='EMAHook'),
        MMEngineHook(),
    ]
    chosen = Config(dict(default_hooks=dict(logger=dict(type='LoggerHook')), custom_hooks=custom))
    before = chosen.to_dict()
    cfg = Config(dict(chosen.items()))
    use_our_hook(cfg)
    assert chosen.to_dict() == before
    ours = f'mmwave.{CheckpointHook.__name__}'
    kinds = [hook['type'] if isinstance(hook, dict) else hook for hook in cfg.custom_hooks]
    assert kinds[:4] == [ours, ours, 'SavesOfSomebody', 'EMAHook']
    assert cfg.custom_hooks[0].interval == 5
    assert cfg.default_hooks.checkpoint.type == ours  # the one that mmengine adds
    assert cfg.default_hooks.logger.type == 'LoggerHook'


def test_a_config_without_checkpoints_stays_so():
    cfg = Config(dict(default_hooks=dict(checkpoint=None)))
    use_our_hook(cfg)
    assert cfg.default_hooks.checkpoint is None


def test_a_subclass_writes_whole_files(tmp_path):
    """It saves as mmengine does: the files are whole, and a full disk is one line."""
    from mmwave.engine.checkpoints import register_whole_files

    register_whole_files()
    with failing('epoch_2.pth'), pytest.raises(UserError, match=r'epoch_2\.pth cannot be written'):
        run(tmp_path, type='SavesOfSomebody', max_keep_ckpts=3).train()
    assert names(tmp_path) == ['epoch_1.pth', 'last_checkpoint']


def test_a_run_that_goes_on_removes_what_it_had_kept(tmp_path):
    run(tmp_path, 2, max_keep_ckpts=2).train()
    run(tmp_path, 4, max_keep_ckpts=2, resume=True, load_from=str(tmp_path / 'epoch_2.pth')).train()
    assert names(tmp_path) == ['epoch_3.pth', 'epoch_4.pth', 'last_checkpoint']
