"""Run a config that was written for GPUs on a machine without one."""

from typing import Any

import torch
from mmengine.config import Config

from mmwave.engine.process_group import start_process_group
from mmwave.engine.watching.timeouts import timeout_of
from mmwave.errors import UserError
from mmwave.mmcv_ops.precision import keep_detection_ops_in_float32

SYNC_BATCH_NORMS = ('SyncBN', 'SyncBatchNorm', 'MMSyncBN')


def adapt_to_cpu(cfg: Config, launcher: str) -> str:
    """Replace in ``cfg`` what needs a GPU, and start a distributed run's process group on gloo.

    SyncBN becomes BN, the CUDA-only AMP wrapper becomes autocast to bfloat16, and the DDP wrapper
    is built without a device. mmengine starts process groups with a CUDA call in front; a group
    that exists already is used.

    Args:
        cfg: changed in place.
        launcher: ``'none'`` or ``'pytorch'``.

    Returns:
        One line that says what was changed.

    Raises:
        UserError: for a launcher that needs GPUs.
    """
    if launcher not in ('none', 'pytorch'):
        raise UserError(f"launcher {launcher!r} needs GPUs: without one use 'none' or 'pytorch'")
    changes = []
    replaced = _replace_sync_bn(cfg._cfg_dict)
    if cfg.get('sync_bn') is not None:
        cfg.sync_bn = None
        replaced += 1
    if replaced:
        changes.append('SyncBN -> BN')
    wrapper = cfg.get('optim_wrapper') or {}
    if wrapper.get('type') == 'AmpOptimWrapper':
        wrapper.pop('loss_scale', None)
        wrapper.pop('use_fp16', None)
        wrapper.update(type='mmwave.AutocastOptimWrapper', dtype='bfloat16')
        if cfg.get('default_scope') == 'mmdet':
            keep_detection_ops_in_float32()
        changes.append('AMP -> bfloat16 autocast')
    if launcher == 'pytorch':
        start_process_group('gloo', timeout_of(cfg))
        cfg.model_wrapper_cfg = dict(
            type='MMDistributedDataParallel',
            device_ids=None,
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False),
        )
        changes.append(f'DDP over {torch.distributed.get_world_size()} processes with gloo')
    return 'no GPU here, running on the CPU' + (f': {", ".join(changes)}' if changes else '')


def _replace_sync_bn(node: Any) -> int:
    """Turn every SyncBN below ``node`` into BN; return how many there were."""
    if isinstance(node, dict):
        count = 0
        if node.get('type') in SYNC_BATCH_NORMS:
            node['type'] = 'BN'
            count = 1
        return count + sum(_replace_sync_bn(value) for value in node.values())
    if isinstance(node, list | tuple):
        return sum(_replace_sync_bn(value) for value in node)
    return 0
