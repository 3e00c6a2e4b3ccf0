"""Batches that know their position in the run, and samples that are drawn from it.

A data loader's process chooses the indices of a batch, and the same or another one loads them: the
batch of indices carries its position there.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch.utils.data import DataLoader, Sampler
from torch.utils.data.dataloader import _DatasetKind

from .own_generators import Generator, own_generators
from .seeding import Origin, Purpose, seed_generators


class NumberedBatch(list[Any]):
    """The indices of a batch; the data set receives them as they are.

    Attributes:
        origin: the run and the process.
        epoch: of the run.
        turn: how often the data were begun anew before, in this epoch.
        number: of the batch in this turn.
    """

    origin: Origin
    epoch: int
    turn: int
    number: int


class NumberedBatches(Sampler[NumberedBatch]):
    """Another batch sampler's batches, numbered, also from one in the middle on.

    The generators are seeded in front of each batch, since samplers may draw from them, and the
    same in every process, since samplers share out the data so. Everything else is asked of the
    other sampler.

    Args:
        batches: the other one; batches of lists.
        origin: the run and the process.
        dataset: whose own generators are not the sampler's.
    """

    def __init__(self, batches: Iterable[Any], origin: Origin, dataset: Any = None) -> None:
        self.batches = batches
        self.origin = origin
        self.dataset_of_loader = dataset
        self.begin_epoch(0)

    def __getattr__(self, name: str) -> Any:
        if name == 'batches':  # while it is copied
            raise AttributeError(name)
        return getattr(self.batches, name)

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type]

    def begin_epoch(self, epoch: int, first: int = 0) -> None:
        """Have the next iteration be the first one of an epoch.

        Args:
            epoch: its number.
            first: number of the batch to begin with.
        """
        self._epoch, self._turn, self._first = epoch, 0, first
        self._begun: Iterator[NumberedBatch] | None = None

    def skip_batches(self, count: int, begin_anew: Callable[[], None]) -> None:
        """Have the next iteration begin after ``count`` batches, of as many turns as they take.

        Args:
            count: of batches.
            begin_anew: called after each turn.

        Raises:
            ValueError: where the sampler has no batches.
        """
        while True:
            batches, before = iter(self), count
            while count and next(batches, None) is not None:
                count -= 1
            if not count:
                self._begun = batches
                return
            if count == before:
                raise ValueError('the sampler has no batches to skip')
            begin_anew()

    def __iter__(self) -> Iterator[NumberedBatch]:
        # A turn begins with its first batch: PyTorch asks for two iterators and uses one of them.
        if self._begun is not None:
            begun, self._begun = self._begun, None
            yield from begun
            return
        turn, first = self._turn, self._first
        self._turn, self._first = turn + 1, 0
        yield from self._numbered(self._epoch, turn, first)

    def _numbered(self, epoch: int, turn: int, first: int) -> Iterator[NumberedBatch]:
        own = own_generators(self.batches, without=self.dataset_of_loader)
        alike = Origin(self.origin.seed, 0)
        batches: Iterator[Any] | None = None
        number = 0
        while True:
            seed_generators(alike, Purpose.ORDER, epoch, turn, number, own=own)
            if batches is None:
                batches = iter(self.batches)
            try:
                batch = NumberedBatch(next(batches))
            except StopIteration:
                return
            if number >= first:
                batch.origin, batch.epoch, batch.turn = self.origin, epoch, turn
                batch.number = number
                yield batch
            number += 1


class SeededSamples:
    """Stands in for ``__getitems__`` of one data set, which data loaders ask for batches.

    The generators are seeded in front of every sample; a data set that reads whole batches itself
    has them seeded in front of every batch.

    Args:
        dataset: any with indices.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self._own: list[Generator] = []
        self._own_of: tuple[int, int] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {'dataset': self.dataset, '_own': [], '_own_of': None}

    def __call__(self, batch: list[Any]) -> list[Any]:
        whole = getattr(type(self.dataset), '__getitems__', None)
        if not isinstance(batch, NumberedBatch):  # of another data loader
            return whole(self.dataset, batch) if whole else [self.dataset[i] for i in batch]
        if whole:
            self._seed(batch, 0)
            return whole(self.dataset, list(batch))
        samples = []
        for slot, index in enumerate(batch):
            self._seed(batch, slot)
            samples.append(self.dataset[index])
        return samples

    def _seed(self, batch: NumberedBatch, slot: int) -> None:
        # Hooks exchange pipelines between epochs.
        if self._own_of != (batch.epoch, batch.turn):
            self._own_of = (batch.epoch, batch.turn)
            self._own = own_generators(self.dataset)
        position = (batch.epoch, batch.turn, batch.number, slot)
        seed_generators(batch.origin, Purpose.SAMPLE, *position, own=self._own)


def number_batches(loader: Any, origin: Origin) -> NumberedBatches | None:
    """Have a data loader number its batches and its data set draw from the position.

    Workers that are started afterwards do the same.

    Returns:
        The loader's batches, None where :func:`why_not_numbered` has a reason.
    """
    if why_not_numbered(loader):
        return None
    given = loader.batch_sampler
    if isinstance(given, NumberedBatches):
        given = given.batches
    batches = NumberedBatches(given, origin, loader.dataset)
    vars(loader)['batch_sampler'] = batches  # DataLoader refuses it in the ordinary way
    vars(loader.dataset)['__getitems__'] = SeededSamples(loader.dataset)
    return batches


def leave_batches(loader: Any) -> None:
    """Have a data loader work as if :func:`number_batches` had never changed it."""
    batches = getattr(loader, 'batch_sampler', None)
    if isinstance(batches, NumberedBatches):
        vars(loader)['batch_sampler'] = batches.batches
        vars(loader.dataset).pop('__getitems__', None)


def why_not_numbered(loader: Any) -> str:
    """Return why the batches of a data loader cannot be numbered, empty where they can."""
    if not isinstance(loader, DataLoader):
        return f'a {type(loader).__name__} is no DataLoader of PyTorch'
    kind = type(loader.dataset).__name__
    if loader._dataset_kind == _DatasetKind.Iterable:
        return f'the data set {kind} is iterated over, not asked for indices'
    if loader.batch_sampler is None:
        return 'the data loader loads no batches'
    if not hasattr(loader.dataset, '__dict__'):
        return f'the data set of type {kind} takes no attributes'
    return ''
