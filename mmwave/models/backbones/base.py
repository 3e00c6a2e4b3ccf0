"""What every backbone shares: settings, outputs, freezing, both forms, depth of parameters."""

import copy
import inspect
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Protocol, Self, TypedDict

import torch
from torch import Tensor, nn

from mmwave.models.deployed import deployed_family, folded_state, replace_parts
from mmwave.models.layers import PointwiseConv, batch_norms
from mmwave.models.recompute import checkpointed, is_recomputable, selective_recompute
from mmwave.structures import SizeConstraint, StageInfo

from .arch import check_rate
from .pretrained import PretrainedModule


def drop_path_rates(rate: float, depths: Sequence[int]) -> list[list[float]]:
    """The rate of every block of every stage: linear from 0 at the first to ``rate`` at the last.

    Raises:
        ValueError: for a rate out of 0 .. 1, 1 excluded.
    """
    check_rate('drop_path_rate', rate)
    depth = sum(depths)
    rates = iter([rate * k / max(depth - 1, 1) for k in range(depth)])
    return [[next(rates) for _ in range(blocks)] for blocks in depths]


def init_linear(module: nn.Module) -> None:
    """Draw the weights of a linear layer with a deviation of 0.02 and zero its bias.

    For ``module.apply``: other layers are left as they are. A 1 x 1 convolution is a linear layer.
    """
    if isinstance(module, nn.Linear | PointwiseConv):
        from mmengine.model import trunc_normal_init  # see Module

        trunc_normal_init(module, std=0.02)


class BackboneSettings(TypedDict, total=False):
    """The arguments that every backbone accepts beside its arch and those of its own.

    Attributes:
        in_channels: channels of the images. Default: 3.
        out_indices: stages to output, increasing; negative ones count from the last. Default: all.
        drop_path_rate: probability to drop the last block's branches in training; it grows linearly
            from 0 over the blocks of all stages. Default: 0.
        frozen_stages: -1, the default, freezes nothing, 0 the stem, k the stem and the first k
            stages, with the downsamples before them and their output norms. Frozen norms keep their
            statistics.
        norm_eval: keep every batch norm in eval mode during training, so that it uses the
            statistics it was loaded with and does not update them. Default: False.
        with_cp: recompute all of a block's activations in the backward pass instead of storing
            them. Default: False.
        lean: in training, recompute the outputs of norms, activations and gates in the backward
            pass instead of storing them: the same gradients in less memory; see
            :mod:`mmwave.models.recompute`. ``with_cp`` goes further and needs no ``lean``. Default:
            True.
        deploy: build the deploy form, the same function for inference alone, with norms folded and
            projections merged; see :mod:`mmwave.models.deployed`. It loads the weights that
            :func:`mmwave.deploy.to_deploy` makes. Default: False.
        act_cfg: activation of the MLPs. Default, as published: ``dict(type='GELU')``; weights
            from MindSpore or Google need ``dict(type='GELU', approximate='tanh')``.
        init_cfg: mmengine init config. ``dict(type='Pretrained', checkpoint=PATH)`` is loaded
            without running code from the file, is logged with counts, and raises where under half
            of the tensors match.
    """

    in_channels: int
    out_indices: int | Sequence[int]
    drop_path_rate: float
    frozen_stages: int
    norm_eval: bool
    with_cp: bool
    lean: bool
    deploy: bool
    act_cfg: dict | None
    init_cfg: dict | list[dict] | None


class BackboneFamily(Protocol):
    """What the class of a family states about itself, beside its four parts.

    Attributes:
        archs: the family's named archs, frozen dataclasses.
        published: settings that a converted file stands for where it names none.
        adaptable: those of them that weights may be loaded with another value of.
    """

    archs: ClassVar[Mapping[str, Any]]
    published: ClassVar[Mapping[str, Any]]
    adaptable: ClassVar[frozenset[str]]


GELU = MappingProxyType({'type': 'GELU'})
"""Config of the published activation."""


class MLPBackbone(PretrainedModule):
    """A backbone of four parts: ``stem``, ``downsamples``, ``stages`` and ``out_norms``.

    A subclass is a :class:`BackboneFamily`. It calls ``__init__``, builds the four parts of these
    names, then calls :meth:`finish`. ``downsamples[i - 1]`` stands before ``stages[i]``. Stages
    behind the last output are not built and a stage that is not in ``out_indices`` owns no output
    norm: every parameter is used in every step, as DDP needs it.

    Args:
        arch: the architecture, an entry of ``archs`` or one like it.
        channels: channels of every stage of the architecture.
        strides: input pixels per step of every stage's map.
        size_constraint: accepted image sizes.

    The other arguments are those of :class:`BackboneSettings`.

    Raises:
        TypeError: for an unknown argument; the message lists the accepted ones.
        ValueError: for ``out_indices``, ``frozen_stages`` or ``drop_path_rate`` out of range.
    """

    def __init__(
        self,
        arch: Any,
        *,
        channels: Sequence[int],
        strides: Sequence[int],
        size_constraint: SizeConstraint | None = None,
        in_channels: int = 3,
        out_indices: int | Sequence[int] = (0, 1, 2, 3),
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        lean: bool = True,
        deploy: bool = False,
        act_cfg: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
        **unknown: Any,
    ) -> None:
        self._check_names(unknown)
        super().__init__(init_cfg=init_cfg)
        check_rate('drop_path_rate', drop_path_rate)
        self.arch = arch
        self.in_channels = in_channels
        self.out_indices = _normalise_indices(out_indices, len(channels))
        self.stage_info = tuple(StageInfo(channels[i], strides[i]) for i in self.out_indices)
        self.num_stages = self.out_indices[-1] + 1
        if not -1 <= frozen_stages <= self.num_stages:
            raise ValueError(
                f'frozen_stages={frozen_stages} is out of range: expected -1 (nothing) '
                f'to {self.num_stages}'
            )
        self.drop_path_rate = drop_path_rate
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.with_cp = with_cp
        self.lean = lean
        self.deploy = deploy
        self.act_cfg = dict(act_cfg or GELU)
        self.size_constraint = size_constraint or SizeConstraint()

    archs: ClassVar[Mapping[str, Any]]
    published: ClassVar[Mapping[str, Any]] = MappingProxyType({'act_cfg': dict(GELU)})

    def __new__(cls, *args: Any, **settings: Any) -> Self:
        # Here too, before a family passes on what it was given beside arguments of its own. A
        # subclass of a family may accept others.
        first = next(base for base in cls.__mro__ if '__init__' in vars(base))
        if 'archs' in vars(first):
            cls._check_names(settings)
        return super().__new__(cls)

    @classmethod
    def _check_names(cls, given: Iterable[str]) -> None:
        accepted = cls.arguments()
        for name in given:
            if name not in accepted:
                raise TypeError(
                    f'{cls.__name__} got an unexpected keyword argument {name!r}: expected one of '
                    f'{", ".join(accepted)}'
                )

    @classmethod
    def arguments(cls) -> tuple[str, ...]:
        """Names of the accepted arguments, the family's own first."""
        names: list[str] = []
        for base in cls.__mro__:
            if '__init__' in vars(base):
                given = list(inspect.signature(vars(base)['__init__']).parameters.values())[1:]
                names += [p.name for p in given if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
            if 'archs' in vars(base):
                break
        return tuple(dict.fromkeys([*names, *BackboneSettings.__annotations__]))

    # The four parts; annotated here so that readers and type checkers know them.
    stem: nn.Module
    downsamples: nn.ModuleList
    stages: nn.ModuleList
    out_norms: nn.ModuleDict

    def check_input(self, x: Tensor) -> None:
        """Raise ``ValueError`` unless ``x`` is (N, in_channels, H, W) of an accepted image size."""
        if x.dim() != 4:
            raise ValueError(
                f'expected a batch (N, C, H, W), got a tensor of shape {tuple(x.shape)}'
            )
        if x.shape[1] != self.in_channels:
            raise ValueError(
                f'expected images of {self.in_channels} channels (in_channels), got {x.shape[1]}'
            )
        self.size_constraint.check(x.shape[2], x.shape[3])

    def run_stage(self, index: int, x: Tensor) -> Tensor:
        """Map (N, C, H, W) through the downsample before stage ``index`` and through its blocks."""
        if index:
            x = self.run_part(self.downsamples[index - 1], x)
        return self.run_blocks(index, x)

    def run_blocks(self, index: int, x: Tensor, *context: Any) -> Tensor:
        """Map ``x`` through the blocks of stage ``index``, each called with ``context`` as well."""
        blocks = self.stages[index]
        return blocks(x, *context) if self.deploy else self.run_each(blocks, x, *context)

    def run_each(self, blocks: Any, x: Tensor, *context: Any) -> Tensor:
        """Map ``x`` through blocks in train form, for a family to override that passes on more."""
        for block in blocks:
            x = self.run_block(block, x, *context)
        return x

    def run_block(self, block: nn.Module, x: Tensor, *context: Any) -> Any:
        """Call a block, recomputed in the backward pass as ``with_cp`` and ``lean`` ask for."""
        if self.with_cp and self.training and torch.is_grad_enabled():
            return checkpointed(block, x, *context)
        return self.run_part(block, x, *context)

    def run_part(self, part: nn.Module, x: Tensor, *context: Any) -> Any:
        """Call a part of the backbone, with selective recomputation where ``lean`` is on."""
        # In this order: inference need not look through the part's modules.
        lean = self.lean and torch.is_grad_enabled() and is_recomputable(part)
        with selective_recompute(lean):
            return part(x, *context)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map images (N, in_channels, H, W) to the levels that ``stage_info`` describes."""
        self.check_input(x)
        outputs = []
        x = self.run_part(self.stem, x)
        for i in range(self.num_stages):
            x = self.run_stage(i, x)
            if i in self.out_indices:
                outputs.append(self.out_norms[str(i)](x))
        return tuple(outputs)

    def train(self, mode: bool = True) -> 'MLPBackbone':
        super().train(mode)
        if mode:
            self.freeze()
            if self.norm_eval:
                for norm in batch_norms(self):
                    norm.eval()
        return self

    def finish(self) -> None:
        """Bring the built parts into the form that is asked for, and freeze ``frozen_stages``.

        Raises:
            ValueError: for ``deploy=True`` where the family has no deploy form.
        """
        if self.deploy:
            replace_parts(self, deployed_family(type(self)))
        self.freeze()

    def freeze(self) -> None:
        """Exclude what ``frozen_stages`` names from training."""
        for part in self._frozen_parts():
            part.eval()
            part.requires_grad_(False)

    def _frozen_parts(self) -> list[nn.Module]:
        if self.frozen_stages < 0:
            return []
        k = self.frozen_stages
        norms = [self.out_norms[str(i)] for i in self.out_indices if i < k]
        return [self.stem, *self.downsamples[: max(k - 1, 0)], *self.stages[:k], *norms]

    def deploy_form(self) -> tuple['MLPBackbone', tuple[str, ...]]:
        """Return a new backbone in deploy form and eval mode, and what was folded: a line a kind.

        It computes the same. What serves training alone (drop path, freezing, ``lean``,
        ``with_cp``) is left out.

        Raises:
            ValueError: where this is the deploy form already, the family has none, or this is a
                subclass of a family's class, which may compute something else.
        """
        name = type(self).__name__
        if self.deploy:
            raise ValueError(f'this {name} is in deploy form already')
        if 'archs' not in vars(type(self)):
            raise ValueError(f'{name} needs a deploy_form of its own')
        family = deployed_family(type(self))
        settings = {
            key: getattr(self, key)
            for key in self.arguments()
            if hasattr(self, key) and key not in ('arch', *_TRAINING)
        }
        with torch.random.fork_rng(devices=[]):  # random weights that are overwritten
            twin = type(self)(self.arch, **settings | {'deploy': True})
        exact = copy.deepcopy(self).to('cpu', torch.float64)  # so that results are rounded once
        twin.to(next(self.parameters())).load_state_dict(folded_state(exact, family))
        return twin.eval(), family.report(self)

    @property
    def num_blocks(self) -> int:
        """Blocks of all stages."""
        return sum(len(stage) for stage in self.stages)

    def layer_depth(self, name: str) -> tuple[int, int]:
        """Depth of a parameter, for learning rates that decay towards the input.

        Args:
            name: name of a parameter or buffer of this backbone.

        Returns:
            ``(depth, total)``: 0 for the stem, 1 .. B for the B blocks with the downsample before a
            stage counted to its first block, ``total - 1`` for output norms (and a head); total = B
            + 2.

        Raises:
            ValueError: where the name belongs to no part of a backbone.
        """
        first, starts = 1, []
        for stage in self.stages:
            starts.append(first)
            first += len(stage)
        total = first + 1
        part, *rest = name.split('.')
        if part == 'stem':
            return 0, total
        if part == 'downsamples':
            return starts[int(rest[0]) + 1], total
        if part == 'stages':
            return starts[int(rest[0])] + int(rest[1]), total
        if part == 'out_norms':
            return total - 1, total
        raise ValueError(
            f'{name!r} belongs to none of stem, downsamples, stages, out_norms '
            f'of {type(self).__name__}'
        )

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """:meth:`layer_depth` as mmpretrain's optimizer constructor calls it."""
        if not param_name.startswith(prefix):
            total = self.layer_depth('stem')[1]
            return total - 1, total
        return self.layer_depth(param_name[len(prefix) :])


_TRAINING = ('drop_path_rate', 'frozen_stages', 'norm_eval', 'with_cp', 'lean', 'init_cfg')
"""Settings that a deploy form is built without."""


def _normalise_indices(out_indices: int | Sequence[int], num_stages: int) -> tuple[int, ...]:
    given = (out_indices,) if isinstance(out_indices, int) else tuple(out_indices)
    if not given or any(not -num_stages <= i < num_stages for i in given):
        raise ValueError(
            f'out_indices={given} is out of range: expected at least one stage of '
            f'{-num_stages} .. {num_stages - 1}'
        )
    indices = tuple(i % num_stages for i in given)
    if list(indices) != sorted(set(indices)):
        raise ValueError(f'out_indices={given} must name each stage once, in increasing order')
    return indices
