"""Published files: what they hold and say, that our loaders accept them, and what is refused."""

import hashlib
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.fileio import load
from safetensors import safe_open
from torch.hub import HASH_REGEX

from mmwave import apis
from mmwave.apis import publish
from mmwave.apis.config_text import read_config_text
from mmwave.checkpoint import read_checkpoint, register_safe_loader
from mmwave.errors import UserError
from mmwave.models.backbones import WaveMLP
from tests.faults.tasks import write_task
from tests.loaders import loader_restored
from tests.tiny_run import write_run

pytestmark = pytest.mark.usefixtures('own_loader')


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A config and the checkpoint of a classifier's training, which averages its weights."""
    folder = tmp_path_factory.mktemp('trained')
    config = write_run(folder)
    with loader_restored():
        cfg = apis.prepare_training(str(config), work_dir=str(folder / 'work'))
        apis.train(cfg)
    return config, folder / 'work' / 'epoch_1.pth'


@pytest.fixture
def checkpoint(trained):
    return str(trained[1])


@pytest.fixture
def saved(checkpoint):
    return torch.load(checkpoint, weights_only=True)


def resaved(content, path):
    torch.save(content, path)
    return str(path)


def predictions(config, weights, folder):
    cfg = apis.prepare_testing(
        str(config), str(weights), work_dir=str(folder), out=str(folder / 'out.pkl')
    )
    apis.test(cfg)
    return [sample['pred_score'] for sample in load(folder / 'out.pkl')]


@pytest.mark.parametrize('kind', ['safetensors', 'pth'])
def test_what_is_written(trained, saved, tmp_path, kind):
    config, source = trained
    done = publish(str(source), out=str(tmp_path), file_format=kind, name='my-model')
    digest = hashlib.sha256(done.path.read_bytes()).hexdigest()
    assert done.path.name == f'my-model-{digest[:8]}.{kind}'
    assert HASH_REGEX.search(done.path.name)[1] == digest[:8]
    assert sorted(tmp_path.iterdir()) == sorted([done.path, done.card])
    assert done.size == done.path.stat().st_size < done.source_size == source.stat().st_size
    read = torch.load(done.path) if kind == 'pth' else read_checkpoint(done.path)
    assert read.keys() == {'state_dict', 'meta'}
    torch.testing.assert_close(read['state_dict'], dict(saved['state_dict']), rtol=0, atol=0)
    meta = read['meta']
    assert meta['weights'] == done.weights == 'averaged'
    assert meta['licence'] == ''
    assert list(meta['dataset_meta']['classes']) == ['a', 'b']
    assert meta['task'] == 'image classification'
    assert list(meta['preprocessing']['mean']) == Config.fromfile(config).data_preprocessor.mean
    assert meta['sha256'] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert meta['source'] == 'epoch_1.pth'
    assert meta['trained'] == {'epoch': 1, 'iter': 4}
    assert (
        meta['versions'].keys()
        == meta['published_with'].keys()
        == {*('torch', 'mmengine', 'mmwave')}
    )
    assert meta['backbone']['type'] == 'mmwave.WaveMLP'
    assert meta['config_name'] == 'tiny'
    settings = read_config_text(meta['cfg'])
    assert settings['model']['backbone']['type'] == 'mmwave.WaveMLP'
    assert str(config.parent) not in repr(meta)
    header = yaml.safe_load(done.card.read_text().split('---\n')[1])
    assert header['pipeline_tag'] == 'image-classification'
    if kind == 'safetensors':
        with safe_open(done.path, 'pt') as file:
            assert set(file.metadata()) == {'format', *meta}
            assert file.metadata()['format'] == 'pt'


def test_metrics_are_those_of_these_weights(checkpoint, saved, tmp_path):
    """As noted in the checkpoint, or in the log beside it."""
    assert saved['meta']['validated']['iter'] == saved['meta']['iter']
    done = publish(checkpoint, out=str(tmp_path))
    measured = done.meta['measured']
    assert measured['metrics'] == saved['meta']['validated']['metrics']
    assert measured['metrics'].keys() == {'accuracy/top1'}
    assert measured['data']['type'] == 'ImageNet'
    assert (
        f'| accuracy/top1 | {measured["metrics"]["accuracy/top1"]:.6g} |' in done.card.read_text()
    )
    assert done.remarks == ()
    del saved['meta']['validated']
    beside = Path(checkpoint).with_name('beside.pth')
    found = publish(resaved(saved, beside), out=str(tmp_path)).meta['measured']
    beside.unlink()
    assert found == measured
    unknown = publish(resaved(saved, tmp_path / 'elsewhere.pth'))
    assert 'measured' not in unknown.meta
    assert 'no validation metrics of these weights are known' in unknown.remarks


def test_a_run_that_averages_does_not_validate_its_raw_weights(checkpoint, tmp_path):
    done = publish(checkpoint, out=str(tmp_path), ema=False)
    assert 'measured' not in done.meta
    assert 'No metrics' in done.card.read_text()


def test_raw_weights(checkpoint, saved, tmp_path):
    done = publish(checkpoint, out=str(tmp_path), ema=False)
    assert done.weights == 'raw'
    state = read_checkpoint(done.path)['state_dict']
    raw = {k.removeprefix('module.'): v for k, v in saved['ema_state_dict'].items()}
    raw.pop('steps')
    torch.testing.assert_close(state, raw, rtol=0, atol=0)
    assert any(not torch.equal(state[k], saved['state_dict'][k]) for k in state)


def test_the_same_file_again(checkpoint, tmp_path):
    """Nothing of chance is in it; a card that was edited stays."""
    first = publish(checkpoint, out=str(tmp_path))
    before = first.path.stat().st_ino, first.path.read_bytes()
    for _ in range(3):
        assert publish(checkpoint, out=str(tmp_path)).path == first.path
    assert first.path.read_bytes() == before[1]
    first.card.write_text('edited')
    again = publish(checkpoint, out=str(tmp_path))
    assert first.card.read_text() == 'edited'
    assert any('left as it is' in line for line in again.remarks)
    assert len(list(tmp_path.iterdir())) == 2


def test_another_file_of_the_name_is_not_replaced(checkpoint, tmp_path):
    done = publish(checkpoint, out=str(tmp_path))
    done.path.write_bytes(b'other')
    done.card.unlink()
    with pytest.raises(UserError, match='is there already, with other content'):
        publish(checkpoint, out=str(tmp_path))
    assert done.path.read_bytes() == b'other'
    assert not done.card.exists()


# -- Loaders -----------------------------------------------------------------------------------


@pytest.mark.parametrize('kind', ['safetensors', 'pth'])
def test_the_tool_for_testing_computes_the_same(trained, tmp_path, kind):
    config, source = trained
    done = publish(str(source), config=str(config), out=str(tmp_path), file_format=kind)
    before = predictions(config, source, tmp_path / 'a')
    after = predictions(config, done.path, tmp_path / 'b')
    assert len(before) == len(after) > 0
    for mine, theirs in zip(after, before, strict=True):
        assert torch.equal(mine, theirs)


def test_a_backbone_starts_from_it(trained, tmp_path):
    done = publish(str(trained[1]), out=str(tmp_path))
    arch = Config.fromfile(trained[0]).model.backbone.arch.to_dict()
    pretrained = dict(type='Pretrained', checkpoint=str(done.path))
    model = WaveMLP(arch, out_indices=(3,), init_cfg=pretrained)
    model.init_weights()
    state = read_checkpoint(done.path)['state_dict']
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[f'backbone.{name}'])
    other = dict(arch, norm='GN')
    with pytest.raises(UserError, match='is of a backbone with arch='):
        WaveMLP(other, out_indices=(3,), init_cfg=pretrained).init_weights()


def test_a_training_starts_from_it_and_none_goes_on(trained, tmp_path):
    config, source = trained
    done = publish(str(source), out=str(tmp_path))
    options = dict(work_dir=str(tmp_path / 'work'), cfg_options={'experiment_name': 'from'})
    runner = apis.train(apis.prepare_training(str(config), load_from=str(done.path), **options))
    assert runner.epoch == 1
    cfg = apis.prepare_training(
        str(config), work_dir=str(tmp_path / 'b'), resume=str(done.path),
        cfg_options={'experiment_name': 'on'},
    )  # fmt: skip
    with pytest.raises(UserError, match='holds weights only'):
        apis.train(cfg)


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['safetensors', 'pth'])
def test_mmdet_s_init_detector(tmp_path, kind):
    """Its own loader reads torch's files alone."""
    from mmdet.apis import inference_detector, init_detector

    config = str(write_task(tmp_path, 'detection'))
    torch.manual_seed(0)
    model = init_detector(config, None, device='cpu')
    meta = {'dataset_meta': {'classes': ('a', 'b'), 'palette': [(1, 2, 3), (4, 5, 6)]}}
    source = resaved({'state_dict': model.state_dict(), 'meta': meta}, tmp_path / 'a.pth')
    done = publish(source, config=config, file_format=kind)
    if kind == 'safetensors':
        register_safe_loader()
    loaded = init_detector(config, str(done.path), device='cpu')
    assert list(loaded.dataset_meta['classes']) == ['a', 'b']
    image = np.zeros((64, 64, 3), np.uint8)
    found = [inference_detector(m, image).pred_instances.scores for m in (model, loaded)]
    assert torch.equal(*found)


# -- Other sources -----------------------------------------------------------------------------


def test_weights_without_notes(tmp_path):
    state = torch.nn.Linear(2, 3).state_dict()
    done = publish(resaved(state, tmp_path / 'my.best weights.pth'))
    assert re.fullmatch(r'my-best-weights-[0-9a-f]{8}\.safetensors', done.path.name)
    assert done.weights == 'raw'
    assert not {'cfg', 'task', 'preprocessing', 'measured', 'dataset_meta'} & done.meta.keys()
    assert any('holds no config' in line for line in done.remarks)


def test_notes_of_a_conversion_stay(tmp_path):
    backbone = {'type': 'mmwave.WaveMLP', 'arch': 't'}
    meta = dict(licence='Apache-2.0', family='WaveMLP', backbone=backbone, CLASSES=('a', 'b'))
    content = {'state_dict': torch.nn.Linear(2, 3).state_dict(), 'meta': meta}
    done = publish(resaved(content, tmp_path / 'a.pth'))
    assert done.meta['licence'] == 'Apache-2.0'
    assert done.meta['backbone'] == backbone
    assert read_checkpoint(done.path)['meta']['dataset_meta'] == {'classes': ['a', 'b']}


def test_the_config_of_a_checkpoint_is_not_run(saved, tmp_path):
    marker = tmp_path / 'ran'
    saved['meta']['cfg'] = f'import pathlib\npathlib.Path({str(marker)!r}).touch()\n'
    done = publish(resaved(saved, tmp_path / 'a.pth'))
    assert not marker.exists()
    assert 'cfg' not in done.meta
    assert any('no config of plain values' in line for line in done.remarks)


def test_infinite_values_of_a_mask_are_named(tmp_path):
    state = {'weight': torch.ones(2), 'mask': torch.tensor([0.0, float('-inf')])}
    done = publish(resaved(state, tmp_path / 'a.pth'))
    assert any('1 tensors hold 1 NaN or infinite values: mask' in line for line in done.remarks)


# -- Refused -----------------------------------------------------------------------------------


def broken(saved, kind, path):
    """Write a checkpoint that is no good, and return its path."""
    if kind == 'nan':
        saved['state_dict']['head.fc.bias'][0] = float('nan')
    elif kind == 'nan average':
        saved['ema_state_dict']['module.head.fc.bias'][0] = float('nan')
    elif kind == 'infinite':
        saved['state_dict']['head.fc.weight'][0] = float('inf')
    elif kind == 'no model':
        saved = {'optimizer': saved['optimizer']}
    elif kind == 'strange average':
        saved['ema_state_dict']['module.x'] = torch.ones(1)
    elif kind == 'another shape':
        saved = {'state_dict': {**saved['state_dict'], 'head.fc.bias': torch.ones(3)}}
    elif kind == 'more':
        saved['state_dict']['x'] = torch.ones(3)
    resaved(saved, path)
    if kind == 'cut':
        path.write_bytes(path.read_bytes()[:-1000])
    elif kind == 'text':
        path.write_text('no checkpoint')
    elif kind == 'folder':
        path.unlink()
        path.mkdir()
    elif kind == 'missing':
        path.unlink()
    elif kind == 'code':
        torch.save({'state_dict': saved['state_dict'], 'x': shutil.rmtree}, path)
    return str(path)


@pytest.mark.parametrize(
    ('kind', 'options', 'message'),
    [
        ('nan', {}, r'a\.pth: 1 tensors hold 1 NaN .*head\.fc\.bias: nothing was written'),
        ('nan average', {'ema': False}, 'NaN or infinite'),
        ('infinite', {}, 'NaN or infinite'),
        ('no model', {}, 'is no state dict'),
        ('strange average', {}, r'its ema_state_dict has module\.x'),
        ('cut', {}, 'damaged'),
        ('text', {}, 'neither a torch nor a safetensors file'),
        ('folder', {}, 'is a folder: name a checkpoint in it'),
        ('missing', {}, 'no checkpoint file'),
        ('code', {}, 'shutil.rmtree'),
        ('whole', {'name': 'a.b'}, r"the name 'a\.b' must be of letters"),
        ('whole', {'name': '../a'}, 'must be of letters'),
        ('whole', {'name': ''}, 'must be of letters'),
        ('whole', {'file_format': 'onnx'}, "the format 'onnx' is none of"),
        ('whole', {'config': 'nothing'}, 'no such config: nothing'),
        ('another shape', {'config': True}, 'the config is of another model: .*head.fc.bias'),
        ('more', {'config': True}, 'the config builds a smaller model: .*1 in it'),
    ],
)
def test_what_is_refused_is_one_line_and_leaves_nothing(
    trained, saved, tmp_path, kind, options, message
):
    path = broken(saved, kind, tmp_path / 'a.pth')
    out = tmp_path / 'out'
    if options.get('config') is True:
        options = {'config': str(trained[0])}
    with pytest.raises(UserError, match=message) as told:
        publish(path, out=str(out), **options)
    assert '\n' not in str(told.value)
    assert not out.exists()


def test_a_folder_that_cannot_be_written(checkpoint, tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match=r'--out .*file cannot be written'):
        publish(checkpoint, out=str(tmp_path / 'file'))


def test_averaged_weights_that_are_not_there(tmp_path):
    path = resaved(torch.nn.Linear(2, 3).state_dict(), tmp_path / 'a.pth')
    with pytest.raises(UserError, match='holds no averaged weights'):
        publish(path, ema=True)
    assert [p.name for p in tmp_path.iterdir()] == ['a.pth']


def test_an_empty_path():
    with pytest.raises(UserError, match='the path of the checkpoint is empty'):
        publish('')
