"""Schedules put to a point are those that were stepped there, for every scheduler of mmengine."""

import copy

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import PARAM_SCHEDULERS

from mmwave.engine.schedules import can_replay, changes, misfits, replay

EPOCHS, LENGTH = 4, 3
KINDS = [
    dict(type='LinearLR', start_factor=0.1, begin=1, end=7, by_epoch=False),
    dict(type='CosineAnnealingLR', T_max=4, eta_min=1e-3),
    dict(type='CosineAnnealingLR', T_max=4, eta_min_ratio=0.1, convert_to_iter_based=True),
    dict(type='PolyLR', power=0.9, eta_min=1e-3, end=5),
    dict(type='StepLR', step_size=2),
    dict(type='MultiStepLR', milestones=[1, 3]),
    dict(type='ExponentialLR', gamma=0.9),
    dict(type='CosineRestartLR', periods=[2, 3], restart_weights=[0.9, 0.5], eta_min=0.0),
    dict(type='ConstantLR', factor=0.5, end=3),
    dict(type='OneCycleLR', eta_max=0.3, total_steps=20, by_epoch=False),
    dict(type='CosineAnnealingMomentum', T_max=4, eta_min=0.1),
    dict(type='CosineAnnealingParamScheduler', param_name='weight_decay', T_max=9, by_epoch=False),
]


def build(kinds, scale, adam=False):
    """Return schedulers of an optimizer of three groups, two of them alike."""
    layers = [torch.nn.Linear(1, 1) for _ in range(3)]
    groups = [
        dict(params=layer.parameters(), lr=lr * scale, weight_decay=0.1)
        for layer, lr in zip(layers, (0.1, 0.02, 0.02), strict=True)
    ]
    kind, options = (torch.optim.AdamW, {}) if adam else (torch.optim.SGD, dict(momentum=0.9))
    wrapper = OptimWrapper(kind(groups, lr=scale, **options))
    kinds = copy.deepcopy(kinds)
    arguments = dict(optimizer=wrapper, epoch_length=LENGTH)
    return wrapper, [PARAM_SCHEDULERS.build(kind, default_args=arguments) for kind in kinds]


def step(schedulers, iters):
    """Step them as mmengine does after so many iterations."""
    for n in range(1, iters + 1):
        due = [s for s in schedulers if not s.by_epoch]
        due += [s for s in schedulers if s.by_epoch and n % LENGTH == 0]
        for scheduler in due:
            scheduler.step()


def values(groups):
    names = ('lr', 'momentum', 'weight_decay', 'betas', 'initial_lr')
    return torch.tensor(
        [
            n
            for group in groups
            for name in names
            if name in group
            for n in (group[name] if name == 'betas' else [group[name]])
        ]
    )


PAIR = [KINDS[0], KINDS[2]]


@pytest.mark.parametrize('iters', [0, 1, 6, 8, 12])
@pytest.mark.parametrize('adam', [False, True])
@pytest.mark.parametrize('kinds', [*([kind] for kind in KINDS), PAIR], ids=str)
def test_a_schedule_put_to_a_point_is_the_one_stepped_there(kinds, adam, iters):
    """With other initial values than those that it was built with, and from there on."""
    scale = 1 if 'OneCycle' in str(kinds) else 2  # which takes its rates from its own settings
    stepped, theirs = build(kinds, scale, adam)
    step(theirs, iters)
    wrapper, ours = build(kinds, 1, adam)
    before = [copy.deepcopy(s.state_dict()) for s in ours]
    groups = [{k: v for k, v in g.items() if k != 'params'} for g in wrapper.param_groups]
    for group in groups:
        for name in ('lr', 'initial_lr'):
            if name in group:
                group[name] = group[name] * scale
    states = replay(ours, groups, epochs=iters // LENGTH, iters=iters, epoch_length=LENGTH)
    assert [s.state_dict() for s in ours] == before
    assert values(groups) == pytest.approx(values(stepped.param_groups), rel=1e-6)
    # What mmengine does with it.
    for state, scheduler in zip(states, ours, strict=True):
        scheduler.load_state_dict(state)
    for group, own in zip(groups, wrapper.param_groups, strict=True):
        own.update(group)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.last_step == other.last_step
        assert mine._global_step == other._global_step
        assert mine._last_value == pytest.approx(other._last_value, rel=1e-6)
    for _ in range(2):
        step(theirs, LENGTH)
        step(ours, LENGTH)
        assert values(wrapper.param_groups) == pytest.approx(values(stepped.param_groups), rel=1e-6)


def test_what_the_config_defines_otherwise_is_named():
    kinds = [KINDS[0], KINDS[1], KINDS[5]]
    _, trained = build(kinds, 2)
    step(trained, 7)
    states = [scheduler.state_dict() for scheduler in trained]
    assert changes(states, build(kinds, 1)[1]) == []
    others = [KINDS[0], {**KINDS[1], 'T_max': 8}, {**KINDS[5], 'milestones': [2]}]
    found = changes(states, build(others, 1)[1])
    assert found[0] == 'CosineAnnealingLR: T_max 4 -> 8'
    assert found[1].startswith('MultiStepLR: milestones')
    assert len(found) == 2


def test_a_schedule_by_metrics_cannot_be_replayed():
    plateau = dict(type='ReduceOnPlateauLR', monitor='loss')
    assert not can_replay(build([KINDS[0], plateau], 1)[1])
    assert can_replay(build(KINDS[:2], 1)[1])


@pytest.mark.parametrize(
    ('kind', 'told'),
    [
        (dict(KINDS[1], end=4), None),
        (dict(KINDS[1], end=8, T_max=8), 'the run ends after 50% of the schedule'),
        (dict(KINDS[1], end=2, T_max=2), 'the schedule of the learning rate ends after 50%'),
        (dict(KINDS[1], end=4, T_max=2), 'reaches its lowest learning rate at epoch 2 and rises'),
        (dict(KINDS[2], end=4), None),
    ],
)
def test_schedules_that_do_not_end_with_the_run(kind, told):
    lines = misfits(build([kind], 1)[1], EPOCHS, EPOCHS * LENGTH)
    if told is None:
        assert lines == []
    else:
        assert told in lines[0]
