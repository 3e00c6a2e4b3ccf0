import random

from tests.families.data import FamilyData, linear_rates


def _drawn(draw: random.Random) -> dict:
    heads = draw.randint(1, 4)
    return dict(
        depths=(1, 1, draw.randint(1, 2), draw.randint(1, 2)),
        dim=2 * heads * draw.randint(1, 6),
        heads=heads,
        mlp_ratio=draw.randint(1, 4),
        token_dim=draw.randint(1, 16),
    )


FAMILY = FamilyData(
    name='EAMLP',
    smallest='7',
    tiny=dict(depths=(1, 1, 1, 1), dim=16, heads=2, mlp_ratio=2, token_dim=8),
    one_width=dict(depths=(1, 1, 1, 1), dim=16, heads=2, mlp_ratio=2, token_dim=16),
    drawn=_drawn,
    options=lambda draw: dict(token_drop_rate=0.0),
    # The first two stages, the release's tokens-to-token part, drop nothing.
    drop_path_rates=lambda depth, rate: linear_rates(depth - 2, rate),
    held_ratio=1.833,
    recipes={'': dict(optimizer=('AdamW', 1e-3, 0.03), amp=False, batch=(64, 512), repeated=False)},
    quick_leaves=('eamlp-7_in1k', 'eamlp-7_sem-fpn_40k_ade20k-512x512'),
)
