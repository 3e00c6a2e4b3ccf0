"""What tests have to know of a family."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


def linear_rates(depth: int, rate: float) -> list[float]:
    """Drop path rates of the blocks that have any: the first one's is 0."""
    return [rate * k / (depth - 1) for k in range(1, depth)]


@dataclass(frozen=True, kw_only=True)
class FamilyData:
    """What tests have to know of a family, beside what its class states.

    Attributes:
        name: of its class.
        smallest: the arch that quick tests use.
        tiny: fields of a very small arch; images of 32 x 32 and more have several windows of its
            grid.
        one_width: fields of one whose maps all have 16 channels, for dense models made of configs.
        drawn: draws the fields of an arch, whatever the family allows, and small.
        options: draws further arguments that go with it.
        grid_modes: accepted by it, apart from ``'strict'``; none where it has no such argument.
        has_batch_norms: whether it has any.
        drop_path_rates: those of the blocks that have any, by the number of blocks and the rate.
        variants: by a name, fields of ``tiny`` to change for what else a deploy form distinguishes.
        window_of_64: fields of ``tiny`` to change for windows of 64 pixels; none where it has none.
        held_ratio: bytes that a training step on an image of 224 x 224 holds without ``lean``, by
            those with it, of the smallest arch with one block a stage; measured.
        recipes: how its ImageNet configs differ from the release of Wave-MLP, in the fields of
            ``tests/test_recipes.py``: by the variant, in ``''`` those that hold for all; none where
            they are tested elsewhere.
        quick_leaves: its configs that are built and trained in quick tests; others are slow ones.
    """

    name: str
    smallest: str
    tiny: Mapping[str, object]
    one_width: Mapping[str, object] | None = None
    drawn: Callable[[random.Random], dict] | None = None
    options: Callable[[random.Random], dict] = field(default=lambda draw: {})
    grid_modes: tuple[str, ...] = ()
    has_batch_norms: bool = False
    drop_path_rates: Callable[[int, float], list[float]] = linear_rates
    variants: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    window_of_64: Mapping[str, object] = field(default_factory=dict)
    held_ratio: float = 1.3
    recipes: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    quick_leaves: tuple[str, ...] = ()


def plain(draw: random.Random, **fields: object) -> dict:
    """Fields of an arch of one stride."""
    depths = [draw.randint(0, 2) for _ in range(4)]
    depths[draw.randrange(4)] = 1
    grid = draw.randint(1, 5), draw.randint(1, 5)
    return dict(depths=tuple(depths), patch_size=draw.choice((4, 7, 8, 16)), grid=grid, **fields)
