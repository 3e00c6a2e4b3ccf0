"""Shorthands of a training: what they set, what changes beside it, and what they refuse."""

import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import PARAM_SCHEDULERS

from mmwave.apis import Shorthands, UsageError, load_config, shorthands
from mmwave.apis.config_names import config_files
from mmwave.apis.shorthands import use_shorthands

EPOCHS, ITERS = 'asmlp-t_retinanet_1x_coco', 'wavemlp-t_sem-fpn_40k_ade20k-512x512'


def load(name, options=None, **given):
    return load_config(name, cfg_options=options, shorthands=Shorthands(**given))


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(shorthands, '_say', lines.append)
    return lines


def curve(settings, length):
    """The learning rate at each step of a run, by mmengine's own schedulers."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    OptimWrapper(optimizer)
    schedulers = [
        PARAM_SCHEDULERS.build(dict(copy.deepcopy(s), optimizer=optimizer)) for s in settings
    ]
    rates = []
    for _ in range(length):
        rates.append(optimizer.param_groups[0]['lr'])
        for scheduler in schedulers:
            scheduler.step()
    return rates


def scaled(schedulers, before, after, by_epoch=True):
    cfg = Config(dict(param_scheduler=copy.deepcopy(schedulers)))
    cfg.train_cfg = {'max_epochs' if by_epoch else 'max_iters': before}
    name = 'epochs' if by_epoch else 'iters'
    use_shorthands(cfg, Shorthands(**{name: after}), {})
    return [dict(s) for s in cfg.param_scheduler]


def test_none_of_them_changes_nothing():
    assert load(EPOCHS)._cfg_dict == load_config(EPOCHS)._cfg_dict


def test_each_sets_what_a_run_reads():
    cfg = load(EPOCHS, batch=3, lr=0.5)
    assert (cfg.train_dataloader.batch_size, cfg.optim_wrapper.optimizer.lr) == (3, 0.5)
    assert cfg.param_scheduler == load_config(EPOCHS).param_scheduler


def test_epochs_scale_milestones_and_say_what_stays(said):
    cfg = load(EPOCHS, epochs=24)
    assert cfg.train_cfg.max_epochs == 24
    before = load_config(EPOCHS)
    warm_up, steps = before.param_scheduler
    assert cfg.param_scheduler[0] == warm_up
    assert cfg.param_scheduler[1].milestones == [2 * m for m in steps.milestones]
    assert cfg.param_scheduler[1].end == 24
    assert said == [f'LinearLR, from 0 to {warm_up.end} iterations, stays as it is']


def test_iterations_scale_the_curve_and_cap_the_intervals(said):
    before, cfg = load_config(ITERS), load(ITERS, iters=400)
    assert cfg.train_cfg.max_iters == 400
    assert cfg.train_cfg.val_interval == 400
    assert cfg.default_hooks.checkpoint.interval == 400
    whole = curve(before.param_scheduler, before.train_cfg.max_iters)
    short = curve(cfg.param_scheduler, 400)
    step = before.train_cfg.max_iters // 400
    assert short == pytest.approx(whole[::step], abs=0.01)
    assert said == []


def test_intervals_within_the_length_stay():
    cfg = load(EPOCHS, epochs=2)
    assert cfg.train_cfg.val_interval == load_config(EPOCHS).train_cfg.val_interval == 1


@pytest.mark.parametrize('name', [n for n in config_files() if n.startswith('asmlp')])
def test_every_schedule_of_a_family_ends_with_a_run_of_a_quarter(name):
    before = load_config(name)
    key = 'max_iters' if 'max_iters' in before.train_cfg else 'max_epochs'
    length = before.train_cfg[key] // 4
    given = {key.removeprefix('max_'): length}
    cfg = load(name, **given)
    last = cfg.param_scheduler[-1]
    assert last.end - length == before.param_scheduler[-1].end - before.train_cfg[key]
    assert all(s.get('T_max', 1) <= length for s in cfg.param_scheduler)
    assert all(max(s.get('milestones', [0])) < length for s in cfg.param_scheduler)


def test_a_warm_up_and_a_cosine_keep_their_shape():
    schedulers = [
        dict(type='LinearLR', start_factor=0.1, begin=0, end=20),
        dict(type='CosineAnnealingLR', T_max=80, eta_min=0.0, begin=20, end=100),
    ]
    short = scaled(schedulers, 100, 50)
    assert [(s['begin'], s['end']) for s in short] == [(0, 10), (10, 50)]
    assert short[1]['T_max'] == 40
    assert curve(short, 50) == pytest.approx(curve(schedulers, 100)[::2], abs=0.06)


def test_a_warm_up_without_a_whole_step_is_left_out(said):
    """Of one step, the first, it would leave its low rate for all of the run."""
    schedulers = [
        dict(type='LinearLR', start_factor=1e-3, begin=0, end=6),
        dict(type='CosineAnnealingLR', T_max=300, eta_min=0.0, begin=0, end=301),
    ]
    short = scaled(schedulers, 300, 30)
    assert short == [dict(schedulers[1], T_max=30, end=31)]
    assert max(curve(short, 30)) == 1.0
    assert said == ['LinearLR is left out: of 30 instead of 300 it would have no whole step']


def test_milestones_that_fall_together_or_on_the_end():
    (steps,) = scaled([dict(type='MultiStepLR', begin=0, end=12, milestones=[8, 11])], 12, 3)
    assert (steps['milestones'], steps['end']) == ([2], 3)


@pytest.mark.parametrize(
    ('scheduler', 'key', 'value'),
    [
        (dict(type='StepLR', step_size=10), 'step_size', 5),
        (dict(type='OneCycleLR', eta_max=1.0, total_steps=100), 'total_steps', 50),
        (dict(type='CosineRestartLR', periods=[20, 80], eta_min=0.0), 'periods', [10, 40]),
        (dict(type='CosineAnnealingLR', T_max=50), 'T_max', 25),
    ],
)
def test_other_schedules(scheduler, key, value, said):
    (short,) = scaled([scheduler], 100, 50)
    assert short[key] == value
    assert said == []


def test_what_cannot_be_scaled_is_said(said):
    rate = dict(type='ExponentialLR', gamma=0.9)
    assert scaled([rate], 100, 50) == [rate]
    assert said == ['ExponentialLR states nothing that can be scaled to 50, and stays as it is']


@pytest.mark.parametrize(
    ('name', 'given', 'line'),
    [
        (EPOCHS, dict(iters=5), r'--iters 5: .* length of train_cfg.max_epochs=12: give --epochs'),
        (ITERS, dict(epochs=5), r'--epochs 5: .* of train_cfg.max_iters=40000: give --iters'),
        (EPOCHS, dict(epochs=0), '--epochs 0: expected a number above 0'),
        (EPOCHS, dict(batch=-1), '--batch -1: expected a number above 0'),
        (EPOCHS, dict(lr=float('nan')), '--lr nan: expected a number above 0'),
        (EPOCHS, dict(track='wand'), '--track wand: expected one of tensorboard, wandb'),
    ],
)
def test_what_does_not_fit_is_one_line(name, given, line):
    with pytest.raises(UsageError, match=line):
        load(name, **given)


def test_an_option_that_sets_the_same_is_refused():
    with pytest.raises(UsageError, match=r'--batch and --cfg-options train_dataloader.batch_size'):
        load(EPOCHS, {'train_dataloader.batch_size': 3}, batch=2)


def test_without_such_a_setting():
    cfg = Config(dict(train_dataloader=dict(batch_size=2)))
    with pytest.raises(UsageError, match=r'--lr 0.1: the config has no optim_wrapper.optimizer.lr'):
        use_shorthands(cfg, Shorthands(lr=0.1), {})
    with pytest.raises(UsageError, match=r'--epochs 2: the config states no train_cfg.max_epochs'):
        use_shorthands(cfg, Shorthands(epochs=2), {})


def test_a_tracker_is_one_more_backend_of_the_visualizer(monkeypatch):
    monkeypatch.setattr(shorthands, 'find_spec', lambda name: True)
    before = load_config(EPOCHS)
    cfg = load(EPOCHS, track='wandb')
    kinds = [backend.type for backend in cfg.visualizer.vis_backends]
    assert kinds == [*(b.type for b in before.visualizer.vis_backends), 'WandbVisBackend']
    assert cfg.visualizer.type == before.visualizer.type
    use_shorthands(cfg, Shorthands(track='wandb'), {})  # there already
    assert [backend.type for backend in cfg.visualizer.vis_backends] == kinds


def test_a_tracker_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(shorthands, 'find_spec', lambda name: None)
    with pytest.raises(UsageError, match=r"--track wandb: .* pip install 'wandb'"):
        load(EPOCHS, track='wandb')
    with pytest.raises(UsageError, match=r"pip install 'mmwave-suite\[track\]'"):
        load(EPOCHS, track='tensorboard')
