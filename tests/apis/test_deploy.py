"""A trained checkpoint to its deploy form, checked before it is written."""

import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmwave.apis import deploy, deploy_checkpoint
from mmwave.checkpoint import read_checkpoint, sha256_of
from mmwave.errors import UserError
from mmwave.models import RepMLPNet
from tests.contracts import ROOT, images, randomise_norms, relative_error

CONFIG = """
default_scope = 'mmpretrain'
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='mmwave.RepMLPNet',
        arch=dict(
            depths=(1, 1, 1, 1), dims=(8, 12, 16, 24), windows=(8, 4, 2, 1), share_sets=(1, 2, 4, 8)
        ),
        out_indices=(3,),
        {more}
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=5, in_channels=24),
)
"""


def build(config, **backbone):
    cfg = Config.fromfile(config)
    cfg.model.backbone.update(backbone)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(cfg.model).eval()


@pytest.fixture
def trained(tmp_path):
    (tmp_path / 'config.py').write_text(CONFIG.replace('{more}', ''))
    torch.manual_seed(0)
    model = build(tmp_path / 'config.py')
    randomise_norms(model)
    classes = dict(classes=list('abcde'), palette=np.eye(5, 3))
    meta = dict(dataset_meta=classes, epoch=3, cfg='ignored')
    torch.save(dict(state_dict=model.state_dict(), meta=meta), tmp_path / 'trained.pth')
    return model


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
@pytest.mark.parametrize('mode', ['window', 'strict'])
def test_the_file_loads_strictly_and_computes_the_same(trained, tmp_path, suffix, mode):
    config, source = str(tmp_path / 'config.py'), str(tmp_path / 'trained.pth')
    target = tmp_path / f'deploy{suffix}'
    options = {'model.backbone.grid_mode': mode}
    done = deploy_checkpoint(config, source, str(target), cfg_options=options)
    assert done.exact < 1e-12
    assert 1e-12 < done.stored < 1e-5  # written in the checkpoint's own float32
    assert done.options == ('model.backbone.deploy=True',)
    content = read_checkpoint(target)
    model = build(config, deploy=True)
    model.load_state_dict(content['state_dict'], strict=True)
    x = images(2, 3, 64, 96)
    with torch.no_grad():
        got, wanted = model(x, mode='tensor')[0], trained(x, mode='tensor')[0]
    assert relative_error(got, wanted) < 1e-5
    meta = content['meta']
    assert (meta['source'], meta['sha256']) == ('trained.pth', sha256_of(source))
    assert meta['dataset_meta']['classes'] == list('abcde')
    assert np.array_equal(meta['dataset_meta']['palette'], np.eye(5, 3))
    assert meta['backbone']['deploy'] is True
    # It initialises a deployed backbone, and no other.
    pretrained = dict(type='Pretrained', checkpoint=str(target))
    arch = Config.fromfile(config).model.backbone.arch
    RepMLPNet(arch, out_indices=(3,), deploy=True, init_cfg=pretrained).init_weights()
    with pytest.raises(ValueError, match='deploy'):
        RepMLPNet(arch, out_indices=(3,), init_cfg=pretrained).init_weights()


def test_settings_and_sizes_of_another_family(tmp_path):
    """One that accepts a single size, and has settings of its own that its weights depend on."""
    text = CONFIG.replace('{more}', "grid_mode='strict', gate_norm_eps=1e-6,")
    text = re.sub(r'arch=dict\(.*?\n        \)', 'arch=ARCH', text, flags=re.DOTALL)
    arch = 'dict(depths=(1, 0, 0, 1), dim=24, mlp_ratio=2, patch_size=8, grid=(5, 4))'
    text = text.replace('RepMLPNet', 'GMLP').replace('ARCH', arch)
    (tmp_path / 'config.py').write_text(text)
    torch.manual_seed(0)
    trained = build(tmp_path / 'config.py')
    torch.save(dict(state_dict=trained.state_dict(), meta={}), tmp_path / 'trained.pth')
    paths = [str(tmp_path / name) for name in ('config.py', 'trained.pth', 'deploy.pth')]
    done = deploy_checkpoint(*paths)
    assert done.exact < 1e-12
    meta = read_checkpoint(paths[2])['meta']['backbone']
    assert meta['deploy'] is True
    assert meta['gate_norm_eps'] == 1e-6
    pretrained = dict(type='Pretrained', checkpoint=paths[2])
    model = build(paths[0], deploy=True, init_cfg=pretrained)
    model.backbone.init_weights()
    with pytest.raises(ValueError, match=r'gate_norm_eps=1e-06, this one has gate_norm_eps=1e-05'):
        build(
            paths[0], deploy=True, gate_norm_eps=1e-5, init_cfg=pretrained
        ).backbone.init_weights()
    with pytest.raises(ValueError, match='with deploy=True, this one has deploy=False'):
        build(paths[0], init_cfg=pretrained).backbone.init_weights()


def test_forms_that_differ_are_not_written(trained, tmp_path, monkeypatch):
    right = RepMLPNet.deploy_form

    def wrong(self):
        twin, lines = right(self)
        with torch.no_grad():
            twin.stem.conv.bias += 1e-6
        return twin, lines

    monkeypatch.setattr(RepMLPNet, 'deploy_form', wrong)
    with pytest.raises(ValueError, match=r'differs by .* nothing was written'):
        deploy_checkpoint(*(str(tmp_path / n) for n in ('config.py', 'trained.pth', 'out.pth')))
    assert not (tmp_path / 'out.pth').exists()


def run(*arguments):
    return subprocess.run(
        [sys.executable, str(ROOT / 'tools/to_deploy.py'), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
    )


def test_what_libraries_print_is_kept_off_the_screen(trained, tmp_path, monkeypatch, capsys):
    build_model = deploy.build_model

    def noisy(cfg):
        print('printed by a library')
        return build_model(cfg)

    monkeypatch.setattr(deploy, 'build_model', noisy)
    paths = [str(tmp_path / name) for name in ('config.py', 'trained.pth', 'deploy.pth')]
    deploy_checkpoint(*paths)
    assert capsys.readouterr().out == ''
    deploy_checkpoint(*paths, verbose=True)
    assert 'printed by a library' in capsys.readouterr().out


def test_the_tool(trained, tmp_path):
    config, source, target = (tmp_path / n for n in ('config.py', 'trained.pth', 'out.pth'))
    done = run(config, source, target)
    assert done.returncode == 0, done.stderr
    assert 'in float64' in done.stdout
    assert f'wrote {target}; run it with --cfg-options model.backbone.deploy=True' in done.stdout
    assert read_checkpoint(target)['meta']['source'] == 'trained.pth'


def test_bad_use_is_one_line_before_anything_is_written(trained, tmp_path):
    config, source, target = (str(tmp_path / n) for n in ('config.py', 'trained.pth', 'out.pth'))
    deployed = str(tmp_path / 'deployed.pth')
    deploy_checkpoint(config, source, deployed)
    torch.save(dict(state_dict={'x': torch.zeros(1)}), tmp_path / 'other.pth')
    state = trained.state_dict()
    extra = {'backbone.stages.0.1.norm1.weight': torch.ones(8)}
    torch.save(dict(state_dict=state | extra), tmp_path / 'deeper.pth')
    noted = dict(type='mmwave.RepMLPNet', act_cfg=dict(type='GELU', approximate='tanh'))
    torch.save(dict(state_dict=state, meta=dict(backbone=noted)), tmp_path / 'tanh.pth')
    (tmp_path / 'deploy_config.py').write_text(CONFIG.replace('{more}', 'deploy=True,'))
    other = """default_scope = 'mmpretrain'
model = dict(type='ImageClassifier', backbone=dict(type='LeNet5', num_classes=5))
"""
    (tmp_path / 'lenet.py').write_text(other)
    torch.save(build(tmp_path / 'lenet.py').state_dict(), tmp_path / 'lenet.pth')
    for arguments, message in (
        ((config, source, str(tmp_path / 'out.txt')), r'must end in \.pth or \.safetensors'),
        ((config, source, str(tmp_path / 'nowhere/out.pth')), 'no folder'),
        ((config, str(tmp_path / 'nothing.pth'), target), r'no checkpoint file .*nothing\.pth'),
        ((str(tmp_path / 'no.py'), source, target), 'no such config'),
        ((config, deployed, target), 'in deploy form, this RepMLPNet is in train form'),
        ((str(tmp_path / 'deploy_config.py'), deployed, target), 'backbone in deploy form'),
        ((config, str(tmp_path / 'other.pth'), target), 'at least 100% must match'),
        ((config, source, source), 'is the source itself'),
        ((config, str(tmp_path / 'deeper.pth'), target), 'the config builds a smaller model'),
        ((config, str(tmp_path / 'tanh.pth'), target), "act_cfg={'type': 'GELU', 'approximate'"),
        ((str(tmp_path / 'lenet.py'), str(tmp_path / 'lenet.pth'), target), 'nothing to fold'),
    ):
        with pytest.raises(UserError, match=message):
            deploy_checkpoint(*arguments)
    done = run(config, deployed, target)
    assert done.returncode == 2
    assert done.stderr.count('\n') == 1
    assert done.stderr.startswith('error: the weights are in deploy form')
    assert not (tmp_path / 'out.pth').exists()
