"""COCO files are read as pycocotools reads them, and only once."""

import codecs
import json
import os

import pytest
from pycocotools.coco import COCO

from mmwave.engine.data_checks import coco_file
from mmwave.engine.data_checks.coco_file import AnnotationFileError, read_report

from .building import coco_file as write_coco_file


@pytest.mark.parametrize('length', [0.3, 0.999])
def test_cut_file(tmp_path, length):
    path = write_coco_file(tmp_path)
    text = path.read_text()
    path.write_text(text[: int(len(text) * length)])
    with pytest.raises(AnnotationFileError, match=r'is cut or no valid JSON.*line 1'):
        read_report(path)


@pytest.mark.parametrize(
    ('encoding', 'message'),
    [
        ('utf-8-sig', 'begins with the byte-order mark of UTF-8'),
        ('utf-16', 'begins with the byte-order mark of UTF-16'),
        ('latin-1', 'is no text: byte'),
    ],
)
def test_encodings_that_pycocotools_cannot_read(tmp_path, encoding, message):
    path = write_coco_file(tmp_path)
    text = json.dumps(json.loads(path.read_text()) | {'licenses': 'é'}, ensure_ascii=False)
    path.write_bytes(text.encode(encoding))
    with pytest.raises(AnnotationFileError, match=message):
        read_report(path)
    with pytest.raises(ValueError):
        COCO(str(path))
    path.write_bytes(text.encode('utf-8'))
    assert read_report(path).names == ('cat', 'dog')
    COCO(str(path))
    assert not path.read_bytes().startswith(codecs.BOM_UTF8)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'annotations': {'1': {}}}, "'annotations' is of type dict, expected a list"),
        ({'annotations': None}, "'annotations' is of type NoneType, expected a list"),
        ({'images': {'0': {}}}, "'images' is of type dict, expected a list"),
        ({'annotations': [[4, 4, 9, 9]]}, r"entry 0 of 'annotations' is \[4, 4, 9, 9\]"),
    ],
)
def test_parts_of_another_form(tmp_path, changes, message):
    path = write_coco_file(tmp_path, **changes)
    with pytest.raises(AnnotationFileError, match=message):
        read_report(path)
    with pytest.raises((TypeError, KeyError)):
        COCO(str(path))


def test_files_of_another_kind(tmp_path):
    path = tmp_path / 'a.json'
    for text in ('[]', '{"metainfo": {"categories": [{"category_name": "a", "id": 1}]}}', '3'):
        path.write_text(text)
        assert read_report(path) is None


def test_a_file_is_read_again_only_when_it_has_changed(tmp_path, monkeypatch):
    path = write_coco_file(tmp_path)
    reads = []
    read = coco_file.read_json
    monkeypatch.setattr(coco_file, 'read_json', lambda p: reads.append(p) or read(p))
    first = read_report(path)
    assert read_report(str(path)) is first
    assert len(reads) == 1
    write_coco_file(tmp_path, annotations=[])
    os.utime(path, ns=(1, 1))
    assert read_report(path).num_annotations == 0
    assert len(reads) == 2
    for number in range(9):
        other = tmp_path / str(number)
        other.mkdir()
        read_report(write_coco_file(other))
    assert len(coco_file._reports) == 4
