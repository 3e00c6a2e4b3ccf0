"""Our backbones against the published structure: equal outputs first, then times and memory."""

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmwave.deploy import to_deploy
from mmwave.errors import UserError
from mmwave.models import MLPBackbone
from mmwave.ops import extension

from .cases import WIDER, Case, Measured, Result, Row, check_one_of, refusal
from .equality import COARSE, KINKED, Unequal, check_phase_mix, inequality, relative_errors, worst
from .forms import LAYOUTS, NO_KERNEL, Form, Label
from .peers import CONTENDERS
from .roofline import STEP, forward_macs, gemm, gemm_peak
from .timing import alternate

FORMS_IN_TRAINING: Mapping[str, Mapping[str, bool]] = MappingProxyType(
    {'lean': {'lean': True}, 'with_cp': {'with_cp': True}, 'not lean': {'lean': False}}
)
"""Our forms in training -> settings. The last is the standard where the peer takes no such size."""
MACHINE = Label(role='machine', name='GEMM')
NOT_COMPILED = ('not lean', 'with_cp', NO_KERNEL)
"""Forms that are not: the first is the lean one then, the second leaves the graph."""


def run(
    case: Case,
    *,
    repeats: int = 7,
    device: str = 'cpu',
    compiler: str | None = None,
    contenders: Sequence[str] = (),
) -> Result:
    """Measure every form for ``case`` with random weights and norms, all in turns.

    Args:
        case: what to measure.
        repeats: rounds that count.
        device: where.
        compiler: a backend of torch.compile to measure every form with as well; None: none.
        contenders: other models to time beside, keys of :data:`~.peers.CONTENDERS`.

    Raises:
        UserError: for less than two repeats, and for an unknown contender.
        Unequal: where an op's backends do not compute the same; nothing is timed then.
    """
    if repeats < 2:
        raise UserError(f'repeats={repeats} must be at least 2, to tell how times spread')
    for name in contenders:
        check_one_of('contender', name, CONTENDERS)
    dtype = getattr(torch, case.dtype)
    if case.family == 'wavemlp':
        check_phase_mix(dtype, device)
    with _fresh_compiler() if compiler else nullcontext():
        measured, peak = _measure(case, repeats, device, compiler, contenders)
    eager, compiled = (
        min(
            (m for m in measured if m.time and m.label.role == 'peer' and m.label.compiled == c),
            key=lambda m: m.time.median if m.time else 0,
            default=None,
        )
        for c in (False, True)
    )
    rows = [Row(case=case, form=m, peer=eager, compiled=compiled, gemm=peak) for m in measured]
    return Result(case=case, rows=tuple(rows), note=_absent(case, measured))


def _absent(case: Case, measured: list[Measured]) -> str:
    """Who takes no images of this size; empty where all do."""
    found = {m.label.name for m in measured}
    others = case.peer.others if case.mode == 'inference' else ()
    notes = [f'{name} takes no images of this size' for name in others if name not in found]
    if case.refusal:
        notes.insert(0, f'not timed for {case.peer.name}: {case.refusal}')
    return '; '.join(notes)


def _measure(
    case: Case, repeats: int, device: str, compiler: str | None, contenders: Sequence[str]
) -> tuple[list[Measured], float]:
    """Check all forms, then time in turns those that compute the same, and matrix products."""
    dtype, wider = getattr(torch, case.dtype), WIDER[case.dtype]
    generator = torch.Generator().manual_seed(0)
    model = _model(case)
    randomise_norms(model)
    model.to(device)
    images = torch.randn(case.batch, model.in_channels, *case.size, generator=generator).to(device)
    gradients = _gradients(case, model, images)
    modules, standard = _modules(case, model)
    exact = Form(copy.deepcopy(modules[standard]), images, gradients, wider)
    truth, macs = exact.answer(), forward_macs(exact.module, exact.images)
    del exact
    forms = {
        label: Form(module, images, gradients, dtype, label.layout, _levels(case, label))
        for label, module in modules.items()
    }
    costs = dict.fromkeys(forms, macs)
    for name in contenders:
        for layout in LAYOUTS:
            label, module = Label(role='contender', name=name, layout=layout), CONTENDERS[name]()
            module.eval().to(device)
            asked = _gradients(case, module, images)
            costs[label] = forward_macs(module, images)
            module.train(case.mode == 'train')
            forms[label] = Form(module, images, asked, dtype, layout)
    if compiler:
        for label, form in list(forms.items()):
            if label.name not in NOT_COMPILED:
                twin = replace(label, compiled=True)
                forms[twin], costs[twin] = form.compiled(compiler), costs[label]
    found = _found(forms, truth, standard, dtype)
    del truth
    sound = {label: form for label, form in forms.items() if not found[label][1]}
    memory = {label: form.memory() for label, form in sound.items() if form.gradients}
    steps: dict[Label, Callable[[], object]] = {label: f.step for label, f in sound.items()}
    steps[MACHINE] = gemm(dtype, device)
    times = alternate(steps, repeats=repeats, device=images.device)
    peak = gemm_peak(times[MACHINE].wall)
    passes = STEP if case.mode == 'train' else 1
    return [
        Measured(
            label=label,
            macs=passes * costs[label],
            time=times.get(label),
            error=error,
            memory=memory.get(label),
            problem=problem,
        )
        for label, (error, problem) in found.items()
    ], peak


def _model(case: Case, **settings: Any) -> MLPBackbone:
    """Ours in train form and eval mode, of the same random weights every time."""
    peer = case.peer
    torch.manual_seed(0)
    backbone: Any = peer.backbone
    model: MLPBackbone = backbone(
        case.arch, out_indices=peer.out_indices, **peer.settings, **settings
    )
    return model.eval()


def _modules(case: Case, model: MLPBackbone) -> tuple[dict[Label, nn.Module], Label]:
    """All forms that compute what ``model`` computes, and which of them is the standard."""
    peer, modules = case.peer, dict[Label, nn.Module]()
    builders: dict[tuple[str, str], Callable[[Any], nn.Module]] = {}
    if case.mode == 'inference':
        deploy = modules[Label(role='ours', name='deploy')] = to_deploy(model)[0]
        # In float32 there is a kernel for Wave-MLP alone.
        kernels = case.family == 'wavemlp' or case.dtype == 'bfloat16'
        if kernels and extension.is_built() and next(model.parameters()).is_cpu:
            modules[Label(role='ours', name=NO_KERNEL)] = _WithoutKernel(deploy)
        standard = Label(role='ours', name='train form')
        modules[standard] = model
        builders[('peer', peer.name)] = peer.inference
        builders |= {('other', name): other.build for name, other in peer.others.items()}
    else:
        for name, settings in FORMS_IN_TRAINING.items():
            standard = Label(role='ours', name=name)
            modules[standard] = _model(case, **settings).to(next(model.parameters()))
            modules[standard].load_state_dict(model.state_dict())
            modules[standard].train()
        model.train()
        builders[('peer', peer.name)] = peer.training
    if case.refusal:
        return modules, standard
    for (role, name), build in builders.items():
        for layout in LAYOUTS:
            module: Any = build(model)
            if role == 'peer' or not refusal(module.sizes, case.size):
                modules[Label(role=role, name=name, layout=layout)] = module
    return modules, Label(role='peer', name=peer.name, layout=peer.layout)


class _WithoutKernel(nn.Module):
    """Runs without the kernels in C++."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Any:
        with extension.without_kernels():
            return self.module(x)


def _levels(case: Case, label: Label) -> Sequence[int] | None:
    """Which outputs a form gives, counted among those of ours; None for all."""
    return case.peer.others[label.name].levels if label.role == 'other' else None


@torch.no_grad()
def _gradients(case: Case, module: nn.Module, images: Tensor) -> list[Tensor] | None:
    """Of the outputs of a module in eval mode, in training.

    Random ones: where all are the same, as those of a mean, nothing gets through a batch norm.
    """
    if case.mode == 'inference':
        return None
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(x.shape, generator=generator).to(x) for x in module(images)]


def _found(
    forms: Mapping[Label, Form], truth: Mapping[str, Tensor], standard: Label, dtype: torch.dtype
) -> dict[Label, tuple[float | None, str]]:
    """The error of every form, and what speaks against timing it."""
    found: dict[Label, tuple[float | None, str]] = {}
    errors: dict[Label, dict[str, float]] = {}
    for label, form in forms.items():
        try:
            got = form.answer()
        except Exception as failure:
            # A compiler may fail in many ways, which is a result about the form, not the end.
            if not label.compiled:
                raise
            reason = ' '.join(str(failure).split('\n')[:2])
            found[label] = None, f'not compiled: {type(failure).__name__}: {reason}'
            continue
        if label.role == 'contender':
            found[label] = None, ''
            continue
        wanted = {n: truth[n] for n in got} if label.role == 'other' else truth
        try:
            errors[label] = relative_errors(got, wanted)
            found[label] = worst(errors[label]), ''
        except Unequal as wrong:
            found[label] = math.nan, str(wrong)
    bars = errors[standard]
    outputs_bar = worst({n: e for n, e in bars.items() if n != 'gradients'})
    for label, each in errors.items():
        coarse = 0.0 if label.role == 'ours' else COARSE
        problems = []
        for name, error in each.items():
            kinked = name == 'gradients'
            bar, least = (bars[name], max(coarse, KINKED)) if kinked else (outputs_bar, coarse)
            problems.append(inequality(error, bar, dtype, at_least=least))
        found[label] = found[label][0], next(filter(None, problems), '')
    return found


@contextmanager
def _fresh_compiler() -> Iterator[None]:
    """Nothing compiled before counts, and falling back to eager in silence is an error."""
    from torch._dynamo import config

    torch.compiler.reset()
    with config.patch(recompile_limit=64, fail_on_recompile_limit_hit=True):
        yield


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
