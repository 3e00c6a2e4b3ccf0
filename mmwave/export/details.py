"""What a reader of an exported file has to know: texts, by name, that are stored in it."""

import json
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from mmwave import __version__
from mmwave.errors import printable

from .functions import Described
from .images import Normalisation
from .plan import Plan


def class_names(content: Any, cfg: Config) -> list[str]:
    """Return the names of the classes, of a checkpoint or else of the config; none: not known."""
    meta = content.get('meta') if isinstance(content, Mapping) else None
    described = meta.get('dataset_meta') if isinstance(meta, Mapping) else None
    loader = cfg.get('test_dataloader') or {}
    dataset = loader.get('dataset') if isinstance(loader, Mapping) else None
    given = dataset.get('metainfo') if isinstance(dataset, Mapping) else None
    for names in (described, given):
        if isinstance(names, Mapping):
            found = names.get('classes', names.get('CLASSES'))
            if isinstance(found, list | tuple) and found:
                return [printable(name) for name in found]
    return []


def details(
    described: Described, norm: Normalisation, plan: Plan, notes: Mapping[str, Any]
) -> dict[str, str]:
    """Return the metadata of a file; what is no text is JSON.

    Args:
        described: what it computes.
        norm: what is done to images in front of it.
        plan: sizes and numbers of images.
        notes: what else is known.
    """
    known = {
        'task': described.task,
        'mmwave_version': __version__,
        'input': 'images (N, 3, H, W) in float32: (pixels from 0 to 255 - mean) / std',
        'sizes': plan.sizes,
        'batch': plan.batches,
        'channel_order': norm.channel_order,
        'mean': norm.mean,
        'std': norm.std,
        'outputs': described.outputs,
        **notes,
    }
    return {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for key, value in known.items()
    }
