import random

from tests.families.data import FamilyData


def _drawn(draw: random.Random) -> dict:
    return dict(dims=tuple(draw.randint(1, 24) for _ in range(4)), mlp_ratio=draw.randint(1, 4))


FAMILY = FamilyData(
    name='ASMLP',
    smallest='t',
    tiny=dict(depths=(1, 1, 1, 1), dims=(8, 12, 16, 20), mlp_ratio=2),
    drawn=_drawn,
    options=lambda draw: dict(shift_size=draw.choice((1, 3, 5, 7))),
    held_ratio=1.926,
    recipes={
        '': dict(
            clip=5.0,
            repeated=False,
            ema=[],
            crops=['bicubic'],
            evaluation=(256, 224, 'bicubic'),
        ),
        't': dict(drop_path=0.2),
        's': dict(drop_path=0.3),
        'b': dict(drop_path=0.5),
    },
    quick_leaves=(
        'asmlp-t_in1k',
        'asmlp-t_mask-rcnn_1x_coco',
        'asmlp-t_upernet_160k_ade20k-512x512',
    ),
)
