import random

from tests.families.data import FamilyData


def _drawn(draw: random.Random) -> dict:
    groups = [draw.choice((1, 2, 4)) for _ in range(4)]
    first = 4 * draw.randint(1, 3)
    return dict(
        dims=(first, first * draw.randint(1, 2), 2 * first, 2 * first * draw.randint(1, 2)),
        mlp_ratios=tuple(2 * draw.randint(1, 2) for _ in range(4)),
        windows=tuple((draw.randint(1, 6), draw.randint(1, 6)) for _ in range(4)),
        groups=tuple(groups),
    )


FAMILY = FamilyData(
    name='PosMLP',
    smallest='t',
    tiny=dict(
        depths=(1, 1, 1, 1),
        dims=(4, 8, 8, 16),
        mlp_ratios=(2, 2, 2, 2),
        windows=(4, (4, 3), 2, 2),
        groups=(2, 2, 4, 4),
    ),
    one_width=dict(
        depths=(1, 1, 1, 1),
        dims=(16,) * 4,
        mlp_ratios=(2, 2, 2, 2),
        windows=(4, 4, 2, 2),
        groups=(2, 2, 2, 2),
    ),
    drawn=_drawn,
    grid_modes=('window', 'resize'),
    has_batch_norms=True,
    variants={'square': dict(windows=(4, 4, 4, 2), groups=(1, 4, 4, 8))},
    window_of_64=dict(windows=(16, 8, 4, 2)),
    held_ratio=1.459,
    recipes={
        '': dict(
            optimizer=('AdamW', 1e-3, 0.067),
            eps=1e-5,
            clip=1.0,
            batch=(60, 480),
            repeated=False,
            ema=[8e-5],
            mixing=[('Mixup', 0.5), ('CutMix', 1.0)],
            augment=(3, 6, 1.0),
            erase=None,
            ratios={(0.67, 1.5)},
            drop=0.0233,
        ),
        't': dict(optimizer=('AdamW', 2e-3, 0.067), batch=(128, 512)),
    },
    quick_leaves=('posmlp-t_sem-fpn_40k_ade20k-512x512',),
)
