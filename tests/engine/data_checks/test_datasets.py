"""Wrappers are looked through, in a config and built; so is where files are and what is read."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.dataset import ConcatDataset, RepeatDataset

from mmwave.engine.data_checks.datasets import (
    coco_path,
    is_local,
    loads_labels,
    reads_coco,
    unwrap,
    wrappers_of,
)
from mmwave.engine.data_checks.samples import image_fault

from .building import (
    check,
    classification_data,
    detection_data,
    error_of,
    labels,
    segmentation_data,
)


@pytest.mark.parametrize(
    'wrap',
    [
        lambda d: RepeatDataset(d, times=3),
        lambda d: ConcatDataset([d]),
        lambda d: torch.utils.data.Subset(d, [0]),
        lambda d: torch.utils.data.Subset(ConcatDataset([d]), [0]),
    ],
)
def test_looks_inside_once(tmp_path, wrap):
    dataset = classification_data(tmp_path, 'x.jpg 0\ny.jpg 1\n')
    (info,) = check(wrap(dataset))
    assert 'CustomDataset' in info
    assert '2 samples' in info
    (tmp_path / 'y.jpg').unlink()
    assert 'y.jpg' in error_of(wrap(dataset))


def test_remote_files_are_left_alone(tmp_path):
    dataset = segmentation_data(tmp_path, {'a': labels(9)})
    assert is_local(dataset)
    dataset.backend_args = {'backend': 'petrel'}
    assert not is_local(dataset)
    assert '0 image files looked up' in check(dataset)[0]
    dataset.backend_args = {'backend': 'local'}
    assert 'labels 9' in error_of(dataset)
    reader = SimpleNamespace(backend_args={'backend': 'http'})
    dataset.pipeline.transforms.append(reader)
    assert not is_local(dataset)
    reader.backend_args = None
    assert is_local(dataset)
    reader.file_client_args = {'backend': 'petrel'}
    assert not is_local(dataset)
    assert image_fault('s3://bucket/a.jpg') is None


def test_keys_and_scopes_in_a_config():
    leaf = {'type': 'A', '_scope_': 'mmseg'}
    several = {'type': 'ConcatDataset', '_scope_': 'mmdet', 'datasets': [{'type': 'B'}, leaf]}
    found = list(unwrap({'type': 'RepeatDataset', 'dataset': several}, 'loader.dataset', 'mmwave'))
    assert found == [
        ('loader.dataset.dataset.datasets.0', {'type': 'B'}, 'mmdet'),
        ('loader.dataset.dataset.datasets.1', leaf, 'mmseg'),
    ]


def test_keys_of_built_data_sets(tmp_path):
    a, b = (classification_data(tmp_path / name, 'x.jpg 0\n') for name in 'ab')
    found = list(unwrap(torch.utils.data.Subset(ConcatDataset([a, b]), [0])))
    assert [place.key for place in found] == ['.dataset.datasets.0', '.dataset.datasets.1']
    assert [place.dataset for place in found] == [a, b]


@pytest.mark.parametrize(
    ('steps', 'expected'),
    [
        ([], True),
        (['LoadImageFromFile', 'LoadAnnotations'], True),
        (['LoadImageFromFile', 'PackSegInputs'], False),
    ],
)
def test_the_pipeline_says_whether_labels_are_read(steps, expected):
    assert loads_labels({'pipeline': [{'type': name} for name in steps]}) is expected
    transforms = [type(name, (), {})() for name in steps]
    built = SimpleNamespace(pipeline=SimpleNamespace(transforms=transforms))
    assert loads_labels(built) is expected


@pytest.mark.parametrize('name', ['LoadAnnotations', 'Resize'])
def test_labels_that_views_of_an_image_read(name):
    from mmcv.transforms import LoadAnnotations, Resize, TestTimeAug

    load = dict(type='LoadImageFromFile')
    views = dict(type='TestTimeAug', transforms=[[load], [dict(type=name), load]])
    assert loads_labels({'pipeline': [load, views]}) is (name == 'LoadAnnotations')
    step = LoadAnnotations() if name == 'LoadAnnotations' else Resize(scale=(8, 8))
    built = SimpleNamespace(transforms=[TestTimeAug([[step, step]])])
    assert loads_labels(SimpleNamespace(pipeline=built)) is (name == 'LoadAnnotations')


def test_without_a_pipeline_labels_may_be_read():
    assert loads_labels({})
    assert loads_labels(SimpleNamespace())


def test_wrappers_around_a_data_set(tmp_path):
    a, b = (classification_data(tmp_path / name, 'x.jpg 0\n') for name in 'ab')
    repeated = RepeatDataset(b, times=2)
    both = ConcatDataset([a])
    both.datasets.append(repeated)
    outer = torch.utils.data.Subset(both, [0])
    assert wrappers_of(outer, a) == (outer, both)
    assert wrappers_of(outer, b) == (outer, both, repeated)
    assert wrappers_of(a, a) == ()
    assert wrappers_of(repeated, a) == ()


def test_files_that_are_read_in_another_way_are_not_judged(tmp_path):
    from mmdet.datasets import CocoDataset

    class Renamed(CocoDataset):
        METAINFO = {'classes': ('cat', 'dog')}

    class Own(CocoDataset):
        def parse_data_info(self, raw):
            return super().parse_data_info(raw)

    detection_data(tmp_path, [{}])
    settings = {'ann_file': 'a.json', 'data_root': str(tmp_path), 'data_prefix': {'img': ''}}
    assert coco_path(Renamed(**settings)) == str(tmp_path / 'a.json')
    assert reads_coco(Renamed(**settings))
    assert not reads_coco(Own(metainfo={'classes': ('cat',)}, **settings))
