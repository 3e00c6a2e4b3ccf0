import random

from tests.families.data import FamilyData


def _drawn(draw: random.Random) -> dict:
    h, w = draw.randint(1, 3), draw.randint(1, 3)
    step = 4 * h * w
    return dict(
        dims=(step, step * draw.randint(1, 2), 2 * step, 2 * step),
        patch_size=draw.choice((4, 7)),
        grids=((4 * h, 4 * w), (2 * h, 2 * w), (h, w), (h, w)),
        mlp_ratio=draw.randint(1, 3),
    )


FAMILY = FamilyData(
    name='ViP',
    smallest='s7',
    tiny=dict(depths=(1, 1, 1, 1), dims=(16,) * 4, patch_size=8, grids=(4, 4, 2, 2)),
    one_width=dict(depths=(1, 1, 1, 1), dims=(16,) * 4, patch_size=7, grids=(8, 4, 4, 4)),
    drawn=_drawn,
    grid_modes=('window', 'resize'),
    # An axis of 3, in segments that are copied by single values.
    variants={
        'oblong': dict(dims=(24, 36, 36, 36), patch_size=4, grids=((8, 12), (4, 6), (4, 6), (2, 3)))
    },
    window_of_64=dict(grids=(8, 8, 4, 4)),
    held_ratio=1.83,
    recipes={
        '': dict(optimizer=('AdamW', 2e-3, 0.05), batch=(256, 2048), repeated=False, ema=[]),
        'l7': dict(evaluation=(256, 224, 'bicubic')),
    },
    quick_leaves=('vip-s7_retinanet_1x_coco',),
)
