import random

from tests.families.data import FamilyData


def _drawn(draw: random.Random) -> dict:
    return dict(
        dims=tuple(4 * draw.randint(1, 9) for _ in range(4)),
        mlp_ratios=tuple(draw.randint(1, 4) for _ in range(4)),
        phase=draw.choice(('fc', 'dw')),
        norm=draw.choice(('BN', 'GN')),
        stem_norm=draw.random() < 0.5,
    )


FAMILY = FamilyData(
    name='WaveMLP',
    smallest='t-dw',
    tiny=dict(depths=(1, 1, 1, 1), dims=(8, 12, 16, 20), mlp_ratios=(2, 2, 1, 2), norm='BN'),
    drawn=_drawn,
    has_batch_norms=True,
    variants={
        f'{phase}-{norm}-{"norm" if stem else "plain"}': dict(
            phase=phase, norm=norm, stem_norm=stem
        )
        for phase in ('fc', 'dw')
        for norm in ('BN', 'GN')
        for stem in (False, True)
        if (phase, norm, stem) != ('fc', 'BN', True)  # that is the tiny one
    },
    held_ratio=1.762,
    recipes={'': {}},
    quick_leaves=(
        'wavemlp-t-dw_in1k',
        'wavemlp-t-dw_retinanet_1x_coco',
        'wavemlp-t-dw_mask-rcnn_1x_coco',
        'wavemlp-t_sem-fpn_40k_ade20k-512x512',
        'wavemlp-t_upernet_160k_ade20k-512x512',
    ),
)
