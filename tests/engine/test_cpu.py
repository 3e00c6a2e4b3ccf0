"""Configs written for GPUs on a machine without one."""

import sys

import mmcv.ops
import pytest
import torch
from mmengine.config import Config

from mmwave.engine.cpu import adapt_to_cpu


def test_sync_bn_and_amp_are_replaced_and_named():
    cfg = Config(
        dict(
            model=dict(
                norm_cfg=dict(type='SyncBN', requires_grad=True),
                heads=[dict(norm=dict(type='SyncBN')), dict(norm=dict(type='GN'))],
            ),
            sync_bn='torch',
            optim_wrapper=dict(
                type='AmpOptimWrapper', loss_scale='dynamic', optimizer=dict(type='SGD', lr=0.1)
            ),
        )
    )
    note = adapt_to_cpu(cfg, 'none')
    assert cfg.model.norm_cfg == dict(type='BN', requires_grad=True)
    assert [h.norm.type for h in cfg.model.heads] == ['BN', 'GN']
    assert cfg.sync_bn is None
    assert cfg.optim_wrapper == dict(
        type='mmwave.AutocastOptimWrapper', dtype='bfloat16', optimizer=dict(type='SGD', lr=0.1)
    )
    assert note == 'no GPU here, running on the CPU: SyncBN -> BN, AMP -> bfloat16 autocast'
    assert '\n' not in note


def test_detectors_find_boxes_under_autocast(monkeypatch):
    """mmcv's compiled NMS and RoIAlign do not support bfloat16 on a CPU."""
    for name in ('nms', 'roi_align', 'deform_conv', 'modulated_deform_conv'):
        module = sys.modules[f'mmcv.ops.{name}']
        monkeypatch.setattr(module, 'ext_module', module.ext_module)  # restored after the test
    adapt_to_cpu(
        Config(dict(default_scope='mmdet', optim_wrapper=dict(type='AmpOptimWrapper'))), 'none'
    )
    boxes = torch.tensor([[0.0, 0, 8, 8], [0, 0, 8, 7], [8, 8, 16, 16]], dtype=torch.bfloat16)
    maps = torch.ones(1, 2, 16, 16, dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        dets, kept = mmcv.ops.nms(boxes, boxes.new_tensor([0.5, 0.9, 0.7]), 0.5)
        cells = mmcv.ops.RoIAlign(2)(maps, torch.tensor([[0.0, 0, 0, 8, 8]]))
    assert kept.tolist() == [1, 2]
    assert dets.dtype is cells.dtype is torch.bfloat16
    assert torch.equal(cells, torch.ones_like(cells))
    cells.sum().backward()
    assert maps.grad.sum() == cells.numel()


def test_a_config_without_either_is_left_alone():
    cfg = Config(
        dict(model=dict(norm_cfg=dict(type='BN')), optim_wrapper=dict(type='OptimWrapper'))
    )
    before = cfg.to_dict()
    assert adapt_to_cpu(cfg, 'none') == 'no GPU here, running on the CPU'
    assert cfg.to_dict() == before


def test_launchers_that_need_gpus_are_refused():
    with pytest.raises(ValueError, match="launcher 'slurm' needs GPUs"):
        adapt_to_cpu(Config(dict()), 'slurm')


def test_process_group_and_wrapper(monkeypatch):
    monkeypatch.setenv('MASTER_ADDR', '127.0.0.1')
    monkeypatch.setenv('MASTER_PORT', '0')
    monkeypatch.setenv('RANK', '0')
    monkeypatch.setenv('WORLD_SIZE', '1')
    cfg = Config(dict(find_unused_parameters=True))
    try:
        note = adapt_to_cpu(cfg, 'pytorch')
        assert torch.distributed.get_backend() == 'gloo'
    finally:
        torch.distributed.destroy_process_group()
    assert cfg.model_wrapper_cfg == dict(
        type='MMDistributedDataParallel',
        device_ids=None,
        broadcast_buffers=False,
        find_unused_parameters=True,
    )
    assert 'DDP over 1 processes with gloo' in note
