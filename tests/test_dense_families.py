"""Dense models of the plain and part-pyramid families: where levels, anchors and regions lie.

``test_configs`` builds and trains every leaf; here stands what it does not show: that strides are
true at every size, fractions included, and that models of every method run at sizes unlike the
trained one. Models are the leaves', of tiny archs and of one width throughout.
"""

import functools
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config, ConfigDict
from mmengine.model import BaseModel, revert_sync_batchnorm
from mmengine.registry import MODELS, TASK_UTILS, DefaultScope
from mmengine.structures import InstanceData, PixelData
from torch import Tensor, nn

from mmwave.models import MLPBackbone
from tests.contracts import ROOT, images
from tests.families import FAMILIES

WIDTH = 16
CLASSES = 3
TINY = {name: family.one_width for name, family in FAMILIES.items() if family.one_width}
LEAVES = sorted(
    path
    for path in (ROOT / 'configs').glob('[!_]*/*_*_*.py')
    if Config.fromfile(path).model.backbone.type.removeprefix('mmwave.') in TINY
)
DETECTORS = [p for p in LEAVES if 'coco' in p.stem]
WIDTHS = {'in_channels', 'out_channels', 'channels', 'feat_channels', 'embed_dim'}
WIDTHS |= {'conv_out_channels', 'fc_out_channels'}
CHANGED = dict(num_classes=CLASSES, stacked_convs=1, num_convs=1, nms_pre=100, score_thr=0.0)
SEGMENTORS = [p for p in LEAVES if p not in DETECTORS]
every_leaf = pytest.mark.parametrize('leaf', LEAVES, ids=lambda p: p.stem)
every_detector = pytest.mark.parametrize('leaf', DETECTORS, ids=lambda p: p.stem)
SIZES = [(40, 56), (133, 201)]
every_size = pytest.mark.parametrize('size', SIZES, ids=lambda size: 'x'.join(map(str, size)))


@functools.cache
def load(leaf: Path) -> Config:
    cfg = Config.fromfile(leaf)
    cfg.model.backbone.pop('init_cfg', None)  # no weights at hand
    return cfg


def shrunk(node: object) -> object:
    """A config in which every width is ``WIDTH`` and every list of widths holds it alone."""
    if isinstance(node, list | tuple):
        return [shrunk(value) for value in node]
    if not isinstance(node, dict):
        return node
    made = {}
    for key, value in node.items():
        if key == 'neck' and value['type'] == 'mmwave.SimpleFeaturePyramid':
            made[key] = dict(value, in_channels=WIDTH, out_channels=WIDTH)
        elif key in WIDTHS:
            made[key] = [WIDTH] * len(value) if isinstance(value, list) else WIDTH
        elif key == 'backbone':
            made[key] = dict(value, arch=TINY[value['type'].removeprefix('mmwave.')])
        else:
            made[key] = CHANGED.get(key, shrunk(value))
    return made


def scope(leaf: Path):
    return DefaultScope.overwrite_default_scope(load(leaf).default_scope)


def build(leaf: Path, **backbone: object) -> BaseModel:
    """The leaf's tiny model; the same weights whatever ``backbone`` sets."""
    pytest.importorskip('mmdet')
    pytest.importorskip('mmseg')
    cfg = ConfigDict(shrunk(load(leaf).model.to_dict()))
    cfg.backbone.update(backbone)
    torch.manual_seed(0)
    with scope(leaf):
        model = MODELS.build(cfg)
    return revert_sync_batchnorm(model)


def batch(leaf: Path, size: tuple[int, int], count: int = 2) -> dict:
    """Images with labels; they stand for images of twice that size, as after a resize."""
    height, width = size
    generator = torch.Generator().manual_seed(1)
    inputs = [
        torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator)
        for _ in range(count)
    ]
    meta = dict(
        img_shape=size, ori_shape=(2 * height, 2 * width), pad_shape=size, scale_factor=(0.5, 0.5)
    )
    samples = []
    for _ in inputs:
        if load(leaf).default_scope == 'mmseg':
            from mmseg.structures import SegDataSample

            labels = torch.randint(0, CLASSES, (1, *size), generator=generator)
            samples.append(SegDataSample(gt_sem_seg=PixelData(data=labels), metainfo=meta))
            continue
        from mmdet.structures import DetDataSample
        from mmdet.structures.mask import BitmapMasks

        boxes = torch.tensor([[3.0, 2, 30, 34], [width / 2, 7, width - 2, height - 3]])
        masks = torch.zeros(2, *size, dtype=torch.uint8)
        for mask, (x0, y0, x1, y1) in zip(masks, boxes.long().tolist(), strict=True):
            mask[y0:y1, x0:x1] = 1
        instances = InstanceData(
            bboxes=boxes, labels=torch.tensor([0, 2]), masks=BitmapMasks(masks.numpy(), *size)
        )
        sample = DetDataSample(gt_instances=instances, metainfo=meta)
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0))
        samples.append(sample)
    return {'inputs': inputs, 'data_samples': samples}


def test_there_are_detectors_and_segmentors_of_every_family():
    assert len(LEAVES) == 4 * len(TINY)
    assert len(DETECTORS) == len(SEGMENTORS) == 2 * len(TINY)


@functools.cache
def skeleton(leaf: Path) -> tuple[MLPBackbone, nn.Module]:
    """The leaf's own backbone, of one block a stage, and neck, without memory: they tell shapes."""
    model = load(leaf).model
    arch = MODELS.get(model.backbone.type).archs[model.backbone.arch]
    backbone = dict(model.backbone, arch=replace(arch, depths=(1, 1, 1, 1)))
    with torch.device('meta'), scope(leaf):
        return MODELS.build(backbone).eval(), MODELS.build(model.neck)


@functools.cache
def level_sizes(leaf: Path, size: tuple[int, int]) -> list[tuple[int, int]]:
    """Sides of the leaf's own levels for a padded image."""
    backbone, neck = skeleton(leaf)
    levels = neck(backbone(torch.zeros(1, 3, *size, device='meta')))
    return [tuple(level.shape[2:]) for level in levels]


def anchors_of(leaf: Path):
    """The leaf's anchor generator."""
    model = load(leaf).model
    head = model.rpn_head if 'rpn_head' in model else model.bbox_head
    with scope(leaf):
        return TASK_UTILS.build(head.anchor_generator)


def padded(leaf: Path, size: tuple[int, int]) -> tuple[int, int]:
    divisor = load(leaf).model.data_preprocessor.pad_size_divisor
    return tuple(-(-side // divisor) * divisor for side in size)


@every_detector
@pytest.mark.parametrize('size', [(800, 1333), *SIZES], ids='{0[0]}x{0[1]}'.format)
def test_levels_are_as_large_as_their_anchors_say(leaf, size):
    """At the sizes that images are padded to: patches divide them."""
    size, generator = padded(leaf, size), anchors_of(leaf)
    levels = level_sizes(leaf, size)
    assert len(levels) == len(generator.strides) == 5
    for level, (stride, other) in zip(levels, generator.strides, strict=True):
        assert stride == other
        for side, pixels in zip(level, size, strict=True):
            assert 0 <= side * stride - pixels < stride, (level, stride, size)


@every_detector
@pytest.mark.parametrize('size', [(800, 1333), *SIZES], ids='{0[0]}x{0[1]}'.format)
def test_anchors_are_valid_where_they_stand_on_the_image(leaf, size):
    size, generator = padded(leaf, size), anchors_of(leaf)
    levels = level_sizes(leaf, size)
    anchors = generator.grid_priors(levels, device='cpu')
    flags = generator.valid_flags(levels, size, device='cpu')
    for boxes, valid, level, (stride, _) in zip(
        anchors, flags, levels, generator.strides, strict=True
    ):
        centres = ((boxes[:, :2] + boxes[:, 2:]) / 2).view(*level, -1, 2)
        wanted = torch.stack(
            torch.meshgrid(
                torch.arange(level[1]) * stride, torch.arange(level[0]) * stride, indexing='xy'
            ),
            dim=-1,
        )
        torch.testing.assert_close(
            centres, wanted[:, :, None].expand_as(centres).float(), rtol=0, atol=1e-3
        )
        inside = (centres[..., 0] < size[1] - 1e-3) & (centres[..., 1] < size[0] - 1e-3)
        assert torch.equal(valid, inside.flatten())
        assert valid.any()


def local(leaf: Path, monkeypatch) -> BaseModel:
    """A model whose positions see little but their surroundings, with heads that see them."""
    model = build(leaf).eval()
    if 'eamlp' not in leaf.stem:  # there a stage's block also narrows its patches
        # Fresh mixing of a whole window may outweigh the position itself.
        monkeypatch.setattr(model.backbone, 'run_blocks', lambda i, x, *context: x)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)
    return model


def most_seen(outputs: Tensor, image: Tensor) -> list[int]:
    """Row and column in pixels of the cell of 16 x 16 that the outputs depend on most."""
    (gradient,) = torch.autograd.grad(outputs.square().sum(), image, retain_graph=True)
    energy = F.avg_pool2d(gradient.square().sum(dim=1), 16)[0]
    return [16 * k + 8 for k in divmod(int(energy.argmax()), energy.shape[1])]


@every_detector
def test_scores_look_at_where_their_anchors_are(leaf, monkeypatch):
    model, image = local(leaf, monkeypatch), images(1, 3, 224, 448).requires_grad_()
    head = model.rpn_head if hasattr(model, 'rpn_head') else model.bbox_head
    scores, _ = head(model.extract_feat(image))
    for level, (stride, _) in list(zip(scores, head.prior_generator.strides, strict=True))[:3]:
        row, column = (int(0.7 * side) for side in level.shape[2:])
        found = most_seen(level[0, :, row, column], image)
        for pixel, k in zip(found, (row, column), strict=True):
            # Half a cell, and two of the three positions that convolutions may be off.
            assert abs(pixel - (k + 0.5) * stride) <= 8 + 2 * stride


@pytest.mark.parametrize('leaf', SEGMENTORS, ids=lambda p: p.stem)
def test_logits_look_at_their_pixels(leaf, monkeypatch):
    """At a size that neither windows nor patches fill: what fills them up stretches nothing."""
    model, size = local(leaf, monkeypatch), (133, 201)
    image = images(1, 3, *size).requires_grad_()
    logits = model.encode_decode(image, [dict(img_shape=size)])
    assert logits.shape[2:] == size
    for part in (0.2, 0.6):  # further down, what is stretched would look outside the image
        pixel = [int(part * side) for side in size]
        found = most_seen(logits[0, :, pixel[0], pixel[1]], image)
        assert max(abs(a - b) for a, b in zip(found, pixel, strict=True)) <= 24


@pytest.mark.parametrize(
    'leaf', [p for p in DETECTORS if 'mask-rcnn' in p.stem], ids=lambda p: p.stem
)
@pytest.mark.parametrize('part', ['bbox', 'mask'])
def test_regions_are_pooled_where_they_lie(leaf, part):
    """On maps that hold the pixel coordinates of their positions, bins hold their own."""
    pytest.importorskip('mmdet')
    size = (448, 672)
    with scope(leaf):
        extractor = MODELS.build(load(leaf).model.roi_head[f'{part}_roi_extractor'])
    strides = [stride for stride, _ in anchors_of(leaf).strides[:4]]
    assert extractor.featmap_strides == strides
    levels = []
    for stride in strides:
        height, width = (math.ceil(side / stride) for side in size)
        y, x = torch.meshgrid(
            (torch.arange(height) + 0.5) * stride,
            (torch.arange(width) + 0.5) * stride,
            indexing='ij',
        )
        levels.append(F.pad(torch.stack([x, y])[None], (0, 0, 0, 0, 0, 254)))
    # Of an area for each of the levels, away from the border.
    boxes = torch.tensor(
        [[100.0, 90, 131, 140], [60, 81, 170, 211], [50, 40, 330, 260], [40, 30, 600, 400]]
    )
    assert extractor.map_roi_levels(F.pad(boxes, (1, 0)), 4).tolist() == [0, 1, 2, 3]
    regions = extractor(tuple(levels), F.pad(boxes, (1, 0)))
    bins = regions.shape[-1]
    for region, (x0, y0, x1, y1) in zip(regions, boxes.tolist(), strict=True):
        centres = (torch.arange(bins) + 0.5) / bins
        x, y = x0 + (x1 - x0) * centres, y0 + (y1 - y0) * centres
        torch.testing.assert_close(region[0], x.expand(bins, bins), rtol=0, atol=1e-3)
        torch.testing.assert_close(region[1], y[:, None].expand(bins, bins), rtol=0, atol=1e-3)


@every_leaf
@every_size
def test_predictions_are_of_the_image_s_size(leaf, size):
    model = build(leaf).eval()
    with torch.no_grad(), scope(leaf):
        (done,) = model.test_step(batch(leaf, size, count=1))
    height, width = (2 * side for side in size)
    if load(leaf).default_scope == 'mmseg':
        assert done.seg_logits.data.shape == (CLASSES, height, width)
        assert done.seg_logits.data.isfinite().all()
        assert done.seg_logits.data.std() > 1e-3
        return
    found = done.pred_instances
    assert len(found) > 10
    boxes = found.bboxes
    assert found.scores.isfinite().all()
    assert (boxes >= 0).all()
    assert (boxes[:, 0::2] <= width).all()
    assert (boxes[:, 1::2] <= height).all()
    # Not of the resized image, nor of a part of it.
    assert boxes[:, 2].max() > 0.75 * width
    assert boxes[:, 3].max() > 0.75 * height
    if 'mask' in leaf.stem:
        assert found.masks.shape == (len(found), height, width)


def step(leaf: Path, size: tuple[int, int], **backbone: object) -> dict[str, Tensor]:
    """Gradients of a training step."""
    model = build(leaf, **backbone).train()
    torch.manual_seed(2)  # drop path, dropout and sampling
    with scope(leaf):
        data = model.data_preprocessor(batch(leaf, size), training=True)
        loss, log = model.parse_losses(model(**data, mode='loss'))
    loss.backward()
    assert all(torch.as_tensor(value).isfinite().all() for value in log.values())
    gradients = {n: p.grad for n, p in model.named_parameters()}
    assert not [n for n, g in gradients.items() if g is None]
    assert all(g.isfinite().all() for g in gradients.values())
    return gradients


@every_leaf
def test_a_step_at_an_odd_size_is_the_same_with_checkpoints(leaf):
    plain = step(leaf, SIZES[1])
    checkpointed = step(leaf, SIZES[1], with_cp=True)
    assert all(torch.equal(g, checkpointed[n]) for n, g in plain.items())
    assert any(g.abs().max() > 0 for n, g in plain.items() if n.startswith('backbone.stem'))


@pytest.mark.parametrize(
    'leaf', [p for p in DETECTORS if 'retinanet' in p.stem], ids=lambda p: p.stem
)
def test_a_step_with_resized_mixing(leaf):
    """Where there is a choice, it is another function and trains as well."""
    if 'eamlp' in leaf.stem:
        with pytest.raises(TypeError, match='grid_mode'):
            build(leaf, grid_mode='resize')
        return
    windows, resized = (step(leaf, SIZES[1], grid_mode=mode) for mode in ('window', 'resize'))
    assert any(not torch.equal(g, resized[n]) for n, g in windows.items())
