"""Whether two forms compute the same, as exactly as their dtype allows."""

from collections.abc import Mapping

import torch
from torch import Tensor

from mmwave.ops import phase_mix
from mmwave.ops.backend import BACKENDS, use_backend

SLACK = 2
"""How many times the standard's own rounding error the error of a form may be."""
COARSE = 1e-2
"""Relative error that is always allowed to a peer in another layout, compiled or of a library.

Torch's batch norms are less exact in NHWC: gradients of a whole RepMLPNet in float32 are off by
2e-3. This must not cost a peer its faster layout; another function is off by far more.
"""
KINKED = 2e-4
"""Relative error that is always allowed to a training step's gradients.

Rounding may move a value to the other side of a ReLU's kink. By this the same published code
differs by 3e-5 between its two layouts, for Wave-MLP at 224 x 224.
"""


class Unequal(RuntimeError):
    """Two things that are to be measured against each other do not compute the same."""


def relative_error(got: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> float:
    """Return the largest of :func:`relative_errors`."""
    return worst(relative_errors(got, wanted))


def worst(errors: Mapping[str, float]) -> float:
    """Return the largest of several errors; NaN if one is NaN."""
    # Not Python's max(), which may drop a NaN.
    return float(torch.tensor(list(errors.values()), dtype=torch.float64).max())


def relative_errors(got: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the norm of the error over the norm of the wanted tensor, by name.

    Raises:
        Unequal: where names or shapes differ.
    """
    shapes = [{name: tuple(x.shape) for name, x in tensors.items()} for tensors in (got, wanted)]
    if shapes[0] != shapes[1]:
        raise Unequal(f'it returns {shapes[0]} instead of {shapes[1]}')
    errors = {}
    for name, tensor in wanted.items():
        truth = tensor.double()
        errors[name] = float((got[name].double() - truth).norm() / truth.norm())
    return errors


def inequality(error: float, standard: float, dtype: torch.dtype, *, at_least: float = 0.0) -> str:
    """Return why a form is less exact than the standard allows; empty where it is not.

    Args:
        error: :func:`relative_error` of the form's outputs in ``dtype`` to the standard's outputs
            in a wider one.
        standard: the same of the standard.
        dtype: what both compute in. :data:`SLACK` times the standard's error is allowed, and one
            rounding. Where either error is NaN, nothing is.
        at_least: error that is allowed in any case.
    """
    # In this order NaN stays NaN, and nothing is below it.
    allowed = max(SLACK * standard, torch.finfo(dtype).eps, at_least)
    if error <= allowed:
        return ''
    return f'relative error {error:.1e} is above {allowed:.1e}, the standard has {standard:.1e}'


def check_phase_mix(dtype: torch.dtype, device: torch.device | str = 'cpu') -> None:
    """Raise unless every backend of the op that runs here computes what the reference does.

    Values and gradients of all inputs are compared, at sizes that are no multiple of a kernel's
    block, for both orders of the channels and both memory layouts.

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
        # What is exact for the rounded inputs.
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
