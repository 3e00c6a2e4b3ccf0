"""No two inputs write to one file."""

import itertools

import pytest

from mmwave.apis.predicting.names import OutputNames


@pytest.mark.parametrize(
    ('paths', 'names'),
    [
        (['x/a.jpg', 'y/b.png'], ['a', 'b']),
        (['x/a.jpg', 'y/a.jpg'], ['x/a', 'y/a']),
        (['x/a.jpg', 'x/a.png'], ['a.jpg', 'a.png']),
        (['x/a.jpg', 'x/A.png'], ['a.jpg', 'A.png']),
        (['x/a.jpg', 'y/a.jpg', 'y/a.png'], ['x/a.jpg', 'y/a.jpg', 'y/a.png']),
        (['a.b.jpg', 'a.c.jpg'], ['a.b', 'a.c']),
        (['../up/a.jpg', 'a.jpg'], None),
        (['clip.mp4', 'clip.jpg'], ['clip.mp4', 'clip.jpg']),
    ],
)
def test_names(paths, names):
    found = OutputNames(paths)
    given = [found.of(path) for path in paths]
    assert names is None or given == names
    for one, other in itertools.combinations(given, 2):
        assert one.lower() != other.lower()
    assert not [name for name in given if name.startswith(('/', '..'))]
