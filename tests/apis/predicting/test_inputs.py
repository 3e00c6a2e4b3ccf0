"""What files, folders, patterns and lists of paths stand for."""

import os
from pathlib import Path

import pytest

from mmwave.apis import UsageError
from mmwave.apis.predicting.inputs import PICTURES, VIDEOS, Inputs, find_inputs

FILES = ('b.png', 'a.JPG', 'notes.md', 'deep/c.webp', 'deep/clip.mp4', '.hidden/d.png', '.e.png')


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The current folder, with ``photos`` in it."""
    for name in FILES:
        path = tmp_path / 'photos' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b'x')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_folder_stands_for_all_below_it_in_order(folder):
    found = find_inputs(['photos'])
    assert found.pictures == ('photos/a.JPG', 'photos/b.png', 'photos/deep/c.webp')
    assert found.videos == ('photos/deep/clip.mp4',)


@pytest.mark.parametrize('suffix', PICTURES + VIDEOS)
def test_suffixes_in_a_folder(folder, suffix):
    (folder / 'one').mkdir()
    (folder / f'one/x{suffix.upper()}').write_bytes(b'')
    found = find_inputs(['one'])
    assert found == Inputs(*(((f'one/x{suffix.upper()}',), ())[:: 1 if suffix in PICTURES else -1]))


def test_the_order_is_that_of_the_call_and_nothing_comes_twice(folder):
    found = find_inputs(['photos/b.png', str(folder / 'photos/b.png'), './photos', 'photos/a.JPG'])
    assert found.pictures == ('photos/b.png', './photos/a.JPG', './photos/deep/c.webp')


@pytest.mark.parametrize(
    ('pattern', 'names'),
    [
        ('photos/*.png', ['photos/b.png']),
        ('photos/[ab].*', ['photos/a.JPG', 'photos/b.png']),
        ('photos/*', ['photos/a.JPG', 'photos/b.png', 'photos/deep/c.webp']),
        ('phot*', ['photos/a.JPG', 'photos/b.png', 'photos/deep/c.webp']),
        ('**/c*', ['photos/deep/c.webp']),
    ],
)
def test_patterns(folder, pattern, names):
    assert find_inputs([pattern]).pictures == tuple(names)


def test_a_file_whose_name_looks_like_a_pattern(folder):
    (folder / 'a[1].png').write_bytes(b'x')
    (folder / 'a1.png').write_bytes(b'x')
    assert find_inputs(['a[1].png']).pictures == ('a[1].png',)


def test_a_file_that_is_named_is_a_picture_whatever_its_suffix(folder):
    assert find_inputs(['photos/notes.md']).pictures == ('photos/notes.md',)


def test_a_list_of_paths_of_the_current_folder_or_its_own(folder):
    (folder / 'photos/list.txt').write_text('\ufeffphotos/a.JPG\n\n  b.png  \ndeep\n')
    found = find_inputs(['photos/list.txt'])
    assert found.pictures == ('photos/a.JPG', 'photos/b.png', 'photos/deep/c.webp')
    assert found.videos == ('photos/deep/clip.mp4',)


@pytest.mark.parametrize('given', ['.', '*', '**'])
def test_results_are_not_predicted_again(folder, given):
    (folder / 'out/pictures').mkdir(parents=True)
    (folder / 'out/pictures/a.jpg').write_bytes(b'x')
    (folder / 'outer').mkdir()
    (folder / 'outer/f.png').write_bytes(b'x')
    found = find_inputs([given if given != '**' else '**/*.*'], out='out').pictures
    assert {os.path.basename(name) for name in found} == {'a.JPG', 'b.png', 'c.webp', 'f.png'}
    assert not [name for name in found if 'out/' in name]


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        ('nothing.png', r'no such file or folder: nothing\.png'),
        ('no/*.png', r'no/\*\.png: no picture and no video by this pattern \(\.bmp .*\.wmv\)'),
        ('empty', r'empty: no picture and no video in this folder'),
        ('-', 'not read from standard input'),
        ('https://host/a.png', r'https://host/a\.png is an address: fetch it'),
        ('', 'a path is empty'),
        ('a\0b', r'a\\x00b is no path'),
        ('pipe', 'pipe is no regular file'),
        ('list.txt', r'line 2 of list\.txt: no such file or folder: gone\.png'),
        ('lists.txt', r'line 1 of lists\.txt: a list in a list: list\.txt'),
        ('blank.txt', r'blank\.txt: a list of no paths'),
        ('bytes.txt', r'bytes\.txt cannot be read: it is no text in UTF-8'),
    ],
)
def test_what_stands_for_nothing_is_one_line(folder, given, message):
    (folder / 'empty').mkdir()
    os.mkfifo(folder / 'pipe')
    (folder / 'list.txt').write_text('photos/b.png\ngone.png\n')
    (folder / 'lists.txt').write_text('list.txt\n')
    (folder / 'blank.txt').write_text('\n \n')
    (folder / 'bytes.txt').write_bytes(b'\xff\xfe\xff')
    with pytest.raises(UsageError, match=message) as raised:
        find_inputs(['photos/b.png', given])
    assert len(str(raised.value).splitlines()) == 1


def test_nothing_at_all():
    with pytest.raises(UsageError, match='nothing to predict'):
        find_inputs([])
