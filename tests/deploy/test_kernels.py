"""Deploy forms with the kernels in C++ against the train form, and against themselves without."""

import copy

import pytest
import torch

from mmwave.deploy import to_deploy
from mmwave.ops import extension, use_backend
from tests.contracts import build, images, randomise_norms

WAVE = dict(depths=(1, 1, 1, 1), dims=(32, 32, 64, 96), mlp_ratios=(3, 2, 2, 1))
ARCHS = {
    'WaveMLP': {
        'BN': dict(WAVE, norm='BN'),
        'GN': dict(WAVE, norm='GN', stem_norm=False),
        'dw': dict(WAVE, norm='BN', phase='dw'),
    },
    'ViP': {
        'windows': dict(
            depths=(1, 1, 1, 1),
            dims=(32, 64, 64, 64),
            patch_size=4,
            grids=((8, 8), (4, 4), (4, 4), (4, 4)),
            mlp_ratio=2,
        )
    },
    'ResMLP': {'plain': dict(depths=(1, 2, 0, 1), dim=32, patch_size=8, grid=4, scale_init=1.0)},
    'GMLP': {'plain': dict(depths=(1, 2, 0, 1), dim=32, patch_size=8, grid=4)},
}
CASES = [pytest.param(f, a, id=f'{f}-{n}') for f, archs in ARCHS.items() for n, a in archs.items()]


@pytest.mark.parametrize(
    ('dtype', 'names'), [(torch.float32, ('torch', 'onednn')), (torch.bfloat16, ('cpp',))]
)
@torch.no_grad()
def test_requested_by_name_or_not(request, dtype, names):
    request.getfixturevalue('multiplying' if 'cpp' in names else 'kernels')
    model = to_deploy(build('WaveMLP', ARCHS['WaveMLP']['BN']).eval())[0].to(dtype)
    x = images(1, 3, 32, 32).to(dtype)
    wanted = model(x)
    for name in names:
        with use_backend(name):
            got = model(x)
        assert error(got, wanted) < 1e-5


@torch.no_grad()
def test_kernels_of_bfloat16_refuse_float32(kernels):
    model = to_deploy(build('WaveMLP', ARCHS['WaveMLP']['BN']).eval())[0]
    with use_backend('cpp'), pytest.raises(RuntimeError, match='supports bfloat16 on the CPU'):
        model(images(1, 3, 32, 32))


def error(got, wanted):
    pairs = zip(got, wanted, strict=True)
    return max(((a.double() - b).norm() / b.norm()).item() for a, b in pairs)


@pytest.mark.parametrize(('family', 'arch'), CASES)
@torch.no_grad()
def test_as_near_as_without_them(kernels, family, arch):
    torch.manual_seed(0)
    model = build(family, arch).eval()
    randomise_norms(model)
    x = images(2, 3, 64, 96)
    wanted = copy.deepcopy(model).double()(x.double())
    for dtype in (torch.float32, torch.bfloat16):
        deployed = to_deploy(model)[0].to(dtype)
        got = deployed(x.to(dtype))
        with extension.without_kernels():
            without = deployed(x.to(dtype))
        assert error(got, wanted) <= 1.5 * error(without, wanted)


@pytest.mark.parametrize(('family', 'arch'), CASES)
def test_nothing_that_others_hold_is_written_over(kernels, family, arch):
    torch.manual_seed(0)
    model = to_deploy(build(family, arch).eval())[0].bfloat16()
    x, seen = images(2, 3, 64, 96).bfloat16(), []
    before = x.clone()
    for stage in model.stages:
        for block in stage:
            block.register_forward_hook(lambda m, i, o: seen.append((o, o.clone())))
    with torch.no_grad():
        outputs = model(x)
        assert all(torch.equal(a, b) for a, b in zip(outputs, model(x), strict=True))
    assert torch.equal(x, before)
    assert len(seen) >= 6
    assert all(torch.equal(a, b) for a, b in seen)
