"""``phase_mix`` on the CPU by a kernel in C++, which is built once, where it is asked for."""

import functools
import hashlib
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..backend import current_backend

SOURCE = Path(__file__).with_name('phase_mix.cpp')
# Not -ffast-math: infinities and what is no number must come out as such. OpenMP's runtime is not
# linked but found in torch's own: the threads of a second one would wait for work beside those.
FLAGS = (
    *('-O3', '-march=native', '-fopenmp'),
    *(('-mprefer-vector-width=512',) if platform.machine() == 'x86_64' else ()),
    *('-fno-math-errno', '-fno-trapping-math', '-fno-signed-zeros'),
)
DTYPES = (torch.float32, torch.bfloat16)

_ready: bool | None = None
"""Whether the kernel may be used; None before it was looked for."""
_wrapped = False
"""Whether torch knows the op's shapes and gradients."""


def build() -> Path:
    """Compile the kernel, unless it stands compiled already, and load it into this process.

    It takes half a minute, a C++ compiler and ninja, and is kept in torch's folder of extensions
    (``TORCH_EXTENSIONS_DIR``) under a name of its source, torch's version and the processor.

    Returns:
        The library.

    Raises:
        RuntimeError: where it cannot be compiled; the message is the compiler's.
    """
    global _ready
    library = _library()
    if not library.exists() and not _is_registered():
        from torch.utils.cpp_extension import load

        folder = library.parent / 'build'
        folder.mkdir(parents=True, exist_ok=True)
        with _ninja_on_path():
            try:
                load(
                    name=library.stem,
                    sources=[str(SOURCE)],
                    extra_cflags=list(FLAGS),
                    build_directory=str(folder),
                    is_python_module=False,
                )
            except Exception as error:
                raise RuntimeError(f'phase_mix: no C++ kernel could be built: {error}') from error
        # In one step, so that no other process finds half of it.
        whole = folder / f'{os.getpid()}.so'
        shutil.copyfile(folder / library.name, whole)
        whole.replace(library)
    _load(library)
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
    """Whether the kernel stands compiled for this torch and this processor."""
    return _library().exists()


@functools.cache
def _library() -> Path:
    # As torch's own extensions, whose module would look for a CUDA toolkit and say so.
    cache = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    root = os.environ.get('TORCH_EXTENSIONS_DIR') or Path(cache) / 'torch_extensions'
    cpu = Path('/proc/cpuinfo')
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    features = next((line for line in lines if line.startswith(('flags', 'Features'))), '')
    known = (SOURCE.read_text(), torch.__version__, platform.machine(), features, *FLAGS)
    name = f'mmwave_phase_mix_{hashlib.sha256(repr(known).encode()).hexdigest()[:12]}'
    return Path(root).expanduser() / name / f'{name}.so'


def _is_registered() -> bool:
    """Whether this process has the op; it cannot be registered twice."""
    return hasattr(torch.ops.mmwave_cpp, 'phase_mix')


def _load(library: Path) -> None:
    global _wrapped
    # One that was just compiled is loaded already.
    if not _is_registered():
        torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]
    if not _wrapped:
        torch.library.register_fake('mmwave_cpp::phase_mix', _fake)
        torch.library.register_fake('mmwave_cpp::phase_mix_backward', _fake_backward)
        torch.library.register_autograd(
            'mmwave_cpp::phase_mix', _backward, setup_context=_setup_context
        )
        _wrapped = True


def _fake(
    amplitude_h: Tensor,
    phase_h: Tensor,
    amplitude_w: Tensor,
    phase_w: Tensor,
    kernel_h: Tensor,
    kernel_w: Tensor,
    split: bool,
    rectify: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    n, c, h, w = amplitude_h.shape
    maps = [amplitude_h.new_empty(n, h, w, c).permute(0, 3, 1, 2) for _ in range(2)]
    return maps[0], maps[1], amplitude_h.new_empty(n, c)


def _fake_backward(*tensors: Any) -> tuple[Tensor, ...]:
    *_, like, _, _, _, kernel_h, kernel_w, _, _ = tensors
    n, c, h, w = like.shape
    maps = [like.new_empty(n, h, w, c).permute(0, 3, 1, 2) for _ in range(4)]
    return *maps, torch.empty_like(kernel_h), torch.empty_like(kernel_w)


def _setup_context(ctx: Any, inputs: tuple, output: Any) -> None:
    *tensors, ctx.split, ctx.rectify = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, g_h: Tensor, g_w: Tensor, g_mean: Tensor) -> tuple:
    tensors = ctx.saved_tensors
    settings = ctx.split, ctx.rectify
    found = torch.ops.mmwave_cpp.phase_mix_backward(g_h, g_w, g_mean, *tensors, *settings)
    return *found, None, None


def phase_mix_cpp(
    amplitude_h: Tensor,
    phase_h: Tensor,
    amplitude_w: Tensor,
    phase_w: Tensor,
    kernel_h: Tensor,
    kernel_w: Tensor,
    *,
    split: bool = False,
    rectify: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`mmwave.ops.phase_mix`."""
    return torch.ops.mmwave_cpp.phase_mix(
        amplitude_h, phase_h, amplitude_w, phase_w, kernel_h, kernel_w, split, rectify
    )


def _unsupported(amplitude_h: Tensor, *others: Tensor) -> str:
    maps, kernels = (amplitude_h, *others[:3]), others[3:]
    if any(t.device.type != 'cpu' for t in (*maps, *kernels)):
        return 'it runs on the CPU'
    wrong = any(t.dtype != amplitude_h.dtype for t in maps) or any(
        t.dtype not in DTYPES for t in (amplitude_h, *kernels)
    )
    if wrong:
        return f'it takes maps of one type of {", ".join(map(str, DTYPES))}'
    if amplitude_h.shape[1] % 2:
        return f'{amplitude_h.shape[1]} channels cannot be halved'
    if any(t.stride(1) != 1 for t in maps):
        return 'channels of a position must lie side by side (channels_last)'
    return '' if _is_ready() else 'it is not built: see mmwave.ops.phase_mix.cpp.build'


def _is_ready() -> bool:
    """Whether the kernel is loaded; looked for once, so that a process computes alike all along."""
    global _ready
    if torch.compiler.is_compiling():
        return _ready is True
    if current_backend() == 'cpp' or (_ready is None and is_built()):
        build()
    elif _ready is None:
        _ready = False
    return _ready is True


phase_mix_cpp.unsupported = _unsupported  # type: ignore[attr-defined]
