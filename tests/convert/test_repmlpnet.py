"""RepMLPNet's published files become the models that mmwave builds."""

import json
import os
from dataclasses import asdict

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmwave.checkpoint import read_checkpoint, sha256_of
from mmwave.convert import convert_file
from mmwave.errors import UserError
from mmwave.models.backbones.repmlpnet import ARCHS, RepMLPNetArch
from tests import parity
from tests.contracts import ROOT, randomise_norms, relative_error

from .ours import logits_of, model_of, recognised
from .published import (
    PADDLE_TABLE,
    mindcv_name,
    mindspore_entry,
    mindspore_names,
    mmpretrain_name,
    paddle_names,
    repmlpnet,
    write_mindspore,
    write_paddle,
    write_paddle_training,
)
from .published import REPMLPNET_TINY as TINY

GOLDENS = json.loads((ROOT / 'tests' / 'data' / 'repmlpnet-formats.json').read_text())
SIZES = ('depths', 'dims', 'windows', 'share_sets')
TANH = {'type': 'GELU', 'approximate': 'tanh'}


def published_file(path, **changes):
    """The authors' file for the tiny sizes; what is written."""
    state = parity.state_dict(repmlpnet(**{**TINY, **changes}).items())
    torch.save(state, path)
    return state


# -- Files of other frameworks -------------------------------------------------------------------


def golden_shapes(key):
    return repmlpnet(**{size: GOLDENS[key][size] for size in SIZES})


def mindspore_entries(key):
    """mindcv's names, and tensors drawn from the names they would have in torch."""
    shapes = golden_shapes(key)
    names = mindspore_names(map(mindcv_name, shapes))
    tensors = {
        names[n]: parity.weight(n, shapes[k]) for k in shapes if (n := mindcv_name(k)) in names
    }
    never_used = {'conv2d.weight': tensors['conv_embedding.conv.conv.weight'] + 1}
    return [mindspore_entry(name, tensor) for name, tensor in {**tensors, **never_used}.items()]


def mindspore_file(path):
    write_mindspore(path, mindspore_entries('mindspore'))


def mindspore_training_file(path):
    entries = mindspore_entries('mindspore-training')
    moments = [(f'moments.{name}', *rest) for name, *rest in entries if 'moving' not in name]
    scalars = ('global_step', 'learning_rate', 'momentum', 'epoch_num', 'step_num', 'best_acc')
    counts = [(name, 'Float32', (), np.float32(0.5).tobytes()) for name in scalars]
    text = ('task', 'str', (0,), 'imagenet'.encode('utf-32-le'))
    write_mindspore(path, [*entries, *counts, *moments, text])


def paddle_state():
    shapes = golden_shapes('paddle')
    shapes['head.weight'] = shapes['head.weight'][::-1]
    return {name: parity.weight(k, shapes[k]) for k, name in paddle_names(shapes).items()}


def paddle_file(path):
    write_paddle(path, paddle_state())


def paddle_training_file(path):
    state = paddle_state()
    raw = {name: tensor * 1.01 for name, tensor in state.items()}
    write_paddle_training(path, model=raw, model_ema=state)


# MindSpore computed its goldens in float32: measured 5.7e-7 of the largest logit. Paddle keeps the
# epsilon of its norms in float32: measured 1.4e-12.
@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
@pytest.mark.parametrize(
    ('key', 'write', 'tolerance'),
    [
        ('paddle', paddle_file, 3e-12),
        ('paddle', paddle_training_file, 3e-12),
        ('mindspore', mindspore_file, 1e-6),
        ('mindspore-training', mindspore_training_file, 1e-6),
    ],
)
def test_converted_model_computes_what_the_published_one_does(
    tmp_path, key, write, tolerance, suffix
):
    write(tmp_path / 'source')
    convert_file(tmp_path / 'source', tmp_path / f'converted{suffix}')
    converted = read_checkpoint(tmp_path / f'converted{suffix}')
    wanted = torch.tensor(GOLDENS[key]['logits'], dtype=torch.float64)
    got = logits_of(converted, parity.image(GOLDENS[key]['input']))
    assert relative_error(got, wanted) <= tolerance


def test_mindspore_needs_its_own_gelu(tmp_path):
    mindspore_file(tmp_path / 'source')
    report = convert_file(tmp_path / 'source', tmp_path / 'converted.pth')
    assert report.backbone['act_cfg'] == TANH
    converted = read_checkpoint(tmp_path / 'converted.pth')
    del converted['meta']['backbone']['act_cfg']
    wanted = torch.tensor(GOLDENS['mindspore']['logits'], dtype=torch.float64)
    got = logits_of(converted, parity.image(GOLDENS['mindspore']['input']))
    assert relative_error(got, wanted) > 1e-4


def test_what_mindspore_files_hold_besides_is_dropped_with_a_reason(tmp_path):
    mindspore_training_file(tmp_path / 'source')
    report = convert_file(tmp_path / 'source', tmp_path / 'converted.pth')
    dropped = {name: reason for reason, names in report.dropped.items() for name in names}
    assert 'never uses' in dropped.pop('conv2d.weight')
    assert 'training run' in dropped['moments.conv2d.weight']
    assert {'global_step', 'learning_rate', 'momentum', 'best_acc', 'epoch_num'} <= set(dropped)
    assert len(set(dropped.values())) == 1
    assert report.notes == ("skipped the text 'task'",)
    ((reason, counters),) = report.filled.items()
    assert reason == 'MindSpore counts no batches'
    assert report.written == report.read - len(dropped) - 1 + len(counters)


def test_what_paddle_files_hold_besides_is_dropped_with_a_reason(tmp_path):
    paddle_file(tmp_path / 'source')
    report = convert_file(tmp_path / 'source', tmp_path / 'converted.pth')
    (note,) = report.notes
    assert note.startswith(f'dropped {PADDLE_TABLE!r}: ')
    ((reason, counters),) = report.filled.items()
    assert reason == 'Paddle counts no batches'
    assert report.written == report.read + len(counters)
    assert 'act_cfg' not in report.backbone


def test_linear_weights_of_paddle_are_transposed(tmp_path):
    state = paddle_state()
    # Square, so that no shape would show it.
    state['head.weight'], state['head.bias'] = torch.arange(576.0).reshape(24, 24), torch.ones(24)
    write_paddle(tmp_path / 'source', state)
    convert_file(tmp_path / 'source', tmp_path / 'converted.pth')
    converted = read_checkpoint(tmp_path / 'converted.pth')['state_dict']
    assert torch.equal(converted['head.fc.weight'], state['head.weight'].T)


@pytest.mark.parametrize(('ema', 'factor'), [(True, 1.0), (False, 1.01)])
def test_averaged_or_raw_weights_of_paddle(tmp_path, ema, factor):
    paddle_training_file(tmp_path / 'source')
    report = convert_file(tmp_path / 'source', tmp_path / 'converted.pth', ema=ema)
    assert report.meta['weights'] == ('ema' if ema else 'model')
    got = read_checkpoint(tmp_path / 'converted.pth')['state_dict']['head.fc.weight']
    assert torch.equal(got, (paddle_state()['head.weight'] * factor).T)


# -- The deploy form -----------------------------------------------------------------------------


def published_deploy_logits(state, x):
    """The release's deploy structure on one window, in torch's functions."""
    t = {name: tensor.double() for name, tensor in state.items()}

    def bn(x, name):
        leaves = (t[f'{name}.{k}'] for k in ('running_mean', 'running_var', 'weight', 'bias'))
        return F.batch_norm(x, *leaves, eps=1e-5)

    def conv(x, name, **options):
        return F.conv2d(x, t[f'{name}.weight'], t.get(f'{name}.bias'), **options)

    x = F.relu(bn(conv(x, 'conv_embedding.conv', stride=4), 'conv_embedding.bn'))
    for i, depth in enumerate(TINY['depths']):
        if i:
            x = F.relu(bn(conv(x, f'embeds.{i - 1}.conv', stride=2), f'embeds.{i - 1}.bn'))
        for block in (f'stages.{i}.{j}' for j in range(depth)):
            mixer, ffn = f'{block}.repmlp_block', f'{block}.ffn_block'
            z = bn(x, f'{block}.prebn1')
            squeezed = F.relu(conv(z.mean((2, 3), keepdim=True), f'{mixer}.gp.fc1'))
            factors = torch.sigmoid(conv(squeezed, f'{mixer}.gp.fc2'))
            sets, positions = TINY['share_sets'][i], TINY['windows'][i] ** 2
            rows = z.reshape(-1, sets * positions, 1, 1)
            x = x + conv(rows, f'{mixer}.fc3', groups=sets).reshape(x.shape) * factors
            hidden = bn(conv(bn(x, f'{block}.prebn2'), f'{ffn}.ffn_fc1.conv'), f'{ffn}.ffn_fc1.bn')
            x = x + bn(conv(F.gelu(hidden), f'{ffn}.ffn_fc2.conv'), f'{ffn}.ffn_fc2.bn')
    pooled = bn(x, 'head_norm').mean((2, 3))
    return F.linear(pooled, t['head.weight'], t['head.bias'])


# Measured 1.9e-15 and 1.2e-7: folded weights have the dtype of the file.
@pytest.mark.parametrize(('dtype', 'tolerance'), [(torch.float64, 1e-14), (torch.float32, 5e-7)])
@pytest.mark.parametrize(
    'rename', [lambda name: name, mmpretrain_name], ids=['authors', 'mmpretrain']
)
def test_deploy_files_become_our_deploy_form(tmp_path, dtype, tolerance, rename):
    state = parity.state_dict(repmlpnet(**TINY, deploy=True).items())
    generator = torch.Generator().manual_seed(0)
    for tensor in state.values():
        if tensor.ndim == 1:  # norms far from the identity, biases far from zero
            tensor += torch.rand(tensor.shape, generator=generator)
    state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}
    torch.save({rename(name): tensor for name, tensor in state.items()}, tmp_path / 'source')
    report = convert_file(tmp_path / 'source', tmp_path / 'converted.pth')
    converted = read_checkpoint(tmp_path / 'converted.pth')
    assert report.backbone['deploy'] is True
    # Loading is strict: names and shapes are those of the deploy form.
    x = parity.image((3, 3, 32, 32))
    got, wanted = logits_of(converted, x), published_deploy_logits(state, x.double())
    assert relative_error(got, wanted) <= tolerance
    floating = {v.dtype for v in converted['state_dict'].values() if v.is_floating_point()}
    assert floating == {dtype}
    assert report.notes[-1] == (
        f'folded {report.read} tensors into {report.written}, for inference'
    )


def test_deploy_files_of_paddle(tmp_path):
    shapes = repmlpnet(**TINY, deploy=True)
    shapes['head.weight'] = shapes['head.weight'][::-1]
    state = {n: parity.weight(k, shapes[k]) for k, n in paddle_names(shapes).items()}
    write_paddle(tmp_path / 'source', state)
    report = convert_file(tmp_path / 'source', tmp_path / 'converted.pth')
    state = {k: state[n] for k, n in paddle_names(shapes).items()}
    x = parity.image((1, 3, 32, 32))
    wanted = published_deploy_logits({**state, 'head.weight': state['head.weight'].T}, x.double())
    got = logits_of(read_checkpoint(tmp_path / 'converted.pth'), x)
    assert relative_error(got, wanted) <= 5e-7
    # Of the counters that were filled in, only those of norms that are left are written.
    ((_, counters),) = report.filled.items()
    assert counters == ['backbone.out_norms.3.num_batches_tracked']


# -- mmpretrain ----------------------------------------------------------------------------------


@pytest.mark.parametrize('deploy', [False, True])
@pytest.mark.parametrize('kernels', [(1, 3), (3,), None])
def test_mmpretrain_computes_the_same(tmp_path, deploy, kernels):
    backbones = pytest.importorskip('mmpretrain.models.backbones')
    torch.manual_seed(0)
    # Its global perceptron squeezes to multiples of 8 channels.
    arch = dict(channels=[32, 32, 64, 64], depths=[1, 2, 1, 1], sharesets_nums=[1, 2, 4, 8])
    theirs = backbones.RepMLPNet(arch, img_size=64, reparam_conv_kernels=kernels).eval()
    randomise_norms(theirs)
    if deploy:
        theirs.switch_to_deploy()
    theirs.double()
    state = {f'backbone.{name}': tensor for name, tensor in theirs.state_dict().items()}
    state |= {'head.fc.weight': torch.ones(5, 64), 'head.fc.bias': torch.zeros(5)}
    torch.save({'meta': {'mmpretrain_version': '1'}, 'state_dict': state}, tmp_path / 'source')
    report = convert_file(tmp_path / 'source', tmp_path / 'converted.pth')
    kept = {} if deploy or kernels == (1, 3) else {'kernels': list(kernels or ())}
    assert report.meta['backbone'] == {
        'type': 'mmwave.RepMLPNet',
        'arch': {
            'depths': [1, 2, 1, 1],
            'dims': [32, 32, 64, 64],
            'windows': [16, 8, 4, 2],
            'share_sets': [1, 2, 4, 8],
            **kept,
        },
        **({'deploy': True} if deploy else {}),
    }
    x = parity.image((2, 3, 64, 64)).double()
    converted = read_checkpoint(tmp_path / 'converted.pth')
    with torch.no_grad():
        (got,), (wanted,) = model_of(converted, out_indices=(3,))(x), theirs(x)
    assert relative_error(got, wanted) <= 1e-14
    assert torch.equal(converted['state_dict']['head.fc.weight'], torch.ones(5, 64))


# -- Which arch, and what a file must hold -------------------------------------------------------


def shapes_of(arch, **options):
    sizes = asdict(arch)
    return repmlpnet(**sizes, **options)


@pytest.mark.parametrize('name', ARCHS)
@pytest.mark.parametrize('classes', [1000, None])
def test_every_arch_is_recognised_and_filled(name, classes):
    _, target = recognised(shapes_of(ARCHS[name], classes=classes))
    assert target.arch == name
    assert target.backbone == {'type': 'mmwave.RepMLPNet', 'arch': name}
    assert target.fold is None
    assert target.expected.get('head.fc.bias') == (classes and (classes,))


@pytest.mark.parametrize('name', ARCHS)
def test_every_arch_is_recognised_in_deploy_form(name):
    _, target = recognised(shapes_of(ARCHS[name], deploy=True))
    assert target.backbone == {'type': 'mmwave.RepMLPNet', 'arch': name, 'deploy': True}
    assert target.fold is not None


@pytest.mark.parametrize(
    'changes',
    [
        {'depths': (1, 2, 1, 3)},
        {'kernels': ()},
        {'kernels': (1, 3, 5)},
        {'reduction': 2, 'mlp_ratio': 3},
        {'windows': (6, 3, 5, 2), 'share_sets': (2, 1, 1, 1)},
    ],
    ids=str,
)
def test_other_sizes(tmp_path, changes):
    published_file(tmp_path / 'a', **changes)
    report = convert_file(tmp_path / 'a', tmp_path / 'b.pth')
    assert report.meta['arch'] == 'custom'
    wanted = {k: list(v) if isinstance(v, tuple) else v for k, v in {**TINY, **changes}.items()}
    assert report.backbone['arch'] == wanted
    model = model_of(read_checkpoint(tmp_path / 'b.pth'), out_indices=(3,))
    windows = wanted.pop('windows')
    assert model.arch == RepMLPNetArch(**wanted, windows=[(w, w) for w in windows])


def test_image_channels(tmp_path):
    state = parity.state_dict(repmlpnet(**TINY).items())
    state['conv_embedding.conv.weight'] = torch.ones(8, 5, 4, 4)
    torch.save(state, tmp_path / 'a')
    report = convert_file(tmp_path / 'a', tmp_path / 'b.pth')
    assert report.backbone['in_channels'] == 5
    model_of(read_checkpoint(tmp_path / 'b.pth'), out_indices=(3,))


def without(*names):
    return lambda shapes: [shapes.pop(name) for name in names]


FC1 = 'stages.2.0.repmlp_block.gp.fc1.weight'
FC3 = 'stages.2.0.repmlp_block.fc3.weight'


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (without(FC3), f'no RepMLPNet: {FC3} is missing'),
        (lambda s: s.update({FC3: (16, 4)}), rf'{FC3} has shape \(16, 4\), expected 4 axes'),
        (lambda s: s.update({FC3: (15, 4, 1, 1)}), 'fc3 of stage 2: 15 is no multiple of 4'),
        (
            lambda s: s.update({FC3: (40, 10, 1, 1)}),
            'windows of stage 2: 10 positions are no square',
        ),
        (lambda s: s.update({FC1: (5, 16, 1, 1)}), r'gp\.fc1 of stage 2: 16 is no multiple of 5'),
        (lambda s: s.update({FC1: (8, 16, 1, 1)}), r'reduction \(4, 4, 2, 4\): expected one'),
        (
            lambda s: s.update({'stages.0.0.ffn_block.ffn_fc1.conv.weight': (9, 8, 1, 1)}),
            'hidden channels of stage 0: 9 is no multiple of 8',
        ),
    ],
)
def test_shapes_of_no_repmlpnet(change, message):
    shapes = repmlpnet(**TINY)
    change(shapes)
    with pytest.raises(UserError, match=message):
        recognised(shapes)


def test_windows_that_are_no_squares_name_their_stage():
    windows = ((16, 8), (8, 4), (4, 2), (2, 1))
    with pytest.raises(UserError, match='windows of stage 0: 128 positions'):
        recognised(repmlpnet(**TINY | {'windows': windows}))


@pytest.mark.parametrize('deploy', [False, True])
def test_tensors_too_many_or_too_few_are_listed_and_nothing_is_written(tmp_path, deploy):
    state = published_file(tmp_path / 'a', deploy=deploy)
    del state['stages.1.1.prebn1.bias'], state['head_norm.running_var']
    state |= {
        'extra': torch.ones(1),
        'stages.4.0.prebn1.weight': torch.ones(8),
        'stages.0.0.repmlp_block.repconv5.conv.bias': torch.ones(1),
        'stages.0.0.repmlp_block.gp.fc2.weight': torch.ones(8, 3, 1, 1),
        'stages.1.1.repmlp_block.fc3.weight': torch.ones(33, 16, 1, 1),
    }
    torch.save(state, tmp_path / 'a')
    before = os.listdir(tmp_path)
    with pytest.raises(ValueError, match='tensors do not fit') as caught:
        convert_file(tmp_path / 'a', tmp_path / 'b.pth')
    block = 'backbone.stages.0.0'
    for text in (
        'no rule for extra',
        'no rule for stages.4.0.prebn1.weight',
        'backbone.stages.1.1.norm1.bias is not filled',
        'backbone.out_norms.3.running_var is not filled',
        f'{block}.local_perceptron.5.conv.bias is not in the target',
        'stages.1.1.repmlp_block.fc3.weight of shape (33, 16, 1, 1): no group matrices',
        f'{block}.global_perceptron.fc2.weight has shape (8, 3), the target (8, 2)',
    ):
        assert text in str(caught.value)
    assert os.listdir(tmp_path) == before


def test_metadata(tmp_path):
    published_file(tmp_path / 'run.pth')
    report = convert_file(tmp_path / 'run.pth', tmp_path / 'a.safetensors')
    meta = read_checkpoint(tmp_path / 'a.safetensors')['meta']
    assert meta == report.meta
    assert meta['sha256'] == sha256_of(tmp_path / 'run.pth')
    assert {k: meta[k] for k in ('family', 'arch', 'framework', 'origin', 'licence')} == {
        'family': 'repmlpnet',
        'arch': 'custom',
        'framework': 'pytorch',
        'origin': 'DingXiaoH/RepMLP',
        'licence': 'MIT',
    }
    assert set(meta['backbone']['arch']) == set(SIZES)


@pytest.mark.parametrize('deploy', [False, True])
def test_a_file_that_is_ours_is_pointed_out(tmp_path, deploy):
    published_file(tmp_path / 'a', deploy=deploy)
    convert_file(tmp_path / 'a', tmp_path / 'b.pth')
    with pytest.raises(ValueError, match='converted already'):
        convert_file(tmp_path / 'b.pth', tmp_path / 'c.pth')


def test_the_tool_reports_what_it_did(tmp_path, tool):
    paddle_training_file(tmp_path / 'run.pdparams')
    code, output, errors = tool('run.pdparams', 'b.pth')
    assert (code, errors) == (0, '')
    for text in (
        'tensors of run.pdparams (paddle)',
        "used the averaged weights (EMA), entry 'model_ema'",
        'recognised repmlpnet custom by the names of BR-IDL/PaddleViT',
        ': Paddle counts no batches',
        "backbone=dict(type='mmwave.RepMLPNet', arch={'depths': [1, 1, 1, 1]",
    ):
        assert text in output
    published_file(tmp_path / 'deploy.pth', deploy=True)
    code, output, _ = tool('deploy.pth', 'c.pth')
    assert code == 0
    assert 'deploy=True' in output
    assert ', for inference' in output
