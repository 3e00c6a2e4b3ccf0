import random

from tests.families.data import FamilyData, plain


def _drawn(draw: random.Random) -> dict:
    return plain(
        draw,
        dim=draw.randint(2, 17),
        token_mlp_dim=draw.randint(2, 17),
        channel_mlp_dim=draw.randint(1, 40),
    )


FAMILY = FamilyData(
    name='MLPMixer',
    smallest='s16',
    tiny=dict(
        depths=(1, 0, 1, 1), dim=8, token_mlp_dim=6, channel_mlp_dim=12, patch_size=8, grid=4
    ),
    one_width=dict(depths=(1, 1, 1, 1), dim=16, token_mlp_dim=8, channel_mlp_dim=32, grid=4),
    drawn=_drawn,
    grid_modes=('window', 'resize'),
    variants={'oblong': dict(grid=(4, 5))},
    window_of_64=dict(grid=8),
    held_ratio=1.853,
    recipes={
        '': dict(
            optimizer=('AdamW', 3e-3, 0.3),
            amp=False,
            clip=1.0,
            batch=(64, 4096),
            repeated=False,
            ema=[],
            mixing=[],
            smoothing=0.0,
            augment=None,
            erase=None,
            crops=['bilinear'],
            evaluation=(256, 224, 'bicubic'),
            drop_path=0,
        )
    },
    quick_leaves=('mlp-mixer-s16_in1k', 'mlp-mixer-b16_sem-fpn_40k_ade20k-512x512'),
)
