"""How loudly a runner loads a checkpoint."""

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.model import BaseModel
from mmengine.runner import Runner

from mmwave.engine.hooks import LoadReportHook
from mmwave.errors import UserError
from mmwave.models import WaveMLP


class Toy(BaseModel):
    def __init__(self):
        super().__init__()
        self.backbone = torch.nn.Linear(2, 2)
        self.head = torch.nn.Linear(2, 2)

    def forward(self, inputs, mode='tensor'):
        return self.head(self.backbone(inputs))


@pytest.fixture
def runner(tmp_path):
    def make(min_fraction):
        return Runner(
            Toy(),
            work_dir=str(tmp_path),
            custom_hooks=[LoadReportHook(min_fraction=min_fraction)],
            cfg=Config(dict()),
            experiment_name=f'toy{min_fraction}-{tmp_path.name}',
        )

    return make


def test_counts_are_logged(runner, tmp_path, capsys):
    torch.save(dict(state_dict=Toy().state_dict(), meta={}), tmp_path / 'all.pth')
    runner(1.0).load_checkpoint(str(tmp_path / 'all.pth'))
    assert 'loaded 4 of 4 tensors' in capsys.readouterr().out


def test_a_checkpoint_of_something_else_stops(runner, tmp_path):
    state = {f'other.{k}': v for k, v in Toy().state_dict().items()}
    torch.save(dict(state_dict=state, meta={}), tmp_path / 'other.pth')
    with pytest.raises(ValueError, match='loaded 0 of 4 tensors'):
        runner(0.5).load_checkpoint(str(tmp_path / 'other.pth'))


def test_half_is_enough_for_training_and_not_for_testing(runner, tmp_path):
    state = {k: v for k, v in Toy().state_dict().items() if k.startswith('backbone')}
    torch.save(dict(state_dict=state, meta={}), tmp_path / 'half.pth')
    made = runner(0.5)
    made.load_checkpoint(str(tmp_path / 'half.pth'))
    assert torch.equal(made.model.backbone.weight, state['backbone.weight'])
    with pytest.raises(ValueError, match='loaded 2 of 4 tensors'):
        runner(1.0).load_checkpoint(str(tmp_path / 'half.pth'))


def test_a_tensor_of_another_shape_stops_unless_it_is_named(runner, tmp_path):
    """But for heads, whose classes may be others."""
    state = dict(Toy().state_dict(), **{'head.bias': torch.ones(3)})
    path = str(tmp_path / 'other.pth')
    torch.save(dict(state_dict=state, meta={}), path)
    runner(0.5).load_checkpoint(path)
    torch.save(dict(state_dict=dict(state, **{'backbone.bias': torch.ones(3)}), meta={}), path)
    made = runner(0.25)
    with pytest.raises(UserError, match=r'backbone\.bias would be left untrained'):
        made.load_checkpoint(path)
    (hook,) = (hook for hook in made.hooks if isinstance(hook, LoadReportHook))
    hook.may_differ = LoadReportHook(may_differ='backbone.bias').may_differ
    made.load_checkpoint(path)


def test_weights_noted_to_need_other_settings_stop(runner, tmp_path):
    made = runner(0.5)
    sizes = dict(depths=(1, 1, 1, 1), dims=(8, 12, 16, 20))
    made.model.backbone = WaveMLP(sizes)
    state, path = made.model.state_dict(), str(tmp_path / 'noted.pth')
    tanh = dict(type='GELU', approximate='tanh')
    for noted, message in (
        (dict(type='mmwave.WaveMLP', act_cfg=tanh), r"with act_cfg=\{.*'tanh'"),
        (dict(type='mmwave.RepMLPNet', arch='t224'), 'of a RepMLPNet, this backbone is a WaveMLP'),
    ):
        torch.save(dict(state_dict=state, meta=dict(backbone=noted)), path)
        with pytest.raises(ValueError, match=f'the checkpoint is .*{message}'):
            made.load_checkpoint(path)
    torch.save(dict(state_dict=state, meta=dict(backbone=dict(arch=sizes))), path)
    made.load_checkpoint(path)


AVERAGES = {
    'list': ([torch.ones(1)], 'its ema_state_dict is of type list'),
    'text': ({'module.head.bias': 'x'}, 'its ema_state_dict is of type dict, expected one of tens'),
    'name': ({'module.nope': torch.ones(1)}, 'has module.nope, its state_dict has not'),
    'shape': ({'module.head.bias': torch.ones(5)}, r'module.head.bias of \(5,\) and torch.float32'),
    'integers': ({'module.head.bias': torch.ones(2, dtype=torch.int64)}, 'none of 1 tensors'),
    'integer': (
        {'module.head.bias': torch.ones(2).long(), 'module.head.weight': torch.ones(2, 2)},
        r'module.head.bias of \(2,\) and torch.int64',
    ),
    'complex': ({'module.head.bias': torch.ones(2) * 1j}, 'module.head.bias is a complex tensor'),
}


@pytest.mark.parametrize('name', AVERAGES)
def test_averages_that_do_not_fit_stop_a_run_that_averages(runner, tmp_path, name):
    averages, message = AVERAGES[name]
    content = dict(state_dict=Toy().state_dict(), ema_state_dict=averages, meta={})
    torch.save(content, tmp_path / 'all.pth')
    made = runner(1.0)
    made.load_checkpoint(str(tmp_path / 'all.pth'))  # of no use to a run without averages
    made.register_hook(EMAHook())
    made.call_hook('before_run')
    with pytest.raises(UserError, match=f'the checkpoint cannot be loaded: .*{message}'):
        made.load_checkpoint(str(tmp_path / 'all.pth'))


def test_nan_in_averages_is_said(runner, tmp_path, capsys):
    averages = {'module.head.bias': torch.full((2,), torch.nan)}
    content = dict(state_dict=Toy().state_dict(), ema_state_dict=averages, meta={})
    torch.save(content, tmp_path / 'all.pth')
    made = runner(1.0)
    made.register_hook(EMAHook())
    made.call_hook('before_run')
    made.load_checkpoint(str(tmp_path / 'all.pth'))
    said = 'of the averaged weights 1 tensors hold 2 NaN or infinite values: module.head.bias'
    assert said in capsys.readouterr().out
