"""Counts equal formulas written here from the paper's blocks, and the release's figures."""

import pytest
import torch

from mmwave.inspect.complexity import count_macs
from mmwave.models import RepMLPNet, WaveMLP
from mmwave.models.backbones.wavemlp import WaveMLPArch
from mmwave.zoo import complexity

DIMS, DEPTHS, RATIOS, CLASSES = (8, 12, 16, 20), (1, 2, 1, 1), (2, 3, 1, 4), 10
BACKBONE = f"""dict(
    type='mmwave.WaveMLP',
    arch=dict(depths={DEPTHS}, dims={DIMS}, mlp_ratios={RATIOS}, norm='BN'),
    out_indices=OUT,
)"""
CLASSIFIER = f"""
default_scope = 'mmpretrain'
model = dict(
    type='ImageClassifier',
    backbone={BACKBONE.replace('OUT', '(3,)')},
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes={CLASSES}, in_channels={DIMS[3]}),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8)]),
)
"""
SEGMENTOR = f"""
default_scope = 'mmseg'
model = dict(
    type='EncoderDecoder',
    backbone={BACKBONE.replace('OUT', '(0, 1, 2, 3)')},
    decode_head=dict(
        type='FCNHead', in_channels={DIMS[3]}, in_index=3, channels=6, num_convs=1,
        num_classes={CLASSES}, concat_input=False, norm_cfg=dict(type='BN'),
    ),
)
"""


def backbone_by_hand(height, width, outputs):
    """Parameters and MACs of the backbone from the paper's blocks, with BatchNorm and fc phases."""
    params, macs, before = 0, 0, 3
    for stage, (dim, depth, ratio) in enumerate(zip(DIMS, DEPTHS, RATIOS, strict=True)):
        kernel, stride, pad = (3, 2, 1) if stage else (7, 4, 2)
        height, width = ((side + 2 * pad - kernel) // stride + 1 for side in (height, width))
        at = height * width
        params += kernel**2 * before * dim + dim + 2 * dim  # convolution, its bias, its norm
        macs += at * kernel**2 * before * dim
        # Maps C -> C without bias: two amplitudes and the plain branch; with bias: two phases and
        # the projection.
        params += depth * (3 * dim**2 + 3 * (dim**2 + dim))
        macs += depth * at * 6 * dim**2
        # Two kernels of seven taps that read two stacked channels each.
        params += depth * 2 * 14 * dim
        macs += depth * at * 2 * 14 * dim
        # The blend, on one pooled position.
        params += depth * (dim * dim // 4 + dim // 4 + dim // 4 * 3 * dim + 3 * dim)
        macs += depth * (dim * dim // 4 + dim // 4 * 3 * dim)
        # The channel MLP.
        params += depth * (2 * ratio * dim**2 + ratio * dim + dim)
        macs += depth * at * 2 * ratio * dim**2
        params += depth * 4 * 2 * dim  # two norms, two in the phase estimators
        params += 2 * dim if stage in outputs else 0
        before = dim
    return params, macs


@pytest.fixture
def config(tmp_path):
    def write(text):
        path = tmp_path / 'some.py'
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize('size', [(224, 224), (96, 333)])
def test_classifier_is_counted_as_a_whole(config, size):
    params, macs = backbone_by_hand(*size, outputs=(3,))
    got = complexity(config(CLASSIFIER), size)
    assert got.params == params + DIMS[3] * CLASSES + CLASSES
    assert got.macs == macs + DIMS[3] * CLASSES
    assert got.counted == 'model'


@pytest.mark.parametrize('size', [(512, 512), (64, 100)])
def test_of_a_segmentor_all_parameters_and_the_macs_of_the_backbone_count(config, size):
    params, macs = backbone_by_hand(*size, outputs=(0, 1, 2, 3))
    head = 9 * DIMS[3] * 6 + 2 * 6 + 6 * CLASSES + CLASSES
    got = complexity(config(SEGMENTOR), size)
    assert (got.params, got.macs, got.counted) == (params + head, macs, 'backbone')


def test_other_image_channels_are_counted(config):
    text = CLASSIFIER.replace('out_indices', 'in_channels=5, out_indices')
    plain, five = (complexity(config(t), (64, 64)) for t in (CLASSIFIER, text))
    assert five.params - plain.params == 49 * 2 * DIMS[0]
    assert five.macs - plain.macs == 16 * 16 * 49 * 2 * DIMS[0]


@pytest.mark.parametrize('norm', ['BN', 'GN'])
def test_meta_device_counts_as_the_cpu_does(norm):
    arch = WaveMLPArch(depths=DEPTHS, dims=DIMS, mlp_ratios=RATIOS, norm=norm, phase='dw')
    model, image = WaveMLP(arch).eval(), torch.zeros(1, 3, 64, 96)
    on_cpu = count_macs(model, image)
    assert count_macs(model.to('meta'), image.to('meta')) == on_cpu > 0


def test_nothing_stays_on_the_meta_device_afterwards(config):
    complexity(config(CLASSIFIER), (64, 64))
    assert torch.empty(1).device.type == 'cpu'


def test_an_image_too_small_is_refused(config):
    with pytest.raises(ValueError, match='31'):
        complexity(config(CLASSIFIER), (31, 64))


# Counted on the published code itself: parameters in M, MACs in G.
RELEASE = {
    't-dw': (15.286, 2.1631),
    't': (17.193, 2.4615),
    's': (30.708, 4.5220),
    'm': (44.057, 7.8722),
    'b': (63.586, 10.2153),
}


@pytest.mark.parametrize('variant', RELEASE)
def test_counts_of_the_published_code(root, variant):
    got = complexity(root / f'configs/wavemlp/wavemlp-{variant}_in1k.py', (224, 224))
    assert (round(got.params / 1e6, 3), round(got.macs / 1e9, 4)) == RELEASE[variant]


# Parameters in M, counted on the published code itself, which has them by the variant's size.
REPMLPNET = {
    't224': 38.294,
    't256': 58.688,
    'b224': 68.243,
    'b256': 96.448,
    'd256': 86.888,
    'l256': 117.642,
}


@pytest.mark.parametrize('variant', REPMLPNET)
def test_parameters_of_the_published_repmlpnet(root, variant):
    size = int(variant[1:])
    got = complexity(root / f'configs/repmlpnet/repmlpnet-{variant}_in1k.py', (size, size))
    assert round(got.params / 1e6, 3) == REPMLPNET[variant]
    assert got.macs == repmlpnet_macs(RepMLPNet.archs[variant], size)


def repmlpnet_macs(arch, size):
    """MACs of a classifier in train form from the paper's blocks, on one window."""
    macs, before, kernel = 0, 3, 4
    for depth, dim in zip(arch.depths, arch.dims, strict=True):
        size //= kernel
        at = size**2
        macs += at * kernel**2 * before * dim
        # Two layers of the global perceptron; matrices; kernels of 1 and 9 taps; channel MLP.
        macs += depth * (dim * dim // 2 + dim * at**2 + dim * at * 10 + at * 8 * dim**2)
        before, kernel = dim, 2
    return macs + 1000 * before


# Counted on the published code itself: parameters in M, MACs in G with those of the norms.
PUBLISHED_CODE = {
    'posmlp-t': (20.926, 5.19),
    'posmlp-s': (36.816, 8.73),
    'posmlp-b': (81.98, 18.56),
    'vip-s14': (29.893, 6.87),
    'vip-s7': (25.115, 6.92),
    'vip-m7': (55.272, 16.33),
    'vip-l7': (87.785, 24.40),
    'gmlp-ti16': (5.867, 1.34),
    'gmlp-s16': (19.423, 4.42),
    'gmlp-b16': (73.075, 15.78),
    'resmlp-s12': (15.351, 3.01),
    'resmlp-s24': (30.021, 5.96),
    'resmlp-s36': (44.690, 8.91),
    'resmlp-b24': (129.138, 100.23),
    'mlp-mixer-s16': (18.528, 3.79),
    'mlp-mixer-b16': (59.880, 12.62),
    'mlp-mixer-l16': (208.196, 44.60),
    'eamlp-7': (6.24, 4.32),
    'eamlp-14': (29.877, 6.47),
    'eamlp-19': (54.559, 11.62),
    'eamlp-24': (89.457, 18.85),
}
# Its table of positions is a parameter there, and computed here: tokens x channels.
POSITIONS = {
    'eamlp-7': 577 * 256,
    'eamlp-14': 197 * 384,
    'eamlp-19': 197 * 448,
    'eamlp-24': 197 * 512,
}
# Its kernels are matrix products of five features of every offset there, which is counted.
OFFSETS = 5 * sum(
    depth * positions**2 * groups
    for depth, positions, groups in ((2, 196, 8), (2, 196, 16), (18, 196, 32), (2, 49, 64))
)


@pytest.mark.parametrize('name', PUBLISHED_CODE)
def test_counts_of_the_other_families(root, name):
    (config,) = root.glob(f'configs/*/{name}_in1k.py')
    side = 384 if name == 'eamlp-7' else 224
    got = complexity(config, (side, side))
    params, macs = PUBLISHED_CODE[name]
    digits = len(f'{params}'.partition('.')[2])
    assert round((got.params + POSITIONS.get(name, 0)) / 1e6, digits) == params
    counted = got.macs + (OFFSETS if name.startswith('posmlp') else 0)
    # Norms are 0.8 % at most (gmlp-ti16); MACs are written down with two digits behind the point.
    assert 0.991 < counted / 1e9 / macs < 1.002
