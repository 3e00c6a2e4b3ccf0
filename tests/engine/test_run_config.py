"""A config that a run leaves in its folder, run again, is the same run."""

import copy
import pickle
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook

from mmwave import apis
from mmwave.apis import prepare_testing, prepare_training, train
from mmwave.checkpoint import read_checkpoint
from mmwave.engine.run_config import RunConfig, set_for_call
from mmwave.errors import UserError
from tests.tiny_run import write_run

# What a CPU does without.
FOR_GPUS = """
sync_bn = 'torch'
unused = dict(norm_cfg=dict(type='SyncBN'))
"""
OURS = ['DataCheckHook', 'LoadReportHook', 'ResumeCheckHook']


@pytest.fixture
def tiny(tmp_path):
    config = write_run(tmp_path)
    config.write_text(config.read_text() + FOR_GPUS)
    return str(config)


def counted(runner):
    names = [type(hook).__name__ for hook in runner.hooks]
    return {name: names.count(name) for name in [*OURS, 'EMAHook']}


def test_a_config_that_was_written_down_is_the_run_that_the_user_chose(tiny, tmp_path, capsys):
    work = tmp_path / 'work'
    options = {'optim_wrapper.optimizer.lr': 0.02}
    asked = prepare_training(tiny, work_dir=str(work), amp=True, cfg_options=options)
    before = asked.to_dict()
    runner = train(asked)
    assert asked.to_dict() == before
    note = 'no GPU here, running on the CPU: SyncBN -> BN, AMP -> bfloat16 autocast'
    assert note in ' '.join(capsys.readouterr().out.split())
    assert type(runner.optim_wrapper).__name__ == 'AutocastOptimWrapper'
    assert counted(runner) == dict.fromkeys([*OURS, 'EMAHook'], 1)
    dumped = Config.fromfile(work / 'tiny.py')
    assert dumped.to_dict() == before
    assert dumped.optim_wrapper.type == 'AmpOptimWrapper'
    assert dumped.optim_wrapper.optimizer.lr == 0.02
    assert (dumped.sync_bn, dumped.unused.norm_cfg.type) == ('torch', 'SyncBN')
    assert 'launcher' not in dumped
    text = (work / 'tiny.py').read_text()
    meta = read_checkpoint(work / 'epoch_1.pth')['meta']
    (shown,) = work.glob('*/vis_data/config.py')
    assert meta['cfg'] == shown.read_text() == text
    # Once more, from what was written down.
    again = train(prepare_training(str(work / 'tiny.py')))
    assert again.work_dir == runner.work_dir
    assert counted(again) == counted(runner)
    assert (work / 'tiny.py').read_text() == text
    for name, tensor in runner.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], tensor), name


def test_resuming_and_testing_are_of_the_call(tiny, tmp_path):
    work = tmp_path / 'work'
    train(prepare_training(tiny, work_dir=str(work), amp=True))
    text = (work / 'tiny.py').read_text()
    checkpoint = str(work / 'epoch_1.pth')
    longer = {'train_cfg.max_epochs': 2}
    for resume in ('auto', checkpoint):
        runner = train(
            prepare_training(tiny, work_dir=str(work), amp=True, resume=resume, cfg_options=longer)
        )
        assert runner.epoch == 2
        assert (work / 'tiny.py').read_text() == text.replace('max_epochs=1', 'max_epochs=2')
    # A test with other options leaves the training's config as it is, and draws and writes once.
    text = (work / 'tiny.py').read_text()
    cfg = prepare_testing(
        tiny,
        checkpoint,
        work_dir=str(work),
        out=str(tmp_path / 'out.pkl'),
        show_dir=str(tmp_path / 'shown'),
    )
    apis.test(cfg)
    assert (work / 'tiny.py').read_text() == text
    assert (tmp_path / 'out.pkl').is_file()
    # Elsewhere it is written down, without what was of the call.
    cfg.work_dir = str(tmp_path / 'other')
    apis.test(cfg)
    dumped = Config.fromfile(tmp_path / 'other/tiny.py')
    assert dumped.load_from is None
    assert dumped.resume is False
    assert dumped.default_hooks.visualization == dict(type='VisualizationHook', enable=False)
    assert dumped.test_evaluator == Config.fromfile(tiny).test_evaluator
    # Weights to start from are a part of the run.
    prepared = prepare_training(tiny, work_dir=str(tmp_path / 'from'), load_from=checkpoint)
    train(prepared)
    assert Config.fromfile(tmp_path / 'from/tiny.py').load_from == checkpoint


def test_hooks_that_earlier_versions_wrote_down_come_once(tiny, tmp_path):
    old = [
        dict(type='EMAHook', momentum=0.1),
        *(dict(type='mmwave.DataCheckHook') for _ in range(2)),
        dict(type='mmwave.ResumeCheckHook'),
        dict(type='mmwave.LoadReportHook', min_fraction=0.5),
    ]
    Path(tiny).write_text(Path(tiny).read_text() + f'\ncustom_hooks = {old}\n')
    work = tmp_path / 'work'
    runner = train(prepare_training(tiny, work_dir=str(work)))
    assert counted(runner) == dict.fromkeys([*OURS, 'EMAHook'], 1)
    assert Config.fromfile(work / 'tiny.py').custom_hooks == old[:1]
    # The old training's share of tensors is none of a test's.
    state = runner.model.state_dict()
    del state['head.fc.bias']
    torch.save({'state_dict': state}, tmp_path / 'part.pth')
    tested = prepare_testing(tiny, str(tmp_path / 'part.pth'), work_dir=str(tmp_path / 'test'))
    with pytest.raises(UserError, match='at least 100% must match'):
        apis.test(tested)


def test_a_hook_of_the_user_s_stays_as_it_is():
    class Own(Hook):
        pass

    built = Own()
    mine = dict(type='LoadReportHook', min_fraction=0.9)
    cfg = Config(dict(custom_hooks=[built, mine]))
    added = [dict(type='mmwave.LoadReportHook', min_fraction=1.0), dict(type='mmwave.Other')]
    run = RunConfig(cfg, hooks=added)
    assert run.custom_hooks == [run.custom_hooks[0], mine, added[1]]
    assert type(run.custom_hooks[0]) is Own
    assert run.to_dict()['custom_hooks'][1:] == [mine]


def test_what_was_set_for_a_call_is_run_and_not_written():
    cfg = Config(dict(a=1, b=dict(c=2)))
    set_for_call(cfg, a=3, b=dict(c=4), new=5)
    set_for_call(cfg, a=6)
    cfg.chosen = 7
    run = RunConfig(cfg)
    run.machine = 8
    assert (run.a, run.b.c, run.new, run.machine) == (6, 4, 5, 8)
    wanted = dict(a=1, b=dict(c=2), chosen=7)
    for copied in (copy.deepcopy(run), pickle.loads(pickle.dumps(run))):  # noqa: S301
        assert (copied.machine, copied.to_dict()) == (8, wanted)
    assert run.to_dict() == wanted
    assert Config.fromstring(run.dump(), '.py').to_dict() == wanted
    assert Config.fromstring(run.pretty_text, '.py').to_dict() == wanted
    assert cfg.a == 6
