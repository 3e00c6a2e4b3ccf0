"""How a command line tool ends."""

import argparse
import gc
import os
import signal
import weakref

import pytest
import torch
from mmengine.config import DictAction

from mmwave.apis.values import Typed, read
from mmwave.cli import add_settings, run_tool
from mmwave.engine.exit_codes import INTERRUPTED
from mmwave.errors import UserError


@pytest.fixture(autouse=True)
def no_arguments(monkeypatch):
    monkeypatch.setattr('sys.argv', ['tool'])
    monkeypatch.setenv('LOCAL_RANK', '0')
    handler = signal.getsignal(signal.SIGCHLD)
    yield
    signal.signal(signal.SIGCHLD, handler)


def test_a_user_s_error_is_one_line_and_exit_code_2(capsys):
    def main(args):
        raise UserError('no such thing')

    with pytest.raises(SystemExit) as ended:
        run_tool(main, argparse.ArgumentParser())
    assert ended.value.code == 2
    assert capsys.readouterr().err == 'error: no such thing\n'


def test_a_worker_that_ends_meanwhile_changes_nothing(capsys):
    """torch raises an error for each, wherever the main thread is."""

    def of_torch(*_):
        raise RuntimeError('DataLoader worker (pid 1) exited unexpectedly')

    class Full(UserError):
        def __str__(self):
            os.kill(os.getpid(), signal.SIGCHLD)
            return 'shared memory is too small'

    def main(args):
        signal.signal(signal.SIGCHLD, of_torch)
        raise Full

    with pytest.raises(SystemExit) as ended:
        run_tool(main, argparse.ArgumentParser())
    assert ended.value.code == 2
    assert capsys.readouterr().err == 'error: shared memory is too small\n'


@pytest.mark.parametrize(
    ('error', 'line'),
    [
        (
            UserError('loaded 1 of 2\n  1 not in it: x\n  and so on'),
            'loaded 1 of 2; 1 not in it: x; and so on',
        ),
        (UserError('a\x1b[2Jb\rc\udc80'), r'a\x1b[2Jb; c\udc80'),
        (FileNotFoundError('no file a.pth'), 'no file a.pth'),
        (
            PermissionError(13, 'Permission denied', 'a.pth'),
            "[Errno 13] Permission denied: 'a.pth'",
        ),
        (IsADirectoryError(21, 'Is a directory', 'a'), "[Errno 21] Is a directory: 'a'"),
        (NotADirectoryError(20, 'Not a directory', 'a/b'), "[Errno 20] Not a directory: 'a/b'"),
    ],
)
def test_errors_of_files_and_of_several_lines_are_one_line(capsys, error, line):
    def main(args):
        raise error

    with pytest.raises(SystemExit) as ended:
        run_tool(main, argparse.ArgumentParser())
    assert ended.value.code == 2
    assert capsys.readouterr().err == f'error: {line}\n'


@pytest.mark.parametrize(
    ('name', 'package'),
    [
        ('torch', 'mmwave-suite'),
        ('mmengine', 'mmwave-suite'),
        ('mmcv', 'mmwave-suite[mmcv]'),
        ('mmdet', 'mmwave-suite[det]'),
    ],
)
def test_a_library_that_is_not_installed_is_one_line(capsys, name, package):
    def main(args):
        raise ModuleNotFoundError(f'No module named {name!r}', name=name)

    with pytest.raises(SystemExit) as ended:
        run_tool(main, argparse.ArgumentParser())
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"error: {name} is not installed: pip install '{package}'\n"


def test_a_part_of_a_library_that_is_missing_keeps_its_traceback():
    def main(args):
        raise ModuleNotFoundError("No module named 'mmdet.nothing'", name='mmdet.nothing')

    with pytest.raises(ModuleNotFoundError):
        run_tool(main, argparse.ArgumentParser())


def test_settings_are_collected_as_typed():
    ours, theirs = argparse.ArgumentParser(), argparse.ArgumentParser()
    add_settings(ours)
    theirs.add_argument('--cfg-options', nargs='+', action=DictAction)
    given = [
        '--cfg-options',
        'a.b=1',
        'c=(1,2)',
        'd=[a,b]',
        'e=x=y',
        '--cfg-options',
        'f=True',
        'd=2',
    ]
    settings = ours.parse_args(given).cfg_options
    right = theirs.parse_args(given).cfg_options
    assert {key: read(text) for key, text in settings.items()} == right
    assert list(settings) == list(right)
    assert all(isinstance(text, Typed) for text in settings.values())
    assert ours.parse_args(['--cfg-options', 'a= b, c ']).cfg_options == {'a': ' b, c '}
    assert ours.parse_args([]).cfg_options is None


@pytest.mark.parametrize('wrong', ['b', '=1'])
def test_what_is_no_setting(capsys, wrong):
    parser = argparse.ArgumentParser()
    add_settings(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(['--cfg-options', 'a=1', wrong])
    assert f'{wrong!r} is no KEY=VALUE' in capsys.readouterr().err


@pytest.mark.parametrize('status', [None, 0, 1])
def test_the_exit_code_is_the_tool_s(status):
    try:
        run_tool(lambda args: status, argparse.ArgumentParser())
        code = 0
    except SystemExit as ended:
        code = ended.code
    assert code == (status or 0)


def test_other_errors_keep_their_traceback():
    def main(args):
        raise ValueError('a mistake of ours')

    with pytest.raises(ValueError, match='a mistake of ours'):
        run_tool(main, argparse.ArgumentParser())


def test_the_process_group_is_taken_down_with_its_threads(monkeypatch, tmp_path):
    """Whatever still holds the group keeps its threads alive into the interpreter's end."""
    groups = []

    def main(args):
        store = torch.distributed.FileStore(str(tmp_path / 'store'), 1)
        torch.distributed.init_process_group('gloo', store=store, rank=0, world_size=1)
        wrapped = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(1, 1))
        wrapped.runner = [wrapped]  # a cycle, as a runner and its hooks are
        groups.append(weakref.ref(wrapped))

    gc.disable()
    try:
        run_tool(main, argparse.ArgumentParser())
        assert not torch.distributed.is_initialized()
        assert groups[0]() is None
    finally:
        gc.enable()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


@pytest.mark.parametrize('swallowed', [False, True])
def test_ctrl_c_ends_in_one_word(capsys, swallowed):
    """Also where a library takes it for an error of its own."""

    def main(args):
        try:
            raise KeyboardInterrupt
        except BaseException:
            if not swallowed:
                raise
            raise SyntaxError('Failed to format the config file') from None

    with pytest.raises(SystemExit) as ended:
        run_tool(main, argparse.ArgumentParser())
    assert ended.value.code == INTERRUPTED
    assert capsys.readouterr().err == 'interrupted\n'
