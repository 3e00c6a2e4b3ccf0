"""Convert trained checkpoints to their deploy form."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import nn

from mmwave import __version__
from mmwave.checkpoint import (
    check_settings,
    load_matching,
    not_finite_line,
    read_checkpoint,
    sha256_of,
    source_and_target,
    state_dict_of,
    write_checkpoint,
)
from mmwave.deploy import Deployable, DeployReport, to_deploy
from mmwave.engine.console import console
from mmwave.engine.model_wrapper import unwrapped_settings
from mmwave.errors import UserError, printable

from .building import build_model
from .libraries import check_libraries
from .run import load_config

_SIZES = ((96, 160), (288, 352))  # one window or a part of it, and several, all padded
_EXACT = 1e-9
_PRECISIONS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class DeployedFile:
    """What :func:`deploy_checkpoint` wrote.

    Attributes:
        report: what was folded.
        exact: largest difference of any output between the two forms in float64, in units of the
            output's largest value.
        stored: the same after the deploy form was rounded to the checkpoint's precision.
        options: what the config needs to build the deploy form, as ``--cfg-options`` accepts it.
        damage: how many NaN and infinite values the weights hold, empty where there are none.
    """

    report: DeployReport
    exact: float
    stored: float
    options: tuple[str, ...]
    damage: str = ''


def deploy_checkpoint(
    config: str,
    checkpoint: str,
    dst: str,
    *,
    cfg_options: Mapping[str, Any] | None = None,
    trust_checkpoint: bool = False,
    verbose: bool = False,
) -> DeployedFile:
    """Write the deploy form of a trained model's weights, once it is proven equal.

    The file loads strictly into the model that the config builds with ``deploy=True`` in its
    backbone, and names in its ``meta``: source, sha256 (of the source), mmwave_version, backbone
    (the deployed backbone's config), and the source's description of its data set.

    Args:
        config: of the classifier, detector or segmentor.
        checkpoint: its weights, all of them.
        dst: ``.pth`` or ``.safetensors``.
        cfg_options: dotted keys and the values that replace the config's.
        trust_checkpoint: read a checkpoint that runs code when it is read.
        verbose: show what the libraries print.

    Raises:
        MissingFileError: where the checkpoint or the folder of ``dst`` are missing.
        UserError: where the weights do not fit the config, one to one, are in deploy form already
            or were noted to need other settings, the model has no deploy form, ``dst`` is
            ``checkpoint`` or cannot be written, or the two forms differ by more than 1e-9.
    """
    if not checkpoint:
        raise UserError('the path of the checkpoint is empty')
    source, target = source_and_target(checkpoint, dst)
    with console(verbose):
        return _deploy(config, source, target, checkpoint, cfg_options, trust_checkpoint)


def _deploy(
    config: str,
    source: Path,
    target: Path,
    checkpoint: str,
    cfg_options: Mapping[str, Any] | None,
    trust: bool,
) -> DeployedFile:
    cfg = load_config(config, cfg_options=cfg_options)
    check_libraries(cfg)
    content = read_checkpoint(source, trust=trust)
    state = state_dict_of(content)
    model = build_model(cfg)
    modules = model.named_modules()
    built = [name for name, part in modules if isinstance(part, Deployable) and part.deploy]
    if built:
        raise UserError(
            f'the config builds {", ".join(built)} in deploy form: leave deploy=True out'
        )
    loaded = load_matching(model, state, min_fraction=1.0, source=checkpoint)
    if loaded.unexpected:
        raise UserError(f'{loaded.summary()}\n  the config builds a smaller model')
    check_settings(model, content, checkpoint)
    meta = content.get('meta') if isinstance(content, Mapping) else None
    if meta is not None and not isinstance(meta, Mapping):
        raise UserError(f'the meta of {checkpoint} is of type {type(meta).__name__}, not a dict')
    precision = next(v.dtype for v in state.values() if v.is_floating_point())
    if precision not in _PRECISIONS:
        raise UserError(
            f'the weights are of {precision}, which no layer computes with: cast them to one of '
            f'{", ".join(map(str, _PRECISIONS))}'
        )
    damage = not_finite_line(dict(loaded.not_finite))
    new, report = to_deploy(model.double().eval())
    exact = _difference(model, new, report)
    if not exact <= _EXACT:
        raise UserError(
            f'the deploy form differs by {exact:.1e} from the train form, more than {_EXACT:.0e}: '
            f'nothing was written{f"; {damage}" if damage else ""}'
        )
    stored = _difference(model, new.to(precision), report)
    parts = _switch(cfg, report)
    _check_against(new, build_model(cfg))
    published = new.get_submodule(next(iter(report.fused))).published
    settings = {k: parts[0][k] for k in ('type', 'arch', 'deploy', *published) if k in parts[0]}
    write_checkpoint(target, new.state_dict(), _meta(meta or {}, source, settings))
    place = 'model' if unwrapped_settings(cfg.model) is cfg.model else 'model.module'
    options = tuple('.'.join(filter(None, (place, name, 'deploy=True'))) for name in report.fused)
    return DeployedFile(report, exact, stored, options, damage)


@torch.no_grad()
def _difference(model: nn.Module, new: nn.Module, report: DeployReport) -> float:
    """Return the largest relative difference between outputs of a part and its deploy form."""
    worst = 0.0
    generator = torch.Generator().manual_seed(0)
    for name in report.fused:
        train, deployed = model.get_submodule(name), new.get_submodule(name)
        kind = next(deployed.parameters()).dtype
        accepted = train.size_constraint
        for size in (accepted.only,) if accepted.only else _SIZES:
            steps = accepted.divisors
            sides = (-(-s // step) * step for s, step in zip(size, steps, strict=True))
            x = torch.randn(1, train.in_channels, *sides, generator=generator).double()
            for wanted, got in zip(train(x), deployed(x.to(kind)), strict=True):
                error = ((got - wanted).abs().max() / wanted.abs().max()).item()
                worst = max(worst, error) if error == error else float('inf')
    return worst


def _switch(cfg: Config, report: DeployReport) -> list[dict[str, Any]]:
    """Set ``deploy=True`` in the configs of the deployed parts, which are returned."""
    nodes = []
    for name in report.fused:
        node = unwrapped_settings(cfg.model)
        for part in filter(None, name.split('.')):
            if part not in node:
                raise UserError(f'{name} was folded, but the config has no model.{name} to deploy')
            node = node[part]
        node.deploy = True
        # Plain data: a file with a ConfigDict asks for code when it is read.
        nodes.append(node.to_dict())
    return nodes


def _check_against(new: nn.Module, wanted: nn.Module) -> None:
    """Raise unless the file has the names and shapes of what the config builds."""
    ours, theirs = ({k: v.shape for k, v in m.state_dict().items()} for m in (new, wanted))
    if ours != theirs:
        raise UserError(
            'the deploy form is not what the config builds with deploy=True: '
            f'{sorted(k for k in ours.keys() | theirs.keys() if ours.get(k) != theirs.get(k))}'
        )


def _meta(given: Mapping[str, Any], source: Path, settings: dict[str, Any]) -> dict[str, Any]:
    wanted = {'dataset_meta': Mapping, 'family': str, 'arch': str, 'licence': str}
    kept = {k: given[k] for k, kind in wanted.items() if isinstance(given.get(k), kind)}
    return {
        **kept,
        'source': printable(source.name),
        'sha256': sha256_of(source),
        'mmwave_version': __version__,
        'backbone': settings,
    }
