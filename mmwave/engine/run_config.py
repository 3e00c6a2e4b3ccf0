"""Configs of runs: what is set for one call, or for this machine, is run and not written down."""

import copy
import os.path as osp
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import Config


def set_for_call(cfg: Config, **values: Any) -> None:
    """Set keys of ``cfg`` that belong to this call and not to the config, such as ``resume``.

    Args:
        cfg: changed in place.
        **values: by top-level key.
    """
    before = cfg.__dict__.setdefault('_before_call', {})
    for key, value in values.items():
        if key not in before:
            before[key] = [copy.deepcopy(cfg[key])] if key in cfg.keys() else []  # noqa: SIM118
        cfg[key] = value


class RunConfig(Config):
    """A config that runs as it stands, and is written down as the config that the user chose.

    mmengine writes a runner's config into the work directory, into every checkpoint and to the
    visualizer's backends. A config that is found there and run again is then the same run: what
    ``set_for_call`` set, or what is changed here later on, would be taken for a part of it.

    Args:
        cfg: left as it is.
        hooks: custom hooks that the run is to have beside the config's; where the config has one of
            a type already, custom or default, its own stays.
        stale: custom hooks as earlier versions wrote them down, which are left out.
        keep: a file that is not written where it exists.
    """

    def __init__(
        self,
        cfg: Config,
        *,
        hooks: Sequence[Mapping[str, Any]] = (),
        stale: Sequence[Mapping[str, Any]] = (),
        keep: str | None = None,
    ) -> None:
        chosen = copy.deepcopy(cfg)
        for key, before in chosen.__dict__.pop('_before_call', {}).items():
            chosen.pop(key, None)
            if before:
                chosen[key] = before[0]
        given = list(cfg.get('custom_hooks') or [])
        own = [hook for hook in given if hook not in stale]
        if len(own) < len(given):
            chosen.custom_hooks = own
        self.__dict__.update(copy.deepcopy(cfg).__dict__)
        self.__dict__.update(_chosen=chosen, _keep=keep)
        types = {_type_name(hook) for hook in (*own, *(cfg.get('default_hooks') or {}).values())}
        self.custom_hooks = [*own, *(dict(h) for h in hooks if _type_name(h) not in types)]

    def __getstate__(self) -> dict[str, Any]:  # Config's knows its own attributes alone
        return self.__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    @property
    def pretty_text(self) -> str:
        """The chosen config as Python code."""
        return self._chosen.pretty_text

    def to_dict(self, keep_imported: bool = False) -> dict[str, Any]:
        """Return the chosen config as a plain dict."""
        return self._chosen.to_dict(keep_imported)

    def dump(self, file: Any = None) -> Any:
        """Write the chosen config to ``file``, or return it as text where there is none."""
        if file is not None and self._keep is not None and osp.exists(self._keep):
            file = None if osp.realpath(file) == osp.realpath(self._keep) else file
        return super().dump(file)


def _type_name(hook: Any) -> str:
    """Return the name of a hook's type without its scope; hooks may be built already."""
    kind = hook.get('type') if isinstance(hook, Mapping) else type(hook)
    return getattr(kind, '__name__', str(kind)).rpartition('.')[2]
