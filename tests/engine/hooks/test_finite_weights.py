"""Weights that are NaN or infinite: before the first step, before a test, before they are saved."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import EMAHook, Hook

from mmwave.checkpoint import read_checkpoint
from mmwave.engine.hooks import FiniteWeightsHook, NotFiniteError
from mmwave.errors import UserError
from tests.engine.checkpoints.runs import Regression, run

NAN, INF = float('nan'), float('inf')


class Spoil(Hook):
    """Sets a weight after some iterations."""

    def __init__(self, tensor, value, iteration=3):
        self.tensor, self.value, self.iteration = tensor, value, iteration

    @torch.no_grad()
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == self.iteration:
            runner.model.state_dict()[self.tensor].view(-1)[0] = self.value


@pytest.mark.parametrize('value', [NAN, INF, -INF])
@pytest.mark.parametrize('by_epoch', [True, False])
@pytest.mark.parametrize('name', ['layer.weight', 'layer.bias', 'mask'])
def test_they_are_not_written(tmp_path, by_epoch, name, value):
    """The checkpoint before is kept, though it is one too many."""
    hooks = [Spoil(name, value), FiniteWeightsHook()]
    trained = run(tmp_path, by_epoch=by_epoch, max_keep_ckpts=1, hooks=hooks)
    with pytest.raises(UserError, match=r'no checkpoint is written after . iterations') as told:
        trained.train()
    assert str(told.value).isprintable()
    assert name in str(told.value)
    (kept,) = tmp_path.glob('*.pth')
    assert kept.name == ('epoch_1.pth' if by_epoch else 'iter_2.pth')
    assert read_checkpoint(kept)['state_dict']['layer.weight'].isfinite().all()


def test_averaged_weights_are_not_written(tmp_path):
    class SpoilAverage(Hook):
        @torch.no_grad()
        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            average.ema_model.module.layer.bias.fill_(NAN)

    average = EMAHook(momentum=1e-4)
    hooks = [average, SpoilAverage(), FiniteWeightsHook()]
    with pytest.raises(UserError, match=r'1 tensors hold 1 NaN or infinite values: layer\.bias'):
        run(tmp_path, hooks=hooks).train()
    assert not list(tmp_path.glob('*.pth'))


def test_a_training_does_not_begin_with_them(tmp_path):
    """Wherever they come from."""
    run(tmp_path / 'first', 1).train()
    content = read_checkpoint(tmp_path / 'first' / 'epoch_1.pth')
    content['state_dict']['layer.bias'].fill_(NAN)
    torch.save(content, tmp_path / 'nan.pth')
    for options in ({}, {'resume': True}):
        trained = run(
            tmp_path, hooks=[FiniteWeightsHook()], load_from=str(tmp_path / 'nan.pth'), **options
        )
        with pytest.raises(NotFiniteError, match=r'layer\.bias, those of .*nan\.pth: use'):
            trained.train()
    trained = run(tmp_path, hooks=[FiniteWeightsHook()])
    trained.model.layer.weight.data.fill_(INF)
    trained.model.init_weights = lambda: None
    with pytest.raises(NotFiniteError, match=r'layer\.weight, before the first step'):
        trained.train()


def model_of(**values):
    model = Regression()
    for name, value in values.items():
        model.state_dict()[name.replace('__', '.')].fill_(value)
    return SimpleNamespace(model=model, hooks=[], _load_from='x.pth', iter=5)


def test_a_test_does_not_begin_with_them():
    hook = FiniteWeightsHook()
    hook.before_test(model_of(mask=0))
    with pytest.raises(NotFiniteError, match=r'1 tensors hold 3 NaN .*: layer\.weight'):
        hook.before_test(model_of(mask=0, layer__weight=NAN))


def test_buffers_that_are_built_so_and_names_that_are_ignored():
    runner = model_of()
    hook = FiniteWeightsHook()
    with pytest.raises(NotFiniteError, match='mask'):
        hook.before_train(runner)
    hook.before_run(runner)
    hook.before_train(runner)
    for names in (['layer.w', 'layer.b'], ['']):
        hook = FiniteWeightsHook(ignore=names)
        hook.before_run(runner)
        hook.before_train(model_of(layer__weight=NAN, layer__bias=NAN))
        hook.before_save_checkpoint(
            runner, {'state_dict': model_of(layer__bias=NAN).model.state_dict()}
        )
