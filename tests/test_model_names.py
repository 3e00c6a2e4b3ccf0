"""Shipped models by name in the libraries' own functions, weights being random."""

import importlib
import itertools
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.infer.infer import BaseInferencer
from mmpretrain import get_model, list_models
from mmpretrain.apis.model import ModelHub

from mmwave import model_names
from mmwave.apis.config_names import config_files
from mmwave.model_names import models_of
from mmwave.models import WaveMLP
from tests.contracts import ROOT

LIBRARIES = ('mmpretrain', 'mmdet', 'mmseg')


def test_every_shipped_model_belongs_to_the_library_of_its_scope():
    found = {m['Name']: (lib, m['Config']) for lib in LIBRARIES for m in models_of(lib)}
    assert found.keys() == config_files().keys()
    leaves = ('wavemlp-t_in1k', 'gmlp-s16_retinanet_1x_coco', 'vip-s7_sem-fpn_40k_ade20k-512x512')
    for name in leaves:
        library, config = found[name]
        assert Config.fromfile(config).default_scope == library


def test_mmpretrain_lists_classifiers_beside_its_own():
    assert set(list_models('wavemlp')) == {
        name for name in config_files() if name.startswith('wavemlp') and name.endswith('_in1k')
    }
    assert 'resnet50_8xb32_in1k' in list_models('resnet50')
    assert 'wavemlp-t_in1k' in list_models('wavemlp-t_', task='Image Classification')


def test_mmpretrain_builds_a_classifier(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = get_model('wavemlp-t_in1k')
    assert isinstance(model.backbone, WaveMLP)
    # The figures of its metafile.
    assert model._metainfo.results[0].metrics == {'Top-1 (%)': 80.9}
    with pytest.raises(ValueError, match='Failed to find model "wavemlp-t_retinanet_1x_coco"'):
        get_model('wavemlp-t_retinanet_1x_coco')


def test_weights_that_are_not_published_are_warned_of():
    with pytest.warns(UserWarning, match='Unable to find pre-defined checkpoint'):
        get_model('wavemlp-t_in1k', pretrained=True)


@pytest.mark.parametrize(
    ('library', 'inferencer', 'name'),
    [
        ('mmdet', 'DetInferencer', 'wavemlp-t_retinanet_1x_coco'),
        ('mmseg', 'MMSegInferencer', 'wavemlp-t_sem-fpn_40k_ade20k-512x512'),
    ],
)
def test_inferencers_find_detectors_and_segmentors(
    tmp_path, monkeypatch, library, inferencer, name
):
    monkeypatch.chdir(tmp_path)
    kind = getattr(importlib.import_module(f'{library}.apis'), inferencer)
    with pytest.warns(UserWarning, match='randomly initialized'):
        found = kind(name, device='cpu', show_progress=False)
    assert isinstance(found.model.backbone, WaveMLP)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        predictions = found(np.zeros((64, 96, 3), np.uint8))['predictions']
    assert len(predictions)
    with pytest.raises(ValueError, match=f'Cannot find model: wavemlp-t_in1k in {library}'):
        kind('wavemlp-t_in1k')
    names = [m['Name'] for m in models_of(library)]
    listed = BaseInferencer.list_models(library)
    assert listed[: len(names)] == names
    assert len(listed) > len(names)


def test_a_library_that_was_imported_before_is_extended(monkeypatch):
    class Hub:
        _models_dict = {}

        @classmethod
        def _register_mmpretrain_models(cls):
            cls._models_dict['theirs'] = None

        @classmethod
        def has(cls, name):
            return name in cls._models_dict

    load = sys.modules['mmpretrain.apis.model'].load
    module = SimpleNamespace(ModelHub=Hub, load=load)
    monkeypatch.setitem(sys.modules, 'mmpretrain.apis.model', module)
    importlib.reload(model_names)
    assert Hub._models_dict == {}  # before a look-up nothing is read
    for _ in range(2):
        Hub._register_mmpretrain_models()
        importlib.reload(model_names)
        assert set(Hub._models_dict) == {'theirs', *(m['Name'] for m in models_of('mmpretrain'))}


def test_extending_again_adds_nothing():
    importlib.reload(model_names)
    importlib.import_module('mmdet')
    names = [model['Name'] for model in models_of('mmdet')]
    folder = BaseInferencer._get_repo_or_mim_dir('mmdet')
    found = BaseInferencer._get_models_from_metafile(folder)
    *ours, other = (m['Name'] for m in itertools.islice(found, len(names) + 1))
    assert ours == names
    assert other not in names


def test_one_finder_extends_what_it_waits_for(tmp_path, monkeypatch):
    (tmp_path / 'a_module_to_extend.py').write_text('word = 1\n')
    monkeypatch.syspath_prepend(tmp_path)
    (finder,) = [f for f in sys.meta_path if hasattr(f, 'names_models')]
    table = type(finder).find_spec.__globals__['_EXTENDED']
    monkeypatch.setitem(table, 'a_module_to_extend', lambda module: setattr(module, 'word', 2))
    monkeypatch.setitem(table, 'no_such_module', None)
    assert importlib.import_module('a_module_to_extend').word == 2
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module('no_such_module')


def test_another_version_of_a_library_stays_as_it_is():
    module = SimpleNamespace(ModelHub=object(), BaseInferencer=object())
    model_names._extend_hub(module)
    model_names._extend_inferencers(module)


def test_models_that_somebody_registered_already_stay(monkeypatch):
    """The public way, which was the only one before."""
    monkeypatch.setattr(ModelHub, '_models_dict', {})
    monkeypatch.setattr(ModelHub, '_ModelHub__mmpretrain_registered', True)
    ModelHub.register_model_index(ROOT / 'model-index.yml', config_prefix=ROOT)
    before = dict(ModelHub._models_dict)
    assert list_models() == sorted(before)
    assert all(ModelHub._models_dict[name] is model for name, model in before.items())
