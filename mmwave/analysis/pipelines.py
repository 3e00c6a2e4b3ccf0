"""Whole detectors and segmentors in train form and deploy form: what the backbone's gain is worth.

Both forms must give the same before they are timed; their backbones alone are timed between them.
"""

import copy
import csv
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, TRANSFORMS, DefaultScope
from torch import Tensor, nn

from mmwave.apis import load_config, preflight
from mmwave.deploy import to_deploy
from mmwave.engine.cpu import adapt_to_cpu
from mmwave.errors import UserError
from mmwave.mmcv_ops.environment import check_environment
from mmwave.mmcv_ops.precision import keep_detection_ops_in_float32

from .benchmark import randomise_norms
from .cases import WIDER, check_one_of
from .equality import Unequal, inequality, relative_error
from .timing import Ratio, Timing, alternate


@dataclass(frozen=True, kw_only=True)
class Task:
    """What the models of one library have in common.

    Attributes:
        model: what they are called.
        size: height and width of the image by default, before the data preprocessor pads it.
        pack: the transform that ends the library's data pipelines.
    """

    model: str
    size: tuple[int, int]
    pack: str


TASKS: Mapping[str, Task] = MappingProxyType(
    {
        'mmdet': Task(model='detector', size=(800, 1333), pack='PackDetInputs'),
        'mmseg': Task(model='segmentor', size=(512, 1024), pack='PackSegInputs'),
    }
)
"""``default_scope`` of a config -> its task."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """What to measure.

    Attributes:
        name: the config's, without folder and suffix.
        cfg: of the model.
        size: height and width of the image in pixels.
        dtype: ``'float32'``, or ``'bfloat16'`` for autocast to it with float32 weights.
    """

    name: str
    cfg: Config
    size: tuple[int, int]
    dtype: str

    @property
    def task(self) -> Task:
        return TASKS[self.cfg.default_scope]


@dataclass(frozen=True, kw_only=True)
class Forms:
    """Seconds that the two forms of one thing take for one image."""

    train: Timing
    deploy: Timing

    @property
    def speedup(self) -> Ratio:
        """How many times as fast the deploy form is, by the clock."""
        return Ratio.of(self.train.wall, self.deploy.wall)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A model and its backbone, both in both forms.

    Attributes:
        case: what was measured.
        whole: from the image to the predictions.
        backbone: alone, on what the data preprocessor makes of the image.
        error: relative error of the deploy form's raw outputs to the train form's in a wider dtype.
        train_error: the same of the train form.
        boxes: how many the detector found; None for a segmentor.
    """

    case: Case
    whole: Forms
    backbone: Forms
    error: float
    train_error: float
    boxes: int | None

    @property
    def shares(self) -> tuple[float, float]:
        """The backbone's part of the time that the whole takes, in train form and deploy form."""
        train = Ratio.of(self.backbone.train.wall, self.whole.train.wall)
        deploy = Ratio.of(self.backbone.deploy.wall, self.whole.deploy.wall)
        return train.median, deploy.median


def cases(
    configs: Iterable[str],
    *,
    sizes: Iterable[tuple[int, int]] = (),
    dtypes: Iterable[str] = ('float32',),
    cfg_options: Mapping[str, Any] | None = None,
) -> list[Case]:
    """Every combination of configs, sizes and dtypes.

    Args:
        configs: config files of detectors and segmentors.
        sizes: of the image; by default that of the config's task.
        dtypes: see :class:`Case`.
        cfg_options: dotted keys and the values that replace those of every config.

    Raises:
        UserError: naming the first value that is not accepted, or the library that is missing.
    """
    sizes, dtypes = list(sizes), list(dtypes)
    for dtype in dtypes:
        check_one_of('dtype', dtype, WIDER)
    for height, width in sizes:
        if min(height, width) < 1:
            raise UserError(f'size {height}x{width}: both sides must be at least 1')
    made = []
    for path in configs:
        cfg, name = load_config(path, cfg_options=cfg_options), Path(path).stem
        scope = cfg.get('default_scope')
        if scope not in TASKS:
            known = ' or '.join(f'{key!r} ({task.model})' for key, task in TASKS.items())
            raise UserError(f'{name}: default_scope is {scope!r}: expected {known}')
        check_environment(scope)
        if 'backbone' not in (cfg.get('model') or {}):
            raise UserError(f'{name}: the config has no model.backbone')
        with _in_one_line(name):
            preflight(cfg, splits=())
        made += [
            Case(name=name, cfg=cfg, size=size, dtype=dtype)
            for size, dtype in product(sizes or [TASKS[scope].size], dtypes)
        ]
    return made


def run(case: Case, *, repeats: int = 7, device: str = 'cpu') -> Row:
    """Measure ``case`` with random weights and norms.

    Raises:
        UserError: for less than two repeats, and where the model cannot be built, deployed or run.
        Unequal: where the forms do not compute the same; nothing is timed then.
    """
    if repeats < 2:
        raise UserError(f'repeats={repeats} must be at least 2, to tell how times spread')
    with DefaultScope.overwrite_default_scope(case.cfg.default_scope):
        with _in_one_line(case.name):
            train = _build(case, device)
            deploy, _ = to_deploy(train)
            batch = _batch(case)
            errors = _errors(case, (train, deploy), batch)
            found = [_predict(case, model, batch) for model in (train, deploy)]
        _check_equal(case, *errors)
        steps = _steps(case, train, deploy, batch)
        times = alternate(steps, repeats=repeats, device=device)
    return Row(
        case=case,
        whole=Forms(train=times['train'], deploy=times['deploy']),
        backbone=Forms(train=times['train backbone'], deploy=times['deploy backbone']),
        train_error=errors[0],
        error=errors[1],
        boxes=len(found[0].pred_instances) if case.task.model == 'detector' else None,
    )


@contextmanager
def _in_one_line(name: str) -> Iterator[None]:
    """Make what libraries raise about the model ``name`` an error of one line."""
    try:
        yield
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error.args[0] if error.args else '').strip() or type(error).__name__
        raise UserError(f'{name}: {reason.splitlines()[0]}') from error


def _build(case: Case, device: str) -> Any:
    """The model in train form and eval mode. Nothing is read from a file: no ``init_weights``."""
    cfg = copy.deepcopy(case.cfg)
    cfg.model.backbone.init_cfg = None
    if device == 'cpu':
        adapt_to_cpu(cfg, 'none')
        if case.dtype != 'float32' and case.task.model == 'detector':
            keep_detection_ops_in_float32()
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    randomise_norms(model)
    return model.to(device).eval()


def _batch(case: Case) -> dict[str, Any]:
    """One image of noise, as a data loader hands it over."""
    height, width = case.size
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8, generator=generator)
    # An image that was read and resized, though not in size.
    loaded = dict(
        img=image.numpy(),
        img_id=0,
        img_path='',
        img_shape=case.size,
        ori_shape=case.size,
        scale_factor=(1.0, 1.0),
        flip=False,
        flip_direction=None,
    )
    packed = TRANSFORMS.build(dict(type=case.task.pack))(loaded)
    return {key: [value] for key, value in packed.items()}


@contextmanager
def _testing(dtype: str, device: torch.device) -> Iterator[None]:
    """What mmengine's test loop runs a model in."""
    low = dtype != 'float32'
    with torch.no_grad(), torch.autocast(device.type, getattr(torch, dtype), enabled=low):
        yield


def _predict(case: Case, model: Any, batch: Mapping[str, Any]) -> Any:
    """What is timed: one image from the data preprocessor to its predictions."""
    with _testing(case.dtype, next(model.parameters()).device):
        (found,) = model.test_step(batch)
    return found


def _steps(
    case: Case, train: Any, deploy: Any, batch: Mapping[str, Any]
) -> dict[str, Callable[[], object]]:
    images = train.data_preprocessor(batch, False)['inputs']

    def features(backbone: nn.Module) -> object:
        with _testing(case.dtype, images.device):
            return backbone(images)

    return {
        'train': lambda: _predict(case, train, batch),
        'deploy': lambda: _predict(case, deploy, batch),
        'train backbone': lambda: features(train.backbone),
        'deploy backbone': lambda: features(deploy.backbone),
    }


def _errors(case: Case, forms: tuple[Any, Any], batch: Mapping[str, Any]) -> tuple[float, float]:
    """Relative errors of both forms to the train form in a wider dtype: train, deploy."""
    data = forms[0].data_preprocessor(batch, False)
    images, samples = data['inputs'], data['data_samples']
    wider = WIDER[case.dtype]
    with _testing('float32', images.device):
        truth = _raw(copy.deepcopy(forms[0]).to(wider), images.to(wider), samples)
    with _testing(case.dtype, images.device):
        train, deploy = (relative_error(_raw(form, images, samples), truth) for form in forms)
    return train, deploy


def _raw(model: Any, images: Tensor, samples: list[Any]) -> dict[str, Tensor]:
    """Outputs of the heads: a segmentor's logits, a detector's scores and offsets.

    Of a detector of two stages those of the first, on every map of the neck: which boxes reach the
    second hangs on the order of the first one's scores, that is on their last bits.
    """
    if getattr(model, 'with_rpn', False):
        outputs = model.rpn_head(model.extract_feat(images))
    else:
        outputs = model(images, samples, mode='tensor')
    return {f'output {i}': x for i, x in enumerate(_tensors(outputs))}


def _tensors(nested: Any) -> Iterator[Tensor]:
    if isinstance(nested, Tensor):
        yield nested
    else:
        for item in nested:
            yield from _tensors(item)


def _check_equal(case: Case, train: float, deploy: float) -> None:
    wrong = inequality(deploy, train, getattr(torch, case.dtype))
    if wrong:
        raise Unequal(
            f'{case.name}: nothing is timed: {case.dtype} outputs of the deploy form, with the '
            f'train form as the standard: {wrong}'
        )


Column = tuple[str, int, Callable[[Row], str]]


def _ms(time: Timing) -> str:
    return f'{1e3 * time.median:.1f}'


def _rate(time: Timing) -> str:
    return f'{1 / time.median:.3g}'


COLUMNS: tuple[Column, ...] = (
    ('size', 8, lambda r: f'{r.case.size[0]}x{r.case.size[1]}'),
    ('dtype', 8, lambda r: r.case.dtype),
    ('train ms', 8, lambda r: _ms(r.whole.train)),
    ('deploy ms', 9, lambda r: _ms(r.whole.deploy)),
    ('images/s', 8, lambda r: _rate(r.whole.train)),
    ('deploy', 6, lambda r: _rate(r.whole.deploy)),
    ('speed-up', 8, lambda r: f'{r.whole.speedup.median:.2f}'),
    ('quartiles', 11, lambda r: f'{r.whole.speedup.low:.2f} - {r.whole.speedup.high:.2f}'),
    ('backbone ms', 11, lambda r: _ms(r.backbone.train)),
    ('deploy', 7, lambda r: _ms(r.backbone.deploy)),
    ('speed-up', 8, lambda r: f'{r.backbone.speedup.median:.2f}'),
    ('share', 5, lambda r: f'{r.shares[0]:.2f}'),
    ('deploy', 6, lambda r: f'{r.shares[1]:.2f}'),
    ('error', 7, lambda r: f'{r.error:.1e}'),
    ("train's", 7, lambda r: f'{r.train_error:.1e}'),
    ('boxes', 5, lambda r: '' if r.boxes is None else str(r.boxes)),
)
LEGEND = """\
Medians of {repeats} rounds in which both forms and their backbones take turns in one process.
ms: one image through data preprocessor, network and post-processing, nothing loaded from a disk.
speed-up: train form's time over deploy form's, median and quartiles of the rounds; then the same of
the backbones alone, on the preprocessed image at once. share: backbone's part of the whole's time.
error: relative, of the raw outputs to the train form in a wider dtype; checked before timing.
bfloat16: autocast, which casts the float32 weights anew for every image.
Weights are random, test_cfg is the config's: NMS may see thousands of boxes or none, a mask head
likewise, and a trained model's post-processing takes another time. boxes: what was left."""


def table(rows: Iterable[Row], repeats: int, width: int) -> Iterator[str]:
    """Legend, head and one line for each row as soon as it is there; names take ``width``."""
    columns: list[Column] = [('model', width, lambda r: r.case.name), *COLUMNS]
    yield LEGEND.format(repeats=repeats)
    yield '  '.join(title.ljust(width) for title, width, _ in columns).rstrip()
    for row in rows:
        yield '  '.join(text(row).ljust(width) for _, width, text in columns).rstrip()


def records(rows: Iterable[Row], machine: str) -> str:
    """The rows as CSV with a header: full precision, seconds."""
    listed = [_record(row, machine) for row in rows]
    out = StringIO()
    writer = csv.DictWriter(out, fieldnames=list(listed[0]), lineterminator='\n')
    writer.writeheader()
    writer.writerows(listed)
    return out.getvalue()


def _record(row: Row, machine: str) -> dict[str, object]:
    case = row.case
    record: dict[str, object] = {
        'model': case.name,
        'kind': case.task.model,
        'height': case.size[0],
        'width': case.size[1],
        'dtype': case.dtype,
        'rounds': len(row.whole.train.wall),
    }
    for part, forms in (('whole', row.whole), ('backbone', row.backbone)):
        ratio = forms.speedup
        record |= {
            f'{part}_speedup_quartile1': ratio.low,
            f'{part}_speedup_median': ratio.median,
            f'{part}_speedup_quartile3': ratio.high,
        }
        for form, time in vars(forms).items():
            record |= {
                f'{part}_{form}_wall_median_s': time.median,
                f'{part}_{form}_wall_iqr_s': time.iqr,
                f'{part}_{form}_cpu_median_s': time.cpu_median,
            }
    train, deploy = row.shares
    return record | {
        'train_images_per_s': 1 / row.whole.train.median,
        'deploy_images_per_s': 1 / row.whole.deploy.median,
        'train_backbone_share': train,
        'deploy_backbone_share': deploy,
        'train_error': row.train_error,
        'deploy_error': row.error,
        'boxes': '' if row.boxes is None else row.boxes,
        'machine': machine,
    }
