"""Classifiers, detectors and segmentors loaded for predicting."""

import functools
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from mmwave.apis.libraries import check_libraries
from mmwave.apis.run import load_config
from mmwave.apis.tta import check_tta, label_merged_scores, use_tta
from mmwave.apis.usage import UsageError
from mmwave.checkpoint import (
    check_settings,
    load_matching,
    not_finite_line,
    read_checkpoint,
    state_dict_of,
)
from mmwave.deploy import to_deploy
from mmwave.engine.console import console
from mmwave.engine.cpu import adapt_to_cpu
from mmwave.engine.data_checks.datasets import unwrap
from mmwave.engine.hooks.small_images import pad_small_images
from mmwave.engine.model_wrapper import unwrapped
from mmwave.engine.optim_wrapper import has_bfloat16
from mmwave.errors import UserError, printable, printable_path
from mmwave.mmcv_ops import check_ops
from mmwave.mmcv_ops.precision import keep_detection_ops_in_float32

from .call import TASKS
from .classes import classes_and_palette
from .reading import Picture, Reader, Reading

_RESULTS = dict(
    classification='pred_score', detection='pred_instances', segmentation='pred_sem_seg'
)


class Model:
    """A model with its weights and its test pipeline; :func:`load` makes it.

    Attributes:
        task: ``'classification'``, ``'detection'`` or ``'segmentation'``.
        classes: their names by index.
        palette: a colour for each class, (R, G, B) from 0 to 255.
        device: that it computes on.
        module: mmpretrain's, mmdet's or mmseg's model, in eval mode.
        cfg: the config that it was built from.
        padded: names of pictures that were padded to the backbone's least size.
        warnings: what was found on loading that may be wrong.
    """

    def __init__(self, module: nn.Module, cfg: Config, device: torch.device, amp: bool) -> None:
        self.module, self.cfg, self.device = module, cfg, device
        self.task = TASKS[cfg.default_scope]
        self.classes: tuple[str, ...] = ()
        self.palette: tuple[tuple[int, int, int], ...] = ()
        self.warnings: list[str] = []
        self.padded: set[str] = set()
        pad_small_images(module, self.padded)
        self._dtype = None
        if amp:
            bfloat16 = device.type != 'cuda' or has_bfloat16()
            self._dtype = torch.bfloat16 if bfloat16 else torch.float16
            _return_float32(unwrapped(module))
        with self.scope():
            self.read = Reader(_pipeline(cfg))

    def __call__(self, images: Picture | Iterable[Picture], *, batch: int = 1) -> list[Any]:
        """Predict pictures.

        Args:
            images: one or several: paths, arrays of uint8 in BGR order of shape (H, W, 3), or
                images of Pillow.
            batch: pictures that are computed at once. In a detector's batch smaller ones are
                padded to the largest, which changes scores a little; other tasks divide a batch by
                sizes.

        Returns:
            A data sample of the task's library for each: ``pred_instances`` with ``bboxes``
            (x1, y1, x2, y2 in pixels of the picture), ``scores``, ``labels`` and of some models
            ``masks``; ``pred_sem_seg`` and ``seg_logits``; ``pred_score`` and ``pred_label``.

        Raises:
            UserError: where a picture cannot be read, or is none.
        """
        if batch < 1:
            raise UserError(f'batch={batch}: at least 1 picture is needed')
        one = isinstance(images, str | os.PathLike) or hasattr(images, 'shape')
        if one or not isinstance(images, Iterable):
            images = [images]
        results: list[Any] = []
        waiting: list[Reading] = []
        with self.scope():
            for image in images:
                waiting.append(self.read(image))
                if len(waiting) == batch:
                    results += self.predict(waiting)
                    waiting = []
            return results + self.predict(waiting)

    def predict(self, readings: Sequence[Reading]) -> list[Any]:
        """Predict pictures that were read, at once; return a data sample for each."""
        results: list[Any] = [None] * len(readings)
        groups: dict[Any, list[int]] = {}
        for index, reading in enumerate(readings):
            # mmdet's models know what is padding, others are given pictures of one size alone.
            key = None if self.task == 'detection' else _sizes(reading.data['inputs'])
            groups.setdefault(key, []).append(index)
        for indices in groups.values():
            data = pseudo_collate([readings[index].data for index in indices])
            with self._computing():
                done = self.module.test_step(data)
            for index, sample in zip(indices, done, strict=True):
                if _RESULTS[self.task] not in sample:
                    raise UserError(
                        f'{type(unwrapped(self.module)).__name__} predicts no '
                        f'{_RESULTS[self.task]}, as models of {self.task} do'
                    )
                results[index] = sample
        return results

    def _computing(self) -> ExitStack:
        stack = self.scope()
        stack.enter_context(torch.no_grad())
        if self._dtype is not None:
            stack.enter_context(torch.autocast(self.device.type, dtype=self._dtype))
        return stack

    def scope(self) -> ExitStack:
        """Return a context in which types without a scope are those of the model's library."""
        stack = ExitStack()
        stack.enter_context(DefaultScope.overwrite_default_scope(self.cfg.default_scope))
        return stack


def load(
    config: str | os.PathLike[str],
    checkpoint: str | os.PathLike[str],
    *,
    device: str | torch.device | None = None,
    deploy: bool = False,
    amp: bool = False,
    tta: bool = False,
    cfg_options: Mapping[str, Any] | None = None,
    trust_checkpoint: bool = False,
    verbose: bool = False,
) -> Model:
    """Build the model of a config and load its weights, for predicting.

    Every tensor of the model must be in the checkpoint. The data set of the config need not be
    there: of it the test pipeline and the names of the classes are used.

    Args:
        config: the config file, or the name of a shipped config.
        checkpoint: its weights, a local file.
        device: ``'cpu'``, ``'cuda'``, ``'cuda:1'``; None: a GPU where there is one.
        deploy: replace what has a deploy form by it, in memory.
        amp: compute in bfloat16 by autocast, on GPUs without it in float16.
        tta: predict several views of every picture and merge the results.
        cfg_options: dotted keys and the values that replace the config's.
        trust_checkpoint: read a checkpoint that runs code when it is read.
        verbose: show what the libraries print.

    Raises:
        MissingFileError: where the checkpoint is missing.
        UserError: where the weights do not fit the model, or were noted to need other settings; it
            is asked for views that it cannot merge, a deploy form that it has not or a device that
            is not here; or the config is of no classifier, detector or segmentor.
    """
    with console(verbose):
        model = build(
            settle_config(config, tta=tta, cfg_options=cfg_options),
            checkpoint,
            device=device,
            deploy=deploy,
            amp=amp,
            trust_checkpoint=trust_checkpoint,
        )
    for line in model.warnings:
        print_log(line, logger='current', level=logging.WARNING)
    return model


def settle_config(
    config: str | os.PathLike[str],
    *,
    tta: bool = False,
    cfg_options: Mapping[str, Any] | None = None,
) -> Config:
    """Read a config for predicting and check it, before anything is built.

    Raises:
        UsageError: where it is of no known task, has no test pipeline or no way to merge views.
    """
    cfg = load_config(os.fspath(config), cfg_options=cfg_options)
    scope = cfg.get('default_scope')
    if scope not in TASKS:
        raise UsageError(
            f'default_scope of the config is {scope!r}: expected one of {", ".join(TASKS)}, to '
            'predict by'
        )
    check_libraries(cfg)
    if cfg.get('model') is None:
        raise UsageError(f'{config} has no model')
    _pipeline(cfg)
    if tta:
        use_tta(cfg)
    check_tta(cfg)
    return cfg


def build(
    cfg: Config,
    checkpoint: str | os.PathLike[str],
    *,
    device: str | torch.device | None,
    deploy: bool,
    amp: bool,
    trust_checkpoint: bool,
) -> Model:
    """Build the model of a settled config; see :func:`load`."""
    source = os.fspath(checkpoint)
    if not source:
        raise UserError('the path of the checkpoint is empty')
    target = _device(device)
    if cfg.default_scope == 'mmdet':
        check_ops(target.type)
        if amp and target.type == 'cpu':
            keep_detection_ops_in_float32()
    content = read_checkpoint(source, trust=trust_checkpoint)
    module, warnings = _with_weights(cfg, content, source, target)
    if deploy:
        module = _deployed(module)
    label_merged_scores(module)
    model = Model(module.to(target).eval(), cfg, target, amp)
    model.classes, model.palette, notes = classes_and_palette(cfg, content, unwrapped(module))
    model.warnings = [*warnings, *notes]
    return model


def _with_weights(
    cfg: Config, content: Any, source: str, device: torch.device
) -> tuple[nn.Module, list[str]]:
    state = state_dict_of(content)
    if device.type == 'cpu':
        adapt_to_cpu(cfg, 'none')
    settings = cfg.model.copy()
    # As mmengine's runner does.
    if cfg.get('data_preprocessor') is not None:
        settings.setdefault('data_preprocessor', cfg.data_preprocessor)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        module = MODELS.build(settings)
    inner = unwrapped(module)
    report = load_matching(inner, state, min_fraction=1.0, source=source)
    check_settings(inner, content, source)
    notes = []
    if report.unexpected:
        notes.append(
            f'{len(report.unexpected)} tensors of {printable_path(source)} are not in the model: '
            f'{", ".join(map(printable, report.unexpected[:4]))}'
        )
    if report.not_finite:
        notes.append(f'{printable_path(source)}: {not_finite_line(dict(report.not_finite))}')
    return module, notes


def _return_float32(module: nn.Module) -> None:
    """Have heads return float32 whatever they compute in: boxes in bfloat16 are pixels off."""
    for name, part in module.named_modules():
        names = [piece for piece in name.split('.') if not piece.isdigit()]
        if names and names[-1].endswith('head'):
            part.forward = _returning_float32(part.forward)


def _returning_float32(forward: Callable[..., Any]) -> Callable[..., Any]:
    def cast(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value.float() if value.is_floating_point() else value
        return type(value)(map(cast, value)) if type(value) in (list, tuple) else value

    @functools.wraps(forward)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return cast(forward(*args, **kwargs))

    return wrapped


def _deployed(module: nn.Module) -> nn.Module:
    inner = unwrapped(module)
    try:
        new, _ = to_deploy(inner.eval())
    except UserError as error:
        raise UserError(f'--deploy: {error}') from error
    if inner is module:
        return new
    module.module = new
    return module


def _device(given: str | torch.device | None) -> torch.device:
    try:
        device = torch.device(get_device() if given is None else given)
    except (RuntimeError, TypeError) as error:
        raise UsageError(
            f"device {printable(given)!r}: expected 'cpu', 'cuda' or 'cuda:N'"
        ) from error
    if device.type == 'cuda':
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise UsageError(f'device {given}: this machine shows {count} GPU(s)')
    elif device.type == 'meta':
        raise UsageError("device meta computes nothing: expected 'cpu', 'cuda' or 'cuda:N'")
    return device


def _pipeline(cfg: Config) -> Any:
    """Return the settings of the test pipeline, which pictures are prepared by."""
    dataset = (cfg.get('test_dataloader') or {}).get('dataset')
    place = next(iter(unwrap(dataset, 'test_dataloader.dataset'))) if dataset else None
    pipeline = place and place.dataset.get('pipeline')
    if not pipeline:
        key = place.key if place else 'test_dataloader.dataset'
        raise UsageError(f'the config has no {key}.pipeline, which pictures are prepared by')
    return pipeline


def _sizes(inputs: Any) -> Any:
    """Return the size of a prepared picture, or the sizes of its views."""
    if isinstance(inputs, list | tuple):
        return tuple(_sizes(view) for view in inputs)
    return tuple(inputs.shape)
