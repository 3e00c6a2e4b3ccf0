"""Work on some positions at a time."""

import pytest
import torch

from mmwave.ops import chunks
from mmwave.ops.chunks import add_in_parts
from tests.contracts import images


@pytest.mark.parametrize(
    ('count', 'parts'), [(0, [0]), (1, [1]), (4, [4]), (5, [4, 1]), (9, [4, 4, 1])]
)
def test_every_position_is_added_once_and_in_place(monkeypatch, count, parts):
    monkeypatch.setattr(chunks, 'CPU_CHUNK', 4)
    x, source = images(count, 3), images(count, 3)
    wanted, sizes = x + 2 * source, []

    def branch(rows):
        sizes.append(len(rows))
        return 2 * rows

    assert add_in_parts(x, source, branch) is x
    assert torch.equal(x, wanted)
    assert sizes == parts


def test_a_branch_may_read_what_is_added_to(monkeypatch):
    monkeypatch.setattr(chunks, 'CPU_CHUNK', 2)
    x = images(5, 3)
    assert torch.equal(add_in_parts(x.clone(), x, torch.square), x + x.square())
    y = x.clone()
    assert torch.equal(add_in_parts(y, y, torch.square), x + x.square())
