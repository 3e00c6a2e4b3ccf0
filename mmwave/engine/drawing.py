"""Pictures of every process, not of the first alone."""

from types import MethodType

from mmengine.visualization import Visualizer

MASTER_ONLY = ('add_datasample', 'visualize_cls', 'add_image')


def draw_in_every_process(visualizer: Visualizer) -> None:
    """Let ``visualizer`` draw in this process whatever its rank.

    The libraries' visualizers are silent but in the first process. That is right in training; in
    testing each process has images that no other has.
    """
    for name in MASTER_ONLY:
        # functools.wraps keeps the method as it was before mmengine's master_only.
        original = getattr(getattr(type(visualizer), name, None), '__wrapped__', None)
        if original is not None:
            setattr(visualizer, name, MethodType(original, visualizer))
