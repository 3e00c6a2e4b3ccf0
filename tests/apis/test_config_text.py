"""Texts of configs out of checkpoints: never run, and without places of one machine."""

import pytest
from mmengine.config import Config

from mmwave.apis.config_text import config_text, read_config_text, without_places
from tests.contracts import ROOT

LEAVES = ('wavemlp/wavemlp-t_in1k.py', 'wavemlp/wavemlp-t_mask-rcnn_1x_coco.py')


@pytest.mark.parametrize('leaf', LEAVES)
def test_what_mmengine_writes_is_read(leaf):
    cfg = Config.fromfile(ROOT / 'configs' / leaf)
    assert read_config_text(cfg.pretty_text) == cfg.to_dict()


def test_values():
    settings = {
        'a': {'b': [1, -2.5, None, True, 'x\ny', (1,), float('inf')], 'not a word': {}},
        'c': {3: 'three', 'd': {'e.g': [dict(f=1e-5)]}},
    }
    assert read_config_text(config_text(settings)) == settings


@pytest.mark.parametrize(
    'text',
    [
        'a = __import__("os").system("touch {}")',
        'a = dict(b=open("{}", "w"))',
        'import os',
        'a = dict(**b)',
        'a = {{**b}}',
        'a = [x for x in b]',
        'a, b = 1, 2',
        'a.b = 1',
        'a = dict([("b", 1)])',
        'a = (',
        'a = ' + '[' * 5000,
        '\0',
        '',
        'a = 1\n' * (1 << 18),
        None,
        5,
    ],
)
def test_anything_else_is_not_run(tmp_path, text):
    marker = tmp_path / 'ran'
    given = text.format(marker) if isinstance(text, str) and '{}' in text else text
    assert read_config_text(given) is None
    assert not marker.exists()


def test_places_are_left_out():
    given = dict(
        work_dir='/home/alice/work',
        load_from='/home/alice/a.pth',
        resume=True,
        data_root='/home/alice/data/coco/',
        train_dataloader=dict(
            dataset=dict(
                data_root='/home/alice/data/coco/',
                ann_file='annotations/train.json',
                pipeline=({'type': 'LoadImageFromFile'}, {'file': '/home/alice/data/coco/x/y.txt'}),
            )
        ),
        other=[
            dict(data_root='/home/alice/data/coco/inner'),
            '/home/alice/data/coco/inner/z',
            '/home/alice/data/cocoa/z',
            r'C:\Users\alice\a.pth',
            '~alice/b.pth',
            '~/c.pth',
            '/',
            '../data',
            'a/b',
            'https://example.org/a/b',
            '/home/alice\nno path',
        ],
        paths={'/home/alice/data/coco/': 's3://bucket/'},
        number=5,
    )
    before = repr(given)
    found = without_places(given)
    assert repr(given) == before
    assert 'alice' not in repr(found).replace('/home/alice\\nno path', '')
    assert found.keys() == given.keys() - {'work_dir', 'load_from', 'resume'}
    assert found['data_root'] == 'coco/'
    dataset = found['train_dataloader']['dataset']
    assert dataset['data_root'] == 'coco/'
    assert dataset['ann_file'] == 'annotations/train.json'
    assert dataset['pipeline'][1]['file'] == 'coco/x/y.txt'
    assert type(dataset['pipeline']) is tuple
    assert found['other'] == [
        {'data_root': 'inner'},
        'inner/z',
        *('z', 'a.pth', 'b.pth', 'c.pth', '/', '../data', 'a/b', 'https://example.org/a/b'),
        '/home/alice\nno path',
    ]
    assert found['paths'] == {'coco/': 's3://bucket/'}
