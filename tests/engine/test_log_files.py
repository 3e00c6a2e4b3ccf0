"""Logs that cannot be written, by the log's handler and the visualizer's backends."""

import errno
import logging
from types import SimpleNamespace

import pytest
from mmengine.visualization import LocalVisBackend

from mmwave.engine.log_files import outlive_log_files


class Full:
    """An open file on a full disk."""

    def write(self, text):
        raise OSError(errno.ENOSPC, 'No space left on device')

    flush = close = lambda self: None


@pytest.fixture
def runner(tmp_path):
    logger = logging.Logger('full')
    handler = logging.FileHandler(tmp_path / 'log.txt')
    logger.addHandler(handler)
    backend = LocalVisBackend(str(tmp_path / 'vis'))
    visualizer = SimpleNamespace(_vis_backends={'local': backend})
    yield SimpleNamespace(logger=logger, visualizer=visualizer)
    handler.close()


def test_what_fails_is_told_once(runner, tmp_path, capsys):
    outlive_log_files(runner)
    (handler,) = runner.logger.handlers
    handler.stream.close()
    handler.stream = Full()
    backend = runner.visualizer._vis_backends['local']
    backend.add_scalars({'loss': 1.0})
    assert capsys.readouterr().err == ''
    backend._scalar_save_file = str(tmp_path / 'gone' / 'scalars.json')
    for step in range(3):
        runner.logger.error('what happens')
        backend.add_scalars({'loss': 1.0}, step)
        backend.add_scalar('loss', 1.0, step)
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith('warning: FileHandler cannot write ([Errno 28] No space left on device')
    assert second.startswith('warning: LocalVisBackend cannot write ([Errno 2]')


def test_mistakes_in_code_stay_visible(runner, capsys):
    outlive_log_files(runner)
    runner.logger.error('%d', 'no number')
    assert 'TypeError' in capsys.readouterr().err
    with pytest.raises(AssertionError):
        runner.visualizer._vis_backends['local'].add_scalars([1])
