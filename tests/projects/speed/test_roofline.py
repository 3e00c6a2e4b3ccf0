"""The machine's rate of matrix products."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from speed.roofline import gemm, gemm_peak


def test_the_peak_is_that_of_the_fastest_products():
    assert gemm_peak([4.0, 2.0, 8.0], side=8) == 2 * 8**3 / 2


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_the_measure_is_one_product(dtype):
    with FlopCounterMode(display=False) as counter:
        product = gemm(dtype, 'cpu', side=16)()
    assert (product.shape, product.dtype) == ((16, 16), dtype)
    assert counter.get_total_flops() == 2 * 16**3
