"""What is measured and the measurements: cases, forms, rows, results."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from types import MappingProxyType
from typing import Any, Generic, Protocol, TypeVar

import torch

from mmwave.errors import UserError
from mmwave.inspect.timing import Ratio, Timing
from mmwave.models import MLPBackbone
from mmwave.registry import MODELS
from mmwave.structures import SizeConstraint

from .forms import Label, Memory
from .options import DTYPES, MODES
from .peers import PEERS, Peer, family_of

WIDER: Mapping[str, torch.dtype] = MappingProxyType(
    dict(zip(DTYPES, (torch.float64, torch.float32), strict=True))
)
"""Dtype to measure -> the dtype in which its reference outputs are computed."""


class Named(Protocol):
    """Something to measure: a :class:`Backbone`, or a :class:`~.pipelines.Pipeline`."""

    @property
    def name(self) -> str: ...


Model = TypeVar('Model', bound=Named, covariant=True)


@dataclass(frozen=True)
class Backbone:
    """A backbone of ours, alone.

    Attributes:
        name: ``FAMILY-ARCH``.

    Raises:
        UserError: naming the accepted ones where there is no such backbone.
    """

    name: str

    def __post_init__(self) -> None:
        check_one_of('model', self.name, models())

    @property
    def family(self) -> str:
        return self.name.partition('-')[0]

    @property
    def backbone(self) -> type[MLPBackbone]:
        return families()[self.family]

    @property
    def arch(self) -> Any:
        archs: Mapping[str, Any] = self.backbone.archs
        return archs[self.name.partition('-')[2]]

    @property
    def peer(self) -> Peer | None:
        """What the family is compared with; None where nobody has written a peer."""
        return PEERS.get(self.family)


@dataclass(frozen=True, kw_only=True)
class Case(Generic[Model]):
    """What to measure.

    Attributes:
        model: a backbone, or a whole detector or segmentor.
        size: height and width of the images in pixels.
        batch: images of one call.
        dtype: a key of :data:`WIDER`. A backbone and its images are cast to it; a whole model keeps
            its float32 weights and runs under autocast.
        mode: ``'inference'``, or ``'train'``: a forward and a backward pass.
    """

    model: Model
    size: tuple[int, int]
    dtype: str
    batch: int = 1
    mode: str = MODES[0]

    def __post_init__(self) -> None:
        check_one_of('dtype', self.dtype, WIDER)
        check_one_of('mode', self.mode, MODES)
        if self.batch < 1:
            raise UserError(f'batch={self.batch} must be at least 1')


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One form of one model.

    Attributes:
        label: which form.
        time: of one call; None where nothing was timed.
        error: relative error to the standard's outputs in a wider dtype; of a training step, also
            of the gradients of all parameters; None for a model that computes something else.
        macs: multiply-accumulates of one call: those of the standard for all that compute the same;
            None where they were not counted.
        memory: of a training step.
        problem: why nothing was timed: it does not compute the same, or could not be compiled.
    """

    label: Label
    time: Timing | None
    error: float | None
    macs: int | None = None
    memory: Memory | None = None
    problem: str = ''


@dataclass(frozen=True, kw_only=True)
class Row:
    """One form beside its reference.

    Attributes:
        reference: of a backbone the peer, eager, in the memory layout that is faster for it, or
            None where there is no peer of this family and size; of a whole model its train form.
        compiled: the compiled reference; None where none was compiled.
        gemm: :func:`~.roofline.gemm_peak` in this dtype, of the same rounds; None where it was not
            measured.
    """

    case: Case
    form: Measured
    reference: Measured | None
    compiled: Measured | None = None
    gemm: float | None = None

    @property
    def ratio(self) -> Ratio | None:
        """Speed-up over the eager reference, by wall-clock time."""
        return _ratio(self.reference, self.form, 'wall')

    @property
    def cpu_ratio(self) -> float | None:
        """Median speed-up over the eager reference, by processor time."""
        ratio = _ratio(self.reference, self.form, 'cpu')
        return ratio.median if ratio else None

    @property
    def compiled_ratio(self) -> Ratio | None:
        """Speed-up of a compiled form over the compiled reference."""
        return _ratio(self.compiled, self.form, 'wall') if self.form.label.compiled else None

    @property
    def share(self) -> float | None:
        """Share of the machine's rate of matrix products that the form reaches."""
        time, macs = self.form.time, self.form.macs
        if time is None or macs is None or self.gemm is None:
            return None
        return 2 * macs / time.median / self.gemm


@dataclass(frozen=True, kw_only=True)
class Result:
    """The measurements of a case.

    Attributes:
        rows: one for each form.
        note: what could not be measured, and why; empty where all was.
        boxes: how many a detector returned; None for another model.
    """

    case: Case
    rows: tuple[Row, ...]
    note: str = ''
    boxes: int | None = None

    @property
    def sound(self) -> bool:
        """Whether all forms compute the same and all of ours could be measured."""
        return not any(
            row.form.problem and (row.form.label.role == 'ours' or row.form.error is not None)
            for row in self.rows
        )


def families() -> dict[str, type[MLPBackbone]]:
    """Return every registered backbone, by the name of its family."""
    MODELS.import_from_location()
    backbones = (c for c in MODELS.module_dict.values() if issubclass(c, MLPBackbone))
    return {family_of(backbone): backbone for backbone in backbones}


def models() -> list[str]:
    """Return the names of all backbones that can be measured, ``FAMILY-ARCH``."""
    return [
        f'{family}-{arch}' for family, backbone in families().items() for arch in backbone.archs
    ]


def cases(
    models: Iterable[str],
    *,
    sizes: Iterable[tuple[int, int, int]],
    dtypes: Iterable[str],
    modes: Iterable[str],
) -> list[Case[Backbone]]:
    """Return every combination.

    Args:
        models: see :class:`Backbone`.
        sizes: heights, widths and batches.
        dtypes: see :class:`Case`.
        modes: see :class:`Case`.

    Raises:
        UserError: naming the first value that is not accepted, and the accepted ones.
    """
    made = []
    for mode, (height, width, batch), name, dtype in product(modes, sizes, models, dtypes):
        model = Backbone(name)
        too_small = refusal(SizeConstraint(), (height, width))
        if too_small:
            raise UserError(f'{name}: {too_small}')
        made.append(Case(model=model, size=(height, width), batch=batch, dtype=dtype, mode=mode))
    return made


def refusal(sizes: SizeConstraint, size: tuple[int, int]) -> str:
    """Return why images of ``size`` are not accepted; empty where they are."""
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


def check_repeats(repeats: int) -> None:
    """Raise ``UserError`` unless there are rounds enough to have a spread."""
    if repeats < 2:
        raise UserError(f'repeats={repeats} must be at least 2, to tell how times spread')
