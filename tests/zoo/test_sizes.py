"""What ties a backbone to a size, and what other sizes cost, against formulas written here."""

import math

import pytest
import torch
from mmengine.registry import MODELS

from mmwave.apis import load_config
from mmwave.zoo import grid_facts, image_costs
from tests.contracts import ROOT

CLASSIFIER = """
default_scope = 'mmpretrain'
model = dict(type='ImageClassifier', backbone=dict(type='mmwave.{}', out_indices=(3,), {}))
"""
WAVE = 'arch=dict(depths=(1, 1, 1, 1), dims=(8, 8, 8, 8))'
RES = 'arch=dict(depths=(1, 1, 2, 1), dim=24, grid=(6, 4), patch_size=8)'


@pytest.fixture
def config(tmp_path):
    def write(kind, settings):
        path = tmp_path / 'some.py'
        path.write_text(CLASSIFIER.format(kind, settings))
        return path

    return write


def test_a_backbone_that_is_tied_to_no_size(config):
    facts = grid_facts(config('WaveMLP', WAVE))
    assert (facts.strides, facts.windows, facts.modes) == ((4, 8, 16, 32), (), ())


def test_a_grid_of_all_stages(config):
    facts = grid_facts(config('ResMLP', RES))
    assert facts.strides == (8, 8, 8, 8)
    assert facts.windows == ((48, 32),) * 4
    assert facts.modes == ('window', 'resize', 'strict')


@pytest.mark.parametrize(
    ('variant', 'strides', 'windows'),
    [
        ('repmlpnet-t256', (4, 8, 16, 32), (256,) * 4),
        ('vip-m7', (7, 7, 14, 14), (224,) * 4),
        ('posmlp-t', (4, 8, 16, 32), (56, 112, 224, 224)),
        ('resmlp-b24', (8, 8, 8, 8), (224,) * 4),
        ('eamlp-7', (4, 8, 16, 16), ()),
    ],
)
def test_strides_and_windows_of_published_variants(root, variant, strides, windows):
    (path,) = root.glob(f'configs/*/{variant}_in1k.py')
    facts = grid_facts(path)
    assert facts.strides == strides
    assert facts.windows == tuple((side, side) for side in windows)


FOLDERS = [metafile.parent for metafile in sorted(ROOT.glob('configs/*/metafile.yml'))]


@pytest.mark.parametrize('folder', FOLDERS, ids=lambda folder: folder.name)
def test_modes_are_those_that_the_backbone_accepts(folder):
    path = min(folder.glob('*_in1k.py'))
    modes = grid_facts(path).modes
    settings = load_config(str(path)).model.backbone
    assert modes[:1] in ((), ('window',))
    for mode in ('window', 'resize', 'strict'):
        with torch.device('meta'):
            if mode in modes:
                assert MODELS.build({**settings, 'grid_mode': mode}).grid_mode == mode
            else:
                with pytest.raises((TypeError, ValueError), match='grid_mode'):
                    MODELS.build({**settings, 'grid_mode': mode})


def res_macs(height, width, grid=(6, 4), resized=False):
    """Return the MACs of the backbone of RES for a map of height x width positions."""
    dim, tokens, at = 24, math.prod(grid), height * width
    block = at * 8 * dim**2
    if resized:
        # The height to the grid's and the width, the mixing, and both back in the same order.
        block += dim * (grid[0] * height * width + grid[0] * grid[1] * width) + dim * tokens**2
        block += dim * (height * grid[0] * grid[1] + height * width * grid[1])
    else:
        block += dim * (at // tokens) * tokens**2
    return at * 3 * 64 * dim + 5 * block


def test_costs_of_windows_and_of_resizing(config):
    """An image of 10 x 9 positions: 2 x 3 windows of 6 x 4."""
    trained, image = (48, 32), (80, 72)
    costs = image_costs(config('ResMLP', RES), trained, [image])
    assert list(costs) == ['window', 'resize']
    window, resize = (costs[mode][image] for mode in costs)
    assert window.macs == res_macs(12, 12)
    assert window.factor == pytest.approx(12 * 12 / (10 * 9))
    assert resize.macs == res_macs(10, 9, resized=True)
    assert resize.factor == pytest.approx(resize.macs / (res_macs(6, 4) * 90 / 24))


def test_at_sizes_that_windows_fill_they_cost_nothing(config):
    costs = image_costs(config('ResMLP', RES), (48, 32), [(96, 64), (48, 32)])
    assert [cost.factor for cost in costs['window'].values()] == [1.0, 1.0]
    assert costs['resize'][(48, 32)] == costs['window'][(48, 32)]


def test_costs_of_a_backbone_without_modes(config):
    costs = image_costs(config('WaveMLP', WAVE), (224, 224), [(448, 224)])
    assert list(costs) == ['']
    assert costs[''][(448, 224)].factor == pytest.approx(1, abs=1e-3)


@pytest.mark.slow
def test_all_variants_of_a_grid_cost_what_the_first_does(repository):
    """As the page says below the table of images: the default's factor, within a hundredth."""
    first = {}
    for entry in repository.entries:
        if entry.leaf.data != 'in1k' or entry.leaf.recipe:
            continue
        (costs, *_) = image_costs(entry.config, entry.leaf.size).values()
        factors = [cost.factor for cost in costs.values()]
        grid = (entry.leaf.family, repository.grid_facts(entry))
        wanted = first.setdefault(grid, factors)
        if entry.leaf.family == 'posmlp':
            assert all(own <= t for own, t in zip(factors, wanted, strict=True)), entry.name
        else:
            assert factors == pytest.approx(wanted, abs=0.01), entry.name
    assert {family for family, _ in first} == {e.leaf.family for e in repository.entries}


def test_other_image_channels_are_counted(config):
    plain, five = (
        image_costs(config('ResMLP', RES + more), (48, 32), [(48, 32)])['window'][(48, 32)].macs
        for more in ('', ', in_channels=5')
    )
    assert five - plain == 24 * 64 * 2 * 24
