"""``phase_mix`` on the CPU by a kernel in C++, for inference; built once, where it is asked for."""

import functools
import hashlib
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

SOURCE = Path(__file__).with_name('phase_mix.cpp')
# Not -ffast-math: infinities and what is no number must come out as such.
FLAGS = (
    *('-O3', '-march=native', '-fopenmp'),
    *('-fno-math-errno', '-fno-trapping-math', '-fno-signed-zeros'),
)
DTYPES = (torch.float32, torch.bfloat16)


def build() -> Path:
    """Compile the kernel, unless it stands compiled already, and load it into this process.

    It takes half a minute, a C++ compiler and ninja, and is kept in torch's folder of extensions
    (``TORCH_EXTENSIONS_DIR``) under a name of its source, torch's version and the processor.

    Returns:
        The library.

    Raises:
        RuntimeError: where it cannot be compiled; the message is the compiler's.
    """
    library = _library()
    if not library.exists():
        from torch.utils.cpp_extension import load

        folder = library.parent / 'build'
        folder.mkdir(parents=True, exist_ok=True)
        with _ninja_on_path():
            try:
                load(
                    name=library.stem,
                    sources=[str(SOURCE)],
                    extra_cflags=list(FLAGS),
                    extra_ldflags=['-fopenmp'],
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
    from torch.utils.cpp_extension import get_default_build_root

    cpu = Path('/proc/cpuinfo')
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    features = next((line for line in lines if line.startswith(('flags', 'Features'))), '')
    known = (SOURCE.read_text(), torch.__version__, platform.machine(), features, *FLAGS)
    name = f'mmwave_phase_mix_{hashlib.sha256(repr(known).encode()).hexdigest()[:12]}'
    return Path(get_default_build_root()) / name / f'{name}.so'


@functools.cache
def _load(library: Path) -> None:
    if not hasattr(torch.ops.mmwave_cpp, 'phase_mix'):
        torch.ops.load_library(str(library))
    torch.library.register_fake('mmwave_cpp::phase_mix', _fake)


def _fake(
    amplitude_h: Tensor,
    phase_h: Tensor,
    amplitude_w: Tensor,
    phase_w: Tensor,
    kernel_h: Tensor,
    kernel_w: Tensor,
    split: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    n, c, h, w = amplitude_h.shape
    maps = [amplitude_h.new_empty(n, h, w, c).permute(0, 3, 1, 2) for _ in range(2)]
    return maps[0], maps[1], amplitude_h.new_empty(n, c)


def phase_mix_cpp(
    amplitude_h: Tensor,
    phase_h: Tensor,
    amplitude_w: Tensor,
    phase_w: Tensor,
    kernel_h: Tensor,
    kernel_w: Tensor,
    *,
    split: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`mmwave.ops.phase_mix`."""
    return torch.ops.mmwave_cpp.phase_mix(
        amplitude_h, phase_h, amplitude_w, phase_w, kernel_h, kernel_w, split
    )


def _unsupported(amplitude_h: Tensor, *others: Tensor) -> str:
    maps = (amplitude_h, *others[:3])
    if any(t.device.type != 'cpu' for t in (*maps, *others[3:])):
        return 'it runs on the CPU'
    if amplitude_h.dtype not in DTYPES or any(t.dtype != amplitude_h.dtype for t in others):
        return f'it takes tensors of one type of {", ".join(map(str, DTYPES))}'
    if amplitude_h.shape[1] % 2:
        return f'{amplitude_h.shape[1]} channels cannot be halved'
    if torch.is_grad_enabled() and any(t.requires_grad for t in (amplitude_h, *others)):
        return 'it has no gradients'
    if any(t.stride(1) != 1 for t in maps):
        return 'channels of a position must lie side by side (channels_last)'
    return _missing()


# A compiler takes the answer as it is: what it looks at are files.
@torch.compiler.assume_constant_result
def _missing() -> str:
    from ..backend import current_backend

    if current_backend() == 'cpp' or is_built():
        build()
        return ''
    return 'it is not built: see mmwave.ops.phase_mix.cpp.build'


phase_mix_cpp.unsupported = _unsupported  # type: ignore[attr-defined]
