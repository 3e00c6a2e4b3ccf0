"""Lists of images and labels: the first line that mmpretrain cannot read is named."""

import time

import pytest
from mmpretrain.datasets import CustomDataset

from mmwave.engine.data_checks.label_lists import list_fault


@pytest.mark.parametrize(
    'text', ['a.jpg 0\nb.jpg 1\n', 'a b.jpg 0\n', 'a.jpg 0\r\nb.jpg -1', '  a.jpg 0  \n']
)
def test_lists_that_can_be_read(tmp_path, text):
    path = tmp_path / 'list.txt'
    path.write_text(text)
    assert list_fault(str(path)) is None


@pytest.mark.parametrize(
    ('text', 'number', 'line'),
    [
        ('a.jpg 0\nb.jpg cat\nc.jpg dog\n', 2, 'b.jpg cat'),
        ('a.jpg 0\nb.jpg\n', 2, 'b.jpg'),
        ('a.jpg 0\n17\nb.jpg 1\n', 2, '17'),
        ('a.jpg 0\n\nb.jpg 1\n', 2, ''),
        ('a.jpg\t0\n', 1, 'a.jpg\\t0'),
        ('a.jpg,0\n', 1, 'a.jpg,0'),
        ('a.jpg 0.0\n', 1, 'a.jpg 0.0'),
        ('a.jpg 0\nb\x1b[31m x\n', 2, 'b\\x1b[31m x'),
    ],
)
def test_the_first_line_that_cannot(tmp_path, text, number, line):
    path = tmp_path / 'list.txt'
    path.write_text(text)
    fault = list_fault(str(path))
    assert fault.startswith(f'line {number} of {str(path)!r} is ')
    assert repr(line) in fault
    with pytest.raises(ValueError, match=r'int|unpack'):
        CustomDataset(data_root=str(tmp_path), ann_file=str(path))


def test_no_text(tmp_path):
    path = tmp_path / 'list.txt'
    path.write_bytes(b'a.jpg 0\n\xff')
    assert list_fault(str(path)) == f'{str(path)!r} is no text: invalid start byte'


def test_time_for_a_large_list(tmp_path):
    """A twelfth of ImageNet's: the whole one is allowed seconds."""
    path = tmp_path / 'list.txt'
    path.write_text(''.join(f'n{i % 1000}/n{i}.JPEG {i % 1000}\n' for i in range(100_000)))
    start = time.perf_counter()
    assert list_fault(str(path)) is None
    assert time.perf_counter() - start < 2
