"""The weights of a checkpoint as a file to give away: small, described, named by its content."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import mmengine
import torch
from mmengine.config import Config
from torch import Tensor

from mmwave import __version__
from mmwave.checkpoint import (
    check_settings,
    checkpoint_bytes,
    load_matching,
    not_finite,
    not_finite_line,
    read_checkpoint,
    sha256_of,
    state_dict_of,
    whole_file,
)
from mmwave.engine.checkpoints.plain import make_plain
from mmwave.engine.console import console
from mmwave.engine.hooks.provenance import VERSIONS
from mmwave.engine.model_wrapper import unwrapped_settings
from mmwave.engine.training_state import check_exchange
from mmwave.errors import UserError, printable, printable_path
from mmwave.models.backbones import FAMILIES

from .building import build_model
from .config_text import config_text, read_config_text, without_places
from .libraries import check_libraries
from .model_card import model_card
from .model_notes import measured_on, metrics_of, preprocessing_of, run_name, task_of
from .outputs import check_output_folder
from .run import load_config
from .usage import UsageError

_MAX_LINE = 500  # characters of a message of several lines
_DIGITS = 8  # of the SHA-256 in a name, as torch.hub has it
# No dot: torch.hub takes the digits between the first dash and dot for the hash.
_NAME = re.compile(r'[A-Za-z0-9][\w-]{0,99}', re.ASCII)
# Carried over: notes of a conversion that loaders of a backbone compare, and the description.
_KEPT = {'family': str, 'arch': str, 'licence': str, 'backbone': Mapping}
_FLOATING = ('weight', 'bias', 'running_mean', 'running_var')


@dataclass(frozen=True)
class PublishedFile:
    """What :func:`publish` wrote.

    Attributes:
        path: of the weights.
        card: of the model card.
        weights: ``'averaged'`` or ``'raw'``: which of a checkpoint's weights they are.
        num_tensors: of the file.
        source_size: bytes of the checkpoint.
        size: bytes of the file.
        meta: what the file says of itself.
        remarks: lines on what is unknown, left out or was there already.
    """

    path: Path
    card: Path
    weights: str
    num_tensors: int
    source_size: int
    size: int
    meta: dict[str, Any]
    remarks: tuple[str, ...]


def publish(
    checkpoint: str,
    *,
    config: str | None = None,
    out: str | None = None,
    ema: bool | None = None,
    name: str | None = None,
    file_format: Literal['safetensors', 'pth'] = 'safetensors',
    trust_checkpoint: bool = False,
    verbose: bool = False,
) -> PublishedFile:
    """Write a checkpoint's weights, and a model card beside them, for others to use.

    The file is named ``NAME-<first 8 digits of its SHA-256>``. It holds the weights of the model
    alone and describes them: classes, preprocessing, task, the config, validation metrics of these
    weights, versions. Of paths in the config only what follows the data root, or the last part, is
    kept. The same checkpoint makes the same file.

    Args:
        checkpoint: of a training, or any file of weights that the tools here load.
        config: the config file, or the name of a shipped config; its model must fit the weights.
            None: the text in the checkpoint, which is read without running it.
        out: folder, made where it is missing; None: that of the checkpoint.
        ema: take the averaged weights, or the raw ones; None: the averaged ones where there are
            any.
        name: letters, digits, ``_`` and ``-``; None: that of the config, of the run, or of the
            checkpoint.
        file_format: ``'safetensors'``, or ``'pth'`` for programs that read torch's files alone.
        trust_checkpoint: read a checkpoint that runs code when it is read.
        verbose: show what the libraries print.

    Raises:
        MissingFileError: where there is no such checkpoint.
        UserError: where it is damaged, holds no weights, NaN, or no averaged weights that are asked
            for, does not fit the config, the name is none, or another file has the name.
    """
    source = _source(checkpoint, name, file_format)
    with console(verbose):
        given = None if config is None else load_config(config)
        content = read_checkpoint(source, trust=trust_checkpoint)
        state, weights = _weights(content, source, ema)
        remarks = _check_finite(state, source)
        settings = _settings(given, content, state, source, remarks)
        meta = _meta(content, settings, source, weights)
        stem = Path(given.filename).stem if given is not None else run_name(_of(content, 'meta'))
        if stem:
            meta['config_name'] = stem
        if 'measured' not in meta:
            remarks.append('no validation metrics of these weights are known')
        title = name or re.sub(r'[^\w-]+', '-', stem or source.stem, flags=re.ASCII).strip('-_')
        folder = source.parent if out is None else Path(out).expanduser()
        check_output_folder('--out', str(folder))
        lead = folder / f'{title[:100] or "model"}.{file_format}'
        path, card, size = _write(lead, state, meta, settings, remarks)
    return PublishedFile(
        path, card, weights, len(state), source.stat().st_size, size, meta, tuple(remarks)
    )


def _source(checkpoint: str, name: str | None, file_format: str) -> Path:
    """Return the path of the checkpoint, once the arguments are known to be right."""
    if not checkpoint:
        raise UsageError('the path of the checkpoint is empty')
    source = Path(checkpoint).expanduser()
    if source.is_dir():
        raise UsageError(f'{printable_path(checkpoint)} is a folder: name a checkpoint in it')
    if name is not None and not _NAME.fullmatch(name):
        raise UsageError(
            f'the name {printable(name)!r} must be of letters, digits, "_" and "-", at most 100 of '
            'them, and begin with a letter or a digit'
        )
    if file_format not in ('safetensors', 'pth'):
        raise UsageError(f"the format {file_format!r} is none of 'safetensors', 'pth'")
    return source


def _weights(content: Any, source: Path, ema: bool | None) -> tuple[dict[str, Tensor], str]:
    """Return the weights that are asked for, and which they are."""
    try:
        state = state_dict_of(content)
        averaged = content.get('ema_state_dict')
        if averaged is None:
            if ema:
                raise UserError('it holds no averaged weights (ema_state_dict): leave --ema out')
            return state, 'raw'
        # mmengine's EMAHook writes the averaged weights as the model's, the others as the average.
        check_exchange(averaged, state)
    except UserError as error:
        raise UserError(f'{printable_path(source)}: {_one_line(error)}') from error
    if ema is not False:
        return state, 'averaged'
    raw = {k.removeprefix('module.'): v for k, v in averaged.items() if k.startswith('module.')}
    return {**state, **raw}, 'raw'


def _check_finite(state: Mapping[str, Tensor], source: Path) -> list[str]:
    """Raise where weights are NaN or infinite; return a remark on infinite values of others."""
    found = not_finite(state)
    bad = {
        name: count
        for name, count in found.items()
        if name.rpartition('.')[2] in _FLOATING or bool(state[name].isnan().any())
    }
    if bad:
        raise UserError(f'{printable_path(source)}: {not_finite_line(bad)}: nothing was written')
    return [not_finite_line(found)] if found else []


def _settings(
    cfg: Config | None,
    content: Mapping[str, Any],
    state: Mapping[str, Tensor],
    source: Path,
    remarks: list[str],
) -> dict[str, Any]:
    """Return what the config says, without places; empty, with a remark, where it is unknown."""
    if cfg is not None:
        _check_fits(cfg, content, state, source)
        return without_places(cfg.to_dict())
    text = _of(content, 'meta').get('cfg')
    settings = without_places(read_config_text(text) or {})
    try:
        config_text(settings)
    except Exception:  # of whatever the checkpoint says
        settings = {}
    if not settings:
        what = 'no config' if text is None else 'no config of plain values'
        remarks.append(f'the checkpoint holds {what}: --config CONFIG adds what it says')
    return settings


def _check_fits(
    cfg: Config, content: Mapping[str, Any], state: Mapping[str, Tensor], source: Path
) -> None:
    check_libraries(cfg)
    model = build_model(cfg)
    try:
        loaded = load_matching(model, state, min_fraction=1.0, source=str(source))
        check_settings(model, content, str(source))
    except UserError as error:
        raise UserError(f'the config is of another model: {_one_line(error)}') from error
    if loaded.unexpected:
        raise UserError(f'the config builds a smaller model: {_one_line(loaded.summary())}')


def _meta(
    content: Mapping[str, Any], settings: Mapping[str, Any], source: Path, weights: str
) -> dict[str, Any]:
    """Return what the file is to say of itself, in plain types; what is unknown is left out."""
    given = _of(content, 'meta')
    dataset = _of(given, 'dataset_meta') or {
        k.lower(): given[k] for k in ('CLASSES', 'PALETTE') if given.get(k) is not None
    }
    counts = {k: given[k] for k in ('epoch', 'iter') if isinstance(given.get(k), int)}
    measured = {}
    # Those of a run that averages are of the averaged weights.
    if weights == 'averaged' or 'ema_state_dict' not in content:
        measured = metrics_of(content, source, settings)
    known = {
        'dataset_meta': dataset,
        'preprocessing': preprocessing_of(settings),
        'task': task_of(settings)[0],
        'cfg': config_text(settings) if settings else '',
        'backbone': _backbone(settings),
        **{k: given[k] for k, kind in _KEPT.items() if isinstance(given.get(k), kind)},
        'measured': {'metrics': measured, 'data': measured_on(settings)} if measured else {},
        'trained': counts,
        'versions': _of(given, VERSIONS),
    }
    meta = {
        'licence': '',
        **{key: value for key, value in known.items() if value},
        'published_with': {
            'torch': str(torch.__version__),
            'mmengine': mmengine.__version__,
            'mmwave': __version__,
        },
        'mmwave_version': __version__,
        'weights': weights,
        'source': printable(source.name),
        'sha256': sha256_of(source),
    }
    plain = {'meta': meta}
    make_plain(plain)
    return plain['meta']


def _backbone(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a backbone that loaders compare with their own."""
    given = _of(unwrapped_settings(_of(settings, 'model')), 'backbone')
    scope, _, kind = str(given.get('type')).rpartition('.')
    published = getattr(FAMILIES.get(kind), 'published', None)
    if scope != 'mmwave' or published is None:
        return {}
    return {k: given[k] for k in ('type', 'arch', 'deploy', *published) if k in given}


def _write(
    lead: Path,
    state: Mapping[str, Tensor],
    meta: dict[str, Any],
    settings: Mapping[str, Any],
    remarks: list[str],
) -> tuple[Path, Path, int]:
    """Write weights and card, or neither; return their paths, and the bytes of the weights.

    Args:
        lead: their folder, the name without hash, and the suffix of the weights.
        state: the weights.
        meta: of the weights.
        settings: of the config.
        remarks: is extended.
    """
    # What the Hugging Face hub looks for in a safetensors file.
    noted = {'format': 'pt', **meta} if lead.suffix == '.safetensors' else meta
    content = checkpoint_bytes(lead, state, noted)
    digest = hashlib.sha256(content).hexdigest()
    path = lead.with_name(f'{lead.stem}-{digest[:_DIGITS]}{lead.suffix}')
    card = path.with_suffix('.md')
    facts = {
        'pipeline_tag': task_of(settings)[1],
        'scope': settings.get('default_scope'),
        'size': len(content),
    }
    text = model_card(lead.stem, path.name, meta, facts).encode()
    for target in (path, card):
        if target.exists() and not target.is_file():
            raise UserError(f'{printable_path(target)} is no regular file: it cannot be replaced')
    if path.exists() and sha256_of(path) != digest:
        raise UserError(
            f'{printable_path(path)} is there already, with other content than its name says: '
            'remove it first'
        )
    if card.exists() and card.read_bytes() != text:
        remarks.append(
            f'{card.name} was there already and is left as it is: it may have been edited'
        )
        text = card.read_bytes()
    with whole_file(card) as described, whole_file(path) as weights:
        described.write(text)
        weights.write(content)
    return path, card, len(content)


def _of(entries: Any, key: str) -> Mapping[str, Any]:
    """Return an entry that is a mapping, else an empty one."""
    value = entries.get(key) if isinstance(entries, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def _one_line(text: object) -> str:
    line = '; '.join(part.strip() for part in str(text).splitlines())
    return printable(line, _MAX_LINE)
