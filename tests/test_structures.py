"""Which sizes of an image a constraint accepts, and what it says of others."""

import pytest

from mmwave.structures import SizeConstraint


@pytest.mark.parametrize(
    ('constraint', 'size'),
    [
        (SizeConstraint(), (32, 33)),
        (SizeConstraint(min_size=1), (1, 1)),
        (SizeConstraint(divisors=(32, 8)), (64, 40)),
        (SizeConstraint(only=(224, 192)), (224, 192)),
    ],
)
def test_sizes_that_fit(constraint, size):
    constraint.check(*size)


@pytest.mark.parametrize(
    ('constraint', 'size', 'message'),
    [
        (SizeConstraint(), (31, 32), r'31 x 32 pixels .* too small: .* at least 32'),
        (SizeConstraint(), (32, 31), r'32 x 31 pixels .* too small: .* at least 32'),
        (SizeConstraint(only=(224, 192)), (192, 224), r'192 x 224 .* it must have 224 x 192'),
        (SizeConstraint(divisors=(32, 32)), (64, 48), 'each side must be a multiple of 32'),
        (
            SizeConstraint(divisors=(32, 8)),
            (40, 64),
            'the height must be a multiple of 32, the width of 8',
        ),
    ],
)
def test_other_sizes_are_refused(constraint, size, message):
    with pytest.raises(ValueError, match=message):
        constraint.check(*size)
