"""Our backbones against the published structure: equal outputs first, then times and memory."""

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmwave.deploy import to_deploy
from mmwave.errors import UserError
from mmwave.models import MLPBackbone

from .equality import check_equal, relative_error
from .forms import LAYOUTS, Form, Memory
from .peers import PEERS, Peer
from .timing import Ratio, Timing, alternate

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
        _one_of('model', self.model, models())
        _one_of('dtype', self.dtype, WIDER)
        _one_of('mode', self.mode, MODES)
        if self.batch < 1:
            raise UserError(f'batch={self.batch} must be at least 1')
        try:
            self.peer.sizes(self.arch).check(*self.size)
        except ValueError as error:
            raise UserError(f'{self.model}: {error}') from None

    @property
    def peer(self) -> Peer:
        return PEERS[self.model.partition('-')[0]]

    @property
    def arch(self) -> Any:
        return self.peer.backbone.archs[self.model.partition('-')[2]]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One form of one model.

    Attributes:
        form: which one; of the peer, its memory layout.
        time: of one call.
        error: relative error to the peer's outputs in a wider dtype; of a training step, also of
            the gradients of all parameters.
        memory: of a training step.
    """

    form: str
    time: Timing
    error: float
    memory: Memory | None


@dataclass(frozen=True, kw_only=True)
class Row:
    """A form of ours beside the published one."""

    case: Case
    ours: Measured
    peer: Measured

    @property
    def ratio(self) -> Ratio:
        """How many times as fast ours is, by the clock."""
        return Ratio.of(self.peer.time.wall, self.ours.time.wall)

    @property
    def cpu_ratio(self) -> float:
        """How many times less processor time ours takes."""
        return Ratio.of(self.peer.time.cpu, self.ours.time.cpu).median


def models() -> list[str]:
    """The models that have a peer."""
    return [f'{family}-{arch}' for family, peer in PEERS.items() for arch in peer.backbone.archs]


def cases(
    models: Iterable[str],
    *,
    sizes: Iterable[tuple[int, int]],
    batch: int,
    dtypes: Iterable[str],
    modes: Iterable[str],
) -> list[Case]:
    """Every combination; see :class:`Case`.

    Raises:
        UserError: naming the first value that is not accepted, and the accepted ones.
    """
    return [
        Case(model=model, size=size, batch=batch, dtype=dtype, mode=mode)
        for mode, model, size, dtype in product(modes, models, sizes, dtypes)
    ]


def run(case: Case, *, repeats: int = 7, device: str = 'cpu') -> list[Row]:
    """Measure ``case`` with random weights and norms: one row per form of ours.

    Raises:
        UserError: for less than two repeats.
        Unequal: where a form does not compute what the peer computes; nothing is timed then.
    """
    if repeats < 2:
        raise UserError(f'repeats={repeats} must be at least 2, to tell how times spread')
    torch.manual_seed(0)
    build: Callable[..., MLPBackbone] = case.peer.backbone
    model = build(case.arch).eval()
    randomise_norms(model)
    model.to(device)
    dtype, wider = getattr(torch, case.dtype), WIDER[case.dtype]
    images, gradients = _inputs(case, model)
    modules, peer = _modules(case, model)
    truth = Form(copy.deepcopy(peer), images, gradients, wider).answer()
    ours = {name: Form(module, images, gradients, dtype) for name, module in modules.items()}
    theirs = {
        layout: Form(copy.deepcopy(peer), images, gradients, dtype, layout) for layout in LAYOUTS
    }
    forms = ours | theirs
    errors = {name: relative_error(form.answer(), truth) for name, form in forms.items()}
    # Torch's batch norms are less exact in NHWC: the bar is the peer in the layout that ours has.
    check_equal({name: errors[name] for name in ours}, errors['NCHW'], dtype)
    del truth
    memory = {name: form.memory() if gradients else None for name, form in forms.items()}
    steps = {name: form.step for name, form in forms.items()}
    times = alternate(steps, repeats=repeats, device=images.device)
    measured = {
        name: Measured(form=name, time=times[name], error=errors[name], memory=memory[name])
        for name in forms
    }
    best = min(theirs, key=lambda name: times[name].median)
    return [Row(case=case, ours=measured[name], peer=measured[best]) for name in ours]


def _inputs(case: Case, model: MLPBackbone) -> tuple[Tensor, list[Tensor] | None]:
    """Images, and in training gradients of the outputs.

    Random ones: where all are the same, as those of a mean, nothing gets through a batch norm.
    """
    (height, width), device = case.size, next(model.parameters()).device
    generator = torch.Generator().manual_seed(0)
    shapes = [(model.in_channels, height, width)]
    shapes += [(s.channels, height // s.stride, width // s.stride) for s in model.stage_info]
    images, *gradients = (
        torch.randn(case.batch, *shape, generator=generator).to(device) for shape in shapes
    )
    return images, gradients if case.mode == 'train' else None


def _modules(case: Case, model: MLPBackbone) -> tuple[dict[str, nn.Module], nn.Module]:
    """Our forms by name, and the published one."""
    if case.mode == 'inference':
        forms: dict[str, nn.Module] = {'deploy': to_deploy(model)[0], 'train form': model}
        return forms, case.peer.inference(model)
    checkpointed = copy.deepcopy(model.train())
    checkpointed.with_cp = True
    return {'train form': model, 'with_cp': checkpointed}, case.peer.training(model)


def randomise_norms(model: nn.Module) -> None:
    """Draw statistics and parameters of batch norms: fresh ones are close to the identity."""
    generator = torch.Generator().manual_seed(0)
    for norm in (m for m in model.modules() if isinstance(m, _BatchNorm)):
        state = norm.state_dict()
        for name, low, high in (
            ('running_mean', -0.5, 0.5),
            ('running_var', 0.5, 2.0),
            ('weight', 0.5, 1.5),
            ('bias', -0.5, 0.5),
        ):
            state[name].uniform_(low, high, generator=generator)


def _one_of(name: str, value: str, accepted: Iterable[str]) -> None:
    if value not in accepted:
        raise UserError(f'unknown {name} {value!r}: expected one of {", ".join(accepted)}')
