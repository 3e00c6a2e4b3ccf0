"""What the name of a leaf config says: ``{family}-{variant}[_{method}[_{schedule}]]_{data}``.

The data set may carry a size, ``ade20k-512x512``, or the name of another recipe than the authors',
``in1k-mindcv``.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from mmwave.errors import UserError

# Sizes that a name leaves out: ImageNet at 224 pixels, unless the variant is called after its size
# as t256 is, and detectors are compared at 1280 x 800.
_SIZES = {'in1k': (224, 224), 'coco': (800, 1280)}
_BACKBONES = Path(__file__).parents[1] / 'models' / 'backbones'
# Elsewhere the first hyphen of a name ends the family.
_HYPHENATED = tuple(p.stem.replace('_', '-') for p in sorted(_BACKBONES.glob('[a-z]*_*.py')))


@dataclass(frozen=True, kw_only=True)
class LeafName:
    """The fields of a leaf's name.

    Attributes:
        family: the paper's architecture, e.g. ``'wavemlp'``.
        variant: the row of its table, e.g. ``'t-dw'``.
        method: detector or segmentor, empty for a classifier.
        schedule: e.g. ``'1x'`` or ``'40k'``, empty for a classifier.
        data: the data set, e.g. ``'coco'``.
        recipe: whose recipe it is where it is not the authors', e.g. ``'mindcv'``; mostly empty.
        size: height and width in pixels at which the model is counted.
    """

    family: str
    variant: str
    method: str
    schedule: str
    data: str
    recipe: str
    size: tuple[int, int]

    @classmethod
    def parse(cls, name: str) -> 'LeafName':
        """Split ``name``, the file's name without ``.py``.

        Raises:
            UserError: where it does not follow the pattern, or its data set has no known size and
                it states none.
        """
        model, *middle = name.split('_')
        hyphenated = (name for name in _HYPHENATED if model.startswith(f'{name}-'))
        family = next(hyphenated, model.partition('-')[0])
        variant = model[len(family) + 1 :]
        data = middle.pop() if middle else ''
        if not variant or not data or len(middle) > 2:
            raise UserError(
                f'{name} is not called '
                '{family}-{variant}[_{method}[_{schedule}]]_{data}, which names of configs are'
            )
        method, schedule = (*middle, '', '')[:2]
        stated = re.fullmatch(r'(.+)-(\d+)x(\d+)', data)
        data, _, recipe = (stated[1] if stated else data).partition('-')
        own = re.search(r'\D(\d{3})$', variant)
        if stated:
            size = (int(stated[2]), int(stated[3]))
        elif data == 'in1k' and own:
            size = (int(own[1]), int(own[1]))
        elif data in _SIZES:
            size = _SIZES[data]
        else:
            raise UserError(
                f'{name}: end it in {data}-HEIGHTxWIDTH, only {" and ".join(_SIZES)} go without'
            )
        return cls(
            family=family,
            variant=variant,
            method=method,
            schedule=schedule,
            data=data,
            recipe=recipe,
            size=size,
        )
