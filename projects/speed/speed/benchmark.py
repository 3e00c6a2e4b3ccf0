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

from mmwave.deploy import to_deploy
from mmwave.inspect.complexity import count_macs
from mmwave.inspect.timing import alternate
from mmwave.models import MLPBackbone
from mmwave.ops import extension

from .cases import (
    WIDER,
    Backbone,
    Case,
    Measured,
    Result,
    Row,
    check_one_of,
    check_repeats,
    refusal,
)
from .equality import COARSE, KINKED, Unequal, inequality, relative_errors, worst
from .forms import LAYOUTS, NO_KERNEL, Form, Label, randomise_norms
from .peers import CONTENDERS, Peer
from .roofline import STEP, gemm, gemm_peak

FORMS_IN_TRAINING: Mapping[str, Mapping[str, bool]] = MappingProxyType(
    {'lean': {'lean': True}, 'with_cp': {'with_cp': True}, 'not lean': {'lean': False}}
)
"""Our forms in training -> settings. The last is the standard where there is no peer."""
MACHINE = Label(role='machine', name='GEMM')
NOT_COMPILED = ('not lean', 'with_cp', NO_KERNEL)
"""Forms that are not compiled: the first equals the lean one then, the second breaks the graph."""


def run(
    case: Case[Backbone],
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
    check_repeats(repeats)
    for name in contenders:
        check_one_of('contender', name, CONTENDERS)
    peer = case.model.peer
    if peer is not None and peer.check_ops is not None:
        peer.check_ops(getattr(torch, case.dtype), device)
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
    rows = [Row(case=case, form=m, reference=eager, compiled=compiled, gemm=peak) for m in measured]
    return Result(case=case, rows=tuple(rows), note=_absent(case, measured))


def _refused(case: Case[Backbone]) -> str:
    """Return why the peer does not accept these images; empty where it does, or there is none."""
    peer = case.model.peer
    return refusal(peer.sizes(case.model.arch), case.size) if peer else ''


def _absent(case: Case[Backbone], measured: list[Measured]) -> str:
    """Return who is not measured beside ours, and why; empty where all are."""
    peer = case.model.peer
    if peer is None:
        return 'there is no peer of this family'
    found = {m.label.name for m in measured}
    others = peer.others if case.mode == 'inference' else ()
    notes = [f'{name} accepts no images of this size' for name in others if name not in found]
    refused = _refused(case)
    if refused:
        notes.insert(0, f'not timed for {peer.name}: {refused}')
    return '; '.join(notes)


def _measure(
    case: Case[Backbone],
    repeats: int,
    device: str,
    compiler: str | None,
    contenders: Sequence[str],
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
    truth, macs = exact.answer(), count_macs(exact.module, exact.images)
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
            wanted = _gradients(case, module, images)
            costs[label] = count_macs(module, images)
            module.train(case.mode == 'train')
            forms[label] = Form(module, images, wanted, dtype, layout)
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


def _model(case: Case[Backbone], **settings: Any) -> MLPBackbone:
    """Build ours in train form and eval mode, with the same random weights every time."""
    peer = case.model.peer
    if peer is not None:
        settings = {'out_indices': peer.out_indices, **peer.settings, **settings}
    torch.manual_seed(0)
    backbone: Any = case.model.backbone
    model: MLPBackbone = backbone(case.model.arch, **settings)
    return model.eval()


def _modules(case: Case[Backbone], model: MLPBackbone) -> tuple[dict[Label, nn.Module], Label]:
    """Return all forms that compute what ``model`` computes, and which of them is the standard."""
    peer, modules = case.model.peer, dict[Label, nn.Module]()
    if case.mode == 'inference':
        deploy = modules[Label(role='ours', name='deploy')] = to_deploy(model)[0]
        kernels = peer.kernels if peer else Peer.kernels
        if case.dtype in kernels and extension.is_built() and next(model.parameters()).is_cpu:
            modules[Label(role='ours', name=NO_KERNEL)] = _WithoutKernel(deploy)
        standard = Label(role='ours', name='train form')
        modules[standard] = model
    else:
        for name, settings in FORMS_IN_TRAINING.items():
            standard = Label(role='ours', name=name)
            modules[standard] = _model(case, **settings).to(next(model.parameters()))
            modules[standard].load_state_dict(model.state_dict())
            modules[standard].train()
        model.train()
    if peer is None or _refused(case):
        return modules, standard
    builders: dict[tuple[str, str], Callable[[Any], nn.Module]]
    if case.mode == 'inference':
        builders = {('peer', peer.name): peer.inference}
        builders |= {('other', name): other.build for name, other in peer.others.items()}
    else:
        builders = {('peer', peer.name): peer.training}
    for (role, name), build in builders.items():
        for layout in LAYOUTS:
            module: Any = build(model)
            if role == 'peer' or not refusal(module.sizes, case.size):
                modules[Label(role=role, name=name, layout=layout)] = module
    return modules, Label(role='peer', name=peer.name, layout=peer.layout)


class _WithoutKernel(nn.Module):
    """Runs a module without the C++ kernels."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Any:
        with extension.without_kernels():
            return self.module(x)


def _levels(case: Case[Backbone], label: Label) -> Sequence[int] | None:
    """Return which outputs of ours a form returns; None: all."""
    peer = case.model.peer
    return peer.others[label.name].levels if peer and label.role == 'other' else None


@torch.no_grad()
def _gradients(case: Case, module: nn.Module, images: Tensor) -> list[Tensor] | None:
    """Draw gradients of the outputs of a module in eval mode, for training; None for inference.

    Random ones: where all are equal, as those of a mean, a batch norm's input gradient is zero.
    """
    if case.mode == 'inference':
        return None
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(x.shape, generator=generator).to(x) for x in module(images)]


def _found(
    forms: Mapping[Label, Form], truth: Mapping[str, Tensor], standard: Label, dtype: torch.dtype
) -> dict[Label, tuple[float | None, str]]:
    """Return the error of every form, and why it is not timed; empty where it is."""
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
    """Forget what was compiled before, and raise where dynamo would fall back to eager."""
    from torch._dynamo import config

    torch.compiler.reset()
    with config.patch(recompile_limit=64, fail_on_recompile_limit_hit=True):
        yield
