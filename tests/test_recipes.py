"""ImageNet recipes: what the configs build is what the releases state."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mmcv.transforms import BaseTransform
from mmengine.config import Config
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import DefaultScope
from PIL import Image
from timm.scheduler import CosineLRScheduler

from mmwave.apis.preflight import preflight
from mmwave.models import RepMLPNet
from tests.contracts import ROOT, registered
from tests.families import FAMILIES
from tests.test_configs import LEAVES, build, load

MIXER_S16 = ROOT / 'configs/mlp_mixer/mlp-mixer-s16_in1k.py'


def learning_rates(cfg: Config, steps: int, epoch_length: int | None = None) -> list[float]:
    """Rates of the first steps: epochs, or iterations of so many to one, each by its schedulers."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([parameter], lr=cfg.optim_wrapper.optimizer.lr)
    from mmengine.registry import PARAM_SCHEDULERS

    schedulers = [
        PARAM_SCHEDULERS.build(
            dict(s), default_args=dict(optimizer=optimizer, epoch_length=epoch_length)
        )
        for s in cfg.param_scheduler
    ]
    rates = []
    for step in range(1, steps + 1):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            if epoch_length is None or not scheduler.by_epoch or step % epoch_length == 0:
                scheduler.step()
    return rates


def optimizer_of(cfg: Config, model: torch.nn.Module) -> OptimWrapper:
    """What steps ``model`` by ``cfg``, in single precision."""
    recipe = dict(cfg.optim_wrapper, type='OptimWrapper')
    recipe.pop('loss_scale', None)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return build_optim_wrapper(model, recipe)


@pytest.mark.parametrize(
    ('leaf', 'rate', 'last', 'warm', 'first', 'epochs'),
    [
        ('wavemlp/wavemlp-t', 1e-3, 1e-5, 5, 1e-6, 300),
        ('posmlp/posmlp-t', 2e-3, 1e-6, 10, 1e-5, 300),
        ('posmlp/posmlp-s', 1e-3, 1e-6, 10, 1e-5, 300),
        ('vip/vip-s7', 2e-3, 1e-5, 20, 1e-6, 300),
        ('gmlp/gmlp-s16', 4e-3, 1e-5, 20, 1e-6, 300),  # PaddleViT's
        ('resmlp/resmlp-s12', 5e-3, 1e-5, 5, 1e-6, 400),
        ('eamlp/eamlp-7', 1e-3, 1e-5, 5, 1e-6, 300),
        ('cyclemlp/cyclemlp-b1', 1e-3, 1e-5, 5, 1e-6, 300),
        ('hiremlp/hiremlp-t', 2e-3, 1e-5, 20, 1e-6, 300),
        ('hiremlp/hiremlp-b', 1e-3, 1e-5, 20, 1e-6, 300),
    ],
)
def test_in1k_learning_rates_are_the_release_s(leaf, rate, last, warm, first, epochs):
    """timm's scheduler with the release's options, ten epochs of cool-down included."""
    cfg = load(ROOT / f'configs/{leaf}_in1k.py')
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    timm = CosineLRScheduler(
        optimizer, t_initial=epochs, lr_min=last, warmup_t=warm, warmup_lr_init=first
    )
    wanted = []
    for epoch in range(epochs + 10):
        timm.step(epoch)
        wanted.append(optimizer.param_groups[0]['lr'])
    got = learning_rates(cfg, epochs + 10)
    # Chained with the warm-up, the cosine has begun a little in the first epochs.
    begun = [cosine(epoch, epochs) for epoch in range(warm)]
    ratios = [g / w for g, w in zip(got, wanted, strict=True)]
    assert ratios[:warm] == pytest.approx(begun, rel=3e-4)
    assert ratios[warm:] == pytest.approx([1.0] * (epochs + 10 - warm), rel=1e-4)


def test_in1k_recipe():
    """Figures of the release's README and train.py."""
    cfg = load(ROOT / 'configs/wavemlp/wavemlp-s_in1k.py')
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay, optimizer.eps) == (
        'AdamW',
        1e-3,
        0.05,
        1e-8,
    )
    assert cfg.train_cfg.max_epochs == 300
    assert cfg.train_dataloader.batch_size * 8 == cfg.auto_scale_lr.base_batch_size == 1024
    assert cfg.train_dataloader.sampler.type == 'RepeatAugSampler'
    assert cfg.model.backbone.drop_path_rate == 0.1
    assert [(a.type, a.alpha) for a in cfg.model.train_cfg.augments] == [
        ('Mixup', 0.8),
        ('CutMix', 1.0),
    ]
    assert (cfg.model.head.loss.type, cfg.model.head.loss.label_smooth_val) == (
        'LabelSmoothLoss',
        0.1,
    )
    (ema,) = [h for h in cfg.custom_hooks if h.type == 'EMAHook']
    assert 1 - ema.momentum == pytest.approx(0.99996)
    transforms = {t.type: t for t in cfg.train_dataloader.dataset.pipeline}
    augment = transforms['RandAugment']
    assert (augment.magnitude_level, augment.magnitude_std, augment.num_policies) == (9, 0.5, 2)
    assert augment.policies == 'timm_increasing'
    assert transforms['RandomErasing'].erase_prob == 0.25
    test = {t.type: t for t in cfg.test_dataloader.dataset.pipeline}
    assert test['ResizeEdge'].scale == int(test['CenterCrop'].crop_size / 0.9)
    assert test['ResizeEdge'].interpolation == 'bicubic'


@pytest.mark.parametrize(
    ('leaf', 'wanted'),
    [
        ('wavemlp/wavemlp-s_in1k', 0.05),
        ('repmlpnet/repmlpnet-t224_in1k', 0.1),
        ('repmlpnet/repmlpnet-t224_in1k-mindcv', 2e-5),
        ('posmlp/posmlp-t_in1k', 0.067),
        ('vip/vip-s14_in1k', 0.05),
        ('gmlp/gmlp-ti16_in1k', 0.1),
        ('resmlp/resmlp-s12_in1k', 0.2),  # affine layers and scales included
        ('eamlp/eamlp-7_in1k', 0.03),
        ('cyclemlp/cyclemlp-b1_in1k', 0.05),
        ('activemlp/activemlp-xt_in1k', 0.05),  # nor do its position convolutions
        ('asmlp/asmlp-t_in1k', 0.05),
        ('hiremlp/hiremlp-t_in1k', 0.05),
    ],
)
def test_norms_and_biases_do_not_decay(leaf, wanted):
    cfg = load(ROOT / f'configs/{leaf}.py')
    model = build(cfg)
    wrapper = optimizer_of(cfg, model)
    decay = {id(g['params'][0]): g['weight_decay'] for g in wrapper.param_groups}
    for name, parameter in model.named_parameters():
        decays = parameter.dim() > 1 and '.position.' not in name
        assert decay[id(parameter)] == (wanted if decays else 0), name


def repmlpnet(variant: str) -> Config:
    return load(ROOT / f'configs/repmlpnet/repmlpnet-{variant}.py')


def cosine(step: int, steps: int) -> float:
    return 0.5 * (1 + math.cos(math.pi * step / steps))


def test_repmlpnet_learning_rates_are_the_release_s():
    """A warm-up of 10 epochs from 5e-7, then what is left of a cosine over all 100, per step."""
    epoch, total = 50, 5000
    warm = 10 * epoch
    wanted = [5e-7 + (1e-3 - 5e-7) * k / warm for k in range(warm)]
    wanted += [1e-3 * cosine(k, total) for k in range(warm, total)]
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    timm = CosineLRScheduler(
        optimizer, t_initial=total, warmup_t=warm, warmup_lr_init=5e-7, t_in_epochs=False
    )
    for step in (0, 1, 77, warm - 1, warm, 3001, total - 1):
        timm.step_update(step)
        assert optimizer.param_groups[0]['lr'] == pytest.approx(wanted[step], rel=1e-12)
    got = learning_rates(repmlpnet('t224_in1k'), total, epoch_length=epoch)
    assert got[warm:] == pytest.approx(wanted[warm:], rel=1e-8)
    # mmengine's warm-up ends one step early, and the cosine has begun in it.
    ratios = [g / w / cosine(k, total) for k, (g, w) in enumerate(zip(got, wanted, strict=True))]
    assert ratios[:warm] == pytest.approx([1.0] * warm, abs=1.01 / (warm - 1))
    below = f'{100 * (1 - cosine(warm, total)):.1f} %'
    assert below in (ROOT / 'configs/repmlpnet/README.md').read_text()


def test_asmlp_learning_rates_are_the_release_s():
    """A warm-up of 20 epochs from 1e-6, then what is left of a cosine over all 300, per step."""
    epoch, total = 10, 3000
    warm = 20 * epoch
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    timm = CosineLRScheduler(
        optimizer,
        t_initial=total,
        lr_min=1e-5,
        warmup_t=warm,
        warmup_lr_init=1e-6,
        t_in_epochs=False,
    )
    wanted = []
    for step in range(total):
        timm.step_update(step)
        wanted.append(optimizer.param_groups[0]['lr'])
    got = learning_rates(load(ROOT / 'configs/asmlp/asmlp-t_in1k.py'), total, epoch_length=epoch)
    # mmengine's warm-up ends one step early, and the cosine has begun in it.
    assert got[:warm] == pytest.approx(wanted[:warm], abs=1.2e-2 * 1e-3)
    assert got[warm:] == pytest.approx(wanted[warm:], rel=2e-4)
    below = f'{100 * (1 - cosine(warm, total)):.1f} %'
    assert below in (ROOT / 'configs/asmlp/README.md').read_text()


def test_mindcv_learning_rates():
    """10 epochs of warm-up, a cosine over the other 290."""
    cfg = repmlpnet('t224_in1k-mindcv')
    epoch = 7
    got = learning_rates(cfg, 300 * epoch, epoch_length=epoch)
    warm, rest = 10 * epoch, 290 * epoch
    slope = (5e-3 - got[0]) / (warm - 1)
    assert got[0] == pytest.approx(2.5e-6)
    assert got[:warm] == pytest.approx([got[0] + slope * k for k in range(warm)], rel=1e-9)
    assert got[warm:] == pytest.approx([5e-3 * cosine(k, rest) for k in range(rest)], rel=1e-8)


def test_mixer_learning_rates():
    """30 epochs of warm-up by the step, then a cosine over the other 270 by the epoch."""
    epoch, warm, rest = 7, 30, 270
    got = learning_rates(load(MIXER_S16), 300 * epoch, epoch_length=epoch)
    slope = (3e-3 - 3e-7) / (warm * epoch - 1)
    assert got[: warm * epoch] == pytest.approx(
        [3e-7 + slope * k for k in range(warm * epoch)], rel=1e-9
    )
    wanted = [3e-3 * cosine(k // epoch, rest) for k in range(rest * epoch)]
    assert got[warm * epoch :] == pytest.approx(wanted, rel=1e-8)


@pytest.mark.parametrize('variant', RepMLPNet.archs)
def test_repmlpnet_recipe(variant):
    """Figures of the release's README and settings."""
    cfg = repmlpnet(f'{variant}_in1k')
    wrapper, optimizer = cfg.optim_wrapper, cfg.optim_wrapper.optimizer
    assert (wrapper.type, wrapper.clip_grad) == ('OptimWrapper', dict(max_norm=5.0))
    assert (optimizer.type, optimizer.lr, optimizer.eps) == ('AdamW', 1e-3, 1e-8)
    assert optimizer.weight_decay == 0.1
    assert cfg.train_cfg.max_epochs == 100
    assert cfg.train_dataloader.batch_size * 8 == cfg.auto_scale_lr.base_batch_size == 256
    assert cfg.train_dataloader.sampler.type == 'DefaultSampler'
    assert 'custom_hooks' not in cfg  # no averaged weights
    assert 'drop_path_rate' not in cfg.model.backbone
    assert 'act_cfg' not in cfg.model.backbone
    assert augments(cfg) == [('Mixup', 0.4), ('CutMix', 1.0)]
    assert cfg.model.head.loss.label_smooth_val == 0.1
    size = int(variant[1:])
    train = {t.type: t for t in cfg.train_dataloader.dataset.pipeline}
    crop = train['RandomResizedCrop']
    assert (crop.scale, crop.interpolation) == (size, 'bilinear')
    assert 'RandomErasing' not in train
    assert evaluation(cfg) == (size, size, 'bilinear')


def augments(cfg: Config) -> list[tuple[str, float]]:
    return [(a.type, a.alpha) for a in cfg.model.train_cfg.augments]


def evaluation(cfg: Config) -> tuple[int, int, str]:
    """Length that the short side is resized to, side of the crop, interpolation."""
    test = {t.type: t for t in cfg.test_dataloader.dataset.pipeline}
    resize = test['ResizeEdge']
    assert resize.edge == 'short'
    return resize.scale, test['CenterCrop'].crop_size, resize.interpolation


def test_mindcv_recipe():
    cfg = repmlpnet('t224_in1k-mindcv')
    assert (cfg.optim_wrapper.type, cfg.optim_wrapper.loss_scale) == ('AmpOptimWrapper', 1024)
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.lr, optimizer.weight_decay) == (5e-3, 2e-5)
    assert cfg.train_cfg.max_epochs == 300
    assert cfg.train_dataloader.batch_size * 8 == cfg.auto_scale_lr.base_batch_size == 1024
    assert augments(cfg) == [('Mixup', 0.2), ('CutMix', 1.0)]
    train = {t.type: t for t in cfg.train_dataloader.dataset.pipeline}
    assert train['RandAugment'].magnitude_level == 9
    assert train['RandomErasing'].erase_prob == 0.25
    scale, side, interpolation = evaluation(cfg)
    assert (side / scale, side, interpolation) == (0.875, 224, 'bilinear')
    assert build(cfg).backbone.act_cfg == dict(type='GELU', approximate='tanh')


def clipping(cfg: Config) -> float | None:
    """What a step cuts gradients of norm a million to, by wrapper or optimizer; None: nothing."""
    layer = torch.nn.Linear(1, 1, bias=False)
    wrapper = optimizer_of(cfg, layer)
    layer.weight.grad = torch.full((1, 1), 1e6)
    before = layer.weight.clone()
    wrapper.step()
    assert layer.weight != before
    assert layer.weight.isfinite()
    norm = layer.weight.grad.item()
    return None if norm == 1e6 else round(norm, 4)


def recipe(cfg: Config) -> dict:
    """What a recipe's table states, as a config has it."""
    wrapper = cfg.optim_wrapper
    train = {t.type: t for t in cfg.train_dataloader.dataset.pipeline}
    crops = (
        [steps[0] for steps in train['RandomChoice'].transforms]
        if 'RandomChoice' in train
        else [train['RandomResizedCrop']]
    )
    augment, erase = train.get('RandAugment'), train.get('RandomErasing')
    emas = [hook.momentum for hook in cfg.get('custom_hooks', ()) if hook.type == 'EMAHook']
    return dict(
        optimizer=(wrapper.optimizer.type, wrapper.optimizer.lr, wrapper.optimizer.weight_decay),
        eps=wrapper.optimizer.eps,
        amp=wrapper.type == 'AmpOptimWrapper',
        clip=clipping(cfg),
        epochs=cfg.train_cfg.max_epochs,
        batch=(cfg.train_dataloader.batch_size, cfg.auto_scale_lr.base_batch_size),
        repeated=cfg.train_dataloader.sampler.type == 'RepeatAugSampler',
        ema=emas,
        mixing=augments(cfg) if cfg.model.train_cfg else [],
        smoothing=cfg.model.head.loss.label_smooth_val,
        augment=augment
        and (augment.num_policies, augment.magnitude_level, augment.get('magnitude_std', 0)),
        erase=erase and erase.erase_prob,
        crops=[crop.interpolation for crop in crops],
        ratios={tuple(crop.get('aspect_ratio_range', (3 / 4, 4 / 3))) for crop in crops},
        evaluation=evaluation(cfg),
        drop_path=cfg.model.backbone.get('drop_path_rate', 0),
        drop=cfg.model.backbone.get('drop_rate', 0),
    )


# The release of Wave-MLP; the families' data state how theirs differ.
RELEASE = dict(
    optimizer=('AdamW', 1e-3, 0.05),
    eps=1e-8,
    amp=True,
    clip=None,
    epochs=300,
    batch=(128, 1024),
    repeated=True,
    ema=[4e-5],
    mixing=[('Mixup', 0.8), ('CutMix', 1.0)],
    smoothing=0.1,
    augment=(2, 9, 0.5),
    erase=0.25,
    crops=['bilinear', 'bicubic'],
    ratios={(3 / 4, 4 / 3)},
    evaluation=(248, 224, 'bicubic'),
    drop_path=0.1,
    drop=0,
)
RECIPES = {
    registered()[name].__module__.rpartition('.')[2]: family.recipes
    for name, family in FAMILIES.items()
}
"""Of the families that state them, by folder: variant, or '' for all others, -> differences."""


@pytest.mark.parametrize(
    'leaf',
    [leaf for leaf in LEAVES if leaf.stem.endswith('_in1k') and RECIPES[leaf.parent.name]],
    ids=lambda leaf: leaf.stem,
)
def test_recipes(leaf):
    """Figures of the releases' READMEs, settings and logs."""
    recipes = RECIPES[leaf.parent.name]
    variant = load(leaf).model.backbone.arch
    assert recipe(load(leaf)) == RELEASE | recipes[''] | recipes.get(variant, {})


def test_a_dumped_config_is_read_back():
    """Its schedule too, which an infinite norm would spoil: a runner dumps what it trains with."""
    cfg = load(ROOT / 'configs/resmlp/resmlp-s12_in1k.py')
    again = Config.fromstring(cfg.pretty_text, '.py')
    assert again.optim_wrapper == cfg.optim_wrapper


def test_mixer_decays_everything():
    """As in mmpretrain's settings."""
    assert 'paramwise_cfg' not in load(MIXER_S16).optim_wrapper


@pytest.fixture
def small_imagenet(tmp_path):
    """Six images of two classes in ImageNet's folders, with list files beside them."""
    rng = np.random.default_rng(0)
    for split, count in (('train', 4), ('val', 2)):
        lines = []
        for index in range(count):
            label = index % 2
            name = f'{split}/n0{label}/{index} of {split}.JPEG'  # spaces do no harm
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (60 + index, 80, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name)
            lines.append(f'{name} {label + 7}\n')
        (tmp_path / f'{split}_list.txt').write_text(''.join(lines))
    return tmp_path


BY_LISTS = (
    'train_dataloader.dataset.ann_file=train_list.txt train_dataloader.dataset.data_prefix=. '
    'val_dataloader.dataset.ann_file=val_list.txt val_dataloader.dataset.data_prefix=.'
)
"""The options with which a leaf takes its images from list files, as the README prints them."""


@pytest.mark.parametrize(
    'leaf',
    [
        'wavemlp/wavemlp-t',
        'posmlp/posmlp-t',
        'vip/vip-l7',
        'gmlp/gmlp-s16',
        'resmlp/resmlp-s12',
        'hiremlp/hiremlp-t',
        'mlp_mixer/mlp-mixer-s16',
        'repmlpnet/repmlpnet-t224',
        'cyclemlp/cyclemlp-b1',
        'activemlp/activemlp-xt',
        'asmlp/asmlp-t',
    ],
)
def test_images_by_list_files(leaf, small_imagenet, numpy_seed):
    """Every data set's pipelines on images that lists name, with other labels than folders give."""
    from mmpretrain.registry import DATASETS

    cfg = load(ROOT / f'configs/{leaf}_in1k.py')
    options = dict(option.split('=') for option in BY_LISTS.split())
    roots = {
        f'{split}_dataloader.dataset.data_root': str(small_imagenet) for split in ('train', 'val')
    }
    cfg.merge_from_dict(options | roots)
    preflight(cfg)
    for split, labels in (('train', [7, 8, 7, 8]), ('val', [7, 8])):
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            dataset = DATASETS.build(cfg[f'{split}_dataloader'].dataset)
        items = list(dataset)
        assert [item['data_samples'].gt_label.item() for item in items] == labels
        assert [tuple(item['inputs'].shape) for item in items] == [(3, 224, 224)] * len(labels)
        paths = [Path(item['data_samples'].img_path) for item in items]
        assert {path.parent.parent for path in paths} == {small_imagenet / split}


def raug15(**options: object) -> BaseTransform:
    from mmpretrain.registry import TRANSFORMS

    pipeline = repmlpnet('t224_in1k').train_dataloader.dataset.pipeline
    (recipe,) = [t for t in pipeline if t.type == 'RandAugment']
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return TRANSFORMS.build(dict(recipe, **options))


@pytest.fixture
def numpy_seed():
    state = np.random.get_state()
    np.random.seed(0)
    yield
    np.random.set_state(state)


def test_raug15_applies_two_of_sixteen_at_up_to_fourteen_tenths(numpy_seed):
    augment = raug15()
    kinds = [type(t).__name__ for t in augment]
    assert len(kinds) == 16
    assert {'Invert', 'Cutout'} <= set(kinds)
    assert augment.num_policies == 2
    assert all(t.prob == 1.0 for t in augment)
    (rotate,) = [t for t in augment if type(t).__name__ == 'Rotate']
    degrees = np.array([rotate.random_magnitude() for _ in range(4000)])
    # Uniform from 0 to 14 tenths of 30 degrees.
    assert 0 <= degrees.min() < 0.2
    assert 41.8 < degrees.max() <= 42
    assert degrees.mean() == pytest.approx(21, abs=0.5)


@pytest.mark.parametrize('strength', [0, 14])
def test_raug15_takes_its_extreme_strengths(numpy_seed, strength):
    image = np.random.randint(0, 256, (224, 224, 3), dtype=np.uint8)
    for transform in raug15(magnitude_level=strength, magnitude_std=0):
        got = transform({'img': image.copy()})['img']
        assert (got.shape, got.dtype) == (image.shape, np.uint8), transform
        if strength:
            assert got.std() > 20, transform  # something of the picture is left


def test_raug15_fills_with_grey(numpy_seed):
    """cv2 takes one number for the blue channel alone."""
    grey = np.full((64, 64, 3), 128, dtype=np.uint8)
    moving = ('Rotate', 'Shear', 'Translate', 'Cutout')
    seen = [t for t in raug15(magnitude_std=0) if type(t).__name__ in moving]
    assert len(seen) == 6
    for transform in seen:
        assert np.array_equal(transform({'img': grey.copy()})['img'], grey), transform


def test_the_two_sizes_of_raug15_differ_in_the_size_alone():
    small, large = (
        (ROOT / f'configs/_base_/datasets/in1k_raug15_{size}.py').read_text() for size in (224, 256)
    )
    assert small.count('224') == 2
    assert small.replace('224', '256') == large


@pytest.mark.parametrize(
    'path', sorted((ROOT / 'configs/_base_/schedules').glob('*.py')), ids=lambda path: path.stem
)
def test_every_schedule_states_whether_gradients_are_clipped(path):
    text, clips = path.read_text(), 'clip_grad' in Config.fromfile(path).optim_wrapper
    said = re.findall(r'[Nn]o clipping|not clipped|[Gg]radients are clipped', text)
    assert said
    assert clips == any('are clipped' in words for words in said)
