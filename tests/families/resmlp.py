import random

from tests.families.data import FamilyData, plain


def _drawn(draw: random.Random) -> dict:
    return plain(draw, dim=draw.randint(2, 17), mlp_ratio=draw.randint(1, 4), scale_init=0.5)


FAMILY = FamilyData(
    name='ResMLP',
    smallest='s12',
    tiny=dict(depths=(1, 0, 1, 1), dim=8, mlp_ratio=2, patch_size=8, grid=4, scale_init=0.5),
    one_width=dict(depths=(1, 1, 1, 1), dim=16, mlp_ratio=2, grid=4),
    drawn=_drawn,
    grid_modes=('window', 'resize'),
    drop_path_rates=lambda depth, rate: [rate] * depth,  # the release drops all alike
    variants={'oblong': dict(grid=(4, 5))},
    window_of_64=dict(grid=8),
    held_ratio=1.649,
    recipes={
        '': dict(
            optimizer=('Lamb', 5e-3, 0.2),
            eps=1e-6,
            amp=False,
            epochs=400,
            batch=(256, 2048),
            ema=[],
            crops=['bicubic'],
            drop_path=0.05,
        )
    },
    quick_leaves=('resmlp-s12_upernet_80k_cityscapes-512x1024',),
)
