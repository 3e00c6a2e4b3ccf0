"""What the fields of archs are checked by."""

from dataclasses import dataclass
from types import MappingProxyType

import pytest

from mmwave.models.backbones.arch import check_positive, check_rate, per_stage, resolve_arch


@dataclass(frozen=True, kw_only=True)
class Sizes:
    dim: int
    ratio: int = 4


ARCHS = MappingProxyType({'s': Sizes(dim=8), 'b': Sizes(dim=16)})


def test_an_arch_by_its_name_its_fields_or_itself():
    assert resolve_arch('b', ARCHS) is ARCHS['b']
    assert resolve_arch(MappingProxyType({'dim': 16}), ARCHS) == ARCHS['b']
    own = Sizes(dim=3, ratio=1)
    assert resolve_arch(own, ARCHS) is own


def test_what_is_no_arch():
    with pytest.raises(ValueError, match="unknown arch 'huge': expected one of s, b"):
        resolve_arch('huge', ARCHS)
    for fields in (dict(), dict(dim=8, colour='red')):
        with pytest.raises(TypeError, match=r'dim|colour'):
            resolve_arch(fields, ARCHS)
    for wrong in (3, None, ('s',)):
        with pytest.raises(
            TypeError, match='a name, a dict or a Sizes, not ' + type(wrong).__name__
        ):
            resolve_arch(wrong, ARCHS)


def test_fields_of_a_number_per_stage():
    assert per_stage('depths', [1, 2], 2) == (1, 2)
    for wrong in ([1], [1, 2, 3], [1, 0], [1, 2.0], 2):
        with pytest.raises(ValueError, match=r'depths=\(.*\) must be 2 positive numbers'):
            per_stage('depths', wrong, 2)


def test_fields_that_are_positive():
    check_positive(Sizes(dim=1), 'dim', 'ratio')
    for wrong in (0, -1, 1.5, '8'):
        with pytest.raises(ValueError, match=f'ratio={wrong} must be a positive whole number'):
            check_positive(Sizes(dim=0, ratio=wrong), 'ratio')


def test_probabilities_to_drop():
    for rate in (0.0, 0.5, 0.999):
        check_rate('drop_rate', rate)
    for wrong in (-0.1, 1.0, float('nan')):
        with pytest.raises(ValueError, match=f'drop_rate={wrong} must be at least 0 and below 1'):
            check_rate('drop_rate', wrong)
