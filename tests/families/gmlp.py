import random

from tests.families.data import FamilyData, plain


def _drawn(draw: random.Random) -> dict:
    return plain(draw, dim=2 * draw.randint(1, 9), mlp_ratio=draw.randint(1, 4))


FAMILY = FamilyData(
    name='GMLP',
    smallest='ti16',
    tiny=dict(depths=(1, 0, 1, 1), dim=8, mlp_ratio=2, patch_size=8, grid=4),
    one_width=dict(depths=(1, 1, 1, 1), dim=16, mlp_ratio=2, grid=4),
    drawn=_drawn,
    grid_modes=('window', 'resize'),
    variants={'oblong': dict(grid=(4, 5))},
    window_of_64=dict(grid=8),
    held_ratio=1.699,
    recipes={
        '': dict(
            optimizer=('AdamW', 1e-3 * 2048 / 512, 0.1),
            amp=False,
            batch=(256, 2048),
            repeated=False,
            ema=[],
            augment=(2, 9, 0),
            crops=['bicubic'],
            evaluation=(256, 224, 'bicubic'),
        )
    },
    quick_leaves=('gmlp-s16_retinanet_1x_coco',),
)
