"""The weights in a checkpoint, and loading them into a module."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from mmwave.errors import UserError


def state_dict_of(checkpoint: Any) -> dict[str, Tensor]:
    """The weights in what :func:`read_checkpoint` returned.

    They are taken from the entry ``state_dict``, else ``model``, else the dict itself is them. The
    prefix ``module.`` of data-parallel training is removed where every name has it.

    Raises:
        TypeError: where the checkpoint is no dict.
        ValueError: where it holds no tensors, or something else among them.
    """
    if not isinstance(checkpoint, Mapping):
        raise TypeError(f'a checkpoint must be a dict, not {type(checkpoint).__name__}')
    key = next((k for k in ('state_dict', 'model') if isinstance(checkpoint.get(k), Mapping)), None)
    state = checkpoint[key] if key else checkpoint
    others = [str(name) for name, value in state.items() if not isinstance(value, Tensor)]
    if others or not state:
        where = f'the entry {key!r} of the checkpoint' if key else 'the checkpoint'
        raise UserError(
            f'{where} is no state dict: {len(state) - len(others)} tensors, other entries: '
            f"{_some(others) or 'none'}; expected 'state_dict', 'model' or a bare state dict"
        )
    prefix = 'module.'
    if all(name.startswith(prefix) for name in state):
        return {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return dict(state)


@dataclass(frozen=True)
class LoadReport:
    """What :func:`load_matching` did.

    Attributes:
        loaded: names of the module's tensors that were loaded.
        missing: names of the module's tensors that the state dict has not.
        unexpected: names in the state dict that the module has not.
        mismatched: names that both have in different shapes, with the shape given and the module's.
        source: where the state dict came from.

    Counters of batch norms (``num_batches_tracked``) are loaded but not listed.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    source: str = ''

    def summary(self) -> str:
        """One line with the counts, and one line per kind of name that did not match."""
        wanted = len(self.loaded) + len(self.missing) + len(self.mismatched)
        lines = [
            f'loaded {len(self.loaded)} of {wanted} tensors from {self.source or "a state dict"}'
        ]
        shapes = [
            f'{name} {_shape(given)} for {_shape(own)}' for name, given, own in self.mismatched
        ]
        for count, text, names in (
            (len(self.missing), 'not in it, left as they were', self.missing),
            (len(self.unexpected), 'in it but not in the module', self.unexpected),
            (len(shapes), 'of another shape, left as they were', shapes),
        ):
            if count:
                lines.append(f'  {count} {text}: {_some(names)}')
        return '\n'.join(lines)


def load_matching(
    module: nn.Module,
    state: Mapping[str, Tensor],
    *,
    prefix: str = '',
    min_fraction: float = 0.5,
    source: str = '',
) -> LoadReport:
    """Load the tensors whose name and shape the module has; stop where too few are.

    Args:
        module: loaded in place, each tensor keeping its own dtype and device.
        state: name -> tensor.
        prefix: what a name in ``state`` begins with, and the module's does not; other names are
            left out.
        min_fraction: share of the module's tensors, batch counters aside, that must match, 0 to 1.
        source: named in the report and in errors.

    Raises:
        ValueError: where fewer matched (the module is then unchanged), a part with a train form and
            a deploy form is given the weights of the other, or ``min_fraction`` is not in 0 .. 1.
    """
    if not 0.0 <= min_fraction <= 1.0:
        raise ValueError(f'min_fraction={min_fraction} must be between 0 and 1')
    given = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    for name, part in module.named_modules():
        if hasattr(part, 'check_form'):
            lead = f'{name}.' if name else ''
            part.check_form([k.removeprefix(lead) for k in given if k.startswith(lead)])
    own = {k: v for k, v in module.state_dict().items() if isinstance(v, Tensor)}
    fits = {k: v for k, v in given.items() if k in own and v.shape == own[k].shape}
    wrong = [k for k in given if k in own and k not in fits]
    report = LoadReport(
        loaded=tuple(k for k in own if k in fits and not _is_counter(k)),
        missing=tuple(k for k in own if k not in given and not _is_counter(k)),
        unexpected=tuple(k for k in given if k not in own and not _is_counter(k)),
        mismatched=tuple((k, tuple(given[k].shape), tuple(own[k].shape)) for k in wrong),
        source=source,
    )
    wanted = sum(not _is_counter(k) for k in own)
    if len(report.loaded) < min_fraction * wanted:
        hint = _prefix_hint(own, state, prefix, len(report.loaded))
        raise UserError(f'{report.summary()}\n  at least {min_fraction:.0%} must match{hint}')
    module.load_state_dict(fits, strict=False)
    return report


def check_settings(module: nn.Module, checkpoint: Any, source: str) -> None:
    """Have every part that knows what its weights were trained with look at the file's notes.

    Args:
        module: a model, whose backbones are such parts.
        checkpoint: what :func:`read_checkpoint` returned.
        source: named in errors.

    Raises:
        ValueError: where weights were noted to need another family or other settings.
    """
    for part in module.modules():
        check = getattr(part, 'check_settings', None)
        if check is not None:
            check(checkpoint, source)


def _is_counter(name: str) -> bool:
    return name.endswith('num_batches_tracked')


def _shape(sizes: tuple[int, ...]) -> str:
    return ' x '.join(map(str, sizes)) or 'scalar'


def _some(names: Any, limit: int = 4) -> str:
    names = list(names)
    more = f' and {len(names) - limit} more' if len(names) > limit else ''
    return ', '.join(names[:limit]) + more


def _prefix_hint(
    own: Mapping[str, Tensor], state: Mapping[str, Tensor], prefix: str, matched: int
) -> str:
    """A sentence naming the prefix that would let more tensors match, empty where there is none."""
    theirs: Counter[str] = Counter()
    for name in state:
        for lead, rest in _splits(name):
            if rest in own and own[rest].shape == state[name].shape and not _is_counter(rest):
                theirs[lead] += 1
    ours: Counter[str] = Counter()
    for name in own:
        for lead, rest in _splits(name):
            if lead and rest in state and own[name].shape == state[rest].shape:
                ours[lead] += not _is_counter(rest)
    lead, count = max(theirs.items(), key=lambda item: item[1], default=('', 0))
    if count > matched and lead != prefix:
        return f'; with the prefix {lead!r} taken off its names {count} would'
    lead, count = max(ours.items(), key=lambda item: item[1], default=('', 0))
    if count > matched:
        return f'; {count} would in the part {lead.rstrip(".")!r} of the module'
    return ''


def _splits(name: str) -> Iterator[tuple[str, str]]:
    parts = name.split('.')
    for i in range(len(parts)):
        yield ''.join(f'{part}.' for part in parts[:i]), '.'.join(parts[i:])
