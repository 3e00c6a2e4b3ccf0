"""Whether two forms compute the same, judged by what their dtype can do."""

from collections.abc import Mapping

import torch
from torch import Tensor

from mmwave.ops import phase_mix
from mmwave.ops.backend import BACKENDS, use_backend

SLACK = 2
"""How many times the peer's own rounding error the error of a form of ours may be."""
COARSE = 1e-2
"""What the error of a peer in another layout, compiled or of another library may always be.

Torch's batch norms are less exact in NHWC: gradients of a whole RepMLPNet in float32 are off by
2e-3. A peer is not to lose its faster layout by that; another function is off by far more.
"""
KINKED = 2e-4
"""What the error of a training step's gradients may always be.

A value next to the kink of a ReLU that rounding brings to its other side changes them, and brings
the same published code in its two layouts 3e-5 apart, for Wave-MLP at 224 x 224.
"""


class Unequal(RuntimeError):
    """Two things that are to be measured against each other do not compute the same."""


def relative_error(got: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> float:
    """The worst of :func:`relative_errors`."""
    return worst(relative_errors(got, wanted))


def worst(errors: Mapping[str, float]) -> float:
    """The largest of several errors, NaN included."""
    # Not Python's max(), which may drop a NaN.
    return float(torch.tensor(list(errors.values()), dtype=torch.float64).max())


def relative_errors(got: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, float]:
    """Norm of the error over the norm of what is wanted, of every tensor.

    Raises:
        Unequal: where the two are not of the same names and shapes.
    """
    shapes = [{name: tuple(x.shape) for name, x in tensors.items()} for tensors in (got, wanted)]
    if shapes[0] != shapes[1]:
        raise Unequal(f'it gives {shapes[0]} instead of {shapes[1]}')
    errors = {}
    for name, tensor in wanted.items():
        truth = tensor.double()
        errors[name] = float((got[name].double() - truth).norm() / truth.norm())
    return errors


def inequality(error: float, standard: float, dtype: torch.dtype, *, at_least: float = 0.0) -> str:
    """Why a form is not as close to the truth as the standard is; empty where it is.

    Args:
        error: :func:`relative_error` of what the form computes in ``dtype``, the truth being what
            the standard computes in a wider one.
        standard: the same of the standard.
        dtype: what both compute in. :data:`SLACK` times the standard's error is allowed, and one
            rounding. Nothing is where either error is no number.
        at_least: what is allowed besides.
    """
    # In this order a NaN stays, and lets nothing pass.
    allowed = max(SLACK * standard, torch.finfo(dtype).eps, at_least)
    if error <= allowed:
        return ''
    return f'relative error {error:.1e} is above {allowed:.1e}, the standard has {standard:.1e}'


def check_phase_mix(dtype: torch.dtype, device: torch.device | str = 'cpu') -> None:
    """Raise unless every backend of the op that runs here computes what the reference does.

    Values and gradients of all inputs, at sizes that fill no block of a kernel, in both orders of
    the channels and both memory layouts.

    Raises:
        Unequal: naming the backend and the input it fails on.
    """
    for shape, split, layout in (
        ((2, 8, 7, 33), False, torch.contiguous_format),
        ((1, 64, 14, 14), True, torch.channels_last),
    ):
        inputs = _phase_mix_inputs(shape, layout)
        exact = [x.to(device, torch.float64) for x in inputs]
        rounded = [x.to(device, dtype) for x in inputs]
        # The truth for the numbers that the rounded inputs are.
        exact = [r.to(e.dtype) for r, e in zip(rounded, exact, strict=True)]
        truth = _phase_mix_results(exact, 'reference', split)
        standard = relative_error(_phase_mix_results(rounded, 'reference', split), truth)
        for backend in BACKENDS:
            try:
                results = _phase_mix_results(rounded, backend, split)
            except RuntimeError as error:
                if 'cannot run here' in str(error):
                    continue
                raise
            wrong = inequality(relative_error(results, truth), standard, dtype)
            if wrong:
                raise Unequal(f'phase_mix: backend {backend!r}, {shape}, split={split}: {wrong}')


def _phase_mix_inputs(
    shape: tuple[int, int, int, int], layout: torch.memory_format
) -> list[Tensor]:
    channels, generator = shape[1], torch.Generator().manual_seed(0)
    shapes = [shape] * 4 + [(channels, 2, 1, 7), (channels, 2, 7, 1)]
    maps = [torch.randn(s, generator=generator) for s in shapes]
    return [x.to(memory_format=layout) for x in maps[:4]] + maps[4:]


def _phase_mix_results(inputs: list[Tensor], backend: str, split: bool) -> dict[str, Tensor]:
    leaves = [x.clone().requires_grad_() for x in inputs]
    generator = torch.Generator().manual_seed(1)
    with use_backend(backend):
        outputs = phase_mix(*leaves, split=split)
        torch.autograd.backward(
            outputs, [torch.randn(o.shape, generator=generator).to(o) for o in outputs]
        )
    results = {f'output {i}': o.detach() for i, o in enumerate(outputs)}
    return results | {f'gradient {i}': x.grad for i, x in enumerate(leaves) if x.grad is not None}
