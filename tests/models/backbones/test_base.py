"""What all backbones share, beside what test_contract.py asks of each of them."""

import pytest
import torch
from torch import nn

from mmwave.deploy import to_deploy
from mmwave.models import MLPBackbone, RepMLPNet
from mmwave.models.backbones.base import BackboneSettings, drop_path_rates, init_linear
from mmwave.models.layers import PointwiseConv
from mmwave.structures import StageInfo
from tests.contracts import images, registered, relative_error
from tests.families import TINY


class Blocks(MLPBackbone):
    """A backbone of doubled maps, as small as can be."""

    archs = {'s': None}
    channels, strides = (3, 3), (1, 1)

    def __init__(self, arch='s', *, own=1, **settings):
        settings = {'out_indices': (0, 1), **settings}
        super().__init__(arch, channels=self.channels, strides=self.strides, **settings)
        self.own = own
        self.stem = nn.Conv2d(3, 3, 1)
        self.downsamples = nn.ModuleList([nn.Identity()])
        self.stages = nn.ModuleList(nn.Sequential(nn.Conv2d(3, 3, 1)) for _ in range(2))
        self.out_norms = nn.ModuleDict({str(i): nn.BatchNorm2d(3) for i in self.out_indices})
        self.finish()


def test_drop_path_grows_over_all_blocks():
    rates = drop_path_rates(0.3, (1, 0, 2, 1))
    assert [len(stage) for stage in rates] == [1, 0, 2, 1]
    assert [rate for stage in rates for rate in stage] == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert drop_path_rates(0.3, (0, 1)) == [[], [0.0]]
    for wrong in (1.0, -0.1):
        with pytest.raises(ValueError, match=f'drop_path_rate={wrong}'):
            drop_path_rates(wrong, (1,))


def test_linear_layers_alone_are_initialised():
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Linear(100, 100),
        nn.Conv2d(3, 3, 1),
        nn.Linear(100, 2, bias=False),
        PointwiseConv(99, 99),
    )
    before = layers[1].weight.clone()
    layers.apply(init_linear)
    for layer in (layers[0], layers[3]):
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert not layer.bias.any()
    assert torch.equal(layers[1].weight, before)


def test_arguments_are_named_the_familys_own_first():
    assert Blocks.arguments()[:2] == ('arch', 'own')
    assert set(Blocks.arguments()) == {'arch', 'own', *BackboneSettings.__annotations__}
    with pytest.raises(TypeError, match=r"'colour': expected one of arch, own, in_channels, out_"):
        Blocks(colour='red')


def test_a_backbone_of_two_stages():
    model = Blocks(out_indices=-1)
    assert model.stage_info == (StageInfo(3, 1),)
    assert (model.num_stages, model.num_blocks) == (2, 2)
    assert model.layer_depth('downsamples.0.weight') == (2, 4)
    x = images(2, 3, 32, 40)
    wanted = model.out_norms['1'](model.stages[1](model.stages[0](model.stem(x))))
    (got,) = model(x)
    assert relative_error(got, wanted) < 1e-6


def test_without_deploy_form():
    for deploy in (lambda: Blocks(deploy=True), lambda: to_deploy(Blocks())):
        with pytest.raises(ValueError, match='Blocks has no deploy form'):
            deploy()


def test_a_subclass_is_not_deployed_as_if_it_were_none():
    class Mine(RepMLPNet):
        pass

    with pytest.raises(ValueError, match='Mine needs a deploy_form of its own'):
        to_deploy(Mine(TINY['RepMLPNet']))


def test_every_family_has_named_archs_of_one_kind():
    for family in registered().values():
        assert len({type(arch) for arch in family.archs.values()}) == 1


def test_a_subclass_may_accept_arguments_of_its_own():
    class Mine(Blocks):
        def __init__(self, **settings):
            self.colour = settings.pop('colour', None)
            super().__init__(**settings)

    assert Mine(colour='red', own=2).own == 2
    with pytest.raises(TypeError, match=r"Mine got an .* 'lena': expected one of arch, own, in_c"):
        Mine(lena=True)


@pytest.mark.parametrize('name', ['channels', 'strides', 'size_constraint'])
def test_what_a_family_passes_on_is_no_argument_of_it(name):
    with pytest.raises(TypeError, match=f"'{name}': expected one of arch, own, in_channels"):
        Blocks(**{name: 3})
