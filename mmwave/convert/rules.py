"""A converter as data: ordered rules that account for every tensor of a file and of the target."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from mmwave.errors import UserError, printable

TRANSFORMS: dict[str, Callable[[Tensor], Tensor]] = {
    'transpose': lambda tensor: tensor.transpose(0, 1),
    # A 1 x 1 convolution as a linear layer: (O, I, 1, 1) -> (O, I); or without a last axis of one:
    # (1, P, 1) -> (1, P).
    'flatten': lambda tensor: tensor.flatten(1),
    # A 1 x 1 convolution of S groups as the matrices of its groups: (S * P, P, 1, 1) -> (S, P, P).
    'group matrices': lambda tensor: tensor.reshape(-1, tensor.shape[1], tensor.shape[1]),
    # One number per channel, with or without leading axes of one: (1, 1, C) or (C) -> (C).
    'vector': lambda tensor: tensor.reshape(tensor.shape[-1]),
    # A convolution's kernel as flax stores it: (kh, kw, I, O) -> (O, I, kh, kw).
    'hwio': lambda tensor: tensor.permute(3, 2, 0, 1),
}
"""Name of a transform in rules -> what it does to a tensor."""


@dataclass(frozen=True)
class Rule:
    """What happens to tensors whose whole name matches ``pattern``."""

    pattern: re.Pattern[str]
    target: str = ''
    transform: str = ''
    reason: str = ''


def rename(pattern: str, target: str) -> Rule:
    """Return a rule that renames; ``target`` may use the pattern's groups, as ``\\1``."""
    return Rule(re.compile(pattern), target=target)


def transform(pattern: str, target: str, name: str) -> Rule:
    """Return a rule that renames and applies ``TRANSFORMS[name]``.

    Raises:
        ValueError: where there is no transform of that name.
    """
    if name not in TRANSFORMS:
        raise ValueError(f'unknown transform {name!r}: expected one of {", ".join(TRANSFORMS)}')
    return Rule(re.compile(pattern), target=target, transform=name)


def drop(pattern: str, reason: str) -> Rule:
    """Return a rule that leaves tensors out.

    Raises:
        ValueError: where the reason is empty.
    """
    if not reason:
        raise ValueError(f'the rule that drops {pattern!r} must give a reason')
    return Rule(re.compile(pattern), reason=reason)


@dataclass(frozen=True)
class Zeros:
    """Tensors of the target that become int64 zeros where the file lacks them."""

    pattern: re.Pattern[str]
    reason: str


def zeros(pattern: str, reason: str) -> Zeros:
    """Return what fills tensors of the target that the file lacks with int64 zeros."""
    return Zeros(re.compile(pattern), reason)


@dataclass(frozen=True)
class Applied:
    """The result of :func:`apply`.

    Attributes:
        tensors: target name -> tensor, in the file's order, then filled ones.
        sources: target name -> name of its source tensor; filled ones have none.
        transformed: target name -> name of its transform.
        dropped: reason -> source names.
        filled: reason -> target names.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    transformed: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, list[str]] = field(default_factory=dict)
    filled: dict[str, list[str]] = field(default_factory=dict)

    def after(self, first: 'Applied') -> 'Applied':
        """Return the result of both steps, where these rules were applied to ``first.tensors``."""
        dropped = dict(first.dropped)
        for reason, names in self.dropped.items():
            before = [first.sources[name] for name in names]
            dropped[reason] = [*dropped.get(reason, ()), *before]
        return replace(
            self,
            sources={target: first.sources[name] for target, name in self.sources.items()},
            dropped=dropped,
        )


def apply(
    rules: Sequence[Rule],
    tensors: Mapping[str, Tensor],
    expected: Mapping[str, tuple[int, ...]] | None = None,
    fills: Sequence[Zeros] = (),
) -> Applied:
    """Send every tensor through the first rule that matches its name.

    Args:
        rules: tried in order.
        tensors: source name -> tensor.
        expected: name -> shape of every tensor that the target must have; None: not checked.
        fills: for expected names that no rule produced; needs ``expected``.

    Raises:
        UserError: listing every source name without a rule, every shape that its transform does not
            accept, every target name written twice; and against ``expected`` every missing name,
            every unexpected name, every shape that differs and every tensor of integers or bool.
    """
    done = Applied()
    writers: dict[str, list[str]] = {}
    problems = []
    for name, tensor in tensors.items():
        found = ((rule, rule.pattern.fullmatch(name)) for rule in rules)
        rule, match = next(((r, m) for r, m in found if m), (None, None))
        if rule is None or match is None:
            problems.append(f'no rule for {printable(name)}')
        elif rule.reason:
            done.dropped.setdefault(rule.reason, []).append(name)
        else:
            target = match.expand(rule.target)
            writers.setdefault(target, []).append(name)
            done.tensors[target], done.sources[target] = tensor, name
            if rule.transform:
                done.transformed[target] = rule.transform
                try:
                    done.tensors[target] = TRANSFORMS[rule.transform](tensor)
                except (IndexError, RuntimeError):
                    shape = tuple(tensor.shape)
                    problems.append(f'{printable(name)} of shape {shape}: no {rule.transform}')
    problems += [
        f'{printable(k)} is written by {" and ".join(map(printable, v))}'
        for k, v in writers.items()
        if len(v) > 1
    ]
    if expected is not None:
        _fill(done, expected, fills)
        problems += _differences(done.tensors, expected, fills)
    if problems:
        raise UserError('\n  '.join([f'{len(problems)} tensors do not fit:', *problems]))
    return done


_COUNTERS = re.compile(r'(?:.*\.)?num_batches_tracked')
"""Tensors of a target that are integers, besides those that are filled with zeros."""


def _fill(done: Applied, expected: Mapping[str, tuple[int, ...]], fills: Sequence[Zeros]) -> None:
    for name, shape in expected.items():
        fill = next((f for f in fills if f.pattern.fullmatch(name)), None)
        if fill is not None and name not in done.tensors:
            done.tensors[name] = torch.zeros(shape, dtype=torch.int64)
            done.filled.setdefault(fill.reason, []).append(name)


def _differences(
    tensors: Mapping[str, Tensor],
    expected: Mapping[str, tuple[int, ...]],
    fills: Sequence[Zeros],
) -> list[str]:
    integers = (_COUNTERS, *(fill.pattern for fill in fills))
    found = [f'{name} is not filled' for name in expected if name not in tensors]
    for name, tensor in tensors.items():
        shape = tuple(tensor.shape)
        if name not in expected:
            found.append(f'{printable(name)} is not in the target')
        elif shape != expected[name]:
            found.append(f'{printable(name)} has shape {shape}, the target {expected[name]}')
        elif not tensor.is_floating_point() and not any(p.fullmatch(name) for p in integers):
            dtype = str(tensor.dtype).removeprefix('torch.')
            found.append(f'{printable(name)} is of {dtype}, the target floating-point')
    return found


MINDSPORE_NAMES = (
    drop(
        r'(?:moments?[12]?\..*|global_step|learning_rate|momentum|beta[12]_power|epoch_num|step_num|best_acc)',
        'optimizer state and counters of a training run',
    ),
    rename(r'(.*)\.gamma', r'\1.weight'),
    rename(r'(.*)\.beta', r'\1.bias'),
    rename(r'(.*)\.moving_mean', r'\1.running_mean'),
    rename(r'(.*)\.moving_variance', r'\1.running_var'),
    rename(r'(.*)', r'\1'),
)
"""MindSpore's names of norm tensors to torch's, for every family."""

MINDSPORE_FILLS = (zeros(r'.*\.num_batches_tracked', 'MindSpore counts no batches'),)
"""Tensors of torch's batch norms that MindSpore's lack."""

PADDLE_NAMES = (
    rename(r'(.*)\._mean', r'\1.running_mean'),
    rename(r'(.*)\._variance', r'\1.running_var'),
    rename(r'(.*)', r'\1'),
)
"""Paddle's names of norm tensors to torch's, for every family.

Paddle stores the weights of linear layers as (in, out). The family's rules state which ones are
linear: shapes do not, where a weight is square or of a 1 x 1 convolution in 2-D.
"""

PADDLE_FILLS = (zeros(r'.*\.num_batches_tracked', 'Paddle counts no batches'),)
"""Tensors of torch's batch norms that Paddle's lack."""

DENSE_NAMES = (
    rename(r'backbone\.(.*)', r'\1'),
    drop(
        r'(?:neck|rpn_head|roi_head|bbox_head|mask_head|decode_head|auxiliary_head)\..*',
        'parts of a detector or segmentor beside its backbone',
    ),
)
"""Names in OpenMMLab's detectors and segmentors to those of the backbone, for every family."""
