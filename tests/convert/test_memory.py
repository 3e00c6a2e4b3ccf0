"""Published models in memory become ours; outputs are compared with timm's."""

import copy
from functools import partial

import pytest
import torch
from timm.layers import GatedMlp, GELUTanh, GluMlp
from timm.models.mlp_mixer import Affine, MlpMixer, ResBlock, SpatialGatingBlock
from torch import nn

from mmwave.convert import convert_model, published_names
from mmwave.errors import UserError
from mmwave.registry import MODELS
from tests import parity
from tests.contracts import images, relative_error

from .ours import model_of
from .published import TINY as WAVE_TINY
from .published import vip, wavemlp

SIZES = dict(num_classes=5, img_size=64, num_blocks=5, embed_dim=24)
MODELS_OF_TIMM = {
    'GMLP': dict(block_layer=SpatialGatingBlock, mlp_layer=GatedMlp, mlp_ratio=6),
    'ResMLP': dict(block_layer=ResBlock, norm_layer=Affine, mlp_ratio=4),
    'MLPMixer': {},
}
TANH = {'type': 'GELU', 'approximate': 'tanh'}


def timm_model(family, **options):
    """A tiny model of timm's in float64; weights that start near zero or one are no exception."""
    model = MlpMixer(**{**SIZES, **MODELS_OF_TIMM[family], **options}).double().eval()
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        about = 1 if name.endswith(('norm.weight', 'norm1.weight', 'norm2.weight', 'alpha')) else 0
        parameter.data = about + 0.3 * drawn
    return model


def ours_of(converted, **settings):
    model = MODELS.build({**converted.backbone, **settings}).double()
    model.load_state_dict(converted.weights, strict=True)
    return model


def logits_of(converted, model, x):
    pooled = model(x)[-1].mean(dim=(2, 3))
    return pooled @ converted.head['fc.weight'].T + converted.head['fc.bias']


# -- Against timm --------------------------------------------------------------------------------


# Measured 4.7e-16 for outputs and 1.7e-14 for gradients.
@pytest.mark.parametrize('act_layer', [nn.GELU, partial(nn.GELU, approximate='tanh'), GELUTanh])
@pytest.mark.parametrize('family', MODELS_OF_TIMM)
def test_outputs_and_gradients_are_those_of_timm(family, act_layer):
    theirs = timm_model(family, act_layer=act_layer)
    converted = convert_model(theirs)
    ours = ours_of(converted)
    assert converted.backbone['type'] == f'mmwave.{family}'
    assert converted.backbone.get('act_cfg') == (None if act_layer is nn.GELU else TANH)

    x, y = (images(2, 3, 64, 64).double().requires_grad_() for _ in range(2))
    wanted, got = theirs(x), logits_of(converted, ours, y)
    assert relative_error(got, wanted) <= 1e-14
    pull = images(*wanted.shape, seed=1).double()
    (wanted * pull).sum().backward()
    (got * pull).sum().backward()
    assert relative_error(y.grad, x.grad) <= 1e-13

    # The gradients go through the same renaming as the weights.
    gradients = copy.deepcopy(theirs)
    for name, parameter in gradients.named_parameters():
        parameter.data = theirs.get_parameter(name).grad
    expected = convert_model(gradients).weights
    largest = max(gradient.abs().max() for gradient in expected.values())
    for name, parameter in ours.named_parameters():
        # A bias equal in all channels has no effect before a norm: its gradient is zero.
        scale = max(expected[name].abs().max(), 1e-3 * largest)
        assert (parameter.grad - expected[name]).abs().max() <= 1e-13 * scale, name


def test_every_output_is_timms_map_after_the_same_blocks():
    theirs = timm_model('MLPMixer')
    ours = ours_of(convert_model(theirs))
    ours.out_norms = nn.ModuleDict({str(i): nn.Identity() for i in range(4)})
    ours.out_indices = (0, 1, 2, 3)
    x = images(1, 3, 64, 64).double()
    with torch.no_grad():
        wanted = theirs.forward_intermediates(x, indices=[0, 1, 2, 4], intermediates_only=True)
        got = ours(x)
    for one, two in zip(got, wanted, strict=True):
        assert relative_error(one, two) <= 1e-14


# 2 x 8 positions are as many as 4 x 4: by their number they would be a square.
@pytest.mark.parametrize('size', [(64, 96), (32, 128)])
@pytest.mark.parametrize('family', MODELS_OF_TIMM)
def test_grids_that_are_no_square(family, size):
    theirs = timm_model(family, img_size=size)
    converted = convert_model(theirs)
    height, width = (side // 16 for side in size)
    assert converted.backbone['arch']['grid'] == [height, width]
    x = images(1, 3, *size).double()
    with torch.no_grad():
        got = logits_of(converted, ours_of(converted, grid_mode='strict'), x)
        assert relative_error(got, theirs(x)) <= 1e-13


def test_grids_that_contradict_each_other():
    theirs = timm_model('GMLP')
    theirs.blocks[2].grid_size = (2, 8)
    with pytest.raises(ValueError, match=r'several grids: stem\.grid_size \(4, 4\), blocks\.2'):
        convert_model(theirs)


@pytest.mark.parametrize('family', MODELS_OF_TIMM)
def test_configs_and_reports(family):
    theirs = timm_model(family, num_blocks=8, in_chans=1, num_classes=0)
    converted = convert_model(theirs)
    assert converted.backbone['in_channels'] == 1
    assert converted.backbone['arch']['depths'] == [2, 2, 2, 2]
    assert converted.backbone['out_indices'] == [3]
    assert converted.head == {}
    report = converted.report
    assert report.meta['source'] == 'timm.models.mlp_mixer.MlpMixer'
    assert report.meta['framework'] == 'pytorch'
    assert report.meta['origin'].startswith('huggingface/pytorch-image-models')
    assert report.meta['backbone'] == {
        k: v for k, v in converted.backbone.items() if k != 'out_indices'
    }
    assert report.read == report.written == len(theirs.state_dict())
    assert (report.dropped, report.filled, report.notes) == ({}, {}, ())


def test_named_archs():
    with torch.device('meta'):
        theirs = MlpMixer(num_blocks=12, embed_dim=768)
    converted = convert_model(theirs)
    assert converted.backbone['arch'] == 'b16'


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes_are_kept(dtype):
    converted = convert_model(timm_model('ResMLP').to(dtype))
    assert {t.dtype for t in (*converted.weights.values(), *converted.head.values())} == {dtype}


def test_nothing_of_the_model_changes():
    theirs = timm_model('GMLP', proj_drop_rate=0.1, drop_path_rate=0.1).train()
    before = copy.deepcopy(theirs.state_dict())
    convert_model(theirs)
    assert all(module.training for module in theirs.modules())
    assert all(torch.equal(before[k], v) for k, v in theirs.state_dict().items())


@pytest.mark.parametrize('family', MODELS_OF_TIMM)
def test_published_names_are_those_that_the_weights_came_from(family):
    theirs = timm_model(family, img_size=(64, 32), num_blocks=3)  # 8 positions, no square
    state, weights = theirs.state_dict(), convert_model(theirs).weights
    names = published_names(state)
    assert sorted(names.values()) == sorted(state)
    for ours, published in names.items():
        if ours.startswith('backbone.'):
            assert torch.equal(weights[ours.removeprefix('backbone.')], state[published].squeeze())
    with pytest.raises(UserError, match=r'no rule for stem\.norm\.weight'):
        published_names({**state, 'stem.norm.weight': torch.ones(1)})


# -- What no tensor shows -----------------------------------------------------------------------


@pytest.mark.parametrize('eps', [1e-6, 1e-5, 1e-3])
def test_the_epsilon_of_the_gate(eps):
    theirs = timm_model('GMLP')
    for block in theirs.blocks:
        block.mlp_channels.gate.norm.eps = eps
    converted = convert_model(theirs)
    assert converted.backbone['gate_norm_eps'] == eps
    x = images(1, 3, 64, 64).double()
    with torch.no_grad():
        got = logits_of(converted, ours_of(converted), x)
        assert relative_error(got, theirs(x)) <= 1e-13


def test_the_epsilon_of_the_gate_is_one_for_all_blocks():
    theirs = timm_model('GMLP')
    theirs.blocks[3].mlp_channels.gate.norm.eps = 1e-6
    with pytest.raises(ValueError, match=r'blocks\.3\.mlp_channels\.gate\.norm has an epsilon of'):
        convert_model(theirs)


@pytest.mark.parametrize('part', ['norm', 'blocks.2.norm1'])
def test_the_epsilon_of_the_mixer_is_one_for_all_norms(part):
    theirs = timm_model('MLPMixer')
    theirs.get_submodule(part).eps = 1e-5
    message = f'{part} has an epsilon of 1e-05, others like it of 1e-06: norm_eps is one for all'
    with pytest.raises(ValueError, match=message):
        convert_model(theirs)


@pytest.mark.parametrize('part', ['norm', 'blocks.2.norm'])
def test_other_epsilons_are_refused(part):
    theirs = timm_model('GMLP')
    theirs.get_submodule(part).eps = 1e-5
    with pytest.raises(ValueError, match=f'{part} has an epsilon of 1e-05: ours has 1e-06'):
        convert_model(theirs)


@pytest.mark.parametrize('act', [nn.SiLU, nn.ReLU, nn.Hardswish, partial(nn.GLU, dim=1)])
@pytest.mark.parametrize('family', MODELS_OF_TIMM)
def test_other_activations_are_refused_by_name(family, act):
    theirs = timm_model(family)
    theirs.blocks[1].mlp_channels.act = act()
    with pytest.raises(ValueError, match=r'blocks\.1\.mlp_channels\.act, a \w+, '):
        convert_model(theirs)


def test_activations_must_be_of_one_kind():
    theirs = timm_model('MLPMixer')
    theirs.blocks[0].mlp_tokens.act = nn.GELU('tanh')
    with pytest.raises(ValueError, match='exact GELU, tanh GELU; ours are all of one kind'):
        convert_model(theirs)


def test_activations_are_recognised_by_their_outputs():
    class Act(nn.Module):
        def forward(self, x):
            return 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)))

    assert convert_model(timm_model('ResMLP', act_layer=Act)).backbone['act_cfg'] == TANH


def test_activations_are_recognised_where_patches_are_pixels():
    theirs = timm_model('MLPMixer', img_size=4, patch_size=1, act_layer=GELUTanh)
    assert convert_model(theirs).backbone['act_cfg'] == TANH


def test_missing_activations_are_noted():
    theirs = timm_model('ResMLP', act_layer=nn.Identity)
    assert convert_model(theirs).report.notes == (
        'found no activation to inspect, assumed the exact GELU',
    )


def test_other_layers_are_refused():
    class Norm(nn.Module):
        def __init__(self, dim):
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.ones(dim))

    theirs = timm_model('GMLP')
    theirs.blocks[4].norm = Norm(24)
    with pytest.raises(ValueError, match=r'blocks\.4\.norm is a Norm: expected a LayerNorm'):
        convert_model(theirs)


@pytest.mark.parametrize('options', [dict(stride=8), dict(padding=1), dict(dilation=2)], ids=str)
def test_patches_that_overlap_are_refused(options):
    theirs = timm_model('ResMLP')
    theirs.stem.proj = nn.Conv2d(3, 24, 16, **{'stride': 16, **options})
    with pytest.raises(ValueError, match=r'stem\.proj is a convolution of .* must not overlap'):
        convert_model(theirs)


def test_gated_mixers_are_refused():
    theirs = MlpMixer(**SIZES, mlp_ratio=(1.0, 4.0), mlp_layer=GluMlp, act_layer=nn.SiLU)
    with pytest.raises(ValueError, match=r'of no known family: .* gMixer'):
        convert_model(theirs)


def test_a_norm_in_the_stem_is_a_tensor_too_many():
    with pytest.raises(ValueError, match=r'no rule for stem\.norm\.weight'):
        convert_model(timm_model('MLPMixer', stem_norm=True))


def test_a_model_of_no_known_family():
    with pytest.raises(ValueError, match='of no known family: 2 tensors'):
        convert_model(nn.Linear(2, 2))


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        ('gmlp_s16_224', "'gmlp_s16_224' is a str: expected an nn.Module"),
        ({'stem.proj.weight': torch.ones(2)}, 'is a dict: expected an nn.Module'),
        (None, 'None is a NoneType'),
        (MlpMixer, 'is a type'),
    ],
)
def test_what_is_no_model(given, message):
    with pytest.raises(TypeError, match=message):
        convert_model(given)


# -- Wrapped models ------------------------------------------------------------------------------


@pytest.fixture
def process_group(tmp_path):
    store = torch.distributed.FileStore(str(tmp_path / 'store'), 1)
    torch.distributed.init_process_group('gloo', store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures('process_group')
@pytest.mark.parametrize(
    'wrap',
    [
        nn.DataParallel,
        nn.parallel.DistributedDataParallel,
        torch.compile,  # compiles when it is first called
        lambda model: torch.compile(nn.parallel.DistributedDataParallel(model)),
        lambda model: nn.DataParallel(torch.compile(model)),
    ],
    ids=['dp', 'ddp', 'compile', 'compile of ddp', 'dp of compile'],
)
def test_wrapped_models_are_the_models_in_them(wrap):
    theirs = timm_model('GMLP', act_layer=GELUTanh)
    wanted, got = convert_model(theirs), convert_model(wrap(theirs))
    assert got.report == wanted.report
    assert got.backbone == wanted.backbone
    assert got.weights.keys() == wanted.weights.keys()
    assert all(torch.equal(got.weights[k], v) for k, v in wanted.weights.items())


# -- Other models --------------------------------------------------------------------------------


def published_module(shapes):
    """A module with such tensors and no layers."""
    root = nn.Module()
    for name, tensor in parity.state_dict(shapes.items()).items():
        *path, leaf = name.split('.')
        part = root
        for step in path:
            if not hasattr(part, step):
                part.add_module(step, nn.Module())
            part = getattr(part, step)
        if tensor.is_floating_point() and 'running' not in leaf:
            part.register_parameter(leaf, nn.Parameter(tensor))
        else:
            part.register_buffer(leaf, tensor)
    return root


@pytest.mark.parametrize('eps', [1e-6, 1e-5])
def test_classifiers_of_mmpretrain(eps):
    backbones = pytest.importorskip('mmpretrain.models.backbones')
    sizes = dict(embed_dims=24, num_layers=2, tokens_mlp_dims=10, channels_mlp_dims=40)
    norm, act = dict(type='LN', eps=eps), dict(type='GELU', approximate='tanh')
    theirs = nn.Module()
    theirs.backbone = backbones.MlpMixer(sizes, img_size=(64, 32), norm_cfg=norm, act_cfg=act)
    theirs.head = nn.Module()
    theirs.head.fc, theirs.head.loss_module = nn.Linear(24, 5), nn.CrossEntropyLoss()
    theirs.eval()
    theirs.double()
    converted = convert_model(theirs)
    assert converted.backbone['norm_eps'] == eps
    assert converted.backbone['act_cfg'] == TANH
    assert converted.backbone['arch']['grid'] == [4, 2]
    x = images(1, 3, 64, 32).double()
    with torch.no_grad():
        (got,), (wanted,) = ours_of(converted)(x), theirs.backbone(x)
    assert relative_error(got.flatten(2), wanted) <= 1e-14


def test_models_that_are_not_inspected_are_noted():
    theirs = published_module(wavemlp(**WAVE_TINY))
    converted = convert_model(theirs)
    assert converted.backbone['out_indices'] == [3]
    assert 'by its names alone' in converted.report.notes[0]
    ours_of(converted)
    dense = convert_model(published_module(wavemlp(**WAVE_TINY, classes=None)))
    assert dense.backbone['out_indices'] == [0, 1, 2, 3]
    ours_of(dense)


def vip_module(segments):
    """The authors' structure, as far as it is inspected; every block states its segments."""
    sizes = dict(depths=(1, 1, 1, 1), dims=(8, 16, 16, 16), patch_size=28, grids=(8, 4, 4, 4))
    root = published_module(vip(**sizes))
    for name, part in list(root.named_modules()):
        weight, bias = getattr(part, 'weight', None), getattr(part, 'bias', None)
        if weight is None:
            continue
        if weight.ndim == 4:
            layer = nn.Conv2d(*weight.shape[1::-1], weight.shape[2], weight.shape[2])
        elif weight.ndim == 2:
            layer = nn.Linear(*weight.shape[::-1], bias=bias is not None)
        else:
            layer = nn.LayerNorm(weight.shape)
        layer.load_state_dict(part.state_dict())
        root.set_submodule(name, layer)
    for block in (0, 2, 3, 4):
        stage = root.get_submodule(f'network.{block}.0')
        stage.mlp.act, stage.attn.segment_dim = nn.GELU(), segments[min(block, 1)]
    return root


def test_the_vision_permutator_states_its_image_size():
    theirs = vip_module((8, 4))
    converted = convert_model(theirs)
    assert converted.report.notes == ()
    ours = ours_of(converted)
    assert torch.equal(
        ours.stages[0][0].mixer.height.weight,
        theirs.get_parameter('network.0.0.attn.mlp_h.weight').double(),
    )
    with pytest.raises(ValueError, match=r'segment_dim \[4, 2\], where images .* have \[8, 4\]'):
        convert_model(vip_module((4, 2)))
    theirs.network.get_submodule('2.0').norm1.eps = 1e-6
    with pytest.raises(ValueError, match=r'network\.2\.0\.norm1 has an epsilon of 1e-06'):
        convert_model(theirs)


def test_converted_models_can_be_written(tmp_path):
    from mmwave.checkpoint import read_checkpoint, write_checkpoint

    converted = convert_model(timm_model('GMLP'))
    state = {f'backbone.{k}': v for k, v in converted.weights.items()}
    write_checkpoint(tmp_path / 'a.safetensors', state, converted.report.meta)
    model_of(read_checkpoint(tmp_path / 'a.safetensors'), out_indices=-1)
