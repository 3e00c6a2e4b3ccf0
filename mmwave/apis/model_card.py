"""A model card: Markdown under the YAML header that Hugging Face reads, of what is known alone."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from mmwave.errors import printable

_LIBRARIES = {'mmdet': 'mmdetection', 'mmseg': 'mmsegmentation', 'mmpretrain': 'mmpretrain'}
# The word in a metric's name -> Hugging Face's name.
_METRICS = {
    **{name: name for name in ('accuracy', 'precision', 'recall')},
    'f1': 'f1',
    'miou': 'mean_iou',
    'map': 'mAP',
}
_MOST_CLASSES = 20  # that are listed

_HOW = """The config is in the file. To predict, or to test on the data that it names:

```bash
python -c "{read}" > {name}.py
mmwave predict {name}.py {file} photo.jpg
mmwave test {name}.py {file}
```
"""
_WITHOUT_CONFIG = """With its config:

```bash
mmwave predict CONFIG {file} photo.jpg
mmwave test CONFIG {file}
```
"""
_READ = {
    'safetensors': "from safetensors import safe_open as o; print(o('{}', 'pt').metadata()['cfg'])",
    'pth': "import torch; print(torch.load('{}')['meta']['cfg'])",
}

_TEXT = """
# {title}

{summary}

Fill in what is missing here, the licence in the header above all, before you publish this file.

## Results

{results}

## Use

{how}
As the start of another training, of the same backbone:

```python
model = dict(backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='{file}')))
```

## Details

{details}
"""


def model_card(name: str, file: str, meta: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """Return the card of a published file.

    Args:
        name: of the model.
        file: the name of the file that holds its weights.
        meta: what that file says of itself.
        facts: ``pipeline_tag``, ``scope`` and ``size`` (bytes); what is unknown is empty.
    """
    how = _HOW if meta.get('cfg') else _WITHOUT_CONFIG
    read = _READ[file.rpartition('.')[2]].format(file)
    text = _TEXT.format(
        title=_cell(name),
        summary=_summary(meta),
        results='\n'.join(_results(meta)),
        file=file,
        how=how.format(read=read, name=name, file=file),
        details='\n'.join(_details(meta, facts)),
    )
    return f'---\n{_header(meta, facts)}---\n{text}'


def _header(meta: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    tags = ['mmwave', 'vision-mlp', _LIBRARIES.get(str(facts.get('scope'))), _family(meta)]
    header: dict[str, Any] = {
        'license': meta.get('licence') or None,
        'library_name': 'mmwave',
        'tags': [tag for tag in tags if tag],
    }
    if facts.get('pipeline_tag'):
        header['pipeline_tag'] = facts['pipeline_tag']
    metrics = meta.get('measured', {}).get('metrics', {})
    words = {word for name in metrics for word in re.split(r'[/_-]', name.lower())}
    known = [theirs for word, theirs in _METRICS.items() if word in words]
    if known:
        header['metrics'] = known
    text = yaml.safe_dump(header, sort_keys=False, allow_unicode=True)
    return text.replace('license: null\n', 'license:  # fill in, e.g. apache-2.0\n')


def _summary(meta: Mapping[str, Any]) -> str:
    kind = meta.get('task') or 'weights'
    backbone = _family(meta)
    words = f'{kind}, with the backbone {_cell(backbone)}' if backbone else kind
    averaged = {'averaged': ' The weights are the averaged ones (EMA).'}
    return f'{words[0].upper()}{words[1:]}.{averaged.get(meta.get("weights") or "", "")}'


def _family(meta: Mapping[str, Any]) -> str:
    kind = (meta.get('backbone') or {}).get('type') or meta.get('family') or ''
    return printable(str(kind).rpartition('.')[2], 80)


def _results(meta: Mapping[str, Any]) -> Sequence[str]:
    measured = meta.get('measured') or {}
    if not measured.get('metrics'):
        return ['No metrics of these weights are known.']
    where = ', '.join(f'{k}: {_cell(_plain(v))}' for k, v in measured.get('data', {}).items())
    at = ', '.join(f'{k} {v}' for k, v in (meta.get('trained') or {}).items() if k != 'with')
    lines = [f'Validated during the training{f", at {at}" if at else ""}.']
    if where:
        lines.append(f'Data ({where}).')
    rows = [f'| {_cell(name)} | {value:.6g} |' for name, value in measured['metrics'].items()]
    return [*lines, '', '| metric | value |', '|---|---:|', *rows]


def _details(meta: Mapping[str, Any], facts: Mapping[str, Any]) -> Sequence[str]:
    trained = meta.get('trained') or {}
    classes = (meta.get('dataset_meta') or {}).get('classes')
    classes = classes if isinstance(classes, list | tuple) else ()
    shown = ', '.join(map(str, classes[:_MOST_CLASSES]))
    more = f' and {len(classes) - _MOST_CLASSES} more' if len(classes) > _MOST_CLASSES else ''
    rows = {
        'config': meta.get('config_name'),
        'classes': f'{len(classes)}: {shown}{more}' if len(classes) else '',
        **{k.replace('_', ' '): _plain(v) for k, v in (meta.get('preprocessing') or {}).items()},
        'trained for': ', '.join(f'{k} {v}' for k, v in trained.items()),
        'trained with': _plain(meta.get('versions') or {}),
        'published with': _plain(meta.get('published_with') or {}),
        'size': f'{facts["size"]:,} bytes',
        'made of': f'{meta["source"]}, SHA-256 {meta["sha256"]}',
    }
    lines = [f'| {key} | {_cell(value, 2000)} |' for key, value in rows.items() if value]
    return ['| | |', '|---|---|', *lines]


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ', '.join(f'{k} {_plain(v)}' for k, v in value.items())
    if isinstance(value, list | tuple):
        return ', '.join(map(_plain, value))
    return str(value)


def _cell(text: Any, limit: int = 200) -> str:
    """Return text of a file as Markdown shows it, in one line."""
    return re.sub(r'([\\|`*<>\[\]])', r'\\\1', printable(text, limit))
