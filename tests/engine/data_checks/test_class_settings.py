"""Classes of a config against its files: judged for classes that list as mmpretrain does, alone."""

import pytest
from mmdet.datasets import CocoDataset
from mmpretrain.datasets import CustomDataset, ImageNet
from mmseg.datasets import ADE20KDataset, BaseSegDataset

from mmwave.engine.data_checks.class_settings import class_fault

from .building import folder_data, write_folders

NAMES = {'metainfo': {'classes': ('cat', 'dog')}}


class OwnFolders(CustomDataset):
    METAINFO = {'classes': ('cat', 'dog')}


class OwnSearch(CustomDataset):
    def _find_samples(self):
        return [('cat/0.jpg', 0)]


class OwnList(CustomDataset):
    def load_data_list(self):
        return []


def of_the_same_name() -> type:
    """Return a class of the user's own that is called as mmpretrain's is."""

    def load_data_list(self):
        return []

    load_data_list.__qualname__ = 'CustomDataset.load_data_list'
    return type('CustomDataset', (CustomDataset,), {'load_data_list': load_data_list})


@pytest.mark.parametrize(
    ('cls', 'settings', 'judged'),
    [
        (of_the_same_name(), NAMES, False),
        (CustomDataset, NAMES, True),
        (CustomDataset, {}, False),
        (CustomDataset, {'with_label': False, **NAMES}, False),
        (ImageNet, {}, True),
        (ImageNet, {'split': 'test'}, False),
        (OwnFolders, {}, True),
        (OwnSearch, NAMES, False),
        (OwnList, NAMES, False),
        (BaseSegDataset, NAMES, False),
        (CocoDataset, NAMES, False),
        (None, NAMES, False),
    ],
)
def test_folders_that_are_compared_with_names(tmp_path, cls, settings, judged):
    root = write_folders(tmp_path, ant=1, cat=1, dog=1)
    fault = class_fault(settings, cls, folder=str(root))
    assert (fault is not None) == judged
    assert class_fault(settings, cls) is None
    assert class_fault(settings, cls, folder=str(tmp_path / 'none')) is None


def test_mmpretrain_stops_at_another_number_of_folders(tmp_path):
    root = write_folders(tmp_path, ant=1, cat=1, dog=1)
    with pytest.raises(AssertionError, match=r'number of subfolders \(3\)'):
        folder_data(root, **NAMES)


@pytest.mark.parametrize(
    ('cls', 'settings', 'judged'),
    [
        (CustomDataset, {}, True),
        (CustomDataset, {'with_label': False}, False),
        (OwnFolders, {}, True),
        (OwnList, {}, False),
        (CocoDataset, {}, False),
        (BaseSegDataset, {}, False),
    ],
)
def test_lists_that_must_have_labels(tmp_path, cls, settings, judged):
    path = tmp_path / 'list.txt'
    path.write_text('a.jpg\n')
    fault = class_fault(settings, cls, folder=str(tmp_path), ann_file=str(path))
    assert (fault is not None and 'line 1 of' in fault) == judged
    assert class_fault(settings, cls, ann_file=str(tmp_path / 'none.txt')) is None


def test_a_list_says_what_the_folders_would(tmp_path):
    root = write_folders(tmp_path, ant=1, cat=1, dog=1)
    path = tmp_path / 'list.txt'
    path.write_text('cat/0.jpg 0\n')
    assert class_fault(NAMES, CustomDataset, folder=str(root), ann_file=str(path)) is None


def test_names_and_colours_of_mmseg():
    own = {'metainfo': {'classes': ('crop',)}}
    assert "'crop' not among" in class_fault(own, ADE20KDataset)
    colours = {'metainfo': {'classes': ('crop',), 'palette': [[0, 0, 0], [1, 1, 1]]}}
    assert 'metainfo.palette has 2 colours' in class_fault(colours, BaseSegDataset)
