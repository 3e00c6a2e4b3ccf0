"""What the model of a config costs at given image sizes, whatever its task."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor, nn

from mmwave.apis import load_config
from mmwave.apis.building import build_model
from mmwave.deploy import to_deploy
from mmwave.engine.console import console
from mmwave.engine.cpu import adapt_to_cpu
from mmwave.engine.model_wrapper import unwrapped_settings
from mmwave.errors import UserError

from .complexity import count_macs, count_params
from .memory import peak_bytes
from .timing import Ratio, Timing, alternate
from .windows import Size, window_filling


@dataclass(frozen=True, kw_only=True)
class FormCost:
    """Time and memory of one form of a model, for one batch.

    Attributes:
        time: of the rounds.
        peak: bytes of the forward pass beyond weights and images.
    """

    time: Timing
    peak: int


@dataclass(frozen=True, kw_only=True)
class SizeCost:
    """What a model costs at one image size.

    Attributes:
        size: of the image, as the model receives it.
        macs: part -> multiply-accumulates for one image.
        filling: share of the windows' area that the image fills, None without windows.
        forms: ``'train'`` and, where there is one, ``'deploy'``; empty where nothing was timed.
        gain: speed-up of the deploy form, None where there is none.
    """

    size: Size
    macs: Mapping[str, int]
    filling: float | None
    forms: Mapping[str, FormCost]
    gain: Ratio | None


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """What :func:`info` found.

    Attributes:
        name: of the model's class.
        params: part -> elements of its parameters.
        counted: the parts that MACs, time and memory are of.
        left_out: parts that they are not of, whose work depends on the image.
        batch: images at a time, where time and memory were measured.
        sizes: one entry for each.
        no_deploy: why there is no deploy form; empty where there is one, or nothing was timed.
    """

    name: str
    params: Mapping[str, int]
    counted: tuple[str, ...]
    left_out: tuple[str, ...]
    batch: int
    sizes: tuple[SizeCost, ...]
    no_deploy: str


def info(
    config: str,
    *,
    sizes: Sequence[Size] = (),
    batch: int = 1,
    device: str = 'cpu',
    repeats: int = 7,
    timed: bool = True,
    cfg_options: Mapping[str, Any] | None = None,
    verbose: bool = False,
) -> ModelInfo:
    """Count and measure the model of ``config`` in eval mode, with random weights.

    Measured are the backbone, the neck and the heads that see whole maps: the classifier, a
    detector's dense head, a segmentor's decode head. What follows depends on the image: the heads
    of regions of a two-stage detector, non-maximum suppression.

    Args:
        config: a config file, or the name of a shipped config.
        sizes: height and width of images; by default that of the config's test pipeline.
        batch: images at a time, for time and memory.
        device: where these are measured.
        repeats: rounds of the forms in turn.
        timed: whether time and memory are measured; counts need neither weights nor arithmetic.
        cfg_options: dotted keys and the values that replace the config's.
        verbose: show what the libraries print.

    Raises:
        UserError: where the config is none of a model with a backbone, the backbone does not accept
            a size, or an argument is out of range.
    """
    for name, value, least in (('batch', batch, 1), ('repeats', repeats, 2)):
        if value < least:
            raise UserError(f'{name}={value} must be at least {least}')
    with console(verbose):
        cfg = load_config(config, cfg_options=cfg_options)
        cfg.model = unwrapped_settings(cfg.get('model') or {})
        if 'backbone' not in cfg.model:
            raise UserError(f'{config} has no model.backbone')
        return _info(cfg, tuple(sizes) or (image_size(cfg),), batch, device, repeats, timed)


def _info(
    cfg: Config, sizes: tuple[Size, ...], batch: int, device: str, repeats: int, timed: bool
) -> ModelInfo:
    meta = _built(cfg, 'meta')
    _check_sizes(meta, sizes)
    costs: dict[Size, tuple[dict[str, FormCost], Ratio | None]] = {}
    no_deploy = ''
    if timed:
        costs, no_deploy = _measured(cfg, sizes, batch, device, repeats)
    parts = dense_parts(meta)
    params = {name: count_params(part) for name, part in meta.named_children()}
    found = []
    for size in sizes:
        forms, gain = costs.get(size, ({}, None))
        found.append(
            SizeCost(
                size=size,
                macs=_macs(parts, _images(cfg, 1, size, 'meta')),
                filling=window_filling(cfg.model.backbone, size),
                forms=forms,
                gain=gain,
            )
        )
    return ModelInfo(
        name=type(meta).__name__,
        params=params,
        counted=tuple(parts),
        left_out=tuple(name for name in params if name not in parts and params[name]),
        batch=batch,
        sizes=tuple(found),
        no_deploy=no_deploy,
    )


def image_size(cfg: Config) -> Size:
    """Return height and width of the images that a config is about.

    Of a segmentor that is the crop it is trained on, else what the test pipeline makes. Of one that
    keeps the ratio of the sides it is the largest, padded as the data preprocessor pads it.

    Raises:
        UserError: where the config states none.
    """
    preprocessor = cfg.model.get('data_preprocessor') or {}
    split = 'train' if cfg.get('default_scope') == 'mmseg' else 'test'
    loader = cfg.get(f'{split}_dataloader') or cfg.get('val_dataloader') or {}
    steps = (loader.get('dataset') or {}).get('pipeline') or ()
    found = [step for step in steps if step.get('crop_size') or step.get('scale')]
    if not found:
        raise UserError("the config's pipeline states no image size: give one (--size)")
    # A crop is (height, width), a scale that an image is resized to (width, height).
    sides = found[-1].get('crop_size') or found[-1].get('scale')
    height, width = (sides, sides) if isinstance(sides, int) else sides
    if not found[-1].get('crop_size'):
        height, width = width, height
    divisor = preprocessor.get('pad_size_divisor', 1)
    return -(-height // divisor) * divisor, -(-width // divisor) * divisor


def dense_parts(model: nn.Module) -> dict[str, nn.Module]:
    """Return the parts of a model that see whole maps, in their order."""
    names = ('backbone', 'neck', 'rpn_head', 'bbox_head', 'decode_head', 'head')
    return {
        name: part for name in names if isinstance(part := getattr(model, name, None), nn.Module)
    }


def _built(cfg: Config, device: str) -> nn.Module:
    """Build the model in eval mode; no file of weights is read."""
    cfg = Config(dict(cfg._cfg_dict.to_dict()))
    adapt_to_cpu(cfg, 'none')  # a SyncBN computes what a BN does in eval mode
    if cfg.get('default_scope') == 'mmpretrain':
        cfg.model.train_cfg = None  # mixup and the like, which mmpretrain logs a line about
    with torch.device(device):
        return build_model(cfg).eval()


def _images(cfg: Config, batch: int, size: Size, device: str) -> Tensor:
    channels = cfg.model.backbone.get('in_channels', 3)
    return torch.randn(batch, channels, *size, device=device)


def _check_sizes(model: nn.Module, sizes: Sequence[Size]) -> None:
    backbone: Any = model.backbone
    for size in sizes:
        try:
            backbone.check_input(torch.empty(1, backbone.in_channels, *size, device='meta'))
        except ValueError as error:
            raise UserError(str(error)) from error


def _forward(parts: Mapping[str, nn.Module], images: Tensor) -> object:
    x: Any = images
    for part in parts.values():
        x = part(x)
    return x


@torch.no_grad()
def _macs(parts: Mapping[str, nn.Module], images: Tensor) -> dict[str, int]:
    counts, x = {}, images
    for name, part in parts.items():
        counts[name] = count_macs(part, x)
        x = part(x)
    return counts


def _measured(
    cfg: Config, sizes: Sequence[Size], batch: int, device: str, repeats: int
) -> tuple[dict[Size, tuple[dict[str, FormCost], Ratio | None]], str]:
    """Return the costs of both forms at each size, and why there is no deploy form."""
    torch.manual_seed(0)
    models, why = {'train': _built(cfg, device)}, ''
    try:
        models['deploy'], _ = to_deploy(models['train'])
    except UserError as error:
        why = str(error)
    costs: dict[Size, tuple[dict[str, FormCost], Ratio | None]] = {}
    for size in sizes:
        images = _images(cfg, batch, size, device)
        steps = {name: _step(dense_parts(model), images) for name, model in models.items()}
        times = alternate(steps, repeats=repeats, device=device)
        forms = {
            name: FormCost(time=times[name], peak=peak_bytes(step, device))
            for name, step in steps.items()
        }
        gain = Ratio.of(times['train'].wall, times['deploy'].wall) if 'deploy' in times else None
        costs[size] = forms, gain
    return costs, why


def _step(parts: Mapping[str, nn.Module], images: Tensor) -> Callable[[], object]:
    def step() -> object:
        with torch.no_grad():
            return _forward(parts, images)

    return step
