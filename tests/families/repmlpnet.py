import random

from tests.families.data import FamilyData


def _drawn(draw: random.Random) -> dict:
    sets = [draw.choice((1, 2, 4)) for _ in range(4)]
    h, w = draw.randint(1, 3), draw.randint(1, 3)
    halved = tuple((h * 2**k, w * 2**k) for k in (3, 2, 1, 0))
    others = tuple((draw.randint(1, 7), draw.randint(1, 7)) for _ in range(4))
    return dict(
        dims=tuple(4 * s * draw.randint(1, 2) for s in sets),
        windows=draw.choice((halved, halved, others)),
        share_sets=tuple(sets),
        kernels=draw.choice(((), (1,), (1, 3), (3, 5))),
        reduction=draw.choice((1, 2, 4)),
        mlp_ratio=draw.randint(1, 4),
    )


FAMILY = FamilyData(
    name='RepMLPNet',
    smallest='t224',
    tiny=dict(
        depths=(1, 1, 1, 1), dims=(8, 8, 12, 16), windows=(8, 4, 2, 1), share_sets=(1, 2, 4, 8)
    ),
    drawn=_drawn,
    grid_modes=('window',),
    has_batch_norms=True,
    variants={
        'nested': dict(windows=((16, 8), (8, 4), (4, 2), (2, 1))),
        # Windows that show other pixels at every stage.
        'loose': dict(windows=((8, 6), (4, 4), (3, 1), (1, 2))),
        'without-branches': dict(kernels=()),
    },
    window_of_64=dict(windows=(16, 8, 4, 2)),
    held_ratio=1.841,
    quick_leaves=(
        'repmlpnet-t224_in1k',
        'repmlpnet-t256_retinanet_1x_coco',
        'repmlpnet-t256_upernet_160k_ade20k-512x512',
    ),
)
