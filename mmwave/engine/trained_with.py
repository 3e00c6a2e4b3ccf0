"""What a checkpoint was trained with: numbers that a run which resumes from it is compared with."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from mmengine.dist import get_world_size
from mmengine.runner import IterBasedTrainLoop, Runner

from mmwave.engine.optim_wrapper import optim_wrappers
from mmwave.engine.training_state import is_count

KEY = 'trained_with'
"""Entry of a checkpoint's ``meta``."""


class TrainedWith(NamedTuple):
    """How a run makes a step; all are plain numbers and texts.

    Attributes:
        world_size: processes.
        batch_size: images a process takes at once.
        accumulative_counts: iterations whose gradients make one step.
        epoch_length: iterations an epoch has, None where the loader has no length.
        max_epochs: None in a loop that counts iterations.
        max_iters: iterations of the whole run.
        optimizers: the name of an optimizer's type; of several, joined by commas.
    """

    world_size: int
    batch_size: int
    accumulative_counts: int
    epoch_length: int | None
    max_epochs: int | None
    max_iters: int
    optimizers: str

    @property
    def batch(self) -> int:
        """Images that one step of the optimizer has seen."""
        return self.world_size * self.batch_size * self.accumulative_counts

    def batch_text(self) -> str:
        """Return the batch as a product, e.g. ``2 samples x 4 processes = 8``."""
        text = f'{counted(self.batch_size, "sample")} x {counted(self.world_size, "process")}'
        if self.accumulative_counts > 1:
            text += f' x {self.accumulative_counts} accumulated'
        return f'{text} = {self.batch}'


def trained_with(runner: Runner) -> TrainedWith | None:
    """Return what ``runner`` trains with, None where its batch sampler varies the batch.

    Args:
        runner: whose train loop and optimizer are built.
    """
    loader = runner.train_dataloader
    size = loader.batch_size or getattr(loader.batch_sampler, 'batch_size', None)
    if not is_count(size):
        return None
    try:
        epoch_length = len(loader)
    except TypeError:  # of a stream
        epoch_length = None
    wrappers = optim_wrappers(runner).values()
    kinds = dict.fromkeys(type(wrapper.optimizer).__name__ for wrapper in wrappers)
    return TrainedWith(
        world_size=get_world_size(),
        batch_size=size,
        accumulative_counts=max(getattr(w, '_accumulative_counts', 1) for w in wrappers),
        epoch_length=epoch_length,
        max_epochs=None if by_iteration(runner) else runner.max_epochs,
        max_iters=runner.max_iters,
        optimizers=', '.join(kinds),
    )


def noted(meta: Mapping[str, Any]) -> TrainedWith | None:
    """Return what a checkpoint's ``meta`` notes, None where it is of another tool or damaged."""
    note = meta.get(KEY)
    if not isinstance(note, dict) or note.keys() != set(TrainedWith._fields):
        return None
    found = TrainedWith(**note)
    counts = (found.world_size, found.batch_size, found.accumulative_counts, found.max_iters)
    lengths = (found.epoch_length, found.max_epochs)
    if not all(is_count(n) and n > 0 for n in counts) or not isinstance(found.optimizers, str):
        return None
    return found if all(n is None or (is_count(n) and n > 0) for n in lengths) else None


def by_iteration(runner: Runner) -> bool:
    """Return whether the train loop counts iterations, and no epochs."""
    return isinstance(runner.train_loop, IterBasedTrainLoop)


def counted(number: int, what: str) -> str:
    """Return a number and the noun it counts, which is in the plural unless the number is 1."""
    plural = '' if number == 1 else 'es' if what.endswith('s') else 's'
    return f'{number:,} {what}{plural}'
