"""Figures as papers and releases print them, held against what is counted here."""

import re
from decimal import ROUND_HALF_UP, Decimal

from mmwave.errors import UserError

_UNITS = {'M': 6, 'G': 9, 'B': 9}
TOLERANCE = 0.02
"""Relative difference from which on a row has to say why."""


def deviation(printed: str, counted: int) -> float | None:
    """By how much ``counted`` lies off ``printed``, relative to it; None where they agree.

    They agree within :data:`TOLERANCE`, and where ``counted`` rounded to the printed digits is
    what is printed: 15.29 M agree with 15M, and so do 2.45 G with 2G.

    Args:
        printed: a number and its unit, M, G or B, e.g. ``'38.3M'``.
        counted: parameters or multiply-accumulates.

    Raises:
        UserError: where ``printed`` is not written so.
    """
    parts = re.fullmatch(r'(\d+(?:\.\d+)?)([MGB])', printed)
    if parts is None:
        raise UserError(
            f'{printed!r} is no figure: expected a number and one of {", ".join(_UNITS)}, '
            "such as '38.3M'"
        )
    there = Decimal(parts[1])
    here = Decimal(counted).scaleb(-_UNITS[parts[2]])
    off = float(here / there - 1)
    if abs(off) <= TOLERANCE or here.quantize(there, rounding=ROUND_HALF_UP) == there:
        return None
    return off
