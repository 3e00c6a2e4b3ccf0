"""The config that the example project offers builds with stock mmdetection and learns a step."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

PROJECT = Path(__file__).parents[2] / 'projects' / 'example_project'
CONFIG = PROJECT / 'configs' / 'fcos_wavemlp-t_coco.py'


@pytest.fixture(scope='module')
def cfg():
    return Config.fromfile(str(CONFIG))


@pytest.fixture
def model(cfg):
    from mmdet.registry import MODELS

    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        yield MODELS.build(cfg.model)


def batch():
    from mmdet.testing import demo_mm_inputs

    return demo_mm_inputs(2, [[3, 64, 96], [3, 96, 64]], num_classes=80)


def test_it_is_one_file():
    assert '_base_' not in CONFIG.read_text()


def test_its_widths_are_the_backbones(model, cfg):
    widths = [info.channels for info in model.backbone.stage_info]
    assert cfg.model.neck.in_channels == widths


def test_a_step_reaches_every_parameter_and_lowers_the_loss(model):
    from mmengine.optim import build_optim_wrapper

    model.train()
    wrapper = build_optim_wrapper(
        model, {'type': 'OptimWrapper', 'optimizer': {'type': 'SGD', 'lr': 1e-3}}
    )
    data = model.data_preprocessor(batch(), training=True)

    def total():
        loss, _ = model.parse_losses(model(**data, mode='loss'))
        return loss

    before = total()
    assert torch.isfinite(before)
    wrapper.backward(before)
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    wrapper.step()
    assert total() < before


def test_the_readme_shows_what_the_config_says(cfg):
    text = (PROJECT / 'README.md').read_text()
    backbone = cfg.model.backbone
    assert f"arch='{backbone.arch}', out_indices={backbone.out_indices}" in text
    assert f'in_channels={cfg.model.neck.in_channels}' in text
