"""Figures as papers and releases print them, compared with what is counted here."""

import re
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from itertools import count

from mmwave.errors import UserError

_UNITS = {'M': 6, 'G': 9, 'B': 9}
TOLERANCE = 0.02
"""Relative difference beyond which a row has to say why."""


@dataclass(frozen=True, kw_only=True)
class Deviation:
    """How a counted figure differs from a printed one.

    Attributes:
        relative: by how much it lies off, relative to the printed one.
        reason: that the printed one is the counted one rounded; empty where that does not explain
            the difference.
    """

    relative: float
    reason: str


def deviation(printed: str, counted: int) -> Deviation | None:
    """Return how ``counted`` differs from ``printed``; None where within :data:`TOLERANCE`.

    2.45 G are 22.5 % off 2G, and the reason is that they are printed so in one digit.

    Args:
        printed: a number and its unit, M, G or B, e.g. ``'38.3M'``.
        counted: parameters or multiply-accumulates.

    Raises:
        UserError: where ``printed`` is not written so, or is zero.
    """
    parts = re.fullmatch(r'(\d+(?:\.(\d+))?)([MGB])', printed)
    if parts is None or not Decimal(parts[1]):
        raise UserError(
            f'{printed!r} is no figure: expected a number above 0 and one of '
            f"{', '.join(_UNITS)}, such as '38.3M'"
        )
    there = Decimal(parts[1])
    here = Decimal(counted).scaleb(-_UNITS[parts[3]])
    off = float(here / there - 1)
    if abs(off) <= TOLERANCE:
        return None

    def prints(value: Decimal) -> bool:
        return value.quantize(there, rounding=ROUND_HALF_UP) == there

    reason = ''
    if prints(here):
        # Two digits more than printed, or as many as round the same way: 2.4999, not 2.50.
        digits = count(len(parts[2] or '') + 2)
        shown = next(value for n in digits if prints(value := round(here, n)))
        reason = f'rounded: {shown} {"M" if parts[3] == "M" else "G"} prints as {printed}'
    return Deviation(relative=off, reason=reason)
