"""Small archs of every backbone: one of each, and ones drawn at random."""

import random
from collections.abc import Callable

TINY = {
    'EAMLP': dict(depths=(1, 1, 1, 1), dim=16, heads=2, mlp_ratio=2, token_dim=8),
    'GMLP': dict(depths=(1, 0, 1, 1), dim=8, mlp_ratio=2, patch_size=8, grid=4),
    'MLPMixer': dict(
        depths=(1, 0, 1, 1), dim=8, token_mlp_dim=6, channel_mlp_dim=12, patch_size=8, grid=4
    ),
    'PosMLP': dict(
        depths=(1, 1, 1, 1),
        dims=(4, 8, 8, 16),
        mlp_ratios=(2, 2, 2, 2),
        windows=(4, (4, 3), 2, 2),
        groups=(2, 2, 4, 4),
    ),
    'RepMLPNet': dict(
        depths=(1, 1, 1, 1), dims=(8, 8, 12, 16), windows=(8, 4, 2, 1), share_sets=(1, 2, 4, 8)
    ),
    'ResMLP': dict(depths=(1, 0, 1, 1), dim=8, mlp_ratio=2, patch_size=8, grid=4, scale_init=0.5),
    'ViP': dict(depths=(1, 1, 1, 1), dims=(16,) * 4, patch_size=8, grids=(4, 4, 2, 2)),
    'WaveMLP': dict(depths=(1, 1, 1, 1), dims=(8, 12, 16, 20), mlp_ratios=(2, 2, 1, 2), norm='BN'),
}
"""Backbone -> fields of an arch; images of 32 x 32 and more have several windows of its grid."""


def drawn(name: str, draw: random.Random) -> dict:
    """Fields of an arch of the backbone ``name``, whatever the family allows, and small."""
    arch = _DRAWN[name](draw)
    if 'depths' not in arch:
        arch['depths'] = tuple(draw.randint(1, 2) for _ in range(4))
    return arch


def _plain(draw: random.Random, **fields: object) -> dict:
    depths = [draw.randint(0, 2) for _ in range(4)]
    depths[draw.randrange(4)] = 1
    grid = draw.randint(1, 5), draw.randint(1, 5)
    return dict(depths=tuple(depths), patch_size=draw.choice((4, 7, 8, 16)), grid=grid, **fields)


def _eamlp(draw: random.Random) -> dict:
    heads = draw.randint(1, 4)
    return dict(
        depths=(1, 1, draw.randint(1, 2), draw.randint(1, 2)),
        dim=2 * heads * draw.randint(1, 6),
        heads=heads,
        mlp_ratio=draw.randint(1, 4),
        token_dim=draw.randint(1, 16),
    )


def _posmlp(draw: random.Random) -> dict:
    groups = [draw.choice((1, 2, 4)) for _ in range(4)]
    first = 4 * draw.randint(1, 3)
    return dict(
        dims=(first, first * draw.randint(1, 2), 2 * first, 2 * first * draw.randint(1, 2)),
        mlp_ratios=tuple(2 * draw.randint(1, 2) for _ in range(4)),
        windows=tuple((draw.randint(1, 6), draw.randint(1, 6)) for _ in range(4)),
        groups=tuple(groups),
    )


def _repmlpnet(draw: random.Random) -> dict:
    sets = [draw.choice((1, 2, 4)) for _ in range(4)]
    h, w = draw.randint(1, 3), draw.randint(1, 3)
    halved = tuple((h * 2**k, w * 2**k) for k in (3, 2, 1, 0))
    others = tuple((draw.randint(1, 7), draw.randint(1, 7)) for _ in range(4))
    return dict(
        dims=tuple(4 * s * draw.randint(1, 2) for s in sets),
        windows=draw.choice((halved, halved, others)),
        share_sets=tuple(sets),
        kernels=draw.choice(((), (1,), (1, 3), (3, 5))),
        reduction=draw.choice((1, 2, 4)),
        mlp_ratio=draw.randint(1, 4),
    )


def _vip(draw: random.Random) -> dict:
    h, w = draw.randint(1, 3), draw.randint(1, 3)
    step = 4 * h * w
    return dict(
        dims=(step, step * draw.randint(1, 2), 2 * step, 2 * step),
        patch_size=draw.choice((4, 7)),
        grids=((4 * h, 4 * w), (2 * h, 2 * w), (h, w), (h, w)),
        mlp_ratio=draw.randint(1, 3),
    )


def _wavemlp(draw: random.Random) -> dict:
    return dict(
        dims=tuple(4 * draw.randint(1, 9) for _ in range(4)),
        mlp_ratios=tuple(draw.randint(1, 4) for _ in range(4)),
        phase=draw.choice(('fc', 'dw')),
        norm=draw.choice(('BN', 'GN')),
        stem_norm=draw.random() < 0.5,
    )


_DRAWN: dict[str, Callable[[random.Random], dict]] = {
    'EAMLP': _eamlp,
    'GMLP': lambda draw: _plain(draw, dim=2 * draw.randint(1, 9), mlp_ratio=draw.randint(1, 4)),
    'MLPMixer': lambda draw: _plain(
        draw,
        dim=draw.randint(2, 17),
        token_mlp_dim=draw.randint(2, 17),
        channel_mlp_dim=draw.randint(1, 40),
    ),
    'PosMLP': _posmlp,
    'RepMLPNet': _repmlpnet,
    'ResMLP': lambda draw: _plain(
        draw, dim=draw.randint(2, 17), mlp_ratio=draw.randint(1, 4), scale_init=0.5
    ),
    'ViP': _vip,
    'WaveMLP': _wavemlp,
}
