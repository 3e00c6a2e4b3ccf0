"""EAMLP's published files become the models that mmwave builds."""

import json
from collections.abc import Iterator
from dataclasses import asdict

import pytest
import torch

from mmwave.convert import eamlp, repmlpnet, wavemlp
from mmwave.convert.index import identify
from mmwave.errors import UserError
from mmwave.models.backbones.eamlp import ARCHS, EAMLP
from tests import parity
from tests.contracts import ROOT, relative_error

from .ours import converted, recognised

GOLDENS = json.loads((ROOT / 'tests' / 'data' / 'eamlp-goldens.json').read_text())
TINY = {'depth': 3, 'dim': 12, 'heads': 3, 'mlp_ratio': 2, 'token_dim': 6}
Named = tuple[str, tuple[int, ...]]


def published(
    *,
    depth: int,
    dim: int,
    heads: int,
    mlp_ratio: int,
    token_dim: int = 64,
    channels: int = 3,
    classes: int | None = 16,
    positions: int | None = None,
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the release; ``positions`` of its table, which real files have."""
    width = dim // heads

    def norm(name: str, c: int) -> Iterator[Named]:
        yield f'{name}.weight', (c,)
        yield f'{name}.bias', (c,)

    def linear(name: str, c: int, out: int, bias: bool = True) -> Iterator[Named]:
        yield f'{name}.weight', (out, c)
        if bias:
            yield f'{name}.bias', (out,)

    def names() -> Iterator[Named]:
        yield 'cls_token', (1, 1, dim)
        if positions:
            yield 'pos_embed', (1, positions, dim)
        for k, patch in ((1, channels * 49), (2, token_dim * 9)):
            part = f'tokens_to_token.attention{k}'
            yield from norm(f'{part}.norm1', patch)
            yield from linear(f'{part}.attn.q_linear', patch, token_dim)
            yield from linear(f'{part}.attn.linear_0', token_dim, 2 * token_dim, bias=False)
            yield from linear(f'{part}.attn.linear_1', 2 * token_dim, token_dim)
            yield from linear(f'{part}.attn.proj', token_dim, token_dim)
            yield from norm(f'{part}.norm2', token_dim)
            yield from linear(f'{part}.mlp.fc1', token_dim, token_dim)
            yield from linear(f'{part}.mlp.fc2', token_dim, token_dim)
        yield from linear('tokens_to_token.project', token_dim * 9, dim)
        for block in (f'blocks.{k}' for k in range(depth)):
            yield from norm(f'{block}.norm1', dim)
            yield from linear(f'{block}.attn.trans_dims', dim, 4 * dim)
            yield from linear(f'{block}.attn.linear_0', width, 64)
            yield from linear(f'{block}.attn.linear_1', 64, width)
            yield from linear(f'{block}.attn.proj', 4 * dim, dim)
            yield from norm(f'{block}.norm2', dim)
            yield from linear(f'{block}.mlp.fc1', dim, mlp_ratio * dim)
            yield from linear(f'{block}.mlp.fc2', mlp_ratio * dim, dim)
        yield from norm('norm', dim)
        if classes is not None:
            yield from linear('head', dim, classes)

    return dict(names())


def published_arch(name, **more):
    sizes = {k: v for k, v in asdict(ARCHS[name]).items() if k != 'depths'}
    return published(depth=sum(ARCHS[name].depths[2:]), **sizes, **more)


@pytest.mark.parametrize('case', GOLDENS)
def test_converted_model_computes_what_the_published_one_does(case):
    golden = GOLDENS[case]
    state = parity.state_dict(published_arch(golden['arch']).items())
    target, done = converted(state)
    assert target.backbone == {'type': 'mmwave.EAMLP', 'arch': golden['arch']}
    model = EAMLP(target.backbone['arch'], out_indices=(3,), out_type='cls_token').double().eval()
    own = {k.removeprefix('backbone.'): v for k, v in done.tensors.items() if 'head' not in k}
    model.load_state_dict(own, strict=True)
    with torch.no_grad():
        (token,) = model(parity.image(golden['input']).double())
    weight, bias = (done.tensors[f'head.fc.{x}'].double() for x in ('weight', 'bias'))
    wanted = torch.tensor(golden['logits'], dtype=torch.float64)
    assert relative_error(token @ weight.T + bias, wanted) < 1e-13


def test_every_block_goes_to_its_stage():
    """Five blocks: two in stage 2, three in stage 3."""
    state = parity.state_dict(published(**TINY | {'depth': 5}).items())
    _, done = converted(state)
    for number, place in enumerate(('2.0', '2.1', '3.0', '3.1', '3.2')):
        for theirs, ours in (('attn.linear_0', 'mixer.attention.keys'), ('mlp.fc2', 'mlp.fc2')):
            got = done.tensors[f'backbone.stages.{place}.{ours}.weight']
            assert got is state[f'blocks.{number}.{theirs}.weight']


@pytest.mark.parametrize('name', ARCHS)
@pytest.mark.parametrize('classes', [1000, None])
def test_every_arch_is_recognised_and_filled(name, classes):
    _, target = recognised(published_arch(name, classes=classes))
    assert target.arch == name
    assert target.backbone == {'type': 'mmwave.EAMLP', 'arch': name}
    assert target.expected.get('head.fc.bias') == (classes and (classes,))


def test_recognises_other_sizes_and_image_channels():
    _, target = recognised(published(**TINY, channels=5))
    assert target.arch == 'custom'
    assert target.backbone == {
        'type': 'mmwave.EAMLP',
        'arch': {'depths': [1, 1, 1, 2], 'dim': 12, 'heads': 3, 'mlp_ratio': 2, 'token_dim': 6},
        'in_channels': 5,
    }


def test_the_table_of_positions_is_dropped_with_a_reason():
    state = parity.state_dict(published(**TINY, positions=577).items())
    target, done = converted(state)
    assert set(done.tensors) == set(target.expected)
    ((reason, names),) = done.dropped.items()
    assert 'computes' in reason
    assert names == ['pos_embed']


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(depth=1), 'an EAMLP of 1 blocks: our two stages'),
        (
            {'blocks.0.attn.linear_1.bias': (5,)},
            'its heads: 12 is no multiple of 5',
        ),
        ({'blocks.0.mlp.fc1.bias': (25,)}, 'hidden .*: 25 is no multiple of 12'),
        (
            {'tokens_to_token.attention1.norm1.weight': (148,)},
            '148 is no multiple of 49',
        ),
        (
            {'tokens_to_token.attention1.norm2.weight': ()},
            r'attention1\.norm2\.weight has shape \(\), expected 1 axes',
        ),
        ({'blocks.0.norm1.weight': None}, r'no EAMLP: blocks\.0\.norm1\.weight is missing'),
    ],
)
def test_shapes_of_no_eamlp(change, message):
    shapes = published(**TINY | {k: v for k, v in change.items() if k in TINY})
    shapes |= {k: v for k, v in change.items() if k not in TINY}
    with pytest.raises(UserError, match=message):
        recognised({k: v for k, v in shapes.items() if v is not None})


def test_a_tensor_too_many_or_too_few_stops():
    state = parity.state_dict(published(**TINY).items())
    del state['blocks.2.attn.proj.bias']
    state['tokens_to_token.attention1.w'] = torch.ones(1)
    with pytest.raises(ValueError, match='2 tensors do not fit') as caught:
        converted(state)
    assert 'no rule for tokens_to_token.attention1.w' in str(caught.value)
    assert 'backbone.stages.3.1.mixer.proj.bias is not filled' in str(caught.value)


def test_is_distinguished_from_other_families():
    families = (wavemlp.FAMILY, repmlpnet.FAMILY, eamlp.FAMILY)
    names = set(published(**TINY, positions=197))
    family, release = identify(names, 'pytorch', families)
    assert family is eamlp.FAMILY
    assert release.origin == 'MenghaoGuo/EANet EAMLP'
    # T2T-ViT, which the release is built on, has other attentions.
    others = {n for n in names if 'linear_0' not in n and 'trans_dims' not in n}
    with pytest.raises(ValueError, match='of no known family'):
        identify(others, 'pytorch', families)
