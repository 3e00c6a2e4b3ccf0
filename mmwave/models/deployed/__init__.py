"""Deploy forms: the functions of the backbones, fast, for inference alone.

``mmwave/models/deployed/<family>.py`` is optional and found by its name, see
:class:`DeployedFamily`. For each part of the train form that is computed in another way in deploy
form it holds a class, see :class:`Deployed`.
"""

import importlib
import importlib.util
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal, Protocol, cast

from torch import Tensor, nn

from mmwave.errors import UserError

_BACKBONES = 'mmwave.models.backbones.'


class Deployed(Protocol):
    """The class of a part in deploy form."""

    def __init__(self, part: nn.Module) -> None:
        """Build it for the sizes of ``part``, its values yet to be loaded; ``part`` is consumed."""

    @staticmethod
    def fold(part: nn.Module) -> Mapping[str, Tensor]:
        """Return the values that make it compute what ``part`` does: its state dict."""
        ...


class DeployedFamily(Protocol):
    """The module of a family's deploy form.

    Attributes:
        PARTS: name of a part's class in train form -> its class in deploy form. A part is the stem,
            a downsample, a block or an output norm. Those of other classes stay as they are.
        MARKS: ends of names of tensors: one that both forms have, one of the train form alone.
        STAGE: class of a stage, whose ``forward`` maps what goes into the stage to what comes out.
            Optional: :class:`Stage` calls the blocks one after the other.
    """

    PARTS: Mapping[str, type[Deployed]]
    MARKS: tuple[str, str]

    @staticmethod
    def report(backbone: Any) -> tuple[str, ...]:
        """What is folded in a backbone, given in train form: a line a kind."""
        ...


class Stage(nn.Sequential):
    """The blocks of a stage in deploy form."""

    def forward(self, x: Tensor, *context: Any) -> Tensor:  # type: ignore[override]
        """Map ``x`` through the blocks, each called with ``context`` as well."""
        for block in self:
            x = block(x, *context)
        return x


class ChannelsLastStage(Stage):
    """Blocks of maps (N, H, W, C) in a backbone of maps (N, C, H, W)."""

    def forward(self, x: Tensor, *context: Any) -> Tensor:  # type: ignore[override]
        """Map (N, C, H, W) through the blocks, each called with ``context`` as well."""
        return super().forward(x.permute(0, 2, 3, 1), *context).permute(0, 3, 1, 2)


def find_deployed_family(backbone: type) -> DeployedFamily | None:
    """The deploy form of a backbone's family; None where there is none.

    Args:
        backbone: the family's class, or a subclass of it.
    """
    for base in backbone.__mro__:
        if 'archs' in vars(base) and base.__module__.startswith(_BACKBONES):
            name = f'{__name__}.{base.__module__.removeprefix(_BACKBONES)}'
            if importlib.util.find_spec(name) is not None:
                return cast(DeployedFamily, importlib.import_module(name))
    return None


def deployed_family(backbone: type) -> DeployedFamily:
    """The deploy form of a backbone's family.

    Raises:
        ValueError: where there is none.
    """
    family = find_deployed_family(backbone)
    if family is None:
        raise UserError(f'{backbone.__name__} has no deploy form')
    return family


def replace_parts(backbone: Any, family: DeployedFamily) -> None:
    """Turn a train form into a deploy form, its values yet to be loaded."""

    def deployed(part: nn.Module) -> Any:
        name = type(part).__name__
        return family.PARTS[name](part) if name in family.PARTS else part

    stage = getattr(family, 'STAGE', Stage)
    backbone.stem = deployed(backbone.stem)
    backbone.downsamples = nn.ModuleList(map(deployed, backbone.downsamples))
    backbone.stages = nn.ModuleList(stage(*map(deployed, blocks)) for blocks in backbone.stages)
    backbone.out_norms = nn.ModuleDict({k: deployed(v) for k, v in backbone.out_norms.items()})


def folded_state(backbone: Any, family: DeployedFamily) -> dict[str, Tensor]:
    """The deploy form's state dict, computed from a train form."""
    state = {}
    for name, part in _parts(backbone):
        _check_class(name, part, family)
        kind = family.PARTS.get(type(part).__name__)
        tensors = part.state_dict() if kind is None else kind.fold(part)
        state |= {f'{name}.{key}': value for key, value in tensors.items()}
    return state


def _check_class(name: str, part: nn.Module, family: DeployedFamily) -> None:
    """Raise ``UserError`` for a part of a class of somebody else's, made of one that is fused."""
    kind = type(part)
    known = [base.__name__ for base in kind.__mro__ if base.__name__ in family.PARTS]
    if known and not (kind.__name__ in known and kind.__module__.startswith('mmwave.')):
        raise UserError(
            f'{name} is a {kind.__module__}.{kind.__qualname__}, not a {known[0]} of mmwave, and '
            'has no deploy form: it may compute something else'
        )


def form_of(names: Collection[str], family: DeployedFamily) -> Literal['train', 'deploy'] | None:
    """Which form weights of these names are of; None where the names do not determine it."""
    both, train = family.MARKS
    if not any(name.endswith(both) for name in names):
        return None
    return 'train' if any(name.endswith(train) for name in names) else 'deploy'


def _parts(backbone: Any) -> Iterator[tuple[str, nn.Module]]:
    """The parts of a backbone, with their names."""
    yield 'stem', backbone.stem
    for i, part in enumerate(backbone.downsamples):
        yield f'downsamples.{i}', part
    for i, blocks in enumerate(backbone.stages):
        for j, block in enumerate(blocks):
            yield f'stages.{i}.{j}', block
    for key, norm in backbone.out_norms.items():
        yield f'out_norms.{key}', norm
