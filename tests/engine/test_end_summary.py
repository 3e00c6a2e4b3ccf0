"""What a run leaves behind is told at its end, by the files that are there."""

import os
import re
import shlex
from types import SimpleNamespace

import pytest

from mmwave import apis
from mmwave.apis import prepare_testing, prepare_training, train
from mmwave.cli.program import parser
from mmwave.engine import end_summary
from mmwave.engine.end_summary import tell_end
from tests.tiny_run import write_run


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('end')


@pytest.fixture(scope='module')
def ended(folder):
    """The runner of a training, and what its end says."""
    config = str(write_run(folder))
    runner = train(prepare_training(config, work_dir=str(folder / 'work')))
    return runner, block(runner.logger.log_file)


def block(log):
    """The last lines of a log by their names."""
    with open(log) as file:
        title, *lines = re.split(r'\n(?=  \w)', file.read().rpartition('INFO - ')[2].strip())
    return {'title': title, **dict(line.split(maxsplit=1) for line in lines)}


def test_a_training_names_checkpoints_log_and_the_next_command(ended):
    runner, said = ended
    assert said['title'] == 'trained: what is left'
    assert os.path.samefile(said['last'], f'{runner.work_dir}/epoch_1.pth')
    path, score = said['best'].split(' ', 1)
    assert os.path.isfile(path)
    assert re.fullmatch(r'\(accuracy/top1 [\d.]+\)', score)
    assert os.path.samefile(said['log'], runner.logger.log_file)
    assert os.path.isdir(said['curves'])
    program, *words = shlex.split(said['next'])
    assert program == 'mmwave'
    args = parser().parse_args(words)
    assert (args.command, args.checkpoint) == ('test', path)
    assert os.path.isfile(args.config)


def test_a_test_names_what_was_asked_for(ended, folder):
    _, said = ended
    _, _, config, checkpoint = shlex.split(said['next'])
    cfg = prepare_testing(
        config,
        checkpoint,
        work_dir=str(folder / 'tested'),
        out=str(folder / 'out.pkl'),
        show_dir=str(folder / 'pictures'),
        cfg_options={'visualizer.name': 'end of a test'},
    )
    metrics = apis.test(cfg)
    assert 'accuracy/top1' in metrics
    (log,) = (folder / 'tested').rglob('*.log')
    said = block(log)
    assert said.pop('title') == 'tested: what is left'
    assert said == {
        'log': str(log),
        'predictions': str(folder / 'out.pkl'),
        'pictures': str(folder / 'pictures'),
    }
    assert all(os.path.exists(path) for path in said.values())


def fake(**notes):
    lines = []
    return lines, SimpleNamespace(
        message_hub=SimpleNamespace(runtime_info=notes),
        logger=SimpleNamespace(log_file='a.log', info=lambda text, extra: lines.append(text)),
        work_dir='w',
        log_dir='w/1',
        hooks=[],
        cfg=SimpleNamespace(filename=None),
    )


def test_several_metrics_have_a_best_each():
    lines, runner = fake(
        best_ckpt_mIoU='w/a.pth', best_score_mIoU=0.5, best_ckpt_aAcc='w/b.pth', best_score_aAcc=80
    )
    tell_end(runner, 'train')
    assert '  best        w/a.pth (mIoU 0.5)\n  best        w/b.pth (aAcc 80)\n' in lines[0]


def test_a_run_without_checkpoints_has_no_next_command():
    lines, runner = fake()
    tell_end(runner, 'train')
    assert lines == ['trained: what is left\n  log         a.log\n  curves      w/1/vis_data']


def test_other_processes_say_nothing(monkeypatch):
    monkeypatch.setattr(end_summary, 'is_main_process', lambda: False)
    lines, runner = fake()
    tell_end(runner, 'train')
    assert lines == []
