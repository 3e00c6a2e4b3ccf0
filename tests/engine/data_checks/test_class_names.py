"""Names of classes: those that a config states, and what is wrong with them."""

import pytest
from mmdet.datasets import CocoDataset
from mmengine.dataset import BaseDataset
from mmpretrain.datasets import CustomDataset, ImageNet
from mmseg.datasets import ADE20KDataset, BaseSegDataset, CityscapesDataset

from mmwave.engine.data_checks.class_names import (
    NamesFault,
    differences,
    name_notes,
    palette_fault,
    shifted,
    stated_classes,
    subset_fault,
)

from .building import check, detection_data


class OwnNames(BaseDataset):
    METAINFO = {'classes': ('a', 'b')}


class OwnWay(BaseDataset):
    @classmethod
    def _load_metainfo(cls, metainfo=None):
        return {'classes': list(metainfo['classes'])}


def metainfo(classes, **others) -> dict:
    return {'metainfo': {'classes': classes, **others}}


class TestStated:
    @pytest.mark.parametrize('cls', [CocoDataset, BaseSegDataset, CustomDataset, OwnNames])
    @pytest.mark.parametrize('text', ['person', '', 'names.txt'])
    def test_a_text_is_no_names(self, cls, text):
        """mmengine would make a class of every letter."""
        with pytest.raises(NamesFault) as caught:
            stated_classes(metainfo(text), cls)
        assert str(caught.value) == (
            f'metainfo.classes is {text!r}, which is no file; a single class is written '
            f"('{text}',), with the comma"
        )

    @pytest.mark.parametrize('cls', [CocoDataset, BaseSegDataset, CustomDataset, OwnNames])
    def test_a_file_of_names(self, tmp_path, cls):
        path = tmp_path / 'names.txt'
        path.write_text('café\ntraffic light\n', encoding='utf-8')
        names = stated_classes(metainfo(str(path)), cls)
        assert names == ('café', 'traffic light')
        assert cls._load_metainfo({'classes': str(path)})['classes'] == list(names)

    def test_mmpretrains_own_argument(self, tmp_path, monkeypatch):
        path = tmp_path / 'names.txt'
        path.write_text('cat\ndog')
        monkeypatch.setenv('HOME', str(tmp_path))
        for text in (str(path), '~/names.txt'):
            assert stated_classes({'classes': text}, CustomDataset) == ('cat', 'dog')
        with pytest.raises(NamesFault, match=r"^classes is 'cat', which is no file"):
            stated_classes({'classes': 'cat'}, CustomDataset)
        # As mmpretrain has it, metainfo wins; the other libraries have no such argument.
        assert stated_classes({'classes': ['a']} | metainfo(['b']), CustomDataset) == ('b',)
        assert stated_classes({'classes': 'cat'}, BaseSegDataset) is None

    def test_a_file_that_holds_an_empty_name(self, tmp_path):
        path = tmp_path / 'names.txt'
        path.write_text('cat\ndog\n\n')
        with pytest.raises(NamesFault, match=f"line 3 of '{path}' is empty, yet a class"):
            stated_classes(metainfo(str(path)), CocoDataset)
        path.write_bytes(b'caf\xe9\n')
        with pytest.raises(NamesFault, match=f"'{path}' is no text"):
            stated_classes(metainfo(str(path)), CocoDataset)

    def test_an_address_is_left_alone(self):
        assert stated_classes(metainfo('s3://bucket/names.txt'), CocoDataset) is None

    @pytest.mark.parametrize(
        ('classes', 'text'),
        [
            (80, "metainfo.classes is 80: names are expected, as in ('cat', 'dog')"),
            (['cat', ''], 'metainfo.classes: the name of class 1 is empty'),
            ({'dog', 'cat'}, "a set, which has no order: write a tuple, ('cat', 'dog', …)"),
        ],
    )
    def test_other_things_that_are_no_names(self, classes, text):
        with pytest.raises(NamesFault) as caught:
            stated_classes(metainfo(classes), CocoDataset)
        assert text in str(caught.value)

    def test_names_of_the_class(self):
        assert stated_classes({}, OwnNames) == ('a', 'b')
        assert stated_classes(metainfo(['c']), OwnNames) == ('c',)
        assert stated_classes({}, CustomDataset) is None
        assert stated_classes(metainfo('x'), None) is None

    def test_a_class_that_reads_them_in_a_way_of_its_own(self):
        assert stated_classes(metainfo('abc'), OwnWay) is None


class TestOfMmseg:
    def test_names_that_a_class_does_not_have(self):
        fault = subset_fault(('sky', 'crop', 'weed'), ADE20KDataset)
        assert "'crop', 'weed' not among the 150 classes of ADE20KDataset" in fault
        assert "type='BaseSegDataset'" in fault
        with pytest.raises(ValueError, match='subset'):
            ADE20KDataset.get_label_map(['sky', 'crop', 'weed'])

    def test_names_that_it_has(self):
        assert subset_fault(('sky', 'wall'), ADE20KDataset) is None
        assert subset_fault(('crop',), BaseSegDataset) is None
        assert subset_fault(('crop',), CocoDataset) is None

    @pytest.mark.parametrize('cls', [BaseSegDataset, CityscapesDataset])
    @pytest.mark.parametrize('names', [('road',), ('road', 'car'), ('car', 'road', 'sky')])
    @pytest.mark.parametrize('colours', [None, 0, 1, 2, 4])
    def test_palettes_as_mmseg_takes_them(self, cls, names, colours):
        palette = {} if colours is None else {'palette': [[1, 2, 3]] * colours}
        settings = metainfo(names, **palette)
        fault = palette_fault(settings, names, cls)
        data_set = cls.__new__(cls)
        data_set._metainfo = cls._load_metainfo(settings['metainfo'])
        data_set.label_map = cls.get_label_map(names)
        try:
            data_set._update_palette()
        except (ValueError, IndexError):
            expected = f'metainfo.palette has {colours} colours, but there are {len(names)} classes'
            assert fault == expected
        else:
            assert fault is None


class TestNotes:
    def test_names_of_more_than_one_class(self, tmp_path):
        notes = name_notes({'classes': ('a', 'b', 'a')}, CustomDataset)
        assert notes == ["names that more than one class has: 'a'"]
        assert name_notes(ImageNet.METAINFO, ImageNet) == []

    def test_too_few_colours_to_draw_with(self, tmp_path):
        names = {'classes': ('cat', 'dog'), 'palette': [(1, 2, 3)]}
        warning, _ = check(detection_data(tmp_path, [{}], metainfo=names))
        assert 'metainfo.palette has 1 colours for 2 classes: predictions cannot' in warning
        assert name_notes(names | {'palette': 'random'}, CocoDataset) == []
        assert name_notes(names | {'palette': [(1, 2, 3)] * 80}, CocoDataset) == []


def test_labels_that_mean_something_else():
    assert shifted(('a', 'b', 'c'), ('a', 'b')) is None
    assert shifted(('a', 'b', 'c'), ('a', 'x', 'c')) is None
    # ImageNet has two cranes.
    assert shifted(('crane', 'a', 'crane'), ('crane', 'a', 'crane')) is None
    expected = "class 'c' is label 2 in the training data and label 1 in the validation data"
    assert shifted(('a', 'b', 'c'), ('a', 'c')) == expected
    assert shifted(('a', 'c'), ('b', 'a', 'c')).startswith("class 'a' is label 0")


def test_names_of_one_data_set_alone():
    assert differences(('a', 'b'), ('b', 'a')) == ''
    assert differences(('a', 'b'), ('b', 'c')) == (
        "only in the training data: 'a'; only in the validation data: 'c'"
    )
