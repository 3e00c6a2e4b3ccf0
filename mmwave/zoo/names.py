"""What the name of a leaf config says: ``{family}-{variant}[_{method}[_{schedule}]]_{data}``."""

import re
from dataclasses import dataclass

from mmwave.errors import UserError

# Sizes that a name leaves out: ImageNet at 224 pixels, and detectors are compared at 1280 x 800.
_SIZES = {'in1k': (224, 224), 'coco': (800, 1280)}


@dataclass(frozen=True, kw_only=True)
class LeafName:
    """The fields of a leaf's name.

    Attributes:
        family: the paper's architecture, e.g. ``'wavemlp'``.
        variant: the row of its table, e.g. ``'t-dw'``.
        method: detector or segmentor, empty for a classifier.
        schedule: e.g. ``'1x'`` or ``'40k'``, empty for a classifier.
        data: the data set, e.g. ``'coco'``.
        size: height and width in pixels at which the model is counted.
    """

    family: str
    variant: str
    method: str
    schedule: str
    data: str
    size: tuple[int, int]

    @classmethod
    def parse(cls, name: str) -> 'LeafName':
        """Split ``name``, the file's name without ``.py``.

        Raises:
            UserError: where it does not follow the pattern, or its data set has no known size and
                it states none.
        """
        model, *middle = name.split('_')
        family, _, variant = model.partition('-')
        data = middle.pop() if middle else ''
        if not variant or not data or len(middle) > 2:
            raise UserError(
                f'{name} is not called '
                '{family}-{variant}[_{method}[_{schedule}]]_{data}, which names of configs are'
            )
        method, schedule = (*middle, '', '')[:2]
        stated = re.fullmatch(r'(.+)-(\d+)x(\d+)', data)
        if stated:
            data, size = stated[1], (int(stated[2]), int(stated[3]))
        elif data in _SIZES:
            size = _SIZES[data]
        else:
            raise UserError(
                f'{name}: end it in {data}-HEIGHTxWIDTH, only {" and ".join(_SIZES)} go without'
            )
        return cls(
            family=family, variant=variant, method=method, schedule=schedule, data=data, size=size
        )
