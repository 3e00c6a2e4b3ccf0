"""What ends a training whose loss is not finite, and what goes on without it."""

import math
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import DefaultSampler
from mmengine.hooks import CheckpointHook, RuntimeInfoHook
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch.utils.data import Dataset

from mmwave.engine.hooks import FiniteLossHook
from mmwave.engine.hooks import finite_loss as module
from mmwave.engine.hooks.finite_loss import MOST_OVERFLOWS
from mmwave.errors import UserError

STEPS = 6


class Samples(Dataset):
    metainfo = {}

    def __init__(self, bad):
        self.bad = bad

    def __len__(self):
        return STEPS

    def __getitem__(self, index):
        value = torch.full((3, 2, 2), float(index) / 10)
        if index in self.bad:
            value[0] = math.nan
        return dict(inputs=value, data_samples=SimpleNamespace(img_path=f'there/{index}.png'))


def collate(samples):
    return {key: [sample[key] for sample in samples] for key in samples[0]}


class Toy(BaseModel):
    """Has a batch norm, whose statistics a NaN would stay in."""

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(3)
        self.linear = torch.nn.Linear(3, 1)

    def forward(self, inputs, data_samples, mode='tensor'):
        x = self.linear(self.norm(torch.stack(inputs)).mean((2, 3)))
        return dict(
            loss_a=x.square().mean(), loss_b=0.1 * x.abs().mean(), acc=torch.tensor(math.nan)
        )


def runner_of(folder, *, bad=(), wrapper=None, hook=None, model=None, by_epoch=True, **settings):
    torch.manual_seed(0)
    runner_of.count = getattr(runner_of, 'count', 0) + 1
    return Runner(
        model or Toy(),
        work_dir=str(folder),
        train_dataloader=dict(
            batch_size=1,
            num_workers=0,
            dataset=Samples(bad),
            sampler=dict(type=DefaultSampler, shuffle=False),
            collate_fn=collate,
        ),
        train_cfg=dict(by_epoch=True, max_epochs=2)
        if by_epoch
        else dict(by_epoch=False, max_iters=12),
        optim_wrapper=wrapper or dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9)),
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1)),
        custom_hooks=[hook or FiniteLossHook()],
        cfg=Config(dict()),
        experiment_name=f'finite{runner_of.count}-{folder.name}',
        **settings,
    )


def test_a_run_of_finite_losses_is_left_alone(tmp_path):
    """Also where a value that is no loss is NaN."""
    runner_of(tmp_path).train()
    assert (tmp_path / 'epoch_2.pth').exists()


def test_the_first_loss_that_is_not_finite_ends_the_run(tmp_path):
    runner = runner_of(tmp_path, bad=[3])
    with pytest.raises(UserError) as error:
        runner.train()
    text = str(error.value)
    assert text.startswith('in iteration 4 loss_a is nan, loss_b is nan (')
    for part in ('learning rate 0.01', '1 image: there/3.png', 'max_skipped=N'):
        assert part in text
    assert '\n' not in text
    assert not list(tmp_path.glob('*.pth'))


@pytest.mark.parametrize(('value', 'norm'), [(0.0, 'nan'), (1.0, 'inf')])
def test_gradients_that_are_not_finite_end_it_where_they_are_clipped(tmp_path, value, norm):
    class Steep(Toy):
        def forward(self, inputs, data_samples, mode='tensor'):
            x = self.linear(torch.full((1, 3), value))
            return dict(loss=(x - x.detach()).sqrt().sum())  # the square root of 0 is steep

    wrapper = dict(optimizer=dict(type='SGD', lr=0.01), clip_grad=dict(max_norm=1.0))
    with pytest.raises(
        UserError, match=rf'iteration 1 the gradients are not finite .*gradients {norm}'
    ):
        runner_of(tmp_path, model=Steep(), wrapper=wrapper).train()


def test_a_sum_alone_may_hold_what_is_not_finite(tmp_path):
    hook = FiniteLossHook()
    runner = runner_of(tmp_path, hook=hook)
    runner.train_loop  # noqa: B018 - builds it
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    hook.before_train(runner)
    hook.after_train_iter(runner, 0, None, dict(loss_x=torch.tensor(1.0), loss=3.0))
    hook.after_train_iter(runner, 0, None, None)
    with pytest.raises(UserError, match='loss_x is inf'):
        hook.after_train_iter(runner, 0, None, dict(loss_x=torch.tensor(math.inf)))


def trained(folder, *, bad=(), **options):
    runner = runner_of(folder, bad=bad, **options)
    runner.train()
    return runner


@pytest.mark.parametrize('accumulated', [1, 2])
def test_steps_are_left_out_as_if_they_were_never_made(tmp_path, accumulated, capsys):
    """Weights and the statistics of batch norms are those of a run without the bad step."""
    seen = []

    class Notes(FiniteLossHook):
        def after_train_iter(self, runner, *args, **kwargs):
            super().after_train_iter(runner, *args, **kwargs)
            seen.append({k: v.clone() for k, v in runner.model.state_dict().items()})

    wrapper = dict(
        optimizer=dict(type='SGD', lr=0.01, momentum=0.9), accumulative_counts=accumulated
    )
    trained(tmp_path, bad=[3], wrapper=wrapper, hook=Notes(max_skipped=2))
    before = seen[3 - accumulated]
    for name, value in seen[3].items():
        if 'num_batches' not in name:
            assert torch.equal(value, before[name]), name
    assert not torch.equal(seen[3]['linear.weight'], seen[5]['linear.weight'])
    assert all(value.isfinite().all() for value in seen[-1].values())
    said = capsys.readouterr().out
    assert 'in iteration 4 loss_a is nan' in said
    assert 'there/3.png): step left out, 1 of at most 2 (max_skipped)' in said
    assert 'step left out, 2 of at most 2' in said


def test_so_many_are_left_out_and_no_more(tmp_path):
    runner = runner_of(tmp_path, bad=[1, 3], hook=FiniteLossHook(max_skipped=1))
    with pytest.raises(UserError, match=r'in iteration 4 .*as may be \(max_skipped=1\)'):
        runner.train()
    assert all(value.isfinite().all() for value in runner.model.state_dict().values())


def test_gradients_alone_make_a_step_be_left_out(tmp_path, capsys):
    class Steep(Toy):
        def forward(self, inputs, data_samples, mode='tensor'):
            x = self.linear(torch.stack(inputs).mean((2, 3)))
            steep = (x - x).sqrt().sum() if data_samples[0].img_path.endswith('3.png') else 0
            return dict(loss=x.square().sum() + steep)

    runner = trained(tmp_path, model=Steep(), hook=FiniteLossHook(max_skipped=2))
    assert all(value.isfinite().all() for value in runner.model.state_dict().values())
    assert 'in iteration 4 the gradients are not finite (' in capsys.readouterr().out


def test_by_iteration_nothing_is_saved_after_it(tmp_path):
    runner = runner_of(tmp_path, bad=[2], by_epoch=False)
    runner.register_hook(CheckpointHook(interval=1, by_epoch=False))
    with pytest.raises(UserError, match='in iteration 3 loss_a is nan'):
        runner.train()
    assert {p.name for p in tmp_path.glob('*.pth')} == {'iter_1.pth', 'iter_2.pth'}


@pytest.mark.parametrize(('saves_every', 'steps'), [(None, 10), (4, 4)])
def test_several_processes_ask_each_other_now_and_then(monkeypatch, saves_every, steps):
    """Every ten steps, before a checkpoint and before a validation."""
    monkeypatch.setattr(module, 'get_world_size', lambda: 2)
    monkeypatch.setattr(module, '_first', lambda found: found)
    hooks = [RuntimeInfoHook()]
    if saves_every:
        hooks.append(CheckpointHook(interval=saves_every, by_epoch=False))
    runner = SimpleNamespace(
        optim_wrapper=OptimWrapper(torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)),
        message_hub=SimpleNamespace(log_scalars={}),
        hooks=hooks,
        iter=0,
        max_iters=100,
    )
    hook = FiniteLossHook(interval=10)
    hook.before_train(runner)
    hook.before_val(runner)
    bad = dict(loss=torch.tensor(math.nan))
    for runner.iter in range(steps - 1):
        hook.after_train_iter(runner, 0, None, bad)
    with pytest.raises(UserError, match='in iteration 1 on rank 0 loss is nan'):
        hook.before_val(runner)
    runner.iter = steps - 1
    with pytest.raises(UserError, match='in iteration 1 on rank 0 loss is nan'):
        hook.after_train_iter(runner, 0, None, bad)


def test_all_processes_name_what_the_first_of_them_found(monkeypatch):
    other = module.Found(3, False, 1, 'in iteration 4 on rank 1')
    monkeypatch.setattr(module, 'get_world_size', lambda: 2)
    monkeypatch.setattr(module, 'all_reduce', lambda flag, op: flag.fill_(1))
    monkeypatch.setattr(module, 'all_gather_object', lambda found: [found, other])
    assert module._first(None) == other
    assert module._first(module.Found(4, False, 0, 'in iteration 5 on rank 0')) == other


@pytest.mark.parametrize('given', [dict(interval=0), dict(max_skipped=-1)])
def test_arguments_out_of_range(given):
    (name,) = given
    with pytest.raises(UserError, match=f'{name}={given[name]} must be at least'):
        FiniteLossHook(**given)


def test_losses_that_overflow_are_left_to_a_scaler_for_a_while():
    weight = torch.nn.Parameter(torch.ones(1))
    wrapper = OptimWrapper(torch.optim.SGD([weight], lr=0.1))
    wrapper.loss_scaler = torch.amp.GradScaler('cpu')
    said = []
    runner = SimpleNamespace(
        optim_wrapper=wrapper,
        message_hub=SimpleNamespace(log_scalars={}),
        logger=SimpleNamespace(warning=said.append),
        hooks=[],
        iter=0,
    )
    hook = FiniteLossHook()
    overflow = {'loss': torch.tensor(math.inf)}
    steps = (
        [overflow] * MOST_OVERFLOWS + [{'loss': torch.tensor(1.0)}] + [overflow] * MOST_OVERFLOWS
    )
    for runner.iter, outputs in enumerate(steps):
        hook.after_train_iter(runner, 0, None, outputs)
    assert len(said) == 2  # one for each time that it began
    with pytest.raises(UserError, match='loss is inf'):
        hook.after_train_iter(runner, 0, None, overflow)
