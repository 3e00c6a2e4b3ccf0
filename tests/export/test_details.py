"""What a file says of itself."""

import json

from mmengine.config import Config

import mmwave
from mmwave.export.details import class_names, details
from mmwave.export.functions import Described
from mmwave.export.images import Normalisation
from tests.export.models import FREE


def test_all_are_texts():
    described = Described('classification', {'logits': 'some'})
    norm = Normalisation((1.5, 2.0, 3.0), (4.0, 5.0, 6.0), 'rgb')
    made = details(described, norm, FREE, {'classes': ['Käfer', 'b'], 'config': 'my'})
    assert all(isinstance(value, str) for value in made.values())
    assert json.loads(made['mean']) == [1.5, 2.0, 3.0]
    assert json.loads(made['std']) == [4.0, 5.0, 6.0]
    assert json.loads(made['classes']) == ['Käfer', 'b']
    assert json.loads(made['outputs']) == {'logits': 'some'}
    assert made['mmwave_version'] == mmwave.__version__
    assert (made['channel_order'], made['config'], made['sizes']) == ('rgb', 'my', FREE.sizes)


def test_classes_of_the_checkpoint_go_before_those_of_the_config():
    dataset = dict(metainfo=dict(classes=('c', 'd')))
    cfg = Config(dict(test_dataloader=dict(dataset=dataset)))
    for key in ('classes', 'CLASSES'):
        content = dict(meta=dict(dataset_meta={key: ['a', 'b']}))
        assert class_names(content, cfg) == ['a', 'b']
    for content in ({}, dict(meta=None), dict(meta=dict(dataset_meta=dict(classes=[])))):
        assert class_names(content, cfg) == ['c', 'd']
        assert class_names(content, Config({})) == []
