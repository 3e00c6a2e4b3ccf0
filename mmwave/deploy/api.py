"""Deploy a model: every part that has a deploy form is replaced by it."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import nn

from mmwave.errors import UserError


@runtime_checkable
class Deployable(Protocol):
    """A module with two forms that compute the same in eval mode.

    Attributes:
        deploy: whether this is the deploy form.
    """

    deploy: bool

    def deploy_form(self) -> tuple[nn.Module, tuple[str, ...]]:
        """Return a new module in deploy form and eval mode, and a line for each kind of fold."""
        ...


@dataclass(frozen=True)
class DeployReport:
    """What :func:`to_deploy` did.

    Attributes:
        fused: name of the part, ``''`` for the model itself -> what was folded in it.
        parameters: elements of all parameters before and after.
        tensors: entries of the state dict before and after.
    """

    fused: Mapping[str, tuple[str, ...]]
    parameters: tuple[int, int]
    tensors: tuple[int, int]

    def summary(self) -> str:
        """Return the counts in one line, and one line for each kind of thing that was folded."""
        lines = [
            f'{self.parameters[0]} parameters in {self.tensors[0]} tensors became '
            f'{self.parameters[1]} in {self.tensors[1]}'
        ]
        for name, folded in self.fused.items():
            lines += [f'  {name or "the model"}: folded {line}' for line in folded]
        return '\n'.join(lines)


def to_deploy(model: nn.Module) -> tuple[nn.Module, DeployReport]:
    """Return a new model, all parts with a deploy form in it; ``model`` stays unchanged.

    Args:
        model: a backbone, or anything that holds backbones: a classifier, a detector, a segmentor,
            a wrapper around one.

    Returns:
        The new model, in eval mode and on the same device, and what was done.

    Raises:
        UserError: where ``model`` is in deploy form already, or no part of it has a deploy form.
    """
    parts = _deployable(model)
    if not parts:
        raise UserError(f'{type(model).__name__} has no part with a deploy form: nothing to fold')
    done = [name or type(part).__name__ for name, part in parts.items() if part.deploy]
    if len(done) == len(parts):
        raise UserError(f'in deploy form already: {", ".join(done)}')
    fused = {}
    replacements: dict[int, nn.Module] = {}
    for name, part in parts.items():
        if not part.deploy:
            replacements[id(part)], fused[name] = part.deploy_form()
    # A copy in which the parts are not copied but found replaced.
    new = copy.deepcopy(model, dict(replacements)).eval()
    report = DeployReport(fused, *((f(model), f(new)) for f in (_parameters, _tensors)))
    return new, report


def _deployable(model: nn.Module) -> dict[str, Deployable]:
    """Return the outermost parts that have a deploy form, by name."""
    found: dict[str, Deployable] = {}
    for name, module in model.named_modules():
        inside = any(name.startswith(f'{outer}.' if outer else '') for outer in found)
        if isinstance(module, Deployable) and not inside:
            found[name] = module
    return found


def _parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def _tensors(model: nn.Module) -> int:
    return len(model.state_dict())
