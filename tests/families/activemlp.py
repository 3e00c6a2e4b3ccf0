import random

from tests.families.data import FamilyData


def _drawn(draw: random.Random) -> dict:
    shares = tuple(draw.randint(1, 3) for _ in range(4))
    return dict(
        depths=tuple(draw.randint(1, 4) for _ in range(4)),
        dims=tuple(4 * share * draw.randint(1, 4) for share in shares),
        mlp_ratios=tuple(draw.randint(1, 4) for _ in range(4)),
        shares=shares,
        interval=draw.randint(1, 3),
    )


FAMILY = FamilyData(
    name='ActiveMLP',
    smallest='xt',
    # Blocks that predict offsets, that reuse them, and one at the interval that is the last.
    tiny=dict(
        depths=(2, 1, 3, 1), dims=(8, 12, 16, 24), mlp_ratios=(2, 2, 1, 2), shares=(2, 4, 1, 8)
    ),
    drawn=_drawn,
    variants={'again': dict(depths=(1, 1, 5, 1))},  # a stage that predicts offsets twice
    held_ratio=1.755,
    recipes={'': dict(crops=['bicubic'], evaluation=(256, 224, 'bicubic'))},
    quick_leaves=(
        'activemlp-xt_in1k',
        'activemlp-xt_retinanet_1x_coco',
        'activemlp-xt_mask-rcnn_1x_coco',
        'activemlp-xt_sem-fpn_40k_ade20k-512x512',
        'activemlp-xt_upernet_160k_ade20k-512x512',
    ),
)
