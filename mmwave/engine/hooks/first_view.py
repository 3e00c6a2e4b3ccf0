"""What hooks behind a test with augmentation look at: one view of every image."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmwave.registry import HOOKS


@HOOKS.register_module()
class FirstViewHook(Hook):
    """Show the hooks behind it a batch of one view of every image, as a plain test has it.

    In a test with augmentation a batch holds a list of images for every view. Hooks that draw
    expect the images themselves, as many as there are results.
    """

    priority = 'VERY_HIGH'

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        inputs = data_batch.get('inputs') if isinstance(data_batch, dict) else None
        listed = isinstance(inputs, list | tuple) and bool(inputs)
        if listed and isinstance(inputs[0], list | tuple):
            data_batch.update({key: views[0] for key, views in data_batch.items()})
