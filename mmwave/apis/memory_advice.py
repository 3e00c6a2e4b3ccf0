"""One line on memory that did not suffice: the batch, what it asked for, and what to lower."""

import re
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmwave.engine.failed_step import FailedStep

_MESSAGES = re.compile(
    r"DefaultCPUAllocator: (can't|not enough)|CUDA error: out of memory|CUDNN_STATUS_ALLOC_FAILED"
    r"|CUBLAS_STATUS_ALLOC_FAILED|Cuda failure \d+ 'out of memory'|Caught \w*MemoryError in Data"
)
_AMOUNT = re.compile(r'([Tt]ried|[Uu]nable) to allocate (?P<amount>[\d.]+ \w+)')
_GIB = 1024**3


def memory_line(error: BaseException, step: 'FailedStep | None') -> str | None:
    """Return the line for an exception that says that memory did not suffice, None for others.

    Args:
        error: of torch on a GPU or the CPU, of NumPy or of Python.
        step: what the run was doing.
    """
    text = str(error)
    on_gpu = type(error).__name__ == 'OutOfMemoryError' or 'cuda' in text.lower()
    is_memory = isinstance(error, MemoryError) or type(error).__name__ == 'OutOfMemoryError'
    if not is_memory and not _MESSAGES.search(text):
        return None
    found = _AMOUNT.search(text)
    asked = f', {_readable(found["amount"])} were asked for' if found else ''
    peak = _peak() if on_gpu else ''
    batch = f' with {step.batch()}' if step is not None and step.batch() else ''
    kind = "the GPU's memory" if on_gpu else 'the memory'
    advice = ', '.join(_advice(step, on_gpu=on_gpu))
    return f'{kind} did not suffice{batch}{asked}{peak}; lower {advice}'


def _readable(amount: str) -> str:
    """Return the CPU allocator's bytes in GiB, other amounts as they are."""
    number, unit = amount.split()
    return f'{int(number) / _GIB:.2f} GiB' if unit == 'bytes' else amount


def _peak() -> str:
    torch = sys.modules.get('torch')
    if torch is None or not torch.cuda.is_initialized():
        return ''
    total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    peak = torch.cuda.max_memory_allocated()
    return f', at most {peak / _GIB:.2f} of {total / _GIB:.2f} GiB were in use by tensors'


def _advice(step: 'FailedStep | None', *, on_gpu: bool) -> list[str]:
    """Return what can be set lower, or switched on, that is not yet."""
    split = (step.split if step is not None else None) or 'train'
    cfg: Any = step.runner.cfg if step is not None and step.runner is not None else {}
    loader = cfg.get(f'{split}_dataloader')
    size = loader.get('batch_size') if isinstance(loader, Mapping) else None
    stated = f' (now {size})' if size is not None else ''
    advice = [f'{split}_dataloader.batch_size{stated}']
    if split == 'train':
        advice[0] += ', with optim_wrapper.accumulative_counts for as many images a step'
    advice.append(f"or the images' size or crop in {split}_dataloader.dataset.pipeline")
    if not on_gpu:
        advice.append(f'or {split}_dataloader.num_workers')
    if split != 'train':
        return advice
    backbone = (cfg.get('model') or {}).get('backbone') or {}
    if str(backbone.get('type')).startswith('mmwave.') and not backbone.get('with_cp'):
        advice.append('or set model.backbone.with_cp=True')
    wrapper = str((cfg.get('optim_wrapper') or {}).get('type'))
    if not wrapper.endswith(('AmpOptimWrapper', 'AutocastOptimWrapper')):
        advice.append('or train with --amp')
    return advice
