"""File formats: how a traced model is written to each, and how a written file is run."""

import json
import logging
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from mmwave.apis import UsageError
from mmwave.apis.usage import libraries_named
from mmwave.checkpoint import whole_file
from mmwave.errors import printable_path

from .compare import Outputs

INPUT = 'images'
"""Name of the one input."""

AXES = {0: 'batch', 2: 'height', 3: 'width'}
"""Axes of the input that are free where nothing is fixed, and their names."""

EXTRA_FILE = 'mmwave.json'
"""Name of the file in a ``.pt2`` archive that holds the metadata."""

Run = Callable[[Tensor], Outputs]
"""Maps images (N, 3, H, W) to the outputs by name."""


@dataclass(frozen=True)
class Traced:
    """A model as a graph.

    Attributes:
        program: of torch.export, with one input.
        outputs: their names.
        metadata: what a reader of the file has to know, as texts.
    """

    program: ExportedProgram
    outputs: Sequence[str]
    metadata: Mapping[str, str]

    @cached_property
    def onnx(self) -> bytes:
        """The model in ONNX, with the metadata."""
        import onnx

        with _quiet('onnxscript'):
            program = torch.onnx.export(
                self.program,
                dynamo=True,
                input_names=[INPUT],
                output_names=list(self.outputs),
                verbose=False,
            )
        assert program is not None
        model = program.model_proto
        _name_axes(model.graph)
        onnx.helper.set_model_props(model, dict(self.metadata))
        return model.SerializeToString()


@dataclass(frozen=True)
class Format:
    """A file format.

    Attributes:
        runtime: what files are run in here.
        libraries: modules that are needed.
        write: writes a traced model to a path; returns the paths of all files of it.
        load: makes a function of a written file, given the names of the outputs.
    """

    runtime: str
    libraries: Sequence[str]
    write: Callable[[Traced, Path], list[Path]]
    load: Callable[[Path, Sequence[str]], Run]

    def check_libraries(self) -> None:
        """Raise :class:`UsageError` where a library is missing, saying what to install."""
        for name in self.libraries:
            with libraries_named():
                _import(name)


def format_of(path: Path) -> Format:
    """Return the format that the suffix of a path names.

    Raises:
        UsageError: for another suffix than those of :data:`FORMATS`.
    """
    if path.suffix not in FORMATS:
        accepted = ', '.join(f'{suffix} ({f.runtime})' for suffix, f in FORMATS.items())
        raise UsageError(f'{printable_path(path)} must end in one of {accepted}')
    return FORMATS[path.suffix]


def keep(written: Sequence[Path], target: Path) -> list[Path]:
    """Copy files of one model, whole, to where they are wanted; return their paths there.

    Args:
        written: the first one is the one that the user names.
        target: its path.
    """
    targets = [target.with_suffix(path.suffix) for path in written]
    with ExitStack() as stack:
        # They are renamed in the reverse order: the file that the user names comes last.
        for source, path in zip(written, targets, strict=True):
            file = stack.enter_context(whole_file(path))
            with source.open('rb') as opened:
                shutil.copyfileobj(opened, file)
    return targets


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Show errors alone of a logger, which tells every operator that it does not fold."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _write_onnx(traced: Traced, path: Path) -> list[Path]:
    path.write_bytes(traced.onnx)
    return [path]


def _name_axes(graph: Any) -> None:
    """Name the free axes of the input, wherever they recur, as a reader would."""
    names = {}
    for axis, name in AXES.items():
        dimension = graph.input[0].type.tensor_type.shape.dim[axis]
        if dimension.dim_param:
            names[dimension.dim_param] = name
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param in names:
                dimension.dim_param = names[dimension.dim_param]


def _load_onnx(path: Path, outputs: Sequence[str]) -> Run:
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])

    def run(x: Tensor) -> Outputs:
        return dict(zip(outputs, session.run(list(outputs), {INPUT: x.numpy()}), strict=True))

    return run


def _write_program(traced: Traced, path: Path) -> list[Path]:
    text = json.dumps(dict(traced.metadata), indent=1)
    torch.export.save(traced.program, path, extra_files={EXTRA_FILE: text})
    return [path]


def _load_program(path: Path, outputs: Sequence[str]) -> Run:
    module = torch.export.load(path).module()

    def run(x: Tensor) -> Outputs:
        with torch.no_grad():
            return {n: t.numpy() for n, t in zip(outputs, module(x), strict=True)}

    return run


def _write_openvino(traced: Traced, path: Path) -> list[Path]:
    openvino = _import('openvino')
    (source,) = _write_onnx(traced, path.with_suffix('.onnx'))
    model = openvino.Core().read_model(source)
    for key, value in traced.metadata.items():
        model.set_rt_info(value, ['mmwave', key])
    # Its default is to store weights in half precision.
    openvino.save_model(model, path, compress_to_fp16=False)
    return [path, path.with_suffix('.bin')]


def _load_openvino(path: Path, outputs: Sequence[str]) -> Run:
    # Left alone, some CPUs compute in bfloat16.
    settings = {'INFERENCE_PRECISION_HINT': 'f32', 'INFERENCE_NUM_THREADS': torch.get_num_threads()}
    model = _import('openvino').Core().compile_model(path, 'CPU', settings)

    def run(x: Tensor) -> Outputs:
        found = model(x.numpy())
        return {name: found[name].copy() for name in outputs}

    return run


def _import(name: str) -> ModuleType:
    """Import a library; openvino without its telemetry, which reports every import of it."""
    if name != 'openvino' or 'openvino_telemetry' in sys.modules:
        return import_module(name)
    sys.modules['openvino_telemetry'] = None  # type: ignore[assignment]
    try:
        return import_module(name)
    finally:
        del sys.modules['openvino_telemetry']


FORMATS: Mapping[str, Format] = {
    '.onnx': Format('onnxruntime', ('onnx', 'onnxscript', 'onnxruntime'), _write_onnx, _load_onnx),
    '.pt2': Format('torch', (), _write_program, _load_program),
    '.xml': Format(
        'openvino',
        ('onnx', 'onnxscript', 'openvino'),
        _write_openvino,
        _load_openvino,
    ),
}
"""Suffix -> format."""
