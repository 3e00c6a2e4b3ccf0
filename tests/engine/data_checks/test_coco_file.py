"""COCO files are read as the libraries do; large ones, here of one byte, without polygons."""

import json

import pytest

from mmwave.engine.data_checks.coco_file import AnnotationFileError, read_json

from .building import coco_file


@pytest.mark.parametrize('length', [0.3, 0.999])
@pytest.mark.parametrize('limit', [1, 2**26])
def test_cut_file(tmp_path, length, limit):
    path = coco_file(tmp_path)
    text = path.read_text()
    path.write_text(text[: int(len(text) * length)])
    with pytest.raises(AnnotationFileError, match=r'is cut or no valid JSON.*line 1'):
        read_json(path, shorten_bytes=limit)


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16', 'utf-16-le', 'latin-1'])
@pytest.mark.parametrize('limit', [1, 2**26])
def test_encodings_that_pycocotools_cannot_read(tmp_path, encoding, limit):
    from pycocotools.coco import COCO

    path = coco_file(tmp_path, categories=[{'id': 3, 'name': 'kät'}])
    document = json.loads(path.read_text(encoding='utf-8'))
    path.write_text(json.dumps(document, ensure_ascii=False), encoding=encoding)
    with pytest.raises(ValueError):
        COCO(str(path))
    with pytest.raises(AnnotationFileError) as caught:
        read_json(path, shorten_bytes=limit)
    assert str(path) in str(caught.value)
    if encoding == 'utf-8-sig':
        assert 'byte-order mark' in str(caught.value)
        assert 'save it as plain UTF-8' in str(caught.value)


@pytest.mark.parametrize('indent', [None, 2])
def test_all_but_sound_polygons_is_kept_in_large_files(tmp_path, indent):
    triangle = [0, 0, 0, 0, 0, 0]
    masks = [
        ([[1.5, -2, 3e2, 4, 5, 6]], [triangle]),
        ([[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6, 7, 8]], [triangle]),
        *(
            (kept, kept)
            for kept in ([], [[]], [[1, 2]], [[1, 2, 3, 4]], [[1, 2, 3, 4, 5, 6, 7]], [1, 2], None)
        ),
        *((kept, kept) for kept in ([[1, 2, 3, 4, 5, 6], [1, 2]], [['1'] * 6], 'text')),
        ({'counts': [1, 2], 'size': [3, 4]},) * 2,
    ]
    boxes = [
        {'id': i, 'text': '"segmentation": [[', 'segmentation': m[0]} for i, m in enumerate(masks)
    ]
    path = tmp_path / 'a.json'
    path.write_text(json.dumps({'annotations': boxes, 'näme': '[}'}, indent=indent))
    assert read_json(path) == json.loads(path.read_text())
    found = read_json(path, shorten_bytes=1)
    assert found['näme'] == '[}'
    for box, given, (_, expected) in zip(found['annotations'], boxes, masks, strict=True):
        assert box == given | {'segmentation': expected}
