"""Pictures of every process, not of the first alone."""

import inspect
from typing import Any

from mmengine.dist import master_only
from mmengine.visualization import Visualizer

# All functions that the decorator returns share their code.
_MASTER_ONLY = master_only(lambda: None).__code__


def draw_in_every_process(visualizer: Visualizer) -> None:
    """Let ``visualizer`` draw in this process whatever its rank.

    The libraries' visualizers do nothing but in the first process. That is right in training; in
    testing each process has images that no other has.
    """
    cls = type(visualizer)
    freed: dict[str, Any] = {}
    for name in dir(cls):
        member = inspect.getattr_static(cls, name)
        if isinstance(member, property):
            freed[name] = property(*map(_freed, (member.fget, member.fset, member.fdel)))
        # Scalars and configs stay with the first process.
        elif not name.startswith('add_') or name in ('add_datasample', 'add_image'):
            freed[name] = _freed(member)
    changed = {n: m for n, m in freed.items() if m is not inspect.getattr_static(cls, n)}
    visualizer.__class__ = type(cls.__name__, (cls,), changed)


def _freed(function: Any) -> Any:
    if getattr(function, '__code__', None) is _MASTER_ONLY:
        return function.__wrapped__
    return function
