"""The weights in a checkpoint, and loading them into a module."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmwave.errors import UserError, printable, printable_path

from .nodes import not_a_weight

_MAX_NAME = 1000
_MAX_PREFIX_PARTS = 16
# Parts of names of tensors that depend on the classes, or on the size of the images: other sizes of
# these are what weights are adapted to.
_CLASSES = re.compile(r'head|classif|logit|(^|_)(cls|class|label)(_|$)')
_POSITIONS = re.compile(r'(^|_)(pos|position|relative|bias_table|coords_table|attn_mask)(_|$)')
_POSITIONS_TOO = ('attention_biases', 'attention_bias_idxs')


def state_dict_of(checkpoint: Any) -> dict[str, Tensor]:
    """Return the weights in what :func:`read_checkpoint` returned.

    They are taken from the entry ``state_dict``, else ``model``, else the dict itself is them. The
    prefix ``module.`` of data-parallel training is removed where every name has it.

    Raises:
        UserError: where the checkpoint is no dict, holds no tensors, or something else among them,
            or :func:`check_weights` refuses them.
    """
    if not isinstance(checkpoint, Mapping):
        raise UserError(f'a checkpoint must be a dict, not {type(checkpoint).__name__}')
    key = next((k for k in ('state_dict', 'model') if isinstance(checkpoint.get(k), Mapping)), None)
    state = checkpoint[key] if key else checkpoint
    others = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if others or not state:
        where = f'the entry {key!r} of the checkpoint' if key else 'the checkpoint'
        raise UserError(
            f'{where} is no state dict: {len(state) - len(others)} tensors, other entries: '
            f"{_some(others) or 'none'}; expected 'state_dict', 'model' or a bare state dict"
        )
    check_weights(state)
    prefix = 'module.'
    if all(name.startswith(prefix) for name in state):
        return {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return dict(state)


def check_weights(state: Mapping[Any, Any], *, meta: bool = False) -> None:
    """Raise unless ``state`` can be the weights of a module, as far as can be seen without it.

    Args:
        state: name -> tensor.
        meta: accept tensors on the meta device, which have no values.

    Raises:
        UserError: where a name is no text, has more than 1,000 characters or one that is not
            printable; where a tensor is sparse, quantised, nested, complex or without values; or
            where none is floating-point.
    """
    for name, tensor in state.items():
        if type(name) is not str:
            kind = type(name).__name__
            raise UserError(f'the name {printable(name)} of a tensor is a {kind}, expected a text')
        if len(name) > _MAX_NAME or not name.isprintable():
            raise UserError(
                f'the name {printable(name)} of a tensor has characters that are not printable, or '
                f'more than {_MAX_NAME} of them'
            )
        kind = '' if meta and tensor.is_meta else _unfit(tensor)
        if kind:
            raise not_a_weight(name, kind)
    if not any(tensor.is_floating_point() for tensor in state.values()):
        raise UserError(f'none of {len(state)} tensors is floating-point: {_some(state)}')


def _unfit(tensor: Tensor) -> str:
    """Return what keeps a tensor from being weights, empty where nothing does."""
    if tensor.is_nested:
        return 'a nested tensor'
    if tensor.is_quantized:
        return 'a quantised tensor'
    if tensor.layout != torch.strided:
        return 'a sparse tensor'
    if tensor.is_meta:
        return 'a meta tensor, which has no values'
    if tensor.is_complex():
        return 'a complex tensor'
    return ''


def not_finite(state: Mapping[str, Tensor]) -> dict[str, int]:
    """Return the names of tensors with NaN or infinite values, and how many each has."""
    return {name: count for name, tensor in state.items() if (count := _not_finite(tensor))}


def _not_finite(tensor: Tensor) -> int:
    if not tensor.is_floating_point() or tensor.is_meta or not tensor.numel():
        return 0
    if tensor.itemsize == 1:  # torch computes with none of its types of 8 bits
        tensor = tensor.float()
    # One pass without a copy: a sum of finite numbers may overflow, but no other becomes finite.
    wide = torch.float64 if tensor.dtype == torch.float64 else torch.float32
    if tensor.detach().sum(dtype=wide).isfinite():
        return 0
    return tensor.numel() - int(tensor.isfinite().sum())


def not_finite_line(found: Mapping[str, int]) -> str:
    """Return what :func:`not_finite` found in words, empty where that is nothing."""
    if not found:
        return ''
    return f'{len(found)} tensors hold {sum(found.values())} NaN or infinite values: {_some(found)}'


@dataclass(frozen=True)
class LoadReport:
    """What :func:`load_matching` did.

    Attributes:
        loaded: names of the module's tensors that were loaded.
        missing: names of the module's tensors that the state dict has not.
        unexpected: names in the state dict that the module has not.
        mismatched: names that both have in different shapes, with the shape in the state dict and
            in the module.
        source: where the state dict came from.
        not_finite: names of loaded tensors with NaN or infinite values, and how many each has.

    Counters of batch norms (``num_batches_tracked``) are loaded but not listed.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    source: str = ''
    not_finite: tuple[tuple[str, int], ...] = ()

    def summary(self) -> str:
        """Return a line with the counts, and a line per kind of name that did not match.

        Another counts NaN and infinite values.
        """
        wanted = len(self.loaded) + len(self.missing) + len(self.mismatched)
        lines = [
            f'loaded {len(self.loaded)} of {wanted} tensors from '
            f'{printable_path(self.source) or "a state dict"}'
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
        if self.not_finite:
            lines.append(f'  {not_finite_line(dict(self.not_finite))}')
        return '\n'.join(lines)


def load_matching(
    module: nn.Module,
    state: Mapping[str, Tensor],
    *,
    prefix: str = '',
    min_fraction: float = 0.5,
    source: str = '',
    may_differ: Sequence[str] = (),
) -> LoadReport:
    """Load the tensors whose name and shape the module has; stop where too few are.

    A tensor of another shape is left as it was where it belongs to a head, whose classes may be
    others, or holds what is tied to positions of an image. Any other one is an error.

    Args:
        module: loaded in place, each tensor keeping its own dtype and device.
        state: name -> tensor.
        prefix: what a name in ``state`` begins with, and the module's does not; other names are
            left out.
        min_fraction: share of the module's tensors, batch counters aside, that must match, 0 to 1.
        source: named in the report and in errors.
        may_differ: what the names of other tensors begin with that may have another shape.

    Raises:
        UserError: where fewer matched, or one of another shape must not differ (the module is then
            unchanged), a part with a train form and
            a deploy form receives the weights of the other, or a tensor is of a kind that
            :func:`check_weights` refuses, or of integers where the module's is floating-point; or
            where ``min_fraction`` is not in 0 .. 1.
    """
    if not 0.0 <= min_fraction <= 1.0:
        raise UserError(f'min_fraction={min_fraction} must be between 0 and 1')
    if state:
        check_weights(state)
    given = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    for name, part in module.named_modules():
        if hasattr(part, 'check_form'):
            lead = f'{name}.' if name else ''
            part.check_form([k.removeprefix(lead) for k in given if k.startswith(lead)])
    own = {k: v for k, v in module.state_dict().items() if isinstance(v, Tensor)}
    fits = {k: v for k, v in given.items() if k in own and v.shape == own[k].shape}
    wrong = [k for k in given if k in own and k not in fits]
    for k, v in fits.items():
        if own[k].is_floating_point() and not v.is_floating_point():
            raise not_a_weight(k, f'of {_dtype(v)} where the module has {_dtype(own[k])}')
    report = LoadReport(
        loaded=tuple(k for k in own if k in fits and not _is_counter(k)),
        missing=tuple(k for k in own if k not in given and not _is_counter(k)),
        unexpected=tuple(k for k in given if k not in own and not _is_counter(k)),
        mismatched=tuple((k, tuple(given[k].shape), tuple(own[k].shape)) for k in wrong),
        source=source,
        not_finite=tuple(not_finite(fits).items()),
    )
    wanted = sum(not _is_counter(k) for k in own)
    if len(report.loaded) < min_fraction * wanted:
        hint = _prefix_hint(own, state, prefix, len(report.loaded))
        raise UserError(f'{report.summary()}\n  at least {min_fraction:.0%} must match{hint}')
    _refuse_lost(module, report, tuple(may_differ))
    module.load_state_dict(fits, strict=False)
    return report


def _refuse_lost(module: nn.Module, report: LoadReport, may_differ: tuple[str, ...]) -> None:
    """Raise where a tensor of another shape would be left untrained that must not be."""
    wrong = [name for name, _, _ in report.mismatched if not name.startswith(may_differ)]
    lost = [name for name in wrong if not _adapts(module, name)]
    if lost:
        raise UserError(
            f'{report.summary()}\n  {_some(lost)} would be left untrained: only heads, for other '
            'classes, and tables of positions may have another shape; build the model that the '
            "weights are of, or allow it by the names' beginning: may_differ=[...] of init_cfg, "
            'or of mmwave.LoadReportHook in default_hooks'
        )


def _adapts(module: nn.Module, name: str) -> bool:
    """Return whether a tensor may have another shape in weights that a module is started from."""
    path, _, last = name.rpartition('.')
    owner: Any = module
    for part in path.split('.') if path else ():
        # A backbone that states what its weights are for has no table that other sizes fit.
        if hasattr(owner, 'check_form'):
            return False
        if _CLASSES.search(part):
            return True
        owner = getattr(owner, part)
    if hasattr(owner, 'check_form'):
        return False
    if _CLASSES.search(last) and last != 'cls_token':
        return True
    if isinstance(owner, nn.Embedding):
        last = path.rpartition('.')[2]
    return last in _POSITIONS_TOO or _POSITIONS.search(last) is not None


def check_settings(module: nn.Module, checkpoint: Any, source: str) -> None:
    """Have every part that states what its weights were trained with check the file's notes.

    Args:
        module: a model, whose backbones are such parts.
        checkpoint: what :func:`read_checkpoint` returned.
        source: named in errors.

    Raises:
        UserError: where weights were noted to need another family or other settings.
    """
    for part in module.modules():
        check = getattr(part, 'check_settings', None)
        if check is not None:
            check(checkpoint, source)


def _is_counter(name: str) -> bool:
    return name.endswith('num_batches_tracked')


def _shape(sizes: tuple[int, ...]) -> str:
    return ' x '.join(map(str, sizes)) or 'scalar'


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix('torch.')


def _some(names: Any, limit: int = 4) -> str:
    names = [printable(name) for name in names]
    more = f' and {len(names) - limit} more' if len(names) > limit else ''
    return ', '.join(names[:limit]) + more


def _prefix_hint(
    own: Mapping[str, Tensor], state: Mapping[str, Tensor], prefix: str, matched: int
) -> str:
    """Return a hint at the prefix that would let more tensors match, empty where there is none."""
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
    """Yield every way to cut a name behind one of its first dots, and the uncut name."""
    at = 0
    for _ in range(_MAX_PREFIX_PARTS):
        yield name[:at], name[at:]
        at = name.find('.', at) + 1
        if not at:
            return
