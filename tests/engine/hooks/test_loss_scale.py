"""The scale of the loss, as the log tells it."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch.amp import GradScaler

from mmwave.engine.hooks import LossScaleHook
from mmwave.errors import UserError

INF = float('inf')


class Scaled(OptimWrapper):
    """Does what mmengine's wrapper for GPUs does there."""

    def __init__(self, enabled=True, scale=16.0, **kwargs):
        super().__init__(**kwargs)
        self.loss_scaler = GradScaler('cpu', init_scale=scale, enabled=enabled)

    def backward(self, loss, **kwargs):
        self.loss_scaler.scale(loss).backward(**kwargs)
        self._inner_count += 1

    def step(self, **kwargs):
        self.loss_scaler.step(self.optimizer, **kwargs)
        self.loss_scaler.update()


@pytest.fixture
def steps():
    """Make steps with losses of given factors; return the scales and the warnings."""

    def run(factors, several=False, hook=None, **settings):
        weight = torch.nn.Parameter(torch.ones(1))
        wrapper = Scaled(optimizer=torch.optim.SGD([weight], lr=0.01), **settings)
        said, scales = [], []
        hub = MessageHub.get_instance(f'scale{id(wrapper)}')
        runner = SimpleNamespace(
            optim_wrapper=OptimWrapperDict(a=wrapper) if several else wrapper,
            message_hub=hub,
            logger=SimpleNamespace(warning=said.append),
        )
        hook = hook or LossScaleHook()
        hook.before_train(runner)
        for runner.iter, factor in enumerate(factors):
            wrapper.update_params((weight * factor).sum())
            hook.after_train_iter(runner, runner.iter)
            name = 'train/a.loss_scale' if several else 'train/loss_scale'
            if name in hub.log_scalars:
                scales.append(hub.get_scalar(name).current())
        return scales, said

    return run


@pytest.mark.parametrize('several', [False, True])
def test_the_scale_is_logged_and_overflow_at_the_start_is_normal(steps, several):
    assert steps([INF, INF, 1.0, 1.0], several) == ([8.0, 4.0, 4.0, 4.0], [])


def test_a_scale_that_falls_away_is_told_once(steps):
    scales, (said,) = steps([INF] * 7)
    assert scales[-1] == 2**-3
    assert said.startswith('loss_scale is 0.5 in iteration 5, below 1: gradients are NaN, or ')


def test_so_are_many_steps_in_a_row_that_were_left_out(steps):
    factors = [1.0, INF, INF, 1.0, INF, INF, INF, INF]
    _, (line,) = steps(factors, hook=LossScaleHook(max_in_a_row=3), scale=2.0**20)
    assert 'in iteration 7: 3 steps in a row were left out' in line


@pytest.mark.parametrize(('count', 'lines'), [(3, 0), (4, 1)])
def test_accumulated_gradients_are_one_step(steps, count, lines):
    hook = LossScaleHook(max_in_a_row=2)
    _, said = steps([INF] * count, hook=hook, scale=2.0**20, accumulative_counts=2)
    assert len(said) == lines


def test_nothing_is_logged_where_nothing_is_scaled(steps):
    assert steps([1.0, 1.0], enabled=False) == ([], [])


def test_arguments_out_of_range():
    with pytest.raises(UserError, match='least=0 must be above 0'):
        LossScaleHook(least=0)
