"""Runs that resume with another batch, schedule or learning rate than their checkpoint."""

import math

import pytest
import torch

from mmwave.apis import prepare_training, train
from mmwave.checkpoint import read_checkpoint
from mmwave.engine.trained_with import KEY, TrainedWith
from mmwave.errors import UserError
from tests.faults.tasks import write_task
from tests.loaders import loader_restored

pytestmark = pytest.mark.usefixtures('own_loader')

LR, START, WARM_UP = 1e-3, 0.1, 4  # of the task's config
EPOCHS, LENGTH = 4, 4  # images of two classes, in batches of two


def run(config, work, resume=None, scale=False, **options):
    """Train in this process; return the runner and the log."""
    run.count = getattr(run, 'count', 0) + 1
    options = {
        'experiment_name': f'resuming{run.count}-{work.name}',
        'default_hooks.checkpoint.max_keep_ckpts': -1,
        'train_cfg.val_interval': 100,
        **options,
    }
    cfg = prepare_training(
        str(config),
        work_dir=str(work),
        resume=resume and str(resume),
        auto_scale_lr=scale,
        cfg_options=options,
    )
    runner = train(cfg)
    return runner, ''.join(path.read_text() for path in sorted(work.rglob('*.log')))


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A config and the work folder of its run, by epoch and by iteration."""
    found = {}
    with loader_restored():
        for by_epoch in (True, False):
            folder = tmp_path_factory.mktemp('epoch' if by_epoch else 'iter')
            config = write_task(
                folder,
                by_epoch=by_epoch,
                length=EPOCHS if by_epoch else EPOCHS * LENGTH,
                interval=1 if by_epoch else LENGTH,
                num_images=LENGTH,
            )
            run(config, folder / 'work')
            found[by_epoch] = config, folder / 'work'
    return found


@pytest.fixture
def config(trained):
    return trained[True][0]


@pytest.fixture
def first(trained):
    """The checkpoint of the first epoch."""
    return trained[True][1] / 'epoch_1.pth'


def rates(runner):
    """Return the learning rate of every step, those before the checkpoint too."""
    return runner.message_hub.get_scalar('train/lr').data[0].tolist()


def curve(steps, length, lr=LR):
    """Return the config's learning rates by their closed form: a warm-up times a cosine."""
    warm = [min(START + (1 - START) * n / (WARM_UP - 1), 1) for n in range(steps)]
    cosine = [(1 + math.cos(math.pi * n / length)) / 2 for n in range(steps)]
    return [lr * a * b for a, b in zip(warm, cosine, strict=True)]


def warnings_of(log):
    lines = [line for line in log.splitlines() if 'WARNING' in line and '.pth ' in line]
    return [line for line in lines if 'left alone' not in line]


def changed(path, target, change):
    content = read_checkpoint(path)
    change(content)
    torch.save(content, target)
    return target


# -- The same run ------------------------------------------------------------------------------


def test_an_unchanged_run_goes_on_without_a_word(config, first, tmp_path):
    runner, log = run(config, tmp_path / 'w', first)
    assert warnings_of(log) == []
    assert rates(runner) == pytest.approx(curve(16, 16), rel=1e-6)


def test_numbers_stand_in_the_checkpoint(first, trained):
    content = torch.load(first, weights_only=False)
    wanted = dict(
        world_size=1,
        batch_size=2,
        accumulative_counts=1,
        epoch_length=LENGTH,
        max_epochs=EPOCHS,
        max_iters=EPOCHS * LENGTH,
        optimizers='AdamW',
    )
    assert content['meta'][KEY] == wanted
    assert {type(v) for v in content['meta'][KEY].values()} == {int, str}
    assert read_checkpoint(first)['meta'][KEY] == wanted
    by_iteration = read_checkpoint(trained[False][1] / 'iter_4.pth')['meta'][KEY]
    assert by_iteration['max_epochs'] is None


# -- Another batch -----------------------------------------------------------------------------


def test_another_batch_is_refused(config, first, tmp_path):
    with pytest.raises(UserError, match='2 samples x 1 process = 2, here are 4 samples x') as told:
        run(config, tmp_path / 'w', first, **{'train_dataloader.batch_size': 4})
    assert '--auto-scale-lr' in str(told.value)
    assert 'train_dataloader.batch_size=2' in str(told.value)
    assert str(told.value).isprintable()


def test_another_batch_scales_rate_and_iterations(config, first, tmp_path):
    """The cosine ends with the run, the last step is not at the floor before it."""
    options = {'train_dataloader.batch_size': 4}
    runner, log = run(config, tmp_path / 'w', first, scale=True, **options)
    assert runner.iter == 8
    wanted = curve(8, 8, lr=2 * LR)
    assert rates(runner)[LENGTH:] == pytest.approx(wanted[2:], rel=1e-6)
    assert 'its learning rate is scaled by 2' in log
    assert 'was trained with 4 iterations an epoch, here are 2' in log
    (schedule,) = [s for s in runner.param_schedulers if hasattr(s, 'T_max')]
    assert (schedule.T_max, schedule._global_step) == (8, 8)
    # And once more, to where it came from.
    again, _ = run(config, tmp_path / 'x', tmp_path / 'w/epoch_2.pth', scale=True)
    assert rates(again)[-8:] == pytest.approx(curve(16, 16)[8:], rel=1e-6)


def test_another_batch_by_iteration(trained, tmp_path):
    """Iterations are iterations, and the rate goes by the batch."""
    config, work = trained[False]
    options = {'train_dataloader.batch_size': 4}
    with pytest.raises(UserError, match='it was trained with a batch of'):
        run(config, tmp_path / 'v', work / 'iter_4.pth', **options)
    runner, _ = run(config, tmp_path / 'w', work / 'iter_4.pth', scale=True, **options)
    assert runner.iter == 16
    assert rates(runner)[4:] == pytest.approx(curve(16, 16, lr=2 * LR)[4:], rel=1e-6)


def test_the_same_batch_split_differently(config, tmp_path):
    """Twice the iterations an epoch for the same steps: converted, and the rate stays."""
    run(config, tmp_path / 'u', **{'train_dataloader.batch_size': 4, 'train_cfg.max_epochs': 1})
    path, options = tmp_path / 'u/epoch_1.pth', {'optim_wrapper.accumulative_counts': 2}
    with pytest.raises(UserError, match='had 2 iterations, here are 4: the accumulation is'):
        run(config, tmp_path / 'v', path, **options)
    runner, log = run(config, tmp_path / 'w', path, scale=True, **options)
    assert rates(runner)[2:] == pytest.approx(curve(16, 16)[4:], rel=1e-6)
    assert 'was trained with a batch of 4 samples x 1 process = 4, here are 2 samples x' in log


def test_scaling_by_the_same_batch_changes_nothing(config, first, tmp_path):
    """Though mmengine logs that it scales from the base batch size."""
    runner, log = run(config, tmp_path / 'w', first, scale=True)
    assert rates(runner) == pytest.approx(curve(16, 16), rel=1e-6)
    assert '--auto-scale-lr leaves its learning rate alone' in log


def test_a_data_set_that_has_grown_is_told_and_iterations_are_converted(config, first, tmp_path):
    path = changed(first, tmp_path / 'a.pth', lambda c: c['meta'][KEY].update(epoch_length=5))
    runner, log = run(config, tmp_path / 'w', path)
    assert 'is of another data set: an epoch had 5 iterations, here are 4' in log
    assert runner.iter == runner.max_iters


def test_a_checkpoint_without_numbers_is_not_refused(config, first, tmp_path):
    """What can be told is: iterations and epochs give the iterations an epoch."""
    old = changed(first, tmp_path / 'old.pth', lambda content: content['meta'].pop(KEY))
    assert warnings_of(run(config, tmp_path / 'v', old)[1]) == []
    options = {'train_dataloader.batch_size': 4}
    runner, log = run(config, tmp_path / 'w', old, scale=True, **options)
    assert 'does not note the batch that it was trained with' in log
    assert rates(runner)[4:] == pytest.approx(curve(8, 8)[2:], rel=1e-6)


@pytest.mark.parametrize('note', [[], {}, {'world_size': 'x'}, None, 5])
def test_damaged_numbers_are_none(config, first, tmp_path, note):
    path = changed(first, tmp_path / 'a.pth', lambda content: content['meta'].update({KEY: note}))
    assert warnings_of(run(config, tmp_path / 'w', path, **{'train_cfg.max_epochs': 1})[1])


# -- Another schedule --------------------------------------------------------------------------


def test_a_longer_schedule_is_the_config_s_from_here_on(trained, tmp_path):
    config, work = trained[True]
    text = config.read_text().replace(f'T_max={EPOCHS},', 'T_max=8,')
    longer = tmp_path / 'longer.py'
    longer.write_text(text)
    options = {'train_cfg.max_epochs': 8}
    runner, log = run(longer, tmp_path / 'w', work / 'epoch_4.pth', **options)
    assert rates(runner)[16:] == pytest.approx(curve(32, 32)[16:], rel=1e-6)
    assert 'CosineAnnealingLR: end 16 -> 32, T_max 16 -> 32' in log or 'T_max 16 -> 32' in log
    assert 'is of a run of 4 epochs, this one has 8' in log
    assert 'rises again' not in log


def test_more_epochs_of_the_old_schedule_are_told(trained, tmp_path):
    config, work = trained[True]
    options = {'train_cfg.max_epochs': 5}
    _, log = run(config, tmp_path / 'w', work / 'epoch_4.pth', **options)
    assert 'is of a run of 4 epochs, this one has 5' in log
    assert 'reaches its lowest learning rate at iteration 16 and rises again' in log


@pytest.mark.parametrize('lacks', ['optimizer', 'param_schedulers'])
def test_the_schedule_goes_on_without_its_state(config, first, tmp_path, lacks):
    path = changed(first, tmp_path / 'a.pth', lambda content: content.pop(lacks))
    runner, log = run(config, tmp_path / 'w', path)
    assert rates(runner)[4:] == pytest.approx(curve(16, 16)[4:], rel=1e-6)
    assert f'holds no {"optimizer state" if lacks == "optimizer" else "state of param"}' in log


# -- Other settings of the optimizer -----------------------------------------------------------


def test_another_learning_rate_is_told_and_not_used(config, first, tmp_path):
    options = {'optim_wrapper.optimizer.lr': 0.5, 'optim_wrapper.optimizer.weight_decay': 0.25}
    runner, log = run(config, tmp_path / 'w', first, **options)
    (line,) = warnings_of(log)
    assert 'lr 0.001 -> 0.5, weight_decay 0.01 -> 0.25' in line
    assert "settings='config'" in line
    assert rates(runner) == pytest.approx(curve(16, 16), rel=1e-6)
    assert runner.optim_wrapper.optimizer.param_groups[0]['weight_decay'] == 0.01


def test_the_config_s_settings_are_used_where_it_says_so(config, first, tmp_path):
    other = tmp_path / 'other.py'
    hook = "dict(type='FaultHook'), dict(type='mmwave.ResumeCheckHook', settings='config')"
    other.write_text(config.read_text().replace("dict(type='FaultHook')", hook))
    options = {
        'optim_wrapper.optimizer.lr': 0.5,
        'optim_wrapper.optimizer.betas': [0.8, 0.9],
    }
    runner, log = run(other, tmp_path / 'w', first, **options)
    assert "the config's are used" in log
    assert rates(runner)[4:] == pytest.approx(curve(16, 16, lr=0.5)[4:], rel=1e-6)
    assert tuple(runner.optim_wrapper.optimizer.param_groups[0]['betas']) == (0.8, 0.9)


def test_another_optimizer_whose_state_fits_is_told(config, first, tmp_path):
    _, log = run(config, tmp_path / 'w', first, **{'optim_wrapper.optimizer.type': 'Adam'})
    assert "is of AdamW, the config's optimizer is Adam" in log


def test_a_batch_in_words():
    numbers = TrainedWith(2, 4, 3, None, None, 10, 'SGD')
    assert numbers.batch == 24
    assert numbers.batch_text() == '4 samples x 2 processes x 3 accumulated = 24'
