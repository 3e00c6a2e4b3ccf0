"""Norms by their short names, what of them folds, and their statistics."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmwave.models.layers import Affine, affine_of, batch_norms, batch_statistics_kept, build_norm
from mmwave.models.layers.norm import LayerNorm2d, is_batch_norm
from tests.contracts import images, randomise_norms, relative_error


def test_norms_of_maps_by_their_names():
    assert isinstance(build_norm('BN', 6), nn.BatchNorm2d)
    x = images(2, 6, 3, 4)
    wanted = F.layer_norm(x, x.shape[1:])  # over all of an image
    assert relative_error(build_norm('GN', 6)(x), wanted) < 1e-5


def test_layer_norm_of_maps():
    norm, x = LayerNorm2d(6).double(), images(2, 6, 3, 4).double()
    nn.init.normal_(norm.weight)
    centred = x - x.mean(dim=1, keepdim=True)
    normed = centred / torch.sqrt(centred.square().mean(dim=1, keepdim=True) + norm.eps)
    assert relative_error(norm(x), normed * norm.weight[:, None, None]) < 1e-14


def test_scale_and_shift_of_a_batch_norm_are_all_it_does():
    norm = nn.BatchNorm2d(6).double().eval()
    randomise_norms(norm)
    scale, shift = affine_of(norm)
    x = images(2, 6, 3, 4).double()
    got = x * scale[:, None, None] + shift[:, None, None]
    assert relative_error(got, norm(x)) < 1e-14


@pytest.mark.parametrize('norm', [nn.LayerNorm(6), nn.GroupNorm(1, 6), Affine(6)], ids=repr)
def test_scale_and_shift_of_other_norms_are_their_own(norm):
    assert affine_of(norm) == (norm.weight, norm.bias)


def test_what_has_running_statistics():
    kinds = (nn.BatchNorm1d(6), nn.BatchNorm2d(6), nn.SyncBatchNorm(6))
    others = (nn.GroupNorm(1, 6), nn.LayerNorm(6), nn.Identity(), nn.Linear(2, 2))
    assert all(map(is_batch_norm, kinds))
    # Without them it norms as a group norm does, and nothing of it folds.
    assert not any(map(is_batch_norm, (*others, nn.BatchNorm2d(6, track_running_stats=False))))
    model = nn.Sequential(*others, nn.Sequential(*kinds))
    assert batch_norms(model) == list(kinds)


def test_statistics_are_kept_inside_and_updated_behind():
    model, x = (
        nn.Sequential(nn.BatchNorm2d(6), nn.BatchNorm2d(6, momentum=None)),
        images(2, 6, 3, 4),
    )
    wanted = model(x)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with batch_statistics_kept(model):
        assert torch.equal(model(x), wanted)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert [norm.momentum for norm in model] == [0.1, None]
    with pytest.raises(ZeroDivisionError), batch_statistics_kept(model):
        _ = 1 / 0
    model(x + 1)
    assert model[0].num_batches_tracked == 2
    assert not torch.equal(model[0].running_mean, before['0.running_mean'])
