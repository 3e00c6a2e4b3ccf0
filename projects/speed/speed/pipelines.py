"""Whole detectors and segmentors in train form and deploy form: what the backbone's gain is worth.

Both forms must compute the same before they are timed, in turns with their backbones alone.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
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
from mmwave.engine.model_wrapper import unwrapped_settings
from mmwave.errors import UserError
from mmwave.inspect.timing import Timing, alternate
from mmwave.mmcv_ops.environment import check_environment
from mmwave.mmcv_ops.precision import keep_detection_ops_in_float32

from .cases import WIDER, Case, Measured, Result, Row, check_one_of, check_repeats
from .equality import Unequal, inequality, relative_error
from .forms import Label, randomise_norms


@dataclass(frozen=True, kw_only=True)
class Task:
    """What the models of one library have in common.

    Attributes:
        kind: what they are called.
        size: height and width of the image by default, before the data preprocessor pads it.
        pack: the transform that ends the library's data pipelines.
    """

    kind: str
    size: tuple[int, int]
    pack: str


TASKS: Mapping[str, Task] = MappingProxyType(
    {
        'mmdet': Task(kind='detector', size=(800, 1333), pack='PackDetInputs'),
        'mmseg': Task(kind='segmentor', size=(512, 1024), pack='PackSegInputs'),
    }
)
"""``default_scope`` of a config -> its task."""


@dataclass(frozen=True, eq=False)
class Pipeline:
    """A whole detector or segmentor.

    Attributes:
        name: the config's, without folder and suffix.
        cfg: of the model.
    """

    name: str
    cfg: Config

    @property
    def task(self) -> Task:
        return TASKS[self.cfg.default_scope]


def cases(
    configs: Iterable[str],
    *,
    sizes: Iterable[tuple[int, int]] = (),
    dtypes: Iterable[str] = ('float32',),
    cfg_options: Mapping[str, Any] | None = None,
) -> list[Case[Pipeline]]:
    """Return every combination of configs, sizes and dtypes.

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
            known = ' or '.join(f'{key!r} ({task.kind})' for key, task in TASKS.items())
            raise UserError(f'{name}: default_scope is {scope!r}: expected {known}')
        check_environment(scope)
        cfg.model = unwrapped_settings(cfg.get('model') or {})  # views are merged elsewhere
        if 'backbone' not in (cfg.get('model') or {}):
            raise UserError(f'{name}: the config has no model.backbone')
        with _in_one_line(name):
            preflight(cfg, splits=())
        made += [
            Case(model=Pipeline(name, cfg), size=size, dtype=dtype)
            for size, dtype in product(sizes or [TASKS[scope].size], dtypes)
        ]
    return made


def run(case: Case[Pipeline], *, repeats: int = 7, device: str = 'cpu') -> Result:
    """Measure ``case`` with random weights and norms.

    The result's first row is the whole model, from the image to the predictions; the second the
    backbone alone, on the preprocessed image. Both compare the deploy form with the train form.

    Raises:
        UserError: for less than two repeats, and where the model cannot be built, deployed or run.
        Unequal: where the forms do not compute the same; nothing is timed then.
    """
    check_repeats(repeats)
    with DefaultScope.overwrite_default_scope(case.model.cfg.default_scope):
        with _in_one_line(case.model.name):
            train = _build(case, device)
            deploy, _ = to_deploy(train)
            batch = _batch(case)
            errors = _errors(case, (train, deploy), batch)
            found = [_predict(case, model, batch) for model in (train, deploy)]
        _check_equal(case, *errors)
        steps = _steps(case, train, deploy, batch)
        times = alternate(steps, repeats=repeats, device=device)
    return Result(
        case=case,
        rows=(
            _row(case, times['train'], times['deploy'], errors),
            _row(case, times['train backbone'], times['deploy backbone']),
        ),
        boxes=len(found[0].pred_instances) if case.model.task.kind == 'detector' else None,
    )


def _row(
    case: Case,
    train: Timing,
    deploy: Timing,
    errors: tuple[float | None, float | None] = (None, None),
) -> Row:
    """Compare the deploy form with the train form; ``errors`` of the train form come first."""
    reference, form = (
        Measured(label=Label(role='ours', name=name), time=time, error=error)
        for name, time, error in zip(('train form', 'deploy'), (train, deploy), errors, strict=True)
    )
    return Row(case=case, form=form, reference=reference)


@contextmanager
def _in_one_line(name: str) -> Iterator[None]:
    """Turn what libraries raise about the model ``name`` into an error of one line."""
    try:
        yield
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error.args[0] if error.args else '').strip() or type(error).__name__
        raise UserError(f'{name}: {reason.splitlines()[0]}') from error


def _build(case: Case[Pipeline], device: str) -> Any:
    """Build the model in train form and eval mode, with random weights: no file is read."""
    cfg = copy.deepcopy(case.model.cfg)
    cfg.model.backbone.init_cfg = None
    if device == 'cpu':
        adapt_to_cpu(cfg, 'none')
        if case.dtype != 'float32' and case.model.task.kind == 'detector':
            keep_detection_ops_in_float32()
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    randomise_norms(model)
    return model.to(device).eval()


def _batch(case: Case[Pipeline]) -> dict[str, Any]:
    """Return one image of noise, as a data loader returns it."""
    height, width = case.size
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8, generator=generator)
    # As if it were read and resized to the size that it has.
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
    packed = TRANSFORMS.build(dict(type=case.model.task.pack))(loaded)
    return {key: [value] for key, value in packed.items()}


@contextmanager
def _testing(dtype: str, device: torch.device) -> Iterator[None]:
    """Run a model as mmengine's test loop does."""
    low = dtype != 'float32'
    with torch.no_grad(), torch.autocast(device.type, getattr(torch, dtype), enabled=low):
        yield


def _predict(case: Case[Pipeline], model: Any, batch: Mapping[str, Any]) -> Any:
    """Run what is timed: one image from the data preprocessor to its predictions."""
    with _testing(case.dtype, next(model.parameters()).device):
        (found,) = model.test_step(batch)
    return found


def _steps(
    case: Case[Pipeline], train: Any, deploy: Any, batch: Mapping[str, Any]
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


def _errors(
    case: Case[Pipeline], forms: tuple[Any, Any], batch: Mapping[str, Any]
) -> tuple[float, float]:
    """Return the relative errors of train and deploy form to the train form in a wider dtype."""
    data = forms[0].data_preprocessor(batch, False)
    images, samples = data['inputs'], data['data_samples']
    wider = WIDER[case.dtype]
    with _testing('float32', images.device):
        truth = _raw(copy.deepcopy(forms[0]).to(wider), images.to(wider), samples)
    with _testing(case.dtype, images.device):
        train, deploy = (relative_error(_raw(form, images, samples), truth) for form in forms)
    return train, deploy


def _raw(model: Any, images: Tensor, samples: list[Any]) -> dict[str, Tensor]:
    """Return the outputs of the heads: a segmentor's logits, a detector's scores and offsets.

    Of a two-stage detector those of the first stage, on every map of the neck: which boxes reach
    the second depends on the order of the first one's scores, that is on their last bits.
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


def _check_equal(case: Case[Pipeline], train: float, deploy: float) -> None:
    wrong = inequality(deploy, train, getattr(torch, case.dtype))
    if wrong:
        raise Unequal(
            f'{case.dtype} outputs of the deploy form, with the train form as the standard: {wrong}'
        )
