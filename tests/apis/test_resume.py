"""Training that goes on from a checkpoint: whole, damaged, of something else, or out to harm."""

import collections
import contextlib
import copy
import os
import re
import shutil
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.hooks import CheckpointHook, EMAHook
from mmengine.logging import HistoryBuffer
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import PARAM_SCHEDULERS
from mmengine.runner import IterBasedTrainLoop

from mmwave.apis import UsageError, prepare_training, train
from mmwave.checkpoint import read_checkpoint
from mmwave.engine.checkpoints.plain import HISTORIES
from mmwave.engine.hooks import LoadReportHook, ResumeCheckHook
from mmwave.engine.training_state import check_optimizer, check_schedulers
from mmwave.errors import UserError
from tests.checkpoint.files import flip_bit
from tests.contracts import ROOT
from tests.loaders import loader_restored
from tests.tiny_run import CLASSIFIER

pytestmark = pytest.mark.usefixtures('own_loader')

CONFIG = (
    CLASSIFIER
    + """
param_scheduler = [dict(type='MultiStepLR', milestones=[2], by_epoch=True)]
custom_hooks = [dict(type='EMAHook', update_buffers=True)]
train_cfg = dict(max_epochs=2)
default_hooks = dict(logger=dict(interval=1))
randomness = dict(seed=0)
"""
)


def run(config, work, resume=None, epochs=2, trust=False, **options):
    """Train in this process; mmengine distinguishes runs by their names."""
    run.count = getattr(run, 'count', 0) + 1
    options = {
        'experiment_name': f'resume{run.count}-{work.name}',
        'train_cfg.max_epochs': epochs,
        **options,
    }
    cfg = prepare_training(
        str(config),
        work_dir=str(work),
        resume=resume if resume in (None, 'auto') else str(resume),
        cfg_options=options,
    )
    return train(cfg, trust_checkpoint=trust)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A folder with a config and the work folder of two epochs, and the runner after them."""
    folder = tmp_path_factory.mktemp('trained')
    rng = np.random.default_rng(0)
    for split in ('train', 'val'):
        for i in range(4):
            images = folder / 'data' / split / 'ab'[i % 2]
            images.mkdir(parents=True, exist_ok=True)
            image = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
            cv2.imwrite(str(images / f'{i}.png'), image)
    leaf = ROOT / 'configs/wavemlp/wavemlp-t_in1k.py'
    config = folder / 'config.py'
    config.write_text(CONFIG.format(leaf=leaf, data=folder / 'data', batch=2))
    with loader_restored():
        runner = run(config, folder / 'work')
    return folder, runner


@pytest.fixture
def config(trained):
    return trained[0] / 'config.py'


@pytest.fixture
def work(trained):
    """The work folder of the two epochs."""
    return trained[0] / 'work'


@pytest.fixture
def last(work):
    """The checkpoint of two epochs."""
    return work / 'epoch_2.pth'


@pytest.fixture
def saved(last):
    """What is in it."""
    return read_checkpoint(last)


@pytest.fixture
def check(trained, tmp_path):
    """Load what a checkpoint holds as a run that resumes does, but for the loading itself."""
    logged = []
    runner = trained[1]
    names = ('train_loop', 'train_dataloader', 'max_epochs', 'max_iters', 'optim_wrapper')
    names += ('param_schedulers', 'auto_scale_lr')
    saves = CheckpointHook(interval=1, save_best='auto', max_keep_ckpts=2)
    averages = [hook for hook in runner.hooks if isinstance(hook, EMAHook)]
    stand_in = SimpleNamespace(
        **{name: getattr(runner, name) for name in names},
        model=runner.model,
        hooks=[*averages, saves],
        work_dir=str(tmp_path / 'work'),
        logger=SimpleNamespace(info=logged.append, warning=logged.append),
        _resume=True,
        _load_from='there/epoch_2.pth',
    )

    def load(content):
        for hook in (ResumeCheckHook(), LoadReportHook()):
            hook.after_load_checkpoint(stand_in, content)
        return content, logged

    load.stand_in, load.saves = stand_in, saves
    return load


# -- Honest ------------------------------------------------------------------------------------


def test_a_run_goes_on_in_its_folder(work, config, tmp_path):
    """Its own best and outdated checkpoints are removed as ever."""
    copied = tmp_path / 'work'
    shutil.copytree(work, copied)
    (best,) = copied.glob('best_*')
    content = read_checkpoint(copied / 'epoch_2.pth')
    info = content['message_hub']['runtime_info']
    assert info['best_ckpt'] == str(work / best.name)
    for name in ('best_ckpt', 'last_ckpt'):
        info[name] = str(copied / os.path.basename(info[name]))
    info['best_score'] = -1.0  # so that the next epoch is better
    torch.save(content, copied / 'epoch_2.pth')
    (copied / 'last_checkpoint').write_text(str(copied / 'epoch_2.pth'))
    options = {'default_hooks.checkpoint.max_keep_ckpts': 2}
    runner = run(config, copied, 'auto', epochs=3, **options)
    assert runner.epoch == 3
    assert 'left alone' not in log_of(copied)
    assert not (copied / 'epoch_1.pth').exists()
    assert (copied / 'epoch_3.pth').is_file()
    (better,) = copied.glob('best_*')
    assert better != best
    # Optimizer and schedule went on from what they had reached.
    assert runner.param_schedulers[0]._global_step == 3
    assert int(runner.optim_wrapper.optimizer.state_dict()['state'][0]['step']) == 6


def log_of(work):
    return ''.join(path.read_text() for path in sorted(work.rglob('*.log')))


@pytest.mark.parametrize('score', [-1.0, pytest.param(1e9, marks=pytest.mark.slow)])
def test_another_run_s_checkpoints_are_left_alone(work, config, saved, tmp_path, score):
    """Resumed into a new folder, also where the score gets better than the other run's best."""
    before = sorted(work.iterdir())
    assert os.path.isfile(saved['message_hub']['runtime_info']['best_ckpt'])
    saved['message_hub']['runtime_info']['best_score'] = score
    torch.save(saved, tmp_path / 'copy.pth')
    run(config, tmp_path / 'new', tmp_path / 'copy.pth', epochs=3)
    assert sorted(work.iterdir()) == before
    assert len(list((tmp_path / 'new').glob('best_*'))) == 1  # the best of this folder
    (line,) = [x for x in log_of(tmp_path / 'new').splitlines() if 'left alone' in x]
    for name in ('best_ckpt', 'last_ckpt', 'keep_ckpt_ids [1, 2]'):
        assert name in line
    assert 'WARNING' in line


@pytest.mark.slow
def test_several_best_checkpoints_are_left_alone(config, saved, tmp_path):
    """With a metric each, and published in the end, which must not stumble over one not there."""
    info = saved['message_hub']['runtime_info']
    best = info.pop('best_ckpt')
    info.pop('best_score')
    for name in ('accuracy/top1', 'single-label/precision'):
        info[f'best_ckpt_{name}'], info[f'best_score_{name}'] = best, 1e9
    torch.save(saved, tmp_path / 'copy.pth')
    metrics = [dict(type='Accuracy', topk=1), dict(type='SingleLabelMetric', items=['precision'])]
    hook = 'default_hooks.checkpoint'
    options = {
        'val_evaluator': metrics,
        f'{hook}.save_best': ['accuracy/top1', 'single-label/precision'],
        f'{hook}.published_keys': ['meta', 'state_dict'],
    }
    run(config, tmp_path / 'new', tmp_path / 'copy.pth', epochs=3, **options)
    assert os.path.isfile(best)
    assert len(list((tmp_path / 'new').glob('best_*_epoch_3.pth'))) == 2


def test_a_copied_folder_goes_on_from_its_own_files(work, config, tmp_path):
    """Though its note and its checkpoints name the files of the original, which are still there."""
    copied = tmp_path / 'copied'
    shutil.copytree(work, copied)
    files = [work / 'last_checkpoint', *work.glob('*.pth')]
    before = [path.stat().st_mtime_ns for path in files]
    content = read_checkpoint(copied / 'epoch_2.pth')
    info = content['message_hub']['runtime_info']
    assert (
        (copied / 'last_checkpoint').read_text() == info['last_ckpt'] == str(work / 'epoch_2.pth')
    )
    (best,) = copied.glob('best_*')
    info['best_score'] = -1.0  # so that the next epoch is better
    content['optimizer']['param_groups'][0]['initial_lr'] = 0.0625  # which the original has not
    torch.save(content, copied / 'epoch_2.pth')
    runner = run(config, copied, 'auto', epochs=3)
    assert runner.optim_wrapper.optimizer.param_groups[0]['initial_lr'] == 0.0625
    assert runner._load_from == str(copied / 'epoch_2.pth')
    log = log_of(copied)
    assert f'from the checkpoint {copied / "epoch_2.pth"}' in log
    assert 'left alone' not in log
    (better,) = copied.glob('best_*')
    assert better != best
    assert [path.stat().st_mtime_ns for path in files] == before


def test_a_moved_folder_keeps_its_best_score(work, config, tmp_path):
    """A worse epoch does not become the best one."""
    moved = tmp_path / 'moved'
    shutil.copytree(work, moved)
    content = read_checkpoint(moved / 'epoch_2.pth')
    info = content['message_hub']['runtime_info']
    for name in ('best_ckpt', 'last_ckpt'):
        info[name] = f'/gone/work/{os.path.basename(info[name])}'
    info['best_score'] = 1e9
    torch.save(content, moved / 'epoch_2.pth')
    (moved / 'last_checkpoint').write_text('/gone/work/epoch_2.pth')
    best = list(moved.glob('best_*'))
    assert run(config, moved, 'auto', epochs=3).epoch == 3
    assert list(moved.glob('best_*')) == best


def test_the_best_is_chosen_by_the_main_metric(config, tmp_path):
    """Before and after resuming, whatever comes first among the metrics."""
    metrics = [dict(type='ConfusionMatrix'), dict(type='Accuracy', topk=(2, 1))]
    run(config, tmp_path, epochs=1, val_evaluator=metrics)
    (best,) = tmp_path.glob('best_*')
    assert best.name == 'best_accuracy_top1_epoch_1.pth'
    content = read_checkpoint(tmp_path / 'epoch_1.pth')
    content['message_hub']['runtime_info']['best_score'] = 1e9
    torch.save(content, tmp_path / 'epoch_1.pth')
    run(config, tmp_path, 'auto', epochs=2, val_evaluator=metrics)
    assert list(tmp_path.glob('best_*')) == [best]


# -- Out to harm -------------------------------------------------------------------------------


def test_no_text_of_a_checkpoint_is_run(config, saved, tmp_path):
    """Not even where attributes of what was read hide it from those who look for it."""
    marker = tmp_path / 'ran'
    text = f'import pathlib\npathlib.Path({str(marker)!r}).touch()\n'
    content = collections.OrderedDict(saved)
    content['meta'] = collections.OrderedDict(saved['meta'], config=text)
    content.get = content['meta'].pop = content['meta'].get = collections.Counter
    torch.save(content, tmp_path / 'evil.pth')
    # Refusing it does as well.
    with contextlib.suppress(UserError):
        run(config, tmp_path / 'work', tmp_path / 'evil.pth', epochs=2)
    assert not marker.exists()


slow = pytest.mark.slow


@pytest.mark.parametrize(
    ('kind', 'link'),
    [
        ('folder', False),
        pytest.param('file', False, marks=slow),
        pytest.param('checkpoint', False, marks=slow),
        pytest.param('folder', True, marks=slow),
        pytest.param('checkpoint', True, marks=slow),
    ],
)
def test_nothing_outside_of_the_work_folder_is_removed(config, saved, tmp_path, kind, link):
    new = tmp_path / 'work'
    new.mkdir()
    victim = tmp_path / {'folder': 'precious', 'file': 'a.txt', 'checkpoint': 'best_a.pth'}[kind]
    if kind == 'folder':
        victim.mkdir()
        (victim / 'a.txt').write_text('kept')
    else:
        victim.write_text('kept')
    named = victim
    if link:  # what is named is in the work folder, what it leads to is not
        named = new / 'best_b.pth'
        named.symlink_to(victim)
    saved['message_hub']['runtime_info'].update(best_ckpt=str(named), best_score=-1.0)
    torch.save(saved, tmp_path / 'evil.pth')
    run(config, new, tmp_path / 'evil.pth', epochs=3)
    assert victim.exists()
    assert named.is_symlink() == link
    if kind == 'folder':
        assert (victim / 'a.txt').read_text() == 'kept'
    assert 'left alone' in log_of(new)


@pytest.mark.parametrize(
    'name',
    [
        'epoch_2.pth',
        'best_notes.txt',
        'inside/best_a.pth',
        '../outside/best_a.pth',
        '../work/../best_a.pth',
        'best_folder.pth/',
        'best_link.pth',
        'best_fifo.pth',
        'best_not_there.pth',
        'best_new\nline.pth',
        None,
        5,
        b'best_a.pth',
        ['best_a.pth'],
    ],
)
def test_names_that_are_no_checkpoint_of_this_folder_are_dropped(check, saved, tmp_path, name):
    new = tmp_path / 'work'
    for folder in (new / 'inside', new / 'best_folder.pth', tmp_path / 'outside'):
        folder.mkdir(parents=True)
    kept = ('epoch_2.pth', 'best_a.pth', 'best_notes.txt', 'inside/best_a.pth', '../best_a.pth')
    for file in (*kept, '../outside/best_a.pth', 'best_new\nline.pth'):
        (new / file).write_text('kept')
    (new / 'best_link.pth').symlink_to(new / 'best_a.pth')
    os.mkfifo(new / 'best_fifo.pth')
    info = saved['message_hub']['runtime_info']
    info.update(best_ckpt=str(new / name) if isinstance(name, str) else name, best_score=2.0)
    content, logged = check(saved)
    for key in ('best_ckpt', 'best_score', 'last_ckpt'):
        assert key not in content['message_hub']['runtime_info']
        assert key not in content['message_hub']['resumed_keys']
    (line,) = [x for x in logged if 'left alone' in x]
    assert line.isprintable()


@pytest.mark.parametrize('out_dir', [None, 'elsewhere'])
def test_checkpoints_of_this_folder_are_kept(check, saved, tmp_path, out_dir):
    """By mmengine's names for them, in the folder that it is going to write to."""
    folder = tmp_path / 'work'
    if out_dir:
        check.saves.out_dir = str(tmp_path / out_dir)
        folder = tmp_path / out_dir / 'work'
    folder.mkdir(parents=True)
    for name in ('best_x_epoch_1.pth', 'best_y_epoch_2.pth', 'epoch_1.pth', 'epoch_2.pth'):
        (folder / name).write_text('kept')
    info = saved['message_hub']['runtime_info']
    named = {
        'best_ckpt': f'{folder}/best_x_epoch_1.pth',
        'best_ckpt_a/y': f'{folder}/../work/best_y_epoch_2.pth',
        'last_ckpt': f'{folder}/epoch_2.pth',
        'best_score': 3.0,
        'keep_ckpt_ids': [1, 2],
    }
    info.update(named)
    content, logged = check(saved)
    assert named.items() <= content['message_hub']['runtime_info'].items()
    assert not [line for line in logged if 'left alone' in line]


@pytest.mark.parametrize(
    ('ids', 'kept'),
    [
        ([1, 7, 8, 1], [1]),
        (['../precious', 1], [1]),
        ([True, -1, 2.0, None, [[]]], None),
        ([10**30, 10**5000], None),
        ('text', None),
        ({1: 2}, None),
        ((1,), None),
    ],
)
def test_numbers_of_checkpoints_are_this_folder_s(check, saved, tmp_path, ids, kept):
    """mmengine removes the checkpoints of these numbers, or fails on what is no integer."""
    new = tmp_path / 'work'
    (new / 'epoch_8.pth').mkdir(parents=True)
    for name in ('epoch_1.pth', 'epoch_2.0.pth', 'epoch_True.pth', 'epoch_-1.pth'):
        (new / name).write_text('kept')
    saved['message_hub']['runtime_info']['keep_ckpt_ids'] = ids
    content, logged = check(saved)
    assert content['message_hub']['runtime_info'].get('keep_ckpt_ids') == kept
    (line,) = [x for x in logged if 'left alone' in x]
    assert 'keep_ckpt_ids' in line
    assert line.isprintable()


def test_what_was_never_saved_cannot_clash_with_what_is(check, saved):
    """mmengine asserts that an entry is either saved always or never."""
    saved['message_hub']['resumed_keys'].update({'train/loss': False, 'iter': 'yes', 'gone': True})
    keys = check(saved)[0]['message_hub']['resumed_keys']
    assert 'train/loss' not in keys
    assert 'gone' not in keys
    assert keys['iter'] is True


def test_names_and_values_forge_no_lines_of_the_log(config, saved, tmp_path):
    forged = 'x\nINFO - all is well\x1b[2J\r'
    info = saved['message_hub']['runtime_info']
    info['best_ckpt'] = info['last_ckpt'] = f'/{forged}.pth'
    info['val/what'] = forged
    torch.save(saved, tmp_path / 'evil.pth')
    run(config, tmp_path / 'work', tmp_path / 'evil.pth', epochs=3)
    text = log_of(tmp_path / 'work')
    assert not re.search(r'^INFO - all is well', text, re.MULTILINE)
    assert '\x1b' not in text
    assert '\r' not in text


# -- Damaged -----------------------------------------------------------------------------------


def put(*path):
    """Return a change of a checkpoint: the last of ``path`` is set as value of the keys before."""
    *keys, last, value = path

    def change(content):
        for key in keys:
            content = content[key]
        content[last] = value

    return change


def drop(*path):
    def change(content):
        for key in path[:-1]:
            content = content[key]
        del content[path[-1]]

    return change


INFO = ('message_hub', 'runtime_info')
SCALARS = ('message_hub', 'log_scalars')
GROUP = ('optimizer', 'param_groups', 0)
MOMENTS = ('optimizer', 'state', 0)
SCHEDULE = ('param_schedulers', 0)
DAMAGES = {
    'no-epoch': (drop('meta', 'epoch'), r'its meta\.epoch is None'),
    'epoch-text': (put('meta', 'epoch', '2'), r"its meta\.epoch is '2', expected a whole number"),
    'epoch-bool': (put('meta', 'epoch', True), r'its meta\.epoch is True'),
    'epoch-negative': (put('meta', 'epoch', -1), r'its meta\.epoch is -1'),
    'epoch-beyond': (put('meta', 'epoch', 3), 'it is at epoch 3, and the config trains 2'),
    'no-iter': (drop('meta', 'iter'), r'its meta\.iter is None'),
    'iter-list': (put('meta', 'iter', [4]), r'its meta\.iter is \[4\]'),
    'iter-huge': (put('meta', 'iter', 10**30), r'its meta\.iter is 1000'),
    'iter-forged': (put('meta', 'iter', 'a\nb\x1b'), r"its meta\.iter is 'a\\nb\\x1b'"),
    'seed-text': (put('meta', 'seed', 'x'), r"its meta\.seed is 'x'"),
    'seed-large': (put('meta', 'seed', 2**32), r'its meta\.seed is 4294967296, .*below 2\*\*32'),
    'seed-float': (put('meta', 'seed', 1.5), r'its meta\.seed is 1\.5'),
    'meta-none': (put('meta', None), r'its meta\.epoch is None'),
    'no-hub': (drop('message_hub'), 'its message_hub is of type NoneType, expected a dict'),
    'hub-list': (put('message_hub', [1]), 'its message_hub is of type list'),
    'no-info': (drop(*INFO), r'its message_hub\.runtime_info is of type NoneType'),
    'info-list': (put(*INFO, [1]), r'its message_hub\.runtime_info is of type list'),
    'no-scalars': (drop(*SCALARS), r'its message_hub\.log_scalars is of type NoneType'),
    'keys-text': (put('message_hub', 'resumed_keys', 'x'), r'resumed_keys is of type str'),
    'scalar-number': (put(*SCALARS, 'train/loss', 1.0), "no history of numbers as 'train/loss'"),
    'scalar-texts': (
        put(*SCALARS, 'train/loss', HistoryBuffer(['a'], [1])),
        "no history of numbers as 'train/loss'",
    ),
    'scalar-name': (put(*SCALARS, 5, 1.0), r'its message_hub\.log_scalars has the name 5'),
    'scalar-forged': (put(*SCALARS, 'a\nb', 1.0), r"has the name 'a\\nb'"),
    'histories-list': (put('message_hub', HISTORIES, []), r'histories is \[\], expected a dict'),
    'history-short': (
        put('message_hub', HISTORIES, 'train/loss', 'counts', torch.ones(1)),
        "holds 4 values and 1 counts as 'train/loss'",
    ),
    'score-text': (put(*INFO, 'best_score', 'high'), r"best_score is 'high', expected a number"),
    'score-nan': (put(*INFO, 'best_score', float('nan')), 'best_score is nan, expected a number'),
    'optimizer-list': (put('optimizer', []), 'its optimizer state is of type list'),
    'no-groups': (drop('optimizer', 'param_groups'), 'its optimizer state has no param_groups'),
    'groups-number': (put('optimizer', 'param_groups', [1]), 'has no param_groups'),
    'fewer-groups': (put('optimizer', 'param_groups', []), r'has 0 parameter groups, here are \d+'),
    'no-params': (drop(*GROUP, 'params'), r'param_groups\[0\] lists no parameters'),
    'more-params': (put(*GROUP, 'params', [0, 1, 2]), r'has 3 parameters, here are 1: was it'),
    'same-params': (put(*GROUP, 'params', [1]), 'list parameters twice'),
    'lr-large': (put(*GROUP, 'lr', 10**400), r'param_groups\[0\]\.lr is 10000'),
    'lr-infinite': (put(*GROUP, 'lr', float('inf')), r'param_groups\[0\]\.lr is inf'),
    'betas-value': (put(*GROUP, 'betas', (1.0, 1.0)), r'param_groups\[0\] is refused: .*beta'),
    'scalar-empty': (
        put(*SCALARS, 'train/loss', HistoryBuffer()),
        "no history of numbers as 'train/loss'",
    ),
    'lr-text': (put(*GROUP, 'lr', 'x'), r"param_groups\[0\]\.lr is 'x', which does not fit AdamW"),
    'no-lr': (drop(*GROUP, 'lr'), r'param_groups\[0\]\.lr is None'),
    'betas': (put(*GROUP, 'betas', 0.9), r'param_groups\[0\]\.betas is 0\.9'),
    'state-list': (put('optimizer', 'state', []), r'its optimizer\.state is of type list'),
    'state-name': (put('optimizer', 'state', 'x', {}), r"its optimizer\.state has the entry 'x'"),
    'moments-none': (put(*MOMENTS, None), r'its optimizer\.state has the entry 0'),
    'moment-missing': (drop(*MOMENTS, 'exp_avg'), r"AdamW keeps \['exp_avg', 'exp_avg_sq', 'step'"),
    'moment-shape': (put(*MOMENTS, 'exp_avg', torch.ones(7)), r'exp_avg does not fit a parameter'),
    'moment-complex': (
        put(*MOMENTS, 'exp_avg', torch.ones(8, 3, 7, 7) * 1j),
        r'exp_avg does not fit a parameter',
    ),
    'moment-expanded': (
        put(*MOMENTS, 'exp_avg', torch.ones(1).expand(8, 3, 7, 7)),
        r'exp_avg does not fit a parameter',
    ),
    'moment-step': (put(*MOMENTS, 'step', -1.0), r'state\[0\]\.step does not fit'),
    'moment-text': (put(*MOMENTS, 'step', 'x'), r'state\[0\]\.step does not fit'),
    'base-lr': (put('optimizer', 'base_param_settings', {'lr': 'x'}), 'base_param_settings name'),
    'more-schedulers': (
        lambda content: content['param_schedulers'].append({}),
        r'its param_schedulers are 2, here are 1: was it written with another config',
    ),
    'schedulers-dict': (put('param_schedulers', {}), 'its param_schedulers are dict, here are 1'),
    'scheduler-keys': (
        put(*SCHEDULE, 'step', 1),
        r'no state of a MultiStepLR: was it',
    ),
    'scheduler-value': (put(*SCHEDULE, 'last_step', 'x'), r"last_step is 'x', which does not fit"),
    'scheduler-length': (put(*SCHEDULE, 'base_values', [1.0]), r'base_values is \[1\.0\]'),
    'scheduler-milestones': (put(*SCHEDULE, 'milestones', {'x': 1}), 'milestones is'),
    'ema-list': (put('ema_state_dict', []), 'its ema_state_dict is of another model'),
    'ema-name': (drop('ema_state_dict', 'steps'), 'its ema_state_dict is of another model'),
    'ema-shape': (
        put('ema_state_dict', 'module.head.fc.bias', torch.ones(5)),
        'its ema_state_dict has another module.head.fc.bias',
    ),
    'weight-missing': (drop('state_dict', 'head.fc.bias'), 'its state_dict has not'),
    'weight-shape': (put('state_dict', 'head.fc.bias', torch.ones(5)), 'at least 100% must match'),
}


@pytest.mark.parametrize(('change', 'message'), DAMAGES.values(), ids=DAMAGES)
def test_damage_is_one_line(check, saved, change, message):
    change(saved)
    with pytest.raises(UserError, match=message) as told:
        check(saved)
    text = str(told.value)
    if '100%' not in text:  # the summary of what matches has lines of its own
        assert text.startswith('there/epoch_2.pth cannot be resumed from: ')
        assert text.isprintable()
    assert len(text) < 1000


@pytest.mark.parametrize('trust', [False, True])
@pytest.mark.parametrize('name', ['epoch-text', 'no-hub', 'moment-shape'])
def test_damage_ends_a_run_before_it_begins(config, saved, tmp_path, name, trust):
    change, message = DAMAGES[name]
    change(saved)
    path = tmp_path / 'damaged.pth'
    torch.save(saved, path)
    with pytest.raises(UserError, match=rf'damaged\.pth cannot be resumed from: .*{message}'):
        run(config, tmp_path / 'work', path, epochs=3, trust=trust)


def test_damaged_meta_is_seen_by_the_loader(config, saved, tmp_path):
    torch.save({**saved, 'meta': [1]}, tmp_path / 'damaged.pth')
    with pytest.raises(UserError, match=r'damaged\.pth: its meta is of type list, expected a dict'):
        run(config, tmp_path / 'work', tmp_path / 'damaged.pth')


@pytest.mark.parametrize('limit', ['max_epochs', 'max_iters'])
def test_epochs_or_iterations_are_what_the_loop_counts(check, saved, limit):
    """With larger batches a run of epochs may have done more iterations than it will have."""
    if limit == 'max_epochs':
        saved['meta']['iter'] = 1000
        check(saved)
    else:
        check.stand_in.train_loop = IterBasedTrainLoop.__new__(IterBasedTrainLoop)
        saved['meta'].update(epoch=1000, iter=4)
        check(saved)
        saved['meta']['iter'] = 1000
        with pytest.raises(UserError, match='it is at iter 1000, and the config trains 4'):
            check(saved)


class Scaled(OptimWrapper):
    """With what mixed precision on a GPU has."""

    loss_scaler = torch.amp.GradScaler('cpu')


def test_the_scale_of_a_loss(check, saved):
    check.stand_in.optim_wrapper = Scaled(check.stand_in.optim_wrapper.optimizer)
    check(saved)  # a run without one
    saved['optimizer']['loss_scaler'] = Scaled.loss_scaler.state_dict()
    check(saved)
    for damage in ({}, [], {**Scaled.loss_scaler.state_dict(), 'scale': 'x'}):
        saved['optimizer']['loss_scaler'] = damage
        with pytest.raises(UserError, match='loss_scaler has no numbers'):
            check(saved)


def test_several_optimizers_and_their_schedulers(check, saved):
    wrappers = OptimWrapperDict(a=check.stand_in.optim_wrapper)
    schedulers = {'a': check.stand_in.param_schedulers}
    check.stand_in.optim_wrapper, check.stand_in.param_schedulers = wrappers, schedulers
    state, schedule = saved['optimizer'], saved['param_schedulers']
    with pytest.raises(UserError, match=r"its optimizer is of \['state', 'param_groups'"):
        check(saved)
    saved['optimizer'] = {'a': state}
    with pytest.raises(UserError, match=r"its param_schedulers are not of \['a'\]: was it"):
        check(saved)
    saved['param_schedulers'] = {'a': schedule}
    check(saved)
    del state['param_groups'][0]['lr']
    with pytest.raises(UserError, match=r'param_groups\[0\]\.lr is None'):
        check(saved)


KINDS = {
    'SGD': dict(momentum=0.9, nesterov=True),
    'Adam': dict(amsgrad=True),
    'AdamW': {},
    'RMSprop': dict(centered=True, momentum=0.5),
    'Adagrad': {},
    'Adadelta': {},
    'Adamax': {},
    'NAdam': {},
    'RAdam': {},
    'Rprop': {},
    'ASGD': {},
    'Adafactor': {},
}


@pytest.mark.parametrize('kind', KINDS)
def test_states_of_every_optimizer_are_taken_by_their_own(kind):
    """And those of momenta of another shape are not, where every parameter has its own."""
    layer = torch.nn.Linear(3, 5)
    optimizer = getattr(torch.optim, kind)(layer.parameters(), lr=0.1, **KINDS[kind])
    wrapper = OptimWrapper(optimizer)
    check_optimizer(copy.deepcopy(optimizer.state_dict()), wrapper)
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    state = copy.deepcopy(optimizer.state_dict())
    check_optimizer(state, wrapper)
    shaped = [k for k, v in state['state'][0].items() if v is not None and v.shape == (5, 3)]
    assert shaped or kind == 'Adafactor'
    for name in shaped:
        broken = copy.deepcopy(state)
        broken['state'][0][name] = torch.ones(5, 4)
        with pytest.raises(UserError, match=f'{name} does not fit a parameter of shape'):
            check_optimizer(broken, wrapper)


SCHEDULERS = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=2),
    dict(type='CosineAnnealingLR', T_max=5),
    dict(type='PolyLR', power=0.9, end=5),
    dict(type='StepLR', step_size=2),
    dict(type='MultiStepLR', milestones=[1, 3]),
    dict(type='ExponentialLR', gamma=0.9),
    dict(type='CosineRestartLR', periods=[2, 3], restart_weights=[1, 0.5], eta_min=0.0),
    dict(type='ConstantLR', factor=0.5, end=3),
    dict(type='ReduceOnPlateauLR', monitor='loss'),
]


@pytest.mark.parametrize('settings', SCHEDULERS, ids=lambda s: s['type'])
def test_states_of_every_scheduler_are_taken_by_their_own(settings):
    def build():
        optimizer = torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), lr=0.1)
        return PARAM_SCHEDULERS.build(settings, default_args=dict(optimizer=optimizer))

    scheduler = build()
    for _ in range(4):
        scheduler.optimizer.step()
        scheduler.step(*([{'loss': 1.0}] if 'Plateau' in settings['type'] else []))
    state = copy.deepcopy(scheduler.state_dict())
    check_schedulers([state], [build()])
    for name in state:
        with pytest.raises(UserError, match=rf'\.{name} is |no state of a'):
            check_schedulers([{**state, name: object()}], [build()])


# -- Of something else -------------------------------------------------------------------------


@pytest.mark.parametrize('meta', [False, True])
def test_weights_alone_are_told_from_a_training_state(config, saved, tmp_path, meta):
    """What the message says to do instead works."""
    content = {'state_dict': saved['state_dict']}
    if meta:
        content['meta'] = {'source': 'x.pth', 'backbone': {'type': 'mmwave.WaveMLP'}}
    path = tmp_path / 'weights.pth'
    torch.save(content, path)
    with pytest.raises(UserError, match='holds weights only, no training state') as told:
        run(config, tmp_path / 'work', path)
    assert str(told.value).isprintable()
    if meta:
        return
    found = re.search(r'--load-from (\S+) in place of --resume', str(told.value))
    assert run(config, tmp_path / 'work', epochs=1, load_from=found[1]).epoch == 1
    assert 'tensors from the checkpoint' in log_of(tmp_path / 'work')


def test_what_begins_anew_is_logged(work, check):
    """A best checkpoint has neither optimizer nor schedulers."""
    (best,) = work.glob('best_*')
    logged = check(read_checkpoint(best))[1]
    assert [x for x in logged if "holds no optimizer state: the optimizer's begins anew" in x]
    assert [x for x in logged if 'holds no state of parameter schedulers: they are put' in x]


def test_another_optimizer_s_state_is_refused(check, last, saved):
    params = check.stand_in.optim_wrapper.optimizer.param_groups
    groups = [{'params': group['params']} for group in params]
    sgd = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    check.stand_in.optim_wrapper = OptimWrapper(sgd)
    with pytest.raises(UserError, match=r'momentum is None, which does not fit SGD: was it'):
        check(saved)


def test_averaged_weights_without_a_hook_that_averages(check, saved):
    check.stand_in.hooks = [check.saves]
    logged = check(saved)[1]
    assert [x for x in logged if 'holds averaged weights: training goes on from these' in x]


# -- Paths -------------------------------------------------------------------------------------


@pytest.mark.parametrize('path', ['', ' '])
def test_an_empty_path_is_refused(config, tmp_path, path):
    with pytest.raises(UsageError, match=r"path of the checkpoint is ' ?': is the shell variable"):
        prepare_training(str(config), work_dir=str(tmp_path), resume=path)
    with pytest.raises(UsageError, match='path of the checkpoint is'):
        prepare_training(str(config), work_dir=str(tmp_path), cfg_options={'load_from': path})


@pytest.mark.parametrize('note', [b'\xff\xfe', b'gone.pth', b'a\nb\x1b'])
def test_a_damaged_note_of_the_last_checkpoint(config, tmp_path, note):
    (tmp_path / 'last_checkpoint').write_bytes(note)
    with pytest.raises(UsageError, match='which is no file: give --resume PATH') as told:
        prepare_training(str(config), work_dir=str(tmp_path), resume='auto')
    assert str(told.value).isprintable()


def test_damaged_checkpoints_are_told_before_a_run(last, config, tmp_path):
    """With the number of processes, as the launchers check, also where a single bit is wrong."""
    shutil.copy(last, tmp_path / 'epoch_2.pth')
    flip_bit(tmp_path / 'epoch_2.pth')
    prepare_training(str(config), work_dir=str(tmp_path), resume='auto')
    with pytest.raises(UsageError, match=r'no checkpoint in .* is whole: .*epoch_2\.pth'):
        prepare_training(str(config), work_dir=str(tmp_path), resume='auto', num_procs=1)
    (tmp_path / 'epoch_2.pth').write_bytes(last.read_bytes()[:-100])
    with pytest.raises(UsageError, match=r'no checkpoint in .* is whole: .*epoch_2\.pth'):
        prepare_training(str(config), work_dir=str(tmp_path), resume='auto')


def test_a_damaged_checkpoint_is_passed_over(last, config, tmp_path):
    """Without a note of the last one, too."""
    work = tmp_path / 'work'
    run(config, work, epochs=3)
    whole, broken = work / 'epoch_2.pth', work / 'epoch_3.pth'
    flip_bit(broken)
    (work / 'last_checkpoint').unlink()
    runner = run(config, work, 'auto', epochs=3)
    assert runner._load_from == str(whole)
    (line,) = [x for x in log_of(work).splitlines() if 'is not resumed from' in x]
    assert f'{broken} is not resumed from: it is damaged' in line
    assert 'WARNING' in line
    assert torch.load(broken, weights_only=False)['meta']['epoch'] == 3


def test_a_note_of_a_file_elsewhere(last, config, tmp_path):
    """Also where the config says that the run goes on."""
    (tmp_path / 'last_checkpoint').write_text(str(last))
    line = re.escape(f'names {str(last)!r}, which is no file in {tmp_path}: give --resume PATH')
    with pytest.raises(UsageError, match=line):
        prepare_training(str(config), work_dir=str(tmp_path), resume='auto')
    with pytest.raises(UsageError, match=line):
        prepare_training(str(config), work_dir=str(tmp_path), cfg_options={'resume': True})
