"""Export a trained model to a file of another runtime, run it there and compare."""

import copy
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor, nn

from mmwave.apis import UsageError, load_config
from mmwave.apis.building import build_model
from mmwave.apis.libraries import check_libraries
from mmwave.apis.outputs import check_output_file
from mmwave.apis.weights import check_checkpoint
from mmwave.checkpoint import check_settings, load_matching, read_checkpoint, state_dict_of
from mmwave.deploy import Deployable, to_deploy
from mmwave.engine.console import console
from mmwave.engine.run_config import set_for_call
from mmwave.errors import UserError, printable

from .compare import LIMIT, Comparison, compare
from .details import class_names, details
from .formats import AXES, Format, Traced, format_of, keep
from .functions import Function, function_of
from .images import Images, Normalisation, find_images
from .plan import Plan, Size
from .sizes import free_sizes


class DifferenceError(UserError):
    """A file that cannot be run, or computes something else than the model; it was not kept."""


@dataclass(frozen=True)
class ExportedFile:
    """What :func:`export_model` wrote.

    Attributes:
        files: their paths; the first is the one that was asked for.
        runtime: what they were run in.
        comparisons: with the model in torch, for each batch that was run.
        images: what the batches were made of, in words.
        metadata: what is stored in the file.
        folded: what the deploy form folded, in lines; empty where the train form was exported.
        seconds: that tracing and writing took.
    """

    files: tuple[Path, ...]
    runtime: str
    comparisons: tuple[Comparison, ...]
    images: str
    metadata: Mapping[str, str] = field(repr=False)
    folded: tuple[str, ...]
    seconds: float


def export_model(
    config: str,
    checkpoint: str,
    out: str,
    *,
    fixed: Size | bool = False,
    batch: int = 1,
    deploy: bool | None = None,
    images: str | None = None,
    cfg_options: Mapping[str, Any] | None = None,
    trust_checkpoint: bool = False,
    verbose: bool = False,
) -> ExportedFile:
    """Write a trained model as a file of another runtime, once it is proven to compute the same.

    The file maps normalised images (N, 3, H, W) to the logits of a classifier (N, classes) or of a
    segmentor (N, classes, H, W), or to the raw maps of a one-stage detector's head. It is run in
    its runtime on two batches of different sizes and compared with the model in torch. Written are
    whole files, or none.

    Args:
        config: of the classifier, segmentor or detector.
        checkpoint: its weights, all of them.
        out: file to write: ``.onnx``, ``.pt2`` (torch.export) or ``.xml`` (OpenVINO, with a
            ``.bin`` beside it).
        fixed: height and width of all images, which then come in batches of ``batch``; True: the
            size of the config's test images. False: any size and any number of images.
        batch: images per batch where sizes are fixed.
        deploy: whether to export the deploy form of backbones; None: where there is one.
        images: folder of images to compare on; None: the config's test data, or generated ones.
        cfg_options: dotted keys and the values that replace the config's.
        trust_checkpoint: read a checkpoint that runs code when it is read.
        verbose: show what the libraries print.

    Raises:
        UserError: where config, checkpoint, ``out`` or a size do not fit, the model is of a kind
            that cannot be exported, or holds for one size alone while none is fixed.
        DifferenceError: where an output of the file differs from the model's by more than
            :data:`LIMIT` of its largest magnitude; nothing was written.
    """
    target = Path(out).expanduser()
    form = format_of(target)
    check_output_file('OUT', out)
    with console(verbose):
        form.check_libraries()
        cfg = load_config(config, cfg_options=cfg_options)
        check_libraries(cfg)
        plan, found = Plan.of(cfg, fixed, batch), find_images(cfg, images)
        model, content = _trained(cfg, checkpoint, trust_checkpoint)
        plan.check(model)
        notes = {'config': Path(config).stem, 'classes': class_names(content, cfg)}
        return export_module(model, target, plan, found, deploy=deploy, notes=notes)


def export_module(
    model: nn.Module,
    target: Path,
    plan: Plan,
    images: Images,
    *,
    deploy: bool | None,
    notes: Mapping[str, Any],
) -> ExportedFile:
    """Write a model as :func:`export_model` does.

    Args:
        model: in eval mode, unchanged.
        target: file to write.
        plan: of sizes.
        images: to compare on.
        deploy: whether to export the deploy form of backbones; None: where there is one.
        notes: metadata that the model does not hold.
    """
    form = format_of(target)
    started = time.perf_counter()
    exported, folded = in_form(model, deploy)
    norm = Normalisation.of(model)
    traced = trace(function_of(exported), plan, norm, {**notes, 'form': _form_of(exported)})
    with tempfile.TemporaryDirectory(prefix='mmwave-export-') as folder:
        written = write(form, traced, Path(folder) / target.name)
        seconds = time.perf_counter() - started
        done = verify(form, written[0], function_of(model), traced, plan, images, norm)
        files = keep(written, target)
    parts = (tuple(files), form.runtime, tuple(done), images.source, traced.metadata)
    return ExportedFile(*parts, folded, seconds)


def trace(function: Function, plan: Plan, norm: Normalisation, notes: Mapping[str, Any]) -> Traced:
    """Return a function as a graph for the sizes of a plan.

    Args:
        function: what would fix the sizes of a free plan is replaced in it.
        plan: of sizes.
        norm: what is done to images in front of it.
        notes: metadata beside those.

    Raises:
        UsageError: where it cannot be traced for free sizes.
    """
    count, size = plan.example
    x = torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(0))
    shapes = None
    if plan.is_free:
        free_sizes(function)
        shapes = (dict.fromkeys(AXES, torch.export.Dim.DYNAMIC),)
    with torch.no_grad():
        described = function.describe(x)
        try:
            program = torch.export.export(function, (x,), dynamic_shapes=shapes)
        except torch._dynamo.exc.UserError as error:
            if not plan.is_free:
                raise
            raise UsageError(
                f'torch cannot export this model for images of any size: {_first_line(error)}; '
                'try --fixed HxW'
            ) from error
    return Traced(program, list(described.outputs), details(described, norm, plan, notes))


def write(form: Format, traced: Traced, path: Path) -> list[Path]:
    """Write a graph to a path that nobody reads yet; return the paths of all files of it.

    Raises:
        DifferenceError: where torch or the runtime have no form for one of its operators.
    """
    try:
        return form.write(traced, path)
    except (RuntimeError, torch.onnx.OnnxExporterError) as error:
        raise DifferenceError(
            f'the model cannot be written for {form.runtime}: {_first_line(error)}; '
            'nothing was written'
        ) from error


def verify(
    form: Format,
    path: Path,
    function: Function,
    traced: Traced,
    plan: Plan,
    images: Images,
    norm: Normalisation,
) -> list[Comparison]:
    """Run a written file and compare it with a model.

    Raises:
        DifferenceError: where they differ by more than :data:`LIMIT`, or the file cannot be run.
    """
    run, done = None, []
    for count, size in plan.tried:
        x = images.batch(count, size, norm)
        with torch.no_grad():
            wanted = dict(zip(traced.outputs, function(x), strict=True))
        try:
            run = run or form.load(path, traced.outputs)
            got = run(x)
        except Exception as error:  # every runtime has exceptions of its own
            raise DifferenceError(
                f'{form.runtime} cannot run the file on a batch of {_shape(x)}: '
                f'{_first_line(error)}; nothing was written'
            ) from error
        done.append(compare(tuple(x.shape), got, {k: v.numpy() for k, v in wanted.items()}))
        if not done[-1].is_good:
            raise DifferenceError(
                f'the file differs from the model by {done[-1].relative:.1e} of the largest '
                f'magnitude on a batch of {_shape(x)} in {form.runtime}, more than {LIMIT:.0e}'
                f'{": " if done[-1].detail else ""}{done[-1].detail}; nothing was written'
            )
    return done


def _trained(cfg: Config, checkpoint: str, trust: bool) -> tuple[nn.Module, Any]:
    """Return the model of a config with the weights of a checkpoint, and what else is in that."""
    set_for_call(cfg, load_from=checkpoint)
    check_checkpoint(cfg)
    content = read_checkpoint(Path(checkpoint).expanduser(), trust=trust)
    model = build_model(cfg)
    loaded = load_matching(model, state_dict_of(content), min_fraction=1.0, source=checkpoint)
    if loaded.unexpected:
        raise UserError(f'{loaded.summary()}\n  the config builds a smaller model')
    check_settings(model, content, checkpoint)
    return model.float().eval(), content


def in_form(model: nn.Module, deploy: bool | None) -> tuple[nn.Module, tuple[str, ...]]:
    """Return the copy of a model to export, and what was folded in it, in lines.

    Args:
        model: in eval mode.
        deploy: whether to deploy it; None: where something has a deploy form and is not in it.

    Raises:
        UserError: where there is nothing to deploy and ``deploy`` is True.
    """
    if deploy is None:
        deploy = bool(_parts(model)) and not _is_deployed(model)
    if not deploy:
        return copy.deepcopy(model), ()
    new, report = to_deploy(model)
    return new.eval(), tuple(line for lines in report.fused.values() for line in lines)


def _parts(model: nn.Module) -> list[Deployable]:
    return [module for module in model.modules() if isinstance(module, Deployable)]


def _is_deployed(model: nn.Module) -> bool:
    return any(part.deploy for part in _parts(model))


def _form_of(model: nn.Module) -> str:
    return 'deploy' if _is_deployed(model) else 'train'


def _shape(x: Tensor) -> str:
    count, _, height, width = x.shape
    return f'{count} of {height} x {width}'


def _first_line(error: BaseException) -> str:
    while error.__cause__ is not None:  # torch's exporter says what it was doing, not what failed
        error = error.__cause__
    return printable(next(iter(str(error).strip().splitlines()), type(error).__name__), 300)
