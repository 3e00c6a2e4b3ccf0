"""How windows cover an image, and what of them it fills."""

import pytest

from mmwave.inspect.windows import window_filling

RES = dict(type='mmwave.ResMLP', arch=dict(depths=(1, 1, 2, 1), dim=24, grid=(4, 4), patch_size=16))


@pytest.mark.parametrize(
    ('size', 'share'),
    [((64, 64), 1), ((128, 64), 1), ((32, 64), 1 / 2), ((96, 65), 96 * 65 / (128 * 128))],
)
def test_the_rest_is_padding(size, share):
    assert window_filling(RES, size) == share


def test_without_windows():
    assert window_filling(dict(RES, grid_mode='resize'), (64, 64)) is None
    wave = dict(type='mmwave.WaveMLP', arch=dict(depths=[1] * 4, dims=[8] * 4, norm='BN'))
    assert window_filling(wave, (64, 64)) is None


def test_of_several_stages_the_least(monkeypatch):
    arch = dict(depths=[1] * 4, dims=[8] * 4, windows=[4, 4, 4, 2], groups=[1] * 4)
    pos = dict(type='mmwave.PosMLP', arch=arch)
    # Windows of 16, 32, 64 and 64 pixels.
    assert window_filling(pos, (48, 48)) == 48 * 48 / 64**2
