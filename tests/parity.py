"""The weights and images behind the golden numbers in ``tests/data``: drawn from their own names.

A golden number is what a published implementation computes in eval mode when every tensor of its
state dict is :func:`weight` of the tensor's published name, and the images are :func:`image`.
"""

import math
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmwave.checkpoint import read_checkpoint
from mmwave.convert import convert_file
from mmwave.models import MLPBackbone
from tests.contracts import build, relative_error


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
        assert error_at_samples(output, wanted) < bound
    assert relative_error(logits, torch.tensor(golden['logits'], dtype=torch.float64)) < bound


def converted(
    golden: Mapping[str, Any], shapes: Mapping[str, Iterable[int]], backbone: str, folder: Path
) -> tuple[MLPBackbone, dict[str, Tensor]]:
    """A golden's published file, converted: our backbone in float64, and the file's tensors.

    Args:
        golden: ``arch``, ``params``, and ``outputs`` where it is of the published dense form.
        shapes: published names and shapes.
        backbone: name of our class.
        folder: where files may be written.
    """
    learned = {k: s for k, s in shapes.items() if not k.endswith(_COUNTED)}
    assert sum(torch.Size(shape).numel() for shape in learned.values()) == golden['params']
    torch.save(state_dict(shapes.items()), folder / 'published.pth')
    convert_file(folder / 'published.pth', folder / 'ours.pth')
    content = read_checkpoint(folder / 'ours.pth')
    assert content['meta']['backbone'] == {'type': f'mmwave.{backbone}', 'arch': golden['arch']}
    state = content['state_dict']
    levels = (0, 1, 2, 3) if 'outputs' in golden else (3,)
    model = build(backbone, golden['arch'], out_indices=levels).double().eval()
    own = {k.removeprefix('backbone.'): v for k, v in state.items() if k.startswith('backbone.')}
    model.load_state_dict(own, strict=True)
    return model, state


_COUNTED = ('running_mean', 'running_var', 'num_batches_tracked')
"""Ends of names of tensors that are no parameters."""


def assert_outputs(
    model: MLPBackbone, state: Mapping[str, Tensor], golden: Mapping[str, Any], bound: float
) -> None:
    """Hold dense outputs, or the logits, of :func:`converted` against the golden, elementwise."""
    with torch.no_grad():
        outputs = model(image(golden['input']).double())
    if 'outputs' in golden:
        for output, wanted in zip(outputs, golden['outputs'], strict=True):
            assert error_at_samples(output, wanted) < bound
        return
    weight, bias = state['head.fc.weight'].double(), state['head.fc.bias'].double()
    logits = outputs[0].mean(dim=(2, 3)) @ weight.T + bias
    assert relative_error(logits, torch.tensor(golden['logits'], dtype=torch.float64)) < bound


def error_at_samples(output: Tensor, wanted: Mapping[str, Any]) -> float:
    """Relative error of a map at a golden's samples of it: ``shape``, ``index`` and ``value``."""
    assert list(output.shape) == wanted['shape']
    values = torch.tensor(wanted['value'], dtype=torch.float64)
    return relative_error(output.flatten()[wanted['index']], values)
