"""What the archs of all families are checked by: frozen dataclasses of sizes."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

Arch = TypeVar('Arch')


def resolve_arch(arch: str | Mapping[str, Any] | Arch, archs: Mapping[str, Arch]) -> Arch:
    """Return the arch called ``arch``, one built from a dict of its fields, or ``arch`` itself.

    Raises:
        ValueError: for an unknown name; the message lists the known ones.
        TypeError: for a dict with unknown or missing fields, or anything else.
    """
    arch_class = type(next(iter(archs.values())))
    if isinstance(arch, str):
        if arch not in archs:
            raise ValueError(f'unknown arch {arch!r}: expected one of {", ".join(archs)}')
        return archs[arch]
    if isinstance(arch, Mapping):
        return arch_class(**arch)
    if isinstance(arch, arch_class):
        return arch
    raise TypeError(
        f'arch must be a name, a dict or a {arch_class.__name__}, not {type(arch).__name__}'
    )


def per_stage(name: str, values: Sequence[Any], count: int) -> tuple[Any, ...]:
    """``values``, a field ``name`` of an arch, as a tuple of ``count`` positive numbers.

    Raises:
        ValueError: naming the field and its values where they are not that.
    """
    values = (values,) if isinstance(values, int) else tuple(values)
    if len(values) != count or any(not isinstance(v, int) or v < 1 for v in values):
        raise ValueError(f'{name}={values} must be {count} positive numbers, one per stage')
    return values


def check_positive(arch: object, *names: str) -> None:
    """Raise ``ValueError`` naming the first of an arch's fields that is no positive number."""
    for name in names:
        value = getattr(arch, name)
        if not isinstance(value, int) or value < 1:
            raise ValueError(f'{name}={value} must be a positive whole number')


def check_rate(name: str, rate: float) -> None:
    """Raise ``ValueError`` naming a probability to drop that is out of 0 .. 1, 1 excluded."""
    if not 0.0 <= rate < 1.0:
        raise ValueError(f'{name}={rate} must be at least 0 and below 1')
