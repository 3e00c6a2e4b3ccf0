"""The ops' C++ kernels for the CPU: one library, built once, on request.

Every ``*.cpp`` of this package is part of it and defines operators of the namespace ``mmwave_cpp``.
Fake kernels and gradients of an operator are registered by its Python module, see :func:`on_load`.
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
from .graphs import is_watched, needs_grad

FOLDER = Path(__file__).parent
SOURCES = tuple(sorted(FOLDER.glob('**/*.cpp')))
HEADERS = tuple(sorted(FOLDER.glob('**/*.h')))
# Not -ffast-math: infinities and NaN must propagate. OpenMP's runtime is not linked but resolved
# from torch's own: the idle threads of a second one would spin beside those.
FLAGS = (
    *('-O3', '-march=native', '-fopenmp'),
    *(('-mprefer-vector-width=512',) if platform.machine() == 'x86_64' else ()),
    *('-fno-math-errno', '-fno-trapping-math', '-fno-signed-zeros'),
)
BACKEND = 'cpp'
"""Name of the backend that the kernels of this library are."""
DTYPES = (torch.float32, torch.bfloat16)
"""Dtypes that the kernels support."""

_ready: bool | None = None
"""Whether the kernels may be used; None before the first check."""
_pending: list[Callable[[], None]] = []
"""Functions to run when the library is loaded."""


def on_load(register: Callable[[], None]) -> Callable[[], None]:
    """Run ``register``, which registers fake kernels and gradients, when the library is loaded."""
    _pending.append(register)
    return register


def build() -> Path:
    """Compile the kernels, unless they are compiled already, and load them into this process.

    Compiling takes about a minute, a C++ compiler and ninja. The library is stored in torch's
    folder of extensions (``TORCH_EXTENSIONS_DIR``) under a hash of its sources, torch's version and
    the processor.

    Returns:
        The path of the library.

    Raises:
        RuntimeError: where they cannot be compiled; the message is the compiler's, or that there is
            no compiler.
    """
    global _ready
    library = _library()
    if not library.exists() and not _is_registered():
        compiler = os.environ.get('CXX') or 'c++'  # as torch does
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
        # Atomically, so that no other process finds a partial file.
        copy = folder / f'{os.getpid()}.so'
        shutil.copyfile(folder / library.name, copy)
        copy.replace(library)
    # A library that was just compiled is loaded already.
    if not _is_registered():
        torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]
    while _pending:
        _pending.pop()()
    _ready = True
    return library


@contextmanager
def _ninja_on_path() -> Iterator[None]:
    """Let torch find ninja as a Python package of an environment that is not activated."""
    before = os.environ.get('PATH', os.defpath)
    scripts = Path(sys.executable).parent
    os.environ['PATH'] = f'{before}{os.pathsep}{scripts}'
    try:
        yield
    finally:
        os.environ['PATH'] = before


def is_built() -> bool:
    """Return whether the kernels are compiled for this torch and this processor."""
    return _library().exists()


@functools.cache
def _library() -> Path:
    # As in torch.utils.cpp_extension, whose import looks for a CUDA toolkit and logs a warning.
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
    """Return whether this process has the operators; they cannot be registered twice."""
    return hasattr(torch.ops.mmwave_cpp, 'phase_mix')


def unavailable() -> str:
    """Return the reason the kernels cannot be used in this process; '' if they can.

    Check once whether they are built, so that a process computes the same throughout.
    """
    global _ready
    if not torch.compiler.is_compiling():
        if current_backend() == BACKEND or (_ready is None and is_built()):
            build()
        elif _ready is None:
            _ready = False
    return '' if _ready else 'it is not built: see mmwave.ops.extension.build'


@contextmanager
def without_kernels() -> Iterator[None]:
    """Run the ops inside the ``with`` block as if no kernels were built."""
    global _ready
    before, _ready = _ready, False
    try:
        yield
    finally:
        _ready = before


def cannot_run(*tensors: Tensor) -> str:
    """Return the reason the inference-only bfloat16 kernels cannot run; '' if they can."""
    for tensor in tensors:  # no generator: this runs several times in every block
        if not tensor.is_cpu or tensor.dtype is not torch.bfloat16:
            return 'it supports bfloat16 on the CPU'
    if torch.compiler.is_compiling() or needs_grad(*tensors) or is_watched():
        return 'it is inference only: autograd, compile, a dispatch mode or a transform is active'
    return unavailable()


def cannot_multiply(*tensors: Tensor) -> str:
    """Return the reason the inference-only bfloat16 kernels cannot multiply; '' if they can."""
    if reason := cannot_run(*tensors):
        return reason
    if _multiplies():
        return ''
    return 'this CPU lacks AVX512-BF16, or has AMX, where oneDNN is faster'


@functools.cache
def _multiplies() -> bool:
    return torch.ops.mmwave_cpp.multiplies()
