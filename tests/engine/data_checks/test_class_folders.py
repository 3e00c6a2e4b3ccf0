"""Folders that are taken for classes, as mmpretrain takes them."""

import pytest

from mmwave.engine.data_checks.class_folders import (
    class_folders,
    folders_fault,
    stray_note,
    strays,
)

from .building import check, error_of, folder_data, head, model, write_folders


def test_the_folders_that_mmpretrain_makes_classes_of(tmp_path):
    write_folders(tmp_path / 'elsewhere', emu=1)
    root = write_folders(tmp_path / 'data', dog=1, Cat=1, ant=0, **{'.hidden': 1})
    (root / 'note.txt').write_text('a file')
    (root / '.DS_Store').write_text('a hidden file')
    (root / 'emu').symlink_to(tmp_path / 'elsewhere' / 'emu')
    expected = ('.hidden', 'Cat', 'ant', 'dog', 'emu')
    assert class_folders(str(root)) == expected
    assert folder_data(root).metainfo['classes'] == expected


def test_folders_that_hardly_are_classes():
    leftovers = ('.ipynb_checkpoints', '.git', '__MACOSX', '__pycache__', '@eaDir')
    assert strays(('cat', '_dog', *leftovers)) == leftovers
    assert stray_note(('cat', '_dog')) == ''
    note = "folders '.a', '.b', '.c', '.d', '.e', … and 2 more are taken for classes: remove them"
    assert stray_note([f'.{letter}' for letter in 'abcdefg']) == note


@pytest.mark.parametrize('name', ['.ipynb_checkpoints', '__MACOSX'])
def test_a_leftover_is_named(tmp_path, name):
    """It takes a label, so that the head has one too few."""
    dataset = folder_data(write_folders(tmp_path, cat=1, dog=1, **{name: 0}))
    note = f"folder '{name}' is taken for a class: remove it"
    message = error_of(dataset, net=model(head=head(2)))
    assert 'model.head.num_classes is 2, the data has 3 classes (folders' in message
    assert message.endswith(f'; {note})')
    # A head of three trains: that is warned of.
    leftover, empty, _ = check(dataset, net=model(head=head(3)))
    assert leftover.startswith('WARNING')
    assert leftover.endswith(f"in '{tmp_path}/': {note}")
    assert empty.endswith(f"1 of 3 classes has no sample: '{name}'")


def test_copies_that_notebooks_keep(tmp_path):
    dataset = folder_data(write_folders(tmp_path, **{'cat/.ipynb_checkpoints': 2, 'cat': 3}))
    assert len(dataset) == 5
    warning, _ = check(dataset)
    assert f"2 images are a notebook's copies: {tmp_path}/cat/.ipynb_checkpoints/0.jpg" in warning


class TestAgainstNames:
    def test_that_fit(self):
        assert folders_fault('x', ('cat', 'dog'), ('cat', 'dog')) is None
        assert folders_fault('x', ('n01', 'n02'), ('tench', 'goldfish')) is None

    def test_one_folder_too_many(self):
        fault = folders_fault('x', ('.git', 'cat', 'dog'), ('cat', 'dog'))
        assert fault == (
            "3 folder(s) in 'x' for 2 classes; folders without a class: '.git'; folder '.git' is "
            'taken for a class: remove it'
        )

    def test_one_too_few(self):
        fault = folders_fault('x', ('cat',), ('cat', 'dog'))
        assert "1 folder(s) in 'x' for 2 classes; classes without a folder: 'dog'; " in fault
        assert "type='CustomDataset' without names" in fault

    def test_names_of_another_kind_are_not_listed(self):
        fault = folders_fault('x', ('a', 'b'), tuple(map(str, range(1000))))
        assert fault.startswith("2 folder(s) in 'x' for 1000 classes; type='CustomDataset'")

    def test_another_order(self):
        fault = folders_fault('x', ('cat', 'dog'), ('dog', 'cat'))
        assert fault.startswith("folder 'dog' in 'x' has label 1 (folders are numbered by their")
        assert fault.endswith("which the classes call 'cat'")

    def test_a_leftover_in_the_place_of_a_class(self):
        fault = folders_fault('x', ('.git', 'cat'), ('cat', 'dog'))
        assert "folder 'cat' in 'x' has label 1" in fault
        assert fault.endswith("call 'dog'; folder '.git' is taken for a class: remove it")
