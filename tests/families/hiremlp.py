import random

from tests.families.data import FamilyData


def _drawn(draw: random.Random) -> dict:
    return dict(
        dims=tuple(4 * draw.randint(1, 9) for _ in range(4)),
        mlp_ratios=tuple(draw.randint(1, 4) for _ in range(4)),
        region_sizes=tuple(draw.randint(1, 5) for _ in range(4)),
        shift_steps=tuple(draw.randint(1, 3) for _ in range(4)),
        shift_cycles=tuple(draw.randint(1, 3) for _ in range(4)),
    )


def _options(draw: random.Random) -> dict:
    return dict(shift_direction=draw.choice(('forward', 'backward')))


FAMILY = FamilyData(
    name='HireMLP',
    smallest='t',
    tiny=dict(depths=(2, 1, 1, 1), dims=(8, 12, 16, 20), mlp_ratios=(2, 2, 1, 2)),
    drawn=_drawn,
    options=_options,
    has_batch_norms=True,
    variants={
        'wide regions': dict(region_sizes=(5, 4, 3, 3)),
        'no regions': dict(region_sizes=(1, 1, 1, 1)),
        'long shifts': dict(depths=(1, 2, 1, 1), shift_steps=(2, 9, 1, 1)),
    },
    held_ratio=1.732,
    recipes={
        '': dict(
            optimizer=('AdamW', 1e-3, 0.05),
            batch=(128, 1024),
            ema=[],
            crops=['bicubic'],
            evaluation=(256, 224, 'bicubic'),
        ),
        't': dict(optimizer=('AdamW', 2e-3, 0.05), batch=(256, 2048), drop_path=0.0),
        'b': dict(drop_path=0.2),
        'l': dict(drop_path=0.3),
    },
    quick_leaves=('hiremlp-t_retinanet_1x_coco', 'hiremlp-s_sem-fpn_40k_ade20k-512x512'),
)
