"""Values of ``--cfg-options``: what mmengine reads right, and what it would change."""

import pytest
from mmengine.config import DictAction

from mmwave.apis.values import Typed, read

# Typed by users of mmdet, mmseg and mmpretrain; the right value is the one that mmengine reads.
AS_MMENGINE = [
    *('4', '-1', '+2', '007', '0.0001', '1e-3', '-1e-5', 'inf', '-inf', 'True', 'true', 'False'),
    *('None', 'none', '', 'SGD', 'mmwave.WaveMLP', 'on_input', 'coco/bbox_mAP', 'x=y'),
    *('data/coco/', '/a/b.pth', 's3://bucket/a.json', '0,1,2,3', '8,11', '8,', '0.5,0.5', '1, 2'),
    *('[0,1]', '(1333,800)', '(1)', '(1,)', '[]', '()', '[(1,2),(3,4)]', '"[(1,2),(3,4)]"'),
    *('[[1,2],[3]]', '[a,b]', '(a,b)', '[(a,1),b]', 'bbox,segm', 'mIoU,mDice', 'a,1,None'),
    *('}', '{a}', "('person',)", 'Hello, world'),
    *("['a','b']", '[1,"a",None,True]', 'mAP,mAP_50', "it's", "[it's,b]", 'Äpfel,Birnen', '-1,0'),
]
# What mmengine changes, drops or cannot read.
AS_TYPED = {
    'traffic light': 'traffic light',
    ' a  b ': ' a  b ',
    '/x/a,b/': '/x/a,b/',
    'Hello, big world': 'Hello, big world',
    '/data/my set (1), new/é.json': '/data/my set (1), new/é.json',
    "'traffic light'": 'traffic light',
    '"5"': '5',
    "'None'": 'None',
    "'a,b'": 'a,b',
    r"'C:\new\a b'": r'C:\new\a b',
    r"'it\'s'": "it's",
    "['traffic light', 'car, red']": ['traffic light', 'car, red'],
    '[traffic light,car]': ['traffic light', 'car'],
    "'traffic light','car'": ['traffic light', 'car'],
    "[')', '[']": [')', '['],
    '(a) and (b)': '(a) and (b)',
    '[1,2': '[1,2',
    '[1,2)': '[1,2)',
    "{'a': 1, 'b': (1, 2)}": {'a': 1, 'b': (1, 2)},
    '{"a": true, "b": null}': {'a': True, 'b': None},
    "[{'type': 'Resize', 'scale': (1, 2)}]": [{'type': 'Resize', 'scale': (1, 2)}],
    '(1333,800),(1333,600)': [(1333, 800), (1333, 600)],
    '1 2': '1 2',
}


@pytest.mark.parametrize('text', AS_MMENGINE)
def test_what_users_type_keeps_its_meaning(text):
    value = read(text)
    right = DictAction._parse_iterable(text)
    assert value == right
    assert repr(value) == repr(right)  # 1, 1.0 and True are equal


@pytest.mark.parametrize('text', AS_TYPED)
def test_texts_arrive_as_typed(text):
    value = read(text)
    assert (type(value), value) == (type(AS_TYPED[text]), AS_TYPED[text])
    try:
        other = DictAction._parse_iterable(text)
    except (AssertionError, RecursionError):
        return
    assert other != value, 'it belongs into the other table'


@pytest.mark.parametrize(
    ('key', 'present', 'text', 'value'),
    [
        # Names of files: by their key where the config has none yet, else by what it has.
        ('work_dir', None, '2024_01_02', '2024_01_02'),
        ('work_dir', None, 'a,b', 'a,b'),
        ('a.data_prefix.img', 'train2017/', '2017', '2017'),
        ('a.data_prefix.img', '', 'a,b', 'a,b'),
        ('a.ann_file', 'train.json', 'a,b', 'a,b'),
        ('load_from', 'a/b.pth', 'None', None),
        ('resume', False, 'True', True),
        ('a.ann_file', 'train.json', '[a.json,b.json]', ['a.json', 'b.json']),
        # A word may give way to a list or a number.
        ('val_evaluator.metric', 'bbox', 'bbox,segm', ['bbox', 'segm']),
        ('optim_wrapper.loss_scale', 'dynamic', '512', 512),
        # A list is replaced by one.
        ('classes', ('a', 'b'), 'traffic light, car', ['traffic light', 'car']),
        ('classes', ['a'], 'coco/a,b.c', ['coco/a', 'b.c']),
        ('classes', ['a'], 'a,', ['a']),
        # Quotes make a text of a list where there is one.
        ('a', 'b', "'[1,2]'", '[1,2]'),
        ('a', None, "'[1,2]'", [1, 2]),
    ],
)
def test_the_present_value_decides_what_may_be_two_things(key, present, text, value):
    found = read(text, key, present)
    assert (type(found), found) == (type(value), value)


def test_a_list_of_names_read_back_from_its_repr():
    names = ('it"s', "a'b", 'a, b', '[x]', 'C:\\new', ' blank ', '', 'Äpfel', '1', 'None')
    assert read(repr(names)) == names
    assert read(repr(list(names))) == list(names)


@pytest.mark.parametrize('text', ['[' * 3000 + ']' * 3000, '{' * 3000 + '}' * 3000, "'" * 9999])
def test_nothing_that_is_typed_ends_in_a_traceback(text):
    assert Typed(text) == text
    read(text)
