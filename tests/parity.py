"""The weights and images behind the golden numbers in ``tests/data``: drawn from their own names.

A golden number is what a published implementation computes in eval mode when every tensor of its
state dict is :func:`weight` of the tensor's published name, and the images are :func:`image`.
"""

import math
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmwave.models import MLPBackbone
from tests.contracts import relative_error


def _normal(seed: int, shape: Iterable[int]) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(seed)).standard_normal(tuple(shape))


def weight(name: str, shape: Iterable[int]) -> Tensor:
    """The tensor called ``name``: float32, or int64 zeros for a batch counter."""
    shape = tuple(shape)
    if name.endswith('num_batches_tracked'):
        return torch.zeros(shape, dtype=torch.int64)
    drawn = _normal(zlib.crc32(name.encode()), shape)
    if name.endswith('running_var'):
        drawn = 1 + 0.1 * np.abs(drawn)
    elif len(shape) > 1:
        drawn = drawn / np.sqrt(math.prod(shape[1:]))
    else:
        drawn = 0.1 * drawn + (1 if name.endswith('weight') else 0)
    return torch.from_numpy(np.asarray(drawn, dtype=np.float32))


def image(shape: Iterable[int], seed: int = 0) -> Tensor:
    """Float32 images of ``shape`` (N, C, H, W)."""
    return torch.from_numpy(_normal(seed, shape).astype(np.float32))


def state_dict(names_and_shapes: Iterable[tuple[str, Iterable[int]]]) -> dict[str, Tensor]:
    """``{name: weight(name, shape)}``."""
    return {name: weight(name, shape) for name, shape in names_and_shapes}


def assert_golden(
    model: MLPBackbone, state: Mapping[str, Tensor], golden: Mapping[str, Any], bound: float
) -> None:
    """Hold a published classifier's raw maps and logits against a golden, elementwise.

    Args:
        model: the backbone, whose output norms are for maps with channels last; it is changed.
        state: our names, ``backbone.*`` and ``head.fc.*``.
        golden: ``input``, ``stages`` and ``logits``.
        bound: largest relative error.
    """
    model = model.double().eval()
    own = {k.removeprefix('backbone.'): v for k, v in state.items() if k.startswith('backbone.')}
    missing, unexpected = model.load_state_dict(own, strict=False)
    assert not unexpected
    assert all(name.startswith('out_norms.') for name in missing)
    last = model.out_norms['3']
    model.out_norms = nn.ModuleDict({str(i): nn.Identity() for i in range(4)})
    with torch.no_grad():
        outputs = model(image(golden['input']).double())
        logits = last(outputs[3].permute(0, 2, 3, 1)).mean(dim=(1, 2))
        logits = logits @ state['head.fc.weight'].double().T + state['head.fc.bias'].double()
    for output, wanted in zip(outputs, golden['stages'], strict=True):
        assert list(output.shape) == wanted['shape']
        values = torch.tensor(wanted['value'], dtype=torch.float64)
        assert relative_error(output.flatten()[wanted['index']], values) < bound
    assert relative_error(logits, torch.tensor(golden['logits'], dtype=torch.float64)) < bound
