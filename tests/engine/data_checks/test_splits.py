"""A label must mean the same in training and validation data."""

import logging
from types import SimpleNamespace

import pytest
from mmengine.dataset import RepeatDataset

from mmwave.engine.data_checks.findings import DataError
from mmwave.engine.data_checks.hook import DataCheckHook

from .building import (
    classification_data,
    folder_data,
    head,
    labels,
    model,
    segmentation_data,
    write_folders,
)


def said(train, val, net=None) -> list[str]:
    """Return what is warned of before a training, and the error that stops it."""
    records: list[str] = []
    handler = logging.Handler(level=logging.WARNING)
    handler.emit = lambda record: records.append(record.getMessage())
    logger = logging.Logger('check')
    logger.addHandler(handler)
    runner = SimpleNamespace(
        model=net or model(),
        logger=logger,
        log_dir='',
        val_loop=object(),
        train_dataloader=SimpleNamespace(dataset=train),
        val_dataloader=SimpleNamespace(dataset=val),
    )
    try:
        DataCheckHook().before_train(runner)
    except DataError as error:
        records.append(f'stopped: {error}')
    return records


@pytest.fixture
def train(tmp_path):
    return folder_data(write_folders(tmp_path / 'train', cat=1, dog=1, emu=1))


class TestFolders:
    def test_that_agree(self, tmp_path, train):
        same = folder_data(write_folders(tmp_path / 'val', cat=1, dog=1, emu=1))
        assert said(train, same) == []

    def test_one_is_missing(self, tmp_path, train):
        """Those after it get the label of their neighbour, in silence."""
        val = folder_data(write_folders(tmp_path / 'val', cat=1, emu=1))
        assert (train.folder_to_idx['emu'], val.folder_to_idx['emu']) == (2, 1)
        (error,) = said(RepeatDataset(train, 2), RepeatDataset(val, 2))
        assert error.startswith(f'stopped: val data, CustomDataset ({tmp_path}/val/): class')
        assert "'emu' is label 2 in the training data and label 1 in the validation" in error
        assert "only in the training data: 'dog'; folders are numbered by their sorted" in error
        # What it says to do works.
        (tmp_path / 'val' / 'dog').mkdir()
        assert said(train, folder_data(tmp_path / 'val')) == []

    def test_the_same_with_names_in_the_config(self, tmp_path):
        two = {'metainfo': {'classes': ('x', 'y')}}
        a = folder_data(write_folders(tmp_path / 'a', cat=1, dog=1), **two)
        b = folder_data(write_folders(tmp_path / 'b', ant=1, cat=1), **two)
        (error,) = said(a, b)
        assert "class 'cat' is label 0 in the training data and label 1" in error

    def test_a_leftover_is_named(self, tmp_path):
        folders = {'cat': 1, '.ipynb_checkpoints': 0}
        stray = folder_data(write_folders(tmp_path / 'a', **folders))
        plain = folder_data(write_folders(tmp_path / 'b', cat=1))
        for pair in ((stray, plain), (plain, stray)):
            error = said(*pair)[-1]
            assert f"in '{tmp_path}/a/': folder '.ipynb_checkpoints' is taken for a" in error
            assert f"in '{tmp_path}/b/'" not in error

    def test_the_last_one_is_missing(self, tmp_path, train):
        """All labels are right, although the head has an output more."""
        val = folder_data(write_folders(tmp_path / 'val', cat=1, dog=1))
        (warning,) = said(train, val, model(head=head(3)))
        assert warning.endswith(
            "other classes than the training data has; only in the training data: 'emu'"
        )
        assert 'num_classes is 4, the data has 3' in said(train, val, model(head=head(4)))[-1]

    def test_another_name_in_its_place(self, tmp_path, train):
        val = folder_data(write_folders(tmp_path / 'val', cat=1, dogs=1, emu=1))
        (warning,) = said(train, val)
        assert warning.endswith("training data: 'dog'; only in the validation data: 'dogs'")

    def test_folders_and_lists_are_not_compared(self, tmp_path, train):
        val = classification_data(tmp_path / 'val', 'x.jpg 0\n')
        assert said(train, val) == []


class TestClasses:
    def test_another_order(self, tmp_path):
        train, val = (
            segmentation_data(tmp_path / name, {'a': labels(0, 1)}, metainfo={'classes': classes})
            for name, classes in (('1', ('a', 'b')), ('2', ('b', 'a')))
        )
        (error,) = said(train, val)
        assert "class 'b' is label 1 in the training data and label 0 in the" in error
        assert said(train, train) == []

    def test_without_names(self, tmp_path):
        train, val = (
            segmentation_data(tmp_path / name, {'a': labels(0, 1)}, metainfo=classes)
            for name, classes in (('1', {'classes': ('a', 'b')}), ('2', None))
        )
        assert said(train, val) == []

    def test_reduce_zero_label(self, tmp_path):
        two = {'metainfo': {'classes': ('a', 'b')}}
        train, val = (
            segmentation_data(tmp_path / name, {'a': values}, reduce_zero_label=reduced, **two)
            for name, values, reduced in (('1', labels(1, 2), True), ('2', labels(0, 1), False))
        )
        (warning,) = said(train, val)
        assert 'reduce_zero_label is False, for the training data it is True' in warning
        assert said(val, val) == []
