"""Every file that is no checkpoint of the model ends in a user's error, wherever it is read."""

import argparse
import collections

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner, load_checkpoint

from mmwave.apis import deploy_checkpoint
from mmwave.cli import run_tool
from mmwave.convert import convert_file
from mmwave.engine.hooks import LoadReportHook
from mmwave.errors import UserError
from mmwave.models import RepMLPNet

pytestmark = pytest.mark.usefixtures('safe_loader')

ARCH = dict(
    depths=(1, 1, 1, 1), dims=(8, 12, 16, 24), windows=(8, 4, 2, 1), share_sets=(1, 2, 4, 8)
)
CONFIG = f"""
default_scope = 'mmpretrain'
model = dict(
    type='ImageClassifier',
    backbone=dict(type='mmwave.RepMLPNet', arch={ARCH!r}, out_indices=(3,)),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=5, in_channels=24),
)
"""
FORGED = 'x\nINFO - all is well\x1b[2J\r'


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    """A folder with the config, and the model that it builds."""
    folder = tmp_path_factory.mktemp('wrong')
    (folder / 'config.py').write_text(CONFIG)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return folder, MODELS.build(Config.fromfile(folder / 'config.py').model)


@pytest.fixture(scope='module')
def runner(place):
    hook = LoadReportHook(min_fraction=1.0)
    return Runner(place[1], str(place[0]), custom_hooks=[hook], experiment_name='wrong')


def pretrained(place, runner, path):
    RepMLPNet(ARCH, out_indices=(3,)).load_pretrained(str(path))


def mmengine_pretrained(place, runner, path):
    load_checkpoint(place[1], str(path))


def load_from(place, runner, path):
    """Do what tools/test.py and tools/train.py do, the latter with a smaller fraction."""
    runner.load_checkpoint(str(path))


def to_deploy(place, runner, path):
    deploy_checkpoint(str(place[0] / 'config.py'), str(path), str(place[0] / 'out.pth'))


def convert(place, runner, path):
    convert_file(path, place[0] / 'out.pth')


ENTRIES = [pretrained, mmengine_pretrained, load_from, to_deploy, convert]
ONE = torch.ones(1)
FILES = {
    'list': [ONE],
    'none': None,
    'number': 5,
    'text': 'x',
    'tensor': ONE,
    'empty': {},
    'name-int': {5: ONE},
    'name-none': {None: ONE},
    'name-bytes': {b'a': ONE},
    'name-tuple': {('a', 'b'): ONE},
    'name-float': {'state_dict': {1.5: ONE, 'a': ONE}},
    'name-forged': {FORGED: ONE, 'lone\udc80surrogate': ONE},
    'no-tensor': {'state_dict': {'a': 'b'}},
    'state-list': {'state_dict': [ONE]},
    'array': {'state_dict': {'a': np.ones(1)}},
}


def refused(call, *arguments):
    with pytest.raises(UserError) as told:
        call(*arguments)
    return str(told.value)


@pytest.mark.parametrize('entry', ENTRIES)
@pytest.mark.parametrize('name', FILES)
def test_what_is_no_state_dict(place, runner, tmp_path, entry, name):
    path = tmp_path / 'wrong.pth'
    torch.save(FILES[name], path)
    text = refused(entry, place, runner, path)
    assert all(line.isprintable() for line in text.split('\n'))
    assert not (place[0] / 'out.pth').exists()


METAS = {
    'int': 5,
    'text': 'x',
    'list': [1],
    'tensor': ONE,
}


@pytest.mark.parametrize('entry', [mmengine_pretrained, load_from, to_deploy])
@pytest.mark.parametrize('name', METAS)
def test_meta_of_a_wrong_type(place, runner, tmp_path, entry, name):
    path = tmp_path / 'wrong.pth'
    torch.save({'state_dict': place[1].state_dict(), 'meta': METAS[name]}, path)
    message = refused(entry, place, runner, path)
    assert 'wrong.pth' in message
    assert f'is of type {type(METAS[name]).__name__}' in message
    assert message.isprintable()


ITSELF = argparse.Namespace()
ITSELF.me = ITSELF
NOTES = {
    'arch-unknown': (dict(arch='nope'), "arch='nope', which is none of a RepMLPNet: unknown arch"),
    'arch-keys': (dict(arch={**ARCH, 'more': 1}), 'which is none of a RepMLPNet'),
    'arch-forged': (dict(arch={**ARCH, FORGED: 1}), 'which is none of a RepMLPNet'),
    'arch-values': (dict(arch={**ARCH, 'dims': 'x'}), 'which is none of a RepMLPNet'),
    'arch-none': (dict(arch=None), 'arch=None, which is none'),
    'arch-array': (dict(arch=np.ones(3)), 'which is none of a RepMLPNet'),
    'arch-arrays': (dict(arch={**ARCH, 'dims': np.ones(4)}), 'which is none of a RepMLPNet'),
    'arch-tensors': (dict(arch={**ARCH, 'dims': torch.ones(4)}), 'which is none of a RepMLPNet'),
    'arch-list': (dict(arch=[1]), 'which is none'),
    'arch-other': (dict(arch={**ARCH, 'dims': (8, 12, 16, 32)}), 'with arch='),
    'key-int': ({5: 6}, 'names a setting of its backbone 5'),
    'key-tuple': ({(1, 2): 6, 'arch': ARCH}, r'names a setting of its backbone (1, 2)'),
    'array': (dict(act_cfg=np.ones(2)), 'with act_cfg=array([1., 1.]), this one has act_cfg='),
    'tensor': (dict(act_cfg=torch.ones(2)), 'with act_cfg=tensor([1., 1.])'),
    'large': (dict(act_cfg=list(range(10**5))), 'with act_cfg=[0, 1, 2'),
    'forged': (dict(act_cfg=FORGED), r"with act_cfg='x\nINFO - all"),
    'forged-name': ({FORGED: 1, 'training': 7}, 'with training=7, this one has training='),
    'type-int': (dict(type=5), 'is of a backbone with type=5, no name'),
    'type-itself': (dict(type=ITSELF), 'is of a backbone with type=a Namespace, no name'),
    'type-forged': (dict(type=FORGED), r'is of a x\nINFO'),
    'type-tensor': (dict(type=torch.ones(2, 2)), 'is of a backbone with type=tensor'),
    'nested': (dict(act_cfg=[[[[[[{}]]]]]]), 'with act_cfg=[[[[[[{}]]]]]]'),
    'counter': (dict(act_cfg=collections.Counter(a=1)), 'with act_cfg='),
}


@pytest.mark.parametrize('entry', [pretrained, load_from, to_deploy])
@pytest.mark.parametrize('name', NOTES)
def test_notes_of_the_backbone_that_do_not_fit(place, runner, tmp_path, entry, name):
    """Compared by their values, shown in part."""
    noted, message = NOTES[name]
    path = tmp_path / 'wrong.pth'
    torch.save({'state_dict': place[1].state_dict(), 'meta': {'backbone': noted}}, path)
    text = refused(entry, place, runner, path)
    assert message in text
    assert text.isprintable()
    assert len(text) < 1200


def test_notes_that_fit(place, runner, tmp_path):
    path = tmp_path / 'right.pth'
    for noted in (None, 'resnet', 5, {}, dict(type='mmwave.RepMLPNet', arch=ARCH, deploy=False)):
        meta = {'backbone': noted}
        torch.save({'state_dict': place[1].state_dict(), 'meta': meta}, path)
        for entry in (pretrained, load_from, to_deploy):
            entry(place, runner, path)
    (place[0] / 'out.pth').unlink()


def test_weights_beside_an_entry_that_is_none(place, runner, tmp_path):
    path = tmp_path / 'right.pth'
    for other in (None, 5, [1], 'x'):
        torch.save({'state_dict': other, 'model': place[1].state_dict()}, path)
        for entry in (pretrained, mmengine_pretrained, load_from, to_deploy):
            entry(place, runner, path)
    (place[0] / 'out.pth').unlink()


@pytest.mark.parametrize('dtype', [torch.int64, torch.bool])
def test_whole_numbers_among_weights_are_refused_by_name(place, runner, tmp_path, dtype):
    path = tmp_path / 'wrong.pth'
    torch.save({**place[1].state_dict(), 'head.fc.bias': torch.ones(5, dtype=dtype)}, path)
    for entry in (mmengine_pretrained, load_from, to_deploy):
        assert 'head.fc.bias is ' in refused(entry, place, runner, path)


def test_nan_in_weights_is_said(place, runner, tmp_path, monkeypatch):
    path = tmp_path / 'nan.pth'
    state = dict(place[1].state_dict())
    torch.save({**state, 'head.fc.bias': torch.full((5,), torch.nan)}, path)
    said = '1 tensors hold 5 NaN or infinite values: head.fc.bias'
    done = deploy_checkpoint(str(place[0] / 'config.py'), str(path), str(tmp_path / 'out.pth'))
    assert done.damage == said
    lines = []
    monkeypatch.setattr('mmengine.logging.print_log', lambda line, **_: lines.append(line))
    mmengine_pretrained(place, runner, path)
    assert [line for line in lines if line.endswith(said)]
    place[1].load_state_dict(state)


def test_weights_that_no_layer_computes_with(place, runner, tmp_path):
    path = tmp_path / 'fp8.pth'
    state = place[1].state_dict().items()
    torch.save({k: v.to(torch.float8_e4m3fn) for k, v in state if v.is_floating_point()}, path)
    assert 'are of torch.float8_e4m3fn, which no layer computes with' in refused(
        to_deploy, place, runner, path
    )


@pytest.mark.parametrize('name', ['~nobody-of-this-name/x.pth', 'a\0b.pth'])
def test_names_that_are_no_paths(place, tmp_path, name):
    torch.save(place[1].state_dict(), tmp_path / 'right.pth')
    config, right = str(place[0] / 'config.py'), str(tmp_path / 'right.pth')
    for source, target in ((name, str(tmp_path / 'out.pth')), (right, name)):
        assert refused(deploy_checkpoint, config, source, target).isprintable()
        assert refused(convert_file, source, target).isprintable()


def test_whole_numbers_are_no_weights(place, runner, tmp_path):
    path = tmp_path / 'wrong.pth'
    torch.save({k: v.long() for k, v in place[1].state_dict().items()}, path)
    assert refused(to_deploy, place, runner, path).isprintable()


@pytest.mark.parametrize('name', ['nowhere.pth', '', '/', 'x' * 300 + '.pth'])
@pytest.mark.parametrize('entry', ENTRIES)
def test_paths_that_lead_nowhere(place, runner, tmp_path, monkeypatch, capsys, entry, name):
    monkeypatch.setattr('sys.argv', ['tool'])
    monkeypatch.setenv('LOCAL_RANK', '0')
    path = tmp_path / name if name else tmp_path
    with pytest.raises(SystemExit) as ended:
        run_tool(lambda _: entry(place, runner, path), argparse.ArgumentParser())
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('error: ')


def test_a_link_to_itself(place, runner, tmp_path):
    path = tmp_path / 'loop.pth'
    path.symlink_to(path)
    for entry in ENTRIES:
        refused(entry, place, runner, path)


@pytest.mark.parametrize('target', ['folder.pth', 'nowhere/out.pth', 'x' * 300 + '.pth', ''])
def test_targets_that_cannot_be_written(place, tmp_path, target):
    (tmp_path / 'folder.pth').mkdir()
    torch.save(place[1].state_dict(), tmp_path / 'right.pth')
    config, source = str(place[0] / 'config.py'), str(tmp_path / 'right.pth')
    text = refused(deploy_checkpoint, config, source, str(tmp_path / target) if target else '')
    assert text.isprintable()
    text = refused(convert_file, source, tmp_path / target if target else '')
    assert text.isprintable()
