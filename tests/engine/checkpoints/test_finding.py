"""The newest whole checkpoint in a run's own folders."""

import os
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import CheckpointHook

from mmwave.engine.checkpoints import Saves, newest_checkpoint, output_folder
from mmwave.engine.checkpoints.finding import find_for_run
from mmwave.errors import UserError
from tests.checkpoint.files import flip_bit


def write(folder, *names, iterations=1, time='20250101_000000', legacy=False):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        content = {
            'meta': {'epoch': 1, 'iter': iterations, 'time': time},
            'state_dict': {'weight': torch.arange(1000.0)},
        }
        torch.save(content, folder / name, _use_new_zipfile_serialization=not legacy)
    return folder


def note(folder, text):
    (folder / 'last_checkpoint').write_text(str(text))


def newest(folder, *saves, **options):
    """Return the name of the newest whole one, and the names of the skipped ones."""
    found = newest_checkpoint(str(folder), list(saves), **options)
    skipped = [os.path.basename(line.split(' is not resumed')[0]) for line in found.skipped]
    return found.path and os.path.basename(found.path), skipped


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def clear(path):
    path.write_bytes(b'')


def overwrite(path):
    path.write_bytes(b'something else' * 100)


# -- The note ----------------------------------------------------------------------------------


@pytest.mark.parametrize('text', [None, '', '\n'])
def test_no_checkpoint_at_all(tmp_path, text):
    if text is not None:
        note(tmp_path, text)
    assert newest(tmp_path) == (None, [])


@pytest.mark.parametrize('original', ['there', 'gone'])
def test_a_copy_has_its_own_checkpoints(tmp_path, original):
    old = tmp_path / 'old'
    if original == 'there':
        write(old, 'epoch_1.pth')
    new = write(tmp_path / 'new', 'epoch_1.pth', 'epoch_2.pth')
    note(new, old / 'epoch_1.pth')
    assert newest_checkpoint(str(new), []).path == str(new / 'epoch_2.pth')


def test_a_relative_note_is_of_this_folder_in_whatever_folder_the_run_starts(tmp_path, monkeypatch):
    work = write(tmp_path / 'a/work', 'epoch_1.pth')
    note(work, 'work/epoch_1.pth')
    write(tmp_path / 'b/work', 'epoch_1.pth')
    monkeypatch.chdir(tmp_path / 'b')
    assert newest_checkpoint(str(work), []).path == str(work / 'epoch_1.pth')
    monkeypatch.chdir(tmp_path / 'a')
    assert os.path.samefile(newest_checkpoint('work', []).path, work / 'epoch_1.pth')


def test_checkpoints_of_an_output_folder(tmp_path):
    """The folder that the note names comes first, where both have such a file."""
    work = write(tmp_path / 'work')
    out = write(tmp_path / 'out/work', 'epoch_1.pth')
    assert output_folder(str(tmp_path / 'out'), f'{work}/') == str(out)
    assert output_folder(None, str(work)) == output_folder(str(work), str(work)) == str(work)
    note(work, out / 'epoch_1.pth')
    saves = [Saves(str(out))]
    for _ in range(2):
        assert newest_checkpoint(str(work), saves).path == str(out / 'epoch_1.pth')
        write(work, 'epoch_1.pth')
    note(work, work / 'epoch_1.pth')
    assert newest_checkpoint(str(work), saves).path == str(work / 'epoch_1.pth')


@pytest.mark.parametrize('text', ['/', '..', 'a\0b', 'folder.pth', 'gone.pth', ''])
def test_a_note_that_names_no_file_here(tmp_path, text):
    """What lies there counts; without that a note of something is no sign of a new training."""
    (tmp_path / 'folder.pth').mkdir()
    note(tmp_path, text)
    if text:
        with pytest.raises(UserError, match='which is no file: give --resume PATH') as told:
            newest(tmp_path)
        assert str(told.value).isprintable()
    write(tmp_path, 'epoch_1.pth', 'epoch_2.pth')
    assert newest(tmp_path) == ('epoch_2.pth', [])


def test_another_folder_s_file_is_not_taken(tmp_path):
    old, new = write(tmp_path / 'old', 'epoch_1.pth'), write(tmp_path / 'new')
    note(new, old / 'epoch_1.pth')
    with pytest.raises(UserError, match=f'which is no file in {new}: give --resume PATH'):
        newest(new)


# -- The newest --------------------------------------------------------------------------------


def test_numbers_count_and_not_when_a_file_was_changed(tmp_path):
    write(tmp_path, 'epoch_9.pth', 'epoch_10.pth', 'epoch_2.pth', 'best_x_epoch_11.pth', 'a.pth')
    (tmp_path / 'epoch_12.pth').mkdir()
    for name in ('epoch_x.pth', 'epoch_007.pth', 'epoch_13.pth.part', 'xepoch_14.pth'):
        (tmp_path / name).write_text('')
    os.utime(tmp_path / 'epoch_10.pth', (1, 1))
    assert newest(tmp_path) == ('epoch_10.pth', [])
    note(tmp_path, 'epoch_9.pth')  # killed between the file and its note
    assert newest(tmp_path) == ('epoch_10.pth', [])


def test_epochs_and_iterations_are_compared_by_what_the_files_note(tmp_path):
    write(tmp_path, 'epoch_1.pth', iterations=100)
    write(tmp_path, 'epoch_2.pth', iterations=200)
    write(tmp_path, 'iter_150.pth', iterations=150)
    assert newest(tmp_path) == ('epoch_2.pth', [])
    write(tmp_path, 'iter_250.pth', iterations=250)
    assert newest(tmp_path) == ('iter_250.pth', [])
    flip_bit(tmp_path / 'iter_250.pth')
    assert newest(tmp_path) == ('epoch_2.pth', ['iter_250.pth'])


def test_names_of_a_hook_s_own(tmp_path):
    write(tmp_path, 'at-0002.pth', 'at-0010.pth', 'at-3.pth')
    assert newest(tmp_path, Saves(str(tmp_path), 'at-{:04d}.pth')) == ('at-0010.pth', [])
    note(tmp_path, 'at-0002.pth')  # without the hook the note alone names one
    assert newest(tmp_path) == ('at-0002.pth', [])


def test_a_longer_training_of_the_same_folder_before(tmp_path):
    """Its checkpoints have larger numbers, and were written before those of this one."""
    write(tmp_path, 'epoch_11.pth', 'epoch_12.pth', iterations=120, time='20250101_120000')
    write(tmp_path, 'epoch_1.pth', iterations=10, time='20250102_080000')
    write(tmp_path, 'epoch_2.pth', iterations=20, time='20250102_090000')
    note(tmp_path, 'epoch_2.pth')
    assert newest(tmp_path) == ('epoch_2.pth', ['epoch_12.pth', 'epoch_11.pth'])
    assert 'of an earlier training' in newest_checkpoint(str(tmp_path), []).skipped[0]
    (tmp_path / 'last_checkpoint').unlink()
    assert newest(tmp_path) == ('epoch_12.pth', [])


# -- Damage ------------------------------------------------------------------------------------


@pytest.mark.parametrize('legacy', [False, True])
@pytest.mark.parametrize('damage', [cut, flip_bit, clear, overwrite])
def test_damaged_ones_are_passed_over_and_named(tmp_path, damage, legacy):
    if legacy and damage is flip_bit:
        pytest.skip('the format has no checksums')
    write(tmp_path, 'epoch_1.pth', 'epoch_2.pth', 'epoch_3.pth', legacy=legacy)
    note(tmp_path, 'epoch_3.pth')
    damage(tmp_path / 'epoch_3.pth')
    assert newest(tmp_path) == ('epoch_2.pth', ['epoch_3.pth'])
    damage(tmp_path / 'epoch_2.pth')
    assert newest(tmp_path) == ('epoch_1.pth', ['epoch_3.pth', 'epoch_2.pth'])
    damage(tmp_path / 'epoch_1.pth')
    with pytest.raises(
        UserError, match=r'no checkpoint in .* is whole: .*epoch_3.*epoch_2'
    ) as told:
        newest(tmp_path)
    assert str(told.value).isprintable()


def test_without_contents_a_file_that_was_cut_is_told(tmp_path):
    write(tmp_path, 'epoch_1.pth', 'epoch_2.pth', 'epoch_3.pth')
    flip_bit(tmp_path / 'epoch_2.pth')
    cut(tmp_path / 'epoch_3.pth')
    assert newest(tmp_path, contents=False) == ('epoch_2.pth', ['epoch_3.pth'])


# -- For a run ---------------------------------------------------------------------------------


def run_of(folder, **of_hook):
    logged = []
    return SimpleNamespace(
        hooks=[CheckpointHook(interval=1, **of_hook)],
        work_dir=str(folder),
        logger=SimpleNamespace(warning=logged.append),
        logged=logged,
        _resume=True,
        _load_from=None,
    )


def test_a_run_goes_on_from_it(tmp_path):
    write(tmp_path, 'epoch_1.pth', 'epoch_2.pth')
    cut(tmp_path / 'epoch_2.pth')
    run = run_of(tmp_path)
    find_for_run(run)
    assert (run._resume, run._load_from) == (True, str(tmp_path / 'epoch_1.pth'))
    (line,) = run.logged
    assert f'{tmp_path / "epoch_2.pth"} is not resumed from: it is damaged (' in line


def test_a_run_starts_anew_where_there_is_none(tmp_path):
    note(tmp_path, '')
    run = run_of(tmp_path)
    find_for_run(run)
    assert (run._resume, run._load_from) == (False, None)
    assert 'the training starts anew' in run.logged[0]


def test_a_path_that_is_given_counts(tmp_path):
    write(tmp_path, 'epoch_1.pth')
    run = run_of(tmp_path)
    run._load_from = 'there.pth'
    find_for_run(run)
    assert run._load_from == 'there.pth'


def test_a_new_run_tells_what_it_replaces(tmp_path):
    run = run_of(tmp_path)
    run._resume = False
    find_for_run(run)
    assert not run.logged
    write(tmp_path, *(f'epoch_{number}.pth' for number in range(1, 7)))
    find_for_run(run)
    (line,) = run.logged
    assert f'{tmp_path} holds 6 checkpoints of an earlier training (epoch_3.pth, epoch_4' in line
    assert '--resume goes on' in line
