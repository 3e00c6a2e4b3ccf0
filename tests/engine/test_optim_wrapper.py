"""Mixed precision on the CPU."""

import pytest
import torch
from mmengine.optim import build_optim_wrapper

from mmwave.engine.optim_wrapper import AutocastOptimWrapper


def test_autocast_wrapper_computes_products_in_bfloat16_and_trains():
    model = torch.nn.Linear(4, 1)
    wrapper = build_optim_wrapper(
        model,
        dict(
            type='mmwave.AutocastOptimWrapper',
            optimizer=dict(type='SGD', lr=0.1),
            accumulative_counts=2,
            clip_grad=dict(max_norm=1.0),
        ),
    )
    assert isinstance(wrapper, AutocastOptimWrapper)
    before = model.weight.detach().clone()
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    for _ in range(2):
        with wrapper.optim_context(model):
            output = model(x)
        assert output.dtype is torch.bfloat16
        wrapper.update_params(output.float().square().mean())
    assert model(x).dtype is torch.float32
    assert model.weight.dtype is torch.float32
    assert not torch.equal(model.weight, before)


def test_unknown_dtype_is_refused():
    with pytest.raises(ValueError, match="unknown dtype 'int8': expected 'bfloat16' or 'float16'"):
        AutocastOptimWrapper(dtype='int8', optimizer=torch.optim.SGD([torch.zeros(1)], lr=1))
