"""Wave-MLP's published files become the models that mmwave builds."""

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace

import pytest
import torch

import mmwave
from mmwave.checkpoint import read_checkpoint, sha256_of
from mmwave.convert import convert_file, identify
from mmwave.errors import UserError
from mmwave.models.backbones.wavemlp import ARCHS
from tests import parity
from tests.contracts import ROOT

from .ours import logits_of, model_of, recognised
from .published import TINY, mindspore_entry, mindspore_names, wavemlp, write_mindspore

TOOL = ROOT / 'tools' / 'convert_checkpoint.py'
GOLDENS = json.loads((ROOT / 'tests' / 'data' / 'wavemlp-formats.json').read_text())


def golden_state(key):
    golden = GOLDENS[key]
    sizes = {**TINY, 'dims': golden['dims'], 'phase': golden['phase']}
    return parity.state_dict(wavemlp(**sizes).items())


def timm_file(path):
    """A checkpoint as timm's saver writes it, the averaged weights being the golden's."""
    ema = {f'module.{name}': tensor for name, tensor in golden_state('timm').items()}
    raw = {name: tensor if tensor.ndim == 0 else tensor * 1.01 for name, tensor in ema.items()}
    checkpoint = {'epoch': 3, 'arch': 'WaveMLP_T_dw', 'state_dict': raw, 'state_dict_ema': ema}
    torch.save({**checkpoint, 'args': argparse.Namespace(model='WaveMLP_T_dw')}, path)


def mindspore_file(path):
    state = golden_state('mindspore')
    names = mindspore_names(state)
    write_mindspore(path, [mindspore_entry(names[k], state[k]) for k in state if k in names])


# MindSpore computed its golden in float32: measured 4.7e-7 of the largest logit.
@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
@pytest.mark.parametrize(
    ('key', 'write', 'tolerance'),
    [('timm', timm_file, 1e-12), ('mindspore', mindspore_file, 1e-6)],
)
def test_converted_model_computes_what_the_published_one_does(
    tmp_path, key, write, tolerance, suffix
):
    write(tmp_path / 'source')
    convert_file(tmp_path / 'source', tmp_path / f'converted{suffix}')
    converted = read_checkpoint(tmp_path / f'converted{suffix}')
    wanted = torch.tensor(GOLDENS[key]['logits'], dtype=torch.float64)
    got = logits_of(converted, parity.image(GOLDENS[key]['input']))
    assert (got - wanted).abs().max() <= tolerance * wanted.abs().max()


def test_mindspore_needs_its_own_gelu(tmp_path):
    mindspore_file(tmp_path / 'source')
    report = convert_file(tmp_path / 'source', tmp_path / 'converted.pth')
    assert report.backbone['act_cfg'] == {'type': 'GELU', 'approximate': 'tanh'}
    counters = [name for names in report.filled.values() for name in names]
    assert len(counters) == 21
    assert all(name.endswith('num_batches_tracked') for name in counters)
    converted = read_checkpoint(tmp_path / 'converted.pth')
    del converted['meta']['backbone']['act_cfg']
    wanted = torch.tensor(GOLDENS['mindspore']['logits'], dtype=torch.float64)
    got = logits_of(converted, parity.image(GOLDENS['mindspore']['input']))
    assert (got - wanted).abs().max() > 1e-4 * wanted.abs().max()


@pytest.mark.parametrize(('ema', 'factor'), [(True, 1.0), (False, 1.01)])
def test_averaged_or_raw_weights(tmp_path, ema, factor):
    timm_file(tmp_path / 'source')
    report = convert_file(tmp_path / 'source', tmp_path / 'converted.pth', ema=ema)
    assert report.meta['weights'] == ('ema' if ema else 'model')
    got = read_checkpoint(tmp_path / 'converted.pth')['state_dict']['head.fc.weight']
    assert torch.equal(got, parity.weight('head.weight', got.shape) * factor)


@pytest.mark.parametrize('weights', ['model', 'ema'])
def test_the_release_says_which_weights_are_published(tmp_path, monkeypatch, weights):
    def published(*args):
        family, release = identify(*args)
        return family, replace(release, weights=weights)

    monkeypatch.setattr('mmwave.convert.api.identify', published)
    timm_file(tmp_path / 'source')
    for ema, wanted in ((None, weights), (True, 'ema'), (False, 'model')):
        report = convert_file(tmp_path / 'source', tmp_path / 'converted.pth', ema=ema)
        assert report.meta['weights'] == wanted
        verb = 'used' if wanted == 'ema' else 'skipped'
        note = f"{verb} the averaged weights (EMA), entry 'state_dict_ema'"
        assert report.notes == (note,)


def test_metadata(tmp_path):
    timm_file(tmp_path / 'run.pth.tar')
    report = convert_file(tmp_path / 'run.pth.tar', tmp_path / 'a.pth')
    arch = {'depths': [1] * 4, 'dims': [8, 12, 16, 20], 'phase': 'dw', 'norm': 'BN'}
    backbone = {'type': 'mmwave.WaveMLP', 'arch': arch}
    assert report.backbone == backbone | {'out_indices': [3]}
    assert read_checkpoint(tmp_path / 'a.pth')['meta'] == {
        'source': 'run.pth.tar',
        'sha256': sha256_of(tmp_path / 'run.pth.tar'),
        'family': 'wavemlp',
        'arch': 'custom',
        'framework': 'pytorch',
        'weights': 'ema',
        'origin': 'huawei-noah/Efficient-AI-Backbones wavemlp_pytorch',
        'licence': 'Apache-2.0',
        'mmwave_version': mmwave.__version__,
        'backbone': backbone,
    }
    convert_file(tmp_path / 'run.pth.tar', tmp_path / 'a.safetensors')
    assert read_checkpoint(tmp_path / 'a.safetensors')['meta'] == report.meta


def shapes_of(arch, **kwargs):
    return wavemlp(**asdict(arch), **kwargs)


@pytest.mark.parametrize('name', ARCHS)
@pytest.mark.parametrize(('classes', 'levels'), [(1000, (3,)), (None, (0, 1, 2, 3))])
def test_every_arch_is_recognised_and_filled(name, classes, levels):
    _, target = recognised(shapes_of(ARCHS[name], classes=classes))
    assert target.arch == name
    assert target.backbone == {'type': 'mmwave.WaveMLP', 'arch': name}
    for i in range(4):
        assert (f'backbone.out_norms.{i}.weight' in target.expected) == (i in levels)
    assert target.expected.get('head.fc.bias') == (classes and (classes,))


def test_recognises_other_sizes_and_image_channels():
    shapes = wavemlp(depths=(1, 2, 1, 1), dims=(8, 8, 8, 8), mlp_ratios=(2, 3, 4, 1), norm='GN')
    shapes['patch_embed.proj.weight'] = (8, 5, 7, 7)
    _, target = recognised(shapes)
    assert target.arch == 'custom'
    config = target.backbone
    assert config['in_channels'] == 5
    assert config['arch']['depths'] == [1, 2, 1, 1]
    assert config['arch']['mlp_ratios'] == [2, 3, 4, 1]
    assert 'norm' not in config['arch']  # the default


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda s: s.pop('network.4.0.mlp.fc1.weight'), r'no Wave-MLP: network\.4\.0.* is missing'),
        (
            lambda s: s.update({'network.0.0.mlp.fc1.weight': (33, 8, 1, 1)}),
            'stage 0: 33 is no multiple of 8',
        ),
        (
            lambda s: s.update({'patch_embed.proj.weight': (8,)}),
            r'proj\.weight .*\(8,\), expected 4',
        ),
    ],
)
def test_shapes_of_no_wavemlp(change, message):
    shapes = wavemlp(**TINY)
    change(shapes)
    with pytest.raises(UserError, match=message):
        recognised(shapes)


def dense_file(path, without=(), **more):
    names = wavemlp(**TINY, classes=None).items()
    state = parity.state_dict((k, v) for k, v in names if not k.startswith(tuple(without)))
    torch.save({**state, **more}, path)


@pytest.mark.parametrize(('without', 'levels'), [((), (0, 1, 2, 3)), (('norm0.',), (1, 2, 3))])
def test_dense_files_carry_their_output_norms(tmp_path, without, levels):
    dense_file(tmp_path / 'a', without)
    convert_file(tmp_path / 'a', tmp_path / 'b.pth')
    converted = read_checkpoint(tmp_path / 'b.pth')
    assert all(name.startswith('backbone.') for name in converted['state_dict'])
    model = model_of(converted, out_indices=levels)
    for level in levels:
        published = parity.weight(f'norm{2 * level}.weight', (TINY['dims'][level],))
        assert torch.equal(model.out_norms[str(level)].weight, published.double())


def test_counters_of_thop_are_dropped_with_a_reason(tmp_path):
    count = torch.zeros(1, dtype=torch.float64)
    residue = {'total_ops': count, 'network.0.0.attn.fc_h.total_params': count}
    dense_file(tmp_path / 'a', **residue)
    report = convert_file(tmp_path / 'a', tmp_path / 'b.pth')
    assert len(report.dropped) == 1
    ((reason, names),) = report.dropped.items()
    assert 'thop' in reason
    assert names == list(residue)
    assert report.read == report.written + 2
    model_of(read_checkpoint(tmp_path / 'b.pth'))


def test_a_tensor_too_many_or_too_few_stops_and_leaves_nothing(tmp_path):
    dense_file(tmp_path / 'a', without=('network.2.0.norm1.bias',), extra=torch.ones(1))
    before = os.listdir(tmp_path)
    with pytest.raises(ValueError, match='2 tensors do not fit') as caught:
        convert_file(tmp_path / 'a', tmp_path / 'b.pth')
    assert 'no rule for extra' in str(caught.value)
    assert 'backbone.stages.1.0.norm1.bias is not filled' in str(caught.value)
    assert os.listdir(tmp_path) == before


def test_target_is_checked_before_anything_is_read(tmp_path):
    with pytest.raises(ValueError, match=r'must end in \.pth or \.safetensors'):
        convert_file(tmp_path / 'nowhere', tmp_path / 'b.bin')
    with pytest.raises(FileNotFoundError, match='no folder'):
        convert_file(tmp_path / 'nowhere', tmp_path / 'nofolder' / 'b.pth')
    dense_file(tmp_path / 'a.pth')
    (tmp_path / 'link.pth').symlink_to('a.pth')
    with pytest.raises(ValueError, match='is the source itself'):
        convert_file(tmp_path / 'a.pth', tmp_path / 'link.pth')


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_writing_that_fails_leaves_the_old_file(tmp_path, monkeypatch, suffix):
    dense_file(tmp_path / 'a')
    target = tmp_path / f'b{suffix}'
    target.write_text('old')

    def fail(*args, **kwargs):
        raise OSError('no space left on device')

    with monkeypatch.context() as patch:
        patch.setattr('mmwave.checkpoint.writing.torch.save', fail)
        patch.setattr('mmwave.checkpoint.writing.save', fail)
        with pytest.raises(UserError, match='cannot be written: no space'):
            convert_file(tmp_path / 'a', target)
    assert target.read_text() == 'old'
    assert sorted(os.listdir(tmp_path)) == ['a', target.name]
    convert_file(tmp_path / 'a', target)
    assert sorted(os.listdir(tmp_path)) == ['a', target.name]
    assert target.stat().st_mode == (tmp_path / 'a').stat().st_mode


def test_only_the_tensors_are_written_not_the_storage_they_are_part_of(tmp_path):
    dense_file(tmp_path / 'a')
    convert_file(tmp_path / 'a', tmp_path / 'small.pth')
    state = torch.load(tmp_path / 'a', weights_only=True)
    flat = torch.zeros(1_000_000)
    flat[:8] = state['norm0.bias']
    torch.save({**state, 'norm0.bias': flat[:8]}, tmp_path / 'c')
    convert_file(tmp_path / 'c', tmp_path / 'd.pth')
    assert (tmp_path / 'd.pth').stat().st_size == (tmp_path / 'small.pth').stat().st_size


def test_the_tool_reports_what_it_did(tmp_path, tool):
    timm_file(tmp_path / 'run.pth.tar')
    code, output, errors = tool('run.pth.tar', 'b.safetensors')
    assert (code, errors) == (0, '')
    for text in (
        'read 183 tensors of run.pth.tar (pytorch)',
        sha256_of(tmp_path / 'run.pth.tar'),
        "used the averaged weights (EMA), entry 'state_dict_ema'",
        'recognised wavemlp custom',
        'wrote 183 tensors to b.safetensors',
        "backbone=dict(type='mmwave.WaveMLP', arch={'depths': [1, 1, 1, 1]",
    ):
        assert text in output
    assert read_checkpoint(tmp_path / 'b.safetensors')['meta']['weights'] == 'ema'
    for option, weights in (('--no-ema', 'model'), ('--ema', 'ema')):
        assert tool('run.pth.tar', 'c.pth', option)[0] == 0
        assert read_checkpoint(tmp_path / 'c.pth')['meta']['weights'] == weights


def test_the_tool_counts_what_was_dropped_and_filled(tmp_path, tool):
    dense_file(tmp_path / 'a', total_ops=torch.zeros(1))
    _, output, _ = tool('a', 'b.pth')
    assert "  dropped 1: counters that thop's" in output
    mindspore_file(tmp_path / 'c')
    _, output, _ = tool('c', 'd.pth')
    assert '  zeros for 21: MindSpore counts no batches' in output
    assert "act_cfg={'type': 'GELU', 'approximate': 'tanh'}" in output


def test_the_tool_ends_in_one_line(tmp_path, tool):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / 'payload_ran'),)

    dense_file(tmp_path / 'a', extra=torch.ones(1), extra2=torch.ones(1))
    torch.save({'state_dict': torch.load(tmp_path / 'a'), 'args': Evil()}, tmp_path / 'evil')
    for source, text in (
        ('a', 'no rule for extra; no rule for extra2'),
        ('nowhere', 'no checkpoint file nowhere'),
        ('evil', 'posix.mkdir'),
    ):
        code, output, errors = tool(source, 'b.pth')
        assert (code, output) == (2, '')
        assert errors.startswith('error: ')
        assert errors.count('\n') == 1
        assert text in errors
    assert not (tmp_path / 'payload_ran').exists()
    tool('evil', 'b.pth', '--trust-checkpoint')
    assert (tmp_path / 'payload_ran').exists()


def test_the_tool_shows_the_traceback_of_a_bug(tmp_path, tool, monkeypatch):
    def fail(*args, **kwargs):
        raise ValueError('a bug')

    dense_file(tmp_path / 'a')
    monkeypatch.setattr('mmwave.convert.api.apply', fail)
    with pytest.raises(ValueError, match='a bug'):
        tool('a', 'b.pth')


def test_the_tool_runs_from_anywhere(tmp_path):
    dense_file(tmp_path / 'a')
    command = [sys.executable, TOOL, 'a', 'b.bin']
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout) == (2, '')
    assert done.stderr == 'error: b.bin must end in .pth or .safetensors\n'
