"""Pictures that are drawn of a data set's images, each in a file of its own."""

import functools
import inspect
import itertools
import os.path as osp
import zlib
from collections.abc import Callable, Iterable, MutableMapping
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.visualization import Visualizer

from mmwave.registry import HOOKS

_DRAWING = ('add_datasample', 'visualize_cls')


class PictureNames:
    """Names of images' pictures, which depend on the data set and on no order or process.

    They are the images' own as long as these differ. Else the folders below the one that all the
    images are in stand in front of them.

    Args:
        paths: of the data set's images, in its order.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        self._numbers: dict[str, int] = {}
        for index, path in enumerate(paths):
            self._numbers.setdefault(path, index)
        places = {_place(path) for path in self._numbers}
        self._differ = bool(places) and len({place[-1] for place in places}) == len(places)
        levels = zip(*(place[:-1] for place in places), strict=False)
        common = itertools.takewhile(lambda names: len(set(names)) == 1, levels)
        self._depth = sum(1 for _ in common)

    def differ(self, path: str) -> bool:
        """Return whether base names tell the images apart, with the one at ``path`` among them."""
        return self._differ and path in self._numbers

    def file(self, path: str) -> str:
        """Return the picture's path in the folder of pictures."""
        place = _place(path)
        if path not in self._numbers:  # the data set is of another kind, or its paths are made up
            return osp.join(*place)
        return place[-1] if self._differ else osp.join(*place[self._depth :])

    def number(self, path: str) -> int:
        """Return the image's index in the data set, or a number made of its unknown path."""
        return self._numbers.get(path, zlib.crc32(path.encode()))


@HOOKS.register_module()
class PictureNamesHook(Hook):
    """Name the pictures that the libraries' visualization hooks draw by their images alone.

    mmdet and mmpretrain name them by the images' base names: where these are equal the last one
    drawn is left. Numbers in names count the images of one process; here they are those of the data
    set.
    """

    def before_val(self, runner: Runner) -> None:
        self._name(runner.visualizer, runner.val_dataloader.dataset, testing=False)

    def before_test(self, runner: Runner) -> None:
        self._name(runner.visualizer, runner.test_dataloader.dataset, testing=True)

    @staticmethod
    def _name(visualizer: Visualizer, dataset: Any, *, testing: bool) -> None:
        # Once something is drawn: reading the paths of a large data set takes a while.
        names = functools.cache(lambda: PictureNames(_paths(dataset)))
        for method in _DRAWING:
            if hasattr(visualizer, method):
                setattr(visualizer, method, _renaming(visualizer, method, names, testing=testing))


def _renaming(
    visualizer: Visualizer, method: str, names: Callable[[], PictureNames], *, testing: bool
) -> Callable[..., Any]:
    """Return the visualizer's method with the names that it is given replaced."""
    function = getattr(type(visualizer), method)
    signature = inspect.signature(function)
    # Their steps count images; mmpretrain's are epochs.
    counts = testing and method == 'add_datasample'

    @functools.wraps(function)
    def draw(*args: Any, **kwargs: Any) -> Any:
        call = signature.bind(visualizer, *args, **kwargs)
        sample = call.arguments.get('data_sample')
        path = getattr(sample, 'img_path', None)
        if isinstance(path, str):
            _rename(call.arguments, path, names(), counts=counts)
        elif hasattr(sample, 'sample_idx') and str(call.arguments.get('name')).isdecimal():
            # mmpretrain counts the images of a process that come from no files.
            _replace(call.arguments, str(call.arguments['name']), str(sample.sample_idx))
            call.arguments['name'] = str(sample.sample_idx)
        return function(*call.args, **call.kwargs)

    return draw


def _rename(
    arguments: MutableMapping[str, Any], path: str, names: PictureNames, *, counts: bool
) -> None:
    base = osp.basename(path)
    if arguments.get('out_file') is not None:
        _replace(arguments, base, names.file(path))
    elif counts and 'step' in arguments:
        arguments['step'] = names.number(path) + 1
    elif base in str(arguments.get('name')) and not names.differ(path):
        arguments['name'] = f'{arguments["name"]}_{names.number(path)}'


def _replace(arguments: MutableMapping[str, Any], old: str, new: str) -> None:
    """Replace what the name of the file to write begins with."""
    folder, name = osp.split(arguments.get('out_file') or '')
    if name.startswith(old):
        arguments['out_file'] = osp.join(folder, new + name.removeprefix(old))


def _paths(dataset: Any) -> list[str]:
    """Return the paths of a data set's images, none where it cannot be asked for them."""
    if not hasattr(dataset, 'get_data_info'):
        return []
    infos = (dataset.get_data_info(index) for index in range(len(dataset)))
    return [str(info['img_path']) for info in infos if info.get('img_path')]


def _place(path: str) -> tuple[str, ...]:
    """Return the folders of a path and its name; an address's scheme is the first folder."""
    if '://' in path:
        return tuple(part for part in path.split('/') if part not in ('', '.', '..'))
    return tuple(part for part in osp.abspath(path).split(osp.sep) if part)
