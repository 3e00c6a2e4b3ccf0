"""What is measured and what came of it: cases, forms, rows."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch

from mmwave.errors import UserError
from mmwave.structures import SizeConstraint

from .forms import Label, Memory
from .peers import PEERS, Peer
from .timing import Ratio, Timing

MODES = ('inference', 'train')
WIDER = {'float32': torch.float64, 'bfloat16': torch.float32}
"""Dtypes to measure -> the dtype in which the truth is computed for them."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """What to measure.

    Attributes:
        model: ``FAMILY-ARCH``.
        size: height and width of the images in pixels.
        batch: images of one call.
        dtype: a key of :data:`WIDER`; weights and images are of it.
        mode: ``'inference'``, or ``'train'``: a forward and a backward pass.
    """

    model: str
    size: tuple[int, int]
    batch: int
    dtype: str
    mode: str

    def __post_init__(self) -> None:
        check_one_of('model', self.model, models())
        check_one_of('dtype', self.dtype, WIDER)
        check_one_of('mode', self.mode, MODES)
        if self.batch < 1:
            raise UserError(f'batch={self.batch} must be at least 1')
        too_small = refusal(SizeConstraint(), self.size)
        if too_small:
            raise UserError(f'{self.model}: {too_small}')

    @property
    def family(self) -> str:
        return self.model.partition('-')[0]

    @property
    def peer(self) -> Peer:
        return PEERS[self.family]

    @property
    def arch(self) -> Any:
        return self.peer.backbone.archs[self.model.partition('-')[2]]

    @property
    def refusal(self) -> str:
        """Why the peer does not take these images; empty where it does."""
        return refusal(self.peer.sizes(self.arch), self.size)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One form of one model.

    Attributes:
        label: which one.
        macs: multiply-accumulates of one call: those of the standard for all that compute the same.
        time: of one call; None where nothing was timed.
        error: relative error to the standard's outputs in a wider dtype; of a training step, also
            of the gradients of all parameters; None for a model that computes something else.
        memory: of a training step.
        problem: why nothing was timed: it does not compute the same, or could not be compiled.
    """

    label: Label
    macs: int
    time: Timing | None
    error: float | None
    memory: Memory | None
    problem: str = ''


@dataclass(frozen=True, kw_only=True)
class Row:
    """One form beside the peer's best.

    Attributes:
        peer: the peer in the layout that is faster for it, eager; None where it takes no images of
            this size.
        compiled: the same of the compiled ones; None where none was compiled.
        gemm: :func:`~.roofline.gemm_peak` in this dtype, of the same rounds.
    """

    case: Case
    form: Measured
    peer: Measured | None
    compiled: Measured | None
    gemm: float

    @property
    def ratio(self) -> Ratio | None:
        """How many times as fast as the eager peer the form is, by the clock."""
        return _ratio(self.peer, self.form, 'wall')

    @property
    def cpu_ratio(self) -> float | None:
        """How many times less processor time than the eager peer the form takes."""
        ratio = _ratio(self.peer, self.form, 'cpu')
        return ratio.median if ratio else None

    @property
    def compiled_ratio(self) -> Ratio | None:
        """How many times as fast as the compiled peer a compiled form is."""
        return _ratio(self.compiled, self.form, 'wall') if self.form.label.compiled else None

    @property
    def share(self) -> float | None:
        """Part of the machine's rate of matrix products that the form reaches."""
        time = self.form.time
        return 2 * self.form.macs / time.median / self.gemm if time else None


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came of a case.

    Attributes:
        rows: one for each form.
        note: what could not be measured, and why; empty where all was.
    """

    case: Case
    rows: tuple[Row, ...]
    note: str = ''

    @property
    def sound(self) -> bool:
        """Whether all forms compute the same and all of ours could be measured."""
        return not any(
            row.form.problem and (row.form.label.role == 'ours' or row.form.error is not None)
            for row in self.rows
        )


def models() -> list[str]:
    """The models that have a peer."""
    return [
        f'{family}-{arch}'
        for family, peer in PEERS.items()
        for arch in (peer.models or peer.backbone.archs)
    ]


def cases(
    models: Iterable[str],
    *,
    sizes: Iterable[tuple[int, int, int]],
    dtypes: Iterable[str],
    modes: Iterable[str],
) -> list[Case]:
    """Every combination; see :class:`Case`. ``sizes`` are heights, widths and batches.

    Raises:
        UserError: naming the first value that is not accepted, and the accepted ones.
    """
    return [
        Case(model=model, size=(height, width), batch=batch, dtype=dtype, mode=mode)
        for mode, (height, width, batch), model, dtype in product(modes, sizes, models, dtypes)
    ]


def refusal(sizes: SizeConstraint, size: tuple[int, int]) -> str:
    """Why images of ``size`` are not among ``sizes``; empty where they are."""
    try:
        sizes.check(*size)
    except ValueError as error:
        return str(error)
    return ''


def _ratio(slow: Measured | None, fast: Measured, clock: str) -> Ratio | None:
    if slow is None or slow.time is None or fast.time is None:
        return None
    return Ratio.of(getattr(slow.time, clock), getattr(fast.time, clock))


def check_one_of(name: str, value: str, accepted: Iterable[str]) -> None:
    """Raise ``UserError`` naming ``value`` and the accepted ones unless it is among them."""
    if value not in accepted:
        raise UserError(f'unknown {name} {value!r}: expected one of {", ".join(accepted)}')
