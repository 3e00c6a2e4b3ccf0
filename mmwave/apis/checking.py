"""Check a config, its data and their fit without a training."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import DATASETS, DefaultScope
from torch import nn

from mmwave.engine.console import console
from mmwave.engine.cpu import adapt_to_cpu
from mmwave.engine.data_checks.coco_truth import fill_in
from mmwave.engine.data_checks.datasets import describe, unwrap, wrappers_of
from mmwave.engine.data_checks.findings import Findings
from mmwave.engine.data_checks.hook import DataCheckHook, problems_of
from mmwave.engine.data_checks.splits import split_fault, split_notes
from mmwave.engine.model_wrapper import unwrapped_settings
from mmwave.errors import UserError

from .building import build_model
from .config_errors import refused_setting
from .contact_sheet import write_sheet
from .libraries import check_libraries
from .preflight import preflight
from .run import load_config
from .usage import UsageError
from .weights import check_pretrained

SPLITS = ('train', 'val', 'test')


@dataclass(frozen=True)
class CheckedData:
    """What was found in one data set.

    Attributes:
        split: ``'train'``, ``'val'`` or ``'test'``.
        name: type and place.
        found: the counts.
        shares: how often classes occur, in a line; may be empty.
        problems: why a run would end, a line each.
        warnings: what a run would go on with, a line each.
    """

    split: str
    name: str
    found: Findings
    shares: str
    problems: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class CheckReport:
    """What :func:`check` found.

    Attributes:
        data: one entry for each data set.
        problems: of the config, or between two data sets.
        warnings: the same of what a run would go on with.
        sheets: pictures of labelled images.
    """

    data: tuple[CheckedData, ...]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    sheets: tuple[Path, ...]

    @property
    def ok(self) -> bool:
        """Whether a run could begin."""
        return not self.problems and not any(data.problems for data in self.data)


def check(
    config: str,
    *,
    splits: Sequence[str] = SPLITS,
    all_files: bool = False,
    open_images: bool = False,
    sheets: str | Path | None = None,
    cfg_options: Mapping[str, Any] | None = None,
    verbose: bool = False,
) -> CheckReport:
    """Check a config against its data, as a training and a test would before their first step.

    Args:
        config: a config file, or the name of a shipped config.
        splits: the data sets to look at; those that the config lacks are passed over.
        all_files: look at all files; else at a sample of them, as a run does.
        open_images: decode every image, which takes as long as an epoch's loading.
        sheets: folder for a picture of labelled images of each split, None for none.
        cfg_options: dotted keys and the values that replace the config's.
        verbose: show what the libraries print.

    Raises:
        UsageError: where there is no such config, split or option.
    """
    unknown = [split for split in splits if split not in SPLITS]
    if unknown:
        raise UsageError(f'no such split: {unknown[0]}; accepted are {", ".join(SPLITS)}')
    with console(verbose):
        cfg = load_config(config, cfg_options=cfg_options)
        check_libraries(cfg)
        present = [split for split in splits if cfg.get(f'{split}_dataloader')]
        try:
            preflight(cfg, splits=[s for s in present if s != 'val' or 'train' not in present])
        except UserError as error:
            return CheckReport((), (str(error),), (), ())
        warnings = []
        try:
            check_pretrained(cfg)
        except UserError as error:  # data can be looked at without
            warnings.append(str(error))
        return _look(cfg, present, all_files, open_images, sheets and Path(sheets), warnings)


def _look(
    cfg: Config,
    splits: Sequence[str],
    all_files: bool,
    open_images: bool,
    sheets: Path | None,
    warnings: list[str],
) -> CheckReport:
    settings = dict(cfg.get('data_check')) if isinstance(cfg.get('data_check'), Mapping) else {}
    if all_files or open_images:
        settings |= dict(max_files=None, max_images=None, max_headers=None)
    hook = DataCheckHook(**{**settings, 'decode_images': open_images})
    data, problems, drawn, built = [], [], [], {}
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmwave'):
        model = _model(cfg)
        for split in splits:
            try:
                built[split] = DATASETS.build(copy.deepcopy(cfg[f'{split}_dataloader'].dataset))
                metrics = _metrics(cfg, split)
            except Exception as error:  # whatever a class raises of the data that it reads
                problems.append(f'{split} data: {_reason(error)}')
                continue
            for dataset, around in _inside(built[split]):
                data.append(_looked_at(hook, split, dataset, model, around, metrics))
            if sheets is not None:
                drawn += write_sheet(cfg, built[split], sheets / f'{split}.jpg')
    if 'train' in built and 'val' in built:
        train = next(unwrap(built['train'])).dataset
        for _, val, _ in unwrap(built['val']):
            fault = split_fault(train, val)
            problems += [f'val data, {describe(val)}: {fault}'] if fault else []
            warnings += [f'val data, {describe(val)}: {line}' for line in split_notes(train, val)]
    return CheckReport(tuple(data), tuple(problems), tuple(warnings), tuple(drawn))


def _looked_at(
    hook: DataCheckHook,
    split: str,
    dataset: Any,
    model: nn.Module,
    around: tuple[Any, ...],
    metrics: Sequence[Any],
) -> CheckedData:
    found, shares = hook.look_at(split, dataset, model, around, metrics)
    return CheckedData(
        split=split,
        name=describe(dataset),
        found=found,
        shares=shares,
        problems=tuple(problems_of(split, dataset, found)),
        warnings=(*found.warnings(), *fill_in(metrics)),
    )


def _inside(dataset: Any) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Yield the data sets inside of wrappers, with the wrappers around each."""
    for _, inner, _ in unwrap(dataset):
        yield inner, wrappers_of(dataset, inner)


def _model(cfg: Config) -> nn.Module:
    """Build the model without memory; only its heads are asked for their classes."""
    model = copy.deepcopy(unwrapped_settings(cfg.model))
    settings = Config(dict(model=model, default_scope=cfg.get('default_scope')))
    adapt_to_cpu(settings, 'none')
    with torch.device('meta'):
        return build_model(settings)


def _metrics(cfg: Config, split: str) -> Sequence[Any]:
    settings = cfg.get(f'{split}_evaluator') if split != 'train' else None
    return Evaluator(settings).metrics if settings else ()


def _reason(error: Exception) -> str:
    line = refused_setting(error) or str(error) or type(error).__name__
    return ' '.join(line.split())
