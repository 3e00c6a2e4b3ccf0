"""Texts out of files reach no terminal and no log as they are."""

import pytest

from mmwave.errors import printable


@pytest.mark.parametrize(
    ('text', 'shown'),
    [
        ('backbone.stem é 漢', 'backbone.stem é 漢'),
        ('a\nb\r\t\x1b[2J\0', r'a\nb\r\t\x1b[2J\x00'),
        ('\x7f\x9b\u2028', r'\x7f\x9b\u2028'),
        ('\u202eevil\u2066', r'\u202eevil\u2066'),
        ('\ud800', r'\ud800'),
        ('\U000e0041', r'\U000e0041'),
        (ValueError('a\nb'), r'a\nb'),
        (b'\x1b', r"b'\x1b'"),
    ],
)
def test_printable(text, shown):
    assert printable(text) == shown
    assert printable(text).isprintable()
    printable(text).encode()


def test_long_texts_are_cut():
    assert printable('a' * 200) == 'a' * 200
    assert printable('a' * 201) == 'a' * 200 + '... (201 characters)'
    assert printable('\n' * 30, 2) == r'\n\n... (30 characters)'
