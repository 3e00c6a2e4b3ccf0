"""The backbones that ``tests/models/backbones/test_contract.py`` is held against."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mmwave.models import MLPBackbone
from mmwave.registry import MODELS
from tests.families import FAMILIES

ROOT = Path(__file__).parent.parent
"""The top folder of the repository."""


def registered() -> dict[str, type[MLPBackbone]]:
    """Every backbone in mmwave's registry."""
    MODELS.import_from_location()
    return {n: c for n, c in MODELS.module_dict.items() if issubclass(c, MLPBackbone)}


def variants() -> list:
    """``(backbone, arch)`` as parameters: the smallest of each backbone, the others marked slow."""
    params = []
    for name, cls in sorted(registered().items()):
        for arch in cls.archs:
            marks = () if arch == FAMILIES[name].smallest else pytest.mark.slow
            params.append(pytest.param(name, arch, marks=marks, id=f'{name}-{arch}'))
    return params


def build(name: str, arch: object, **options: object) -> MLPBackbone:
    torch.manual_seed(0)
    return MODELS.build(dict(type=f'mmwave.{name}', arch=arch, **options))


def shallow(name: str, arch: str) -> Any:
    """The arch with as many blocks as the family's tiny one: every kind of block, none twice."""
    depths = {k: v for k, v in FAMILIES[name].tiny.items() if k == 'depths'}
    return replace(registered()[name].archs[arch], **depths)


def sketch(name: str, arch: str) -> Any:
    """An arch for what is the same at any width and slow to find out: tiny in quick tests."""
    sizes = shallow(name, arch)
    return type(sizes)(**FAMILIES[name].tiny) if arch == FAMILIES[name].smallest else sizes


def randomise_norms(model: torch.nn.Module) -> None:
    """Fill batch norms' statistics and parameters, so that no norm is close to the identity."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.running_mean.uniform_(-0.5, 0.5, generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
            with torch.no_grad():
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.uniform_(-0.5, 0.5, generator=generator)


def compiled(model: torch.nn.Module, **options: object) -> torch.nn.Module:
    """``model`` compiled without a backend, as in a fresh process.

    Dynamo counts the graphs of a forward over all models of a process and gives up after eight.
    """
    torch.compiler.reset()
    return torch.compile(model, backend='eager', **options)


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def total(outputs: tuple[Tensor, ...]) -> Tensor:
    """A loss that every element of every output pulls on differently.

    The weights keep its gradient from vanishing behind norms, which are blind to shifts and scales.
    """
    return sum((o * images(*o.shape, seed=i).to(o)).sum() for i, o in enumerate(outputs))


def relative_error(got: Tensor, wanted: Tensor) -> float:
    """Largest difference, in units of the largest value wanted."""
    return ((got - wanted).abs().max() / wanted.abs().max()).item()
