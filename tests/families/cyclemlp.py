import random

from tests.families.data import FamilyData


def _drawn(draw: random.Random) -> dict:
    return dict(
        dims=tuple(4 * draw.randint(1, 9) for _ in range(4)),
        mlp_ratios=tuple(draw.randint(1, 4) for _ in range(4)),
    )


FAMILY = FamilyData(
    name='CycleMLP',
    smallest='b1',
    tiny=dict(depths=(1, 1, 1, 1), dims=(8, 12, 16, 20), mlp_ratios=(2, 2, 1, 2)),
    drawn=_drawn,
    held_ratio=1.784,
    recipes={'': dict(ema=[], crops=['bicubic'], evaluation=(256, 224, 'bicubic'))},
    quick_leaves=('cyclemlp-b1_in1k', 'cyclemlp-b1_retinanet_1x_coco'),
)
