"""Facts about a COCO file; files over the limit, here one byte, are searched and not parsed."""

import json

import pytest

from mmwave.engine.data_checks.coco_file import AnnotationFileError, summarize

from .building import coco_file


@pytest.mark.parametrize('length', [0.3, 0.999])
def test_cut_file_that_is_too_large_to_parse(tmp_path, length):
    path = coco_file(tmp_path)
    text = path.read_text()
    path.write_text(text[: int(len(text) * length)])
    with pytest.raises(AnnotationFileError, match=r'is cut or no valid JSON.*line 1'):
        summarize(path, full_parse_bytes=1)


@pytest.mark.parametrize('first', [True, False])
def test_names_are_found(tmp_path, first):
    path = coco_file(tmp_path)
    document = json.loads(path.read_text())
    many = [{'id': i, 'name': f'näme {i} [}}'} for i in range(5000)]
    parts = {'categories': many}, {k: document[k] for k in ('images', 'annotations')}
    path.write_text(
        json.dumps(parts[0] | parts[1] if first else parts[1] | parts[0], ensure_ascii=False),
        encoding='utf-8',
    )
    # Braces inside of names are out of balance, so this file has to be parsed after all.
    parsed = summarize(path, full_parse_bytes=1)
    assert parsed.document is not None
    path.write_text(path.read_text(encoding='utf-8').replace(' [}', ''), encoding='utf-8')
    found = summarize(path, full_parse_bytes=1)
    assert found.document is None
    assert found.names == tuple(f'näme {i}' for i in range(5000))
    assert found.has_annotations


def test_no_annotations(tmp_path):
    path = coco_file(tmp_path, annotations=[])
    assert not summarize(path, full_parse_bytes=1).has_annotations
    assert not summarize(path).has_annotations


def test_nested_categories_are_not_coco(tmp_path):
    path = tmp_path / 'a.json'
    path.write_text('{"metainfo": {"categories": [{"category_name": "a", "id": 1}]}}')
    assert summarize(path, full_parse_bytes=1) is None
    assert summarize(path) is None
