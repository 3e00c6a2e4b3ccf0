"""An exception of a run as lines: for the screen, torchrun and the log file."""

import argparse
import errno
import json
import logging
import re

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from mmwave.apis import prepare_training, train
from mmwave.apis.failures import ERROR_FILE, end_by, failure_of
from mmwave.cli import run_tool
from mmwave.engine.exit_codes import USER_ERROR
from mmwave.engine.failed_step import failed_step
from mmwave.errors import UserError
from tests.tiny_run import write_run

GLOO = '[/w/third_party/gloo/gloo/transport/tcp/pair.cc:561] {} [127.0.0.1]:25744.'


@pytest.fixture(autouse=True)
def no_arguments(monkeypatch):
    monkeypatch.setattr('sys.argv', ['tool'])
    monkeypatch.setenv('LOCAL_RANK', '0')


def raising(error):
    def main(args):
        raise error

    return main


def run(main):
    with pytest.raises(SystemExit) as ended:
        run_tool(main, argparse.ArgumentParser())
    return ended.value.code


@pytest.fixture
def as_ranks(monkeypatch, tmp_path):
    """Run a tool as torchrun's process of a rank, and return what it left for torchrun."""

    def call(rank, main):
        folder = tmp_path / 'attempt_0' / str(rank)
        folder.mkdir(parents=True)
        monkeypatch.setenv(ERROR_FILE, str(folder / 'error.json'))
        monkeypatch.setenv('RANK', str(rank))
        monkeypatch.setenv('WORLD_SIZE', '2')
        try:
            run_tool(main, argparse.ArgumentParser())
        except SystemExit as end:
            code = end.code
        except Exception:
            code = 1
        return ProcessFailure(rank, 7, code, str(folder / 'error.json'))

    return call


@pytest.mark.parametrize(
    ('error', 'kind', 'text'),
    [
        (UserError('no lr'), 'user', 'no lr'),
        (OSError(errno.EROFS, 'Read-only file system', 'a'), 'user', "Read-only file system: 'a'"),
        (FileExistsError(errno.EEXIST, 'File exists', 'a'), 'user', 'a is in the way'),
        (OSError(errno.EIO, 'Input/output error'), 'other', 'OSError: .Errno 5'),
        (RuntimeError(GLOO.format('Connection closed by peer')), 'peer', 'closed by peer'),
        (RuntimeError(GLOO.format('Timed out waiting 30000ms for recv')), 'peer', '30000ms'),
        (RuntimeError('NCCL communicator was aborted on rank 1'), 'peer', 'NCCL'),
        (BrokenPipeError(errno.EPIPE, 'Broken pipe'), 'other', 'BrokenPipeError'),
        (RuntimeError(GLOO.format('op.preamble.length <= op.nbytes')), 'other', 'preamble'),
        (
            RuntimeError('failed to listen. port: 29500, useIpv6: false, name: EADDRINUSE'),
            'user',
            'port 29500 is in use on .*PORT=',
        ),
        (torch.OutOfMemoryError('CUDA: Tried to allocate 2.00 GiB.'), 'memory', '2.00'),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate "
                      '1099511627776 bytes. Error code 12'), 'memory', '1024.00 GiB'),
        (MemoryError(), 'memory', 'num_workers'),
        (RuntimeError('CUDA error: device-side assert triggered'), 'other', 'LAUNCH_BLOCKING=1'),
        (RuntimeError('DataLoader worker (pid 3) is killed by signal: Bus error. It is possible '
                      'that dataloader workers are out of shared memory.'), 'other', '--shm-size'),
        (RuntimeError('DataLoader worker (pid 3) is killed by signal: Killed.'), 'other', 'memory'),
        (KeyError('a'), 'other', "^KeyError: 'a'$"),
        (ValueError(), 'other', '^ValueError$'),
        (
            ValueError('Caught ValueError in DataLoader worker process 0.\nOriginal Traceback:\n'
                       '  File "a.py", line 3\n    f()\nValueError: of the transform\nimage a.png'),
            'other',
            '^ValueError: of the transform; image a.png$',
        ),
    ],
)  # fmt: skip
def test_the_kind_of_an_exception(error, kind, text):
    failure = failure_of(error)
    assert failure.kind == kind
    assert re.search(text, failure.what)
    assert '\n' not in failure.what
    assert failure.code == (USER_ERROR if kind == 'user' else 1)


def test_a_real_allocation_that_fails():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert failure_of(caught.value).kind == 'memory'


def test_processes_that_fail_alike_say_it_once(as_ranks, capsys):
    for rank in (0, 1):
        assert as_ranks(rank, raising(UserError('no lr'))).exitcode == USER_ERROR
    assert capsys.readouterr().err == 'error: no lr\n'
    as_ranks(2, raising(UserError('no steps')))
    assert capsys.readouterr().err == 'error: no steps\n'


def test_errors_of_two_places_are_not_alike(tmp_path, monkeypatch):
    def ended(rank, main):
        folder = tmp_path / 'attempt_0' / str(rank)
        folder.mkdir(parents=True)
        monkeypatch.setenv(ERROR_FILE, str(folder / 'error.json'))
        with pytest.raises(KeyError) as caught:
            main(None)
        return end_by(caught.value)

    def elsewhere(args):
        raise KeyError('a')

    mains = (raising(KeyError('a')), raising(KeyError('a')), elsewhere)
    # None where the traceback is to be shown.
    assert [ended(rank, main) for rank, main in enumerate(mains)] == [None, 1, None]


def test_torchrun_s_summary_carries_the_error(as_ranks):
    lost = as_ranks(1, raising(KeyError('lost')))
    summary = ChildFailedError('train.py', {1: lost}).format_msg()
    assert "KeyError: 'lost'" in summary
    assert 'rank 1 of 2 on ' in summary
    assert 'Traceback (most' in lost.error_file_data['message']['extraInfo']['py_callstack']
    user = as_ranks(0, raising(UserError('no lr')))
    assert 'no lr' in ChildFailedError('train.py', {0: user}).format_msg()
    assert user.error_file_data['message']['mmwave']['kind'] == 'user'


def test_what_torch_leaves_open_is_added_to_its_error():
    with pytest.raises(RuntimeError) as caught:
        run_tool(raising(RuntimeError('device-side assert triggered')), argparse.ArgumentParser())
    assert 'CUDA_LAUNCH_BLOCKING=1' in caught.value.__notes__[0]


@pytest.mark.parametrize('leave', [lambda args: 75, lambda args: exit(75)])
def test_an_exit_code_is_left_for_the_launcher(as_ranks, leave):
    document = as_ranks(0, leave).error_file_data['message']['mmwave']
    assert (document['kind'], document['code']) == ('left', 75)


def failing(tmp_path, error, at):
    """Return a tool that trains, whose second step fails so, or the loading of its images."""
    config = write_run(tmp_path)
    module = tmp_path / f'failing_{tmp_path.name.replace("-", "_")}.py'
    module.write_text(
        f"""
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module(force=True)
class FailingHook(Hook):
    def {at}(self, runner, batch_idx, data_batch=None, outputs=None):
        if batch_idx == 1:
            raise {error}
"""
    )

    def main(args):
        cfg = prepare_training(
            str(config),
            work_dir=str(tmp_path / 'work'),
            cfg_options={'custom_imports': dict(imports=[module.stem])},
        )
        cfg.custom_hooks = [dict(type='FailingHook')]
        train(cfg)

    return main


@pytest.mark.usefixtures('own_loader')
@pytest.mark.parametrize(
    ('at', 'phase'),
    [
        ('before_train_iter', 'training, epoch 1 of 1, iteration 2 of 4; 1 image: '),
        ('after_train_iter', 'training, epoch 1 of 1, iteration 2 of 4; 1 image: '),
        ('after_val_iter', 'validation after iteration 4, batch 2 of 4; 1 image: '),
    ],
)
def test_a_step_s_exception_names_iteration_and_images(tmp_path, monkeypatch, capsys, at, phase):
    monkeypatch.syspath_prepend(str(tmp_path))
    main = failing(tmp_path, "RuntimeError('of the step')", at)
    with pytest.raises(RuntimeError) as caught:
        run_tool(main, argparse.ArgumentParser())
    assert failed_step(caught.value).where in caught.value.__notes__[-1]
    assert caught.value.__notes__[-1].startswith(phase)
    assert re.search(r'\.png', caught.value.__notes__[-1])
    log = next((tmp_path / 'work').glob('*/*.log'))
    assert caught.value.__notes__[-1].endswith(f'; log: {log}')
    assert 'RuntimeError: of the step' in log.read_text()
    capsys.readouterr()


@pytest.mark.usefixtures('own_loader')
def test_memory_that_does_not_suffice_tells_the_batch(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(tmp_path))
    error = "torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB.')"
    assert run(failing(tmp_path, error, 'before_train_iter')) == 1
    (line,) = [text for text in capsys.readouterr().err.splitlines() if text.startswith('error:')]
    for part in (
        *('a batch of 1 (1 of 3x', '2.00 GiB were asked for', 'with_cp=True', '--amp'),
        *('train_dataloader.batch_size (now 1)', 'iteration 2 of 4', '.png', 'accumulative_counts'),
    ):
        assert part in line
    log = next((tmp_path / 'work').glob('*/*.log'))
    assert line.endswith(f'; traceback: {log}')
    assert 'Traceback (most recent call last)' in log.read_text()


@pytest.mark.usefixtures('own_loader')
@pytest.mark.parametrize(
    ('option', 'line'),
    [
        (
            {'train_dataloader.dataset.splitt': 'a'},
            r"argument 'splitt'; did you mean split\?.*ImageNet",
        ),
        ({'optim_wrapper.optimizer.lr': -1.0}, r"^error: .*learning rate: -1.*of SGD, \{'lr': -1"),
        ({'log_processor.type': 'LogProc'}, "'LogProc' is not registered"),
        ({'log_processor.window_siz': 3}, 'did you mean window_size'),
    ],
)
def test_a_setting_that_a_class_refuses_is_one_line(tmp_path, monkeypatch, capsys, option, line):
    # A logger of another test writes to an output that is closed.
    monkeypatch.setattr(logging, 'raiseExceptions', False)
    config = write_run(tmp_path)

    def main(args):
        # Loggers are kept by name, and names are by the second.
        options = {**option, 'experiment_name': tmp_path.name}
        train(prepare_training(str(config), work_dir=str(tmp_path / 'work'), cfg_options=options))

    assert run(main) == USER_ERROR
    text = capsys.readouterr().err
    assert 'Traceback' not in text
    assert re.search(line, text.splitlines()[-1])


def test_a_mistake_in_the_code_of_a_class_keeps_its_traceback():
    @HOOKS.register_module()
    class MistakenHook(Hook):
        def __init__(self):
            len(3)

    with pytest.raises(TypeError):
        run_tool(lambda args: HOOKS.build(dict(type='MistakenHook')), argparse.ArgumentParser())
    HOOKS.module_dict.pop('MistakenHook')


def test_an_error_file_that_cannot_be_written_hides_nothing(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv(ERROR_FILE, str(tmp_path / 'none' / '0' / 'error.json'))
    assert run(raising(UserError('no lr'))) == USER_ERROR
    assert capsys.readouterr().err.endswith('error: no lr\n')


def test_what_torchrun_reads_is_json(as_ranks, tmp_path):
    as_ranks(0, raising(UserError('\udc80\n"')))
    assert json.loads((tmp_path / 'attempt_0/0/error.json').read_text())
