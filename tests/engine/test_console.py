"""What of a run is shown, and what the log file receives."""

import importlib
import logging
import multiprocessing
import sys
import warnings
from contextlib import suppress

import pytest
import torch
from mmengine.fileio import FileClient
from mmengine.fileio.file_client import HardDiskBackend
from mmengine.logging import MMLogger, print_log
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import Registry
from mmengine.utils.dl_utils import set_multi_processing
from mmengine.visualization import Visualizer

from mmwave.engine.console import HARMLESS, LOGGED, ON_SCREEN, console, current
from mmwave.errors import UserError


class Screen:
    """Both standard streams as one text."""

    def __init__(self, capture):
        self.capture = capture
        self.text = ''

    def getvalue(self):
        self.text += ''.join(self.capture.readouterr())
        return self.text


@pytest.fixture
def screen(monkeypatch, capsys):
    """What is shown, warnings included, which pytest would catch."""
    monkeypatch.delenv('RANK', raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter('always')
        warnings.showwarning = lambda *given: sys.stderr.write(
            warnings.formatwarning(*given[:4], '')
        )
        yield Screen(capsys)


@pytest.fixture(scope='module')
def libraries():
    """What is said while they are imported is another matter."""
    for name in ('mmdet.evaluation', 'mmseg.engine.hooks', 'mmseg.evaluation', 'mmseg.models'):
        importlib.import_module(name)


@pytest.fixture
def logger(tmp_path, screen):
    """Makes loggers as a runner does."""

    def make(name='run'):
        path = tmp_path / f'{name}.log'
        return MMLogger.get_instance(f'{name}-{tmp_path}', log_file=str(path)), path

    yield make
    for name in [name for name in MMLogger._instance_dict if name.endswith(str(tmp_path))]:
        for handler in MMLogger._instance_dict.pop(name).handlers:
            handler.close()


def faster_coco():
    if importlib.util.find_spec('faster_coco_eval') is not None:
        pytest.skip('faster_coco_eval is installed')
    with suppress(KeyError):  # its class is registered already
        importlib.reload(sys.modules['mmdet.evaluation.metrics.faster_coco_metric'])


def metric():
    importlib.import_module('mmseg.evaluation').IoUMetric()


def scope():
    with Registry('thing').switch_scope_and_registry('mmpretrain'):
        pass


def visualizer():
    Visualizer(vis_backends=[dict(type='LocalVisBackend')])


def threads():
    with pytest.MonkeyPatch.context() as patch:
        for name in ('MKL_NUM_THREADS', 'OMP_NUM_THREADS'):
            patch.delenv(name, raising=False)
        set_multi_processing(distributed=True, mp_start_method='fork')


def wrapper():
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group('gloo', store=store, rank=0, world_size=1)
    try:
        MMDistributedDataParallel(torch.nn.Linear(1, 1), broadcast_buffers=False)
    finally:
        torch.distributed.destroy_process_group()


def strides():
    warnings.warn_explicit(
        'Grad strides do not match bucket view strides. This may indicate grad was not created '
        'according to the gradient layout contract.\n'
        'grad.sizes() = [150, 128, 1, 1], strides() = [128, 1, 128, 128]\n'
        'bucket_view.sizes() = [150, 128, 1, 1], strides() = [128, 1, 1, 1]',
        UserWarning,
        torch.autograd.graph.__file__,
        979,
    )


def pictures():
    Visualizer.get_instance('pictures')  # the hook uses the current one
    importlib.import_module('mmseg.engine.hooks').SegVisualizationHook()


def loss():
    importlib.import_module('mmseg.models.losses').CrossEntropyLoss()


# What makes a library emit each warning, in the order of HARMLESS.
CAUSES = (
    faster_coco,
    lambda: FileClient('disk'),
    HardDiskBackend,
    scope,
    metric,
    visualizer,
    threads,
    wrapper,
    strides,
    pictures,
    loss,
)
SIMILAR = (
    'faster_coco_eval is not installed, and no other evaluation either',
    '"FileClient" cannot be opened',
    '"HardDiskBackend" is full',
    'Failed to search registry with scope "mmdett" in the "thing" registry tree.',
    'The prefix is not set in metric class MyMetric.',
    "Failed to add <class 'mmengine.visualization.vis_backend.TensorboardVisBackend'>, please",
    'Setting MKL_NUM_THREADS environment variable failed',
    '`broadcast_buffers` is deprecated. Nothing takes its place.',
    'Grad strides do not match bucket view strides.\ngrad.sizes() = [150, 128, 3, 3], strides()',
    'The draw is False, it means that the disk is full',
    '``avg_non_ignore`` is ignored',
)


@pytest.mark.parametrize(
    ('entry', 'cause'), zip(HARMLESS, CAUSES, strict=True), ids=lambda x: getattr(x, 'source', '')
)
def test_what_a_user_can_do_nothing_about_is_in_the_log_file_alone(
    libraries, screen, logger, entry, cause
):
    with console() as quiet:
        made, path = logger()
        quiet.attach(made)
        quiet.end_start()
        cause()
    assert screen.getvalue() == ''
    kept = path.read_text()
    assert ' - WARNING - ' in kept
    assert entry.message.search(kept)


@pytest.mark.parametrize(
    ('entry', 'text'), zip(HARMLESS, SIMILAR, strict=True), ids=lambda x: getattr(x, 'source', '')
)
def test_what_is_similar_is_shown_and_in_the_log_file(screen, logger, entry, text):
    with console() as quiet:
        made, path = logger()
        quiet.attach(made)
        if entry.source == LOGGED:
            print_log(text, 'current', logging.WARNING)
        else:
            warnings.warn_explicit(text, UserWarning, f'/lib/{entry.source}', 1)
    assert text in screen.getvalue()
    assert text in path.read_text()


def test_the_same_words_of_another_file_are_shown(screen):
    with console():
        warnings.warn_explicit(
            'Default ``avg_non_ignore`` is False, if you would like to ignore the certain label ',
            UserWarning,
            'mine.py',
            1,
        )
    assert 'avg_non_ignore' in screen.getvalue()


def test_the_start_is_in_the_log_file_and_what_follows_on_the_screen_too(screen, logger):
    with console() as quiet:
        print('printed before there is a log file')
        made, path = logger()
        made.info('logged early')
        quiet.attach(made)
        print('printed', 'in two', end=' ')
        print('parts')
        made.info('logged')
        made.info('a summary', extra=ON_SCREEN)
        made.warning('a warning')
        made.error('an error')
        warnings.warn('of Python', stacklevel=1)
        print('unfinished', end='')
        quiet.end_start()
        print('printed later')
        made.info('logged later')
    shown, kept = screen.getvalue(), path.read_text()
    for text in (
        'a summary',
        'a warning',
        'an error',
        'of Python',
        'printed later',
        'logged later',
    ):
        assert text in shown
    for text in ('before there is', 'logged early', 'in two', 'logged\n', 'unfinished'):
        assert text not in shown
        assert text in kept
    for text in ('printed in two parts\n', 'a summary', 'a warning', 'an error', 'logged later'):
        assert kept.count(text) == 1
    assert 'UserWarning: of Python\n  warnings.warn(' in kept
    assert 'warnings.warn(' not in shown  # one line


def test_everything_is_as_it_was_afterwards_however_often(screen, logger):
    def state():
        return sys.stdout, MMLogger.callHandlers, warnings.showwarning, current()

    before = state()
    for name in ('first', 'second'):
        with console(carry=True):
            print(f'prepared {name}')
            with console() as inner:
                assert inner is current()
            assert sys.stdout is not before[0]
        assert state() == before
        with console() as quiet:
            made, path = logger(name)
            quiet.attach(made)
        assert state() == before
        assert path.read_text().count('prepared') == 1
        assert f'prepared {name}' in path.read_text()
        handlers = list(made.handlers)
        made.info(f'after {name}')
        assert f'after {name}' in screen.getvalue()
        assert made.handlers == handlers
        assert not any(handler.filters[1:] for handler in handlers)
    assert 'prepared' not in screen.getvalue()


def test_what_nobody_carries_on_is_no_part_of_the_next_run(screen, logger):
    with console():
        print('of the first')
    with console() as quiet:
        made, path = logger()
        quiet.attach(made)
    assert 'of the first' not in path.read_text()


def test_verbose_shows_all(libraries, screen, logger):
    with console(verbose=True) as loud:
        print('printed')
        made, path = logger()
        loud.attach(made)
        made.info('logged')
        made.info('loaded 3 of 4 tensors from a.pth')
        HardDiskBackend()
        loss()
        print('printed later')
    for text in ('printed', 'logged', '"HardDiskBackend" is the alias', 'avg_non_ignore'):
        assert text in screen.getvalue()
    for text in ('printed', 'printed later', 'logged', 'avg_non_ignore'):
        assert text in path.read_text()
    assert loud.loads == ['loaded 3 of 4 tensors from a.pth']


@pytest.mark.parametrize(('error', 'shown'), [(ValueError('ours'), True), (UserError('x'), False)])
def test_an_unexpected_error_shows_what_would_be_lost(screen, error, shown):
    @console()
    def failing():
        print('a hint')
        raise error

    with pytest.raises(type(error)):
        failing()
    assert ('a hint\n' in screen.getvalue()) == shown


@pytest.mark.parametrize('attached', [False, True])
def test_who_leaves_during_the_start_is_heard(screen, logger, attached):
    @console()
    def leaving():
        if attached:
            current().attach(logger()[0])
        print('licence expired')
        sys.exit(1)

    with pytest.raises(SystemExit):
        leaving()
    assert screen.getvalue().count('licence expired') == 1


def test_who_leaves_later_is_heard_once(screen, logger):
    @console()
    def leaving():
        print('of the start')
        current().attach(logger()[0])
        current().end_start(done=True)
        print('afterwards')
        sys.exit(1)

    with pytest.raises(SystemExit):
        leaving()
    assert 'of the start' not in screen.getvalue()
    assert screen.getvalue().count('afterwards') == 1


def test_a_debugger_is_seen_and_heard(screen, monkeypatch):
    monkeypatch.setattr(sys, 'breakpointhook', lambda: print('(Pdb)'))
    hook = sys.breakpointhook
    with console():
        breakpoint()
    assert '(Pdb)' in screen.getvalue()
    assert sys.breakpointhook is hook


def test_other_processes_show_what_they_printed_when_they_fail(screen):
    made = MMLogger.get_instance('rank1')  # it has no file

    @console()
    def failing():
        current().attach(made)
        print('a hint')
        raise ValueError('ours')

    with pytest.raises(ValueError, match='ours'):
        failing()
    assert 'a hint\n' in screen.getvalue()


def test_the_standard_output_has_all_that_it_has(screen):
    real = sys.stdout
    with console():
        assert sys.stdout is not real
        for name in ('encoding', 'errors', 'isatty', 'fileno', 'flush', 'writelines'):
            assert hasattr(sys.stdout, name) == hasattr(real, name)
        sys.stdout.writelines(['withheld\n'])
        assert sys.stdout.buffer is real.buffer
        print('after somebody took the stream below')
    assert 'withheld' not in screen.getvalue()
    assert 'after somebody took the stream below' in screen.getvalue()


def test_who_wraps_the_standard_output_in_the_start_hears_of_the_training(screen):
    heard = []
    with console() as quiet:
        stream, write = sys.stdout, sys.stdout.write
        stream.write = lambda text: (heard.append(text), write(text))
        quiet.end_start(done=True)
        print('an epoch')
    assert 'an epoch' in heard
    assert 'an epoch' in screen.getvalue()


def work():
    print('printed by a worker')
    print_log('logged by a worker', 'current')
    sys.stdout.flush()


def test_workers_that_are_started_meanwhile_are_heard(tmp_path, monkeypatch):
    with open(tmp_path / 'screen', 'w') as file:
        monkeypatch.setattr('sys.stdout', file)
        with console() as quiet:
            made = MMLogger.get_instance(f'worker-{tmp_path}', log_file=str(tmp_path / 'log'))
            quiet.attach(made)
            worker = multiprocessing.get_context('fork').Process(target=work)
            worker.start()
            worker.join()
    MMLogger._instance_dict.pop(f'worker-{tmp_path}')
    text = (tmp_path / 'screen').read_text()
    assert 'printed by a worker\n' in text
    assert 'logged by a worker\n' in text


class TestSecondProcess:
    @pytest.fixture(autouse=True)
    def rank(self, screen, monkeypatch):
        monkeypatch.setenv('RANK', '1')

    def test_warnings_wait_to_be_compared(self, screen):
        with console(carry=True):
            warnings.warn('in preparing', stacklevel=1)
        with console() as quiet:
            warnings.warn('in building', stacklevel=1)
            print_log('logged', 'current', logging.WARNING)
            assert screen.getvalue() == ''
            quiet.compare_warnings(last=True)
            warnings.warn('later', stacklevel=1)
            assert 'later' in screen.getvalue()
        lines = screen.getvalue().splitlines()
        assert [line.partition(' ')[0] for line in lines[:3]] == ['process'] * 3
        for line, text in zip(
            lines, ('in preparing', 'in building', 'logged', 'later'), strict=True
        ):
            assert line.endswith(text)

    def test_none_is_lost_where_the_run_ends_before(self, screen):
        @console()
        def failing():
            warnings.warn('the reason', stacklevel=1)
            raise UserError('x')

        with pytest.raises(UserError):
            failing()
        assert 'the reason' in screen.getvalue()


def test_every_entry_says_why():
    assert all(len(entry.why) > 20 for entry in HARMLESS)
    assert all(entry.source == LOGGED or entry.source.endswith('.py') for entry in HARMLESS)
