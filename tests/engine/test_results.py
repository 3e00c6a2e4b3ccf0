"""Predictions are written whole or not at all."""

import pickle

import pytest
import torch

from mmwave.engine.results import DumpWhole


class Unfit:
    def __reduce__(self):
        raise TypeError('cannot be written')


def test_an_older_file_is_replaced_by_a_whole_one_alone(tmp_path):
    path = tmp_path / 'out.pkl'
    metric = DumpWhole(str(path))
    metric.process({}, [dict(scores=torch.ones(2))])
    assert metric.evaluate(1) == {}
    before = path.read_bytes()
    (entry,) = pickle.loads(before)  # noqa: S301 - written above
    assert torch.equal(entry['scores'], torch.ones(2))
    with pytest.raises(TypeError, match='cannot be written'):
        metric.compute_metrics([torch.ones(9), Unfit()])
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ['out.pkl']
