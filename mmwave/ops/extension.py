"""The ops' kernels in C++ for the CPU: one library, built once, where it is asked for.

Every ``*.cpp`` of this package is part of it and defines operators of the namespace ``mmwave_cpp``.
What else torch must know of an operator its module says, see :func:`once_loaded`.
"""

import functools
import hashlib
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from .backend import current_backend
from .graphs import is_recorded, is_watched

FOLDER = Path(__file__).parent
SOURCES = tuple(sorted(FOLDER.glob('**/*.cpp')))
HEADERS = tuple(sorted(FOLDER.glob('**/*.h')))
# Not -ffast-math: infinities and what is no number must come out as such. OpenMP's runtime is not
# linked but found in torch's own: the threads of a second one would wait for work beside those.
FLAGS = (
    *('-O3', '-march=native', '-fopenmp'),
    *(('-mprefer-vector-width=512',) if platform.machine() == 'x86_64' else ()),
    *('-fno-math-errno', '-fno-trapping-math', '-fno-signed-zeros'),
)
BACKENDS = ('cpp', 'cpp_bf16')
"""Names of backends that are kernels of this library."""
DTYPES = (torch.float32, torch.bfloat16)
"""Types that the kernels take."""

_ready: bool | None = None
"""Whether the kernels may be used; None before they were looked for."""
_to_tell: list[Callable[[], None]] = []
"""What torch must be told of the operators and was not yet."""


def once_loaded(tell: Callable[[], None]) -> Callable[[], None]:
    """Run ``tell``, which registers fake functions and gradients of operators, once they exist."""
    _to_tell.append(tell)
    return tell


def build() -> Path:
    """Compile the kernels, unless they stand compiled already, and load them into this process.

    It takes half a minute, a C++ compiler and ninja, and is kept in torch's folder of extensions
    (``TORCH_EXTENSIONS_DIR``) under a name of their sources, torch's version and the processor.

    Returns:
        The library.

    Raises:
        RuntimeError: where they cannot be compiled; the message is the compiler's, or that there is
            none.
    """
    global _ready
    library = _library()
    if not library.exists() and not _is_registered():
        compiler = os.environ.get('CXX') or 'c++'  # as torch asks for it
        if shutil.which(compiler.split()[0]) is None:
            raise RuntimeError(
                f'no C++ kernels could be built: there is no compiler {compiler!r} on the PATH. '
                'Install one (Debian: apt-get install g++), or do without: nothing needs them'
            )
        from torch.utils.cpp_extension import load

        folder = library.parent / 'build'
        folder.mkdir(parents=True, exist_ok=True)
        with _ninja_on_path():
            try:
                load(
                    name=library.stem,
                    sources=[str(source) for source in SOURCES],
                    extra_cflags=list(FLAGS),
                    extra_include_paths=[str(FOLDER)],
                    build_directory=str(folder),
                    is_python_module=False,
                )
            except Exception as error:
                raise RuntimeError(f'no C++ kernels could be built: {error}') from error
        # In one step, so that no other process finds half of it.
        whole = folder / f'{os.getpid()}.so'
        shutil.copyfile(folder / library.name, whole)
        whole.replace(library)
    # One that was just compiled is loaded already.
    if not _is_registered():
        torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]
    while _to_tell:
        _to_tell.pop()()
    _ready = True
    return library


@contextmanager
def _ninja_on_path() -> Iterator[None]:
    """Inside, torch finds ninja where it is a Python package of an environment not entered."""
    before = os.environ.get('PATH', os.defpath)
    beside = Path(sys.executable).parent
    os.environ['PATH'] = f'{before}{os.pathsep}{beside}'
    try:
        yield
    finally:
        os.environ['PATH'] = before


def is_built() -> bool:
    """Whether the kernels stand compiled for this torch and this processor."""
    return _library().exists()


@functools.cache
def _library() -> Path:
    # As torch's own extensions, whose module would look for a CUDA toolkit and say so.
    cache = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    root = os.environ.get('TORCH_EXTENSIONS_DIR') or Path(cache) / 'torch_extensions'
    cpu = Path('/proc/cpuinfo')
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    features = next((line for line in lines if line.startswith(('flags', 'Features'))), '')
    texts = (path.read_text() for path in (*SOURCES, *HEADERS))
    known = (*texts, torch.__version__, platform.machine(), features, *FLAGS)
    name = f'mmwave_kernels_{hashlib.sha256(repr(known).encode()).hexdigest()[:12]}'
    return Path(root).expanduser() / name / f'{name}.so'


def _is_registered() -> bool:
    """Whether this process has the operators; they cannot be registered twice."""
    return hasattr(torch.ops.mmwave_cpp, 'phase_mix')


def unavailable() -> str:
    """Why the kernels cannot be used in this process; empty where they can.

    They are looked for once, so that a process computes alike all along.
    """
    global _ready
    if not torch.compiler.is_compiling():
        if current_backend() in BACKENDS or (_ready is None and is_built()):
            build()
        elif _ready is None:
            _ready = False
    return '' if _ready else 'it is not built: see mmwave.ops.extension.build'


@contextmanager
def without_kernels() -> Iterator[None]:
    """Inside, ops run as where no kernels were built."""
    global _ready
    before, _ready = _ready, False
    try:
        yield
    finally:
        _ready = before


def cannot_run(*tensors: Tensor) -> str:
    """Why kernels of bfloat16, which know no gradient, do not take these; empty where they do."""
    for tensor in tensors:  # no generator: this is asked some times in every block
        if not tensor.is_cpu or tensor.dtype is not torch.bfloat16:
            return 'it takes bfloat16 on the CPU'
    if torch.compiler.is_compiling() or is_recorded(*tensors) or is_watched():
        return 'operations are being recorded'
    return unavailable()


def cannot_multiply(*tensors: Tensor) -> str:
    """Why kernels cannot multiply these in bfloat16, without a gradient; empty where they can."""
    if reason := cannot_run(*tensors):
        return reason
    return '' if _multiplies() else 'oneDNN multiplies bfloat16 faster on this processor, if at all'


@functools.cache
def _multiplies() -> bool:
    return torch.ops.mmwave_cpp.multiplies()
