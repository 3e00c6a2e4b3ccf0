import os

import pytest

from mmwave.engine.checkpoints.finding import last_checkpoint, output_folder
from mmwave.errors import UserError


def write(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text('')
    return folder


def note(folder, text):
    (folder / 'last_checkpoint').write_text(str(text))


def test_no_note(tmp_path):
    assert last_checkpoint(str(tmp_path), []) is None


@pytest.mark.parametrize('original', ['there', 'gone'])
def test_a_copy_has_its_own_last_checkpoint(tmp_path, original):
    old = tmp_path / 'old'
    if original == 'there':
        write(old, 'epoch_1.pth')
    new = write(tmp_path / 'new', 'epoch_1.pth', 'epoch_2.pth')
    note(new, old / 'epoch_1.pth')
    assert last_checkpoint(str(new), []) == str(new / 'epoch_1.pth')


def test_a_relative_note_is_of_this_folder_in_whatever_folder_the_run_starts(tmp_path, monkeypatch):
    work = write(tmp_path / 'a/work', 'epoch_1.pth')
    note(work, 'work/epoch_1.pth')
    write(tmp_path / 'b/work', 'epoch_1.pth')
    monkeypatch.chdir(tmp_path / 'b')
    assert last_checkpoint(str(work), []) == str(work / 'epoch_1.pth')
    monkeypatch.chdir(tmp_path / 'a')
    assert os.path.samefile(last_checkpoint('work', []), work / 'epoch_1.pth')


def test_checkpoints_of_an_output_folder(tmp_path):
    """The folder that the note names comes first, where both have such a file."""
    work = write(tmp_path / 'work')
    out = write(tmp_path / 'out/work', 'epoch_1.pth')
    assert output_folder(str(tmp_path / 'out'), f'{work}/') == str(out)
    assert output_folder(None, str(work)) == output_folder(str(work), str(work)) == str(work)
    note(work, out / 'epoch_1.pth')
    for _ in range(2):
        assert last_checkpoint(str(work), [str(out)]) == str(out / 'epoch_1.pth')
        write(work, 'epoch_1.pth')
    note(work, work / 'epoch_1.pth')
    assert last_checkpoint(str(work), [str(out)]) == str(work / 'epoch_1.pth')


@pytest.mark.parametrize('text', ['', '\n', '/', '..', 'a\0b', 'folder.pth', 'gone.pth'])
def test_a_note_that_names_no_file_here(tmp_path, text):
    (tmp_path / 'folder.pth').mkdir()
    note(tmp_path, text)
    with pytest.raises(UserError, match='which is no file: give --resume PATH') as told:
        last_checkpoint(str(tmp_path), [])
    assert str(told.value).isprintable()


def test_another_folder_s_file_is_not_taken(tmp_path):
    old, new = write(tmp_path / 'old', 'epoch_1.pth'), write(tmp_path / 'new')
    note(new, old / 'epoch_1.pth')
    with pytest.raises(UserError, match=f'which is no file in {new}: give --resume PATH'):
        last_checkpoint(str(new), [])
