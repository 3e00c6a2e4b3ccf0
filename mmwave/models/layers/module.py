"""mmengine's base of modules, imported when it is needed."""

import copy
import sys
from typing import Any

from torch import nn


class Module(nn.Module):
    """A module with an ``init_cfg``, as mmengine's ``BaseModule``, whose methods it calls.

    ``import mmengine.model`` takes half as long as torch itself (optimizers, wrappers and what they
    import), and a backbone needs none of it before its weights are initialised. It
    counts as a subclass of ``BaseModule`` from the first one that is built, or initialised, with
    ``mmengine.model`` imported.

    Args:
        init_cfg: mmengine's config of how to initialise the weights, or a list of such.
    """

    def __init__(self, init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__()
        self.init_cfg = copy.deepcopy(init_cfg)
        self._is_init = False
        if 'mmengine.model' in sys.modules:
            _base_module()

    @property
    def is_init(self) -> bool:
        """Whether the weights have been initialised."""
        return self._is_init

    @is_init.setter
    def is_init(self, value: bool) -> None:
        self._is_init = value

    def init_weights(self) -> None:
        """Initialise the weights as ``init_cfg`` says, those of the parts first."""
        _base_module().init_weights(self)

    def _dump_init_info(self) -> None:
        # init_weights calls it on the outermost module.
        _base_module()._dump_init_info(self)

    def __repr__(self) -> str:
        given = f'\ninit_cfg={self.init_cfg}' if self.init_cfg else ''
        return super().__repr__() + given


def _base_module() -> Any:
    from mmengine.model import BaseModule

    if not issubclass(Module, BaseModule):
        BaseModule.register(Module)
    return BaseModule
