"""The bar of a training on a terminal; elsewhere there is none."""

import io
import logging
import sys

import pytest

from mmwave.apis import prepare_training, train
from mmwave.engine import progress
from tests.tiny_run import TRAIN, write_run


class Terminal(io.StringIO):
    def isatty(self):
        return True


def run(folder, monkeypatch, stream, **options):
    monkeypatch.setenv('TERM', 'xterm')
    monkeypatch.setattr(sys, 'stdout', stream)
    monkeypatch.setattr(progress, 'SECONDS', 0)
    folder.mkdir(exist_ok=True)
    cfg = prepare_training(
        str(write_run(folder)),
        work_dir=str(folder / 'work'),
        cfg_options={'default_hooks.logger.interval': 1, **options},
    )
    return train(cfg)


def test_a_terminal_has_a_bar_and_the_lines_of_the_log_above(tmp_path, monkeypatch):
    stream = Terminal()
    runner = run(tmp_path / 'a', monkeypatch, stream)
    shown = stream.getvalue()
    steps = len(TRAIN)
    for step in range(1, steps + 1):
        assert f'{step}/{steps}' in shown
    assert 'loss' in shown
    assert 'validating' in shown
    # Whole lines, and the same as in the file.
    with open(runner.logger.log_file) as file:
        (line,) = [line.strip() for line in file if f'Epoch(train)  [1][{steps}/{steps}]' in line]
    assert f'Epoch(train)  [1][{steps}/{steps}]' in shown
    assert '\x1b' not in line
    # As it was before.
    assert sys.stdout is stream
    streams = [h.stream for h in runner.logger.handlers if not isinstance(h, logging.FileHandler)]
    assert streams == [stream]


def test_elsewhere_there_is_none(tmp_path, monkeypatch):
    stream = io.StringIO()
    runner = run(tmp_path / 'b', monkeypatch, stream)
    assert not any(isinstance(hook, progress.ProgressHook) for hook in runner.hooks)
    assert '\x1b[?25l' not in stream.getvalue()  # the cursor stays


@pytest.mark.parametrize('first', [True, False])
def test_who_stops_in_the_middle_leaves_the_terminal_as_it_was(tmp_path, monkeypatch, first):
    stream = Terminal()

    def leave(self, *args, **kwargs):
        raise KeyboardInterrupt

    name = 'before_train' if first else 'after_train_iter'
    monkeypatch.setattr(progress.ProgressHook, name, leave)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / f'c{first}', monkeypatch, stream)
    assert sys.stdout is stream
    shown = stream.getvalue()
    assert shown.count('\x1b[?25l') == shown.count('\x1b[?25h')  # the cursor
